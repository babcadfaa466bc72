# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``box_files`` in a play: checked, put, put again, damaged, and told in a diff. One play: a start costs seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tenant_plays import CORES, ROOT, Plays, words

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("core", CORES)
def test_a_second_run_changes_nothing_and_damage_is_repaired(tmp_path: Path, core: str) -> None:
    plays = Plays(ROOT / core / "bin", tmp_path)
    plays.write_inventory(
        {"all": {"hosts": {"box": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}
    )
    root, helper = tmp_path / "box", tmp_path / "helper.py"
    helper.write_text("# a long program\n" * 1000)
    wanted = {
        "folders": [str(root), str(root / "bin")],
        "files": [
            {"path": str(root / "bin/helper.py"), "src": str(helper)},
            {"path": str(root / "bin/start"), "content": "exec true\n", "mode": "755"},
        ],
    }
    damage = {"path": str(root / "bin/start"), "line": "exec false", "create": False}

    def put(name: str, **how: Any) -> dict[str, Any]:
        return {"name": name, "tenant.gpu.box_files": wanted, "diff": True, **how}

    answers, done = plays.play([
        put("check", check_mode=True),
        {"name": "still absent", "ansible.builtin.stat": {"path": str(root)}},
        put("put"),
        put("again"),
        {"name": "damage", "ansible.builtin.lineinfile": damage},
        put("check the damage", check_mode=True),
        put("repair"),
        {
            "name": "unreadable",
            "tenant.gpu.box_files": {"files": [{"path": str(root / "x"), "src": str(tmp_path / "nowhere")}]},
            "ignore_errors": True,
        },
    ])  # fmt: skip
    everything = [str(root), str(root / "bin"), str(root / "bin/helper.py"), str(root / "bin/start")]
    told = {name: (answer["changed"], answer["paths"]) for name, answer in answers.items() if "paths" in answer}
    assert told == {
        "check": (True, everything),
        "put": (True, everything),
        "again": (False, []),
        "check the damage": (True, everything[-1:]),
        "repair": (True, everything[-1:]),
    }
    assert not answers["still absent"]["stat"]["exists"]
    assert (root / "bin/helper.py").read_bytes() == helper.read_bytes()
    assert (root / "bin/start").read_text() == "exec true\n"
    assert [path.stat().st_mode & 0o777 for path in (root, root / "bin/start")] == [0o700, 0o755]
    assert "-exec false" in words(done), "the diff does not show what somebody changed"
    assert answers["unreadable"]["failure"]["what"].startswith("cannot read"), answers["unreadable"]

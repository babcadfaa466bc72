# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the end of a rental on a cluster says of the folder there: by the tasks of the role, as they stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tenant_plays import CORES, ROOT, Plays, words

pytestmark = pytest.mark.integration


def said_of(root: Path, folder: Path, du: str, *arguments: str) -> str:
    """What is said of ``root`` where ``du`` is the text of that program."""
    program = folder / "bin/du"
    program.parent.mkdir()
    program.write_text(du)
    program.chmod(0o755)
    tasks: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/teardown/tasks/slurm.yml").read_text())[1:]
    for task in tasks:
        # The play has its own registers, and needs this one by its name.
        name = task.pop("register", "")
        if name:
            task["environment"] = {"PATH": f"{program.parent}:/usr/bin:/bin"}
            tasks.insert(tasks.index(task) + 1, {"name": "k", "ansible.builtin.set_fact": {name: "{{ answer_0 }}"}})
    plays = Plays(ROOT / CORES[0] / "bin", folder)
    plays.write_inventory({"all": {"hosts": {"c1": {"ansible_connection": "local", "teardown_root": str(root)}}}})
    _answers, done = plays.play(tasks, *arguments)
    return words(done)


@pytest.mark.parametrize("code", [0, 1], ids=["whole", "one-entry-unreadable"])
def test_a_folder_that_is_there_is_never_said_to_be_gone(code: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    du = f"#!/bin/sh\necho 'du: cannot read directory 7' >&2\nprintf '3072\\t%s\\n' \"$2\"\nexit {code}\n"
    said = said_of(root, tmp_path, du)
    assert "No job of c1 is left, and the evidence is complete" in said
    assert f"3.0 MiB, as far as it can be read, in {root} counts against your quota" in said
    assert "nothing lies at" not in said


def test_an_amount_that_nobody_knows_is_not_zero(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    said = said_of(root, tmp_path, "#!/bin/sh\necho 'du: fts_read: 7 Stale file handle' >&2\nexit 1\n")
    assert f"An unknown amount in {root} counts against your quota" in said


def test_a_folder_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    said = said_of(tmp_path / "root", tmp_path, "#!/bin/sh\nexit 1\n", "--check")
    assert f"No job of c1 would be left, and nothing lies at {tmp_path / 'root'}" in said
    assert "quota" not in said

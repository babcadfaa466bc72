# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box whose shell warns on stderr before every command, as bash does of a locale that its image lacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback_sshd import REPOSITORY, LoopbackBox, loopback_box
from supervised_box import SupervisedBox, supervised_box

pytestmark = pytest.mark.integration
WARNING = "cannot change locale (xx_XX.UTF-8)"


@pytest.fixture
def box() -> Iterator[LoopbackBox]:
    with loopback_box(environment={"LC_ALL": "xx_XX.UTF-8"}) as started:
        yield started


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path, sys.executable) as made:
        made.register()
        (made.root / "bin").mkdir()
        (made.root / "bin" / "supervisor-0123456789ab.pyz").write_bytes(made.program.read_bytes())
        yield made


def play(box: LoopbackBox, tasks: list[dict[str, Any]]) -> str:
    inventory, book = box.folder / "hosts.json", box.folder / "play.yml"
    inventory.write_text(json.dumps({"all": {"hosts": {"box1": box.host_variables()}}}))
    book.write_text(yaml.safe_dump([{"hosts": "box1", "gather_facts": False, "tasks": tasks}]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-vvv", "-i", str(inventory), str(book)]
    environment = dict(box.environment(), PATH=os.environ["PATH"])
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_what_the_shell_of_a_box_says_on_stderr_spoils_no_answer(box: LoopbackBox, supervised: SupervisedBox) -> None:
    root = str(supervised.root)
    tasks: list[dict[str, Any]] = [
        {"tenant.gpu.supervisor": {"tenant_root": root, "state": state}}
        for state in ("status", "held", "sealed", "status", "stopped", "unsealed")
    ]
    tasks += [
        {"tenant.gpu.box_command": {"argv": ["sh", "-c", "wc -c; printf '%s' heard"]}, "register": "ended"},
        {"ansible.builtin.assert": {"that": "ended.stdout.split() == ['0', 'heard']"}},
        {"tenant.gpu.box_command": {"argv": ["true"], "detach": True}},
    ]
    said = play(box, tasks)
    sent = re.findall(r"SSH: EXEC .*", said)
    assert len(sent) >= len(tasks) - 1
    assert not [line for line in sent if " -tt " in line]
    assert WARNING in said, "the login's shell is one that does not warn: this test shows nothing"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``bin/stay``: the first process of a container, the only one that hears of its end. A real shell runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, desired, process
from supervised_box import PATIENCE_S, SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

TEMPLATE = Path(__file__).parents[2] / "roles" / "deploy" / "templates" / "stay.j2"
TOLD = 128 + signal.SIGTERM


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


@pytest.fixture
def container(box: SupervisedBox) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts what a deploy writes, as a container would."""
    script = box.folder / "stay"
    known = {"platform_python": sys.executable, "__deploy_pyz": str(box.program), "deploy_root": str(box.root)}
    text = jinja2.Template(TEMPLATE.read_text()).render(ansible_managed="made by a test", **known)
    script.write_text(text)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sh", str(script)], stdout=subprocess.DEVNULL, start_new_session=True))
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait(PATIENCE_S)


def ends(shell: subprocess.Popen[bytes]) -> int:
    """SIGTERM to the shell alone, as a stop of the container sends it."""
    os.kill(shell.pid, signal.SIGTERM)
    return shell.wait(PATIENCE_S)


def test_the_end_of_a_container_becomes_a_last_save_and_its_next_start_goes_on(
    box: SupervisedBox, container: Callable[[], subprocess.Popen[bytes]]
) -> None:
    box.register_held()
    first = container()
    trainer, daemon = box.await_trainer(), box.daemon()
    assert first.poll() is None, "it stays"
    assert ends(first) == TOLD
    # When the first process is gone, the container is: nothing may be left to do by then.
    assert (process.observe(trainer), process.observe(daemon)) == (process.GONE, process.GONE)
    assert Path(box.paths().checkpoints, "step-0000000002.pt").exists()
    assert attempt.read(box.paths().exit, "exit")["stop_asked"] is True
    found = box.run()
    assert (found["state"], found["stopped"], desired.read(box.layout)["desired"]) == ("preempted", False, "run")
    second = container()
    # Beyond the step at which it waited.
    box.await_state("done")
    assert box.cell()["attempt"] == 2
    assert ends(second) == TOLD


def test_a_trainer_that_lost_its_supervisor_is_told_too(
    box: SupervisedBox, container: Callable[[], subprocess.Popen[bytes]]
) -> None:
    box.register_held()
    shell = container()
    trainer = box.await_trainer()
    box.kill(box.daemon())
    assert ends(shell) == TOLD
    assert process.observe(trainer) == process.GONE
    assert attempt.read(box.paths().exit, "exit")["wrapper"] == 30


def test_a_box_without_a_deploy_stays_and_ends_when_it_is_told(
    box: SupervisedBox, container: Callable[[], subprocess.Popen[bytes]]
) -> None:
    shell = container()
    wait_for("the shell to wait", lambda: b"sleep" in _child_names(shell.pid))
    assert ends(shell) == TOLD
    assert not box.root.exists()


def _child_names(pid: int) -> list[bytes]:
    found = []
    for child in process.children(pid):
        try:
            found.append(Path(f"/proc/{child}/comm").read_bytes().strip())
        except OSError:
            continue
    return found

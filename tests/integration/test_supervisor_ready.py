# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A look at a run at work, with the real supervisor: what it kept ready is what a status computes, and whatever happens
to box, supervisor or trainer, a look says the same as without it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import process
from supervised_box import SupervisedBox, supervised_box, wait_for
from thread_states import STOPPED, thread_states

from gpu_tenant.hosts import BoxHost
from gpu_tenant.question import Asked, status_question

pytestmark = pytest.mark.integration

# What moves on between two looks at one and the same state.
MOVING = {"age_s", "idle_s", "running_s", "heartbeat_at", "box_now", "step", "loss", "rate", "eta_s", "log_bytes"} | {
    *("last_checkpoint", "disk", "health", "resumed_from_step", "steps", "epoch")
}


class Looks:
    """Looks at a box as ``gpu-tenant status`` does; ``asked`` counts those for which Python was started."""

    def __init__(self, box: SupervisedBox) -> None:
        self.box = box
        self._marks = box.folder / "marks"
        python = box.folder / "python"
        python.write_text(f'#!/bin/sh\necho >>{shlex.quote(str(self._marks))}\nexec {shlex.quote(box.python)} "$@"\n')
        python.chmod(0o755)
        self._host = BoxHost("b1", {"platform_data_dir": str(box.folder / "data"), "platform_python": str(python)})

    @property
    def asked(self) -> int:
        return len(self._marks.read_text()) if self._marks.exists() else 0

    def look(self, ready: bool = True) -> dict[str, Any]:
        command = status_question(self._host, Asked(ready=ready))
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def await_ready(self) -> None:
        wait_for("an answer to be ready", Path(self.box.layout.answer).exists)

    def both(self) -> tuple[Any, Any]:
        """What a look says, and what is computed."""
        return still(self.look()), still(self.look(ready=False))


def still(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: still(item) for key, item in value.items() if key not in MOVING}
    return [still(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[Looks]:
    """A box whose trainer waits, with its program where a deploy puts it."""
    with supervised_box(tmp_path) as made:
        folder = made.root / "bin"
        folder.mkdir(parents=True)
        for unpacked in made.folder.glob("unpacked-*"):
            (folder / unpacked.name).symlink_to(unpacked)
        made.program = Path(shutil.move(made.program, folder / "supervisor-0123456789ab.pyz"))
        made.register_held()
        made.verb("start")
        made.await_trainer()
        found = Looks(made)
        found.await_ready()
        yield found


def test_a_run_at_work_is_told_without_an_interpreter(looks: Looks) -> None:
    told = looks.look()
    assert looks.asked == 0
    assert (told["runs"][0]["state"], told["daemon"]["alive"], told["problems"]) == ("running", True, [])
    told_still, computed = looks.both()
    assert told_still == computed
    assert looks.asked == 1


def test_a_stopped_supervisor_and_one_that_goes_on(looks: Looks) -> None:
    daemon = looks.box.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_for("it to be stopped", lambda: thread_states(daemon.pid) <= STOPPED)
    told, computed = looks.both()
    assert told == computed
    assert looks.asked == 2
    os.kill(daemon.pid, signal.SIGCONT)
    wait_for("the answer to hold again", lambda: fresh(looks))


def fresh(looks: Looks) -> bool:
    before = looks.asked
    looks.look()
    return looks.asked == before


def test_a_killed_supervisor_is_told_as_dead_at_once(looks: Looks) -> None:
    looks.box.kill(looks.box.daemon())
    told = looks.look()
    assert (looks.asked, told["daemon"]["alive"], told["runs"][0]["state"]) == (1, False, "running")


def test_a_trainer_that_died_is_never_told_as_running(looks: Looks) -> None:
    trainer = process.identity_from(looks.look()["runs"][0]["cells"][0]["process"])
    daemon = looks.box.daemon()
    # Nobody else is there to take notice of it.
    os.kill(daemon.pid, signal.SIGSTOP)
    looks.box.kill(trainer)
    looks.look()
    assert looks.asked == 1
    os.kill(daemon.pid, signal.SIGCONT)


def test_what_a_verb_did_is_told_at_once_and_the_end_as_well(looks: Looks) -> None:
    looks.box.verb("hold")
    assert looks.look()["desired"] == "hold"
    looks.box.release()
    looks.box.await_state("done")
    assert looks.look()["runs"][0]["state"] == "done"
    looks.box.await_no_daemon()
    assert not os.path.exists(looks.box.layout.answer)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a supervisor and a shim may take from the box whose trainer they watch. Counted and compared, never timed: the
figures themselves are in docs/benchmarks.md (``make bench BENCH=supervisor``)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, supervise
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

NEIGHBOURS = 60
WAKE_UPS = 8
# Two processes, each of them looked at by four files, and what housekeeping reads.
MOST_READS = 24
# Modules that judge artifacts, answer people or talk to a metadata service: megabytes of compiled code.
NOT_FOR_A_SHIM = {"artifacts", "sharded", "dcp", "inert_pickle", "zip_archive", "structure", "finish", "durable"} | {
    *("control", "manifest", "seal", "status", "supervise", "policy", "left_behind", "pruning")
}


class Watch:
    """One process, as /proc counts it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun = self._counts()

    def _counts(self) -> dict[str, int]:
        text = Path(f"/proc/{self._pid}/status").read_text() + Path(f"/proc/{self._pid}/io").read_text()
        pairs = (line.split(":", 1) for line in text.splitlines())
        counts = {key: int(value.split()[0]) for key, value in pairs if key in ("voluntary_ctxt_switches", "syscr")}
        schedule = Path(f"/proc/{self._pid}/schedstat").read_text().split()
        return {"wake-ups": counts["voluntary_ctxt_switches"], "reads": counts["syscr"], "busy_ns": int(schedule[0])}

    def since(self) -> dict[str, int]:
        now = self._counts()
        return {key: now[key] - self._begun[key] for key in now}

    def of_one(self, what: str) -> float:
        """How much of ``what`` a wake-up takes."""
        counted = wait_for(f"{WAKE_UPS} wake-ups", lambda: self._after(WAKE_UPS))
        return float(counted[what]) / float(counted["wake-ups"])

    def _after(self, wake_ups: int) -> dict[str, int] | None:
        counted = self.since()
        return counted if counted["wake-ups"] >= wake_ups else None


@contextlib.contextmanager
def neighbours() -> Iterator[None]:
    """Processes of others, as a busy host has them."""
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "600"], dict(os.environ)) for _one in range(NEIGHBOURS)]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    """A box whose trainer waits."""
    with neighbours(), supervised_box(tmp_path) as made:
        made.register_held()
        made.verb("start")
        made.await_trainer()
        yield made


def shim_pid(box: SupervisedBox) -> int:
    found = attempt.shim_of(box.paths())
    assert found is not None
    return found.pid


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1])


def test_a_watch_reads_a_few_files_and_none_of_the_neighbours(box: SupervisedBox) -> None:
    daemon, shim = Watch(box.daemon().pid), Watch(shim_pid(box))
    assert 0 < daemon.of_one("reads") <= MOST_READS
    assert shim.of_one("reads") < 1


def test_a_wake_up_takes_less_than_starting_an_interpreter_takes(box: SupervisedBox) -> None:
    """At two wake-ups a second, a hundredth of what ``python -I -c pass`` takes would be far below the bar."""
    before = os.times().children_user + os.times().children_system
    for _start in range(3):
        subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    interpreter_ns = (os.times().children_user + os.times().children_system - before) / 3 * 1e9
    for pid in (box.daemon().pid, shim_pid(box)):
        assert Watch(pid).of_one("busy_ns") < interpreter_ns / 5


def test_neither_holds_much_more_than_an_idle_interpreter(box: SupervisedBox) -> None:
    program = "import hashlib; print('here', flush=True); input()"
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as idle:
        assert idle.stdout is not None
        idle.stdout.readline()
        bare = resident_kib(idle.pid)
        idle.kill()
    held = [resident_kib(pid) for pid in (box.daemon().pid, shim_pid(box))]
    assert max(held) < 2 * bare, (held, bare)


def test_a_shim_loads_only_what_it_needs(box: SupervisedBox) -> None:
    command = [box.python, "-I", "-X", "importtime", str(box.program), "--root", str(box.root), "shim"]
    done = subprocess.run(
        [*command, "--run", "digits", "--cell", "c1", "--attempt", "1"], capture_output=True, text=True, check=False
    )
    loaded = {line.rpartition("tenant_box.")[2] for line in done.stderr.splitlines() if "tenant_box." in line}
    assert {"shim", "attempt", "records"} <= loaded, done.stderr
    assert not loaded & NOT_FOR_A_SHIM


def test_the_end_of_an_adopted_trainer_is_not_waited_for_longer_than_that_of_an_own_one() -> None:
    assert supervise.ADOPTED_TICK_S < supervise.TICK_S
    assert supervise.ADOPTED_TICK_S <= 0.2


def children_of(pid: int) -> list[str]:
    """Zombies too."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_shim_collects_the_orphans_of_its_trainer(tmp_path: Path) -> None:
    """The shim inherits them; as zombies they would fill the table of a container whose first process collects none."""
    mark = tmp_path / "mark"
    script = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; : > $MARK; read x < $GATE; exit 0"
    with supervised_box(tmp_path) as made:
        env = {"GATE": str(made.gate), "MARK": str(mark)}
        made.register(command=["/bin/sh", "-c", script], env=env, artifacts=[])
        made.verb("start")
        wait_for("the trainer to have lost its children", mark.exists)
        trainer = attempt.trainer_of(made.paths())
        assert trainer is not None
        wait_for("no orphan left", lambda: children_of(shim_pid(made)) == [str(trainer.pid)])
        made.release()
        made.await_state("done")

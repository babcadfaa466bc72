# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The answer that a supervisor keeps ready is told only where a shell can prove it; all else is computed as ever.

Supervisor and trainer are processes that sleep, the shells are real, and the interpreter says that it was asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import process, ready_answer, records

from gpu_tenant import question
from gpu_tenant.hosts import BoxHost

SHELLS = [words for words in (["sh"], ["dash"], ["bash"], ["busybox", "sh"], ["ksh"]) if shutil.which(words[0])]
TOLD, COMPUTED = '{"told": "it \\\\ runs"}', "computed"
PROGRAM = "supervisor-0123456789ab.pyz"


class Box:
    """A folder as a supervisor leaves it, with its answer; ``proof`` are the words of its first line."""

    def __init__(self, folder: Path) -> None:
        self.host = BoxHost("b1", {"platform_data_dir": str(folder), "platform_python": str(folder / "my python")})
        self.root = folder / "gpu-tenant"
        (self.root / "bin").mkdir(parents=True)
        self.program = self.root / "bin" / PROGRAM
        self.program.write_text("")
        python = folder / "my python"
        python.write_text(f'#!/bin/sh\necho {COMPUTED} "$@"\n')
        python.chmod(0o755)
        self.supervisor, self.trainer = (self._process() for _each in range(2))
        me, trainer = (process.identify(each.pid) for each in (self.supervisor, self.trainer))
        assert me is not None
        assert trainer is not None
        now = uptime_s()
        self.proof: dict[str, Any] = {
            "form": records.schema("answer"),
            "boot": me.boot_id,
            "first": me.pid1_start,
            "pid": me.pid,
            "start": me.start,
            "trainer": trainer.pid,
            "since": trainer.start,
            "at": now,
            # Far more than a busy machine can be late.
            "until": now + 600,
            "program": PROGRAM,
        }
        self.lines = [TOLD]

    def _process(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"])

    def write(self) -> None:
        first = " ".join(map(str, self.proof.values()))
        (self.root / "answer").write_text("".join(f"{line}\n" for line in [first, *self.lines]))

    def ask(self, shell: list[str], run_id: str = "", ready: bool = True) -> str:
        command = question.status_question(self.host, question.Asked(run_id, ready))
        done = subprocess.run([*shell, "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def close(self) -> None:
        for each in (self.supervisor, self.trainer):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
            each.wait()


def uptime_s() -> int:
    return int(float(Path("/proc/uptime").read_text().split()[0]))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "my data")
    made.write()
    yield made
    made.close()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_what_can_be_proven_is_told_without_an_interpreter(box: Box, shell: list[str]) -> None:
    assert box.ask(shell) == TOLD + "\n"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_one_run_and_a_decision_are_computed(box: Box, shell: list[str]) -> None:
    assert box.ask(shell, ready=False).startswith(COMPUTED)
    asked = box.ask(shell, run_id="digits")
    assert asked.startswith(COMPUTED)
    assert asked.split()[-3:] == ["status", "--run", "digits"]


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def become_zombie(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    await_state(child, "Z")


def stop(child: subprocess.Popen[bytes]) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    await_state(child, "T")


def await_state(child: subprocess.Popen[bytes], letter: str) -> None:
    until = time.monotonic() + 60
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != letter:
        assert time.monotonic() < until
        time.sleep(0.01)


def newer_program(box: Box) -> None:
    later = box.root / "bin" / "supervisor-ba9876543210.pyz"
    later.write_text("")
    about = box.program.stat()
    os.utime(later, ns=(about.st_atime_ns, about.st_mtime_ns + 2_000_000_000))


def program_of_the_same_moment(box: Box) -> None:
    newer_program(box)
    for each in (box.root / "bin").iterdir():
        os.utime(each, ns=(10**18, 10**18))


def set_proof(**changes: Any) -> Callable[[Box], None]:
    return lambda box: box.proof.update(changes)


def a_folder_in_its_place(box: Box) -> None:
    (box.root / "answer").unlink()
    (box.root / "answer").mkdir()


# What is done before the answer lies there, and what then.
BEFORE: dict[str, Callable[[Box], Any]] = {
    "another life of the machine": set_proof(boot="11111111-2222-3333-4444-555555555555"),
    "another life of the container": lambda box: box.proof.update(first=box.proof["first"] + 1),
    "the supervisor's pid is used again": lambda box: box.proof.update(start=box.proof["start"] - 1),
    "the trainer's pid is used again": lambda box: box.proof.update(since=box.proof["since"] - 1),
    "old: the supervisor hangs, or its disk is full": lambda box: box.proof.update(at=box.proof["at"] - 700, until=1),
    "of the future: of another clock": lambda box: box.proof.update(at=box.proof["at"] + 500),
    "no number where one belongs": set_proof(at="08x"),
    "no number where the last one belongs": set_proof(until="soon"),
    "a number that is none": set_proof(until="08"),
    "no pid": set_proof(pid="../self"),
    "another form": set_proof(form="gpu-tenant/answer/v2"),
    "of a program that is not there": set_proof(program="supervisor-ffffffffffff.pyz"),
    "of a program elsewhere": set_proof(program="../../../bin/sh"),
    "too few words": lambda box: box.proof.pop("program"),
    "an answer that was cut": lambda box: box.lines.__setitem__(0, TOLD[:-1]),
    "no answer": lambda box: box.lines.clear(),
    "an empty answer": lambda box: box.lines.__setitem__(0, ""),
}
AFTER: dict[str, Callable[[Box], Any]] = {
    "a dead supervisor": lambda box: end(box.supervisor),
    "a dead trainer": lambda box: end(box.trainer),
    "a zombie supervisor": lambda box: become_zombie(box.supervisor),
    "a zombie trainer": lambda box: become_zombie(box.trainer),
    "a stopped supervisor": lambda box: stop(box.supervisor),
    "a newer program": newer_program,
    "a program of the same moment": program_of_the_same_moment,
    "no file": lambda box: (box.root / "answer").unlink(),
    "an empty file": lambda box: (box.root / "answer").write_text(""),
    "a folder": a_folder_in_its_place,
}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("case", [*BEFORE, *AFTER])
def test_law_5_what_cannot_be_proven_is_computed(box: Box, shell: list[str], case: str) -> None:
    if case in BEFORE:
        BEFORE[case](box)
        box.write()
    else:
        AFTER[case](box)
    assert box.ask(shell).startswith(COMPUTED)


def test_a_stopped_trainer_still_is_what_was_told(box: Box) -> None:
    """As it is for the supervisor itself: it lives."""
    stop(box.trainer)
    assert box.ask(["sh"]) == TOLD + "\n"


def test_an_odd_name_of_a_process_hides_nothing(box: Box, tmp_path: Path) -> None:
    """A name may hold blanks and brackets."""
    odd = tmp_path / "a) S 1 (b"
    shutil.copy(shutil.which("sleep") or "", odd)
    end(box.trainer)
    box.trainer = subprocess.Popen([str(odd), "600"])
    found = process.identify(box.trainer.pid)
    assert found is not None
    box.proof.update(trainer=found.pid, since=found.start)
    box.write()
    assert box.ask(["sh"]) == TOLD + "\n"
    box.proof.update(since=found.start - 1)
    box.write()
    assert box.ask(["sh"]).startswith(COMPUTED)


def test_a_box_without_a_program_says_so(box: Box) -> None:
    box.program.unlink()
    command = question.status_question(box.host, question.Asked(ready=True))
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (question.NO_SUPERVISOR, b"")


def test_an_answer_lasts_a_few_tells_and_no_longer() -> None:
    assert ready_answer.TELL_S < ready_answer.MOST_AGE_S <= 3 * ready_answer.TELL_S

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a trainer counts as stalled: it writes nothing, its processes rest, and so do its GPUs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, judge, shim, stall
from ansible_collections.tenant.gpu.plugins.module_utils.box.failure_class import STALLED, Failure
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

STALL_S = 1800.0
PATIENCE_S = 600.0


class Trainer:
    """One that the test makes write and compute, on a clock of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, needs_gpu: bool) -> None:
        self.paths = Layout(str(folder)).attempt("digits", "c1", 1)
        os.makedirs(self.paths.folder)
        self.now, self.used, self.written, self.gpus_work = 5000.0, 0.0, 0, False
        self.write()
        run: dict[str, Any] = {"stall_s": STALL_S, "gpu": {"required": needs_gpu, "count": 1}, "env": {}}
        monkeypatch.setattr(attempt, "members", lambda _paths: [])
        monkeypatch.setattr(stall, "cpu_s", lambda _members: self.used)
        monkeypatch.setattr(stall, "gpus_work", lambda _run: self.gpus_work)
        self.watch = stall.Watch(self.paths, run, lambda: self.now)

    def write(self) -> None:
        self.written += 1
        Path(self.paths.log).touch()
        os.utime(self.paths.log, (self.written, self.written))

    def goes_on(self, seconds: float, cpu: float = 0.0, writes: bool = False) -> str:
        """The first word of a stall within ``seconds``."""
        for _look in range(int(seconds / stall.LOOK_S)):
            self.now += stall.LOOK_S
            self.used += cpu * stall.LOOK_S
            if writes:
                self.write()
            found = self.watch.look()
            errand = self.watch._errand
            if errand is not None:
                assert errand.wait(PATIENCE_S)
            if found:
                return found
        return ""


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def trainer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    return Trainer(tmp_path, monkeypatch, request.param)


def test_law_6_one_that_neither_writes_nor_computes_is_found(trainer: Trainer) -> None:
    assert trainer.goes_on(STALL_S) == ""
    assert "written nothing, and it does not compute" in trainer.goes_on(600.0)


def test_one_that_computes_in_silence_or_writes_at_rest_is_left_alone(trainer: Trainer) -> None:
    assert trainer.goes_on(5 * STALL_S, cpu=0.5) == ""
    assert trainer.goes_on(5 * STALL_S, writes=True) == ""
    assert trainer.goes_on(STALL_S + 600.0) != ""


def test_one_that_writes_is_left_alone_when_the_clock_is_set_back(trainer: Trainer) -> None:
    Path(trainer.paths.claim).touch()
    eight_hours = 8 * 3600
    os.utime(trainer.paths.claim, (eight_hours, eight_hours))
    trainer.written = eight_hours
    assert trainer.goes_on(600.0, writes=True) == ""
    # The claim is written once: what is written from now on is older than it for hours.
    trainer.written = 0
    assert trainer.goes_on(5 * STALL_S, writes=True) == ""
    assert trainer.goes_on(STALL_S + 600.0) != ""


def test_the_word_stalled_does_not_follow_a_clock_that_is_set_forward(trainer: Trainer) -> None:
    def word(told: object) -> str:
        idle_s = stall.idle_s(trainer.paths, told)
        return judge.liveness_word(True, False, True, "", idle_s, STALL_S)

    life = stall.Life(trainer.paths)
    life.look()
    # Files of hours ago for the clock, which its shim has seen change a moment ago.
    assert word(None) == "stalled"
    assert word(life.as_dict()) == "alive"
    # Of another life of the box, or by another machine's clock, it says nothing.
    assert word({**life.as_dict(), "boot": {}}) == "stalled"
    long_ago = {**life.as_dict(), "at_s": life.at - 2 * STALL_S}
    assert word(long_ago) == "stalled"


def test_what_was_written_since_the_shim_looked_counts(trainer: Trainer) -> None:
    life = stall.Life(trainer.paths)
    os.utime(trainer.paths.log)
    idle_s = stall.idle_s(trainer.paths, {**life.as_dict(), "at_s": life.at - 2 * STALL_S})
    assert idle_s is not None
    assert idle_s < STALL_S


def test_one_whose_gpu_works_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tmp_path, monkeypatch, needs_gpu=True)
    trainer.gpus_work = True
    assert trainer.goes_on(5 * STALL_S) == ""
    trainer.gpus_work = False
    assert trainer.goes_on(600.0) != ""


def test_a_run_without_patience_of_its_own_is_never_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tmp_path, monkeypatch, needs_gpu=False)
    trainer.watch._run["stall_s"] = 0.0
    assert trainer.goes_on(50 * STALL_S) == ""


def test_the_processor_time_of_this_process_is_counted() -> None:
    from ansible_collections.tenant.gpu.plugins.module_utils.box import process

    before, over = stall.cpu_s([process.myself()]), threading.Event()
    while stall.cpu_s([process.myself()]) <= before:
        over.is_set()
    assert stall.cpu_s([]) == 0.0


@pytest.mark.parametrize("child", [0, 1, 30, -15, -9])
def test_a_stall_is_tried_once_more_however_it_answered_to_the_signal(child: int) -> None:
    wrapper = shim.wrapper_exit(child, stop_asked=False, failure=Failure(STALLED, "it stalls"))
    ended = judge.ExitFacts(wrapper, child, failure=STALLED)
    facts = [judge.AttemptFacts(n, phase="failed", begun=True, exit=ended, wrapper=wrapper, saved=True) for n in (1, 2)]
    once = judge.judge_cell(judge.CellFacts("digits", "c1", tuple(facts[:1]), highest=1))
    assert (once.state, once.next, once.number) == ("preempted", judge.RUN, 2)
    twice = judge.judge_cell(judge.CellFacts("digits", "c1", tuple(facts), highest=2))
    assert (twice.state, twice.next) == ("failed", judge.NOTHING)

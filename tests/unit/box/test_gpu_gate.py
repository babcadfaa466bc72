# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How the supervisor uses what it learns of the GPUs before a cell, however slowly the driver answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu, gpu_gate, gpu_locks, judge

ONE_CARD = gpu.Reading((gpu.Gpu(0, "GPU-0a", "RTX 4090", 24564, 1),))
HELD = gpu.Reading((gpu.Gpu(0, "GPU-0a", "RTX 4090", 24564, 9000),))
SILENT = gpu.Reading(problem="nvidia-smi: no answer within 20 s", silent=True)
LEFTOVER = ["GPU 0 (RTX 4090) has 9000 MiB in use, and none of it by us: a leftover process holds it"]
STEP = judge.Step(judge.RUN, "digits", "c1", 1)
RUN: dict[str, Any] = {"run_id": "digits", "gpu": {"required": True, "count": 1}, "env": {}}
PATIENCE_S = 600.0


class Asker:
    """Asks a gate on a machine whose driver never answers at once, at times that the test sets.

    :attr reading: what the driver answers, when at last it does. :attr taken: cards that trainers of other roots use.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.gate = gpu_gate.Gate(lambda: self.now)
        self.reading, self.taken, self.readings = ONE_CARD, list[str](), 0
        self.faults = list[str]()
        self.unanswered: gpu.Unanswered | None = None
        self._answers = threading.Event()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(gpu, "read", self._read)
        monkeypatch.setattr(gpu, "faults", self._faults)
        monkeypatch.setattr(gpu_locks, "held", lambda _names: list(self.taken))

    def _read(self) -> gpu.Reading:
        self.readings += 1
        assert self._answers.wait(PATIENCE_S)
        return self.reading

    def _faults(self, **_only: object) -> list[str]:
        if self.unanswered:
            raise self.unanswered
        return self.faults

    def ask(self) -> list[str] | None:
        return self.gate.ask(STEP, RUN)

    def look(self) -> list[str] | None:
        """What one look leads to."""
        assert self.ask() is None
        errand = self.gate._errand
        assert errand is not None, "it looks"
        assert self.ask() is None, "nobody waits for the driver"
        self._answers.set()
        assert errand._back.wait(PATIENCE_S)
        self._answers.clear()
        return self.ask()

    def later(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def asker(monkeypatch: pytest.MonkeyPatch) -> Asker:
    return Asker(monkeypatch)


def test_fit_cards_are_named_for_their_locks_and_the_next_cell_gets_a_look_of_its_own(asker: Asker) -> None:
    assert asker.look() == []
    assert asker.gate.cards == ("GPU-0a",)
    assert asker.look() == []
    assert asker.readings == 2


def test_an_answer_that_took_longer_than_one_waits_between_looks_is_used(asker: Asker) -> None:
    assert asker.ask() is None
    errand = asker.gate._errand
    asker.later(gpu_gate.LOOK_S + gpu_gate.UNFIT_S)
    assert asker.ask() is None
    assert asker.gate._errand is errand
    asker._answers.set()
    assert errand is not None
    assert errand._back.wait(PATIENCE_S)
    assert asker.ask() == []


def test_a_driver_that_was_slow_once_ends_no_queue_and_one_that_hangs_is_asked_twice(asker: Asker) -> None:
    asker.reading = SILENT
    assert asker.look() is None
    assert asker.gate.waits_for == "the run needs a GPU: nvidia-smi: no answer within 20 s"
    asker.later(gpu_gate.LOOK_S)
    asker.reading = ONE_CARD
    assert asker.look() == []
    asker.reading = SILENT
    assert asker.look() is None
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == ["the run needs a GPU: nvidia-smi: no answer within 20 s"]
    assert asker.readings == 4


def test_a_driver_that_hangs_when_it_is_asked_for_faults_is_asked_twice_and_starts_no_cell(asker: Asker) -> None:
    asker.unanswered = gpu.Unanswered("nvidia-smi: no answer within 20 s", silent=True)
    assert asker.look() is None
    told = "the GPUs cannot be asked for faults: nvidia-smi: no answer within 20 s"
    assert asker.gate.waits_for == told
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == [told]
    asker.unanswered = gpu.Unanswered("nvidia-smi failed with 255: ", silent=False)
    assert asker.look() is None
    asker.unanswered = None
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == [], "it was a moment's failure"


def test_memory_that_the_driver_gives_back_late_is_waited_for(asker: Asker) -> None:
    asker.reading = HELD
    assert asker.look() is None
    assert asker.ask() is None
    assert asker.readings == 1, "not before a while"
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() is None
    asker.reading = ONE_CARD
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == []
    assert asker.gate.waits_for == ""


def test_memory_that_nobody_gives_back_is_a_leftover(asker: Asker) -> None:
    asker.reading = HELD
    for _look in range(int(gpu_gate.UNFIT_S / gpu_gate.LOOK_S)):
        assert asker.look() is None
        asker.later(gpu_gate.LOOK_S)
    assert asker.look() == LEFTOVER


@pytest.mark.parametrize("lacks", ["tool", "card"])
def test_what_no_later_look_could_find_otherwise_is_said_at_once(asker: Asker, lacks: str) -> None:
    if lacks == "tool":
        asker.reading = gpu.Reading(problem=gpu.NOT_INSTALLED)
    else:
        asker.faults = ["GPU 0 has 3 uncorrectable memory errors since its driver was loaded"]
    found = asker.look()
    assert found
    assert asker.readings == 1


def test_cards_of_another_root_are_looked_at_again_only_after_a_while(asker: Asker) -> None:
    asker.taken, asker.reading = ["GPU-0a"], HELD
    assert asker.look() is None
    assert asker.gate.waits_for == "another run on this machine uses GPU GPU-0a"
    asker.taken = []
    assert asker.ask() is None
    assert asker.readings == 1
    # The other one has let go, and its memory is given back a moment later.
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() is None
    asker.reading = ONE_CARD
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == []


def test_law_6_the_wait_for_ones_turn_on_a_card_has_an_end(asker: Asker) -> None:
    asker.taken = ["GPU-0a"]
    assert asker.look() is None
    asker.later(gpu_gate.TAKEN_S - 1)
    assert asker.look() is None
    asker.later(gpu_gate.LOOK_S)
    assert asker.look() == ["another run on this machine uses GPU GPU-0a, and has for 12 h"]
    # Asked anew, it waits anew; and a turn in between begins another wait.
    assert asker.look() is None
    asker.later(gpu_gate.TAKEN_S - 1)
    asker.taken, asker.reading = [], HELD
    assert asker.look() is None
    asker.later(gpu_gate.LOOK_S)
    asker.taken = ["GPU-0a"]
    assert asker.look() is None


def test_a_run_that_needs_no_gpu_asks_nobody(asker: Asker) -> None:
    run = dict(RUN, gpu={"required": False, "count": 1})
    assert asker.gate.ask(STEP, run) == []
    assert (asker.gate.cards, asker.readings) == ((), 0)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How the supervisor uses what it learns of the GPUs before a cell, however slowly the driver answers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu, gpu_locks, judge, supervise
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

ONE_CARD = gpu.Reading((gpu.Gpu(0, "GPU-0a", "RTX 4090", 24564, 1),))
STEP = judge.Step(judge.RUN, "digits", "c1", 1)
RUN: dict[str, Any] = {"run_id": "digits", "gpu": {"required": True, "count": 1}, "env": {}}
PATIENCE_S = 20.0


class Gate:
    """A supervisor's gate on a machine whose driver never answers at once.

    :attr reading: what the driver answers, when at last it does. :attr taken: cards that trainers of other roots use.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout(str(folder / "gpu-tenant"))
        os.makedirs(os.path.dirname(layout.daemon), exist_ok=True)
        self.supervisor = supervise.Supervisor(layout, ["supervisor.pyz"])
        self.reading, self.taken, self.readings = ONE_CARD, list[str](), 0
        self._answers = threading.Event()
        monkeypatch.setattr(gpu, "read", self._read)
        monkeypatch.setattr(gpu, "faults", lambda **_only: [])
        monkeypatch.setattr(gpu_locks, "held", lambda _names: list(self.taken))

    def _read(self) -> gpu.Reading:
        self.readings += 1
        assert self._answers.wait(PATIENCE_S)
        return self.reading

    def ask(self) -> list[str] | None:
        return self.supervisor._unfit(STEP, RUN)

    def let_the_driver_answer(self) -> None:
        look = self.supervisor._look
        assert look is not None
        self._answers.set()
        assert look.errand._back.wait(PATIENCE_S)
        self._answers.clear()

    def answer(self) -> list[str]:
        """The first word that is one, as the supervisor's loop gets it."""
        for _look in range(5):
            found = self.ask()
            if found is not None:
                return found
            self.let_the_driver_answer()
        raise AssertionError(f"no answer after {self.readings} readings")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(tmp_path, monkeypatch)


def test_an_answer_that_took_longer_than_one_waits_between_looks_is_used(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "GPU_LOOK_S", 0.0)  # every answer takes longer
    assert gate.answer() == []
    gate.reading = gpu.Reading()
    assert gate.answer() == ["the run needs 1 GPUs, nvidia-smi reports 0"]


def test_a_driver_that_gives_no_answer_is_asked_once(gate: Gate) -> None:
    gate.reading = gpu.Reading(problem="nvidia-smi: no answer within 20 s")
    assert gate.answer() == ["the run needs a GPU: nvidia-smi: no answer within 20 s"]
    assert gate.readings == 1


def test_cards_of_another_root_are_looked_at_again_only_after_a_while(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "GPU_LOOK_S", 3600.0)
    gate.taken = ["GPU-0a"]
    assert gate.ask() is None
    gate.let_the_driver_answer()
    assert gate.ask() is None
    gate.taken = []
    assert gate.ask() is None
    assert gate.readings == 1
    monkeypatch.setattr(supervise, "GPU_LOOK_S", 0.0)
    assert gate.answer() == []
    assert gate.readings == 2

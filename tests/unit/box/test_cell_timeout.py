# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long an attempt may work: by the clock since boot, by the run record as it is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    cell_timeout,
    control,
    failure_class,
    judge,
    process,
    run_record,
    supervise,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from test_earlier_failures import RUN

BEGAN_S = 5000.0


class Working:
    """An attempt that began at :data:`BEGAN_S`, looked at after each second."""

    def __init__(self, limit_s: float, began_s: float | None = BEGAN_S) -> None:
        self.record: dict[str, Any] = {"cell_timeout_s": limit_s}
        self.now, self.reads = BEGAN_S, 0
        self.began_s = began_s
        self.watch = cell_timeout.Watch(lambda: self.began_s, self._read, lambda: self.now)

    def _read(self) -> dict[str, Any]:
        self.reads += 1
        return self.record

    def works(self, seconds: int) -> str:
        for _second in range(seconds):
            self.now += 1
            why = self.watch.look()
            if why:
                return why
        return ""


@pytest.mark.parametrize("limit_s", [1, 7, 29, 31, 45, 3600])
def test_it_is_over_when_the_limit_is_and_not_before(limit_s: int) -> None:
    cell = Working(limit_s)
    assert cell.works(limit_s - 1) == ""
    assert f"cell_timeout_s is {limit_s}" in cell.works(1)


def test_no_limit_ends_nobody() -> None:
    assert Working(0).works(100_000) == ""


def test_whose_start_nobody_knows_is_not_ended() -> None:
    assert Working(1, began_s=None).works(1000) == ""


def test_whose_start_becomes_known_while_it_is_watched_is_ended_within_a_look() -> None:
    cell = Working(100, began_s=None)
    assert cell.works(70) == ""
    cell.began_s = BEGAN_S + 70
    assert cell.works(99) == ""
    assert "has worked for 100 s" in cell.works(1)
    late = Working(10, began_s=None)
    late.works(1)
    late.began_s = BEGAN_S
    assert late.works(int(cell_timeout.LOOK_S))


def test_a_trainer_that_a_slow_shim_records_late_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(supervise.stopping, "ask", lambda _paths, _grace_s, _why, failure: asked.append(failure))
    monkeypatch.setattr(cell_timeout, "LOOK_S", 0.0)
    layout = Layout(str(tmp_path / "root"))
    run = run_record.check_run({**RUN, "cell_timeout_s": 1e-6})
    control.register(layout, control.Caller(("s.pyz",)), run)
    step = judge.Step(judge.WATCH, "r", "c", 1)
    paths = attempt.claim(layout, run, run["cells"][0], 1)
    supervisor = supervise.Supervisor(layout, ["s.pyz"])
    assert not supervisor._end_if_hopeless(step, paths)
    attempt.write_status(paths, attempt.work(run, run["cells"][0], 1), process=process.myself().as_dict())
    assert supervisor._end_if_hopeless(step, paths)
    assert asked == [failure_class.TIMED_OUT]


def test_a_limit_that_is_raised_meanwhile_is_heard_in_time() -> None:
    cell = Working(100)
    assert cell.works(99) == ""
    cell.record["cell_timeout_s"] = 200
    assert cell.works(100) == ""
    assert "has worked for 200 s" in cell.works(1)


def test_a_limit_that_is_set_meanwhile_is_heard_within_a_look() -> None:
    cell = Working(0)
    assert cell.works(500) == ""
    cell.record["cell_timeout_s"] = 60
    assert cell.works(int(cell_timeout.LOOK_S))


def test_the_record_is_not_read_at_every_tick() -> None:
    cell = Working(3600)
    cell.works(600)
    assert cell.reads <= 600 / cell_timeout.LOOK_S + 1

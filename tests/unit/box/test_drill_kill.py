# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a drill kills the first try, and what it notes of that moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import resume_drill
from ansible_collections.tenant.gpu.plugins.module_utils.box import control, drill, drill_moment, drill_verdict, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress_source import check
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from test_artifacts import torch_zip

CELL = {"id": "c1", "args": [], "seed": 5}
RUN: dict[str, Any] = {
    "project": "vision",
    "box": "b1",
    "generation": 1,
    "provider_id": "77",
    "run_id": "digits",
    "spec_sha256": "a" * 64,
    "code_sha256": "b" * 64,
    "command": ["python", "train.py"],
    "workdir": "/code",
    "env": {},
    "cells": [CELL],
    "preemption": {},
    "retries": {"max": 1},
    "progress": check({}),
    "artifacts": [{"glob": "*.pt", "role": "checkpoint", "loader": "torch"}],
}


def losses(first: int, last: int, every: int = 1) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 10.0 / step} for step in range(first, last + 1, every)]


@pytest.mark.parametrize(
    ("name", "saved", "reason"),
    [
        ("epoch_2.pt", None, "started_again"),
        ("last.pt", None, "started_again"),
        ("epoch=2-step=200.pt", 200, "started_again"),
        ("iter_200.pt", 200, "started_again"),
        # Whatever it counts, a start from zero does not pass.
        ("ckpt_2.pt", 2, "unclear"),
    ],
)
def test_a_start_from_zero_is_seen_however_the_checkpoint_is_named(
    tmp_path: Path, name: str, saved: int | None, reason: str
) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    paths = drilled._paths(1)
    Path(paths.output).mkdir(parents=True)
    Path(paths.output, name).write_bytes(torch_zip())
    before = losses(10, 250, every=10)
    drilled._note_kill(paths, before)
    assert (drilled._facts["checkpoint"], drilled._facts["saved_step"]) == (name, saved)
    assert drill_verdict.judge(before, before, drilled._facts["saved_step"]).reason == reason
    gone_on = drill_verdict.judge(before, losses(210, 260, every=10), drilled._facts["saved_step"])
    assert gone_on.passed == (name != "ckpt_2.pt"), gone_on


# --- when ---------------------------------------------------------------------------------------------------------

DEADLINE_S = 900.0


def kill_time(
    step_s: float, save_every: int, name: str = "step-{}.pt", epoch: int = 0, log_every: int = 1, early: bool = False
) -> tuple[float, list[int], int]:
    """When a trainer of such steps is killed, the steps told by then, and the last one saved."""
    moment, now, until = drill_moment.Moment(), 0.0, DEADLINE_S
    while now < until:
        now += min(step_s, 1.0) / 10
        made = int(now / step_s)
        lines = [
            {"step": step, "loss": 10.0 / step, **({"epoch": step // epoch} if epoch else {})}
            for step in range(log_every, made + 1, log_every)
        ]
        saved = made // save_every * save_every or int(early and made > 0)
        newest = {"key": name.format(saved), "mtime": saved} if saved else None
        if moment.saw(now, lines, newest) and moment.has_come(until - now):
            return now, [line["step"] for line in lines], saved
    raise AssertionError("never")


@pytest.mark.parametrize("step_s", [0.5, 1.0, 8.0, 20.0, 45.0])
def test_slow_steps_are_waited_for_and_the_second_try_has_as_long(step_s: float) -> None:
    killed_at, made, saved = kill_time(step_s, save_every=1)
    assert len(made) >= drill_moment.OVERLAP + 2
    assert killed_at <= DEADLINE_S / 2 + step_s
    assert saved == made[-1], "saved at its every step: nothing is told after"
    killed_at, made, saved = kill_time(step_s, save_every=4)
    assert made[-1] - saved >= drill_moment.OVERLAP


def test_steps_that_are_too_slow_for_the_deadline_leave_half_of_it() -> None:
    killed_at, made, _saved = kill_time(200.0, save_every=1)
    assert DEADLINE_S / 2 <= killed_at <= DEADLINE_S / 2 + 200.0
    assert len(made) >= 2


@pytest.mark.parametrize("name", ["last.pt", "epoch_{}.pt"])
def test_a_checkpoint_without_a_step_is_waited_for_until_it_is_far_from_the_start(name: str) -> None:
    """Killed after the first one, what goes on could not be told from what starts again."""
    _at, made, saved = kill_time(0.1, save_every=70, name=name, log_every=10, early=True)
    assert saved == 70
    before = losses(10, made[-1], every=10)
    resumed = saved // 10 * 10 + 10
    assert drill_verdict.judge(before, losses(resumed, resumed + 30, every=10), None).passed


def test_a_border_of_an_epoch_is_passed_over_for_a_while() -> None:
    _at, made, saved = kill_time(0.05, save_every=7, epoch=10)
    assert made[-1] // 10 == made[-2] // 10
    assert made[-1] - saved >= drill_moment.OVERLAP
    killed_at, made, _saved = kill_time(2.0, save_every=4, epoch=1)
    assert killed_at > drill_moment.PATIENCE_S, "every step is an epoch"


def told_and_then_saved(epoch_s: float, save_s: float, name: str) -> tuple[int, int] | None:
    """The lines and the newest checkpoint at the kill of a trainer of five epochs that tells one line at the end of
    each, and has saved it ``save_s`` later; None where it ended before. A save is seen to grow while it lasts."""
    moment = drill_moment.Moment()
    for look in range(int(5 * epoch_s) * 4):
        now = look / 4
        told = int(now / epoch_s)
        saved = told if told and now - told * epoch_s >= save_s / 2 else told - 1
        newest = {"key": name.format(saved), "mtime": min(now, saved * epoch_s + save_s)} if saved > 0 else None
        if moment.saw(now, losses(1, told), newest) and moment.has_come(DEADLINE_S - now):
            return told, saved
    return None


@pytest.mark.parametrize("name", ["step-{}.pt", "last.pt"])
@pytest.mark.parametrize(("epoch_s", "save_s"), [(5.0, 1.0), (30.0, 1.0), (30.0, 20.0), (60.0, 2.0)])
def test_a_short_run_that_tells_and_saves_once_an_epoch_is_killed_in_mid_save(
    epoch_s: float, save_s: float, name: str
) -> None:
    """Between the line and the checkpoint of an epoch: the one moment with a loss that is told again."""
    assert told_and_then_saved(epoch_s, save_s, name) == (4, 3)
    assert drill_verdict.judge(losses(1, 4), losses(4, 5), 3 if "{}" in name else None).compared == 1


def test_fast_steps_are_waited_for_as_ever() -> None:
    killed_at, made, _saved = kill_time(0.5, save_every=1)
    assert killed_at > drill_moment.PATIENCE_S
    assert len(made) > 2 * drill_moment.PATIENCE_S


@pytest.mark.parametrize(("left_s", "reason"), [(100.0, "unclear"), (500.0, "no_progress")])
def test_a_relaunch_without_the_time_of_the_first_try_is_not_called_one_that_fails(
    tmp_path: Path, left_s: float, reason: str
) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    drilled._to_first_step_s = 200.0
    verdict = drilled._stepless(left_s).verdict
    assert verdict.reason == reason
    assert ("train_drill_deadline_s" in verdict.why) == (reason == "unclear")


@pytest.mark.parametrize(("mid_epoch", "told"), [(True, False), (False, True), (None, False)])
def test_a_kill_between_two_epochs_is_told_in_the_verdict(tmp_path: Path, mid_epoch: bool | None, told: bool) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    drilled._facts["mid_epoch"] = mid_epoch
    verdict = drilled._as_cut(drill_verdict.judge(losses(1, 12), losses(6, 12), 5))
    assert verdict.passed
    assert ("at the border of an epoch" in verdict.why) == told


# --- the second try -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "looks"), [("regex", 4), ("metrics", 1)])
def test_a_log_that_names_the_resumed_step_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, looks: int
) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    drilled._facts.update(saved_step=20, steps_from=source)
    told = [{"step": 0}, {"step": 20}, *losses(21, 30)]
    seen: list[int] = []

    def watched(_paths: object) -> Iterator[list[dict[str, Any]]]:
        for count in (1, 2, 3, len(told)):
            seen.append(count)
            yield told[:count]

    monkeypatch.setattr(drilled, "_watched", watched)
    assert drilled._relaunch(drilled._paths(2), losses(1, 24)) == told[: seen[-1]]
    assert len(seen) == looks


@pytest.mark.parametrize(
    ("name", "made", "reason", "claim"),
    [
        ("step-20.pt", 25, "no_progress", "does not survive"),
        ("last.pt", 25, "no_progress", "does not survive"),
        # Nothing may have been left to do.
        ("step-25.pt", 25, "ended_early", "nothing shows"),
    ],
)
def test_a_relaunch_that_takes_a_checkpoint_for_the_end_of_its_work_does_not_survive(
    tmp_path: Path, name: str, made: int, reason: str, claim: str
) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    first, second = drilled._paths(1), drilled._paths(2)
    Path(first.output).mkdir(parents=True)
    Path(first.output, name).write_bytes(torch_zip())
    before = losses(1, made)
    drilled._note_kill(first, before)
    Path(second.output).mkdir(parents=True)
    records.write_record(second.exit, "exit", {"wrapper": 0, "child": 0})
    with pytest.raises(drill._Failed) as caught:
        drilled._relaunch(second, before)
    verdict = caught.value.verdict
    assert verdict.reason == reason
    failure = resume_drill.failure_of(BoxIdentity("vision", "b1", 1, "77"), "digits", verdict.as_dict())
    assert failure is not None
    assert claim in failure.what

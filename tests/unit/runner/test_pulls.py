# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When the newest checkpoints of a run at work are brought home."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from go_world import World, receipt_result
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import Outcome, TaskResult
from gpu_tenant.pulls import PULL_SHARE, Pulls, receipt_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pull(pulls: Pulls, clock: Clock, took_s: float, succeeds: bool = True) -> None:
    with pulls.pulling() as succeeded:
        clock.now += took_s
    if succeeds:
        succeeded()


def test_what_was_trained_during_a_pull_is_at_risk_after_it(clock: Clock) -> None:
    pulls = Pulls(600.0, clock)
    clock.now = 600.0
    assert pulls.is_due
    pull(pulls, clock, took_s=40.0)
    assert pulls.at_risk_s == 40.0
    clock.now = 1199.0
    assert not pulls.is_due


def test_a_pull_that_failed_saves_nothing_and_is_not_repeated_at_once(clock: Clock) -> None:
    pulls = Pulls(600.0, clock)
    clock.now = 600.0
    pull(pulls, clock, took_s=10.0, succeeds=False)
    assert pulls.at_risk_s == 610.0
    assert not pulls.is_due
    clock.now = 1210.0
    assert pulls.is_due


def test_training_anew_puts_nothing_of_before_at_risk(clock: Clock) -> None:
    pulls = Pulls(600.0, clock)
    clock.now = 5000.0
    pulls.training_begins()
    assert pulls.at_risk_s == 0.0
    assert not pulls.is_due


def test_no_pulls_are_made_where_none_are_wanted(clock: Clock) -> None:
    pulls = Pulls(0.0, clock)
    clock.now = 1e9
    assert not pulls.is_due


@given(every_s=st.floats(1.0, 1e5), took_s=st.floats(0.1, 1e5), rounds=st.integers(1, 6))
def test_pulling_is_never_most_of_the_work(every_s: float, took_s: float, rounds: int) -> None:
    clock = Clock()
    pulls, pulled = Pulls(every_s, clock), 0.0
    for _round in range(rounds):
        while not pulls.is_due:
            clock.now += max(every_s, took_s) / 8
        pull(pulls, clock, took_s)
        pulled += took_s
    assert pulled - took_s <= clock.now / PULL_SHARE + 1e-6


@pytest.mark.parametrize(
    ("results", "brought"),
    [
        ([receipt_result("b1")], True),
        ([], False),
        ([receipt_result("b2")], False),
        ([replace(receipt_result("b1"), status="failed")], False),
        ([replace(receipt_result("b1"), status="skipped")], False),
        ([replace(receipt_result("b1"), result={"skipped": True})], False),
        # What was read again of another box is not of this one.
        ([replace(receipt_result("b1"), result={"receipt": {"box": "b9"}})], False),
    ],
)
def test_a_pull_is_what_brought_a_receipt_of_this_box(results: list[TaskResult], brought: bool) -> None:
    outcome = Outcome("harvest", "successful", 0, Path(), ("b1",), results=results)
    assert (receipt_of(outcome, Observation("b1", "now", "running")) is not None) is brought


def test_the_receipt_of_a_machine_that_was_replaced_is_not_of_the_one_at_work(tmp_path: Path) -> None:
    """One play brings home both, that of the replaced one last."""

    def told(*generations: int) -> Outcome:
        results = [receipt_result("b1", generation=number) for number in generations]
        return Outcome("harvest", "successful", 0, Path(), ("b1",), results=results)

    world = World(tmp_path)
    world.provider["b1"], world.generation = "running", 2
    seen = Observation("b1", "now", "running", world.item("b1"))
    assert receipt_of(told(1), seen) is None, "the snapshot of g2 took the place of nothing"
    both = receipt_of(told(2, 1), seen)
    assert both is not None
    assert both["generation"] == 2
    # Of a box that no provider tells of only the playbook knows the generation.
    assert receipt_of(told(3), Observation("b1", "now", "running")) is not None

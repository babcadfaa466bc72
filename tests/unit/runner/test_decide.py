# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The table of decisions. Each row is a situation that happens to rented boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import decide
from gpu_tenant.decide import BRING_UP, FINISH, HARVEST, HARVEST_FAILED, WAIT, Situation

PROVIDER = (
    "absent", "loading", "running", "stopped", "outbid", "scheduling", "exited", "offline", "unknown", "unreachable",
)  # fmt: skip
CONTACT = ("answered", "unreachable", "no_supervisor", "unpinned", "not_tried")
RUN = ("", "queued", "running", "verifying", "copying", "done", "failed", "preempted", "blocked", "surprise")

TABLE = [
    # first start
    ("nothing rented yet", Situation(provider="absent"), BRING_UP),
    ("already loading", Situation(provider="loading"), BRING_UP),
    ("stopped from an earlier day", Situation(provider="stopped"), BRING_UP),
    ("runs, key not pinned", Situation(provider="running", contact="unpinned"), BRING_UP),
    ("runs, nothing deployed", Situation(provider="running", contact="no_supervisor"), BRING_UP),
    ("runs, silent, first look", Situation(provider="running", contact="unreachable"), BRING_UP),
    ("runs, run unknown to it", Situation(provider="running", contact="answered"), BRING_UP),
    # adopting
    ("trains", Situation(provider="running", contact="answered", run_state="running"), WAIT),
    ("done", Situation(provider="running", contact="answered", run_state="done"), HARVEST),
    ("failed", Situation(provider="running", contact="answered", run_state="failed"), HARVEST_FAILED),
    ("home", Situation(home=True, provider="running", contact="answered", run_state="done"), FINISH),
    ("home and box gone", Situation(home=True, provider="absent"), FINISH),
    ("home, provider silent", Situation(home=True, provider="unreachable"), FINISH),
    # losses
    ("outbid", Situation(provider="outbid", brought_up=True), BRING_UP),
    ("stopped while wanted", Situation(provider="stopped", brought_up=True), BRING_UP),
    ("container ended", Situation(provider="exited", brought_up=True), BRING_UP),
    ("gone, said once", Situation(provider="absent", brought_up=True, absent_readings=1), WAIT),
    ("gone, said twice", Situation(provider="absent", brought_up=True, absent_readings=2), BRING_UP),
    ("silent while training", Situation(provider="running", contact="unreachable", brought_up=True), WAIT),
    (
        "silent for a day",
        Situation(provider="running", contact="unreachable", brought_up=True, unchanged_s=86400),
        WAIT,
    ),
    ("provider silent", Situation(provider="unreachable", brought_up=True, unchanged_s=86400), WAIT),
    ("provider confused", Situation(provider="unknown", brought_up=True, unchanged_s=86400), WAIT),
    ("loading again", Situation(provider="loading", brought_up=True), WAIT),
    ("stuck in scheduling", Situation(provider="scheduling", brought_up=True, unchanged_s=901), BRING_UP),
    # the supervisor's short states
    ("just preempted", Situation(provider="running", contact="answered", run_state="preempted"), WAIT),
    (
        "preempted, not resumed",
        Situation(provider="running", contact="answered", run_state="preempted", unchanged_s=21),
        BRING_UP,
    ),
    (
        "blocked for long",
        Situation(provider="running", contact="answered", run_state="blocked", unchanged_s=901),
        HARVEST_FAILED,
    ),
    (
        "queued for long",
        Situation(provider="running", contact="answered", run_state="queued", unchanged_s=301),
        BRING_UP,
    ),
]


@pytest.mark.parametrize(("situation", "kind"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decision(situation: Situation, kind: str) -> None:
    action = decide.decide(situation)
    assert action.kind == kind
    assert action.why


@pytest.mark.parametrize(("provider", "lost"), [("outbid", True), ("stopped", True), ("exited", True)])
def test_a_loss_counts_as_interruption_only_after_it_was_up(provider: str, lost: bool) -> None:
    assert decide.decide(Situation(provider=provider, brought_up=True)).interruption is lost
    assert decide.decide(Situation(provider=provider, brought_up=False)).interruption is False


situations = st.builds(
    Situation,
    home=st.booleans(),
    provider=st.sampled_from(PROVIDER),
    absent_readings=st.integers(0, 5),
    contact=st.sampled_from(CONTACT),
    run_state=st.sampled_from(RUN),
    brought_up=st.booleans(),
    unchanged_s=st.floats(0, 1e6),
)


@given(situations)
def test_every_situation_has_one_reversible_action(situation: Situation) -> None:
    assert decide.decide(situation).kind in (WAIT, BRING_UP, HARVEST, HARVEST_FAILED, FINISH)


@given(situations)
def test_silence_never_replaces_a_box_that_was_up(situation: Situation) -> None:
    silent = situation.provider in ("unreachable", "unknown") or (
        situation.provider == "running" and situation.contact in ("unreachable", "not_tried")
    )
    if silent and situation.brought_up and not situation.home:
        assert decide.decide(situation).kind == WAIT


@given(situations)
def test_a_finished_run_is_never_started_again(situation: Situation) -> None:
    if situation.home:
        assert decide.decide(situation).kind == FINISH


@given(st.integers(-5, 10**6), st.floats(0.1, 10), st.floats(10, 100))
def test_back_off_grows_and_is_bounded(number: int, first: float, most: float) -> None:
    pause = decide.back_off(number, first, most)
    assert first <= pause <= most
    assert decide.back_off(number + 1, first, most) >= pause

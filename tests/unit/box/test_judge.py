# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Judgements as tables: cell states, the retry rule, what comes next, run states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.judge import (
    AttemptFacts,
    CellFacts,
    ExitFacts,
    Orders,
    Step,
    Verdict,
    failed_wrapper,
    heals_by_itself,
    judge_cell,
    liveness_word,
    next_step,
    run_state,
)
from hypothesis import given
from hypothesis import strategies as st

CLEAN = ExitFacts(0, 0)
ERROR = ExitFacts(40, 1)
KILLED = ExitFacts(40, -9, failure="killed")
TRANSIENT = ExitFacts(40, 1, failure="transient")
OUT_OF_MEMORY = ExitFacts(40, -9, failure="host_memory")
LOST = ExitFacts(40, None, cause="lost")
BOX_DIED = ExitFacts(30, None, cause="interrupted")
STOPPED = ExitFacts(30, 30, stop_asked=True)
STOPPED_HARD = ExitFacts(30, -9, stop_asked=True)
STOPPED_ZERO = ExitFacts(30, 0, stop_asked=True)
SAYS_PREEMPTED = ExitFacts(30, 30)


def ended(number: int, how: ExitFacts | None, phase: str = "", wrapper: int | None = None) -> AttemptFacts:
    return AttemptFacts(number, phase=phase, begun=True, exit=how, wrapper=wrapper)


def cell(*attempts: AttemptFacts, retries: int = 1, forgiven: int = 0, highest: int = 0) -> CellFacts:
    numbers = [attempt.number for attempt in attempts]
    return CellFacts("r", "c", tuple(attempts), max([highest, *numbers]), retries, forgiven)


@pytest.mark.parametrize(
    ("facts", "state", "step", "number"),
    [
        (cell(), "queued", "run", 1),
        (cell(highest=4), "queued", "run", 5),
        (cell(AttemptFacts(1, phase="queued")), "queued", "run", 1),
        (cell(AttemptFacts(1, phase="running", begun=True, alive=True)), "running", "watch", 1),
        # The exit is written while the shim still cleans up: it is alive until it is not.
        (cell(AttemptFacts(1, begun=True, alive=True, exit=CLEAN)), "running", "watch", 1),
        (cell(ended(1, CLEAN)), "verifying", "finish", 1),
        (cell(ended(1, None)), "verifying", "finish", 1),
        (cell(AttemptFacts(1, begun=True, done=True)), "done", "nothing", 1),
        (cell(ended(1, KILLED), AttemptFacts(2, begun=True, done=True)), "done", "nothing", 2),
        (cell(ended(1, ERROR)), "failed", "nothing", 1),
        (cell(ended(1, ERROR), retries=9), "failed", "nothing", 1),
        (cell(ended(1, KILLED)), "preempted", "run", 2),
        (cell(ended(1, KILLED), retries=0), "failed", "nothing", 1),
        (cell(ended(1, KILLED), ended(2, KILLED)), "failed", "nothing", 2),
        (cell(ended(1, KILLED), ended(2, KILLED), retries=2), "preempted", "run", 3),
        (cell(ended(1, LOST), ended(2, KILLED)), "failed", "nothing", 2),
        (cell(ended(1, TRANSIENT)), "preempted", "run", 2),
        (cell(ended(1, TRANSIENT), ended(2, KILLED)), "failed", "nothing", 2),
        # The kernel kills for memory again, however often the same work is tried.
        (cell(ended(1, OUT_OF_MEMORY), retries=9), "failed", "nothing", 1),
        # Neither a stop on request nor the death of the box counts as a failure.
        (cell(ended(1, STOPPED), retries=0), "preempted", "run", 2),
        (cell(ended(1, STOPPED_HARD), retries=0), "preempted", "run", 2),
        (cell(ended(1, BOX_DIED), retries=0), "preempted", "run", 2),
        (cell(ended(1, SAYS_PREEMPTED), retries=0), "preempted", "run", 2),
        (cell(ended(1, BOX_DIED), ended(2, STOPPED), ended(3, KILLED)), "preempted", "run", 4),
        # Zero after a request may mean "saved and left": only the artifacts can tell.
        (cell(ended(1, STOPPED_ZERO)), "verifying", "finish", 1),
        (cell(ended(1, STOPPED_ZERO, phase="preempted", wrapper=30)), "preempted", "run", 2),
        (cell(ended(1, CLEAN, phase="failed", wrapper=20)), "failed", "nothing", 1),
        (cell(ended(1, CLEAN, phase="failed", wrapper=22)), "failed", "nothing", 1),
        (cell(ended(1, CLEAN, phase="failed", wrapper=21)), "failed", "nothing", 1),
        (cell(ended(1, CLEAN, phase="failed", wrapper=21), forgiven=1), "verifying", "finish", 1),
        (cell(ended(1, CLEAN, phase="failed", wrapper=22), forgiven=1), "queued", "run", 2),
        (cell(ended(1, ERROR), forgiven=1), "queued", "run", 2),
        (cell(ended(1, ERROR), ended(2, ERROR), forgiven=1), "failed", "nothing", 2),
        (cell(ended(1, KILLED), ended(2, KILLED), ended(3, KILLED), forgiven=2), "preempted", "run", 4),
        # A box that dies of the job itself looks like a preempted one: bounded, unless something was saved.
        (cell(*[ended(number, BOX_DIED) for number in range(1, 5)]), "preempted", "run", 5),
        (cell(*[ended(number, BOX_DIED) for number in range(1, 6)]), "failed", "nothing", 5),
        (cell(*[ended(number, SAYS_PREEMPTED) for number in range(1, 6)]), "failed", "nothing", 5),
        (cell(*[ended(number, BOX_DIED) for number in range(1, 6)], forgiven=5), "preempted", "run", 6),
        (cell(*[replace(ended(number, BOX_DIED), saved=True) for number in range(1, 9)]), "preempted", "run", 9),
        (cell(*[ended(number, STOPPED) for number in range(1, 9)]), "preempted", "run", 9),
        (cell(ended(1, ExitFacts(13, None))), "blocked", "run", 2),
        (cell(ended(1, ExitFacts(13, 1))), "failed", "nothing", 1),
        (cell(ended(1, ExitFacts(13, 1)), forgiven=1), "queued", "run", 2),
        (cell(ended(1, ExitFacts(12, None))), "failed", "nothing", 1),
    ],
)
def test_a_cell_is_judged(facts: CellFacts, state: str, step: str, number: int) -> None:
    verdict = judge_cell(facts)
    assert (verdict.state, verdict.next, verdict.number) == (state, step, number)


@pytest.mark.parametrize(
    ("attempt", "wrapper", "heals"),
    [
        (ended(1, CLEAN, "failed", 21), 21, True),
        (ended(1, CLEAN, "failed", 20), 20, False),
        (ended(1, ExitFacts(11, None)), 11, True),
        (ended(1, ExitFacts(12, None)), 12, True),
        (ended(1, ExitFacts(13, 1)), 13, True),
        (ended(1, ERROR), 40, False),
        (ended(1, KILLED), 40, False),
    ],
)
def test_a_plain_start_repeats_what_the_box_spoilt(attempt: AttemptFacts, wrapper: int, heals: bool) -> None:
    assert failed_wrapper(attempt) == wrapper
    assert heals_by_itself(attempt) is heals


def named(name: str, *attempts: AttemptFacts, run_id: str = "r") -> CellFacts:
    return CellFacts(run_id, name, tuple(attempts), len(attempts))


LIVE = AttemptFacts(1, begun=True, alive=True)


@pytest.mark.parametrize(
    ("cells", "orders", "step"),
    [
        ([], Orders(), Step("nothing")),
        ([named("a"), named("b")], Orders(), Step("run", "r", "a", 1)),
        # One trainer at a time: what lives is watched before anything else is done.
        ([named("a"), named("b", LIVE)], Orders(), Step("watch", "r", "b", 1)),
        ([named("a"), named("b", LIVE)], Orders(desired="hold"), Step("watch", "r", "b", 1)),
        ([named("a", ended(1, CLEAN)), named("b", LIVE)], Orders(), Step("watch", "r", "b", 1)),
        ([named("a"), named("b", ended(1, CLEAN))], Orders(), Step("finish", "r", "b", 1)),
        ([named("a"), named("b", ended(1, CLEAN))], Orders(desired="hold"), Step("finish", "r", "b", 1)),
        ([named("a"), named("b", ended(1, CLEAN))], Orders(sealed=True), Step("nothing")),
        ([named("a")], Orders(desired="hold"), Step("nothing")),
        ([named("a")], Orders(sealed=True), Step("nothing")),
        ([named("a")], Orders(stopped=frozenset(["r"])), Step("nothing")),
        (
            [named("a"), named("a", run_id="s")],
            Orders(stopped=frozenset(["r"])),
            Step("run", "s", "a", 1),
        ),
        ([named("a", ended(1, ERROR)), named("b")], Orders(), Step("run", "r", "b", 1)),
        ([named("a", ended(1, KILLED)), named("b")], Orders(), Step("run", "r", "a", 2)),
    ],
)
def test_one_thing_comes_next(cells: list[CellFacts], orders: Orders, step: Step) -> None:
    assert next_step(cells, orders) == step


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["done", "done"], "done"),
        (["done", "queued"], "queued"),
        (["done", "failed"], "failed"),
        (["failed", "queued"], "queued"),
        (["failed", "running", "queued"], "running"),
        (["done", "verifying"], "verifying"),
        (["preempted", "failed", "done"], "preempted"),
        (["blocked", "queued"], "blocked"),
        ([], "queued"),
    ],
)
def test_a_run_is_as_its_cells_are(states: list[str], state: str) -> None:
    assert run_state(states) == state


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["failed", "queued"], "failed"),
        (["failed", "blocked", "preempted"], "failed"),
        # What works ends its cell, and what ended is judged.
        (["failed", "running", "queued"], "running"),
        (["failed", "verifying"], "verifying"),
    ],
)
def test_a_run_that_halts_has_failed_once_nothing_works(states: list[str], state: str) -> None:
    assert run_state(states, halted=True) == state


def test_a_run_that_halts_begins_nothing_and_another_one_goes_on() -> None:
    other = CellFacts("other", "a")
    orders = Orders(halted=frozenset({"r"}))
    assert next_step([named("a", ended(1, ERROR)), named("b"), other], orders) == Step("run", "other", "a", 1)


@pytest.mark.parametrize(
    ("alive", "done", "begun", "earlier_life", "idle_s", "word"),
    [
        (True, False, True, "", 5.0, "alive"),
        (True, False, True, "", 2000.0, "stalled"),
        (True, False, True, "", None, "alive"),
        (False, True, True, "rebooted", 1.0, "finished"),
        (False, False, True, "rebooted", 1.0, "rebooted"),
        (False, False, True, "restarted", 1.0, "restarted"),
        (False, False, True, "", 1.0, "dead"),
        (False, False, False, "", None, "none"),
    ],
)
def test_seven_ways_to_be(
    alive: bool, done: bool, begun: bool, earlier_life: str, idle_s: float | None, word: str
) -> None:
    assert liveness_word(alive, done, begun, earlier_life, idle_s, 1800.0) == word


EXITS = st.one_of(
    st.none(),
    st.builds(
        ExitFacts,
        st.sampled_from([0, 11, 12, 13, 30, 40]),
        st.one_of(st.none(), st.integers(-15, 40)),
        st.sampled_from(["exit", "lost", "interrupted"]),
        st.booleans(),
    ),
)
ATTEMPTS = st.builds(
    AttemptFacts,
    number=st.just(0),
    phase=st.sampled_from(["", "queued", "running", "verifying", "copying", "failed", "preempted"]),
    begun=st.booleans(),
    alive=st.booleans(),
    done=st.booleans(),
    exit=EXITS,
    wrapper=st.sampled_from([None, 0, 20, 21, 22, 30, 40]),
)


@st.composite
def cells(draw: st.DrawFn) -> CellFacts:
    drawn = draw(st.lists(ATTEMPTS, max_size=5))
    attempts = [AttemptFacts(**{**each.__dict__, "number": number}) for number, each in enumerate(drawn, 1)]
    highest = len(attempts) + draw(st.integers(0, 2))
    return CellFacts("r", "c", tuple(attempts), highest, draw(st.integers(0, 3)), draw(st.integers(0, 5)))


@given(cells())
def test_no_history_breaks_the_rules(facts: CellFacts) -> None:
    verdict: Verdict = judge_cell(facts)
    if any(each.done for each in facts.attempts):
        assert (verdict.state, verdict.next) == ("done", "nothing")
    elif any(each.alive for each in facts.attempts):
        # While anything of a cell lives, no second trainer is started and nothing is judged.
        assert verdict.next == "watch"
    if verdict.next == "run":
        taken = {each.number: each for each in facts.attempts}
        fresh = verdict.number > facts.highest
        assert fresh or (not taken[verdict.number].begun and taken[verdict.number].exit is None)


@given(cells(), st.booleans(), st.sampled_from(["run", "hold"]))
def test_a_sealed_or_held_box_starts_nothing(facts: CellFacts, sealed: bool, desired: str) -> None:
    step = next_step([facts], Orders(desired=desired, sealed=sealed))
    if sealed or desired == "hold":
        assert step.kind != "run"
    if sealed:
        assert step.kind in ("watch", "nothing")

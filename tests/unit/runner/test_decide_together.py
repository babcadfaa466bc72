# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done with boxes that train as one: each row is what is the matter with them, and what each of them gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import decide, decide_together, verdicts
from gpu_tenant.decide import Situation
from gpu_tenant.decide_together import Part
from gpu_tenant.verdicts import Verdict


def part(name: str, verdict: str, by_peers: bool = False, wanted: bool = True, **more: object) -> Part:
    now = Situation(Verdict(verdict, f"it is {verdict}"), brought_up=True, replaceable=True, **more)  # type: ignore[arg-type]  # rows of the table
    action = decide.decide(now) if wanted else decide.Action(decide.WAIT, "it is declared parked")
    return Part(name, now, action, by_peers, wanted)


def kinds(*parts: Part, missing: tuple[str, ...] = ()) -> list[str]:
    return [action.kind for action in decide_together.agreed(parts, missing)]


TRAINS = part("a", verdicts.RUNNING)
GONE = part("b", verdicts.GONE)
LEFT = part("a", verdicts.FAILED, by_peers=True)
TABLE = [
    ("all train", [TRAINS, part("b", verdicts.RUNNING)], [decide.WAIT, decide.WAIT]),
    ("one is lost", [TRAINS, GONE], [decide.WAIT, decide.NEXT_OFFER]),
    ("one is lost, one warns", [part("a", verdicts.ALERT), GONE], [decide.WAIT, decide.NEXT_OFFER]),
    ("one is lost, one loads", [part("a", verdicts.STARTING), GONE], [decide.WAIT, decide.NEXT_OFFER]),
    ("both are lost", [part("a", verdicts.OUTBID), GONE], [decide.RAISE_BID, decide.NEXT_OFFER]),
    ("nothing is rented", [part("a", verdicts.NOT_RENTED), part("b", verdicts.NOT_RENTED)], [decide.RENT] * 2),
    ("one waited in vain", [LEFT, GONE], [decide.RESTART, decide.NEXT_OFFER]),
    ("they parted", [LEFT, part("b", verdicts.FAILED, by_peers=True)], [decide.RESTART] * 2),
    (
        "they parted too often",
        [replace(LEFT, now=replace(LEFT.now, tried=decide.Tried(restart=2))), part("b", verdicts.RUNNING)],
        [decide.HARVEST_FAILED, decide.WAIT],
    ),
    ("one failed by itself", [part("a", verdicts.FAILED), LEFT], [decide.HARVEST_FAILED, decide.HARVEST_FAILED]),
    ("one failed, one is lost", [part("a", verdicts.FAILED), GONE], [decide.HARVEST_FAILED, decide.GIVE_UP]),
    ("its remains are home", [part("a", verdicts.BARE, failed_home=True), GONE], [decide.GIVE_UP, decide.GIVE_UP]),
    ("one is done, one is lost", [part("a", verdicts.FINISHED), GONE], [decide.HARVEST, decide.GIVE_UP]),
    ("one is home, one is lost", [part("a", verdicts.FINISHED, home=True), GONE], [decide.FINISH, decide.GIVE_UP]),
    ("one is done, one saves", [part("a", verdicts.FINISHED), part("b", verdicts.RUNNING)], [decide.HARVEST, "wait"]),
    ("one is silent", [part("a", verdicts.UNREACHABLE), GONE], [decide.WAIT, decide.WAIT]),
    ("one is parked", [part("a", verdicts.STOPPED, wanted=False), GONE], [decide.WAIT, decide.WAIT]),
    (
        "one cannot be recovered",
        [part("a", verdicts.HOST_OFFLINE, tried=decide.Tried(next_offer=3)), GONE],
        [decide.GIVE_UP, decide.GIVE_UP],
    ),
    ("its GPU is gone", [part("a", verdicts.ZERO_GPU), GONE], [decide.PULL, decide.WAIT]),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "agreed"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_done_with_each(parts: list[Part], agreed: list[str]) -> None:
    assert kinds(*parts) == agreed
    assert kinds(*reversed(parts)) == agreed[::-1]


def test_a_box_that_nobody_looks_after_here_is_named_and_nothing_is_rented() -> None:
    (action,) = decide_together.agreed([GONE], ["a", "c"])
    assert (action.kind, action.failure, action.interruption) == (decide.GIVE_UP, "config", True)
    assert "a, c, which this watch does not look after" in action.why


def test_the_box_that_holds_the_others_up_is_named_with_its_reason() -> None:
    _its, action = decide_together.agreed([part("a", verdicts.UNREACHABLE), GONE])
    assert action.why == "it is gone; the boxes of the run start together, and a cannot: it is unreachable"
    _its, action = decide_together.agreed([part("a", verdicts.FAILED), GONE])
    assert "the run has ended on a: it is failed" in action.why
    assert action.failure == "training_failed"


_parts = st.builds(
    part, st.sampled_from("abc"), st.sampled_from(verdicts.ALL), st.booleans(), st.booleans(),
    failed_home=st.booleans(), outage=st.sampled_from(["", "the network"]),
)  # fmt: skip


@given(st.lists(_parts, min_size=2, max_size=4))
def test_nothing_is_rented_beside_a_box_that_cannot_start(parts: list[Part]) -> None:
    agreed = decide_together.agreed(parts)
    for mine, action in zip(parts, agreed, strict=True):
        if action.kind not in decide.BRINGING_UP:
            assert action == mine.action or action.kind in (decide.WAIT, decide.GIVE_UP)
            continue
        for other in parts:
            if other is not mine:
                assert other.wanted
                assert not other.has_ended
                assert other.now.verdict.name not in (verdicts.UNREACHABLE, verdicts.FINISHED)


@given(st.lists(_parts, min_size=2, max_size=4))
def test_boxes_that_train_together_are_never_all_told_to_wait_for_each_other(parts: list[Part]) -> None:
    """Where all are lost and each alone would be brought up, all are."""
    alone = [one for one in parts if one.action.kind in decide.BRINGING_UP and one.wanted]
    if len(alone) == len(parts) and not any(one.has_ended for one in parts):
        assert kinds(*parts) == [one.action.kind for one in parts]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a machine costs by the journal: each interval at its rate, and one rule for the report and for decisions."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, spent
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import cost, fleet, recoveries

NOW = "2026-11-21T20:00:00Z"
PLACE = {"project": "p", "box": "b"}


def at(hour: float) -> str:
    return f"2026-11-21T{int(hour):02d}:{round(hour % 1 * 60):02d}:00Z"


def act(verb: str, hour: float, provider_id: str = "7", **more: Any) -> dict[str, Any]:
    return {"kind": "effect", "verb": verb, "at": at(hour), **PLACE, "provider_id": provider_id, **more}


RENT = act("rent", 10, price_per_hour=0.5, stopped_per_hour=0.1)


# Its line has the rates of the moment before, too.
ROSE = act(
    "accept_price_rise", 12, price_per_hour=0.5, stopped_per_hour=0.1, new_price_per_hour=1.5, new_stopped_per_hour=0.3,
    taken=True,
)  # fmt: skip


def held(*acts: dict[str, Any]) -> tuple[list[accrual.Interval], str]:
    machines = list(accrual.acts_by_machine(acts).values())
    assert len(machines) == 1
    return accrual.intervals(machines[0], NOW)


@pytest.mark.parametrize(
    ("acts", "accrued", "state"),
    [
        ([], 10 * 0.5, "running"),
        ([act("destroy", 12)], 2 * 0.5, "ended"),
        ([act("stop", 14)], 4 * 0.5 + 6 * 0.1, "stopped"),
        ([act("stop", 14), act("start", 16, price_per_hour=0.1)], 4 * 0.5 + 2 * 0.1 + 4 * 0.5, "running"),
        ([act("stop", 14), act("start", 16, bid=0.8)], 4 * 0.5 + 2 * 0.1 + 4 * 0.9, "running"),
        ([act("stop", 14), act("seen-started", 16), act("destroy", 18)], 4 * 0.5 + 2 * 0.1 + 2 * 0.5, "ended"),
        ([act("seen-gone", 12)], 2 * 0.5, "ended"),
        # The provider was wrong: it is there, and somebody stops it.
        ([act("seen-gone", 12), act("stop", 14)], 2 * 0.5 + 6 * 0.1, "stopped"),
        ([act("destroy", 12), act("start", 13)], 2 * 0.5, "ended"),
        # An outbid box is told to stop: what it costs then is the disk alone, and no price of compute.
        ([act("stop", 14, price_per_hour=0.1), act("start", 16)], 4 * 0.5 + 2 * 0.1 + 4 * 0.5, "running"),
        ([act("stop", 14, price_per_hour=0.7), act("start", 16)], 4 * 0.5 + 2 * 0.1 + 4 * 0.7, "running"),
        # A host asks more and is answered; one that asked no more changed nothing, nor does one that was rejected.
        ([ROSE], 2 * 0.5 + 8 * 1.5, "running"),
        ([ROSE, act("stop", 15)], 2 * 0.5 + 3 * 1.5 + 5 * 0.3, "stopped"),
        ([act("stop", 11), ROSE, act("start", 18)], 1 * 0.5 + 1 * 0.1 + 6 * 0.3 + 2 * 1.5, "running"),
        ([{**ROSE, "taken": False}], 10 * 0.5, "running"),
        ([{**ROSE, "verb": "reject_price_rise"}], 10 * 0.5, "running"),
        (
            [act("stop", 14), act("start", 16), act("priced", 16, price_per_hour=2.0)],
            4 * 0.5 + 2 * 0.1 + 8.0,
            "running",
        ),
        ([act("seen-stopped", 18, effective_at="2026-11-21T12:00:00Z")], 2 * 0.5 + 8 * 0.1, "stopped"),
    ],
)
def test_each_interval_has_its_rate(acts: list[dict[str, Any]], accrued: float, state: str) -> None:
    found, last = held(RENT, *acts)
    assert accrual.total(found) == pytest.approx(accrued)
    assert last == state


@pytest.mark.parametrize(
    ("acts", "since"),
    [
        ([ROSE], at(10)),
        ([act("stop", 11), act("start", 11.5), ROSE], at(11.5)),
        ([act("stop", 11), act("start", 11.5), act("priced", 12, price_per_hour=0.7)], at(11.5)),
        ([act("stop", 11), ROSE], at(11)),
        ([ROSE, act("stop", 13)], at(13)),
    ],
)
def test_another_price_is_no_new_beginning(acts: list[dict[str, Any]], since: str) -> None:
    """Danger clocks count from it."""
    intervals, state = held(RENT, *acts)
    machine = cost.Machine("p", "b", 1, "7", "vast", intervals=intervals, state=state)
    assert fleet.Known(machines={"b": [machine]}).since("b", "7", state) == since


def test_intents_and_failures_cost_nothing() -> None:
    failed = {**act("stop", 12), "kind": "failed"}
    assert accrual.total(held(RENT, {**act("destroy", 12), "kind": "intent"}, failed)[0]) == 5.0


def test_a_line_whose_moment_cannot_be_read_says_nothing() -> None:
    assert accrual.total(held(RENT, {**act("destroy", 12), "at": "noon"})[0]) == 5.0


def test_unknown_is_no_zero() -> None:
    assert accrual.total([]) == 0.0
    assert accrual.total(held(RENT, act("rent", 10, "7"))[0]) == 5.0, "what was known stays known"
    assert accrual.total(held(act("rent", 10))[0]) is None
    assert accrual.total(held(act("rent", 10, price_per_hour=0.5), act("stop", 12))[0]) is None


@pytest.mark.parametrize(("moment", "hours"), [(at(9), 2.0), (at(10), 2.0), (at(11.5), 0.5), (at(12), None)])
def test_what_is_later_than_a_moment(moment: str, hours: float | None) -> None:
    [interval] = held(RENT, act("destroy", 12))[0]
    later = interval.after(moment)
    assert (later.hours if later else None) == hours
    assert later is None or later.until == at(12)


verbs = st.sampled_from(["start", "stop", "seen-started", "seen-stopped", "seen-gone", "destroy"])
rates = st.fixed_dictionaries({}, optional={
    "price_per_hour": st.floats(0.2, 2), "stopped_per_hour": st.floats(0.01, 0.1), "bid": st.floats(0.2, 2),
})  # fmt: skip
later_acts = st.builds(
    lambda verb, hour, machine, told: act(verb, hour, machine, **told),
    verbs, st.integers(10, 19), st.sampled_from(["7", "8"]), rates,
)  # fmt: skip


@given(st.lists(later_acts, max_size=8), rates, rates)
def test_a_decision_and_the_report_go_by_the_same_dollars(
    acts: list[dict[str, Any]], first: dict[str, Any], second: dict[str, Any]
) -> None:
    begun = {**act(recoveries.RECOVER, 9, ""), "kind": "intent", "run_id": "r", "rung": "rent"}
    lines = [begun, act("rent", 9, "7", **first), act("rent", 9, "8", **second), *acts]
    boxes = [{**PLACE, "generation": number, "provider_id": str(6 + number)} for number in (1, 2)]
    [by_run] = [cost.sums(cost.machines(boxes, lines, [], [], {}, NOW))["project"]["p"].as_dict()["total"]]
    expected = None if by_run is None else pytest.approx(by_run)
    assert spent.of_run(lines, "p", "r", NOW) == expected
    assert spent.of_project(lines, "p", NOW) == expected

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import math
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.filter.danger_clocks import danger_clocks
from ansible_collections.tenant.gpu.plugins.filter.split_cells import split_cells
from ansible_collections.tenant.gpu.plugins.filter.young_daly import young_daly
from hypothesis import given
from hypothesis import strategies as st

SPAN = st.floats(0.01, 1e7)


def test_young_daly_known_value() -> None:
    assert young_daly(7200, 25) == 600
    assert young_daly(7200, 20, sec_per_step=0.8) == pytest.approx(536.0)
    assert young_daly(7200, 25, workers=4) == 300


@given(SPAN, SPAN, SPAN)
def test_young_daly_is_whole_steps_rounded_down(mu: float, cost: float, step: float) -> None:
    whole = math.sqrt(2 * mu * cost)
    rounded = young_daly(mu, cost, sec_per_step=step)
    steps = rounded / step
    assert steps >= 1 - 1e-9
    assert abs(steps - round(steps)) < 1e-6 * max(1, steps)
    assert rounded <= whole * (1 + 1e-9) or round(steps) == 1
    assert whole - rounded < step * (1 + 1e-6)


@pytest.mark.parametrize("bad", [0, -1, None, "soon", float("nan"), float("inf"), True])
def test_young_daly_refuses_what_is_no_time(bad: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="mu_s is"):
        young_daly(bad, 20)
    with pytest.raises(AnsibleFilterError, match="c_s is"):
        young_daly(20, bad)


CLOCKS = [
    {"after": "15d", "effect": "released", "starts_at": "stopped"},
    {"after": "0s", "effect": "the disk bills", "starts_at": "stopped"},
    {"after": "", "effect": "deleted", "starts_at": "unpaid"},
    {"after": "0s", "effect": "traffic bills", "starts_at": "always"},
    {"after": "12h", "effect": "auto-shutdown", "starts_at": "started"},
]


def test_a_stopped_box_counts_down() -> None:
    rows = danger_clocks(CLOCKS, "stopped", since="2026-11-01T00:00:00Z", now="2026-11-14T21:00:00Z")
    assert [row["effect"] for row in rows] == ["the disk bills", "traffic bills", "released"]
    assert rows[0]["left"] == "now"
    assert rows[2]["at"] == "2026-11-16T00:00:00Z"
    assert rows[2]["left_s"] == 27 * 3600
    assert rows[2]["left"] == "1 d 3 h"


def test_a_clock_that_ran_out_is_overdue() -> None:
    rows = danger_clocks(CLOCKS, "running", since=0, now="2026-11-14T21:00:00Z")
    assert rows[0]["effect"] == "auto-shutdown"
    assert rows[0]["left"] == "overdue"


def test_what_nobody_says_is_unknown_and_never_zero() -> None:
    rows = {row["effect"]: row for row in danger_clocks(CLOCKS, "stopped")}
    assert rows["released"]["left_s"] is None
    assert rows["released"]["left"] == "unknown"
    unpaid = danger_clocks(CLOCKS, "unpaid", since="2026-11-01T00:00:00Z")
    assert next(row for row in unpaid if row["effect"] == "deleted")["left_s"] is None


def test_without_a_state_every_clock_is_listed() -> None:
    rows = danger_clocks(CLOCKS)
    assert len(rows) == len(CLOCKS)
    assert [row["running"] for row in rows] == [True, False, False, False, False]


def test_each_clock_may_have_its_own_beginning() -> None:
    since = {"stopped": "2026-11-01T00:00:00Z", "started": 0}
    rows = danger_clocks(CLOCKS, "stopped", since=since, now="2026-11-02T00:00:00Z")
    assert rows[-1]["left"] == "14 d 0 h"


@pytest.mark.parametrize(
    ("clocks", "since", "said"),
    [
        ("15d", None, "a list of clocks is wanted"),
        ([{"after": "15d"}], None, "is not a clock"),
        ([{"after": "fortnight", "effect": "x", "starts_at": "always"}], None, "not a span of time"),
        (CLOCKS, "yesterday", "since is 'yesterday'"),
    ],
)
def test_clocks_that_are_none(clocks: Any, since: Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        danger_clocks(clocks, "stopped", since=since)


CELLS = st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), st.floats(0, 1000), max_size=20)
BOXES = st.dictionaries(st.sampled_from(["b1", "b2", "b3", "b4", "b5"]), st.floats(0.1, 10), min_size=1)


@given(CELLS, BOXES, st.randoms(use_true_random=False))
def test_split_cells_is_whole_level_and_the_same_in_any_order(
    costs: dict[str, float], speeds: dict[str, float], order: Any
) -> None:
    cells = [{"id": name, "cost": cost} for name, cost in costs.items()]
    boxes = list(speeds)
    shares = split_cells(cells, boxes, speeds)
    placed = [cell["id"] for share in shares.values() for cell in share]
    assert sorted(placed) == sorted(costs)
    assert list(shares) == boxes

    shuffled = list(cells)
    order.shuffle(shuffled)
    again = split_cells(shuffled, boxes, speeds)
    assert {box: {cell["id"] for cell in share} for box, share in again.items()} == {
        box: {cell["id"] for cell in share} for box, share in shares.items()
    }

    finish = max(sum(cell["cost"] for cell in share) / speeds[box] for box, share in shares.items())
    dearest = max(costs.values(), default=0)
    assert finish <= (sum(costs.values()) + len(boxes) * dearest) / sum(speeds.values()) * (1 + 1e-9)


def test_split_cells_takes_ids_and_keeps_their_order() -> None:
    assert split_cells(range(5), ["a", "b"]) == {"a": [0, 2, 4], "b": [1, 3]}
    assert split_cells(["x", "y"], ["a", "b"], {"b": 0}) == {"a": ["x", "y"], "b": []}
    assert split_cells([], ["a"], {"a": 0}) == {"a": []}


@pytest.mark.parametrize(
    ("cells", "boxes", "weights", "said"),
    [
        ("abc", ["a"], None, "cells: a list is wanted"),
        (["x"], "a", None, "boxes: a list is wanted"),
        (["x", "x"], ["a"], None, "cell named twice: x"),
        (["x"], ["a", "a"], None, "box named twice: a"),
        (["x"], ["a"], {"b": 1}, "boxes that are not there: b"),
        (["x"], ["a"], {"a": -1}, "weight of a is -1"),
        (["x"], ["a"], {"a": 0}, "no box with a weight above 0"),
        (["x"], [], None, "no box with a weight above 0"),
        ([{"cost": 1}], ["a"], None, "has no id"),
        ([{"id": "x", "cost": "dear"}], ["a"], None, "cost of cell x is 'dear'"),
        (["x"], ["a"], [1], "a mapping from box to speed"),
    ],
)
def test_split_cells_says_what_is_wrong(cells: Any, boxes: Any, weights: Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        split_cells(cells, boxes, weights)

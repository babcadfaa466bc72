# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.marketplace.filters import BadFilter, driver_number, in_order, matches

ROW = {
    "num_gpus": 1,
    "gpu_name": "RTX 4090",
    "dph_total": 0.31,
    "verification": "verified",
    "rentable": True,
    "external": None,
    "geolocation": "Sweden, SE",
    "driver_version": "550.54.14",
    "driver_vers": 550054014,
    "reliability": 0.99,
    "hosting_type": 1,
    "label": None,
}


@pytest.mark.parametrize(
    "filters",
    [
        {"num_gpus": {"eq": "1"}},
        {"gpu_name": {"eq": "RTX_4090"}},
        {"gpu_name": {"in": ["A100 SXM4", "RTX 4090"]}},
        {"verified": {"eq": True}, "external": {"eq": False}, "rentable": {"eq": True}},
        {"external": False},
        {"geolocation": {"in": ["SE", "NO"]}},
        {"geolocation": {"notin": ["US"]}},
        {"dph_total": {"gte": "0.3", "lt": 0.4}},
        {"driver_version": {"gte": 535086005}},
        {"driver_version": {"gte": "535.86.05"}},
        {"reliability2": {"gt": 0.98}},
        {"datacenter": {"eq": True}},
        {"order": [["x", "asc"]], "limit": 3, "type": "bid", "allocated_storage": 5.0},
        {"label": {"in": [None]}},
    ],
)
def test_a_row_that_passes(filters: dict[str, object]) -> None:
    assert matches(ROW, filters)


@pytest.mark.parametrize(
    "filters",
    [
        {"num_gpus": {"eq": "2"}},
        {"num_gpus": {"neq": 1}},
        {"gpu_name": {"eq": "RTX 4080"}},
        {"verified": {"eq": "false"}},
        {"external": {"eq": True}},
        {"geolocation": {"eq": "US"}},
        {"dph_total": {"gt": 0.31}},
        {"driver_version": {"lt": "550.54.14"}},
        {"label": {"eq": "x"}},
        {"num_gpus": {"gte": "many"}},
    ],
)
def test_a_row_that_does_not(filters: dict[str, object]) -> None:
    assert not matches(ROW, filters)


@pytest.mark.parametrize("filters", [{"colour": {"eq": "red"}}, {"num_gpus": {"like": 1}}, {"num_gpus": {"in": 1}}])
def test_what_cannot_be_filtered_is_an_error(filters: dict[str, object]) -> None:
    with pytest.raises(BadFilter):
        matches(ROW, filters)


def test_only_stored_columns_can_be_filtered_where_the_caller_says_so() -> None:
    with pytest.raises(BadFilter):
        matches(ROW, {"dph_total": {"eq": 0.31}}, columns={"label"})


def test_a_driver_version_counts_three_digits_a_part() -> None:
    assert driver_number("535.86.05") == 535086005
    assert driver_number("550.54") == 550054000


def test_null_comes_last_whatever_the_direction() -> None:
    rows = [{"x": None, "n": 1}, {"x": 2, "n": 2}, {"x": 3, "n": 3}]
    assert [row["n"] for row in in_order(rows, [["x", "asc"]])] == [2, 3, 1]
    assert [row["n"] for row in in_order(rows, [["x", "desc"]])] == [3, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_a_second_column_orders_what_the_first_leaves_equal(pairs: list[tuple[int, int]]) -> None:
    rows = [{"a": first, "b": second} for first, second in pairs]
    ordered = in_order(rows, [["a", "asc"], ["b", "desc"]])
    assert [(row["a"], -row["b"]) for row in ordered] == sorted((first, -second) for first, second in pairs)


@pytest.mark.parametrize("order", [["score"], [["score"]], [["score", "up"]]])
def test_a_malformed_order_is_an_error(order: list[object]) -> None:
    with pytest.raises(BadFilter):
        in_order([ROW], order)

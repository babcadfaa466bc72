# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tenant.marketplace.filters import _passing
from gpu_tenant.marketplace.ready_rows import ReadyRow, StillRow, json_text

VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "a", "1", "é"])
ROWS = st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1).map(lambda row: {"id": 1, **row})


def ready(row: dict[str, Any]) -> ReadyRow:
    return ReadyRow(StillRow(row, frozenset("ab")), {"a": 1.5, "b": None})


@given(st.lists(ROWS, max_size=4), VALUES)
@settings(max_examples=60)
def test_an_answer_says_what_its_rows_say(rows: list[dict[str, Any]], other: Any) -> None:
    shown = [ready(row) for row in rows]
    assert all(row == {**plain, "a": 1.5, "b": None} for row, plain in zip(shown, rows, strict=True))
    for answer in (
        shown,
        {"success": other, "instances": shown, "more": [other]},
        {"instances": shown[0]} if rows else other,
    ):
        assert json.loads(json_text(answer)) == json.loads(json.dumps(answer))


def test_a_copy_of_a_row_says_what_was_made_of_it() -> None:
    changed = {**ready({"id": 7, "c": 1}), "id": None}
    assert json.loads(json_text({"offers": [changed]}))["offers"] == [{"id": None, "c": 1, "a": 1.5, "b": None}]


@given(st.lists(VALUES | st.just([1]), max_size=6), st.sampled_from(["eq", "neq", "gt", "lte"]), VALUES)
@settings(max_examples=60)
def test_many_values_are_judged_as_each_of_them_is(have: list[Any], operation: str, value: Any) -> None:
    if operation in ("gt", "lte"):
        have = [one for one in have if not isinstance(one, list)]
    rows = [{"x": one, "n": number} for number, one in enumerate(have)]
    one_by_one = [row for row in rows if _passing([row], "x", {operation: value})]
    assert _passing(rows, "x", {operation: value}) == one_by_one

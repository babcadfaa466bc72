# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Pages of long answers: where one ends, its token says."""

from __future__ import annotations

import base64
import bisect
import functools
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from .filters import BadFilter, Row
from .refusals import MarketError
from .requests import page_limit
from .rows import FILTERABLE


def money_page(rows: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    if str(query.get("latest_first", "")).lower() == "true":
        rows = list(reversed(rows))
    limit = page_limit(query, 20, 100)
    first = int(read_token(query["after_token"]).get("os_page", 0)) if query.get("after_token") else 0
    page = rows[first : first + limit]
    more = first + limit < len(rows)
    return {
        "success": True,
        "count": len(page),
        "total": len(rows),
        "next_token": encode_token({"values": {}, "os_page": first + limit}) if more else None,
        "results": page,
    }


def selected(row: Row, columns: list[Any] | None) -> Row:
    return row if not columns or "*" in columns else {str(name): row.get(str(name)) for name in columns}


def keyset_order(rows: Sequence[Row], order: list[tuple[str, str]]) -> list[Row]:
    """By the given columns, then by id; null first."""
    for column, direction in order:
        if column not in FILTERABLE or direction.lower() not in ("asc", "desc"):
            raise BadFilter(f"cannot order by {column!r} {direction!r}")
    ordered = list(rows)
    # Ids are whole numbers, never null. A stable sort by the last column first is one by all of them.
    ordered = sorted(rows, key=operator.itemgetter("id"))
    for column, direction in reversed(order):
        ordered.sort(key=functools.partial(_sort_value_of, column), reverse=direction.lower() == "desc")
    return ordered


def after_place(ordered: list[Row], place: Row, order: list[tuple[str, str]]) -> int:
    """How many of the ordered rows come no later than a place."""
    return bisect.bisect_right(ordered, 0, key=lambda row: compare_rows(row, place, order))


def _sort_value_of(column: str, row: Row) -> tuple[int, float, str]:
    return sort_value(row.get(column))


def compare_rows(one: Row, other: Row, order: list[tuple[str, str]]) -> int:
    """Below, at or above 0, in the order of :func:`keyset_order`."""
    for column, direction in (*order, ("id", "asc")):
        first, second = sort_value(one.get(column)), sort_value(other.get(column))
        if first != second:
            sign = -1 if first < second else 1
            return -sign if direction.lower() == "desc" else sign
    return 0


def sort_value(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def write_token(row: Mapping[str, Any], order: list[tuple[str, str]]) -> str:
    return encode_token({"values": {column: row.get(column) for column in (*(name for name, _unused in order), "id")}})


def encode_token(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def read_token(token: str) -> dict[str, Any]:
    """The place a page ended at. MarketError (400 invalid_token)."""
    try:
        content = json.loads(base64.urlsafe_b64decode(token))
        return {**content["values"], "os_page": content.get("os_page", 0)}
    except (ValueError, KeyError, TypeError, AttributeError) as reason:
        raise MarketError(400, "invalid_token", "after_token was not made by this server") from reason

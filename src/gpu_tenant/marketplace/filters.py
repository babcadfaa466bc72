# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Search filters as the market's server reads them: ``{"column": {"op": value}}``, all of which must hold."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = Mapping[str, Any]
SomeRow = TypeVar("SomeRow", bound=Row)
Judge = Callable[[Any], bool]

OPTIONS = frozenset(
    {
        "order", "type", "limit", "allocated_storage", "disable_bundling", "target_reliability", "extra_ids",
        "gpu_option", "show_incompatible", "sort_option", "template_id", "q", "select_cols",
    }
)  # fmt: skip
ALIASES = {
    "reliability2": "reliability",
    "dphtotal": "dph_total",
    "dph": "dph_total",
    "gpu_totalram": "gpu_total_ram",
    "ubuntu_version": "os_version",
    "driver_version": "driver_vers",
    "cuda_vers": "cuda_max_good",
    "display_active": "gpu_display_active",
    "dlperf_usd": "dlperf_per_dphtotal",
    "flops_usd": "flops_per_dphtotal",
}
ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
# Kinds of values of which equal ones are the same: 1 and True are not, and a list is no key.
_SAME_KINDS = (frozenset({str, int, float, type(None)}), frozenset({bool, type(None)}))
OPERATIONS = ("eq", "neq", *ORDERINGS, "in", "notin")


class BadFilter(ValueError):
    """A column that cannot be filtered, or an operation that does not exist."""


# Columns that only filters know, computed from a row.
VIRTUAL: dict[str, Callable[[Row], Any]] = {
    "verified": lambda row: row.get("verification") == "verified",
    "datacenter": lambda row: row.get("hosting_type") == 1,
    "geolocation": lambda row: str(row.get("geolocation") or "")[-2:],
    "external": lambda row: bool(row.get("external")),
}


def matches(row: Row, filters: Mapping[str, Any], columns: Iterable[str] | None = None) -> bool:
    """Whether a row passes every filter; as :func:`matching`."""
    return bool(matching([row], filters, columns))


def matching(
    rows: Sequence[SomeRow], filters: Mapping[str, Any], columns: Iterable[str] | None = None, strict: bool = True
) -> list[SomeRow]:
    """The rows that pass every filter.

    :param rows: all of the same columns.
    :param columns: the columns that may be filtered, None for all of the rows'.
    :param strict: False passes over filters by other columns.
    :raises BadFilter: for another column or an unknown operation.
    """
    found = list(rows)
    if not found:
        return found
    allowed = {*found[0], *VIRTUAL} if columns is None else set(columns)
    for name, wanted in filters.items():
        if name not in OPTIONS and (strict or _is_known(name, allowed)):
            column = _column(name, allowed)
            conditions = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
            found = _passing(found, column, conditions)
    return found


def _is_known(name: str, allowed: set[str]) -> bool:
    return name in allowed or ALIASES.get(name) in allowed


def _column(name: str, allowed: set[str]) -> str:
    """The column that a client's name means."""
    column = ALIASES.get(name, name)
    if column not in allowed and name in allowed:
        column = name
    if column not in allowed:
        raise BadFilter(f"column {name!r} does not exist or cannot be filtered")
    return column


def _passing(rows: list[SomeRow], column: str, conditions: Mapping[str, Any]) -> list[SomeRow]:
    """Each value is judged once: among a thousand rows there are few of most columns."""
    if not rows:
        return rows
    virtual = VIRTUAL.get(column)
    values = [row.get(column) for row in rows] if virtual is None else [virtual(row) for row in rows]
    judges = [_judge(operation, value, column) for operation, value in conditions.items()]
    kinds = set(map(type, values))
    if not any(kinds <= same for same in _SAME_KINDS):
        return [row for row, have in zip(rows, values, strict=True) if all(judge(have) for judge in judges)]
    passes = {have: all(judge(have) for judge in judges) for have in set(values)}
    return [row for row, have in zip(rows, values, strict=True) if passes[have]]


def in_order(rows: Iterable[SomeRow], order: Iterable[Any]) -> list[SomeRow]:
    """Rows sorted by ``[[column, "asc"|"desc"], …]``, null values last. BadFilter for a malformed order."""
    result = list(rows)
    for entry in reversed(list(order)):
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and str(entry[1]).lower() in ("asc", "desc")):
            raise BadFilter(f"order {entry!r} is not [column, 'asc' or 'desc']")
        column = ALIASES.get(str(entry[0]), str(entry[0]))
        filled = [row for row in result if row.get(column) is not None]
        filled.sort(key=_sort_key_of(column), reverse=str(entry[1]).lower() == "desc")
        result = filled + [row for row in result if row.get(column) is None]
    return result


def _judge(operation: str, value: Any, column: str) -> Judge:
    """What decides whether a value meets one condition. BadFilter for a condition that does not exist."""
    if operation not in OPERATIONS:
        raise BadFilter(f"operation {operation!r} does not exist; there are {', '.join(OPERATIONS)}")
    if operation in ("in", "notin"):
        if not isinstance(value, (list, tuple)):
            raise BadFilter(f"{column}: {operation} needs a list")
        return lambda have: any(_equal(have, one, column) for one in value) == (operation == "in")
    if operation in ("eq", "neq"):
        return lambda have: _equal(have, value, column) == (operation == "eq")
    return _ordering_judge(ORDERINGS[operation], value, column)


def _ordering_judge(compare: Callable[[Any, Any], bool], value: Any, column: str) -> Judge:
    wanted, text = _as_number(value, column), str(value)

    def judge(have: Any) -> bool:
        if isinstance(have, str):
            return compare(have, text)
        return have is not None and wanted is not None and compare(have, wanted)

    return judge


def _equal(have: Any, value: Any, column: str) -> bool:
    if have is None or value is None:
        return have is value
    if isinstance(have, bool):
        return have is _as_bool(value)
    if isinstance(have, (int, float)):
        wanted = _as_number(value, column)
        return wanted is not None and abs(have - wanted) <= 1e-9 * max(1.0, abs(have))
    return str(have).replace("_", " ") == str(value).replace("_", " ")


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
    return bool(value)


def _as_number(value: Any, column: str) -> float | None:
    """Clients send numbers as text; a driver version as ``535.86.05`` counts three digits a part."""
    if isinstance(value, (int, float)):
        return float(value)
    text = str(value).strip()
    if column == "driver_vers" and "." in text:
        return float(driver_number(text))
    try:
        return float(text)
    except ValueError:
        return None


def driver_number(version: str) -> int:
    """``550.54.14`` -> 550054014. Parts that are no numbers count as 0."""
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    parts = (parts + [0, 0])[:3]
    return parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]


def _sort_key_of(column: str) -> Callable[[Row], tuple[int, Any]]:
    """Numbers before text."""
    return lambda row: (int(isinstance(row[column], str)), row[column])

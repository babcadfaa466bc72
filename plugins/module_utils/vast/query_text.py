# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's query language, as its own client reads it: ``gpu_ram>=20 geolocation in [DE,SE] verified=any``.

Two things are stricter than there: a name that the market does not have is an error, and numbers are sent as numbers.
"""

from __future__ import annotations

import json
import re
from typing import Any, Mapping

from ..failures import TenantFailure
from .search_query import check_query

_TERM = re.compile(
    r"([a-zA-Z0-9_]+)( *[=><!]+| +(?:[lg]te?|nin|neq|eq|not ?eq|not ?in|in) )?( *)"
    r"(\[[^\]]+\]|\"[^\"]+\"|[^ ]+)?( *)"
)
_OPERATORS = {
    ">=": "gte", ">": "gt", "gt": "gt", "gte": "gte", "<=": "lte", "<": "lt", "lt": "lt", "lte": "lte",
    "!=": "neq", "neq": "neq", "noteq": "neq", "not eq": "neq", "==": "eq", "=": "eq", "eq": "eq",
    "in": "in", "notin": "notin", "not in": "notin", "nin": "notin",
}  # fmt: skip
_ALIASES = {
    "cuda_vers": "cuda_max_good",
    "display_active": "gpu_display_active",
    "dlperf_usd": "dlperf_per_dphtotal",
    "dph": "dph_total",
    "flops_usd": "flops_per_dphtotal",
}
# The language counts in GB and days, the API in MB and seconds.
_UNITS = {"cpu_ram": 1000.0, "gpu_ram": 1000.0, "gpu_total_ram": 1000.0, "duration": 86400.0}
_ANY = ("any", "*", "?")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "None": None, "null": None}
# Columns whose values are text even where they look like numbers.
_TEXTS = frozenset({
    "gpu_name", "gpu_arch", "cpu_name", "cpu_arch", "mobo_name", "os_version", "ubuntu_version", "geolocation",
    "disk_name", "hostname", "verification",
})  # fmt: skip
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")


def filters_in(query: Any) -> dict[str, Any]:
    """The API's filters for a ``query`` option: filters already, their JSON, or a text of the language.

    A filter that is None lifts the one that there would be. TenantFailure that names what is wrong.
    """
    if isinstance(query, Mapping):
        return dict(query)
    if not isinstance(query, str):
        raise _bad(f"query is a {type(query).__name__}, neither filters nor a text")
    if query.lstrip().startswith("{"):
        return _from_json(query)
    filters: dict[str, Any] = {}
    for name, operator, value in _terms(query):
        column = _ALIASES.get(name, name)
        check_query({column: {}})
        operation = _OPERATORS.get(operator)
        if operation is None:
            raise _bad(f"there is no operator {operator!r} after {name}" if operator else f"{name} has no operator")
        if value in _ANY:
            if operation != "eq":
                raise _bad(f"{name} {operator} {value}: only equality takes {value!r}")
            filters[column] = None
            continue
        conditions = filters.get(column) or {}
        filters[column] = {**conditions, operation: _value(column, operation, value)}
    return filters


def _terms(text: str) -> list[tuple[str, str, str]]:
    """(column, operator, value) texts, in order."""
    found = _TERM.findall(text.strip())
    if "".join("".join(parts) for parts in found) != text.strip():
        raise _bad(f"{text.strip()[:80]!r} cannot be read to its end")
    terms = [(name, operator.strip(), value.strip(",[]")) for name, operator, _blank, value, _end in found]
    for name, operator, value in terms:
        if operator and not value:
            raise _bad(f"{name} {operator} has no value")
    return terms


def _value(column: str, operation: str, text: str) -> Any:
    if operation in ("in", "notin"):
        return [_one(column, part.strip()) for part in text.split(",") if part.strip()]
    return _one(column, text)


def _one(column: str, text: str) -> Any:
    if column == "driver_version" and re.match(r"[0-9]{1,3}(\.[0-9]{1,3}){2}\Z", text):
        # As the market numbers drivers: three digits a part.
        return int("".join(part.zfill(3) for part in text.split(".")))
    plain = text.replace("_", " ").strip('"')
    if column in _UNITS:
        if not _NUMBER.match(plain):
            raise _bad(f"{column} is a number, and {plain[:40]!r} is none")
        return float(plain) * _UNITS[column]
    if plain in _WORDS:
        return _WORDS[plain]
    if column in _TEXTS or not _NUMBER.match(plain):
        return plain
    return float(plain) if "." in plain else int(plain)


def _from_json(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise _bad(f"query is no JSON: {error}") from None


def _bad(what: str) -> TenantFailure:
    return TenantFailure(
        "config",
        what,
        safe="nothing was searched or rented",
        fix="write terms such as: num_gpus>=2 gpu_name in [RTX_4090,RTX_5090] verified=any",
    )

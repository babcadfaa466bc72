# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The part of JSON Schema that the schema of profiles uses, answered in sentences that name key and fix.

It needs no library, so that the inventory plugin works with what Ansible brings.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Callable, NamedTuple

_TEMPLATE = re.compile(r"\{\{|\{%")


class Problem(NamedTuple):
    """One thing wrong with a profile: the dotted key, what is wrong, what to write instead."""

    key: str
    what: str
    fix: str

    def sentence(self, where: str) -> str:
        return f"{where}: {self.key}: {self.what}. Fix: {self.fix}."


def check(value: Any, schema: dict[str, Any], key: str, undecided: Callable[[Any], bool]) -> list[Problem]:
    if undecided(value) or not schema:
        return []
    types = schema.get("type", [])
    allowed = [types] if isinstance(types, str) else types
    if allowed and not any(_is_type(value, one) for one in allowed):
        return [_problem(schema, key, f"{_or(allowed)} is wanted, found {type_name(value)} {_shown(value)}")]
    if isinstance(value, dict):
        return _check_object(value, schema, key, undecided)
    if isinstance(value, list):
        found = []
        for index, item in enumerate(value):
            found += check(item, schema.get("items", {}), f"{key}[{index}]", undecided)
        return found
    return _check_scalar(value, schema, key)


def _check_object(
    value: dict[str, Any], schema: dict[str, Any], key: str, undecided: Callable[[Any], bool]
) -> list[Problem]:
    prefix = key + "." if key else ""
    known = schema.get("properties", {})
    found = []
    for name in schema.get("required", []):
        if name not in value:
            found.append(_problem(known.get(name, schema), prefix + name, "is missing (an empty value means none)"))
    for name, item in value.items():
        if name in known:
            found += check(item, known[name], prefix + str(name), undecided)
        elif not any(re.match(pattern, str(name)) for pattern in schema.get("patternProperties", {})):
            found.append(_unknown_key(str(name), prefix, list(known)))
    return found


def _check_scalar(value: Any, schema: dict[str, Any], key: str) -> list[Problem]:
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(repr(choice) for choice in schema["enum"])
        return [Problem(key, f"{_shown(value)} is not one of {choices}", "choose one of them")]
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return [_problem(schema, key, "is empty")]
        if "pattern" in schema and not re.search(_anchored(schema["pattern"]), value):
            return [_problem(schema, key, f"{_shown(value)} does not look right")]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return [_problem(schema, key, f"{value} is below {schema['minimum']}")]
        if value > schema.get("maximum", value):
            return [_problem(schema, key, f"{value} is above {schema['maximum']}")]
    return []


def _anchored(pattern: str) -> str:
    """``$`` of JSON Schema is the very end; Python's also matches before a last newline."""
    return pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern


def _problem(schema: dict[str, Any], key: str, what: str) -> Problem:
    return Problem(key or "(file)", what, schema.get("x-fix") or schema.get("description") or "see docs/platforms.md")


def _unknown_key(name: str, prefix: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if near:
        return Problem(prefix + name, "is not a key of a profile", f"did you mean {prefix}{near[0]}?")
    return Problem(prefix + name, "is not a key of a profile", "other variables belong into your own group_vars")


def is_template(value: Any) -> bool:
    return isinstance(value, str) and bool(_TEMPLATE.search(value))


def _is_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "object": (dict,),
        "array": (list,),
        "integer": (int,),
        "number": (int, float),
        "null": (type(None),),
    }
    return name in kinds and isinstance(value, kinds[name])


def type_name(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "array", "object", "null"):
        if _is_type(value, name):
            return name
    return type(value).__name__


def _or(names: list[str]) -> str:
    return " or ".join(names)


def _shown(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the numbers and the words of a run spec may be, by the name of the key: one door for every command. Pure."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from .box import records
from .box import run_record as run_record_on_box

MOST_GPUS = 64
_MOST = 1e6
# All that these mappings may hold: a misspelt budget would be none.
_KEYS = {"budget": ("usd", "warn_at", "rung_usd"), "retries": ("max",)}

# Where in the spec, and why it cannot be used.
Problem = tuple[tuple[Any, ...], str]


def problems(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What cannot be used in ``spec``, whose fields have their types already; the first is as good as all."""
    yield from _keys(spec)
    yield from _counts(spec)
    yield from _amounts(spec)
    yield from _limit_of_many(spec)
    yield from _on_fail(spec["on_fail"])
    yield from _shares(spec["budget"])
    yield from _candidates(spec["candidates"])
    yield from _environment(spec["env"])
    yield from _words(spec)


def _keys(spec: Mapping[str, Any]) -> Iterator[Problem]:
    for field, known in _KEYS.items():
        for key in spec[field]:
            if key not in known:
                yield (field, key), f"{field} has an unknown key {key!r}; known keys are {', '.join(known)}"


def _counts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    most_retries = run_record_on_box.MOST_RETRIES
    for where, most in ((("resources", "gpu_count"), MOST_GPUS), (("retries", "max"), most_retries)):
        value = spec[where[0]].get(where[1], 0)
        if not records.is_count(value) or value > most:
            yield where, f"{'.'.join(where)} is {value!r}: a whole number from 0 to {most} is wanted"


def _amounts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    days = run_record_on_box.MOST_SECONDS / 86400
    for name in ("deadline_s", "grace_s", "stall_s", "cell_timeout_s"):
        value = spec[name]
        if not run_record_on_box.is_seconds(value) or (value == 0 and name == "deadline_s"):
            least = "above 0" if name == "deadline_s" else "from 0"
            yield (name,), f"{name!r} must be a number of seconds {least} to {days:g} days, not {value!r}"
    dollars = [(("budget", key), "dollars") for key in ("usd", "rung_usd")]
    for where, what in ((("resources", "disk_gb"), "gigabytes"), *dollars):
        held = spec[where[0]]
        is_none = where == ("budget", "usd") and held.get("usd") is None
        if where[1] in held and not _is_amount(held[where[1]]) and not is_none:
            yield where, f"{'.'.join(where)} is {held[where[1]]!r}: a plain number of {what} above 0 is wanted"


def _limit_of_many(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Each box would end its own part: the first to do so has failed, and the others wait for it and bill on."""
    if spec["cell_timeout_s"] and spec["nodes"] and spec["parts"]:
        why = "'cell_timeout_s' is kept by each box alone, and 'nodes' makes one cell of several boxes: take it away"
        yield ("cell_timeout_s",), f"{why}; budget.usd bounds such a run under gpu-tenant watch"


def _on_fail(word: str) -> Iterator[Problem]:
    if word not in run_record_on_box.ON_FAIL:
        yield ("on_fail",), f"'on_fail' is {word!r}: one of {', '.join(run_record_on_box.ON_FAIL)} is wanted"


def _shares(budget: Mapping[str, Any]) -> Iterator[Problem]:
    if "warn_at" not in budget:
        return
    where, share = ("budget", "warn_at"), records.finite(budget["warn_at"])
    if share is None or not 0 < share <= 1:
        yield where, f"budget.warn_at is {budget['warn_at']!r}: a share of budget.usd is wanted, above 0 and at most 1"
    elif budget.get("usd") is None:
        yield where, "budget.warn_at is a share of budget.usd, which is not set"


def _is_amount(value: object) -> bool:
    amount = records.finite(value)
    return amount is not None and 0 < amount <= _MOST


def _candidates(names: Sequence[Any]) -> Iterator[Problem]:
    """Whether the inventory knows them is found out where boxes are chosen."""
    for index, name in enumerate(names):
        where = ("candidates", index)
        if not isinstance(name, str) or not name.strip():
            yield where, f"candidates[{index}] is {name!r}: the name of a box or a group of the inventory is wanted"
        elif name in names[:index]:
            yield where, f"{name!r} is listed twice among the candidates"


def _environment(environment: Mapping[Any, Any]) -> Iterator[Problem]:
    for name, value in environment.items():
        if not run_record_on_box.is_variable(name):
            yield ("env", name), f"env has {name!r}, which is no name of an environment variable"
        if value is None or isinstance(value, (Mapping, list)):
            yield ("env", name), f"env {name} must be a plain value, not {type(value).__name__}"


def _words(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """What no process can be given as an argument or in its environment."""
    named: list[tuple[tuple[Any, ...], str, Any]] = [
        (("env", name), f"env {name}", value) for name, value in spec["env"].items()
    ]
    for field in ("command", "smoke", "evaluate"):
        named += [((field, index), field, word) for index, word in enumerate(spec[field])]
    for index, cell in enumerate(spec["cells"]):
        named += [(("cells", index, "args"), f"args of cell {cell['id']}", word) for word in cell["args"]]
    for where, what, word in named:
        if not _can_be_given(str(word)):
            yield where, f"{what} holds what no process can be given: {word!r}"


def _can_be_given(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False

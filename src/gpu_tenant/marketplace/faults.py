# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Faults on request: which there are, how a script of them is written, and which call each one hits.

Whether a fault strikes depends only on the seed, the fault's number and how many calls it could have hit before, so
a run whose calls come in the same order meets the same faults. docs/marketplace-faults.md describes each kind.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

ANY = "any"
CALLS = (
    "search", "create", "list", "show", "change", "destroy", "reboot", "recycle", "bid", "logs", "keys", "user",
    "money", "copies", "volumes", ANY,
)  # fmt: skip
LISTS = ("list", "search", "volumes")
STATUSES = (500, 502, 503, 504)
SHAPES = ("no_list", "no_ids", "no_key")
SHOWN_AS = ("offline", "unknown")
LINGERS = ("everywhere", "list")


@dataclass(frozen=True)
class Kind:
    """What a fault does.

    :param of_state: it happens to an instance, not to an answer.
    :param of_copy: it happens to a copy that the call begins.
    :param options: keys that it takes beside those that every fault takes.
    :param calls: the only calls that it can hit.
    """

    of_state: bool
    options: tuple[str, ...] = ()
    calls: tuple[str, ...] = CALLS
    of_copy: bool = False


KINDS: Mapping[str, Kind] = {
    "lost_answer": Kind(False),
    "lost_request": Kind(False),
    "rate_limited": Kind(False, ("retry_after_s",)),
    "server_error": Kind(False, ("status", "done")),
    "garbled": Kind(False),
    "slow": Kind(False, ("seconds",)),
    "empty_list": Kind(False, (), LISTS),
    "partial_list": Kind(False, ("rows", "admitted"), LISTS),
    "malformed_list": Kind(False, ("shape",), LISTS),
    "outbid": Kind(True, ("seconds",)),
    "revival": Kind(True),
    "stuck_loading": Kind(True, ("seconds",)),
    "stuck_scheduling": Kind(True, ("seconds",)),
    "host_offline": Kind(True, ("seconds", "shows")),
    "host_key_change": Kind(True),
    "port_change": Kind(True),
    "ssh_cut": Kind(True),
    "slow_link": Kind(True, ("seconds", "kb_per_s")),
    "disk_full": Kind(True, ("free_mb",), ("create",)),
    "slow_destroy": Kind(True, ("seconds", "lingers"), ("destroy",)),
    "zero_gpu": Kind(True, ("seconds",)),
    "no_capacity": Kind(False, (), ("create",)),
    "copy_fails": Kind(False, ("path",), ("copies",), of_copy=True),
    "copy_partial": Kind(False, ("path",), ("copies",), of_copy=True),
    "copy_corrupt": Kind(False, ("path",), ("copies",), of_copy=True),
    "copy_stuck": Kind(False, (), ("copies",), of_copy=True),
}
_NEEDED = {"slow": "seconds", "slow_destroy": "seconds", "slow_link": "kb_per_s", "disk_full": "free_mb"}


@dataclass(frozen=True)
class Fault:
    """One line of a script.

    :param call: the calls that it can hit.
    :param times: how often it strikes, None for always.
    :param after: calls that it lets pass first.
    :param probability: of striking one of the calls that follow.
    :param instance: only calls about this one; a fault of state happens to it whatever the call is about.
    :param seconds: of market time that a state lasts (None: until the fault is cleared), or that an answer takes.
    :param status: of a server error, and with ``done`` the request had its effect before.
    :param kb_per_s: KiB a second that a slow link lets through each way.
    :param free_mb: MiB of room on a full disk.
    :param path: a pattern of the copied files that are damaged; of all files it is the last one.
    :param rows: how many a partial list lacks; ``admitted`` when its total still counts them.
    """

    kind: str
    call: str
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    instance: int | None = None
    seconds: float | None = None
    retry_after_s: float | None = None
    status: int = 503
    done: bool = False
    rows: int = 1
    admitted: bool = True
    shape: str = "no_list"
    shows: str = "offline"
    lingers: str = "everywhere"
    kb_per_s: float | None = None
    free_mb: float | None = None
    path: str = "*"

    @property
    def of_state(self) -> bool:
        return KINDS[self.kind].of_state

    def as_dict(self) -> dict[str, Any]:
        """What was written, defaults filled in; options of other kinds left out."""
        told = {*_COMMON, *KINDS[self.kind].options}
        return {name: value for name, value in asdict(self).items() if name in told}


@dataclass(frozen=True)
class FaultScript:
    """``seed`` None takes the market's."""

    seed: int | None = None
    faults: tuple[Fault, ...] = ()


NO_FAULTS = FaultScript()


class BadFault(ValueError):
    """A script that is none; ``where`` is the key."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


# --- how a script is written --------------------------------------------------------------------------------------

_COMMON = ("kind", "call", "times", "after", "probability", "instance")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda value: isinstance(value, str) and value in KINDS, f"must be one of {', '.join(KINDS)}"),
    "call": (lambda value: isinstance(value, str) and value in CALLS, f"must be one of {', '.join(CALLS)}"),
    "times": (
        lambda value: value is None or (_is_whole(value) and value >= 1),
        "must be a whole number from 1, or null for always",
    ),
    "after": (lambda value: _is_whole(value) and value >= 0, "must be a whole number from 0"),
    "probability": (lambda value: _is_number(value) and 0 < value <= 1, "must be a number above 0, at most 1"),
    "instance": (
        lambda value: value is None or (_is_whole(value) and value >= 1),
        "must be the number of an instance",
    ),
    "seconds": (lambda value: value is None or (_is_number(value) and value > 0), "must be a number above 0"),
    "retry_after_s": (lambda value: value is None or (_is_number(value) and value >= 0), "must be a number from 0"),
    "kb_per_s": (lambda value: _is_number(value) and value > 0, "must be a number above 0"),
    "free_mb": (lambda value: _is_number(value) and value > 0, "must be a number above 0"),
    "path": (lambda value: isinstance(value, str) and bool(value), "must be a pattern of file names"),
    "status": (lambda value: _is_whole(value) and value in STATUSES, f"must be one of {', '.join(map(str, STATUSES))}"),
    "done": (lambda value: isinstance(value, bool), "must be true or false"),
    "rows": (lambda value: _is_whole(value) and value >= 1, "must be a whole number from 1"),
    "admitted": (lambda value: isinstance(value, bool), "must be true or false"),
    "shape": (lambda value: isinstance(value, str) and value in SHAPES, f"must be one of {', '.join(SHAPES)}"),
    "lingers": (lambda value: isinstance(value, str) and value in LINGERS, f"must be one of {', '.join(LINGERS)}"),
    "shows": (lambda value: isinstance(value, str) and value in SHOWN_AS, f"must be one of {', '.join(SHOWN_AS)}"),
}


def read_script(path: Path) -> FaultScript:
    """A script from a YAML or JSON file. TenantFailure (config) that names the file and the key."""
    try:
        return script_in(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, BadFault) as problem:
        raise TenantFailure(
            "config",
            f"{path} is no script of faults: {' '.join(str(problem).split())}",
            safe="Nothing was started",
            fix="docs/marketplace-faults.md has the keys and an example",
        ) from problem


def script_in(data: Any) -> FaultScript:
    """BadFault that names the key."""
    if not isinstance(data, Mapping):
        raise BadFault("the script", "must be a mapping with the list 'faults'")
    for name in data:
        if name not in ("seed", "faults"):
            raise BadFault(str(name), "is unknown; a script has seed and faults")
    seed = data.get("seed")
    if seed is not None and not _is_whole(seed):
        raise BadFault("seed", "must be a whole number")
    listed = data.get("faults")
    if not isinstance(listed, list):
        raise BadFault("faults", "must be a list")
    return FaultScript(seed, tuple(fault_in(one, f"faults[{place}]") for place, one in enumerate(listed)))


def fault_in(data: Any, where: str) -> Fault:
    """One fault from its mapping. BadFault that names the key below ``where``."""
    if not isinstance(data, Mapping):
        raise BadFault(where, "must be a mapping with kind and call")
    for name in ("kind", "call"):
        if name not in data:
            raise BadFault(f"{where}.{name}", "is missing")
    _check(data, "kind", where)
    kind = KINDS[data["kind"]]
    for name in data:
        if name not in _CHECKS:
            raise BadFault(f"{where}.{name}", "is unknown")
        if name not in (*_COMMON, *kind.options):
            raise BadFault(f"{where}.{name}", f"is no key of the kind {data['kind']}")
        _check(data, name, where)
    if data["call"] not in kind.calls:
        raise BadFault(f"{where}.call", f"{data['kind']} can only hit {', '.join(kind.calls)}")
    needed = _NEEDED.get(data["kind"])
    if needed is not None and data.get(needed) is None:
        raise BadFault(f"{where}.{needed}", "is missing")
    return Fault(**data)


def _check(data: Mapping[str, Any], name: str, where: str) -> None:
    holds, problem = _CHECKS[name]
    if not holds(data[name]):
        raise BadFault(f"{where}.{name}", f"{problem}, not {data[name]!r}")


# --- which calls they hit -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A fault of a plan, and what became of it: ``calls`` it could have hit, ``struck`` of them."""

    number: int
    fault: Fault
    calls: int = 0
    struck: int = 0

    @property
    def is_spent(self) -> bool:
        return self.fault.times is not None and self.struck >= self.fault.times

    def as_dict(self) -> dict[str, Any]:
        told = {"id": self.number, "calls": self.calls, "struck": self.struck, "spent": self.is_spent}
        return {**told, **self.fault.as_dict()}


@dataclass
class FaultPlan:
    """The faults of a market, in the order in which they were given. Not for two threads at once."""

    seed: int
    entries: dict[int, Entry] = field(default_factory=dict)
    last_number: int = 0

    def add(self, fault: Fault) -> int:
        self.last_number += 1
        self.entries[self.last_number] = Entry(self.last_number, fault)
        return self.last_number

    def of_answers(self, call: str, named: Sequence[int]) -> list[Entry]:
        """The faults that hit the answer of this call.

        :param named: the instances that it is about.
        """
        return [entry for entry in self._waiting(call, False) if self._is_about(entry, named) and self._strikes(entry)]

    def of_state(self, call: str, named: Sequence[int], living: Sequence[int]) -> list[tuple[Entry, int]]:
        """The faults that happen to an instance at this call, each with the instance."""
        found = []
        for entry in self._waiting(call, True):
            target = self._target(entry, named, living)
            if target is not None and self._strikes(entry):
                found.append((entry, target))
        return found

    def of_copy(self, named: Sequence[int]) -> Fault | None:
        """The fault that happens to a copy which begins now, between these instances; at most one does."""
        copies = [entry for entry in self.entries.values() if KINDS[entry.fault.kind].of_copy and not entry.is_spent]
        struck = (entry.fault for entry in copies if self._is_about(entry, named) and self._strikes(entry))
        return next(struck, None)

    def _waiting(self, call: str, of_state: bool) -> list[Entry]:
        return [
            entry
            for entry in self.entries.values()
            if entry.fault.of_state is of_state
            and not KINDS[entry.fault.kind].of_copy
            and entry.fault.call in (call, ANY)
            and not entry.is_spent
        ]

    def _is_about(self, entry: Entry, named: Sequence[int]) -> bool:
        return entry.fault.instance is None or entry.fault.instance in named

    def _target(self, entry: Entry, named: Sequence[int], living: Sequence[int]) -> int | None:
        """Whom a fault of state happens to: the one it names, the one the call is about, else one by the seed."""
        wanted = entry.fault.instance
        if named:
            found = [one for one in named if one in living and wanted in (None, one)]
            return found[0] if found else None
        if wanted is not None:
            return wanted if wanted in living else None
        return self._draw(entry, "target").choice(sorted(living)) if living else None

    def _strikes(self, entry: Entry) -> bool:
        """Whether this call is hit; it counts either way."""
        hit = entry.calls >= entry.fault.after and self._draw(entry, "strike").random() < entry.fault.probability
        counted = replace(entry, calls=entry.calls + 1, struck=entry.struck + hit)
        self.entries[entry.number] = counted
        return hit

    def _draw(self, entry: Entry, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{entry.number}/{entry.calls}/{purpose}")  # noqa: S311 - to be repeated


def plan_of(script: FaultScript, market_seed: int, last_number: int = 0) -> FaultPlan:
    """A plan that begins. The draws go by the faults' numbers, which come after ``last_number``."""
    plan = FaultPlan(market_seed if script.seed is None else script.seed, last_number=last_number)
    for fault in script.faults:
        plan.add(fault)
    return plan

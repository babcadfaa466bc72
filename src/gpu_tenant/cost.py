# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What each rented machine has cost, for the report: accrued by the journal, and billed. Pure; unknown stays unknown.

Accrued is :mod:`..module_utils.accrual`'s; billed is the provider's word, and comes later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import accrual
from ansible_collections.tenant.gpu.plugins.module_utils.accrual import Interval


@dataclass
class Machine:
    """One rented machine. ``accrued`` and ``billed`` are None while unknown; ``why_unknown`` says why."""

    project: str
    box: str
    generation: int
    provider_id: str
    platform: str
    runs: list[str] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    state: str = ""
    billed: float | None = None
    why_unknown: str = ""

    @property
    def accrued(self) -> float | None:
        return accrual.total(self.intervals) if self.intervals else None

    @property
    def cost(self) -> float | None:
        """The provider's bill where there is one, else what accrued."""
        return self.billed if self.billed is not None else self.accrued

    def as_dict(self) -> dict[str, Any]:
        difference = None if self.billed is None or self.accrued is None else self.billed - self.accrued
        return {
            **asdict(self),
            "intervals": [{**asdict(interval), "dollars": interval.dollars} for interval in self.intervals],
            "accrued": self.accrued,
            "cost": self.cost,
            "billed_minus_accrued": difference,
        }


def machines(
    boxes: Iterable[Mapping[str, Any]],
    lines: Iterable[Mapping[str, Any]],
    receipts: Iterable[Mapping[str, Any]],
    contacts: Iterable[Mapping[str, Any]],
    billed: Mapping[str, float],
    now: str,
) -> list[Machine]:
    """Every machine that was ever rented, from the records of the state store.

    :param billed: dollars by the provider's id, as far as the provider has told.
    :param now: UTC text; until then what is not ended has accrued.
    """
    acts = accrual.acts_by_machine(lines)
    runs = _runs(receipts, contacts)
    found = []
    for record in boxes:
        key = (str(record.get("project")), str(record.get("box")), str(record.get("provider_id") or ""))
        if not key[2]:
            continue
        machine = Machine(
            key[0],
            key[1],
            int(record.get("generation") or 0),
            key[2],
            str(record.get("platform") or "unknown"),
            runs=sorted(runs.get(key, ())),
            billed=billed.get(key[2]),
        )
        machine.intervals, machine.state = accrual.intervals(acts.get(key, []), now)
        machine.why_unknown = _why_unknown(machine)
        found.append(machine)
    return found


def _runs(
    receipts: Iterable[Mapping[str, Any]], contacts: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str, str], set[str]]:
    """The runs that are known to have been on each machine."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for record in [*receipts, *contacts]:
        key = (str(record.get("project")), str(record.get("box")), str(record.get("provider_id")))
        named = record.get("runs")
        names = [str(record["run_id"])] if record.get("run_id") else list(named) if isinstance(named, Mapping) else []
        found.setdefault(key, set()).update(map(str, names))
    return found


def _why_unknown(machine: Machine) -> str:
    if machine.cost is not None:
        return ""
    if not machine.intervals:
        return "the journal does not say when it was rented, and the provider has not billed it"
    states = sorted({interval.state for interval in machine.intervals if interval.per_hour is None})
    return f"its rate while {' and '.join(states)} is not recorded, and the provider has not billed it"


@dataclass
class Sum:
    """``total`` is None as soon as one machine's cost is unknown; ``known`` is the sum of the others."""

    machines: int = 0
    known: float = 0.0
    unknown: int = 0

    def add(self, cost: float | None) -> None:
        self.machines += 1
        if cost is None:
            self.unknown += 1
        else:
            self.known += cost

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": None if self.unknown else self.known}


NO_RUN = "(no run known)"


def run_of(machine: Machine) -> str:
    """The key that a machine's cost is summed under; one that served several runs counts for them together."""
    return " + ".join(machine.runs) or NO_RUN


def sums(found: Iterable[Machine]) -> dict[str, dict[str, Sum]]:
    """By run, by project and by platform."""
    result: dict[str, dict[str, Sum]] = {"run": {}, "project": {}, "platform": {}}
    for machine in found:
        keys = {"run": run_of(machine), "project": machine.project, "platform": machine.platform}
        for kind, key in keys.items():
            result[kind].setdefault(key, Sum()).add(machine.cost)
    return result

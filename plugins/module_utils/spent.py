# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run or a project has cost by the journal: for the runner's decisions and for whoever is about to rent. Pure.

By the rule that the report accounts by (:mod:`.accrual`). A run pays for every box that was rented or brought up for
it, from the moment when it first was, with all its machines and the disk of those at rest; a project for all that was
ever rented for it. Where the store was lost, a machine of the box in question that was found again counts whole; what
machines before it cost is known to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

from . import accrual
from .accrual import Interval
from .purse import DEFAULT_WARN_AT, RESERVED_HOURS, Purse
from .rental_account import FOUND

# Lines that say for which run (``run_id``) a box is there: the runner brings it up; it is rented, or was there already.
RECOVER = "recover"
RENT = "rent"
SERVES = "serves"
_BEGINS = {RECOVER: "intent", RENT: "effect", SERVES: "effect"}


@dataclass(frozen=True)
class Limit:
    """What may be spent.

    :param usd: dollars; None for no limit.
    :param run_id: whose budget it is; empty for the project's.
    """

    project: str
    usd: float | None
    warn_at: float = DEFAULT_WARN_AT
    run_id: str = ""


@dataclass(frozen=True)
class _Machine:
    """A machine as far as somebody pays for it."""

    box: str
    rented_at: str
    state: str
    held: Sequence[Interval]


def purse(lines: Sequence[Mapping[str, Any]], limit: Limit, box: str, cap: float | None, now: str) -> Purse:
    """How much of a limit is gone, as who would rent ``box`` within ``cap`` sees it.

    :param lines: of the journal.
    :param cap: dollars an hour: the reserve of a rental, and what an hour of a rate that nobody told counts for.
    """
    machines = list(_machines(lines, limit.project, now, limit.run_id, box))
    others = sum(_reserved(machine, cap, now) for machine in machines if machine.box != box)
    reserve = (cap or 0.0) * RESERVED_HOURS
    gone = None if _is_lacking(lines, limit.project, box, limit.run_id) else _dollars(machines, cap)
    return Purse(gone, limit.usd, reserve, limit.warn_at, others)


def of_run(
    lines: Sequence[Mapping[str, Any]],
    project: str,
    run_id: str,
    now: str,
    unknown_per_hour: float | None = None,
    box: str = "",
) -> float | None:
    """Dollars since each box was first there for the run.

    :param unknown_per_hour: what an hour of an unknown rate counts for; without it, one makes the answer None.
    :param box: on which the run is; empty where that is not asked.
    """
    if _is_lacking(lines, project, box, run_id):
        return None
    return _dollars(list(_machines(lines, project, now, run_id, box)), unknown_per_hour)


def of_project(
    lines: Sequence[Mapping[str, Any]], project: str, now: str, unknown_per_hour: float | None = None
) -> float | None:
    """Dollars over all that was rented for the project."""
    return _dollars(list(_machines(lines, project, now)), unknown_per_hour)


def is_served(lines: Sequence[Mapping[str, Any]], project: str, run_id: str, box: str) -> bool:
    """Whether some line says already that the box is there for the run."""
    return box in _since([line for line in lines if line.get("project") == project], run_id)


def _machines(
    lines: Sequence[Mapping[str, Any]], project: str, now: str, run_id: str = "", on: str = ""
) -> Iterator[_Machine]:
    ours = [line for line in lines if line.get("project") == project]
    since = _since(ours, run_id, on) if run_id else {}
    for (_project, box, _id), acts in accrual.acts_by_machine(ours).items():
        if run_id and box not in since:
            continue
        held, state = accrual.intervals(acts, now)
        if run_id:
            held = [later for interval in held if (later := interval.after(since[box])) is not None]
        rented_at = next((str(act["at"]) for act in acts if act["verb"] == RENT), "")
        yield _Machine(box, rented_at, state, held)


def _since(lines: Sequence[Mapping[str, Any]], run_id: str, on: str = "") -> dict[str, str]:
    """By box, since when it is there for the run.

    :param on: the box on which the run is: the store may have been lost, and the box found, before it was brought up.
    """
    found: dict[str, str] = {}
    for line in lines:
        box, at = str(line.get("box")), str(line.get("at"))
        if _is_begun(line, run_id):
            found[box] = min(found.get(box, at), at)
        elif box == on and line.get(FOUND) is True:
            found.setdefault(box, str(line.get("effective_at") or at))
    return found


def _is_lacking(lines: Sequence[Mapping[str, Any]], project: str, box: str, run_id: str = "") -> bool:
    """Whether the account of ``box`` begins with a machine that was found, and others were there before it."""
    ours = [line for line in lines if line.get("project") == project and line.get("box") == box]
    told = {line.get("generation") for line in ours}
    first = next((line for line in ours if _is_begun(line, run_id) or line.get(FOUND) is True), {})
    number = first.get("generation")
    return first.get(FOUND) is True and isinstance(number, int) and not told.issuperset(range(1, number))


def _is_begun(line: Mapping[str, Any], run_id: str) -> bool:
    """Whether a line says that a box is there for the run, or was rented for whatever run."""
    begins = line.get("kind") == _BEGINS.get(str(line.get("verb")), "") and accrual.is_moment(str(line.get("at")))
    return begins and run_id in ("", line.get("run_id"))


def _dollars(machines: Sequence[_Machine], unknown_per_hour: float | None) -> float | None:
    return accrual.total((interval for machine in machines for interval in machine.held), unknown_per_hour)


def _reserved(machine: _Machine, cap: float | None, now: str) -> float:
    """What is left of the hour that a rental reserves, once it is rented; a box that rests or is gone holds nothing."""
    if machine.state != accrual.RUNNING or not machine.rented_at:
        return 0.0
    left = RESERVED_HOURS - accrual.hours_between(machine.rented_at, now)
    per_hour = machine.held[-1].per_hour if machine.held else None
    return max(left, 0.0) * (per_hour if per_hour is not None else cap or 0.0)

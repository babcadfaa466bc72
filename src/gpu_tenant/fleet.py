# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What our records know of many boxes, read once for all of them; and what a status concludes from it for one.

Nothing here is written, and nothing is decided by it: ``watch`` draws its own conclusions.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks, gone_record, spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.dollar_budgets import lack_of
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING, Box, utc_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import UNPAID, info_of

from gpu_tenant import cost, money_ladder, risk, spending, steady_clock, verdicts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.job_view import JobView, is_job
from gpu_tenant.observation import Observation
from gpu_tenant.observe import as_failure
from gpu_tenant.sight import Sight

# Of a box that is not listed, or of which nobody could ask, it is not known that anything ticks.
_NOT_THERE = ("absent", "unreachable")
# The state of a box that our records know to be gone.
RELEASED = "released"


@dataclass
class Known:
    """The ledger of the boxes of one state store.

    :param pulls: the journal's lines of pulls, by box: with many boxes nobody searches all lines for each.
    :param records: the newest record of each box that was ever rented.
    :param generations: those that there is a record of, by box; one that was never rented may have one too.
    :param machines: every machine of each box, with what it has cost by the journal.
    :param budgets: by run, the last line of the journal on its budget.
    :param project_budgets: by box, how far its project is through the budget that the box is declared with, in words.
    :param note: says that lines of the journal were left out; then nobody knows what was spent.
    """

    pulls: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generations: Mapping[str, set[int]] = field(default_factory=dict)
    machines: Mapping[str, Sequence[cost.Machine]] = field(default_factory=dict)
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    project_budgets: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def spent_usd(self, box: str, item: Box | None = None) -> float | None:
        """Accrued by the journal over all machines of the box; None while one of them is not known.

        :param item: the machine that is there now. It and all before it are on record, unless the store was lost.
        """
        machines = self.machines.get(box, ())
        if self.note or (item is not None and not self._has_all(box, item)):
            return None
        amounts = [machine.accrued for machine in machines]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if len(known) == len(amounts) else None

    def _has_all(self, box: str, item: Box) -> bool:
        is_known = any(machine.provider_id == item.provider_id for machine in self.machines.get(box, ()))
        return is_known and self.generations.get(box, set()).issuperset(range(1, item.generation + 1))

    def budget(self, box: str, run_id: str) -> str:
        """How far the run is through its budget, as it was last told; empty below the warning.

        :param run_id: of the run that the box says it has; empty where it says nothing, and its last one counts.
        """
        lines = self.budgets.values()
        found = [line for line in lines if (line.get("run_id") == run_id if run_id else line.get("box") == box)]
        last = max(found, key=lambda line: str(line.get("at")), default=None)
        if last is None or last.get("rung") not in money_ladder.RUNGS[1:]:
            return ""
        return f"run {last.get('run_id')} has {money_ladder.told_by(last)}"

    def since(self, box: str, provider_id: str, state: str) -> str:
        """Since when a machine has been running or stopped, if the journal agrees that it is; else empty."""
        found = [machine for machine in self.machines.get(box, ()) if machine.provider_id == provider_id]
        held = list(found[-1].intervals) if found else []
        while len(held) > 1 and held[-1].is_repriced:
            held.pop()
        return held[-1].since if held and held[-1].state == state else ""


def read(boxes: Sequence[BoxHost], project: str) -> Mapping[str, Known]:
    """What is known, by ``tenant_state_dir``."""
    found = {}
    for folder in {box.required("tenant_state_dir") for box in boxes}:
        found[folder] = _known(
            StateStore(folder), project, [box for box in boxes if box.required("tenant_state_dir") == folder]
        )
    return found


def _known(store: StateStore, project: str, hosts: Sequence[BoxHost]) -> Known:
    journal, now = Journal(store).read(), records.utc_now()
    lines = journal.lines
    newest: dict[str, Mapping[str, Any]] = {}
    rented: list[Mapping[str, Any]] = []
    for name in [host.name for host in hosts]:
        for generation in range(1, store.last_generation(project, name) + 1):
            with contextlib.suppress(records.RecordError):
                record = store.read_box(project, name, generation)
                if record:
                    rented.append({"project": project, "box": name, "generation": generation, **record})
                    newest[name] = rented[-1]
    machines: dict[str, list[cost.Machine]] = {}
    for machine in cost.machines(rented, lines, [], [], {}, now):
        machines.setdefault(machine.box, []).append(machine)
    pulls: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line.get("verb") == risk.PULLED:
            pulls.setdefault(str(line.get("box")), []).append(line)
    generations: dict[str, set[int]] = {}
    for one in rented:
        generations.setdefault(str(one["box"]), set()).add(int(one["generation"]))
    wholes = {} if journal.note else _project_budgets(hosts, lines, now)
    return Known(pulls, newest, generations, machines, money_ladder.newest(lines, project), wholes, journal.note)


def _project_budgets(hosts: Sequence[BoxHost], lines: Sequence[Mapping[str, Any]], now: str) -> dict[str, str]:
    """Mostly one for all boxes, and read once for those that are declared with the same."""
    told: dict[tuple[str, ...], str] = {}
    found = {}
    for host in hosts:
        names = ("tenant_budget_usd", "tenant_budget_warn_at", "provision_price_cap")
        declared = tuple(host.text(name) for name in names)
        if not declared[0]:
            continue
        if declared not in told:
            told[declared] = _project_budget(host, lines, now)
        found[host.name] = told[declared]
    return found


def _project_budget(host: BoxHost, lines: Sequence[Mapping[str, Any]], now: str) -> str:
    """Empty below the warning; what is declared, and is no budget, is named."""
    try:
        limit = spending.project_limit(host)
    except TenantFailure as failure:
        return failure.what
    # No box of the project rents now, so that what all of them reserved is held.
    purse = spent.purse(lines, limit, "", spending.price_cap(host), now)
    rung = money_ladder.reached(purse)
    owner = f"project {limit.project} has "
    if rung is None:
        return f"{owner}{lack_of(purse)}"
    told = money_ladder.words(rung, purse.spent, purse.budget, money_ladder.PROJECT_BUDGET)
    return f"{owner}{told}" if rung else ""


def sights(workspace: Path, project: str) -> Mapping[str, Any]:
    """What a watch in this workspace last counted of each box; empty when none ran here."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((workspace / "watch" / f"{project}.json").read_bytes())
        return told if isinstance(told, dict) else {}
    return {}


def verdict(
    host: BoxHost, seen: Observation, known: Known, receipts: Sequence[Mapping[str, Any]], sight: object = None
) -> verdicts.Verdict:
    """The verdict on one look. How long a box has been as it is comes from the last watch, if one ran.

    :param receipts: of the machine that is there now.
    :param sight: what a watch last counted of it.
    """
    record = known.records.get(host.name) or {}
    rented = bool(record.get("provider_id")) and (gone_record.is_missed(record) or not record.get("destroyed_at"))
    eyes = Sight(steady_clock.of_process(), brought_up=rented and bool(record.get("deploy_started_at")))
    if isinstance(sight, Mapping):
        eyes.remember(sight)
    eyes.take(seen)
    if seen.job is not None:
        return verdicts.Verdict(seen.job.verdict, seen.job.why)
    at_work = seen.run is not None and seen.run.state != "done"
    home = bool(receipts) and all(one.get("complete") is True for one in receipts) and not at_work
    return verdicts.verdict(eyes.provider, eyes.box, verdicts.LedgerWord(home=home, rented=rented))


def at_risk(host: BoxHost, seen: Observation, known: Known) -> risk.Risk:
    """The work that would be lost now."""
    run_id = str(seen.run.raw.get("run_id") or "") if seen.run else ""
    pulled = risk.last_pull(known.pulls.get(host.name, ()), host.required("tenant_project"), host.name, run_id)
    return risk.priced(host, risk.at_risk_s(host, seen, pulled, None), seen)


# --- clocks ---------------------------------------------------------------------------------------------------------


def countdowns(
    host: BoxHost, seen: Observation, known: Known, provider_now: float | None = None
) -> list[dict[str, Any]]:
    """What happens to the box by itself, and when; the most urgent first. ``left_s`` None is unknown."""
    return counted(ticking(host, seen, known, provider_now))


def counted(ticking_clocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of what ticks, what is still ahead, or of which nobody knows."""
    return [
        {**{name: clock[name] for name in ("effect", "text", "left_s", "left")}, "alarm": clock["is_alarm"]}
        for clock in ticking_clocks
        if not clock["is_now"]
    ]


def ticking(host: BoxHost, seen: Observation, known: Known, provider_now: float | None = None) -> list[dict[str, Any]]:
    """The clocks of the platform that tick as the box is now, the most urgent first."""
    if is_job(host):
        with contextlib.suppress(ValueError):
            return (seen.job or JobView("", verdicts.UNREACHABLE, "", "")).clocks(host.variables.get("platform_clocks"))
        return []
    state = _clock_state(host, seen, known)
    if state in _NOT_THERE:
        return []
    begun, now = _begun(host, seen, known, state), time.time()
    deadlines = (
        {}
        if state == RELEASED
        else _deadlines(host, seen, known, state, now, now if provider_now is None else provider_now)
    )
    listed = host.variables.get("platform_clocks")
    try:
        found = danger_clocks.countdown(listed if isinstance(listed, list) else [], state, begun, now, deadlines)
    except ValueError:
        return []  # a profile of somebody's own that says it otherwise; the schema's check names it
    # Of a box that is gone only what outlives it bills.
    return [clock for clock in found if state != RELEASED or clock["starts_at"] == RELEASED]


def by_hand(host: BoxHost, seen: Observation, known: Known) -> str:
    """What a box without an interface is, by a person's word and a look: ``running``, ``stopped`` or ``absent``.

    One that answers runs, whatever is recorded.
    """
    record = known.records.get(host.name) or {}
    if seen.contact == "answered":
        return "running"
    return "absent" if record.get("destroyed_at") else "stopped" if record.get("parked_at") else "running"


def _clock_state(host: BoxHost, seen: Observation, known: Known) -> str:
    """The state that decides which of the platform's clocks tick."""
    is_by_hand = seen.item is None and not host.text("platform_driver")
    state = by_hand(host, seen, known) if is_by_hand else seen.provider
    if state == "absent" and (known.records.get(host.name) or {}).get("destroyed_at"):
        return RELEASED
    return "stopped" if state in RESTING else state


def _begun(host: BoxHost, seen: Observation, known: Known, state: str) -> dict[str, str]:
    """Since when, by ``starts_at``; empty where nobody knows."""
    record = known.records.get(host.name) or {}
    if seen.item is not None:
        since = known.since(host.name, seen.item.provider_id, state)
    else:
        since = _since_by_hand(record, state)
    created = str(record.get("created_at") or "")
    return {"stopped": since, "started": since, "auto_shutdown": since, "always": created, "created": created}


def _since_by_hand(record: Mapping[str, Any], state: str) -> str:
    """When a person stopped the box; when it was seen started, or first was taken into use: it cannot be later."""
    if state == "stopped":
        return str(record.get("parked_at") or "")
    return str(record.get("started_at") or record.get("admitted_at") or "")


def _deadlines(
    host: BoxHost, seen: Observation, known: Known, state: str, now: float, provider_now: float
) -> dict[str, float | None]:
    """What happens without a state of the box to count from: when, by our clock, as far as somebody tells."""
    found = dict(seen.item.deadlines) if seen.item is not None else {}
    if not _tells_credit(host):
        found["unpaid"] = None
    if state != "stopped":
        walltime = records.finite(seen.batch.get("left_s"))
        found |= {
            "idle": None,
            "job_deadline": None,
            "time_limit": None if walltime is None else provider_now + walltime,
        }
        found |= _ordered(seen, known.records.get(host.name), provider_now, "stop_after", "stops_at")
    found |= _ordered(seen, known.records.get(host.name), provider_now, "terminate_after", "terminates_at")
    # What no calendar has is not known; it must not take the other clocks along.
    told = {name: at if at is not None and utc_of(at) else None for name, at in found.items()}
    return {name: None if at is None else at - provider_now + now for name, at in told.items()}


def _ordered(
    seen: Observation, record: Mapping[str, Any] | None, provider_now: float, starts_at: str, noted_as: str
) -> dict[str, float | None]:
    """What was ordered with the machine: only our record of its create tells. What has been is over."""
    if not record or not record.get("created_at") or record.get("generation") != seen.generation:
        return {starts_at: None}
    try:
        at = records.parse_utc(record.get(noted_as) or "").timestamp()
    except (TypeError, ValueError):
        return {}
    return {starts_at: at} if at > provider_now else {}


def _tells_credit(host: BoxHost) -> bool:
    """Whether the account of the box counts down what is left of its money, for all its boxes together."""
    market = MARKETS.get(host.text("platform_driver"))
    return market is not None and hasattr(market.CLIENT, "user")


def account_clocks(listings: Iterable[tuple[VastClient, Sequence[Box]]]) -> list[dict[str, Any]]:
    """How long the money of each account lasts: ``credit``, ``burn_per_hour`` and a countdown; None is unknown.

    :param listings: the accounts with the boxes that they listed a moment ago, each with a clock of its own: see
        :func:`telling_credit`.
    """
    return [_account_clock(client, boxes) for client, boxes in listings]


def telling_credit(listings: Iterable[tuple[Any, Sequence[Box]]]) -> list[tuple[VastClient, Sequence[Box]]]:
    """The accounts whose market tells their credit. Those of RunPod, Lambda and Paperspace do not."""
    return [(client, boxes) for client, boxes in listings if hasattr(client, "user")]


def _account_clock(client: VastClient, boxes: Sequence[Box]) -> dict[str, Any]:
    try:
        told = info_of(client, client.user(), boxes)
    except Exception as error:
        unknown = [str(as_failure(error, ""))]
        told = {"credit": None, "burn_per_hour": None, "hours_left": None, "unknown": unknown}
    hours = told["hours_left"]
    left = None if hours is None else int(min(hours * 3600, 1e12))
    words = "nothing uses it" if told["burn_per_hour"] == 0 else danger_clocks.time_left(left)
    alarm = left is not None and left < danger_clocks.ALARM_S
    clock = {"effect": UNPAID, "left_s": left, "left": words, "alarm": alarm}
    return {"credit": told["credit"], "burn_per_hour": told["burn_per_hour"], "unknown": told["unknown"], **clock}

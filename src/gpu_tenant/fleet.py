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

from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING, Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import RENTAL_ENDS, UNPAID, info_of

from gpu_tenant import cost, risk, verdicts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation
from gpu_tenant.sight import Sight

# A clock with less than this left is an alarm.
ALARM_S = 24 * 3600
# Of a box that is not listed, or of which nobody could ask, it is not known that anything ticks.
_NOT_THERE = ("absent", "unreachable")


@dataclass
class Known:
    """The ledger of the boxes of one state store.

    :param pulls: the journal's lines of pulls, by box: with many boxes nobody searches all lines for each.
    :param records: the newest record of each box that was ever rented.
    :param machines: every machine of each box, with what it has cost by the journal.
    """

    pulls: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    machines: Mapping[str, Sequence[cost.Machine]] = field(default_factory=dict)

    def spent_usd(self, box: str) -> float | None:
        """Accrued by the journal over all machines of the box; None while one of them is not known."""
        amounts = [machine.accrued for machine in self.machines.get(box, ())]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if len(known) == len(amounts) else None

    def since(self, box: str, provider_id: str, state: str) -> str:
        """Since when a machine has been running or stopped, if the journal agrees that it is; else empty."""
        found = [machine for machine in self.machines.get(box, ()) if machine.provider_id == provider_id]
        last = found[-1].intervals[-1:] if found else []
        return last[0].since if last and last[0].state == state else ""


def read(boxes: Sequence[BoxHost], project: str) -> Mapping[str, Known]:
    """What is known, by ``tenant_state_dir``."""
    found = {}
    for folder in {box.required("tenant_state_dir") for box in boxes}:
        names = [box.name for box in boxes if box.required("tenant_state_dir") == folder]
        found[folder] = _known(StateStore(folder), project, names)
    return found


def _known(store: StateStore, project: str, names: Iterable[str]) -> Known:
    lines, now = Journal(store).lines(), records.utc_now()
    newest: dict[str, Mapping[str, Any]] = {}
    rented: list[Mapping[str, Any]] = []
    for name in names:
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
    return Known(pulls, newest, machines)


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
    rented = bool(record.get("provider_id")) and not record.get("destroyed_at")
    eyes = Sight(time.time, brought_up=rented and bool(record.get("deploy_started_at")))
    if isinstance(sight, Mapping):
        eyes.remember(sight)
    eyes.take(seen)
    at_work = seen.run is not None and seen.run.state != "done"
    home = bool(receipts) and all(one.get("complete") is True for one in receipts) and not at_work
    return verdicts.verdict(eyes.provider, eyes.box, verdicts.LedgerWord(home=home, rented=rented))


def at_risk(host: BoxHost, seen: Observation, known: Known) -> risk.Risk:
    """The work that would be lost now."""
    run_id = str(seen.run.raw.get("run_id") or "") if seen.run else ""
    pulled = risk.last_pull(known.pulls.get(host.name, ()), host.required("tenant_project"), host.name, run_id)
    return risk.priced(risk.at_risk_s(host, seen, pulled, None), seen)


# --- clocks ---------------------------------------------------------------------------------------------------------


def countdowns(
    host: BoxHost, seen: Observation, known: Known, provider_now: float | None = None
) -> list[dict[str, Any]]:
    """What happens to the box by itself, and when; the most urgent first. ``left_s`` None is unknown."""
    item = seen.item
    if item is None and host.text("platform_driver"):
        return []
    found = [_told(clock) for clock in _profile_clocks(host, seen, item, known) if clock["left_s"] != 0]
    walltime = records.finite(seen.batch.get("left_s"))
    if walltime is not None:
        text = f"Slurm job {seen.batch.get('job')} reaches its time limit: it saves, and goes back into the queue"
        found.append(_told({"effect": text, "left_s": int(walltime), "left": danger_clocks.time_left(int(walltime))}))
    if item is not None and item.end_date is not None:
        left = int(item.end_date - (time.time() if provider_now is None else provider_now))
        found.append(_told({"effect": RENTAL_ENDS, "left_s": left, "left": danger_clocks.time_left(left)}))
    return sorted(found, key=lambda one: (one["left_s"] is None, one["left_s"] or 0))


def by_hand(host: BoxHost, seen: Observation, known: Known) -> str:
    """What a box without an interface is, by a person's word and a look: ``running``, ``stopped`` or ``absent``.

    One that answers runs, whatever is recorded.
    """
    record = known.records.get(host.name) or {}
    if seen.contact == "answered":
        return "running"
    return "absent" if record.get("destroyed_at") else "stopped" if record.get("parked_at") else "running"


def ticking(host: BoxHost, seen: Observation, known: Known) -> list[dict[str, Any]]:
    """The clocks of the platform that tick for a box that is there, without since when."""
    state = _clock_state(host, seen, known)
    if state in _NOT_THERE:
        return []
    return [clock for clock in _countdown(host, state, {}) if clock["running"]]


def _profile_clocks(host: BoxHost, seen: Observation, item: Box | None, known: Known) -> list[dict[str, Any]]:
    state = _clock_state(host, seen, known)
    if state == "absent":
        return []
    if item is not None:
        since = known.since(host.name, item.provider_id, state)
    else:
        since = _since_by_hand(known.records.get(host.name) or {}, state)
    return _countdown(host, state, {"stopped": since, "started": since, "always": _created(host, known)})


def _clock_state(host: BoxHost, seen: Observation, known: Known) -> str:
    """The state that decides which of the platform's clocks tick."""
    if seen.item is None and not host.text("platform_driver"):
        return by_hand(host, seen, known)
    return "stopped" if seen.provider in RESTING else seen.provider


def _countdown(host: BoxHost, state: str, begun: Mapping[str, str]) -> list[dict[str, Any]]:
    listed = host.variables.get("platform_clocks")
    try:
        return danger_clocks.countdown(listed if isinstance(listed, list) else [], state, dict(begun))
    except ValueError:
        return []  # a profile of somebody's own that says it otherwise; the schema's check names it


def _since_by_hand(record: Mapping[str, Any], state: str) -> str:
    """When a person stopped the box; when it was seen started, or first was taken into use: it cannot be later."""
    if state == "stopped":
        return str(record.get("parked_at") or "")
    return str(record.get("started_at") or record.get("admitted_at") or "")


def _created(host: BoxHost, known: Known) -> str:
    return str((known.records.get(host.name) or {}).get("created_at") or "")


def _told(clock: Mapping[str, Any]) -> dict[str, Any]:
    left = clock["left_s"]
    alarm = left is not None and left < ALARM_S
    return {"effect": str(clock["effect"]), "left_s": left, "left": str(clock["left"]), "alarm": alarm}


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
    except TenantFailure as failure:
        told = {"credit": None, "burn_per_hour": None, "hours_left": None, "unknown": [str(failure)]}
    hours = told["hours_left"]
    left = None if hours is None else int(min(hours * 3600, 1e12))
    words = "nothing uses it" if told["burn_per_hour"] == 0 else danger_clocks.time_left(left)
    clock = _told({"effect": UNPAID, "left_s": left, "left": words})
    return {"credit": told["credit"], "burn_per_hour": told["burn_per_hour"], "unknown": told["unknown"], **clock}

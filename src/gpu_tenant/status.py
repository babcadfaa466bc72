# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant status``: each box as plain values."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError, read_record
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import fleet
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.one_line import one_line
from gpu_tenant.verdicts import FINISHED


def row_of_many(
    host: BoxHost, seen: Observation, ledger: fleet.Known, sight: object = None, provider_now: float | None = None
) -> dict[str, Any]:
    """The row of one box among others, which no box ends: what goes wrong with its row is told in it.

    First what the box said is left out of it, then what our own records say.
    """
    try:
        return row(host, seen, ledger, sight, provider_now)
    except Exception as error:  # whatever it is, the others are shown
        bare = _without_its_answer(seen, error)
    try:
        return row(host, bare, ledger, None, provider_now)
    except Exception as error:
        return row(host, _without_its_answer(bare, error), provider_now=provider_now, known=())


def _without_its_answer(seen: Observation, error: Exception) -> Observation:
    problem = one_line(f"its status cannot be told whole ({type(error).__name__}: {error}); report it")
    bare = Observation(seen.box, seen.at, seen.provider, seen.item, seen.superseded, problem=problem, job=seen.job)
    # Like an answer that makes no sense.
    return bare if seen.contact == "not_tried" else replace(bare, contact="unreachable")


def row(
    host: BoxHost,
    seen: Observation,
    ledger: fleet.Known | None = None,
    sight: object = None,
    provider_now: float | None = None,
    known: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """One box as plain values; None means unknown.

    :param ledger: what the records know; empty where only the look counts.
    :param sight: what a watch last counted of the box.
    :param known: its receipts; they are read where none are given.
    """
    run, item = seen.run, seen.item
    ledger = ledger or fleet.Known()
    known = receipts(host, seen) if known is None else known
    verdict = fleet.verdict(host, seen, ledger, known, sight)
    risk = fleet.at_risk(host, seen, ledger)
    ticking = fleet.ticking(host, seen, ledger, provider_now)
    return {
        "box": host.name,
        "platform": host.text("platform_name"),
        "provider": seen.job.reason or seen.job.verdict if seen.job else seen.provider,
        "provider_id": item.provider_id if item else (seen.job.name or None) if seen.job else None,
        "generation": seen.generation or None,
        "contact": seen.contact,
        "verdict": verdict.name,
        "why": verdict.why,
        "run": str(run.raw.get("run_id") or "") if run else None,
        "run_state": run.state if run else None,
        "step": run.step if run else None,
        "steps": run.steps if run else None,
        "loss": run.loss if run else None,
        "steps_per_s": run.steps_per_s if run else None,
        "eta_s": run.eta_s if run else None,
        "gpu": gpu(seen),
        "disk_free_bytes": _disk(seen).get("free_bytes"),
        "disk_full_in_s": _disk(seen).get("full_in_s"),
        "price_per_hour": item.dph_total if item else None,
        "spent_usd": None if seen.job else ledger.spent_usd(host.name, item),
        "budget": _budget(host, seen, ledger) if verdict.name != FINISHED else None,
        "project_budget": ledger.project_budgets.get(host.name) or None,
        "at_risk_s": risk.seconds,
        "at_risk_usd": risk.usd,
        "rpo_s": risk.rpo_s,
        "superseded": [box.provider_id for box in seen.superseded],
        "not_pulled": not_pulled(known),
        "waits_for": sorted({str(part) for receipt in known for part in receipt.get("waits_for") or []}),
        "clocks": [str(clock["text"]) for clock in ticking],
        "countdowns": fleet.counted(ticking),
        "warnings": [*seen.warnings, *([ledger.note] if ledger.note else [])],
        "problem": seen.problem,
        "at": seen.at,
    }


def _budget(host: BoxHost, seen: Observation, ledger: fleet.Known) -> str | None:
    """How far the run is through its budget, from the warning on."""
    return ledger.budget(host.name, str(seen.run.raw.get("run_id") or "") if seen.run else "") or None


def _disk(seen: Observation) -> Mapping[str, Any]:
    told = seen.health.get("disk")
    numbers = told if isinstance(told, Mapping) else {}
    return {name: number for name, number in numbers.items() if records.is_count(number)}


def gpu(seen: Observation) -> dict[str, Any]:
    """The cards as the box last saw them, else as the provider rents them out; None is unknown."""
    told = seen.health.get("gpu")
    listed = told.get("cards") if isinstance(told, Mapping) else None
    cards = [card for card in listed if isinstance(card, Mapping)] if isinstance(listed, list) else []
    item = seen.item
    if not cards:
        ram = item.gpu_ram_mb if item else None
        count, name = (item.num_gpus, item.gpu_name) if item else (None, "")
        return {"name": one_line(name, 60), "count": count, "used_mib": None, "memory_mib": ram}
    sums = {name: [card.get(name) for card in cards] for name in ("used_mib", "memory_mib")}
    whole = {name: _total(each) for name, each in sums.items()}
    return {"name": one_line(str(cards[0].get("name") or ""), 60), "count": len(cards), **whole}


def _total(numbers: Sequence[object]) -> int | None:
    known = [number for number in numbers if records.is_count(number)]
    return sum(known) if len(known) == len(numbers) else None


def receipts(host: BoxHost, seen: Observation) -> list[dict[str, Any]]:
    """The receipts of the machine that is there now; a damaged one tells nothing here, and the gate refuses it."""
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    generation = seen.generation
    if not host.text("platform_driver"):
        # No provider numbers the machines of the inventory.
        generation = max(1, store.last_generation(project, host.name))
    found = []
    for path in store.receipts_of_box(project, host.name, generation):
        with contextlib.suppress(RecordError):
            found.append(read_record(path, "receipt"))
    return found


def not_pulled(known: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What its harvests left on the box, over all runs: it dies with it."""
    totals = [receipt.get("not_pulled_totals") or {} for receipt in known]
    return {name: sum(int(each.get(name) or 0) for each in totals) for name in ("files", "bytes")}

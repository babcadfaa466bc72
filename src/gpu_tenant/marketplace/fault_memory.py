# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Faults that outlive the marketplace's process: the plan, how far it is, and whom it holds in which state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .faults import Entry, FaultPlan, FaultScript, fault_in, plan_of, script_in
from .holds import Held, Hold, Holds


@dataclass
class FaultMemory:
    """:param script: what the plan began with."""

    script: FaultScript
    plan: FaultPlan


def plan_after(memory: FaultMemory | None, script: FaultScript, market_seed: int) -> FaultPlan:
    """The remembered plan, if it began with this script; else that of the script, its numbers above all of before."""
    if memory is None:
        return plan_of(script, market_seed)
    return memory.plan if memory.script == script else plan_of(script, market_seed, memory.plan.last_number)


def memory_as_dict(memory: FaultMemory | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    script, plan = memory.script, memory.plan
    return {
        "script": {"seed": script.seed, "faults": [fault.as_dict() for fault in script.faults]},
        "seed": plan.seed,
        "last_number": plan.last_number,
        "entries": [
            {"number": one.number, "calls": one.calls, "struck": one.struck, "fault": one.fault.as_dict()}
            for one in list(plan.entries.values())  # another thread may add one meanwhile
        ],
    }


def memory_from_dict(data: Mapping[str, Any] | None) -> FaultMemory | None:
    """:raises ValueError, KeyError, TypeError: for what :func:`memory_as_dict` did not write."""
    if data is None:
        return None
    entries = [
        Entry(one["number"], fault_in(one["fault"], "fault"), one["calls"], one["struck"]) for one in data["entries"]
    ]
    plan = FaultPlan(data["seed"], {one.number: one for one in entries}, data["last_number"])
    return FaultMemory(script_in(data["script"]), plan)


def holds_as_list(holds: Holds) -> list[dict[str, Any]]:
    """Holds that end with their fault have no end of their own."""
    return [
        {
            "instance_id": one.instance_id,
            "state": one.state.value,
            "until": None if one.until == float("inf") else one.until,
            "cause": one.cause,
            "amount": one.amount,
        }
        for one in holds
    ]


def holds_from_list(data: Iterable[Mapping[str, Any]]) -> Holds:
    """:raises ValueError, KeyError, TypeError: for what :func:`holds_as_list` did not write."""
    holds = Holds()
    for one in data:
        until = float("inf") if one["until"] is None else float(one["until"])
        holds.add(Hold(one["instance_id"], Held(one["state"]), until, one["cause"], one.get("amount", 0.0)))
    return holds

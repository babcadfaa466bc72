# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What happened to a box, as its record has it: each event once with its time, and every folder that was deployed to.

The folders are what a verb that keeps a part of the disks is judged by: a variable of a later task may name others.
"""

from __future__ import annotations

from typing import Any, Mapping

from .ledger import DEPLOY_STARTED

TIME_OF = {"admitted": "admitted_at", "rejected": "rejected_at", DEPLOY_STARTED: "deploy_started_at"}
_DETAIL_OF = {"admitted": "admission", "rejected": "rejection"}


def changes(
    before: Mapping[str, Any], provider_id: str, event: str, at: str, detail: Mapping[str, Any], tenant_root: str
) -> dict[str, Any]:
    """What an event changes in the record of a box; nothing where it is noted already.

    :param before: the record, which may be of another machine.
    :param tenant_root: the folder that a deploy brings things to; empty where none is told.
    """
    known = before if before.get("provider_id") == provider_id else {}
    found: dict[str, Any] = {}
    if not known.get(TIME_OF[event]):
        found[TIME_OF[event]] = at
        if event in _DETAIL_OF:
            found[_DETAIL_OF[event]] = dict(detail)
    roots = roots_in(known)
    if event == DEPLOY_STARTED and tenant_root and tenant_root not in roots:
        found["tenant_roots"] = [*roots, tenant_root]
    return found


def summary(record: Mapping[str, Any], provider_id: str) -> dict[str, Any]:
    """What plays decide on: whether the box was admitted, and what was deployed to on this machine."""
    times = {name: record.get(name) for name in ("admitted_at", TIME_OF[DEPLOY_STARTED])}
    return {**times, "tenant_roots": roots_in(record) if record.get("provider_id") == provider_id else []}


def roots_in(record: Mapping[str, Any]) -> list[str]:
    """The folders that were deployed to, as far as the record knows."""
    listed = record.get("tenant_roots")
    return [str(one) for one in listed] if isinstance(listed, list) else []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One budget for all boxes of a project, whoever rents them. Asked under the account's lock, just before a create.

A box that rests counts with what it costs once it runs again: nobody asks the budget before it is started.
"""

from __future__ import annotations

import os
from typing import Any

from ..ghosts import real_boxes
from ..rented_box import Box, number
from .actions import Account
from .transformations import to_box


def over_budget(account: Account, project: str, price: float, budget: float | None) -> str:
    """Why one more box at ``price`` dollars an hour does not fit into the project's budget; empty when it does."""
    if budget is None:
        return ""
    rates = committed(account, project)
    unknown = sorted(provider_id for provider_id, rate in rates.items() if rate is None)
    if unknown:
        return f"what instance {', '.join(unknown)} of the project costs is not known, and budget_per_hour is ${budget}"
    spoken_for = sum(rate or 0.0 for rate in rates.values())
    if spoken_for + price <= budget + 1e-9:
        return ""
    boxes = f"{len(rates)} box{'' if len(rates) == 1 else 'es'}"
    return f"${price:.4f} an hour on top of the ${spoken_for:.4f} of {boxes} is above the budget_per_hour of ${budget}"


def committed(account: Account, project: str) -> dict[str, float | None]:
    """What each box of the project costs an hour when it runs, by provider id; None where nobody says.

    A box that a list lacks, but that our records know and its own item shows, counts too.
    """
    boxes = [box for box in map(to_box, account.client.list_instances()) if box.stamp and box.stamp.project == project]
    listed = [box.provider_id for box in boxes]
    rates = {box.provider_id: _rate(account, box) for box in real_boxes(account.client, account.store, boxes)}
    for record in _open_records(account, project):
        provider_id = str(record["provider_id"])
        row = None if provider_id in listed else account.client.get_instance(provider_id)
        if row is not None:
            rates[provider_id] = _rate(account, to_box(row))
    return rates


def _open_records(account: Account, project: str) -> list[dict[str, Any]]:
    folder = account.store.path("boxes", project)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [record for name in names for record in account.open_records(project, name)]


def _rate(account: Account, box: Box) -> float | None:
    """The dearest of what is known: of a box that rests some markets tell the price of its disk alone."""
    stamp = box.stamp
    record = account.store.read_box(stamp.project, stamp.box, stamp.generation) if stamp else None
    bidding = None if box.bid is None else box.bid + (box.storage_per_hour or 0.0)
    told = [box.dph_total, bidding, number((record or {}).get("price_per_hour"))]
    known = [rate for rate in told if rate is not None]
    return max(known) if known else None

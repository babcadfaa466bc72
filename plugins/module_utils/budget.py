# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One budget for all that a project rents, whoever rents it. Asked under the account's lock, just before a create.

A box that rests counts with what it costs once it runs again: nobody asks the budget before it is started. What the
project rents on other markets counts as its records say, because this account's provider knows nothing of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Sequence

from .ghosts import real_boxes
from .rental_account import RentalAccount
from .rented_box import Box, number
from .volume_stamp import record_name

BOX, VOLUME = "box", "volume"
# What to do where there is no room.
MAKE_ROOM = "destroy a box of the project, or raise budget_per_hour"
_VOLUME = record_name("")


@dataclass(frozen=True)
class Commitment:
    """What the project pays for by the hour; ``per_hour`` None where nobody says how much."""

    kind: str
    name: str
    per_hour: float | None


def budget_problem(budget: float | None) -> str:
    """Why this can be no budget; empty where it can, or where there is none."""
    if budget is None or 0 < budget < float("inf"):
        return ""
    return f"budget_per_hour is {budget}, it must be above 0"


def over_budget(account: RentalAccount[Any], project: str, price: float, budget: float | None) -> str:
    """Why one more box at ``price`` dollars an hour does not fit into the project's budget; empty when it does."""
    if budget is None:
        return ""
    paid_for = committed(account, project)
    unknown = sorted(one.name for one in paid_for if one.per_hour is None)
    if unknown:
        return f"what {', '.join(unknown)} of the project costs is not known, and budget_per_hour is ${budget}"
    spoken_for = sum(one.per_hour or 0.0 for one in paid_for)
    if spoken_for + price <= budget + 1e-9:
        return ""
    return (
        f"${price:.4f} an hour on top of the ${spoken_for:.4f} of {_counted(paid_for)} is above the budget_per_hour of "
        f"${budget}"
    )


def committed(account: RentalAccount[Any], project: str) -> list[Commitment]:
    """What is rented for the project, each with what it costs an hour at its dearest."""
    records = _open_records(account, project)
    own = [record for record in records if _platform(account, record) == account.PLATFORM]
    return _boxes(account, project, own) + _volumes(account, project, own) + _elsewhere(account, records)


def _platform(account: RentalAccount[Any], record: dict[str, Any]) -> str:
    return str(record.get("platform") or account.PLATFORM)


def _boxes(account: RentalAccount[Any], project: str, records: Sequence[dict[str, Any]]) -> list[Commitment]:
    """A box that a list lacks, but that our records know and its own item shows, counts too."""
    listed = [box for box in map(account.to_box, account.client.list_instances()) if _is_of(box, project)]
    ids = [box.provider_id for box in listed]
    found: dict[str, Box] = {box.provider_id: box for box in real_boxes(account.client, account.store, listed)}
    boxes = [str(record["provider_id"]) for record in records if not _is_volume(record)]
    for provider_id in (one for one in boxes if one not in ids):
        row = account.item(provider_id)
        if row is not None:
            found[provider_id] = account.to_box(row)
    return [Commitment(BOX, f"{account.THING} {name}", _rate(account, box)) for name, box in found.items()]


def _is_of(box: Box, project: str) -> bool:
    return box.stamp is not None and box.stamp.project == project


def _is_volume(record: dict[str, Any]) -> bool:
    return str(record.get("box")).startswith(_VOLUME)


def _volumes(account: RentalAccount[Any], project: str, records: Sequence[dict[str, Any]]) -> list[Commitment]:
    """Volumes have no item to ask: one that two lists lack is not there any more."""
    known = {str(record["provider_id"]) for record in records if _is_volume(record)}
    found = account.volume_rates(project)
    if known - set(found):
        found = {**account.volume_rates(project), **found}
    return [Commitment(VOLUME, f"volume {name}", rate) for name, rate in found.items()]


def _elsewhere(account: RentalAccount[Any], records: Sequence[dict[str, Any]]) -> list[Commitment]:
    """What we rented on other markets. Without a stamp it is a machine that nobody rented through us."""
    return [
        Commitment(
            VOLUME if _is_volume(record) else BOX,
            f"{record['box']} ({record['platform']})",
            number(record.get("price_per_hour")),
        )
        for record in records
        if record.get("stamp") and _platform(account, record) != account.PLATFORM
    ]


def _counted(paid_for: list[Commitment]) -> str:
    boxes = len([one for one in paid_for if one.kind == BOX])
    volumes = len(paid_for) - boxes
    told = [f"{boxes} box{'' if boxes == 1 else 'es'}"] if boxes or not volumes else []
    return " and ".join([*told, *([f"{volumes} volume{'' if volumes == 1 else 's'}"] if volumes else [])])


def _open_records(account: RentalAccount[Any], project: str) -> list[dict[str, Any]]:
    folder = account.store.path("boxes", project)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [record for name in names for record in account.open_records(project, name)]


def _rate(account: RentalAccount[Any], box: Box) -> float | None:
    """The dearest of what is known: of a box that rests some markets tell the price of its disk alone."""
    stamp = box.stamp
    record = account.store.read_box(stamp.project, stamp.box, stamp.generation) if stamp else None
    bidding = None if box.bid is None else box.bid + (box.storage_per_hour or 0.0)
    told = [box.dph_total, bidding, number((record or {}).get("price_per_hour"))]
    known = [rate for rate in told if rate is not None]
    return max(known) if known else None

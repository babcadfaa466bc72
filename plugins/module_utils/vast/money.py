# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How long the account's money lasts, and what happens by itself meanwhile. Unknown is unknown, never 0.

Every instance of the account counts, ours or not, because all are paid from one balance. A rate that no answer tells
makes the sum unknown; what is certain of it is then told as ``at_least`` and ``at_most``.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ..box import records
from ..danger_clocks import time_left
from ..rented_box import HOURS_PER_MONTH, RESTING, Box, number
from ..state_store import StateStore
from .api import VastClient
from .ghosts import listed_boxes

# Compute bills in these states, or is about to. Of the last two nobody can say.
_COMPUTES = ("running", "loading", "exited")
_RESTS = (*RESTING, "scheduling")

# Beyond a century a date says nothing, and soon there is none.
_FAR_S = 100 * 366 * 86400

UNPAID = "with nothing left every box is stopped and scheduled for deletion, its disk included"
RENTAL_ENDS = "the host's rental end date stops the box; it cannot start again"
DISK_BILLS = "its disk bills until it is destroyed"
VOLUME_BILLS = "a volume bills until it is deleted, whether or not a box uses it"


@dataclass(frozen=True)
class Rate:
    """Dollars an hour, certain when both are equal; None for what no answer tells."""

    at_least: float
    at_most: float | None

    @property
    def certain(self) -> float | None:
        return self.at_least if self.at_least == self.at_most else None


def account_info(client: VastClient, store: StateStore | None = None) -> dict[str, Any]:
    """What ``vast_account_info`` returns.

    :param store: what tells which boxes we destroyed; they bill no more, though a list may still show them.
    """
    user = client.user()
    return info_of(client, user, listed_boxes(client, store))


def info_of(client: VastClient, user: Mapping[str, Any], boxes: Sequence[Box]) -> dict[str, Any]:
    """The same from what was asked already: the account, and its boxes without those that are only listed."""
    volumes = client.list_volumes()
    now = client.provider_now()
    credit = number(user.get("credit"))
    rates = [(box, rate_of(box)) for box in boxes]
    burn = total([*(rate for _box, rate in rates), *map(volume_rate, volumes)])
    return {
        "changed": False,
        "credit": credit,
        "balance": number(user.get("balance")),
        "burn_per_hour": burn.certain,
        "burn_at_least": burn.at_least,
        "burn_at_most": burn.at_most,
        "hours_left": hours(credit, burn.certain),
        "hours_left_at_least": hours(credit, burn.at_most),
        "hours_left_at_most": hours(credit, burn.at_least),
        "unknown": unknown(credit, rates, volumes),
        "burn": _shares(rates, volumes),
        "clocks": clocks(credit, burn, boxes, volumes, now),
        "instances": len(boxes),
        "unstamped": len([box for box in boxes if box.stamp is None]),
        "volumes": len(volumes),
        "asked_at": records.utc_now(),
    }


def rate_of(box: Box) -> Rate:
    """What a box costs an hour as it is now, without its traffic, which nobody tells beforehand."""
    if box.state in _COMPUTES:
        return Rate(box.dph_total or 0.0, box.dph_total)
    if box.state in _RESTS:
        return Rate(box.storage_per_hour or 0.0, box.storage_per_hour)
    return Rate(min(box.storage_per_hour or 0.0, box.dph_total or 0.0), box.dph_total)


def volume_rate(row: Mapping[str, Any]) -> Rate:
    """What a volume costs an hour: as its row totals it, else by its price per GB and month."""
    told = number(row.get("storage_total_cost"))
    per_month, size = number(row.get("storage_cost")), number(row.get("disk_space"))
    if told is None and per_month is not None and size is not None:
        told = per_month * size / HOURS_PER_MONTH
    return Rate(told or 0.0, told)


def total(rates: Iterable[Rate]) -> Rate:
    listed = list(rates)
    most = [rate.at_most for rate in listed]
    return Rate(sum(rate.at_least for rate in listed), None if None in most else sum(one or 0.0 for one in most))


def hours(credit: float | None, per_hour: float | None) -> float | None:
    """Hours until the credit is used up; None when that is unknown, and when nothing uses it."""
    if credit is None or per_hour is None or per_hour <= 0:
        return None
    return max(0.0, credit) / per_hour


def unknown(credit: float | None, rates: Sequence[tuple[Box, Rate]], volumes: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words, what keeps the figures from being certain."""
    found = [] if credit is not None else ["the provider does not say what credit is left"]
    for box, rate in rates:
        if rate.at_most is None:
            found.append(f"instance {box.provider_id}: the provider does not say its price")
        elif rate.certain is None:
            found.append(f"instance {box.provider_id} is {box.state}: whether it bills compute is not known")
    quiet = [row for row in volumes if volume_rate(row).at_most is None]
    return found + [f"volume {row['id']}: the provider does not say its price" for row in quiet]


def _shares(rates: Sequence[tuple[Box, Rate]], volumes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where the money goes: by project, what is not ours, and volumes; the dearest first."""
    groups: dict[str, list[Rate]] = {}
    for box, rate in rates:
        groups.setdefault(f"project {box.stamp.project}" if box.stamp else "unstamped instances", []).append(rate)
    if volumes:
        groups["volumes"] = [volume_rate(row) for row in volumes]
    shares = [
        {"of": name, "count": len(group), "per_hour": total(group).certain, "at_least": total(group).at_least}
        for name, group in groups.items()
    ]
    return sorted(shares, key=lambda share: (-float(str(share["at_least"])), str(share["of"])))


def clocks(
    credit: float | None,
    burn: Rate,
    boxes: Sequence[Box],
    volumes: Sequence[Mapping[str, Any]],
    provider_now: float | None,
) -> list[dict[str, Any]]:
    """What happens by itself, the most urgent first; ``left_s`` None is a moment that nobody knows."""
    found = []
    if burn.at_most != 0:
        left = hours(credit, burn.certain)
        found.append(_clock("account", UNPAID, None if left is None else left * 3600))
    for box in boxes:
        name = f"{box.stamp.box} (instance {box.provider_id})" if box.stamp else f"unstamped instance {box.provider_id}"
        if box.end_date is not None and provider_now is not None:
            found.append(_clock(name, RENTAL_ENDS, box.end_date - provider_now))
        if box.state in _RESTS:
            found.append(_clock(name, DISK_BILLS, 0.0))
    found += [_clock(f"volume {row['id']}", VOLUME_BILLS, 0.0) for row in volumes if not row.get("instances")]
    return sorted(found, key=lambda one: (one["left_s"] is None, one["left_s"] or 0))


def _clock(of: str, effect: str, left_s: float | None) -> dict[str, Any]:
    """``at`` is on our clock: our now, plus the seconds that the provider's clock leaves."""
    left = None if left_s is None else int(left_s)
    at = ""
    if left and abs(left) < _FAR_S:
        at = records.utc_text(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=left))
    return {"of": of, "effect": effect, "left_s": left, "left": time_left(left), "at": at}

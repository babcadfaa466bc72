# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes of vast.ai: storage on one machine that outlives the boxes which use it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ..failures import TenantFailure
from ..kept_volumes import look_up, remember
from ..leftovers import Leftover
from ..rental_account import RentalAccount
from ..rented_box import HOURS_PER_MONTH, number
from ..rest_client import AmbiguousAnswer
from ..state_store import BoxIdentity
from ..volume_stamp import VolumeStamp, new_stamp, parse_stamp, record_name
from ..volume_states import Found, Result, Step, absent, converged, listed, located
from .api import VastError
from .money import volume_rate

if TYPE_CHECKING:
    from .actions import Account

MOST_OFFERS = 3
# In place of the id of a user that a row does not tell plainly; no instance has it.
_UNREADABLE = "0"


# --- what there is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Volume:
    """One volume of the account. ``instances`` use it now, stopped ones too."""

    volume_id: str
    stamp: VolumeStamp
    size_gb: float | None
    machine_id: int | None
    price_per_hour: float | None
    status: str
    instances: tuple[str, ...]

    @property
    def reference(self) -> str:
        return f"V.{self.volume_id}"

    @property
    def users(self) -> tuple[str, ...]:
        return tuple("whose number cannot be read" if one == _UNREADABLE else one for one in self.instances)

    @property
    def identity(self) -> BoxIdentity:
        """What the gate's records know it by; a box cannot have this name and be confused with it."""
        stamp = self.stamp
        return BoxIdentity(stamp.project, record_name(stamp.name), stamp.generation, self.reference)

    def aspects(self) -> dict[str, Any]:
        """What a module compares before and after."""
        return {"id": int(self.volume_id), "size_gb": self.size_gb, "machine_id": self.machine_id}

    def as_result(self) -> dict[str, Any]:
        return {
            "id": int(self.volume_id),
            "reference": self.reference,
            "stamp": str(self.stamp),
            "name": self.stamp.name,
            "generation": self.stamp.generation,
            "size_gb": self.size_gb,
            "machine_id": self.machine_id,
            "price_per_hour": self.price_per_hour,
            "status": self.status,
            "instances": [int(one) for one in self.instances],
        }


def to_volume(row: Mapping[str, Any]) -> Volume | None:
    """The volume in a row, None when it is not ours."""
    stamp = parse_stamp(row.get("label")) or parse_stamp(row.get("name"))
    if stamp is None:
        return None
    machine, users = number(row.get("machine_id")), row.get("instances")
    return Volume(
        volume_id=str(row["id"]),
        stamp=stamp,
        size_gb=number(row.get("disk_space")),
        machine_id=None if machine is None else int(machine),
        price_per_hour=volume_rate(row).certain,
        status=str(row.get("status") or ""),
        instances=tuple(sorted(_instance_ids(users))),
    )


def _instance_ids(users: object) -> list[str]:
    """Ids of the instances in a row, which come as numbers or as objects. What cannot be read still is a user, and a
    row that does not list its users may have some: a volume is deleted only when the market says that it has none."""
    listed = users if isinstance(users, list) else [_UNREADABLE]
    found = [one.get("id") if isinstance(one, Mapping) else one for one in listed]
    return [str(one) if re.match(r"[0-9]{1,18}\Z", str(one)) else _UNREADABLE for one in found]


def volumes_left(account: Account) -> list[Leftover]:
    """The volumes of the account as what bills beside boxes, whoever made them."""
    return [_left(row) for row in account.client.list_volumes()]


def _left(row: Mapping[str, Any]) -> Leftover:
    volume, reference = to_volume(row), f"V.{row['id']}"
    if volume is None:
        label, status = (str(row.get(key) or "") for key in ("label", "status"))
        return Leftover("volume", reference, label, status, volume_rate(row).certain)
    used = f"used by {', '.join(volume.users)}" if volume.users else "no box uses it, and it bills"
    name, project = str(volume.stamp), volume.stamp.project
    return Leftover("volume", reference, name, volume.status, volume.price_per_hour, "", project, used)


def locate(account: Account, project: str, name: str) -> Found[Volume]:
    """The volumes of this name. That there is none is said only when two lists agree."""
    return located(account, to_volume, project, name)


# --- what shall be -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What the options ask for. ``price_cap`` is dollars an hour for the whole volume."""

    project: str
    name: str
    state: str = "present"
    size_gb: int = 15
    price_cap: float | None = None
    offer_id: int | None = None
    machine_id: int | None = None
    geolocation: Sequence[str] = ()
    min_reliability: float = 0.0
    verified: bool = True


def converge(account: Account, wish: Wish, check_mode: bool = False) -> dict[str, Any]:
    """Bring the volume to the wanted state. TenantFailure names it."""
    steps: Mapping[str, Step] = {
        "present": _present,
        "absent": functools.partial(absent, to_volume=to_volume, remember=_remember),
    }
    return converged(account, wish, steps, check_mode)


# -- present --------------------------------------------------------------------------------------------------------


def _present(account: Account, wish: Wish, check_mode: bool) -> Result[Volume]:
    if wish.size_gb < 1:
        raise TenantFailure("config", f"a volume of {wish.size_gb} GB cannot be", safe="nothing was rented")
    found = locate(account, wish.project, wish.name)
    if found.current is not None:
        _remember(account, found.current)
        _refuse_other(found.current, wish)
        return Result(found.current, found.current, found)
    offers = _offers(account, wish)
    if check_mode:
        offer = offers[0]
        predicted = {"state": "present", "size_gb": float(wish.size_gb), "machine_id": offer["machine_id"]}
        return Result(None, None, found, predicted=dict(predicted, id="(new)"), would=offer)
    made = _create(account, wish, offers)
    return Result(None, made, Found(made, found.superseded))


def _refuse_other(volume: Volume, wish: Wish) -> None:
    """A volume can neither grow nor move: one that is not as wanted is a failure, not a change."""
    fix = "take another name for another volume, and delete this one when what it holds is home"
    subject = f"volume V.{volume.volume_id}"
    if volume.size_gb is not None and volume.size_gb + 1e-6 < wish.size_gb:
        what = f"{subject} has {volume.size_gb:g} GB and {wish.size_gb} GB are wanted; its size is fixed at create"
        raise TenantFailure("config", what, safe="nothing was changed", fix=fix)
    if wish.machine_id is not None and volume.machine_id != wish.machine_id:
        what = f"{subject} is on machine {volume.machine_id}, not {wish.machine_id}, and cannot move"
        raise TenantFailure("config", what, safe="nothing was changed", fix=fix)


def _offers(account: Account, wish: Wish) -> list[dict[str, Any]]:
    """What could be rented, the cheapest first, as a result shows it. TenantFailure ``no_offer`` for nothing."""
    rows = account.client.search_volume_offers(_filters(wish))
    known = [_offer(row, wish.size_gb) for row in rows if wish.offer_id is None or row["id"] == wish.offer_id]
    priced = sorted((one for one in known if one["price_per_hour"] is not None), key=lambda one: one["price_per_hour"])
    fitting = [one for one in priced if wish.price_cap is None or one["price_per_hour"] <= wish.price_cap + 1e-9]
    if fitting:
        return fitting
    if priced:
        what = f"the cheapest of {len(priced)} offers costs ${priced[0]['price_per_hour']:.5f} an hour"
        what, fix = (
            f"{what} and price_cap is ${wish.price_cap}",
            f"raise price_cap to {priced[0]['price_per_hour']:.5f}",
        )
    else:
        what = f"the market has no volume of {wish.size_gb} GB like this" + (", with a price" if known else "")
        fix = "ask for less, or leave out machine_id, geolocation, offer_id or min_reliability"
    raise TenantFailure("no_offer", what, safe="nothing was rented", fix=fix)


def _filters(wish: Wish) -> dict[str, Any]:
    filters: dict[str, Any] = {
        "external": {"eq": False},
        "disk_space": {"gte": wish.size_gb},
        "allocated_storage": wish.size_gb,
        "order": [["storage_cost", "asc"]],
    }
    if wish.verified:
        filters["verified"] = {"eq": True}
    if wish.machine_id is not None:
        filters["machine_id"] = {"eq": wish.machine_id}
    if wish.geolocation:
        filters["geolocation"] = {"in": list(wish.geolocation)}
    if wish.min_reliability:
        filters["reliability"] = {"gte": wish.min_reliability}
    return filters


def _offer(row: Mapping[str, Any], size_gb: int) -> dict[str, Any]:
    per_month, machine = number(row.get("storage_cost")), number(row.get("machine_id"))
    return {
        "offer_id": row["id"],
        "machine_id": None if machine is None else int(machine),
        "price_per_hour": None if per_month is None else round(per_month * size_gb / HOURS_PER_MONTH, 8),
        "geolocation": row.get("geolocation"),
        "reliability": number(row.get("reliability")),
        "size_gb": size_gb,
    }


def _create(account: Account, wish: Wish, offers: Sequence[Mapping[str, Any]]) -> Volume:
    """A new volume, alone on the account while it is rented. Another process's counts, if it was faster."""
    refused = []
    with account.lock():
        there = listed(account, to_volume, wish.project, wish.name).current
        if there is not None:
            _refuse_other(there, wish)
            return there
        last = account.store.last_generation(wish.project, record_name(wish.name))
        stamp = new_stamp(wish.project, wish.name, last + 1)
        for offer in list(offers)[:MOST_OFFERS]:
            try:
                return _rent(account, stamp, wish, offer)
            except VastError as error:
                if error.kind == "config" or isinstance(error, AmbiguousAnswer):
                    raise
                refused.append(f"offer {offer['offer_id']}: {error.what}")
    fix = "search again; volumes go as fast as boxes"
    raise TenantFailure("no_offer", "; ".join(refused), safe="nothing was rented", fix=fix)


def _rent(account: Account, stamp: VolumeStamp, wish: Wish, offer: Mapping[str, Any]) -> Volume:
    terms = {"volume": str(stamp), "offer_id": offer["offer_id"], "size_gb": wish.size_gb}
    place = {"project": stamp.project, "box": record_name(stamp.name), "generation": stamp.generation}
    with account.journal.effect(
        "rent-volume", platform=account.PLATFORM, price_per_hour=offer["price_per_hour"], **terms, **place
    ) as effect:
        lost = ""
        try:
            account.client.create_volume(int(offer["offer_id"]), wish.size_gb, str(stamp))
        except AmbiguousAnswer as error:
            lost = error.what
        volume = look_up(account, stamp, lost, lambda: listed(account, to_volume, stamp.project, stamp.name).all)
        effect.details["provider_id"] = volume.identity.provider_id
    _remember(account, volume)
    return volume


def _remember(account: RentalAccount[Any], volume: Volume) -> None:
    remember(account, volume, machine_id=volume.machine_id)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Network volumes of RunPod: storage in one data center, which bills by the hour with a pod or without.

A pod mounts one when it is rented, or never; it survives every pod. No pod is known from a volume's row, so that who
uses it is read from the pods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from ..failures import TenantFailure
from ..rental_account import RentalAccount
from ..rented_box import HOURS_PER_MONTH
from ..rest_client import AmbiguousAnswer, RestError
from ..row_fields import amount, text
from ..state_store import BoxIdentity
from ..volume_gate import look_up, remember
from ..volume_stamp import VolumeStamp, new_stamp, parse_stamp, record_name
from ..volume_states import Found, Result, absent, converged, listed, located
from .actions import PodAccount
from .api import RunpodClient
from .transformations import Pod, to_pod

LEAST_GB, MOST_GB = 10, 4000
# Dollars for a GB and month (facts of 2026-11): of the first TB, of what is beyond, of a volume of high performance.
_FIRST, _BEYOND, _FAST = 0.07, 0.05, 0.14
_FIRST_TB = 1000.0


@dataclass(frozen=True)
class Volume:
    """One network volume of ours. ``pods`` mount it, resting ones too."""

    volume_id: str
    stamp: VolumeStamp
    size_gb: float | None
    data_center: str
    kind: str
    pods: tuple[str, ...]

    @property
    def reference(self) -> str:
        return self.volume_id

    @property
    def users(self) -> tuple[str, ...]:
        return self.pods

    @property
    def identity(self) -> BoxIdentity:
        """What the gate's records know it by; a box cannot have this name and be confused with it."""
        return BoxIdentity(self.stamp.project, record_name(self.stamp.name), self.stamp.generation, self.volume_id)

    @property
    def price_per_hour(self) -> float | None:
        return None if self.size_gb is None else price_of(self.size_gb, self.kind)

    def aspects(self) -> dict[str, Any]:
        return {"id": self.volume_id, "size_gb": self.size_gb, "data_center": self.data_center}

    def as_result(self) -> dict[str, Any]:
        return {
            "id": self.volume_id,
            "stamp": str(self.stamp),
            "project": self.stamp.project,
            "name": self.stamp.name,
            "generation": self.stamp.generation,
            "size_gb": self.size_gb,
            "data_center": self.data_center,
            "price_per_hour": self.price_per_hour,
            "pods": list(self.pods),
        }


def price_of(size_gb: float, kind: str = "STANDARD") -> float:
    """Dollars an hour, used or not."""
    if kind == "HIGH_PERFORMANCE":
        return round(size_gb * _FAST / HOURS_PER_MONTH, 8)
    first = min(size_gb, _FIRST_TB)
    return round((first * _FIRST + (size_gb - first) * _BEYOND) / HOURS_PER_MONTH, 8)


def to_volume(row: Mapping[str, Any], pods: Sequence[Pod]) -> Volume | None:
    """The volume in a row, None when it is not ours."""
    stamp = parse_stamp(row.get("name"))
    if stamp is None:
        return None
    users = [pod.provider_id for pod in pods if pod.network_volume == row["id"] and not pod.is_leaving]
    size, kind = amount(row.get("size")), text(row.get("type")) or "STANDARD"
    return Volume(str(row["id"]), stamp, size, text(row.get("dataCenterId")), kind, tuple(sorted(users)))


def reader(client: RunpodClient) -> Callable[[Mapping[str, Any]], Volume | None]:
    """What reads rows of volumes, with the pods as they are listed now."""
    pods = [to_pod(row) for row in client.list_instances()]
    return lambda row: to_volume(row, pods)


@dataclass(frozen=True)
class Wish:
    """What the options ask for. ``price_cap`` is dollars an hour for the whole volume."""

    project: str
    name: str
    state: str = "present"
    size_gb: int = 20
    data_center: str = ""
    price_cap: float | None = None


def converge(account: PodAccount, wish: Wish, check_mode: bool = False) -> dict[str, Any]:
    """Bring the network volume to the wanted state. TenantFailure names it."""
    return converged(account, wish, {"present": _present, "absent": _absent}, check_mode)


def list_volumes(client: RunpodClient, project: str | None, name: str | None) -> dict[str, Any]:
    """What ``runpod_network_volume_info`` returns."""
    rows, read = client.list_volumes(), reader(client)
    ours = [volume for volume in map(read, rows) if volume is not None]
    shown = [one for one in ours if project in (None, one.stamp.project) and name in (None, one.stamp.name)]
    shown.sort(key=lambda one: (one.stamp.project, one.stamp.name, -one.stamp.generation, one.volume_id))
    return {
        "changed": False,
        "volumes": [one.as_result() for one in shown],
        "unstamped": len(rows) - len(ours),
    }


def _absent(account: PodAccount, wish: Wish, check_mode: bool) -> Result[Volume]:
    return absent(account, wish, check_mode, to_volume=reader(account.client), remember=_remember)


def _present(account: PodAccount, wish: Wish, check_mode: bool) -> Result[Volume]:
    _check(wish)
    found = located(account, reader(account.client), wish.project, wish.name)
    if found.current is not None:
        _remember(account, found.current)
        _refuse_other(found.current, wish)
        return Result(found.current, found.current, found)
    price = price_of(wish.size_gb)
    _refuse_dearer(price, wish)
    if check_mode:
        predicted = {"state": "present", "size_gb": float(wish.size_gb), "data_center": wish.data_center, "id": "(new)"}
        would = {"size_gb": wish.size_gb, "data_center": wish.data_center, "price_per_hour": price}
        return Result(None, None, found, predicted=predicted, would=would)
    made = _create(account, wish, price)
    return Result(None, made, Found(made, found.superseded))


def _check(wish: Wish) -> None:
    problem = ""
    if not LEAST_GB <= wish.size_gb <= MOST_GB:
        problem = f"size_gb is {wish.size_gb}, and a network volume has {LEAST_GB} to {MOST_GB} GB"
    elif not wish.data_center:
        problem = "data_center says where the volume lies for ever, and it is missing"
    elif wish.price_cap is None or not 0 < wish.price_cap < float("inf"):
        problem = f"price_cap is {wish.price_cap}: making one that bills is not consented to"
    if problem:
        raise TenantFailure("config", problem, safe="nothing was made", fix="say it in the options of this task")


def _refuse_other(volume: Volume, wish: Wish) -> None:
    """A volume never leaves its data center, and never shrinks: one that is not as wanted is a failure."""
    subject = f"network volume {volume.volume_id}"
    if volume.data_center != wish.data_center:
        raise TenantFailure(
            "config",
            f"{subject} is in {volume.data_center or 'no data center that it tells'}, not {wish.data_center}",
            safe="nothing was changed",
            fix="take another name for another volume, and delete this one when what it holds is home",
        )
    if volume.size_gb is not None and volume.size_gb + 1e-6 < wish.size_gb:
        raise TenantFailure(
            "config",
            f"{subject} has {volume.size_gb:g} GB and {wish.size_gb} GB are wanted",
            safe="nothing was changed",
            fix="let it grow in the provider's console, which cannot be undone, or ask for no more than it has",
        )


def _refuse_dearer(price: float, wish: Wish) -> None:
    if wish.price_cap is not None and price > wish.price_cap + 1e-9:
        raise TenantFailure(
            "budget",
            f"{wish.size_gb} GB cost ${price:.5f} an hour, above the price_cap of ${wish.price_cap}",
            safe="nothing was made",
            fix=f"raise price_cap to {price + 5e-6:.5f}, or ask for less",
        )


def _create(account: PodAccount, wish: Wish, price: float) -> Volume:
    """A new volume, alone on the account while it is made. Another process's counts, if it was faster."""
    read = reader(account.client)
    with account.lock():
        there = listed(account, read, wish.project, wish.name).current
        if there is not None:
            _refuse_other(there, wish)
            return there
        last = account.store.last_generation(wish.project, record_name(wish.name))
        stamp = new_stamp(wish.project, wish.name, last + 1)
        place = {"project": stamp.project, "box": record_name(stamp.name), "generation": stamp.generation}
        terms = {"volume": str(stamp), "size_gb": wish.size_gb, "data_center": wish.data_center}
        with account.journal.effect(
            "rent-volume", platform=account.PLATFORM, price_per_hour=price, **terms, **place
        ) as effect:
            lost = _sent(account, stamp, wish)
            volume = look_up(account, stamp, lost, lambda: listed(account, read, wish.project, wish.name).all)
            effect.details["provider_id"] = volume.volume_id
    _remember(account, volume)
    return volume


def _sent(account: PodAccount, stamp: VolumeStamp, wish: Wish) -> str:
    """Send the create, once. Why its answer is not known; empty where it is. TenantFailure for a refusal."""
    try:
        account.client.create_volume(str(stamp), wish.size_gb, wish.data_center)
    except AmbiguousAnswer as error:
        return error.what
    except RestError as refusal:
        raise TenantFailure(refusal.kind, refusal.what, safe="nothing was made", fix=refusal.fix) from None
    return ""


def _remember(account: RentalAccount[Any], volume: Volume) -> None:
    remember(account, volume, data_center=volume.data_center)

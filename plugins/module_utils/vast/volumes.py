# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes: storage on one machine that outlives the boxes which use it.

A volume carries its stamp in its name, the only text of it that is ours. Nobody can look into a volume from outside,
and any box of the account may have written to it, so it never counts as unused: deleting one always needs a person's
consent to the loss, asked for in :func:`delete` on records read now.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .. import approvals, gate, volume_gate
from ..box import records
from ..box.names import UnsafeName, check_name
from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..rental_waiters import DeadlinePassed, wait_until
from ..rented_box import HOURS_PER_MONTH, number
from ..rest_client import AmbiguousAnswer
from ..state_store import BoxIdentity
from ..volume_gate import DELETE, record_name
from .actions import PLATFORM, Account
from .api import VastError
from .money import volume_rate

MOST_NAME = 64
MOST_OFFERS = 3
SETTLE_S = 30.0
WAIT_S = 180.0

_NAME = re.compile(r"gt1__(.+?)__(.+?)__g([1-9][0-9]{0,5})__([0-9a-f]{8})\Z")
_ESCAPED = re.compile(r"_([0-9a-f]{2})")


# --- the stamp in the name -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VolumeStamp:
    """``gt1__<project>__<name>__g<generation>__<nonce>``; other letters than A-Z, a-z and 0-9 as ``_`` and hex."""

    project: str
    name: str
    generation: int
    nonce: str

    def __str__(self) -> str:
        return f"gt1__{_escape(self.project)}__{_escape(self.name)}__g{self.generation}__{self.nonce}"


def new_stamp(project: str, name: str, generation: int) -> VolumeStamp:
    """A fresh stamp. TenantFailure when the market's limit on names leaves no room for it."""
    stamp = VolumeStamp(check_name("project", project), check_name("volume", name), generation, secrets.token_hex(4))
    if len(str(stamp)) > MOST_NAME:
        raise TenantFailure(
            "config",
            f"the market's names have at most {MOST_NAME} characters, and {stamp} has {len(str(stamp))}",
            box=name,
            safe="nothing was rented",
            fix="take a shorter name; letters and digits need one character each, others three",
        )
    return stamp


def parse_stamp(text: object) -> VolumeStamp | None:
    """The stamp in a volume's name, None for a name that is not ours. Never raises."""
    match = _NAME.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        project, name = (check_name("volume", _unescape(part)) for part in match.groups()[:2])
    except UnsafeName:
        return None
    stamp = VolumeStamp(project, name, int(match.group(3)), match.group(4))
    return stamp if str(stamp) == text else None


def _escape(name: str) -> str:
    return "".join(one if one.isascii() and one.isalnum() else f"_{ord(one):02x}" for one in name)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text)


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
    def identity(self) -> BoxIdentity:
        """What the gate's records know it by; a box cannot have this name and be confused with it."""
        stamp = self.stamp
        return BoxIdentity(stamp.project, record_name(stamp.name), stamp.generation, f"V.{self.volume_id}")

    def as_result(self) -> dict[str, Any]:
        return {
            "id": int(self.volume_id),
            "reference": f"V.{self.volume_id}",
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
    """Ids of the instances in a row, which come as numbers or as objects. What cannot be read still is a user."""
    listed = users if isinstance(users, list) else []
    found = [one.get("id") if isinstance(one, Mapping) else one for one in listed]
    return [str(one) if re.match(r"[0-9]{1,18}\Z", str(one)) else "0" for one in found]


@dataclass(frozen=True)
class Found:
    """The volumes of one name: the one that counts (highest generation, then lowest id), and the others."""

    current: Volume | None
    superseded: Sequence[Volume] = ()

    @property
    def all(self) -> list[Volume]:
        return ([self.current] if self.current else []) + list(self.superseded)


def locate(account: Account, project: str, name: str) -> Found:
    """The volumes of this name. That there is none is said only when two lists agree."""
    found = _listed(account, project, name)
    return found if found.current else _listed(account, project, name)


def _listed(account: Account, project: str, name: str) -> Found:
    volumes = [volume for volume in map(to_volume, account.client.list_volumes()) if volume is not None]
    ours = [volume for volume in volumes if (volume.stamp.project, volume.stamp.name) == (project, name)]
    ours.sort(key=lambda volume: (-volume.stamp.generation, int(volume.volume_id)))
    return Found(ours[0] if ours else None, ours[1:])


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


@dataclass
class Result:
    """What came of it; :meth:`as_result` is what ``vast_volume`` returns."""

    before: Volume | None
    after: Volume | None
    found: Found
    predicted: dict[str, Any] = field(default_factory=dict)
    would: dict[str, Any] | None = None
    gone: list[str] = field(default_factory=list)
    gate: list[dict[str, Any]] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        tracker = DifferenceTracker()
        before, after = _aspects(self.before), dict(_aspects(self.after), **self.predicted)
        for name, value in before.items():
            tracker.compare(name, value, after[name])
        tracker.compare("deleted", [], self.gone)
        result = dict(
            tracker.as_result(),
            volume=self.after.as_result() if self.after else None,
            superseded=[one.as_result() for one in self.found.superseded if one.volume_id not in self.gone],
            gate=self.gate,
        )
        return result if self.would is None else dict(result, would=self.would)


def _aspects(volume: Volume | None) -> dict[str, Any]:
    if volume is None:
        return {"state": "absent", "id": None, "size_gb": None, "machine_id": None}
    return {
        "state": "present", "id": int(volume.volume_id), "size_gb": volume.size_gb, "machine_id": volume.machine_id
    }  # fmt: skip


def converge(account: Account, wish: Wish, check_mode: bool = False) -> dict[str, Any]:
    """Bring the volume to the wanted state. TenantFailure names it."""
    try:
        check_name("project", wish.project)
        check_name("volume", wish.name)
        step = _present if wish.state == "present" else _absent
        return step(account, wish, check_mode).as_result()
    except TenantFailure as failure:
        failure.box = failure.box or wish.name
        raise


# -- present --------------------------------------------------------------------------------------------------------


def _present(account: Account, wish: Wish, check_mode: bool) -> Result:
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
        there = _listed(account, wish.project, wish.name).current
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
        "rent-volume", platform=PLATFORM, price_per_hour=offer["price_per_hour"], **terms, **place
    ) as effect:
        lost = ""
        try:
            account.client.create_volume(int(offer["offer_id"]), wish.size_gb, str(stamp))
        except AmbiguousAnswer as error:
            lost = error.what
        volume = _look_up(account, stamp, lost)
        effect.details["provider_id"] = volume.identity.provider_id
    _remember(account, volume)
    return volume


def _look_up(account: Account, stamp: VolumeStamp, lost: str) -> Volume:
    """The volume with this stamp, once the list has it.

    :param lost: why the create's answer is not known; then lists that lack it for long enough mean that it failed.
    """
    client = account.client
    ended = client.clock()

    def listed() -> Volume | None:
        found = _listed(account, stamp.project, stamp.name).all
        match = next((volume for volume in found if volume.stamp == stamp), None)
        if match is None and lost and client.clock() - ended >= SETTLE_S:
            # No other offer is tried: a create that surfaces late would make a second volume.
            what = f"{lost}; no volume with its stamp came of it"
            raise TenantFailure("provider", what, safe="nothing was rented", fix="run again: it looks for it first")
        return match

    try:
        return wait_until(listed, ended + WAIT_S, client.back_off(0.5, 6.0), client.clock, client.sleep)
    except DeadlinePassed:
        raise TenantFailure(
            "provider",
            f"volume {stamp} was rented but the provider does not list it",
            safe="nothing more was rented",
            fix="run again in a minute: it is found by its name",
        ) from None


def _remember(account: Account, volume: Volume) -> None:
    """A record that approvals can be given for. It never says that the volume is unused: nobody can know that."""
    if account.read_only:
        return
    volume_gate.remember(
        account.store,
        volume.identity,
        platform=PLATFORM,
        stamp=str(volume.stamp),
        machine_id=volume.machine_id,
        price_per_hour=volume.price_per_hour,
    )


# -- absent ---------------------------------------------------------------------------------------------------------


def _absent(account: Account, wish: Wish, check_mode: bool) -> Result:
    """Delete every volume of the name; all are judged before the first is touched."""
    found = locate(account, wish.project, wish.name)
    for volume in found.all:
        _remember(account, volume)
    decisions = [pass_gate(account, volume) for volume in found.all]
    result = Result(found.current, None, found, gone=[volume.volume_id for volume in found.all])
    for volume, decision in zip(reversed(found.all), reversed(decisions)):
        result.gate.append({"id": int(volume.volume_id), "rule": decision.rule, "approval_id": decision.approval_id})
        if not check_mode:
            delete(account, volume)
    return result


def evidence_of(account: Account, volume: Volume) -> gate.Evidence:
    """What the gate judges, read now."""
    return volume_gate.evidence_of(account.store, volume.identity, in_use=bool(volume.instances))


def pass_gate(account: Account, volume: Volume) -> gate.Decision:
    """The gate's consent. TenantFailure ``gate_refused`` says what is missing, ``config`` that boxes still use it."""
    name = volume.stamp.name
    if volume.instances:
        raise TenantFailure(
            "gate_refused",
            f"volume V.{volume.volume_id} is used by instance {', '.join(volume.instances)}",
            box=name,
            safe="the volume and what it holds are untouched",
            fix="destroy those boxes first, each through its own gate",
        )
    return volume_gate.consent(account.store, volume.identity, name, f"volume V.{volume.volume_id}")


def delete(account: Account, volume: Volume) -> None:
    """Delete a volume that the gate lets go, and wait until two lists lack it."""
    decision = pass_gate(account, volume)
    identity = volume.identity
    if decision.approval_id is None:
        raise TenantFailure("gate_refused", f"no person approved deleting {volume.stamp}", box=volume.stamp.name)
    with account.journal.effect(
        DELETE, platform=PLATFORM, rule=decision.rule, approval_id=decision.approval_id, **identity.as_dict()
    ) as effect, approvals.spending(account.store, decision.approval_id):  # fmt: skip
        effect.details["was_there"] = account.client.delete_volume(volume.volume_id)
    _await_gone(account, volume)
    account.store.update_box(identity.project, identity.box, identity.generation, destroyed_at=records.utc_now())


def _await_gone(account: Account, volume: Volume) -> None:
    client, readings = account.client, [0]

    def twice() -> bool | None:
        listed = any(str(row["id"]) == volume.volume_id for row in client.list_volumes())
        readings[0] = 0 if listed else readings[0] + 1
        return True if readings[0] >= 2 else None

    try:
        wait_until(twice, client.clock() + WAIT_S, client.back_off(0.5, 6.0), client.clock, client.sleep)
    except DeadlinePassed:
        raise TenantFailure(
            "provider",
            f"the provider still lists volume V.{volume.volume_id} {WAIT_S:.0f} s after it was deleted",
            box=volume.stamp.name,
            fix="run again: deleting it again is safe, and it may still bill",
        ) from None

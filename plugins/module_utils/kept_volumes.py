# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Making and deleting volumes that a provider rents out: never twice, and never without a person's consent.

A provider's client has ``list_volumes`` and ``delete_volume``; its volumes are a :class:`KeptVolume`.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol, Sequence, TypeVar

from . import approvals, gate, volume_gate
from .box import records
from .failures import TenantFailure
from .rental_account import RentalAccount
from .rental_waiters import DeadlinePassed, wait_until
from .state_store import BoxIdentity
from .volume_stamp import VolumeStamp

SETTLE_S = 30.0
WAIT_S = 180.0


class KeptVolume(Protocol):
    """``users`` are the boxes that use it now, resting ones too; ``reference`` is what the provider calls it."""

    @property
    def volume_id(self) -> str: ...

    @property
    def reference(self) -> str: ...

    @property
    def stamp(self) -> VolumeStamp: ...

    @property
    def identity(self) -> BoxIdentity: ...

    @property
    def price_per_hour(self) -> float | None: ...

    @property
    def users(self) -> Sequence[str]: ...


AnyVolume = TypeVar("AnyVolume", bound=KeptVolume)


def look_up(
    account: RentalAccount[Any], stamp: VolumeStamp, lost: str, listed: Callable[[], Sequence[AnyVolume]]
) -> AnyVolume:
    """The volume with this stamp, once the list has it.

    :param listed: the volumes of its name as the provider lists them now.
    :param lost: why the create's answer is not known; then lists that lack it for long enough mean that it failed.
    """
    client = account.client
    ended = client.clock()

    def there() -> AnyVolume | None:
        match = next((volume for volume in listed() if volume.stamp == stamp), None)
        if match is None and lost and client.clock() - ended >= SETTLE_S:
            # No other offer is tried: a create that surfaces late would make a second volume.
            what = f"{lost}; no volume with its stamp came of it"
            raise TenantFailure("provider", what, safe="nothing was rented", fix="run again: it looks for it first")
        return match

    try:
        return wait_until(there, ended + WAIT_S, client.back_off(0.5, 6.0), client.clock, client.sleep)
    except DeadlinePassed:
        raise TenantFailure(
            "provider",
            f"volume {stamp} was rented but the provider does not list it",
            safe="nothing more was rented",
            fix="run again in a minute: it is found by its name",
        ) from None


def remember(account: RentalAccount[Any], volume: AnyVolume, **facts: Any) -> None:
    """A record that approvals can be given for."""
    if account.read_only:
        return
    told = {"platform": account.PLATFORM, "stamp": str(volume.stamp), "price_per_hour": volume.price_per_hour}
    volume_gate.remember(account.store, volume.identity, **told, **facts)


def pass_gate(account: RentalAccount[Any], volume: AnyVolume) -> gate.Decision:
    """The gate's consent. TenantFailure ``gate_refused`` says what is missing, or that boxes still use it."""
    name = volume.stamp.name
    if volume.users:
        raise TenantFailure(
            "gate_refused",
            f"volume {volume.reference} is used by {account.THING} {', '.join(volume.users)}",
            box=name,
            safe="the volume and what it holds are untouched",
            fix="destroy those boxes first, each through its own gate",
        )
    return volume_gate.consent(account.store, volume.identity, name, f"volume {volume.reference}")


def delete(account: RentalAccount[Any], volume: AnyVolume) -> None:
    """Delete a volume that the gate lets go, and wait until two lists lack it."""
    decision = pass_gate(account, volume)
    identity, approval_id = volume.identity, str(decision.approval_id)
    told = {"platform": account.PLATFORM, "rule": decision.rule, "approval_id": approval_id, **identity.as_dict()}
    with account.journal.effect(volume_gate.DELETE, **told) as effect, approvals.spending(account.store, approval_id):
        effect.details["was_there"] = account.client.delete_volume(volume.volume_id)
    _await_gone(account, volume)
    account.store.update_box(identity.project, identity.box, identity.generation, destroyed_at=records.utc_now())


def _await_gone(account: RentalAccount[Any], volume: AnyVolume) -> None:
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
            f"the provider still lists volume {volume.reference} {WAIT_S:.0f} s after it was deleted",
            box=volume.stamp.name,
            fix="run again: deleting it again is safe, and it may still bill",
        ) from None

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An instance's life, as pure transitions. Times are market seconds, prices dollars per hour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from .billing import Account, Segment, Traffic
from .dialects import Dialect
from .lambda_cloud.terms import VmTerms
from .paperspace.terms import CoreTerms
from .runpod.terms import PodTerms


class Phase(StrEnum):
    PROVISIONING = "provisioning"
    LOADING = "loading"
    RUNNING = "running"
    STOPPED = "stopped"
    OUTBID = "outbid"
    SCHEDULING = "scheduling"
    EXITED = "exited"
    REBOOTING = "rebooting"
    RECYCLING = "recycling"
    UNLOADED = "unloaded"
    GONE = "gone"


HOLDING_A_CARD = frozenset(
    {Phase.PROVISIONING, Phase.LOADING, Phase.RUNNING, Phase.REBOOTING, Phase.RECYCLING, Phase.EXITED}
)
LOST = frozenset({Phase.UNLOADED, Phase.GONE})


@dataclass(frozen=True)
class Key:
    """:param name: as Lambda's side knows it; empty for one that came by another."""

    id: int
    public_key: str
    created_at: float
    name: str = ""

    @property
    def named(self) -> str:
        """What Lambda's side calls it."""
        return self.name or f"key-{self.id}"


@dataclass(frozen=True)
class Instance:
    """One contract.

    :param price: the bid, None for on-demand.
    :param base_price: what an hour of compute costs.
    :param boot: counts starts; work for an earlier start is out of date.
    :param wants_card: whether the tenant wants it to run, though it may be outbid.
    :param mapped: where the ports beside ssh's are reached, by names such as ``8080/tcp``.
    :param ends_at: when the contract ends; None while it is extended by itself.
    :param earlier_disk: what the disk cost before its price rose.
    :param template: what it was made of, as its row says; empty for no template.
    :param pod: what it is on RunPod's side of the market, :attr:`vm` on Lambda's, :attr:`core` on Paperspace's; all
        None for one of vast.ai's.
    :param deposits: when its tenant paid ahead, in market seconds, and how many dollars.
    :param discount: the fraction that a deposit takes off the price, while it lasts.
    :param forfeited: dollars of the deposits that were kept when it was given back.
    """

    id: int
    offer_id: int
    machine_id: int
    created_at: float
    price: float | None
    base_price: float
    storage_cost: float
    disk_gb: float
    image: str
    runtype: str
    ports: tuple[int, ...]
    label: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    onstart: str | None = None
    args: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    api_key: str = ""
    phase: Phase = Phase.STOPPED
    wants_card: bool = False
    ever_ran: bool = False
    boot: int = 0
    status_msg: str | None = None
    compute: tuple[Segment, ...] = ()
    running_since: float | None = None
    destroyed_at: float | None = None
    traffic: tuple[Traffic, ...] = ()
    mapped: dict[str, int] = field(default_factory=dict)
    ends_at: float | None = None
    earlier_disk: tuple[Segment, ...] = ()
    template: dict[str, Any] = field(default_factory=dict)
    pod: PodTerms | None = None
    deposits: tuple[tuple[float, float], ...] = ()
    discount: float = 0.0
    forfeited: float = 0.0
    vm: VmTerms | None = None
    core: CoreTerms | None = None

    @property
    def terms(self) -> PodTerms | VmTerms | CoreTerms | None:
        """What it is on another side of the market than vast.ai's; None for one of vast.ai's."""
        return self.pod or self.vm or self.core

    @property
    def is_bid(self) -> bool:
        return self.price is not None

    @property
    def live(self) -> bool:
        return self.phase not in LOST

    def account(self) -> Account:
        return Account(
            self.id,
            self.label or "",
            self.created_at,
            self.destroyed_at,
            self.disk_gb,
            self.storage_cost,
            self.compute,
            self.traffic,
            self.earlier_disk,
            None if self.terms is None else self.terms.running_disk_rate,
            self.forfeited,
        )


@dataclass(frozen=True)
class States:
    """How a phase shows on the wire."""

    actual: str | None
    intended: str
    current: str
    next: str


def wire_states(instance: Instance, dialect: Dialect) -> States:
    phase = instance.phase
    if phase is Phase.PROVISIONING:
        return States(None, "running", "running", "running")
    if phase in (Phase.LOADING, Phase.RUNNING, Phase.REBOOTING, Phase.RECYCLING, Phase.EXITED):
        return States(phase.value, "running", "running", "running")
    halted = dialect.stopped_as if instance.ever_ran else "created"
    if phase is Phase.SCHEDULING:
        return _waiting_states(halted, dialect)
    if phase is Phase.UNLOADED:
        return States(halted, "stopped", "unloaded", "unloaded")
    return States(halted, "stopped", "stopped", "stopped")


def _waiting_states(halted: str, dialect: Dialect) -> States:
    """How a box shows that waits for its card."""
    if dialect.scheduling == "named":
        return States("scheduling", "running", "running", "running")
    return States(halted, "running", "stopped", "running" if dialect.scheduling == "stopped" else "stopped")


# How a list that lags behind shows a box that ran and was destroyed.
AS_IT_RAN = {"actual_status": "running", "intended_status": "running", "cur_state": "running", "next_state": "running"}


def claim(instance: Instance) -> Instance:
    """The tenant wants it to run."""
    if instance.phase in HOLDING_A_CARD and instance.phase is not Phase.EXITED:
        return instance
    return replace(instance, wants_card=True)


def begin_start(instance: Instance) -> Instance:
    """The card is ours: the box gets started."""
    phase = Phase.LOADING if instance.ever_ran else Phase.PROVISIONING
    return replace(instance, phase=phase, boot=instance.boot + 1, wants_card=True, status_msg=None)


def loading(instance: Instance) -> Instance:
    return replace(instance, phase=Phase.LOADING, status_msg=f"Status: Downloaded newer image for {instance.image}")


def booted(instance: Instance, now: float) -> Instance:
    """The box runs: from here on compute bills."""
    return replace(
        instance,
        phase=Phase.RUNNING,
        ever_ran=True,
        running_since=now,
        status_msg=f"success, running {instance.image}/{instance.runtype.split(' ')[0]}",
        compute=_opened(instance, now),
    )


def failed(instance: Instance, reason: str, now: float) -> Instance:
    """The box did not start; nobody pays for its card."""
    halted = _halted(instance, Phase.STOPPED, now)
    return replace(halted, wants_card=False, status_msg=f"Error: {reason}")


def exited(instance: Instance) -> Instance:
    """Its processes ended by themselves: the contract runs on, and bills, until somebody stops it."""
    return replace(instance, phase=Phase.EXITED, status_msg="container exited")


def stop(instance: Instance, now: float) -> Instance:
    return replace(_halted(instance, Phase.STOPPED, now), wants_card=False)


def outbid(instance: Instance, now: float) -> Instance:
    """Another tenant took the card. It wants back by itself; a pod of RunPod's rests until it is started."""
    return replace(_halted(instance, Phase.OUTBID, now), wants_card=instance.pod is None)


def scheduling(instance: Instance, now: float) -> Instance:
    """The tenant asked for a start, but the card is another's."""
    return replace(_halted(instance, Phase.SCHEDULING, now), wants_card=True)


def waiting_to_boot(instance: Instance, now: float) -> Instance:
    """It has its card, and its box does not come up; nobody pays for the card meanwhile."""
    waiting = _halted(instance, Phase.LOADING, now)
    return replace(waiting, wants_card=True, status_msg=f"{instance.image}: Pulling fs layer")


def restart(instance: Instance, phase: Phase) -> Instance:
    """Reboot or recycle: the contract, and its bill, run on."""
    return replace(instance, phase=phase, boot=instance.boot + 1, status_msg=None)


def change_bid(instance: Instance, price: float, now: float) -> Instance:
    """A new bid; a running box is billed by it from now on."""
    changed = replace(instance, price=price, base_price=price)
    return _priced_anew(changed, now)


def prepaid(instance: Instance, amount: float, discount: float, now: float) -> Instance:
    """Its tenant paid ahead: the new discount holds from now on."""
    changed = replace(instance, deposits=(*instance.deposits, (now, amount)), discount=discount)
    return _priced_anew(changed, now)


def credit_balance(instance: Instance, now: float) -> float:
    """Dollars that are left of the deposits: compute is paid from them while there is a discount."""
    paid = sum(amount for at, amount in instance.deposits if at <= now)
    used = sum(part.hours(now) * part.rate for part in instance.compute if part.discount)
    return max(0.0, paid - used - instance.forfeited)


def saved(instance: Instance, now: float) -> float:
    """Dollars that the discount took off so far."""
    discounted = [part for part in instance.compute if part.discount]
    return sum(part.hours(now) * part.rate * part.discount / (1 - part.discount) for part in discounted)


def accept_rise(instance: Instance, compute: float | None, storage: float | None, now: float) -> Instance:
    """The host's new prices, from now on; the contract is extended by itself again."""
    changed = replace(instance, ends_at=None)
    if storage is not None:
        account = instance.account()
        changed = replace(
            changed,
            storage_cost=storage,
            earlier_disk=(*instance.earlier_disk, Segment(account.disk_since, now, account.disk_rate)),
        )
    if compute is None:
        return changed
    return _priced_anew(replace(changed, base_price=compute), now)


def is_over(instance: Instance, now: float) -> bool:
    """Whether the contract ended: its box does not run again."""
    return instance.ends_at is not None and now >= instance.ends_at


def contract_ended(instance: Instance, now: float) -> Instance:
    """It stops, and its disk bills until it is destroyed."""
    return replace(stop(instance, now), status_msg="stopped: the contract ended")


def destroy(instance: Instance, now: float) -> Instance:
    if not instance.live:
        return instance
    kept = min(credit_balance(instance, now), saved(instance, now))
    gone = _halted(instance, Phase.UNLOADED, now)
    return replace(gone, wants_card=False, destroyed_at=now, forfeited=kept, discount=0.0)


def vanish(instance: Instance) -> Instance:
    return replace(instance, phase=Phase.GONE)


def market_stood(instance: Instance, now: float) -> Instance:
    """The market itself was down: no process of the box lived through it."""
    if instance.phase in HOLDING_A_CARD:
        return replace(stop(instance, now), status_msg="stopped: the marketplace was not running")
    return instance


def holder_of_card(instances: Iterable[Instance], floor: float) -> Instance | None:
    """Who among the contracts on one machine has its card.

    On-demand beats any bid, the highest bid beats the others, none below the market's price ``floor`` has it; between
    equals the one that has it keeps it, then the older one.
    """
    claims = [one for one in instances if one.live and one.wants_card]
    on_demand = [one for one in claims if not one.is_bid]
    if on_demand:
        return min(on_demand, key=lambda one: (one.phase not in HOLDING_A_CARD, one.id))
    bids = [one for one in claims if one.price is not None and one.price >= floor - 1e-9]
    return min(bids, key=lambda one: (-(one.price or 0.0), one.phase not in HOLDING_A_CARD, one.id), default=None)


def _halted(instance: Instance, phase: Phase, now: float) -> Instance:
    return replace(
        instance,
        phase=phase,
        boot=instance.boot + 1,
        compute=_closed(instance, now),
        running_since=None,
        status_msg=None,
    )


def _opened(instance: Instance, now: float) -> tuple[Segment, ...]:
    if instance.compute and instance.compute[-1].end is None:
        return instance.compute
    return (*instance.compute, _segment(instance, now))


def _priced_anew(instance: Instance, now: float) -> Instance:
    """What it costs has changed; a running box is billed by that from now on."""
    if not instance.compute or instance.compute[-1].end is not None:
        return instance
    return replace(instance, compute=(*_closed(instance, now), _segment(instance, now)))


def _segment(instance: Instance, now: float) -> Segment:
    return Segment(now, None, instance.base_price * (1 - instance.discount), instance.discount)


def _closed(instance: Instance, now: float) -> tuple[Segment, ...]:
    if not instance.compute or instance.compute[-1].end is not None:
        return instance.compute
    return (*instance.compute[:-1], replace(instance.compute[-1], end=now))

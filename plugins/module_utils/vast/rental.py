# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting: never twice, never lost, never above the cap. How a create is sent and looked for is in ``creation``.

Whatever a failed create leaves behind is destroyed: it is virgin, nothing was ever put on it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .. import budget
from ..box import records
from ..creation import Creation, carried_problem, settled_intent
from ..dollar_budgets import NO_BUDGETS, Budgets, refuse_overspent
from ..failures import TenantFailure
from ..rental_states import refuse_dearer
from ..rented_box import Box, exceeds
from ..rest_client import AmbiguousAnswer
from ..stamp import ENVIRONMENT_NAME, Stamp, new_stamp
from .actions import PLATFORM, Account
from .api import VastError
from .attached import Attached
from .image_cuda import driver_problem
from .offers import LEAST_DISK_GB, ON_DEMAND, Constraints, Offer, Price, failed_constraints, price_of
from .onstart import as_sent, problem_of
from .ports import flag_of
from .transformations import to_box

# Boxes that one call may rent and give back (stuck, or dearer than offered) before it gives up.
MAX_REJECTED = 3
# ssh with a direct port and the proxy as second way, in the spelling of the market's own client.
RUNTYPE = "ssh_direc ssh_proxy"
_GONE_CODES = ("no_such_ask", "not_available", "offer_not_found")
_RATE_LIMIT_TRIES = 5
# For so long a create waits for the rate limiter: the account's lock is held, and others wait for it ten minutes.
RATE_LIMIT_WAIT_S = 120.0

_LIMITS = {"image": 1024, "env_value": 256, "env_total": 32768}


@dataclass(frozen=True)
class Order:
    """What to rent, whatever the offer.

    :param budget_per_hour: the most that all boxes of the project may cost an hour together, None for no limit.
    :param budgets: what the run and the project may cost in all.
    :param ports: beside ssh's, as ``8080/tcp``.
    :param volumes: what it is rented with beside its disk.
    :param template_hash: of the template that the order was completed by; empty for none.
    :param replaces: the id of the box that a new generation takes the place of; empty for none.
    """

    project: str
    name: str
    image: str
    disk_gb: float
    wanted: Constraints
    env: Mapping[str, str] = field(default_factory=dict)
    onstart: str = ""
    wait_s: float = 900.0
    budget_per_hour: float | None = None
    budgets: Budgets = NO_BUDGETS
    replaces: str = ""
    volumes: tuple[Attached, ...] = ()
    ports: tuple[str, ...] = ()
    template_hash: str = ""


@dataclass
class Outcome:
    """``box`` runs; ``rejected`` were rented before it and given back; ``refused`` offers cost nothing.

    ``over_budget`` are those of the refused that the project's budget had no room for.
    """

    box: Box | None = None
    offer: Offer | None = None
    rejected: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    over_budget: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Made:
    """What came of one try to rent.

    :param box: None where the offer is gone.
    :param offer: the one that was asked for; None for a box that nobody asked for here.
    :param is_new: it is ours and nobody compared it with the cap yet: this call rented it, or a process did that was
        killed before it heard so.
    """

    box: Box | None
    offer: Offer | None = None
    is_new: bool = True


def order_problem(order: Order, key: str) -> str:
    """Why the API would refuse an order, or why it may not be sent: it would carry the account's key to a stranger."""
    if not order.image or len(order.image) > _LIMITS["image"]:
        return f"image must have 1 to {_LIMITS['image']} characters"
    if order.disk_gb < LEAST_DISK_GB:
        return f"disk_gb is {order.disk_gb:g} GB, and the market rents no disk below {LEAST_DISK_GB:g} GB"
    too_long = problem_of(order.onstart)
    if too_long:
        return too_long
    long_names = sorted(name for name, value in order.env.items() if len(value) > _LIMITS["env_value"])
    if long_names:
        return f"the values of {', '.join(long_names)} in env are longer than {_LIMITS['env_value']} characters"
    if sum(len(name) + len(value) for name, value in order.env.items()) > _LIMITS["env_total"]:
        return f"env is longer than {_LIMITS['env_total']} characters in all"
    carried = carried_problem(key, order.env, (order.image, order.onstart), "image, onstart")
    if carried:
        return carried
    if budget.budget_problem(order.budget_per_hour):
        return budget.budget_problem(order.budget_per_hour)
    if order.wanted.price_cap is None:
        return "there is no price_cap, and renting without one is not consented to"
    return ""


def acceptable(offers: Sequence[Offer], order: Order) -> tuple[list[tuple[Offer, Price]], list[str]]:
    """The offers that can run the order within its cap, in their order, with prices; and why the others cannot."""
    fitting, refused = [], []
    for offer in offers:
        price = price_of(offer, order.wanted)
        failed = [name for name in failed_constraints(offer, order.wanted) if name in _RENTAL_CHECKS]
        driver = driver_problem(order.image, offer.cuda_max)
        if price is not None and not failed and not driver:
            fitting.append((offer, price))
        else:
            refused.append(f"offer {offer.offer_id}: {driver or _why_not(offer, price, order.wanted, failed)}")
    return fitting, refused


_RENTAL_CHECKS = ("min_disk_gb", "direct_ports", "volumes", "exclude_machines", "bulk_transfer", "price", "price_cap")


def _why_not(offer: Offer, price: Price | None, wanted: Constraints, failed: Sequence[str]) -> str:
    if price is None:
        return "the host does not state its price"
    if "price_cap" in failed:
        least = price.storage + (price.compute if offer.min_bid is None or price.bid is None else offer.min_bid)
        return f"costs at least ${least:.4f} an hour, disk included, and price_cap is ${wanted.price_cap}"
    if "bulk_transfer" in failed:
        lacking = "has no direct port" if offer.verified else "is not verified"
        return f"bulk_transfer is declared, and its host {lacking}"
    if "min_disk_gb" in failed:
        return f"has {offer.disk_gb} GB of disk and {wanted.min_disk_gb} GB are wanted"
    if "direct_ports" in failed:
        return f"has {offer.direct_ports} direct ports and {wanted.direct_ports} are wanted, ssh's included"
    if "volumes" in failed:
        return f"is on machine {offer.machine_id}, and the volumes are on machine {wanted.only_machine}"
    return f"is on the excluded machine {offer.machine_id}"


def _flags(order: Order) -> list[str]:
    """What docker is to do, which travels in the environment of a create."""
    return [one.flag for one in order.volumes] + [flag_of(port) for port in order.ports]


def create_body(order: Order, price: Price, stamp: Stamp) -> dict[str, Any]:
    """The create as the market's own client sends it, stamp in label and environment."""
    return {
        "client_id": "me",
        "image": order.image,
        "env": {**order.env, **dict.fromkeys(_flags(order), "1"), ENVIRONMENT_NAME: str(stamp)},
        "price": price.bid,
        "disk": order.disk_gb,
        "label": str(stamp),
        "extra": None,
        "onstart": as_sent(order.onstart) or None,
        "image_login": None,
        "python_utf8": False,
        "lang_utf8": False,
        "use_jupyter_lab": False,
        "jupyter_dir": None,
        "force": False,
        # On demand, an error is wanted where the GPU is gone, not a stopped box.
        "cancel_unavail": order.wanted.market == ON_DEMAND,
        "template_hash_id": order.template_hash or None,
        "user": None,
        "runtype": RUNTYPE,
    }


class Renter:
    """One order on one account: offers are tried in turn until a box runs within the cap."""

    def __init__(self, account: Account, order: Order) -> None:
        self._account = account
        self._client = account.client
        self._store = account.store
        self._order = order
        self._outcome = Outcome()

    def rent(self, offers: Sequence[tuple[Offer, Price]]) -> Outcome:
        """A running box. TenantFailure when no offer led to one; then nothing that we rented is left."""
        left = list(offers)
        while left and len(self._outcome.rejected) < MAX_REJECTED:
            made = self._create(*left[0])
            if made.box is not None and not made.is_new:
                refuse_dearer(self._account, made.box, self._order.name, self._order.wanted.price_cap)
                self._outcome.box = self._account.await_running(made.box, self._order.wait_s)
                return self._outcome
            if made.box is not None and self._admit(made.box):
                self._outcome.offer = made.offer
                return self._outcome
            if made.offer is not None:
                del left[0]
        raise nothing_rented(self._order, self._outcome)

    # -- one offer -----------------------------------------------------------------------------------------------

    def _create(self, offer: Offer, price: Price) -> _Made:
        """What this offer became, or the box that was there or on its way before it was asked for.

        Alone on the account while it lasts, so that no two processes send a create for one name or one offer.
        """
        project, name = self._order.project, self._order.name
        with self._account.lock():
            found = self._account.locate_surely(project, name, self._passed_over)
            if not found.is_none_but(self._passed_over):
                return _Made(found.current, is_new=False)  # another process rented it while we waited for the lock
            ours = settled_intent(self._account, project, name)
            if ours is not None:
                return _Made(ours)
            if not self._has_room(offer, price):
                return _Made(None, offer)
            refuse_overspent_by(self._account, self._order)
            stamp = new_stamp(project, name, 1 + self._account.last_generation(found, project, name))
            self._account.check_lease(project, name)
            creation = Creation(self._account, stamp)
            creation.intend(**_known(offer, price, self._order))
            with self._account.journal.effect(
                "rent",
                project=project,
                box=name,
                generation=stamp.generation,
                **_terms(stamp, offer, price, self._order),
            ) as effect:
                provider_id = self._send(creation, offer, price)
                effect.details["provider_id"] = provider_id
            return _Made(creation.confirmed(provider_id) if provider_id else None, offer)

    def _has_room(self, offer: Offer, price: Price) -> bool:
        """Whether the project's budget has room for the offer. The lock is held, so that nobody else takes the room."""
        order = self._order
        problem = budget.over_budget(self._account, order.project, price.total, order.budget_per_hour)
        if problem:
            self._outcome.refused.append(f"offer {offer.offer_id}: {problem}")
            self._outcome.over_budget.append(offer.offer_id)
        return not problem

    def _send(self, creation: Creation[Box], offer: Offer, price: Price) -> str:
        """The new instance's id; empty when the offer certainly was not rented."""
        body = create_body(self._order, price, creation.stamp)
        try:
            return self._send_when_allowed(creation, offer, body)
        except AmbiguousAnswer as lost:
            found = creation.look_up(lost)
            if not found:
                self._outcome.refused.append(f"offer {offer.offer_id}: {lost.what}; no box with its stamp came of it")
            return found
        except VastError as error:
            if error.contract:
                self._give_back_leftover(creation, str(error.contract), error.what)
            elif error.kind == "config" or not _is_about_the_offer(error):
                creation.forget()
                error.safe = "nothing was rented"
                raise
            creation.forget()
            self._outcome.refused.append(f"offer {offer.offer_id}: {error.what}")
            return ""

    def _send_when_allowed(self, creation: Creation[Box], offer: Offer, body: dict[str, Any]) -> str:
        """A create that the rate limiter turned away was never looked at, so it may be sent when the limiter allows."""
        creation.note_sending()  # the journal may have been waited for
        waits = self._client.back_off(5.0, 20.0)
        deadline = self._client.clock() + RATE_LIMIT_WAIT_S
        for _attempt in range(_RATE_LIMIT_TRIES - 1):
            try:
                return self._client.create_instance(offer.offer_id, body)
            except VastError as error:
                if error.status != 429 or isinstance(error, AmbiguousAnswer):
                    raise
                wait_s = error.retry_after_s or next(waits)
                if self._client.clock() + wait_s > deadline:
                    error.fix = f"come back at {_moment_in(wait_s)}: the provider allows no create before"
                    raise
            self._client.sleep(wait_s)
            found = self._own_after_waiting(creation)
            if found:
                return found
        return self._client.create_instance(offer.offer_id, body)

    def _own_after_waiting(self, creation: Creation[Box]) -> str:
        """What was true before the wait must be so still; the id of a box that has this very stamp, usually none."""
        project, name = self._order.project, self._order.name
        try:
            self._account.check_lease(project, name)
            found = self._account.locate_surely(project, name, self._passed_over)
            box = found.current
            if box is None or found.is_none_but(self._passed_over):
                creation.note_sending()
                return ""
            if box.stamp == creation.stamp:
                return box.provider_id
            raise TenantFailure(
                "provider",
                f"instance {box.provider_id} of this name came up while the provider's rate limiter was waited for",
                box=name,
                safe="nothing was rented",
                fix="run again: it is found by its stamp",
            )
        except TenantFailure as failure:
            creation.forget()
            failure.safe = "nothing was rented"
            raise

    def _give_back_leftover(self, creation: Creation[Box], provider_id: str, why: str) -> None:
        """The market answers a bid that is too low with an error and a stopped box, whose disk would bill."""
        creation.own(provider_id)
        row = self._account.item(provider_id)
        if row is None:
            creation.note(destroyed_at=records.utc_now())
            return
        box = to_box(row)
        if box.stamp != creation.stamp:
            raise TenantFailure(
                "provider",
                f"the refused create left instance {provider_id} behind, without our stamp ({why})",
                box=self._order.name,
                safe="it was not touched, because it does not carry our stamp",
                fix="look at it in the provider's console: its disk may bill",
            )
        self._reject(box, why)

    # -- admission by price and life -----------------------------------------------------------------------------

    def _admit(self, box: Box) -> bool:
        """Whether the new box runs, within the cap; else it is given back."""
        try:
            box = self._account.await_running(box, self._order.wait_s)
            reason = _price_problem(box, self._order.wanted)
        except VastError as error:
            raise TenantFailure(
                "provider",
                error.what,
                box=self._order.name,
                safe=f"instance {box.provider_id} is rented, recorded and kept",
                fix="run again: it is found by its stamp",
            ) from None
        except TenantFailure as stuck:
            row = self._client.get_instance(box.provider_id)
            box, reason = (to_box(row) if row else box), stuck.what
        if reason:
            self._reject(box, reason)
            return False
        self._outcome.box = box
        self._note(box, price_per_hour=box.dph_total)
        return True

    def _reject(self, box: Box, reason: str) -> None:
        """Destroy a virgin box and say why. A box that is not virgin is refused by the gate, and kept."""
        self._account.destroy(box, why=reason)
        self._note(box, rejected={"reason": reason})
        self._outcome.rejected.append(
            {
                "provider_id": box.provider_id,
                "machine_id": box.machine_id,
                "generation": box.generation,
                "reason": reason,
            }
        )

    @property
    def _passed_over(self) -> tuple[str, ...]:
        """Ids of boxes that are no reason not to rent: those given back, and the one that is replaced."""
        return (self._order.replaces, *(rejected["provider_id"] for rejected in self._outcome.rejected))

    # -- records -------------------------------------------------------------------------------------------------

    def _note(self, box: Box, **changes: Any) -> None:
        if box.stamp is not None:
            self._store.update_box(box.stamp.project, box.stamp.box, box.stamp.generation, **changes)


def refuse_overspent_by(account: Account, order: Order) -> None:
    """TenantFailure where the dollars of the order's run, or of its project, have no room for one more box."""
    refuse_overspent(account.journal, order.budgets, order.project, order.name, order.wanted.price_cap)


def nothing_rented(order: Order, outcome: Outcome) -> TenantFailure:
    """Every offer failed: say how, and which machines to avoid."""
    reasons = outcome.refused + [f"machine {gone['machine_id']}: {gone['reason']}" for gone in outcome.rejected]
    machines = sorted({str(gone["machine_id"]) for gone in outcome.rejected if gone["machine_id"] is not None})
    fix = "search again with vast_offer_info"
    if machines:
        fix += f" and exclude_machines: [{', '.join(machines)}]"
    if outcome.over_budget:
        fix = budget.MAKE_ROOM
    return TenantFailure(
        "budget" if outcome.over_budget else "no_offer",
        "no offer led to a running box: " + ("; ".join(reasons) or "there was none"),
        box=order.name,
        safe="nothing that was rented on the way is left",
        fix=fix,
    )


def _moment_in(seconds: float) -> str:
    return records.utc_text(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds))


def _price_problem(box: Box, wanted: Constraints) -> str:
    if wanted.price_cap is None:
        return ""
    if box.dph_total is None:
        return "the provider does not say what it costs"
    if exceeds(box.dph_total, wanted.price_cap):
        return f"it costs ${box.dph_total:.4f} an hour once rented, above the price_cap of ${wanted.price_cap}"
    return ""


def _is_about_the_offer(error: VastError) -> bool:
    """A refusal that another offer may escape: this one is gone, or was outbid meanwhile."""
    return error.code in _GONE_CODES or error.code == "invalid_price" or error.status == 410


def _terms(stamp: Stamp, offer: Offer, price: Price, order: Order) -> dict[str, Any]:
    return {
        "platform": PLATFORM,
        "stamp": str(stamp),
        "offer_id": offer.offer_id,
        "machine_id": offer.machine_id,
        "market": order.wanted.market,
        "bid": price.bid,
        "price_per_hour": round(price.total, 6),
        "stopped_per_hour": round(price.storage, 6),
        "price_cap": order.wanted.price_cap,
        **order.budgets.terms,
    }


def _known(offer: Offer, price: Price, order: Order) -> dict[str, Any]:
    """What the record of a generation says before it exists."""
    return {
        "offer_id": offer.offer_id,
        "machine_id": offer.machine_id,
        "host_id": offer.host_id,
        "price_per_hour": round(price.total, 6),
        "market": order.wanted.market,
    }

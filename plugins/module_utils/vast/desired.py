# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a box shall be to what is done: the whole of ``vast_instance`` but its options.

``changed`` and ``diff`` come from one comparison of the box before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Sequence

from .. import rental_states
from ..box import records
from ..budget import over_budget
from ..creation import check_order
from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..rental_account import REBOOT, RECYCLE, Found
from ..rental_states import ABSENT, PRESENT, STARTED, STOPPED, absent, chosen, converged, located, stopped
from ..rented_box import WORKING, Box, exceeds
from . import payment_record
from .actions import Account, bid_to_start
from .attached import Mount, attach, machine_of
from .declared import differences
from .declared import warning_of as warning_of_differences
from .offers import Constraints, Offer, Price, reread
from .price_rises import TELL, pending_rises, rise_result, verdict_on, warning_of
from .ranking import DEFAULT_WORK, Cost, Work, cost_of, explained, in_order
from .rental import Order, Outcome, Renter, acceptable, nothing_rented, order_problem, refuse_overspent_by
from .reputation import from_journal
from .reservation import Reserve, affordable, amount_for, check_rental_lasts, deposit_of
from .templates import Template, find, resolved
from .transformations import box_result, clocks_of
from .waiters import rent_another

REBOOTED, RECYCLED = "rebooted", "recycled"
STATES = (PRESENT, STARTED, STOPPED, REBOOTED, RECYCLED, ABSENT)
_RESTARTS = {REBOOTED: REBOOT, RECYCLED: RECYCLE}
_ASPECTS = ("state", "generation", "provider_id", "offer_id", "bid", "price_per_hour")


@dataclass(frozen=True)
class Desire:
    """The state that the box shall have, and what to rent for it.

    :param offers: ids or rows, tried in order.
    :param provider_id: only for stopped and absent: this one of the boxes that carry the name; empty for all.
    :param work: what the box is for, by which offers are judged.
    :param rank_offers: try them by expected cost instead of in their order.
    :param mounts: volumes that it is rented with.
    :param price_rises: what to answer hosts that raise their prices.
    :param reserve: that a box on demand is paid ahead.
    :param template: hash id or number of the template that completes the order; empty for none.
    """

    state: str
    order: Order
    offers: Sequence[Any] = ()
    provider_id: str = ""
    work: Work = DEFAULT_WORK
    rank_offers: bool = False
    price_rises: str = TELL
    mounts: Sequence[Mount] = ()
    template: str = ""
    reserve: Reserve | None = None


@dataclass
class Result(rental_states.Result[Box]):
    """What came of it; :meth:`as_result` is what the module returns."""

    outcome: Outcome = field(default_factory=Outcome)
    rented: dict[str, Any] | None = None
    differs: list[dict[str, Any]] = field(default_factory=list)
    rises: list[dict[str, Any]] = field(default_factory=list)
    reserved: dict[str, Any] | None = None
    paid_ahead: float | None = None

    def difference(self) -> DifferenceTracker:
        found = DifferenceTracker()
        before = _aspects(self.before)
        after = dict(_aspects(self.after), **self.predicted)
        for name in _ASPECTS:
            # What a box costs moves with the market; only what we do about it is our change.
            if name != "price_per_hour" or before["provider_id"] != after["provider_id"]:
                found.compare(name, before[name], after[name])
        found.compare("destroyed", [], self.gone)
        if self.paid_ahead is not None:
            found.compare("paid_ahead", 0.0, self.paid_ahead)
        answered = {str(rise["id"]): rise["verdict"] for rise in self.rises if rise["verdict"] != "told"}
        found.compare("price_rises", dict.fromkeys(answered, "pending"), answered)
        return found

    def shown_difference(self) -> dict[str, Any]:
        """``changed`` and ``diff``. What is declared otherwise is shown, though nothing changes it."""
        result = self.difference().as_result()
        for one in self.differs:
            result["diff"]["before"][one["name"]] = one["is"]
            result["diff"]["after"][one["name"]] = (
                f"{one['is']} (declared: {one['declared']}; fixed when it was rented)"
            )
        return result

    def show(self, box: Box, provider_now: float | None) -> dict[str, Any]:
        return box_result(box, provider_now)

    def as_result(self, provider_now: float | None) -> dict[str, Any]:
        result = dict(
            super().as_result(provider_now),
            differs=self.differs,
            rejected=self.outcome.rejected,
            price_rises=self.rises,
        )
        if self.reserved is not None:
            result["reserved"] = self.reserved
        if self.rented is not None:
            result["offer"] = self.rented
        return result


def converge(account: Account, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the box to the desired state; what ``vast_instance`` returns. TenantFailure names the box."""
    steps: dict[str, Callable[..., Result]] = {
        PRESENT: _present_and_paid,
        STARTED: _present_and_paid,
        STOPPED: functools.partial(stopped, Result),
        ABSENT: functools.partial(absent, Result),
        **dict.fromkeys(_RESTARTS, _restarted),
    }
    return converged(account, desire, steps, check_mode)


# -- present and started -------------------------------------------------------------------------------------------


def _present(account: Account, desire: Desire, check_mode: bool) -> Result:
    desire = _with_volumes(account, desire)
    found = located(account, desire)
    if found.current is None:
        return _rented(account, desire, found, check_mode)
    box = found.current
    if desire.order.replaces == box.provider_id:
        return _replaced(account, desire, found, box, check_mode)
    _refuse_dearer(box, desire.order.wanted)
    result = Result(before=box, found=found, after=box)
    _answer_rises(account, desire, result, box, check_mode)
    order, unknown = _declared_order(account, desire)
    result.warnings += [unknown] if unknown else []
    result.differs = differences(box, order) if order else []
    result.warnings += [warning_of_differences(box, result.differs)] if result.differs else []
    if desire.state == STARTED and box.state not in ("running", "loading"):
        return _started(account, desire, result, box, check_mode)
    if box.state == "loading" and not check_mode:
        result.after = account.await_running(box, desire.order.wait_s)
    return result


def _with_volumes(account: Account, desire: Desire) -> Desire:
    """With the declared volumes as they are, which also say which machine can be rented."""
    order = desire.order
    volumes = attach(account.client, order.project, desire.mounts)
    if not volumes:
        return desire
    wanted = replace(order.wanted, only_machine=machine_of(volumes))
    return replace(desire, order=replace(order, volumes=volumes, wanted=wanted))


def _declared_order(account: Account, desire: Desire) -> tuple[Order | None, str]:
    """What an existing box is compared with, and a warning where its template is gone: the box needs it no more."""
    if not desire.template:
        return desire.order, ""
    try:
        return resolved(desire.order, find(account.client, desire.template)), ""
    except TenantFailure as failure:
        if failure.kind != "config":
            raise
        return None, f"what the box is was not compared with what is declared: {failure.what}"


def _refuse_dearer(box: Box, wanted: Constraints) -> None:
    """A price moves after the rental: a host raises it, or somebody lowers the cap. Paying on is not ours to say."""
    price, cap = box.dph_total, wanted.price_cap
    if price is None or box.state not in WORKING or not exceeds(price, cap):
        return
    enough = math.ceil(price * 10_000) / 10_000
    raise TenantFailure(
        "budget",
        f"instance {box.provider_id} bills ${price:.4f} an hour, above the price_cap of ${cap}",
        safe="it was left as it is, and works on",
        fix=f"consent to that price (price_cap of at least {enough:.4f}), or stop it (state: stopped), disk kept",
    )


def _answer_rises(account: Account, desire: Desire, result: Result, box: Box, check_mode: bool) -> None:
    """Answer what the box's host asks from now on, as far as the policy and the cap say."""
    rises, unknown = pending_rises(account.client, box)
    cap = desire.order.wanted.price_cap
    for rise in rises:
        verdict = verdict_on(rise, desire.price_rises, cap)
        if verdict != "told" and not check_mode:
            waits = account.answer_price_rise(box, rise, verdict == "accepted")
            if not waits:
                continue
        result.rises.append(rise_result(rise, box, verdict, cap))
    result.warnings += [warning_of(rise) for rise in result.rises if rise["verdict"] != "accepted"]
    result.warnings += [unknown] if unknown else []
    if any(rise["verdict"] == "accepted" for rise in result.rises) and not check_mode:
        result.after = account.look(box) or box


def _started(account: Account, desire: Desire, result: Result, box: Box, check_mode: bool) -> Result:
    if box.state in ("offline", "unknown"):
        raise TenantFailure(
            "provider",
            f"instance {box.provider_id} cannot be started: its host on machine {box.machine_id} is {box.state}",
            safe="its disk is kept as long as the host comes back",
            fix=f"wait for the host, or {rent_another(box)} and go on from the newest checkpoint at home",
        )
    bid = bid_to_start(box, desire.order.wanted)
    if check_mode:
        result.predicted = {"state": "started", "bid": box.bid if bid is None else bid}
        result.would = {"bid": bid, "price_cap": desire.order.wanted.price_cap, "clocks": clocks_of(box)}
    else:
        result.after = account.start(box, desire.order.wanted, desire.order.wait_s)
    return result


def _replaced(account: Account, desire: Desire, found: Found[Box], old: Box, check_mode: bool) -> Result:
    """A new generation on another machine, or on the one where the declared volumes lie. The old box is told to stop
    before, so that it cannot come back beside it; its disk is kept, and what becomes of it is the superseded boxes'
    affair."""
    wanted = desire.order.wanted
    if old.machine_id is not None and wanted.only_machine is None:
        wanted = replace(wanted, exclude_machines=(*wanted.exclude_machines, old.machine_id))
    desire = replace(desire, order=replace(desire.order, wanted=wanted))
    return replace(_rented(account, desire, found, check_mode, old), before=old)


def _rented(
    account: Account, desire: Desire, found: Found[Box], check_mode: bool, replaced: Box | None = None
) -> Result:
    template = find(account.client, desire.template) if desire.template else None
    if template is not None:
        desire = replace(desire, order=resolved(desire.order, template))
    order = desire.order
    check_order(order.name, order_problem(order, account.client.key))
    # Before a box that is to be replaced is told to stop; asked again under the account's lock.
    refuse_overspent_by(account, order)
    offers = reread(account.client, desire.offers, order.wanted)
    fitting, refused = acceptable(offers, order)
    if desire.reserve is not None:
        fitting, beyond = affordable(fitting, desire.reserve)
        refused = [*refused, *beyond]
    if not fitting:
        raise _no_offer(order, desire.offers, refused)
    judged = _judged(account, desire, fitting)
    if check_mode:
        offer, price, cost = judged[0]
        problem = over_budget(account, order.project, price.total, order.budget_per_hour)
        if problem:
            raise nothing_rented(order, Outcome(refused=[problem], over_budget=[offer.offer_id]))
        last = account.last_generation(found, order.project, order.name)
        predicted = {"state": "started", "generation": last + 1, "provider_id": "(new)", "offer_id": offer.offer_id}
        predicted.update(bid=price.bid, price_per_hour=round(price.total, 6))
        would = _would(offer, price, cost, desire, template)
        return Result(before=None, found=found, predicted=predicted, would=would)
    if replaced is not None and account.must_stop(replaced):
        account.tell_to_stop(replaced)
    outcome = Renter(account, order).rent([(offer, price) for offer, price, _cost in judged])
    result = Result(before=None, found=found, after=outcome.box, outcome=outcome)
    if outcome.offer is not None:
        result.predicted = {"offer_id": outcome.offer.offer_id}
        result.rented = _reasons(outcome.offer, judged, desire.work)
    # A create whose answer was lost may surface late; whoever reads the result must see it.
    now = account.locate(order.project, order.name)
    kept = outcome.box.provider_id if outcome.box else ""
    result.found = Found(outcome.box, [box for box in now.all if box.provider_id != kept])
    return result


def _judged(
    account: Account, desire: Desire, fitting: Sequence[tuple[Offer, Price]]
) -> list[tuple[Offer, Price, Cost]]:
    """What each offer is expected to cost, in the order in which they are to be tried."""
    known = from_journal(account.journal.lines(), records.utc_now())
    market = desire.order.wanted.market
    judged = [(offer, price, cost_of(offer, price, desire.work, market, known)) for offer, price in fitting]
    return in_order(judged) if desire.rank_offers else judged


def _reasons(rented: Offer, judged: Sequence[tuple[Offer, Price, Cost]], work: Work) -> dict[str, Any]:
    """Why the offer that was rented was worth its price, as it was judged before."""
    for offer, price, cost in judged:
        if offer.offer_id == rented.offer_id:
            identity = {"id": offer.offer_id, "machine_id": offer.machine_id}
            return {**identity, **explained(offer, price, cost, work)}
    return {"id": rented.offer_id, "machine_id": rented.machine_id}


def _would(offer: Offer, price: Price, cost: Cost, desire: Desire, template: Template | None) -> dict[str, Any]:
    """What renting would mean in money: shown before it is spent."""
    order = desire.order
    return {
        "offer": {
            "id": offer.offer_id,
            "machine_id": offer.machine_id,
            "gpu_name": offer.gpu_name,
            "num_gpus": offer.num_gpus,
            "geolocation": offer.geolocation,
            "reliability": offer.reliability,
            **explained(offer, price, cost, desire.work),
        },
        "market": order.wanted.market,
        "bid": price.bid,
        "price_per_hour": round(price.total, 6),
        "price_cap": order.wanted.price_cap,
        "disk_gb": order.disk_gb,
        "image": order.image,
        "template": template.as_result() if template else None,
        "clocks": {
            "running_per_hour": round(price.total, 6),
            "stopped_per_hour": round(price.storage, 6),
            "download_per_gb": offer.download_per_gb,
            "upload_per_gb": offer.upload_per_gb,
            "available_hours": None if offer.available_s is None else round(offer.available_s / 3600, 1),
            "warning": "a stopped box goes on billing its disk; only absent ends the bill, and deletes the disk",
        },
    }


def _no_offer(order: Order, listed: Sequence[Any], refused: Sequence[str]) -> TenantFailure:
    if not listed:
        what, fix = "there is no box and no offer to rent", "search with vast_offer_info and pass its offers"
    elif not refused:
        what, fix = f"none of the {len(listed)} offers is on the market any more", "search again with vast_offer_info"
    elif any("price_cap" in reason for reason in refused):
        what, fix = "; ".join(refused), "raise price_cap, or search again with vast_offer_info"
    else:
        what, fix = "; ".join(refused), "search again with vast_offer_info for hosts that can run it"
    return TenantFailure("no_offer", what, box=order.name, safe="nothing was rented", fix=fix)


def _present_and_paid(account: Account, desire: Desire, check_mode: bool) -> Result:
    result = _present(account, desire, check_mode)
    if desire.reserve is not None:
        _reserve(account, desire.reserve, result, check_mode)
    return result


def _reserve(account: Account, reserve: Reserve, result: Result, check_mode: bool) -> None:
    """Pay ahead for a box that runs and never was paid ahead: once, whatever is left of it."""
    box = result.after
    if box is None or box.state != "running":
        return
    deposit = deposit_of(account.client, box)
    if deposit.is_there and not check_mode:
        payment_record.note_paid(account.store, box)
    paid_at = payment_record.paid_at(account.store, box)
    if deposit.is_there or paid_at:
        result.reserved = dict(deposit.as_result(), used_up=not deposit.is_there)
        result.warnings += [] if deposit.is_there else [_used_up(box, paid_at)]
        return
    payment_record.check_unpaid(account.store, box)
    amount = amount_for(box, reserve)
    check_rental_lasts(box, reserve, account.client.provider_now())
    result.paid_ahead = amount
    if check_mode:
        result.would = dict(result.would or {}, pay_ahead=amount, reserve_months=reserve.months)
        return
    paid = account.prepay(box, amount)
    result.after = account.look(box) or box
    result.reserved = dict(deposit_of(account.client, box).as_result(), used_up=False, paid=amount, **paid)
    if paid["months"] < reserve.months * 0.98:
        result.warnings.append(
            f"${amount:.2f} reserve instance {box.provider_id} for {paid['months']:.2f} of {reserve.months:g} months: "
            f"its host gives a discount of {paid['discount']:.0%}"
        )


def _used_up(box: Box, paid_at: str) -> str:
    return (
        f"what was paid ahead for instance {box.provider_id} ({paid_at}) is used up: it bills its full price, and is "
        "not paid ahead again by itself; pay in the provider's console to reserve it for longer"
    )


# -- restarted --------------------------------------------------------------------------------------------


def _restarted(account: Account, desire: Desire, check_mode: bool) -> Result:
    """Restart a box that runs, whatever it did before: two calls restart it twice."""
    verb = _RESTARTS[desire.state]
    found = account.locate_surely(desire.order.project, desire.order.name)
    boxes = chosen(found, desire, [found.current] if found.current else [])
    if not boxes or boxes[0].state not in ("running", "exited"):
        there = f"it is {boxes[0].state}" if boxes else "there is none"
        raise TenantFailure(
            "provider",
            f"{verb} needs a box that runs, and of {desire.provider_id or desire.order.name} {there}",
            safe="nothing was changed",
            fix="start it first (state: started)",
        )
    box = boxes[0]
    result = Result(before=box, found=found, after=box, predicted={"state": f"started ({desire.state})"})
    if check_mode:
        result.passed.append(account.pass_gate(box, verb))
        return result
    result.after, passed = account.restart(box, verb, desire.order.wait_s)
    result.passed.append(passed)
    return result


def _aspects(box: Box | None) -> dict[str, Any]:
    """The sides of a box that our verbs change. Booting and being outbid are the market's doing, not a change."""
    if box is None:
        return dict(dict.fromkeys(_ASPECTS), state="absent")
    return {
        "state": "stopped" if box.is_resting else "started" if box.state in WORKING else box.state,
        "generation": box.generation,
        "provider_id": box.provider_id,
        "offer_id": None,
        "bid": box.bid,
        "price_per_hour": box.dph_total,
    }

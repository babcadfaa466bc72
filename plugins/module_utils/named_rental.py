# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting where the provider picks the machine and the stamp is the box's own name: one create, then one box to admit.

A new box that does not do is given back: it is virgin, nothing was ever put on it. A provider's rental is a
``NamedRental[ItsBox]`` that says how its create is sent, and what makes a new box do.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol

from . import budget
from .creation import Creation, settled_intent
from .dollar_budgets import Budgets, refuse_overspent
from .failures import TenantFailure
from .rental_account import Found, RentalAccount
from .rental_states import Result, refuse_dearer
from .rented_box import AnyBox, exceeds
from .rest_client import AmbiguousAnswer, RestError
from .stamp import Stamp, new_stamp


class NamedOrder(Protocol):
    """What to rent, as far as it is the same on every such market."""

    @property
    def project(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def price_cap(self) -> float | None: ...

    @property
    def budget_per_hour(self) -> float | None: ...

    @property
    def budgets(self) -> Budgets: ...

    @property
    def wait_s(self) -> float: ...


class NoCapacity(TenantFailure):
    """The provider has nothing of what was asked for now; nothing was rented."""


class NamedRental(Generic[AnyBox]):
    """One order on one account."""

    # Characters that the provider's name of a box holds.
    MOST_NAME: ClassVar[int] = 0
    # What the price that is compared with the cap is for.
    PRICED: ClassVar[str] = "an hour"
    # What to do: where nothing is free, where the new box was too dear, where it did not come up.
    SOLD_OUT: ClassVar[str] = "try again later"
    TOO_DEAR: ClassVar[str] = "raise price_cap"
    TRY_ELSEWHERE: ClassVar[str] = "run again"

    def __init__(self, account: RentalAccount[AnyBox], order: NamedOrder) -> None:
        self._account = account
        self._order = order

    # -- what a provider's rental says ---------------------------------------------------------------------------

    def send(self, stamp: Stamp) -> str:
        """Send the create; the new box's id. RestError (``no_capacity`` where nothing is free), AmbiguousAnswer."""
        raise NotImplementedError

    def price(self) -> float | None:
        """What an hour of what is about to be rented costs; None where the market tells it only once the box runs."""
        return None

    @property
    def market(self) -> str:
        """Which of the provider's markets it is rented on."""
        return "on-demand"

    def terms(self) -> dict[str, Any]:
        """What the journal says of the order."""
        return {}

    def checked(self, box: AnyBox) -> AnyBox:
        """A new box that runs, if it is what was asked for. TenantFailure else."""
        return box

    # -- what they share -----------------------------------------------------------------------------------------

    def rent(self) -> tuple[AnyBox, bool]:
        """A box that runs, and whether it is new. TenantFailure when none came of it; nothing is left."""
        box, is_new = self.created()
        return self.running(box, is_new), is_new

    def rent_into(self, result: Result[AnyBox]) -> AnyBox:
        """The same, and what a module tells of it."""
        account, order = self._account, self._order
        box, _is_new = self.rent()
        # A create whose answer was lost may surface late; whoever reads the result must see it.
        now = account.locate(order.project, order.name)
        result.after = box
        result.found = Found(box, [other for other in now.all if other.provider_id != box.provider_id])
        return box

    def predict(self, result: Result[AnyBox]) -> None:
        """What a module tells in check mode: the generation that would be made."""
        account, order = self._account, self._order
        self._refuse_over_budget()
        last = account.last_generation(result.found, order.project, order.name)
        result.predicted = {"state": "started", "generation": last + 1, "provider_id": "(new)"}

    def created(self) -> tuple[AnyBox, bool]:
        """A box, and whether it is a new one of ours, which nobody compared with the cap yet: this call rented it, or
        a process did that was killed before it heard so.

        Alone on the account while it lasts, so that no two processes send a create for one name."""
        account, order = self._account, self._order
        with account.lock():
            found = account.locate_surely(order.project, order.name)
            if found.current is not None:
                return found.current, False  # another process rented it while we waited for the lock
            ours = settled_intent(account, order.project, order.name)
            if ours is not None:
                return ours, True
            stamp = self.stamp_of(1 + account.last_generation(found, order.project, order.name))
            self._refuse_over_budget()
            account.check_lease(order.project, order.name)
            creation = Creation(account, stamp)
            creation.intend(market=self.market)
            terms = {"stamp": str(stamp), "price_cap": order.price_cap, **order.budgets.terms, **self.terms()}
            place = {"project": stamp.project, "box": stamp.box, "generation": stamp.generation}
            with account.journal.effect("rent", **place, platform=account.PLATFORM, **terms) as effect:
                effect.details["provider_id"] = provider_id = self._sent(creation)
            return creation.confirmed(provider_id), True

    def _refuse_over_budget(self) -> None:
        """TenantFailure where a budget of the run or the project has no room. An hour counts with its price, with the
        cap where that is not told yet; what a rental reserves of the dollars is an hour at the cap."""
        order, price = self._order, self.price()
        refuse_overspent(self._account.journal, order.budgets, order.project, order.name, order.price_cap)
        most = order.price_cap if price is None else price
        problem = budget.over_budget(self._account, order.project, most or 0.0, order.budget_per_hour)
        if not problem:
            return
        if price is None:
            problem += f"; its price is told once it runs, so that its price_cap of ${most} counts"
        raise TenantFailure("budget", problem, box=order.name, safe="nothing was rented", fix=budget.MAKE_ROOM)

    def stamp_of(self, generation: int) -> Stamp:
        """The stamp of a new generation. TenantFailure for one that the provider's names do not hold."""
        stamp = new_stamp(self._order.project, self._order.name, generation)
        if len(str(stamp)) <= self.MOST_NAME:
            return stamp
        raise TenantFailure(
            "config",
            f"project and name are too long: {stamp} has {len(str(stamp))} characters, and the name of "
            f"{self._account.THING}s at most {self.MOST_NAME}",
            box=self._order.name,
            safe="nothing was rented",
            fix="shorten the names of the project and of the box",
        )

    def running(self, box: AnyBox, is_new: bool) -> AnyBox:
        """The box once it runs, within the cap. A new one that does not is given back; a failure says why."""
        if not is_new:
            self.refuse_dearer(box)
            return self._account.await_running(box, self._order.wait_s)
        # A box that is being made may have no price yet.
        price_problem = "" if box.dph_total is None else self._price_problem(box)
        try:
            if not price_problem:
                running = self.checked(self._account.await_running(box, self._order.wait_s))
                price_problem = self._price_problem(running)
                if not price_problem:
                    self._account.note_priced(running)
                    return self._noted(running, price_per_hour=running.dph_total, **self._account.facts_of(running))
            reason = price_problem
        except RestError as error:
            raise TenantFailure(
                "provider",
                error.what,
                box=self._order.name,
                safe=f"{self._account.THING} {box.provider_id} is rented, recorded and kept",
                fix="run again: it is found by its stamp",
            ) from None
        except TenantFailure as stuck:
            reason = stuck.what
        self._account.destroy(box, why=reason)
        self._noted(box, rejected={"reason": reason})
        raise TenantFailure(
            "no_offer",
            f"the new {self._account.THING} was given back: {reason}",
            box=self._order.name,
            safe="nothing of it is left",
            fix=self.TOO_DEAR if price_problem else self.TRY_ELSEWHERE,
        )

    def refuse_dearer(self, box: AnyBox) -> None:
        """TenantFailure where a box that another process rented is above the cap: it is not ours to give back."""
        refuse_dearer(self._account, box, self._order.name, self._order.price_cap)

    def nothing_rented(self, what: str, kind: str, fix: str = "") -> TenantFailure:
        made = NoCapacity if kind == "no_offer" else TenantFailure
        words = self.SOLD_OUT if kind == "no_offer" else "run again"
        return made(kind, what, box=self._order.name, safe="nothing was rented", fix=fix or words)

    def _sent(self, creation: Creation[AnyBox]) -> str:
        """The new box's id. TenantFailure when certainly none was made, or when nothing is certain."""
        # The journal may have been waited for.
        creation.note_sending()
        try:
            return self.send(creation.stamp)
        except AmbiguousAnswer as lost:
            found = creation.look_up(lost)
            if found:
                return found
            if lost.code == "no_capacity":
                creation.forget()
                raise self.nothing_rented(lost.what, "no_offer") from None
            # Its record stays: a box that surfaces later all the same is ours, and virgin.
            what = f"{lost.what}; no {self._account.THING} with its stamp came of it"
            raise self.nothing_rented(what, "provider") from None
        except RestError as refusal:
            creation.forget()
            kind = "no_offer" if refusal.code == "no_capacity" else refusal.kind
            raise self.nothing_rented(refusal.what, kind, refusal.fix) from None

    def _price_problem(self, box: AnyBox) -> str:
        """Why a box's price is not consented to; empty when it is."""
        price, cap = box.dph_total, self._order.price_cap
        if price is None:
            return f"the provider does not say what {self._account.THING} {box.provider_id} costs"
        if exceeds(price, cap):
            return f"it costs ${price:.4f} {self.PRICED}, above the price_cap of ${cap}"
        return ""

    def _noted(self, box: AnyBox, **facts: Any) -> AnyBox:
        if box.stamp is not None:
            Creation(self._account, box.stamp).note(**facts)
        return box

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a box shall be to what is done, as far as it is the same on every market: to stop it, and to end it.

``changed`` and ``diff`` come from one comparison of the box before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Generic, Iterable, Mapping, Protocol, Sequence, TypeVar

from . import gone_record
from .difference import DifferenceTracker
from .dollar_budgets import Budgets, note_served
from .failures import TenantFailure
from .rental_account import DESTROY, GONE_WAIT_S, STOP, Found, Passed, RentalAccount, identity_of
from .rented_box import WORKING, AnyBox, Box, exceeds, seniority

PRESENT, STARTED, STOPPED, ABSENT = "present", "started", "stopped", "absent"


class Order(Protocol):
    """What is rented, as far as one name is looked for."""

    @property
    def project(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def budgets(self) -> Budgets: ...

    @property
    def wait_s(self) -> float: ...


class Desire(Protocol):
    """The state that the box shall have.

    ``provider_id``, only for stopped and absent: this one of the boxes that carry the name; empty for all.
    """

    @property
    def state(self) -> str: ...

    @property
    def order(self) -> Order: ...

    @property
    def provider_id(self) -> str: ...


@dataclass
class Result(Generic[AnyBox]):
    """What came of it.

    :param predicted: aspects of the box in check mode, in place of those of ``after``.
    :param would: what renting or starting would mean in money, in check mode.
    :param gone: ids of what is ended.
    """

    before: AnyBox | None
    found: Found[AnyBox]
    after: AnyBox | None = None
    predicted: dict[str, Any] = field(default_factory=dict)
    would: dict[str, Any] | None = None
    passed: list[Passed] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    # The key of the box in what the module returns.
    ROW: ClassVar[str] = "instance"

    def show(self, box: AnyBox, provider_now: float | None) -> dict[str, Any]:
        """The box as the module returns it."""
        raise NotImplementedError

    def difference(self) -> DifferenceTracker:
        found = DifferenceTracker()
        before, after = aspects_of(self.before), dict(aspects_of(self.after), **self.predicted)
        for name in ASPECTS:
            found.compare(name, before[name], after[name])
        found.compare("destroyed", [], self.gone)
        return found

    def shown_difference(self) -> dict[str, Any]:
        """``changed`` and ``diff``."""
        return self.difference().as_result()

    def as_result(self, provider_now: float | None) -> dict[str, Any]:
        """What the module returns."""
        box = self.after
        others = [other for other in self.found.superseded if other.provider_id not in self.gone]
        result = dict(
            self.shown_difference(),
            stamp=str(box.stamp) if box and box.stamp else "",
            generation=box.generation if box else self.found.last_generation,
            superseded=[self.show(other, provider_now) for other in others],
            gate=[passed.as_result() for passed in self.passed],
        )
        result[self.ROW] = self.show(box, provider_now) if box else None
        if self.warnings:
            result["warnings"] = self.warnings
        return result if self.would is None else dict(result, would=self.would)


AnyResult = TypeVar("AnyResult", bound="Result[Any]")
Make = Callable[..., AnyResult]


def converged(
    account: RentalAccount[Any], desire: Desire, steps: Mapping[str, Callable[..., Result[Any]]], check_mode: bool
) -> dict[str, Any]:
    """Bring the box to the desired state; what the module returns. TenantFailure names the box."""
    account.read_only = check_mode
    try:
        result = steps[desire.state](account, desire, check_mode)
        if desire.state in (PRESENT, STARTED) and result.after is not None:
            _note_served(account, desire, result.after)
        return result.as_result(account.client.provider_now())
    except TenantFailure as failure:
        failure.box = failure.box or desire.order.name
        raise


def _note_served(account: RentalAccount[AnyBox], desire: Desire, box: AnyBox) -> None:
    """That the box is there for the run of the order. The line of a rental says so by itself; of one that was there
    before, or whose process was killed before that line, this one does."""
    if not account.read_only and box.stamp is not None:
        note_served(account.journal, desire.order.budgets, identity_of(box).as_dict())


def chosen(found: Found[AnyBox], desire: Desire, default: Sequence[AnyBox]) -> list[AnyBox]:
    """The boxes meant: the one with the given id, which must carry our stamp, or the default."""
    if not desire.provider_id:
        return list(default)
    return [box for box in found.all if box.provider_id == desire.provider_id]


def located(account: RentalAccount[AnyBox], desire: Desire) -> Found[AnyBox]:
    """The boxes of the name, once none that is leaving stands in the place of a new one."""
    order = desire.order
    found = account.locate_surely(order.project, order.name)
    if found.current is not None and found.current.is_leaving and not account.read_only:
        account.await_gone(found.current, GONE_WAIT_S)
        found = account.locate_surely(order.project, order.name)
    return found


def stopped(make: Make[AnyResult], account: RentalAccount[Any], desire: Desire, check_mode: bool) -> AnyResult:
    """Stop the box of this name, through the gate."""
    found = account.locate_surely(desire.order.project, desire.order.name)
    boxes = chosen(found, desire, [found.current] if found.current else [])
    if not boxes:
        raise TenantFailure(
            "provider",
            f"there is no {account.THING} {desire.provider_id or desire.order.name} to stop",
            safe="nothing was changed",
            fix="nothing needs stopping; use state absent if it is to stay gone",
        )
    box = boxes[0]
    result = make(before=box, found=found, after=box)
    if not account.must_stop(box):
        return result
    result.predicted = {"state": "stopped (told to)" if box.is_resting else "stopped"}
    if check_mode:
        result.passed.append(account.pass_gate(box, STOP))
    else:
        result.after, passed = account.stop(box, desire.order.wait_s)
        result.passed.append(passed)
    return result


def absent(make: Make[AnyResult], account: RentalAccount[Any], desire: Desire, check_mode: bool) -> AnyResult:
    """Destroy the boxes of this name, each through the gate; all are judged before the first is touched."""
    order = desire.order
    found = account.locate_surely(order.project, order.name)
    boxes = chosen(found, desire, found.all)
    result = make(before=found.current, found=found, after=found.current)
    if not found.all and not check_mode:
        gone_record.give_up(account.store, order.project, order.name)
    # A single box is judged by its own destroy; the evidence may be many gigabytes to hash.
    judged = [box for box in boxes if not box.is_leaving] if check_mode or len(boxes) > 1 else []
    passes = [account.pass_gate(box, DESTROY) for box in judged]
    result.gone = [box.provider_id for box in boxes]
    result.warnings += [loss for loss in map(account.loss_of, boxes) if loss]
    if check_mode:
        result.passed = passes
    else:
        done = [account.destroy(box, max(order.wait_s, GONE_WAIT_S)) for box in reversed(boxes)]
        result.passed = [passed for passed in done if passed is not None]
    if found.current in boxes:
        result.after = None
    return result


def refuse_dearer(account: RentalAccount[Any], box: Box, name: str, cap: float | None) -> None:
    """The price of a box stays as it was rented, but the cap may be lowered, and a start may cost more."""
    price = box.dph_total
    if price is None or not exceeds(price, cap):
        return
    rests = STOP in account.KEEPS
    raise TenantFailure(
        "budget",
        f"{account.THING} {box.provider_id} costs ${price:.4f} an hour when it runs, above the price_cap of ${cap}",
        box=name,
        safe="it was left as it is" + ("" if rests else ", and it bills"),
        fix=f"consent to that price (price_cap of at least {price + 5e-5:.4f}), or "
        + ("let it rest (state: stopped)" if rests else "harvest it and make it absent"),
    )


# The sides of a box that are changed where nothing but its power and its life can be. Booting is no change.
ASPECTS = ("state", "generation", "provider_id")


def aspects_of(box: Box | None) -> dict[str, Any]:
    if box is None:
        return dict(dict.fromkeys(ASPECTS), state="absent")
    state = "started" if box.state in WORKING else box.state
    return {"state": state, "generation": box.generation, "provider_id": box.provider_id}


def rows_by_name(
    boxes: Iterable[AnyBox], project: str | None, name: str | None, show: Callable[[AnyBox], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The stamped boxes as rows, by project, name and generation; of each name the first is the one that counts."""
    ours = [
        (box.stamp.project, box.stamp.box, seniority(box), box)
        for box in boxes
        if box.stamp is not None and project in (None, box.stamp.project) and name in (None, box.stamp.box)
    ]
    shown, seen = [], set()
    for its_project, its_name, _age, box in sorted(ours, key=lambda one: one[:3]):
        shown.append(dict(show(box), is_current=(its_project, its_name) not in seen))
        seen.add((its_project, its_name))
    return shown

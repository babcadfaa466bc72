# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting an instance: where one is free, beside its file systems, within the cap, and until a deadline.

What is free comes and goes within minutes. The list of types is asked again and again, a launch is sent as soon as it
shows a region that does, and one that finds the region sold out meanwhile is no failure before the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..budget import budget_problem
from ..dollar_budgets import NO_BUDGETS, Budgets
from ..failures import TenantFailure
from ..named_rental import NamedRental, NoCapacity
from ..public_keys import read_public_key
from ..rented_box import exceeds
from ..rest_client import RestError
from ..stamp import Stamp
from .actions import VmAccount
from .keys import ensure_key, refuse_unknown
from .transformations import STAMP_TAG, FileSystem, InstanceType, Vm, to_types

# The provider lets an account ask once a second and launch once in 12.
POLL_S, MOST_POLL_S = 15.0, 60.0


@dataclass(frozen=True)
class VmOrder:
    """What to rent. ``instance_types`` are tried in their order; ``regions`` are those that will do, any when empty.

    :param ssh_key: the name of a key of the account; where it is empty, the key in :attr:`public_key_file` is used, and
        added to the account that lacks it.
    :param file_systems: names of those to attach; they can not be attached later.
    :param budget_per_hour: the most that all of the project may cost an hour together; None for no limit.
    :param budgets: what the run and the project may cost in all.
    :param price_cap: the most that an hour may cost, in dollars.
    :param capacity_wait_s: for how long to ask until one is free.
    """

    project: str
    name: str
    instance_types: Sequence[str] = ()
    regions: Sequence[str] = ()
    ssh_key: str = ""
    public_key_file: str = ""
    file_systems: Sequence[str] = ()
    image_family: str = ""
    price_cap: float | None = None
    budget_per_hour: float | None = None
    budgets: Budgets = NO_BUDGETS
    capacity_wait_s: float = 0.0
    wait_s: float = 2400.0


@dataclass(frozen=True)
class Place:
    """Where one is free."""

    kind: InstanceType
    region: str


class VmRental(NamedRental[Vm]):
    MOST_NAME = 64
    SOLD_OUT = "name more instance_types or regions, or wait longer (capacity_wait_s)"
    TOO_DEAR = "raise price_cap, or name other instance_types"
    TRY_ELSEWHERE = "run again, or name other regions"

    def __init__(self, account: VmAccount, order: VmOrder) -> None:
        super().__init__(account, order)
        self.account = account
        self.order = order
        self._place: Place | None = None
        self._key = order.ssh_key

    def send(self, stamp: Stamp) -> str:
        if self._place is None:
            raise AssertionError("a launch needs a place")
        try:
            return self.account.client.launch(launch_body(self.order, self._place, self._key, stamp))
        except RestError as refusal:
            if refusal.code == "rate_limited":
                refusal.code = "no_capacity"  # as good as one that found nothing: to be tried again, not at once
            raise

    def price(self) -> float | None:
        return self._place.kind.price if self._place else None

    def terms(self) -> dict[str, Any]:
        place = self._place
        told = {"instance_type": place.kind.name, "region": place.region} if place else {}
        return {**told, "file_systems": list(self.order.file_systems)}

    def rent(self) -> tuple[Vm, bool]:
        """An instance that runs, and whether it is new. NoCapacity once the deadline passed."""
        regions = self.checked_order()
        client, order = self.account.client, self.order
        deadline = client.clock() + order.capacity_wait_s
        waits = client.back_off(POLL_S, MOST_POLL_S)
        while True:
            try:
                self.find_place(regions)
                vm, is_new = self.created()
            except NoCapacity as sold_out:
                left = deadline - client.clock()
                if left <= 0:
                    raise self._waited_in_vain(sold_out) from None
                client.sleep(min(next(waits), left))
            else:
                return self.running(vm, is_new), is_new

    def checked_order(self) -> list[str]:
        """The regions that will do, any when empty. TenantFailure for what could not be launched anywhere."""
        order, client = self.order, self.account.client
        self.stamp_of(1 + self.account.store.last_generation(order.project, order.name))
        if order.ssh_key:
            refuse_unknown(client, order.ssh_key, order.name)
        else:
            self._key = ensure_key(client, read_public_key(order.public_key_file), self.account.read_only)
        return self._regions_of_file_systems() if order.file_systems else list(order.regions)

    def find_place(self, regions: Sequence[str]) -> Place:
        """The first wanted type that a region has and the cap allows. NoCapacity; TenantFailure if none ever will."""
        types = to_types(self.account.client.list_types())
        unknown = [name for name in self.order.instance_types if name not in types]
        if unknown:
            raise self._refused(
                f"there is no instance type {unknown[0]!r}; there are {', '.join(sorted(types))}",
                "correct instance_types",
            )
        wanted = [types[name] for name in self.order.instance_types]
        affordable = [kind for kind in wanted if not self._dearer(kind)]
        if not affordable:
            raise TenantFailure(
                "no_offer",
                "; ".join(map(self._dearer, wanted)),
                box=self.order.name,
                safe="nothing was rented",
                fix=self.TOO_DEAR,
            )
        for kind in affordable:
            free = [region for region in (regions or kind.regions) if region in kind.regions]
            if free:
                self._place = Place(kind, free[0])
                return self._place
        names = ", ".join(kind.name for kind in affordable)
        where = f" in {', '.join(regions)}" if regions else ""
        raise self.nothing_rented(f"no {names} is free{where} now", "no_offer")

    def _dearer(self, kind: InstanceType) -> str:
        cap = self.order.price_cap
        if kind.price is None:
            return f"the provider does not say what {kind.name} costs"
        too_dear = exceeds(kind.price, cap)
        return f"{kind.name} costs ${kind.price:.2f} an hour, above the price_cap of ${cap}" if too_dear else ""

    def _regions_of_file_systems(self) -> list[str]:
        """The one region of all wanted file systems. TenantFailure when there is none that will do."""
        order = self.order
        there = {one.name: one for one in self.account.file_systems()}
        missing = [name for name in order.file_systems if name not in there]
        if missing:
            raise self._refused(
                f"the account has no file system {missing[0]!r}; it has {_listed(there.values()) or 'none'}",
                "create it in the provider's console in the region that you rent in, or correct file_systems",
            )
        wanted = [there[name] for name in order.file_systems]
        regions = sorted({one.region for one in wanted})
        if len(regions) > 1:
            raise self._refused(
                f"no instance can see all of these file systems, for they lie apart: {_listed(wanted)}",
                "name those of one region only",
            )
        if order.regions and regions[0] not in order.regions:
            raise self._refused(
                f"the file systems lie in {regions[0]}, where regions ({', '.join(order.regions)}) does not want it",
                f"add {regions[0]} to regions, or rent without file systems",
            )
        return regions

    def _waited_in_vain(self, sold_out: NoCapacity) -> TenantFailure:
        waited = f" for {self.order.capacity_wait_s:.0f} s" if self.order.capacity_wait_s else ""
        return self.nothing_rented(f"{sold_out.what}; asked{waited}", "no_offer")

    def _refused(self, what: str, fix: str) -> TenantFailure:
        return TenantFailure("config", what, box=self.order.name, safe="nothing was rented", fix=fix)


def order_problem(order: VmOrder) -> str:
    """Why an order cannot be one, whatever the account has; empty where it can."""
    if not order.instance_types or not (order.ssh_key or order.public_key_file):
        return "instance_types and ssh_key (or public_key_file) say what to rent and who is let in; one is missing"
    if order.price_cap is None or not 0 < order.price_cap < float("inf"):
        return f"price_cap is {order.price_cap}: renting without one above 0 is not consented to"
    if budget_problem(order.budget_per_hour):
        return budget_problem(order.budget_per_hour)
    if order.capacity_wait_s < 0 or order.wait_s <= 0:
        return "capacity_wait_s must be 0 at least, wait_s above 0"
    if len(set(order.file_systems)) < len(order.file_systems):
        return f"file_systems names one twice: {', '.join(order.file_systems)}"
    return ""


def launch_body(order: VmOrder, place: Place, key: str, stamp: Stamp) -> Mapping[str, Any]:
    """The launch, stamp in the name and in a tag."""
    image = {"image": {"family": order.image_family}} if order.image_family else {}
    return {
        "region_name": place.region,
        "instance_type_name": place.kind.name,
        "ssh_key_names": [key],
        "file_system_names": list(order.file_systems),
        "name": str(stamp),
        "tags": [{"key": STAMP_TAG, "value": str(stamp)}],
        **image,
    }


def _listed(file_systems: Any) -> str:
    found: list[FileSystem] = list(file_systems)
    return ", ".join(f"{one.name} ({one.region})" for one in found)

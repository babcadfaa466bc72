# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a machine shall be to what is done: the whole of ``paperspace_machine`` but its options.

``changed`` and ``diff`` come from one comparison of the machine before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Callable

from .. import rental_states
from ..creation import check_order
from ..difference import DifferenceTracker
from ..ghosts import real_boxes
from ..leftovers import Leftover
from ..rental_account import Found
from ..rental_states import (
    ABSENT,
    PRESENT,
    STARTED,
    STOPPED,
    absent,
    converged,
    located,
    refuse_dearer,
    rows_by_name,
    stopped,
)
from ..rented_box import WORKING
from .actions import MachineAccount, leftovers_of
from .api import PaperspaceClient
from .rental import MachineOrder, MachineRental, order_problem
from .transformations import STATIC, STATIC_IP, Machine, clocks_of, machine_result, to_machine

STATES = (PRESENT, STARTED, STOPPED, ABSENT)


@dataclass(frozen=True)
class Desire:
    """:param provider_id: only for stopped and absent: this one of the machines that carry the name; empty for all."""

    state: str
    order: MachineOrder
    provider_id: str = ""


@dataclass
class Result(rental_states.Result[Machine]):
    """What came of it; :meth:`as_result` is what the module returns.

    :param released: static addresses that were given back.
    :param leftovers: what bills on, whatever became of the machine; None where nobody asked.
    """

    released: list[str] = field(default_factory=list)
    leftovers: list[Leftover] | None = None

    ROW = "machine"

    def show(self, box: Machine, provider_now: float | None) -> dict[str, Any]:
        return machine_result(box, provider_now)

    def difference(self) -> DifferenceTracker:
        found = super().difference()
        found.compare("released", [], self.released)
        return found

    def as_result(self, provider_now: float | None) -> dict[str, Any]:
        result = super().as_result(provider_now)
        if self.leftovers is None:
            return result
        return dict(result, leftovers=[one.as_result() for one in self.leftovers])


def converge(account: MachineAccount, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the machine to the desired state; what ``paperspace_machine`` returns. TenantFailure names the box."""
    steps: dict[str, Callable[..., Result]] = {
        PRESENT: _present,
        STARTED: _present,
        STOPPED: functools.partial(stopped, Result),
        ABSENT: _absent,
    }
    return converged(account, desire, steps, check_mode)


def _present(account: MachineAccount, desire: Desire, check_mode: bool) -> Result:
    order = desire.order
    found = located(account, desire)
    machine = found.current
    if machine is None:
        return _rented(account, desire, found, check_mode)
    result = Result(before=machine, found=found, after=machine)
    starts = desire.state == STARTED and machine.intended == "stopped"
    if starts or machine.state in WORKING:
        refuse_dearer(account, machine, order.name, order.price_cap)
    if starts:
        result.predicted = {"state": "started"}
        if check_mode:
            result.would = {
                "price_per_hour": machine.dph_total, "price_cap": order.price_cap, "clocks": clocks_of(machine),
            }  # fmt: skip
        else:
            result.after = account.resume(account.await_rest(machine, order.wait_s) or machine, order.wait_s)
    elif machine.state in WORKING and machine.intended == "running" and not check_mode:
        result.after = account.await_running(machine, order.wait_s)
    return result


def _rented(account: MachineAccount, desire: Desire, found: Found[Machine], check_mode: bool) -> Result:
    order = desire.order
    check_order(order.name, order_problem(order))
    rental = MachineRental(account, order)
    result = Result(before=None, found=found)
    if check_mode:
        rental.check()
        rental.predict(result)
        result.would = _would(order)
    else:
        rental.rent_into(result)
    return result


def _would(order: MachineOrder) -> dict[str, Any]:
    """What renting would mean in money, as far as it is known before: the API has no price list."""
    return {
        "machine_types": list(order.machine_types),
        "region": order.region,
        "price_per_hour": None,
        "price_cap": order.price_cap,
        "clocks": {
            "auto_shutdown_hours": order.auto_shutdown_h or None,
            "static_ip_per_hour": STATIC_IP if order.public_ip_type == STATIC else 0.0,
            "warning": (
                "the price is known once the machine is rented; one above price_cap is deleted at once. A machine that "
                "is off bills its disk and its static address"
            ),
        },
    }


def _absent(account: MachineAccount, desire: Desire, check_mode: bool) -> Result:
    """Shut down, delete and release, through the gate; then say what bills on."""
    order = desire.order
    result = absent(Result, account, desire, check_mode)
    if not check_mode:
        account.release_forgotten(order.project, order.name)
    result.leftovers = account.leftovers()
    result.released = list(account.released)
    return result


def list_machines(client: PaperspaceClient, project: str | None, name: str | None) -> dict[str, Any]:
    """What ``paperspace_machine_info`` returns: the stamped machines by project, name and generation."""
    machines = real_boxes(client, None, map(to_machine, client.list_instances()))
    return {
        "changed": False,
        "machines": rows_by_name(machines, project, name, lambda one: machine_result(one, client.provider_now())),
        "unstamped": sum(one.stamp is None for one in machines),
        "leftovers": [left.as_result() for left in leftovers_of(client)],
    }

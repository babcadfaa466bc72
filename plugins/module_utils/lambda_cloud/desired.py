# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what an instance shall be to what is done: the whole of ``lambda_instance`` but its options.

``changed`` and ``diff`` come from one comparison of the instance before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, NoReturn

from .. import rental_states
from ..creation import check_order
from ..difference import DifferenceTracker
from ..ghosts import real_boxes
from ..named_rental import NoCapacity
from ..rental_account import REBOOT, Found
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
)
from .actions import VmAccount, no_rest
from .api import LambdaClient
from .rental import VmOrder, VmRental, order_problem
from .transformations import FileSystem, Vm, to_file_system, to_vm, vm_result

STATES = (PRESENT, STARTED, STOPPED, ABSENT)


@dataclass(frozen=True)
class Desire:
    """:param provider_id: only for absent: this one of the instances that carry the name; empty for all.
    :param restart_unhealthy: whether one that is unhealthy is restarted, which ends what runs on it.
    """

    state: str
    order: VmOrder
    provider_id: str = ""
    restart_unhealthy: bool = False


@dataclass
class Result(rental_states.Result[Vm]):
    """What came of it; :meth:`as_result` is what the module returns.

    :param file_systems: what bills on, whatever became of the instance; None where nobody asked.
    """

    restarted: bool = False
    file_systems: list[FileSystem] | None = None

    def show(self, box: Vm, provider_now: float | None) -> dict[str, Any]:
        return vm_result(box, provider_now)

    def difference(self) -> DifferenceTracker:
        found = super().difference()
        found.compare("restarted", False, self.restarted)
        return found

    def as_result(self, provider_now: float | None) -> dict[str, Any]:
        result = super().as_result(provider_now)
        if self.file_systems is None:
            return result
        return dict(result, file_systems=[one.as_result() for one in self.file_systems])


def converge(account: VmAccount, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the instance to the desired state; what ``lambda_instance`` returns. TenantFailure names the box."""
    steps: dict[str, Callable[..., Result]] = {
        PRESENT: _present,
        STARTED: _present,
        STOPPED: _stopped,
        ABSENT: _absent,
    }
    return converged(account, desire, steps, check_mode)


def _present(account: VmAccount, desire: Desire, check_mode: bool) -> Result:
    found = located(account, desire)
    vm = found.current
    if vm is None:
        return _rented(account, desire, found, check_mode)
    result = Result(before=vm, found=found, after=vm)
    refuse_dearer(account, vm, desire.order.name, desire.order.price_cap)
    if vm.is_alert and desire.restart_unhealthy:
        result.restarted = True
        if check_mode:
            result.passed.append(account.pass_gate(vm, REBOOT))
        else:
            result.after, passed = account.restart(vm, desire.order.wait_s)
            result.passed.append(passed)
    elif not check_mode and vm.intended == "running":
        result.after = account.await_running(vm, desire.order.wait_s)
    return result


def _rented(account: VmAccount, desire: Desire, found: Found[Vm], check_mode: bool) -> Result:
    order = desire.order
    check_order(order.name, order_problem(order))
    rental = VmRental(account, order)
    result = Result(before=None, found=found)
    if check_mode:
        result.would = _would(rental)
        rental.predict(result)
    else:
        rental.rent_into(result)
    return result


def _would(rental: VmRental) -> dict[str, Any]:
    """What renting would mean now, in money and in place."""
    order, regions = rental.order, rental.checked_order()
    told: dict[str, Any] = {"price_cap": order.price_cap, "file_systems": list(order.file_systems)}
    try:
        place = rental.find_place(regions)
    except NoCapacity as sold_out:
        return {**told, "instance_type": "", "region": "", "price_per_hour": None, "problem": sold_out.what}
    return {
        **told,
        "instance_type": place.kind.name,
        "region": place.region,
        "price_per_hour": place.kind.price,
        "problem": "",
    }


def _stopped(_account: VmAccount, desire: Desire, _check_mode: bool) -> NoReturn:
    """Refused before anything is asked."""
    raise no_rest(desire.order.name)


def _absent(account: VmAccount, desire: Desire, check_mode: bool) -> Result:
    """Terminate, through the gate; then say what bills on."""
    result = absent(Result, account, desire, check_mode)
    result.file_systems = account.file_systems()
    return result


def list_vms(client: LambdaClient, project: str | None, name: str | None) -> dict[str, Any]:
    """What ``lambda_instance_info`` returns: the stamped instances by project, name and generation."""
    vms = real_boxes(client, None, map(to_vm, client.list_instances()))
    return {
        "changed": False,
        "instances": rows_by_name(vms, project, name, lambda vm: vm_result(vm, client.provider_now())),
        "unstamped": sum(vm.stamp is None for vm in vms),
        "file_systems": [to_file_system(row).as_result() for row in client.list_file_systems()],
    }

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where faults strike: round every call of the API, and the endpoints that add, list and clear them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .calls import Call, Route
from .fault_answers import refusal_of, spoiled
from .fault_memory import FaultMemory, plan_after
from .faults import KINDS, BadFault, Entry, Fault, fault_in
from .holds import Held
from .lambda_cloud import terms as vm
from .market import Market
from .paperspace import terms as core
from .refusals import MarketError
from .replies import Reply
from .requests import invalid
from .runpod.terms import number_of

log = logging.getLogger(__name__)

_ABOUT_ONE = ("show", "change", "destroy", "reboot", "recycle", "bid", "logs")
_HELD_BY = {
    "outbid": Held.OUTBID,
    "stuck_loading": Held.LOADING,
    "stuck_scheduling": Held.SCHEDULING,
    "zero_gpu": Held.ZERO_GPU,
}


class FaultRoutes:
    def __init__(self, market: Market) -> None:
        self._market = market
        books, script = market.books, market.config.faults
        self._plan = plan_after(books.state.faults, script, market.config.seed)
        books.state.faults = FaultMemory(script, self._plan)
        self._lock = threading.Lock()
        for cause in {hold.cause for hold in books.holds} - set(self._plan.entries):
            market.incidents.let_go(cause)

    def routes(self) -> list[Route]:
        path = "/control/faults"
        return [
            Route("GET", path, lambda _call: {"success": True, "seed": self._plan.seed, **self.shown()}),
            Route("POST", path, self.add),
            Route("POST", "/control/copy_fault", self.add_to_copies),
            Route("DELETE", path, self.clear),
            Route("DELETE", f"{path}/{{id:int}}", self.clear_one),
        ]

    def shown(self) -> dict[str, Any]:
        """The faults, and the instances that they hold in a state."""
        with self._lock:
            faults = [entry.as_dict() for entry in self._plan.entries.values()]
        return {"faults": faults, "held": self._market.incidents.held()}

    def add(self, call: Call) -> dict[str, Any]:
        listed = call.body.get("faults")
        if not isinstance(listed, list) or not listed:
            raise invalid("faults must be a list of at least one fault")
        try:
            faults = [fault_in(one, f"faults[{place}]") for place, one in enumerate(listed)]
        except BadFault as problem:
            raise invalid(str(problem)) from problem
        return self._added(faults)

    def add_to_copies(self, call: Call) -> dict[str, Any]:
        """A fault of the next copies, in short: its ``call`` goes without saying."""
        try:
            fault = fault_in({**call.body, "call": "copies"}, "the fault")
        except BadFault as problem:
            raise invalid(str(problem)) from problem
        if not KINDS[fault.kind].of_copy:
            raise invalid(f"{fault.kind} does not happen to a copy")
        return self._added([fault])

    def _added(self, faults: Sequence[Fault]) -> dict[str, Any]:
        with self._lock:
            numbers = [self._plan.add(fault) for fault in faults]
        self._market.books.save()
        return {"success": True, "ids": numbers}

    def of_copy(self, instances: Sequence[int]) -> Fault | None:
        """What goes wrong with a copy between these instances that begins now."""
        with self._lock:
            fault = self._plan.of_copy(instances)
        self._market.books.save()
        return fault

    def clear(self, _call: Call) -> dict[str, Any]:
        with self._lock:
            numbers = list(self._plan.entries)
            self._plan.entries.clear()
        self._market.books.save()
        for number in numbers:
            self._market.incidents.let_go(number)
        return {"success": True}

    def clear_one(self, call: Call) -> dict[str, Any]:
        number = int(call.parameters["id"])
        with self._lock:
            if self._plan.entries.pop(number, None) is None:
                raise MarketError(404, "no_such_fault", f"There is no fault {number}.")
        self._market.books.save()
        self._market.incidents.let_go(number)
        return {"success": True}

    def around(self, route: Route, call: Call, handle: Callable[[], Reply]) -> Reply:
        """What a call is answered with, once the faults that hit it had their way.

        A fault of state happens just before its call is handled; at a create, just after, to what was rented.
        """
        if not route.call or not self._plan.entries:
            return handle()
        named = _named_in(route, call)
        if route.call != "create":
            self._happen(route.call, named)
        with self._lock:
            faults = [entry.fault for entry in self._plan.of_answers(route.call, named)]
        self._market.books.save()  # how far the plan is outlives the process
        reply = refusal_of(faults, route.interval_s, route.sold_out)
        if reply is None:
            reply = handle()
            if route.call == "create":
                self._happen(route.call, _rented_in(reply))
        for fault in faults:
            reply = spoiled(reply, fault)
        return reply

    def _happen(self, call: str, named: list[int]) -> None:
        living = self._market.books.living()
        if call == "create" and not named:
            return  # nothing was rented, so there is nothing that it could happen to
        with self._lock:
            hits = self._plan.of_state(call, named, living)
        for entry, instance_id in hits:
            try:
                self._happen_to(entry, instance_id)
            except MarketError as refusal:
                log.warning("fault %d (%s) did not happen: %s", entry.number, entry.fault.kind, refusal.message)

    def _happen_to(self, entry: Entry, instance_id: int) -> None:
        fault = entry.fault
        log.info("fault %d: %s of instance %d", entry.number, fault.kind, instance_id)
        if fault.kind == "revival":
            self._market.incidents.revive(instance_id)
        elif fault.kind == "port_change":
            self._market.incidents.move_ports(instance_id)
        elif fault.kind == "ssh_cut":
            self._market.incidents.cut_sessions(instance_id)
        elif fault.kind == "host_key_change":
            self._market.incidents.renew_host_key(instance_id)
        elif fault.kind == "slow_link":
            amount = fault.kb_per_s or 0.0
            self._market.incidents.hamper(instance_id, Held.SLOW_LINK, amount, fault.seconds, entry.number)
        elif fault.kind == "disk_full":
            self._market.incidents.hamper(instance_id, Held.DISK_FULL, fault.free_mb or 0.0, None, entry.number)
        else:
            self._market.incidents.hold(instance_id, _held_by(fault), fault.seconds, entry.number)


def _held_by(fault: Fault) -> Held:
    if fault.kind == "host_offline":
        return Held(fault.shows)
    if fault.kind == "slow_destroy":
        return Held.ONLY_LISTED if fault.lingers == "list" else Held.LISTED
    return _HELD_BY[fault.kind]


def _named_in(route: Route, call: Call) -> list[int]:
    """The instances that a call is about."""
    if route.call not in _ABOUT_ONE:
        return []
    if "pod" in call.parameters:
        return [number_of(call.parameters["pod"])]
    if "vm" in call.parameters:
        return [vm.number_of(vm.INSTANCE, call.parameters["vm"])]
    if "machine" in call.parameters:
        return [core.number_of(core.MACHINE, call.parameters["machine"])]
    if "id" in call.parameters:
        return [int(call.parameters["id"])]
    listed = call.body.get("ids", call.body.get("instance_ids"))
    numbers = [vm.number_of(vm.INSTANCE, one) or one for one in listed] if isinstance(listed, list) else []
    return [one for one in numbers if isinstance(one, int)]


def _rented_in(reply: Reply) -> list[int]:
    """The instances that an answer to a create, or to several, says were made."""
    if reply.rented or not isinstance(reply.body, Mapping):
        return list(reply.rented)
    launched = reply.body.get("data")
    if isinstance(launched, Mapping) and "instance_ids" in launched:
        return [vm.number_of(vm.INSTANCE, one) for one in launched["instance_ids"]]
    if isinstance(launched, Mapping) and core.is_machine_row(launched):
        return [core.number_of(core.MACHINE, launched["id"])]
    answers = [reply.body, *(reply.body.get("results") or [])]
    return [int(one["new_contract"]) for one in answers if one.get("new_contract")]

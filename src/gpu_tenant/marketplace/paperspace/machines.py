# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to machines: made, started, stopped, restarted, deleted, and shut down when their time is over.

Being off is the only state that bills no compute (DigitalOcean, "Machine States and Error Codes"), so that a machine
that was shut down from inside bills none. On Linux the hours of the automatic shutdown are those since the start: what
runs does not put it off.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from ..books import Books
from ..contracts import Contracts, Order
from ..instances import Instance, Phase
from ..offers import Machine
from ..refusals import MarketError
from .beside import TEMPLATE as OWN_TEMPLATE
from .beside import Beside
from .catalogue import TEMPLATES, base_of, price_of, region_of, type_of
from .orders import MachineOrder, bad, keys_in, missing
from .terms import MACHINE, TEMPLATE, CoreTerms, number_of

log = logging.getLogger(__name__)
# The provider's sentence (Paperspace/gradient-cli #327); it has no code.
NO_CAPACITY = (
    "We are currently out of capacity for the selected VM type. "
    "Try again in a few minutes, or select a different instance."
)
_RUNTYPE = "ssh_direc"
_RESTS = (Phase.STOPPED, Phase.OUTBID, Phase.SCHEDULING)
_COMES_UP = (Phase.PROVISIONING, Phase.LOADING, Phase.REBOOTING)


class Machines:
    def __init__(self, books: Books, contracts: Contracts) -> None:
        self._books = books
        self._contracts = contracts
        self.beside = Beside(books)

    # --- finding ------------------------------------------------------------------------------------------------

    def all(self) -> list[Instance]:
        """Those that are shown, the oldest first."""
        with self._books.reading() as (state, _now):
            found = [one for one in state.instances.values() if one.core is not None and one.phase is not Phase.GONE]
        return sorted(found, key=lambda one: one.id)

    def find(self, name: str) -> Instance:
        """MarketError (404) for none."""
        with self._books.reading() as (state, _now):
            found = state.instances.get(number_of(MACHINE, name))
        if found is None or found.core is None or found.phase is Phase.GONE:
            raise missing("Machine not found")
        return found

    def living(self, name: str) -> Instance:
        found = self.find(name)
        if not found.live:
            raise missing("Machine not found")
        return found

    def types(self) -> list[str]:
        return sorted({type_of(one) for one in self._books.machines} - {""})

    # --- verbs --------------------------------------------------------------------------------------------------

    def create(self, order: MachineOrder) -> Instance:
        self._check(order)
        script = self._books.state.scripts.get(order.script, {})
        for machine in self._free(order):
            terms = CoreTerms(
                order.name, order.machine_type, order.region, machine.num_gpus, price_of(machine), order.disk_gb,
                order.template, order.ip_type, order.network, order.script, order.shutdown_h, order.shutdown_force,
                keys=keys_in(script.get("script", "")),
            )  # fmt: skip
            try:
                made = self._contracts.rent(Order(
                    machine.offer_id, order.template, _RUNTYPE, float(order.disk_gb), label=order.name,
                    stopped=not order.starts, core=terms,
                ))  # fmt: skip
            except MarketError as refusal:
                if refusal.code == "invalid_args":
                    continue  # taken meanwhile, or too small
                raise
            if order.ip_type == "static":
                self.beside.claim(order.region, made.id)
            return self._note(made.id, "create")
        raise bad(NO_CAPACITY)

    def start(self, instance: Instance) -> Instance:
        if instance.phase in _COMES_UP:
            raise bad("This machine is currently starting.")
        if instance.phase is Phase.RUNNING:
            return instance
        with self._books.changing():
            if instance.phase in _RESTS:
                machine = self._books.machine(instance.machine_id)
                others = [one for one in self._books.tenants(machine) if one.id != instance.id]
                if any(one.live and one.wants_card for one in others):
                    raise bad(NO_CAPACITY)
                if terms_of(instance).ip_type == "dynamic":
                    self._books.put(replace(instance, ports=self._books.free_ports(_RUNTYPE)))
        self._note(instance.id, "start")
        self._contracts.start(instance.id)
        return self._books.instance(instance.id)

    def stop(self, instance: Instance) -> Instance:
        if instance.phase not in _RESTS:
            self._contracts.stop(instance.id)
            self._note(instance.id, "stop")
        return self._books.instance(instance.id)

    def restart(self, instance: Instance) -> Instance:
        self._contracts.restart(instance.id, Phase.REBOOTING)
        return self._note(instance.id, "restart")

    def delete(self, instance: Instance) -> Instance:
        if instance.phase not in (*_RESTS, Phase.EXITED):
            raise bad("Machine must be off before it can be deactivated.")
        self._note(instance.id, "deactivate")
        self._contracts.destroy(instance.id)
        self.beside.machine_gone(instance.id)
        with self._books.reading() as (state, _now):
            return state.instances[instance.id]

    def rename(self, instance: Instance, name: str) -> Instance:
        with self._books.changing():
            current = self._books.instance(instance.id)
            self._books.put(replace(current, label=name, core=replace(terms_of(current), name=name)))
        return self._books.instance(instance.id)

    # --- what time brings about -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Shut down what ran for as long as it may, and let what was shut down from inside be off."""
        with self._books.reading() as (state, now):
            found = [one for one in state.instances.values() if one.core is not None and _is_over(one, now)]
        for instance in found:
            log.info("instance %d: shut down", instance.id)
            self.stop(instance)

    # --- what they share --------------------------------------------------------------------------------------------

    def _check(self, order: MachineOrder) -> None:
        if order.machine_type not in self.types():
            raise bad(f"machineType: there is no machine type {order.machine_type[:60]!r}")
        if order.template in TEMPLATES:
            if base_of(order.machine_type) not in TEMPLATES[order.template][1]:
                raise bad("templateId: the template is not available on this machine type")
        elif not any(one.id == number_of(TEMPLATE, order.template) for one in self.beside.all(OWN_TEMPLATE)):
            raise missing("Template not found")
        if order.script and order.script not in self._books.state.scripts:
            raise missing("Startup script not found")

    def _free(self, order: MachineOrder) -> list[Machine]:
        """The free ones of this type and region."""
        with self._books.reading() as (state, _now):
            taken = {one.machine_id for one in state.instances.values() if one.live}
        fitting = [
            one
            for one in self._books.machines
            if one.machine_id not in taken and type_of(one) == order.machine_type and region_of(one) == order.region
        ]
        return sorted(fitting, key=lambda one: (one.price, one.machine_id))

    def _note(self, number: int, event: str) -> Instance:
        with self._books.changing() as (state, now):
            instance = state.instances[number]
            core = terms_of(instance)
            self._books.put(replace(instance, core=replace(core, events=(*core.events, (event, now)))))
            return state.instances[number]


def _is_over(instance: Instance, now: float) -> bool:
    core = terms_of(instance)
    if instance.phase is Phase.EXITED:
        return True
    began = instance.running_since
    return bool(core.shutdown_h) and began is not None and now - began >= core.shutdown_h * 3600.0


def terms_of(instance: Instance) -> CoreTerms:
    """The terms of an instance that was found as one of Paperspace's."""
    if instance.core is None:
        raise missing("Machine not found")
    return instance.core

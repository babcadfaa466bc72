# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to Paperspace's machines beside what is done to all boxes.

A full stop has four steps: the machine is shut down, then deleted, then its static address is released, and what else
bills (snapshots, shared drives, templates) is a person's to delete, for other machines may need it. A machine has to be
off before it can be deleted, so that the gate is asked twice: before the shutdown, and once it rests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Iterator, Mapping

from .. import power_record
from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rental_account import DESTROY, GONE_WAIT_S, STOP, Passed, RentalAccount, identity_of
from ..rental_waiters import SETTLING_GRACE_S, wait_for_rest
from ..rest_client import RestError
from ..stamp import parse_stamp
from .api import PaperspaceClient
from .transformations import (
    STATIC,
    Machine,
    address_left,
    drive_left,
    snapshot_left,
    template_left,
    to_machine,
)

RELEASE = "release static IP"
# A shutdown takes minutes (SkyPilot waits for eight).
STOP_WAIT_S = 600.0


@dataclass
class MachineAccount(RentalAccount[Machine]):
    """One team's account, as seen from one state store.

    :param released: static addresses that this one gave back.
    """

    client: PaperspaceClient
    released: list[str] = field(default_factory=list)

    PLATFORM = "paperspace"
    CLIENT = PaperspaceClient
    # The provider says that a deletion takes the snapshots of the machine with it, guides say that they stay and bill:
    # they are not counted on.
    KEEPS: ClassVar = {DESTROY: ("shared_drive",), STOP: ("disk", "snapshot", "shared_drive")}
    THING = "machine"
    LABEL = "name"

    def to_box(self, row: Mapping[str, Any]) -> Machine:
        return to_machine(row)

    def facts_of(self, box: Machine) -> dict[str, Any]:
        """Paperspace tells no machine below its own."""
        return {"machine_id": None, "region": box.region, "auto_shutdown_h": box.auto_shutdown_h}

    def watch(self, box: Machine) -> Callable[[Machine], str]:
        began = self.client.clock()

        def verdict(found: Machine) -> str:
            if found.is_leaving:
                return "the provider is deleting it"
            if found.status == "ready" and found.public_ip_type == "none":
                return "it has no public IP, and nothing here reaches it through a private network"
            late = self.client.clock() - began >= SETTLING_GRACE_S
            return f"it is {found.status} although it was told to run" if late and found.intended == "stopped" else ""

        return verdict

    def was_started(self, now: Machine, judged: Machine, since: float | None) -> bool:
        """The events tell every start to the second, so that a later one than the judged one is a start."""
        if now.start_date is None or judged.start_date is None:
            return super().was_started(now, judged, since)
        return now.start_date > judged.start_date

    def pass_gate(self, box: Machine, verb: str) -> Passed:
        """As the base class asks it, of the machine's own item: a row of a list does not tell when it was started."""
        return super().pass_gate(box if box.start_date is not None else self.look(box) or box, verb)

    def resume(self, machine: Machine, wait_s: float) -> Machine:
        """Start a machine and wait until it runs. A refused start leaves it parked as it was."""
        identity = identity_of(machine)
        before = power_record.read(self.store, identity) or {}
        with self.effect("start", machine):
            power_record.note_start(self.store, identity)
            try:
                self.client.set_state(machine.provider_id, "running")
            except RestError as refusal:
                if refusal.code != "no_capacity" or not self._still_rests(machine):
                    raise
                # It never ran, so a seal from before still holds: else it could neither start nor be let go.
                times = {name: before.get(name) for name in ("parked_at", "started_at")}
                self.store.update_box(identity.project, identity.box, identity.generation, **times)
                raise TenantFailure(
                    "provider",
                    f"machine {machine.provider_id} was not started: {refusal.what}",
                    box=identity.box,
                    safe="it rests as before; its disk is kept, and bills",
                    fix="run the same command again later: what is free in a region comes and goes",
                ) from None
        return self.priced(self.await_running(machine, wait_s))

    def await_rest(self, machine: Machine, wait_s: float) -> Machine | None:
        """The machine once a shutdown that somebody began is over: until then no start is taken. None when gone."""
        return wait_for_rest(self.client, machine, lambda: self.look(machine), self.stuck, wait_s)

    def _still_rests(self, machine: Machine) -> bool:
        now = self.look(machine)
        return now is not None and now.state == "stopped" and now.start_date == machine.start_date

    # -- the end -------------------------------------------------------------------------------------------------

    def destroy(self, box: Machine, wait_s: float = GONE_WAIT_S, why: str = "") -> Passed | None:
        """Shut down what runs, once the gate would let it go for good; then delete it, then release its address."""
        seen = self.look(box)
        if seen is not None and not seen.is_leaving:
            if not seen.is_resting:
                self.pass_gate(seen, DESTROY)
                seen = self.stop(seen, max(wait_s, STOP_WAIT_S))[0] or seen
            self._note_address(seen)
        passed = super().destroy(box, wait_s, why)
        self.clear_away(box)
        return passed

    def _note_address(self, machine: Machine) -> None:
        """Its static address, in its record: once the machine is gone, nobody tells whose it was."""
        if machine.public_ip_type != STATIC:
            return
        used = [left.id for left in self._addresses() if left.box == machine.provider_id]
        identity = identity_of(machine)
        if used and power_record.read(self.store, identity) is not None:
            self.store.update_box(identity.project, identity.box, identity.generation, static_ip=used[0])

    def clear_away(self, box: Machine) -> None:
        """Release the address of a machine that is gone, and delete the script that let our key in: it holds no data.

        Again where an earlier try did not get so far.
        """
        identity = identity_of(box)
        record = power_record.read(self.store, identity) or {}
        self.release(identity.project, identity.box, identity.generation, record)
        for script in self.client.list_scripts():
            if parse_stamp(script.get("name")) == box.stamp:
                self.client.delete_script(str(script["id"]))

    def release(self, project: str, name: str, generation: int, record: Mapping[str, Any]) -> None:
        """Release the static address that a record of a machine that is gone names, unless a machine has it."""
        address = str(record.get("static_ip") or "")
        if not address or self.read_only:
            return
        idle = any(left.id == address and not left.box for left in self._addresses())
        place = {"project": project, "box": name, "generation": generation, "provider_id": record.get("provider_id")}
        if idle:
            with self.journal.effect(RELEASE, **place, platform=self.PLATFORM, address=address):
                self.client.release_public_ip(address)
            self.released.append(address)
        self.store.update_box(project, name, generation, static_ip=None)

    def release_forgotten(self, project: str, name: str) -> None:
        """The addresses of machines of this name that are gone, where a release did not come about before."""
        for generation in range(1, self.store.last_generation(project, name) + 1):
            record = self.store.read_box(project, name, generation) or {}
            if record.get("destroyed_at"):
                self.release(project, name, generation, record)

    # -- what bills beside machines ----------------------------------------------------------------------------------

    def leftovers(self) -> list[Leftover]:
        return leftovers_of(self.client)

    def _addresses(self) -> Iterator[Leftover]:
        return map(address_left, self.client.list_public_ips())


def leftovers_of(client: PaperspaceClient) -> list[Leftover]:
    """Addresses, snapshots, shared drives and templates of the team: all that bills whatever becomes of machines."""
    return [
        *map(address_left, client.list_public_ips()),
        *map(snapshot_left, client.list_snapshots()),
        *map(drive_left, client.list_shared_drives()),
        *map(template_left, client.list_custom_templates()),
    ]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Renting a machine: never twice, never lost, never above the cap.

The API has no price list, so that the price of the new machine is compared with the cap, and a dearer one is given
back: it is virgin, nothing was ever put on it. It has no environment either; a startup script, whose name is the stamp,
lets our key in, and tells whose the machine is when somebody edits its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..budget import budget_problem
from ..creation import Creation
from ..dollar_budgets import NO_BUDGETS, Budgets
from ..failures import TenantFailure
from ..named_rental import NamedRental
from ..public_keys import parse_public_key
from ..rest_client import AmbiguousAnswer, RestError
from ..stamp import Stamp
from .actions import MachineAccount
from .transformations import LOGIN, Machine, fits

PUBLIC_IP_TYPES = ("dynamic", "static")
LEAST_DISK_GB, MOST_DISK_GB = 50, 2000
LONGEST_SHUTDOWN_H = 168


@dataclass(frozen=True)
class MachineOrder:
    """What to rent. ``machine_types`` are tried in their order; the disk in GB.

    :param template: the id of a template of the provider's or of the team's own.
    :param public_key: whom it lets in.
    :param auto_shutdown_h: hours after which the provider shuts it down, 0 for never; it cannot be changed later.
    :param budget_per_hour: the most that all of the project may cost an hour together; None for no limit.
    :param budgets: what the run and the project may cost in all.
    :param price_cap: the most that an hour may cost, disk and address included, in dollars.
    """

    project: str
    name: str
    machine_types: Sequence[str] = ()
    region: str = ""
    template: str = ""
    public_key: str = ""
    disk_gb: int = 50
    public_ip_type: str = "dynamic"
    network: str = ""
    auto_shutdown_h: int = LONGEST_SHUTDOWN_H
    price_cap: float | None = None
    budget_per_hour: float | None = None
    budgets: Budgets = NO_BUDGETS
    wait_s: float = 1200.0


def order_problem(order: MachineOrder) -> str:
    """Why an order cannot be one, whatever the account has; empty where it can."""
    if not order.machine_types or not order.region or not order.template:
        return "machine_types, region and template say what to rent, and one of them is missing"
    if order.price_cap is None or not 0 < order.price_cap < float("inf"):
        return f"price_cap is {order.price_cap}: renting without one above 0 is not consented to"
    if budget_problem(order.budget_per_hour):
        return budget_problem(order.budget_per_hour)
    if not LEAST_DISK_GB <= order.disk_gb <= MOST_DISK_GB:
        return f"disk_gb is {order.disk_gb}; a disk has {LEAST_DISK_GB} to {MOST_DISK_GB} GB"
    if order.public_ip_type not in PUBLIC_IP_TYPES:
        return f"public_ip_type is one of {', '.join(PUBLIC_IP_TYPES)}: without an address nothing reaches the machine"
    if not 0 <= order.auto_shutdown_h <= LONGEST_SHUTDOWN_H:
        return f"auto_shutdown_hours is 0 (never) or 1 to {LONGEST_SHUTDOWN_H}"
    return "" if order.wait_s > 0 else "wait_s must be above 0"


def key_script(public_key: str) -> str:
    """What lets the key in, run as root on the first boot. TenantFailure for what is no public key.

    Of the key only its type and its body go into the script: a comment is anybody's text.
    """
    key = " ".join(parse_public_key(public_key))
    return (
        "#!/bin/sh\n"
        f'home="$(getent passwd {LOGIN} | cut -d: -f6)"\n'
        'home="${home:-$HOME}"\n'
        'mkdir -p "$home/.ssh"\n'
        f"printf '%s\\n' '{key}' >>\"$home/.ssh/authorized_keys\"\n"
        'chmod 700 "$home/.ssh"\n'
        'chmod 600 "$home/.ssh/authorized_keys"\n'
        f'chown -R {LOGIN}: "$home/.ssh" 2>/dev/null || true\n'
    )


def create_body(order: MachineOrder, stamp: Stamp, machine_type: str, script: str) -> Mapping[str, Any]:
    """The create, stamp in the name. No automatic snapshots: they bill on, and prove nothing."""
    body: dict[str, Any] = {
        "name": str(stamp),
        "machineType": machine_type,
        "templateId": order.template,
        "diskSize": order.disk_gb,
        "region": order.region,
        "publicIpType": order.public_ip_type,
        "startOnCreate": True,
        "startupScriptId": script,
        "autoSnapshotEnabled": False,
        "takeInitialSnapshot": False,
        "emailPassword": False,
        "autoShutdownEnabled": order.auto_shutdown_h > 0,
    }
    if order.auto_shutdown_h:
        # Without force a session that is open puts it off.
        body.update(autoShutdownTimeout=order.auto_shutdown_h, autoShutdownForce=True)
    return {**body, "networkId": order.network} if order.network else body


class MachineRental(NamedRental[Machine]):
    MOST_NAME = 128
    PRICED = "an hour, disk and address included"
    SOLD_OUT = "name more machine_types, or another region, or try again later"
    TOO_DEAR = "raise price_cap, or name other machine_types"
    TRY_ELSEWHERE = "run again, or name another region"

    def __init__(self, account: MachineAccount, order: MachineOrder) -> None:
        super().__init__(account, order)
        self.account = account
        self.order = order

    def rent(self) -> tuple[Machine, bool]:
        self.check()
        return super().rent()

    def check(self) -> None:
        """TenantFailure for no public key, no such template, or one that a wanted machine type cannot have."""
        order = self.order
        key_script(order.public_key)
        found = [one for one in self.account.client.list_templates() if one["id"] == order.template]
        if not found:
            raise self._refused(
                f"there is no template {order.template!r}", "name one of `pspace os-template list`, or of your own"
            )
        wrong = [kind for kind in order.machine_types if fits(found[0], kind) is False]
        if wrong:
            raise self._refused(
                f"template {order.template} is not available on machine type {wrong[0]}",
                "take a template of that type: an H100 needs Ubuntu 22.04",
            )

    def send(self, stamp: Stamp) -> str:
        """The first wanted type that is free. Only a create that was refused for certain is followed by another."""
        client = self.account.client
        script = client.create_script(str(stamp), key_script(self.order.public_key))
        wanted = list(self.order.machine_types)
        while True:
            kind = wanted.pop(0)
            Creation(self.account, stamp).note_sending()
            try:
                return client.create_machine(create_body(self.order, stamp, kind, script))
            except AmbiguousAnswer:
                raise
            except RestError as refusal:
                if refusal.code == "no_capacity" and wanted:
                    continue
                client.delete_script(script)
                raise

    def terms(self) -> dict[str, Any]:
        order = self.order
        return {"machine_types": list(order.machine_types), "region": order.region}

    def _refused(self, what: str, fix: str) -> TenantFailure:
        return TenantFailure("config", what, box=self.order.name, safe="nothing was rented", fix=fix)

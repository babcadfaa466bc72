# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the options of ``vast_instance`` ask for."""

from __future__ import annotations

import re
from typing import Any, Mapping

from ..box.names import check_name
from ..failures import TenantFailure
from ..state_store import StateStore
from .actions import Account, keeps_of
from .attached import mounts_in
from .desired import PRESENT, STARTED, Desire
from .offers import ON_DEMAND, Constraints
from .options import client_of
from .ports import ports_in
from .ranking import Work
from .rental import Order
from .reservation import Reserve

# How a box is rented that shall be paid ahead: on demand at first.
RESERVED = "reserved"


def account_of(options: Mapping[str, Any]) -> Account:
    """The account and state store that ``vast_instance``'s options name."""
    return Account(client_of(options), StateStore(options["state_dir"]), keeps_of(options["verb_keeps"]))


def desire_of(options: Mapping[str, Any]) -> Desire:
    """What ``vast_instance``'s options ask for. UnsafeName or TenantFailure for what cannot be."""
    ports = ports_in(options["ports"])
    reserved, pays = options["market"] == RESERVED, options["state"] in (PRESENT, STARTED)
    # Each is mapped to a direct port of the machine, as ssh's is.
    wanted = Constraints.from_options(
        dict(
            options,
            min_disk_gb=options["disk_gb"],
            direct_ports=1 + len(ports) if ports else None,
            market=ON_DEMAND if reserved else options["market"],
        )
    )
    order = Order(
        project=check_name("project", options["project"]),
        name=check_name("box", options["name"]),
        image=options["image"],
        disk_gb=options["disk_gb"],
        wanted=wanted,
        env=_environment_of(options["env"]),
        onstart=options["onstart"],
        wait_s=float(options["wait_s"]),
        budget_per_hour=options["budget_per_hour"],
        replaces=options["replaces"],
        ports=ports,
    )
    work = Work.from_options(options)
    return Desire(
        options["state"], order, options["offers"], options["provider_id"], work, options["rank_offers"],
        options["price_rises"], mounts_in(options["volumes"]),
        options["template"].strip(),
        Reserve.from_options(options["reserve_months"], options["reserve_cap"]) if reserved and pays else None,
    )  # fmt: skip


def _environment_of(given: Mapping[str, Any]) -> dict[str, str]:
    for name, value in given.items():
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", str(name)):
            raise TenantFailure("config", f"{str(name)[:60]!r} in env is not the name of an environment variable")
        if not isinstance(value, (str, int, float)):
            raise TenantFailure("config", f"the value of {name} in env is a {type(value).__name__}, not text")
    return {str(name): str(value) for name, value in given.items()}

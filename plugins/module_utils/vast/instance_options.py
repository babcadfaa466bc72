# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the options of ``vast_instance`` ask for."""

from __future__ import annotations

from typing import Any, Mapping

from ..box.names import check_name
from ..dollar_budgets import Budgets
from ..rental_account import keeps_of
from ..rental_options import environment_of
from ..rental_states import PRESENT, STARTED
from ..state_store import StateStore
from .actions import Account
from .attached import mounts_in
from .desired import Desire
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
    keeps, store = keeps_of(options["verb_keeps"]), StateStore(options["state_dir"])
    return Account(client_of(options), store, keeps, results_dir=options.get("results_dir") or "")


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
        env=environment_of(options["env"]),
        onstart=options["onstart"],
        wait_s=float(options["wait_s"]),
        budget_per_hour=options["budget_per_hour"],
        budgets=Budgets.from_options(options),
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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the options of Paperspace's modules ask for. This file imports Ansible."""

from __future__ import annotations

from typing import Any, Mapping

from .. import rental_options
from ..box.names import check_name
from ..dollar_budgets import Budgets
from ..rental_account import keeps_of
from ..rental_options import Act, client_options
from ..state_store import StateStore
from .actions import MachineAccount
from .api import PaperspaceClient
from .desired import Desire
from .rental import MachineOrder


def shared_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragments ``tenant.gpu.paperspace`` and ``tenant.gpu.rental``."""
    return client_options(PaperspaceClient)


def client_of(options: Mapping[str, Any]) -> PaperspaceClient:
    """The client that these options ask for. TenantFailure when there is no usable key."""
    return rental_options.client_of(PaperspaceClient, options)


def account_of(options: Mapping[str, Any]) -> MachineAccount:
    keeps, store = keeps_of(options["verb_keeps"]), StateStore(options["state_dir"])
    return MachineAccount(client_of(options), store, keeps, results_dir=options["results_dir"])


def desire_of(options: Mapping[str, Any]) -> Desire:
    """What ``paperspace_machine``'s options ask for. UnsafeName for a name that cannot be one."""
    order = MachineOrder(
        project=check_name("project", options["project"]),
        name=check_name("box", options["name"]),
        machine_types=tuple(options["machine_types"]),
        region=options["region"],
        template=options["template"],
        public_key=options["ssh_public_key"],
        disk_gb=options["disk_gb"],
        public_ip_type=options["public_ip_type"],
        network=options["network"],
        auto_shutdown_h=options["auto_shutdown_hours"],
        price_cap=options["price_cap"],
        budget_per_hour=options["budget_per_hour"],
        budgets=Budgets.from_options(options),
        wait_s=float(options["wait_s"]),
    )
    return Desire(options["state"], order, options["provider_id"])


def run_module(act: Act, **keywords: Any) -> None:
    """Run a module of Paperspace's."""
    rental_options.run_module(act, shared_options(), **keywords)

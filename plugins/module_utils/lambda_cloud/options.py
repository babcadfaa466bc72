# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the options of Lambda's modules ask for. This file imports Ansible."""

from __future__ import annotations

from typing import Any, Mapping

from .. import rental_options
from ..box.names import check_name
from ..dollar_budgets import Budgets
from ..rental_account import keeps_of
from ..rental_options import Act, client_options
from ..state_store import StateStore
from .actions import VmAccount
from .api import LambdaClient
from .desired import Desire
from .rental import VmOrder


def shared_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragments ``tenant.gpu.lambda_cloud`` and ``tenant.gpu.rental``."""
    return client_options(LambdaClient)


def client_of(options: Mapping[str, Any]) -> LambdaClient:
    """The client that these options ask for. TenantFailure when there is no usable key."""
    return rental_options.client_of(LambdaClient, options)


def account_of(options: Mapping[str, Any]) -> VmAccount:
    keeps, store = keeps_of(options["verb_keeps"]), StateStore(options["state_dir"])
    return VmAccount(client_of(options), store, keeps, results_dir=options["results_dir"])


def desire_of(options: Mapping[str, Any]) -> Desire:
    """What ``lambda_instance``'s options ask for. UnsafeName for a name that cannot be one."""
    order = VmOrder(
        project=check_name("project", options["project"]),
        name=check_name("box", options["name"]),
        instance_types=tuple(options["instance_types"]),
        regions=tuple(options["regions"]),
        ssh_key=options["ssh_key"],
        public_key_file=options["public_key_file"] or "",
        file_systems=tuple(options["file_systems"]),
        image_family=options["image_family"],
        price_cap=options["price_cap"],
        budget_per_hour=options["budget_per_hour"],
        budgets=Budgets.from_options(options),
        capacity_wait_s=float(options["capacity_wait_s"]),
        wait_s=float(options["wait_s"]),
    )
    return Desire(options["state"], order, options["provider_id"], options["restart_unhealthy"])


def run_module(act: Act, **keywords: Any) -> None:
    """Run a module of Lambda's."""
    rental_options.run_module(act, shared_options(), **keywords)

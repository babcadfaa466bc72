# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the options of RunPod's modules ask for. This file imports Ansible."""

from __future__ import annotations

from typing import Any, Mapping

from .. import rental_options
from ..box.names import check_name
from ..dollar_budgets import Budgets
from ..rental_account import keeps_of
from ..rental_options import Act, client_options, environment_of
from ..state_store import StateStore
from .actions import PodAccount
from .api import RunpodClient
from .desired import Desire
from .rental import PodOrder


def shared_options() -> dict[str, dict[str, Any]]:
    """The argument spec behind the documentation fragments ``tenant.gpu.runpod`` and ``tenant.gpu.rental``."""
    return client_options(RunpodClient)


def client_of(options: Mapping[str, Any]) -> RunpodClient:
    """The client that these options ask for. TenantFailure when there is no usable key."""
    return rental_options.client_of(RunpodClient, options)


def account_of(options: Mapping[str, Any]) -> PodAccount:
    keeps, store = keeps_of(options["verb_keeps"]), StateStore(options["state_dir"])
    return PodAccount(
        client=client_of(options),
        store=store,
        keeps=keeps,
        results_dir=options["results_dir"],
        data_dir=options["data_dir"],
    )


def desire_of(options: Mapping[str, Any]) -> Desire:
    """What ``runpod_pod``'s options ask for. UnsafeName or TenantFailure for what cannot be."""
    order = PodOrder(
        project=check_name("project", options["project"]),
        name=check_name("box", options["name"]),
        image=options["image"],
        gpu_types=tuple(options["gpu_types"]),
        gpu_count=options["gpu_count"],
        cloud_type=options["cloud_type"].upper(),
        container_gb=options["container_disk_gb"],
        volume_gb=options["volume_gb"],
        mount_path=options["volume_mount_path"],
        network_volume=options["network_volume"],
        ports=tuple(options["ports"]),
        env=environment_of(options["env"]),
        data_centers=tuple(options["data_centers"]),
        cuda_versions=tuple(options["cuda_versions"]),
        start_command=tuple(options["start_command"]),
        market=options["market"],
        stop_after_s=options["stop_after_s"],
        terminate_after_s=options["terminate_after_s"],
        price_cap=options["price_cap"],
        budget_per_hour=options["budget_per_hour"],
        budgets=Budgets.from_options(options),
        wait_s=float(options["wait_s"]),
    )
    gpus = options["gpu_count"] if options["gpu_required"] else 0
    return Desire(options["state"], order, gpus, options["provider_id"])


def run_module(act: Act, **keywords: Any) -> None:
    """Run a module of RunPod's."""
    rental_options.run_module(act, shared_options(), **keywords)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that a run is taken from is told to stop before another does its work: it would go on billing, and one that was
outbid comes back by itself and trains beside the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ansible_collections.tenant.gpu.plugins.module_utils import power_record
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import Outcome

# What the provision playbook is told.
PARKED = {"tenant_state": "parked", "provision_smoke": False}


def can_rest(host: BoxHost) -> bool:
    """Whether its market has a stop that keeps its disk. A box without a driver is stopped by people."""
    verbs = host.variables.get("platform_verbs")
    return not host.text("platform_driver") or not isinstance(verbs, Mapping) or bool(verbs.get("park"))


def computes(host: BoxHost, item: Box | None) -> bool:
    """Whether its provider shows a machine that nobody told to stop: at work, on its way there, or, outbid or on a host
    without power, back there one day without our doing."""
    if item is None or item.is_leaving:
        return False
    if item.state == "outbid":
        # Its provider says that it is to rest, whoever wanted that.
        return not _is_told(host, item)
    return item.state != "stopped" and item.intended != "stopped"


def ends_by(host: BoxHost) -> str:
    """How the meter of a box that cannot rest is stopped, in words."""
    return f"gpu-tenant approve destroy {host.name}, then gpu-tenant teardown -l {host.name}"


def bills_until(host: BoxHost) -> str:
    """Of a box that computes and is left so, in words."""
    if not can_rest(host):
        return f"bills until its end: {ends_by(host)}"
    return f"bills until it is stopped: gpu-tenant provision -l {host.name} -e tenant_state=parked"


def leave(host: BoxHost, seen: Observation, observer: Observer, park: Callable[[], Outcome]) -> str:
    """Have the box stopped; which instance is left behind, in words, empty where nothing is.

    :param seen: the look by which it is left.
    :param park: the playbook that stops it, and waits until it rests.
    :raises TenantFailure: it is there, or was a moment ago, and nobody took the order to stop.
    """
    if not host.text("platform_driver"):
        return "no market rents it out, and nothing was stopped there"
    try:
        item = observer.machine(host.name)
    except TenantFailure:
        if seen.item is not None:
            raise
        return ""
    if item is None:
        return ""
    if not can_rest(host):
        raise _cannot_rest(host, item)
    if not _is_told(host, item):
        outcome = park()
        if not outcome.ok:
            # One whose host is offline takes the order and never comes to rest.
            item = observer.machine(host.name)
            if item is not None and not _is_told(host, item):
                raise _still_there(host, outcome.as_failure())
    return f"instance {item.provider_id} was told to stop and keeps its disk, which bills" if item is not None else ""


def _is_told(host: BoxHost, item: Box) -> bool:
    """Whether we said stop. The provider's word alone does not tell: it stops an outbid box in the same words."""
    store = StateStore(host.required("tenant_state_dir"))
    identity = BoxIdentity(host.required("tenant_project"), host.name, item.generation, item.provider_id)
    return item.intended == "stopped" and bool((power_record.read(store, identity) or {}).get("parked_at"))


def _cannot_rest(host: BoxHost, item: Box) -> TenantFailure:
    return TenantFailure(
        "config",
        f"the run is not taken elsewhere: instance {item.provider_id} is rented, and nothing but its end stops it",
        box=host.name,
        safe="no other box was rented; nothing was destroyed, and this one bills on",
        fix=f"harvest it, end it ({ends_by(host)}; --loss if it cannot be harvested), and run the same command again",
    )


def _still_there(host: BoxHost, why: TenantFailure) -> TenantFailure:
    return TenantFailure(
        why.kind,
        f"the run is not taken elsewhere, because this box was not stopped: {why.what}",
        box=host.name,
        safe="no other box was rented; nothing was destroyed, and this one may go on billing",
        fix=f"stop it (gpu-tenant provision -l {host.name} -e tenant_state=parked), then run the same command again",
    )

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How boxes stand after a command was asked to stop: a sentence for each, with what it costs from now on."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import RESTING, Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer


def told(boxes: Sequence[BoxHost], observer: Observer, run_id: str) -> list[tuple[str, str]]:
    """Look at the boxes once more: (box, sentence) for each. That nobody could look is said as well."""
    try:
        seen = observer.observe(run_id, [box.name for box in boxes], each_alone=True)
    except TenantFailure as failure:
        return [(box.name, f"it could not be looked at ({failure.what}): {_IF_RENTED}") for box in boxes]
    return [(box.name, _sentence(box, seen[box.name], run_id)) for box in boxes]


_IF_RENTED = "if it is rented, it bills"


def _sentence(host: BoxHost, seen: Observation, run_id: str) -> str:
    if seen.job is not None:
        return f"job {seen.job.name} is {seen.job.verdict}; it goes on by itself"
    if seen.provider == "unreachable":
        said = f"it could not be looked at ({seen.problem}): {_IF_RENTED}"
    elif seen.item is None and seen.provider == "absent":
        said = "it is absent, and bills nothing"
    else:
        said = f"it is {seen.provider}{_price(seen.item)}"
    run = f"run {run_id} is {seen.run_state} there and goes on by itself" if run_id and seen.run_state else ""
    replaced = [
        f"instance {old.provider_id}, which it replaced, is {old.state}{_price(old)}" for old in seen.superseded
    ]
    return "; ".join(part for part in (said, run, *replaced, _unheard(host, seen)) if part)


def _price(item: Box | None) -> str:
    if item is None:
        return ""
    is_at_rest = item.state in RESTING
    price = item.storage_per_hour if is_at_rest else item.dph_total
    whose = ", and its disk bills" if is_at_rest else " and bills"
    return f"{whose} at an unknown price" if price is None else f"{whose} ${price:.4f} an hour"


def _unheard(host: BoxHost, seen: Observation) -> str:
    """Of an order whose answer nobody waited for, the provider may show the box a moment later."""
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    try:
        generation = store.last_generation(project, host.name)
        record = store.read_box(project, host.name, generation) if generation else None
    except RecordError as error:
        return f"what its record says is not known ({error})"
    if not record or record.get("provider_id") or record.get("destroyed_at") or seen.generation >= generation:
        return ""
    return (
        f"generation {generation} of it was being rented, and nobody heard the answer: it may bill already, and the "
        "same command looks for it before it rents"
    )

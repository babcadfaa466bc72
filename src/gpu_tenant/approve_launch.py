# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant approve terminate-after BOX --after 2d``: consent, before a pod is rented, to its end without a gate.

RunPod terminates the pod at that moment, whatever is home by then, so that this is always consent to a loss, which is
shown first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.launch_consent import VERB, loss_of, next_identity
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import approve
from gpu_tenant.hosts import BoxHost

__all__ = ["VERB", "answer"]


def answer(host: BoxHost, request: approve.Request, after: str, ask: Callable[[str], str] | None) -> dict[str, Any]:
    """Give the approval that was asked for, once the loss was consented to."""
    if host.text("platform_driver") != "runpod":
        raise _refused(host, f"{VERB} is RunPod's, and {host.name} is no box of RunPod", "name a box of RunPod's")
    if not after or request.standing:
        how = f"gpu-tenant approve {VERB} {host.name} --after 2d --approver YOU --reason WHY"
        raise _refused(host, f"{VERB} is consent to a loss after so many seconds, and to nothing else", how)
    if request.awx_node or request.awx_workflow:
        # An answer is held against the generation that is rented when it is given, and this one is not rented yet.
        raise _refused(host, f"an answer in AWX does not say that it is consent to {VERB}", "give it here, by name")
    store = StateStore(host.required("tenant_state_dir"))
    identity = next_identity(store, host.required("tenant_project"), host.name, host.text("tenant_results_dir"))
    loss, ttl_s = loss_of(approve.seconds(after)), approve.lifetime(request.expires, host.name)
    approve.agree_to_loss(identity, VERB, loss, request.loss_id, ask)
    consent = approve.Consent(request.approver, request.reason, ttl_s, False, loss)
    return approve.consent_to(store, identity, VERB, consent)


def _refused(host: BoxHost, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=host.name, safe="no approval was written", fix=fix)

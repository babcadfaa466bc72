# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant approve delete NAME --volume``: a named person's consent to losing what a volume holds.

Nobody can look into a volume from outside, so there is nothing at home that an approval could bind to: it is always
consent to a loss, which is shown first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import losses
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.volume_gate import DELETE, evidence_of
from ansible_collections.tenant.gpu.plugins.module_utils.volume_stamp import record_name

from gpu_tenant import approve
from gpu_tenant.awx import Question
from gpu_tenant.hosts import BoxHost


def answer(host: BoxHost, name: str, request: approve.Request, ask: Callable[[str], str] | None) -> dict[str, Any]:
    """Give the approval that was asked for, once the loss was consented to.

    :param host: any host of the inventory; it says the project and the state store.
    """
    if request.verb != DELETE or request.standing:
        raise TenantFailure(
            "config",
            "a volume can only be deleted, and only by consent to the loss of what it holds",
            box=name,
            safe="no approval was written",
            fix=f"gpu-tenant approve {DELETE} {name} --volume --approver YOU --reason WHY",
        )
    store = StateStore(host.required("tenant_state_dir"))
    project = host.required("tenant_project")
    identity = approve.identity_of(store, project, record_name(name), request.generation)
    loss, ttl_s = losses.of(evidence_of(store, identity)), approve.lifetime(request.expires, name)
    approve.agree_to_loss(identity, DELETE, loss, request.loss_id, ask)
    awx = approve.asked_in_awx(request, Question(name, [DELETE], approve.loss_id(loss)))
    approver = awx.approver if awx else request.approver
    consent = approve.Consent(approver, request.reason, ttl_s, False, loss, awx)
    return approve.consent_to(store, identity, DELETE, consent)

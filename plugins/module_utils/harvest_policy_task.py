# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``harvest_policy`` does: people choose what of a run comes home, before the box is sealed."""

from __future__ import annotations

import os
from typing import Any

from .box import attempt, control, policy, records
from .box.layout import Layout
from .box.refusal import SEALED, Refused
from .manifest_task import speaking


def choose_policy(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. :raises TenantFailure: the choice cannot be used, or the box is sealed."""
    with speaking():
        wanted = policy.of(params["roles"], params["exclude"])
        answer = choose(Layout(params["tenant_root"]), control.Caller((), check=check), params["run_id"], wanted)
    diff = {"before": answer["before"], "after": answer["after"]}
    return {"changed": answer["changed"], "diff": diff, "policy": wanted.as_dict()}


def choose(layout: Layout, caller: control.Caller, run_id: str, wanted: policy.Policy) -> dict[str, Any]:
    """Put ``wanted`` in force. Refused(SEALED) when the box was sealed under another one."""
    with control.box(layout, caller):
        try:
            before = policy.read(layout, run_id).as_dict()
        except records.RecordError:
            # A damaged choice is made anew.
            before = {}
        if before != wanted.as_dict() and os.path.lexists(layout.seal):
            sealed = attempt.read(layout.run_manifest(run_id), "manifest").get("policy") or "another policy"
            raise Refused(
                SEALED,
                f"run {run_id} was sealed under {sealed}, so what comes home of it is settled",
                "unseal the box (tenant.gpu.supervisor state=unsealed), then harvest again",
            )
        if before != wanted.as_dict() and not caller.check:
            records.write_record(policy.path(layout, run_id), "harvest-policy", wanted.as_dict())
        return control.outcome(before, wanted.as_dict())

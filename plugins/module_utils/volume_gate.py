# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A volume as the gate knows it, whoever keeps it.

Nobody can look into a volume from outside, and more than one box may have written to it, so it never counts as unused:
deleting one always needs a person's consent to the loss.
"""

from __future__ import annotations

from typing import Any

from . import gate, losses
from .box import records
from .failures import TenantFailure
from .state_store import BoxIdentity, StateStore

DELETE = "delete"
TIER = "volume"
# Deleting a volume takes nothing from the disks of boxes.
KEEPS = ("disk",)


def remember(store: StateStore, identity: BoxIdentity, **facts: Any) -> None:
    """A record that approvals can be given for. It never says that the volume is unused: nobody can know that."""
    known = store.read_box(identity.project, identity.box, identity.generation) or {}
    if known.get("provider_id") == identity.provider_id:
        return
    times = {"created_at": records.utc_now(), "deploy_started_at": records.utc_now(), "destroyed_at": None}
    changes: dict[str, Any] = {"provider_id": identity.provider_id, **facts, **times}
    store.update_box(identity.project, identity.box, identity.generation, **changes)


def evidence_of(store: StateStore, identity: BoxIdentity) -> gate.Evidence:
    """What the gate judges, read now, of a volume that no box uses: of one in use it is not asked."""
    view = gate.ProviderView("stopped", None, records.utc_now())
    return gate.gather(store, identity, DELETE, KEEPS, view, gated_tiers=(TIER,))


def consent(store: StateStore, identity: BoxIdentity, name: str, called: str) -> gate.Decision:
    """The gate's consent to deleting one. TenantFailure ``gate_refused`` says what is missing.

    :param called: what its keeper calls it, as ``volume V.7``.
    """
    evidence = evidence_of(store, identity)
    decision = gate.decide(evidence)
    if decision.allowed and decision.approval_id is not None:
        return decision
    reasons = [one for one in decision.missing if one.startswith(("approval ", "nobody approved"))]
    lost = "; ".join(losses.of(evidence).words())
    raise TenantFailure(
        "gate_refused",
        f"delete of {called} is refused. It would lose: {lost}. {'; '.join(reasons) or 'no person approved it'}",
        box=name,
        safe="the volume and what it holds are untouched",
        fix=f"bring home what it holds; then: gpu-tenant approve delete {name} --volume",
    )

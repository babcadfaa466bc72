# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The consent under which RunPod may terminate a pod by itself, at a moment that is said when the pod is rented.

Nobody looks at the evidence at that moment, so that it is consent to a loss (law 2), and it has to be there before the
pod is: it names the generation that is about to be rented, for no machine has an id yet, and the seconds after which
the pod ends. No API takes it back.
"""

from __future__ import annotations

from typing import Any

from .. import approvals, generations, losses
from ..failures import TenantFailure
from ..state_store import BoxIdentity, StateStore

VERB = "terminate-after"
# In place of a provider's id, which a pod has once it is rented.
_NOT_RENTED = "not-rented-yet"


def identity_of(project: str, box: str, generation: int) -> BoxIdentity:
    """What an approval calls a pod that is not rented yet."""
    return BoxIdentity(project, box, generation, _NOT_RENTED)


def next_identity(store: StateStore, project: str, box: str, results_dir: str = "") -> BoxIdentity:
    """The generation that would be rented next, as far as our records and the results at home know."""
    last = max(store.last_generation(project, box), generations.at_home(results_dir, project, box))
    return identity_of(project, box, last + 1)


def loss_of(after_s: int) -> losses.Loss:
    """What is consented to: the same words for the same seconds, and for no other ones."""
    what = (
        f"everything on the new pod that is not home {after_s} s after its create, its volume disk included: RunPod "
        "terminates it then, whatever runs on it, and nobody is asked again"
    )
    return losses.Loss({}, {}, (what,), "")


def approval_for(store: StateStore, identity: BoxIdentity, after_s: int) -> dict[str, Any]:
    """The approval that covers it. TenantFailure ``gate_refused`` where nobody consented to just that."""
    for approval in approvals.find(store, identity, VERB):
        if not losses.growth(approval["binds"], loss_of(after_s)):
            return approval
    raise TenantFailure(
        "gate_refused",
        f"terminate_after_s is {after_s}, and nobody consented to what generation {identity.generation} would lose: "
        f"{'; '.join(loss_of(after_s).unknown)}",
        box=identity.box,
        safe="nothing was rented",
        fix=f"gpu-tenant approve {VERB} {identity.box} --after {after_s}s --approver YOU --reason WHY; or leave "
        "terminate_after_s out: stop_after_s stops a pod by itself and keeps its volume",
    )

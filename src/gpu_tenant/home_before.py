# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run that is home, and whose spec or code was edited since: to save a file is no wish to rent, and on its box, which
is sealed under the spec that came home, the edit would train nothing and bill. A person starts it, or nobody does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import decide
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

# What would begin the edit, and a harvest, which would bring home once more what is there.
HELD_BACK = (*decide.BRINGING_UP, decide.NEXT_CANDIDATE, decide.HARVEST)


@dataclass(frozen=True)
class Registered:
    """The spec that the box last said its run is registered with, and when; both empty where it never said one."""

    spec_sha256: str = ""
    at: str = ""

    def after(self, seen: Observation) -> Registered:
        """What is known after one more look."""
        told = str(seen.run.raw.get("spec_sha256") or "") if seen.run else ""
        return Registered(told, seen.at) if told else self

    def is_other_work(self, receipt: Mapping[str, Any]) -> bool:
        """Whether a person took the seal back and began something else once that was home: it is recovered."""
        return self.at > str(receipt.get("verified_at")) and self.spec_sha256 != receipt.get("spec_sha256")

    def as_dict(self) -> dict[str, str]:
        return {"spec_sha256": self.spec_sha256, "at": self.at}

    @classmethod
    def of(cls, known: object) -> Registered:
        """What :meth:`as_dict` gave; nothing of anything else."""
        told = known if isinstance(known, Mapping) else {}
        return cls(str(told.get("spec_sha256") or ""), str(told.get("at") or ""))


def find(
    host: BoxHost,
    spec: Mapping[str, Any],
    receipts: Iterable[Mapping[str, Any]],
    seen: Observation,
    registered: Registered,
    any_box: bool,
) -> Mapping[str, Any] | None:
    """The complete receipt of an earlier spec of the run, from the newest machine of its box; None without one.

    :param receipts: of the run, whatever their spec.
    :param any_box: those of other boxes count as well: nothing was rented for this one.
    """
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    for one in receipts:
        is_ours = one.get("box") == host.name
        if one.get("complete") is not True or one.get("spec_sha256") == spec["spec_sha256"]:
            continue
        if not (is_ours or any_box) or registered.is_other_work(one):
            continue
        newest = max(store.last_generation(project, str(one.get("box"))), seen.generation if is_ours else 0)
        if one.get("generation") == newest:
            return one
    return None


def failure_of(run_id: str) -> TenantFailure:
    """What a person is told, and does to have the edit trained on purpose."""
    return TenantFailure(
        "config",
        f"run {run_id} is home, and its spec or code is another since, so nothing is started for it; to have that "
        "trained on purpose give it another run id, or run gpu-tenant train with -e deploy_unseal=true by hand and "
        "then start watch again",
    )

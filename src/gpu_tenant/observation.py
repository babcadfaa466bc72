# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What one look at a box, and at its run, has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant.job_view import JobView


@dataclass(frozen=True)
class RunView:
    """A run as the supervisor reports it. Numbers are None when the trainer does not write them."""

    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    steps_per_s: float | None = None
    eta_s: float | None = None
    attempt: int | None = None
    resumed_from: int | None = None
    reason: str = ""
    # Its class, of a run that failed.
    failure: str = ""
    liveness: str = ""
    # What it waits for where a batch system gives the turns; empty where it does not wait.
    waits_for: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """One look at one box. ``provider`` is the provider's word, or ``unreachable``; ``warnings`` its supervisor's.

    ``absent`` is said only when the list lacks the box and the machine on record, ``denied``, is denied by its own item
    as well.
    What the provider says is no older than ``asked_at``. ``refused`` is why it was not asked at all, where waiting does
    not mend that: a key that is not taken, a record that cannot be read.
    """

    box: str
    at: str
    provider: str
    item: Box | None = None
    superseded: tuple[Box, ...] = ()
    contact: str = "not_tried"
    run: RunView | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    zero_gpu: bool = False
    # Of the box, as its supervisor last measured it: memory, disk, gpu.
    health: Mapping[str, Any] = field(default_factory=dict)
    # The batch job that its supervisor is.
    batch: Mapping[str, Any] = field(default_factory=dict)
    asked_at: str = ""
    refused: TenantFailure | None = None
    denied: BoxIdentity | None = None
    # In place of a box, on a platform that has none.
    job: JobView | None = None

    @property
    def generation(self) -> int:
        return self.item.generation if self.item else 0

    @property
    def run_state(self) -> str:
        return self.run.state if self.run else ""


def with_contact(seen: Observation, contact: str, run: RunView | None = None, problem: str = "") -> Observation:
    return Observation(seen.box, seen.at, seen.provider, seen.item, seen.superseded, contact, run, problem)

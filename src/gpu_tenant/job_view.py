# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What one look at a Job says, on a platform that has no boxes. Light, because every look at boxes reads this file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks

from gpu_tenant.hosts import BoxHost

KIND = "kubernetes"
# The verdict where the inventory does not say which Job it is.
NOT_ASKED = "not-asked"


def is_job(host: BoxHost) -> bool:
    return host.text("platform_kind") == KIND


@dataclass(frozen=True)
class JobView:
    """One look at a Job, in the cluster's words.

    :param state: which clocks of the platform tick: ``started``, ``stopped``, or empty where nobody could be asked.
    :param deadlines: by ``starts_at``, as the Job says them by the cluster's clock, which said :attr:`now`.
    """

    name: str
    verdict: str
    reason: str
    why: str
    state: str = ""
    deadlines: Mapping[str, float | None] = field(default_factory=dict)
    now: float | None = None

    def clocks(self, listed: object) -> list[dict[str, Any]]:
        """The clocks of the platform that tick for it; each of them where nobody could be asked."""
        now = time.time()
        ahead = now - (now if self.now is None else self.now)
        told = {name: None if at is None else at + ahead for name, at in self.deadlines.items()}
        return danger_clocks.countdown(listed, self.state, {}, now, told)

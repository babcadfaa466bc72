# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A candidate that a run was taken from, or that never had it: nobody wants work there, and what is rented there bills.

Its disk, the machines that it replaced and what the platform will do to them by itself are looked after all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.watched import Watched


class LeftCandidate(Watched):
    """:param of: the run that may be on this box, and is while it has chosen it."""

    def __init__(self, box: BoxHost, of: Watched) -> None:
        super().__init__([box], "", of.clock)
        self._of = of
        self._holds = False

    @property
    def is_left(self) -> bool:
        return self._of.has_chosen and self._of.box.name != self.box.name

    @property
    def holds(self) -> bool:
        """Whether something is rented there, by the last word of its provider."""
        return self.is_left and self._holds

    def take(self, seen: Observation) -> None:
        super().take(seen)
        if seen.provider != "unreachable":
            self._holds = seen.item is not None or bool(seen.superseded)

    @property
    def idle_because(self) -> str:
        return f"run {self._of.run_id} is on {self._of.box.name}"


def of(watched: Sequence[Watched]) -> list[LeftCandidate]:
    """One for each box of a run that has several."""
    return [LeftCandidate(box, one) for one in watched if len(one.boxes) > 1 for box in one.boxes]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When the newest checkpoints of a run at work are brought home, so that little is lost if box and disk vanish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import Outcome

# A pull that takes long is repeated no sooner than after this many times its own duration.
PULL_SHARE = 3.0
# Of a pull that ended well without a receipt.
NOTHING_CAME = "brought nothing home that has a receipt, and will be repeated"


def receipt_of(outcome: Outcome, seen: Observation) -> Mapping[str, Any] | None:
    """The receipt of what a harvest brought home of the machine that was seen, and of none that it took the place of:
    one play may bring home both. None where it ended well and brought nothing: the box was not there to be asked,
    nothing was on it, or what came takes the place of nothing."""
    told = [result.result.get("receipt") for result in outcome.of(seen.box, "receipt") if result.status == "ok"]
    found = [receipt for receipt in told if isinstance(receipt, Mapping) and _is_of(receipt, seen)]
    return found[-1] if found else None


def _is_of(receipt: Mapping[str, Any], seen: Observation) -> bool:
    """Where no provider tells of machines there is one, whose generation the playbook alone knows."""
    generation = receipt.get("generation", seen.generation)
    return receipt.get("box", seen.box) == seen.box and (seen.item is None or generation == seen.generation)


class Pulls:
    """Of one run on one box, as this process saw them.

    :param every_s: seconds of training that may be nowhere but on the box; 0 for no pulls.
    """

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s, self._clock = every_s, clock
        self._safe_since = clock()
        self._ended_at = float("-inf")
        self._took_s = 0.0

    @property
    def at_risk_s(self) -> float:
        """Seconds of training that would be lost if box and disk vanished now."""
        return self._clock() - self._safe_since

    @property
    def is_due(self) -> bool:
        """Now and then, but never so often that pulling is most of the work."""
        every = max(self._every_s, PULL_SHARE * self._took_s)
        return self._every_s > 0 and self._clock() - self._ended_at >= every and self.at_risk_s >= every

    def training_begins(self) -> None:
        self._safe_since = self._clock()

    @contextlib.contextmanager
    def pulling(self) -> Iterator[Callable[[], None]]:
        """Time a pull. What is given is called if it succeeded: what was saved after it began did not come along."""
        began = self._clock()

        def succeeded() -> None:
            self._safe_since = began

        yield succeeded
        self._ended_at = self._clock()
        self._took_s = self._ended_at - began

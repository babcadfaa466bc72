# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What successive looks at one box add up to: how long it has been as it is, and how often the provider denied it.

Losing it costs a second look and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

from gpu_tenant.observation import Observation
from gpu_tenant.one_line import one_line
from gpu_tenant.steady_clock import SteadyClock
from gpu_tenant.verdicts import BoxWord, ProviderWord, Silence

SETTLED_S = 60.0
# Characters of what a provider says that are shown.
MOST_SAID = 120
_BOTH_RUN = ("running", "running")


class Sight:
    """One box over time. ``brought_up``: it was at work, by our records or by a look at a run that it knows."""

    def __init__(self, clock: Callable[[], float], brought_up: bool = False) -> None:
        self._clock = clock
        self.brought_up = brought_up
        self.absences = 0
        self.quiet_rounds = 0
        self.step: int | None = None
        self._advanced = False
        self._seen: Observation | None = None
        self._denied: BoxIdentity | None = None
        # Of provider, contact and run.
        self._words = ["", "", ""]
        self._seen_at = clock()
        self._provider_since = self._box_since = clock()

    def as_dict(self) -> dict[str, Any]:
        """What the next process needs to go on counting; only with a clock that processes share."""
        return {
            "words": self._words,
            "absences": self.absences,
            "provider_since": self._provider_since,
            "box_since": self._box_since,
            **({"clock": self._clock.mark()} if isinstance(self._clock, SteadyClock) else {}),
        }

    def remember(self, known: Mapping[str, Any]) -> None:
        """Go on from what an earlier process saw. What makes no sense is passed over: it costs a second look."""
        words, since = known.get("words"), [self.moment_of(known, name) for name in ("provider_since", "box_since")]
        absences = known.get("absences")
        if not isinstance(words, list) or len(words) != 3 or not isinstance(absences, int):
            return
        told = [moment for moment in since if moment is not None]
        if len(told) == len(since):
            self._words = [str(word) for word in words]
            self._provider_since, self._box_since = told
            self.absences = absences

    def moment_of(self, known: Mapping[str, Any], name: str) -> float | None:
        """A moment that an earlier process noted beside :meth:`as_dict`, by the clock of this one; None for what makes
        no sense, or is still to come."""
        moment = records.finite(known.get(name))
        moved = self._clock.moved_since(known.get("clock")) if isinstance(self._clock, SteadyClock) else None
        by_ours = None if moment is None else moment + (moved or 0.0)
        return by_ours if by_ours is None or by_ours <= self._clock() else None

    def take(self, seen: Observation) -> None:
        """Add a look. The observer only says ``absent`` when the list and the box's own item agree on it."""
        now = self._clock()
        before, self._seen, self._seen_at = self._seen, seen, now
        self.absences = self._denials_before(seen) + 1 if seen.provider == "absent" else 0
        self._denied = seen.denied if seen.denied is not None else self._denied
        was, self._words = self._words, [seen.provider, seen.contact, seen.run_state]
        if was[0] != seen.provider:
            self._provider_since, self.quiet_rounds = now, 0
        if was[1:] != self._words[1:]:
            self._box_since, self.quiet_rounds = now, 0
        if seen.run_state:
            self.brought_up = True
        self._advanced = _has_advanced(before, seen)
        if seen.run is not None and seen.run.step is not None:
            self.step = seen.run.step

    def _denials_before(self, seen: Observation) -> int:
        """A machine that another controller rented meanwhile was not denied before."""
        is_other = None not in (self._denied, seen.denied) and self._denied != seen.denied
        return 0 if is_other else self.absences

    def note_brought_up(self) -> None:
        """It was just brought up: denials of before concern another box, and count no more."""
        self.brought_up, self.absences = True, 0

    @property
    def trains(self) -> bool:
        """Whether the run is at work and has been seen to get on; of one that tells no steps, to stay at work."""
        return self._advanced or (self.box.run_state == "running" and self.box.unchanged_s >= SETTLED_S)

    @property
    def provider(self) -> ProviderWord:
        now = self._clock()
        state = self._seen.provider if self._seen else "unreachable"
        item = self._seen.item if self._seen else None
        said = one_line(item.status_msg, MOST_SAID) if item is not None else ""
        return ProviderWord(state, now - self._seen_at, now - self._provider_since, self.absences, said)

    @property
    def box(self) -> BoxWord:
        seen, now = self._seen, self._clock()
        if seen is None:
            return BoxWord()
        stalled = seen.run is not None and seen.run.liveness == "stalled"
        age_s, unchanged_s = now - self._seen_at, now - self._box_since
        waits_for = seen.run.waits_for if seen.run is not None else ""
        zero_gpu, warnings = seen.zero_gpu, seen.warnings
        return BoxWord(seen.contact, seen.run_state, age_s, unchanged_s, stalled, zero_gpu, warnings, waits_for)

    def silence(self) -> Silence:
        seen = self._seen
        provider, contact = (seen.provider, seen.contact) if seen else ("unreachable", "not_tried")
        return Silence(seen.box if seen else "", provider, contact, self.absences)


def _has_advanced(before: Observation | None, seen: Observation) -> bool:
    if before is None or before.run is None or seen.run is None or (before.run_state, seen.run_state) != _BOTH_RUN:
        return False
    return before.run.step is not None and seen.run.step is not None and seen.run.step > before.run.step

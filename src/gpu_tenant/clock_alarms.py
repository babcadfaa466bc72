# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Danger clocks that have passed their alarm: each is said once for each box and account, whoever watches next.

What passes is decided by :func:`changes`, which is pure. What was said is kept in a file, because a watch that cron
starts lives for one round.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records

from gpu_tenant.alerts import Alerts

REASON = "clock"
_TO_DO = "nothing was changed; bring home what must not be lost (gpu-tenant harvest), or pay for what keeps it"
# By subject, a box or an account: its countdowns, as ``fleet.countdowns`` tells them; None where nobody could look.
Told = Mapping[str, Sequence[Mapping[str, Any]] | None]
# A subject and the effect of its clock.
Clock = tuple[str, str]


@dataclass(frozen=True)
class Changes:
    """``new`` holds countdowns by clock; ``standing`` is every clock that is past its alarm, as far as is known."""

    new: Mapping[Clock, Mapping[str, Any]]
    over: tuple[Clock, ...]
    standing: frozenset[Clock]


def changes(said: Collection[Clock], told: Told) -> Changes:
    """What a look at the clocks changes.

    A clock of which nobody knows how much is left stays as it was: an outage ends no danger. Of a subject that is not
    in ``told`` nothing is said: another watch looks after it.
    """
    clocks: dict[Clock, Mapping[str, Any]] = {}
    for subject, listed in told.items():
        for one in listed or ():
            # The most urgent comes first.
            clocks.setdefault((subject, str(one["effect"])), one)
    ringing = {key: one for key, one in clocks.items() if one["alarm"]}
    ours = {key for key in said if key[0] in told}
    kept = {key for key in ours if told[key[0]] is None or _is_unknown(clocks.get(key))}
    standing = frozenset(kept.union(ringing))
    new = {key: one for key, one in ringing.items() if key not in said}
    return Changes(new, tuple(sorted(ours - standing)), standing)


def _is_unknown(clock: Mapping[str, Any] | None) -> bool:
    return clock is not None and clock["left_s"] is None


class ClockAlarms:
    """:param memory: the file that keeps what was said. Losing it says everything once more."""

    def __init__(self, alerts: Alerts, memory: Path) -> None:
        self._alerts = alerts
        self._memory = memory
        self.standing: frozenset[Clock] = frozenset()

    def take(self, told: Told) -> None:
        """Say what is new and what is over. An alert that nobody got is said again the next time."""
        said = set(_read(self._memory))
        found = changes(said, told)
        self.standing = found.standing
        now_said = said.difference(found.over)
        for (subject, effect), clock in found.new.items():
            text = f"danger clock: {effect} {_when(clock)}; {_TO_DO}"
            if self._alerts.tell("alert", subject, REASON, text, clock=effect, left_s=clock["left_s"]):
                now_said.add((subject, effect))
        for subject, effect in found.over:
            self._alerts.tell("cleared", subject, REASON, clock=effect)
        if now_said != said:
            records.write_bytes(str(self._memory), json.dumps(sorted(now_said)).encode())


def _when(clock: Mapping[str, Any]) -> str:
    return "is overdue" if clock["left_s"] < 0 else f"in {clock['left']}"


def _read(memory: Path) -> Iterable[Clock]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return [(str(subject), str(effect)) for subject, effect in json.loads(memory.read_bytes())]
    return []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a vast box or copy may be stuck in, which has names of its own; the waits that only vast has."""

from __future__ import annotations

import contextlib
import re
from typing import Callable, Iterable, Mapping

from ..failures import TenantFailure
from ..rental_waiters import SETTLING_GRACE_S, DeadlinePassed, wait_until
from ..rented_box import Box
from .api import VastClient

# Seconds that a box may be between two states before it counts as stuck.
SCHEDULING_GRACE_S = 30.0  # longer, and the GPU was rented to someone else (vast.ai's own advice)
LOST_GRACE_S = 60.0  # a missed heartbeat is not a dead host
COPY_HEARD_WITHIN_S = 120.0  # a copy shows in the status about half a minute late

_OF_A_COPY = re.compile(r"\b(cop(?:y|ies|ied|ying)|r?sync(?:ing|ed)?|rclone|transferr?(?:ing|ed|s)?)\b", re.I)
_COPY_FAILED = re.compile(r"\b(fail(?:ed|ure|s)?|errors?|denied|no space|no such|abort(?:ed)?|cancell?ed)\b", re.I)
_COPY_FINISHED = re.compile(r"\b(finished|completed?|done|success(?:ful|fully)?)\b", re.I)


class StuckWatch:
    """Follows a box that should come up, and says why it will not."""

    def __init__(self, client: VastClient, box: Box) -> None:
        self._clock = client.clock
        self._state = box.state
        self._since = client.clock()

    def verdict(self, box: Box) -> str:
        """A sentence when the box is stuck, else an empty string."""
        if box.state != self._state:
            self._state, self._since = box.state, self._clock()
        held = self._clock() - self._since
        if box.failed_to_start:
            return f"the host cannot start the container: {box.status_msg[:200]}"
        grace, reason = _STUCK.get(box.state, (float("inf"), ""))
        if held < grace or not reason:
            return ""
        return f"{reason}, the provider says: {box.status_msg[:200]}" if box.status_msg else reason


_STUCK = {
    "scheduling": (SCHEDULING_GRACE_S, "it waits for a GPU that someone else has rented (stuck in scheduling)"),
    "outbid": (SETTLING_GRACE_S, "it was outbid before it ran"),
    "stopped": (SETTLING_GRACE_S, "it is stopped although it was told to run"),
    "exited": (SETTLING_GRACE_S, "its container ended by itself (exited)"),
    "offline": (LOST_GRACE_S, "its host is offline"),
    "unknown": (LOST_GRACE_S, "its host has sent no heartbeat"),
}


def wait_for_restart(client: VastClient, box: Box, look: Callable[[], Box | None]) -> None:
    """Returns once the box shows that it was told to restart, or had the time in which it would have shown it."""

    def restarted() -> bool | None:
        found = look()
        younger = found is not None and box.uptime_s is not None and (found.uptime_s or 0.0) < box.uptime_s
        return True if found is None or found.state != "running" or younger else None

    with contextlib.suppress(DeadlinePassed):
        wait_until(restarted, client.clock() + SETTLING_GRACE_S, client.back_off(0.5, 5.0), client.clock, client.sleep)


class CopyWatch:
    """Follows a copy of the provider's by the status messages of its instances, whose words no source fixes.

    :param before: the messages from before the copy was asked for; an unchanged one may speak of an earlier copy.
    :param stall_s: seconds that a message of a copy under way may stay the same.
    """

    def __init__(self, clock: Callable[[], float], before: Mapping[str, str], stall_s: float) -> None:
        self._clock = clock
        self._last = dict(before)
        self._stall_s = stall_s
        self._since = clock()
        self._under_way = False
        self.said = ""

    def outcome(self, messages: Mapping[str, str]) -> str | None:
        """``finished``, ``failed``, ``unsaid``, ``unchanged``, ``stalled`` or ``unheard``; None while it lasts."""
        fresh = [text for name, text in messages.items() if text != self._last.get(name)]
        if fresh:
            self._last, self._since = dict(messages), self._clock()
        ended = self._end_in(fresh)
        if ended:
            return ended
        going = [text for text in fresh if copy_word(text) == "under_way"]
        if going:
            self._under_way, self.said = True, going[0]
        held = self._clock() - self._since
        if not self._under_way:
            return self._old_end(messages) if held >= COPY_HEARD_WITHIN_S else None
        if not any(copy_word(text) for text in messages.values()):
            return "unsaid"
        return "stalled" if held >= self._stall_s else None

    def _end_in(self, messages: Iterable[str]) -> str | None:
        """The end that the messages tell, failures first."""
        texts = list(messages)
        for word in ("failed", "finished"):
            said = [text for text in texts if copy_word(text) == word]
            if said:
                self.said = said[0]
                return word
        return None

    def _old_end(self, messages: Mapping[str, str]) -> str:
        """What a message means that never changed: the end of an earlier copy may read as this one's does."""
        ended = self._end_in(messages.values())
        return {"failed": "failed", "finished": "unchanged"}.get(ended or "", "unheard")


def copy_word(text: str) -> str:
    """What a status message says of a copy: ``failed``, ``finished``, ``under_way``, or nothing."""
    words = re.sub(r"\S*/\S*", " ", text)  # a path may be called anything
    if not _OF_A_COPY.search(words):
        return ""
    if _COPY_FAILED.search(words):
        return "failed"
    return "finished" if _COPY_FINISHED.search(words) else "under_way"


def rent_another(box: Box) -> str:
    """How a person says that this machine is given up on: no verb does that by itself."""
    return f"rent another machine instead (vast_instance: replaces; the plays: provision_replace={box.provider_id})"


def stuck(box: Box, reason: str, fix: str = "") -> TenantFailure:
    name = box.stamp.box if box.stamp else ""
    return TenantFailure(
        "provider",
        f"instance {box.provider_id} on machine {box.machine_id}: {reason}",
        box=name,
        safe=f"it was last seen {box.state} and is kept as it is",
        fix=fix or f"{rent_another(box)}, or look at it in the provider's console",
    )

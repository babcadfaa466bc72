# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Waiting: every wait has a deadline, every poll a back-off, and being stuck has names of its own."""

from __future__ import annotations

import contextlib
import re
from typing import Callable, Iterable, Iterator, Mapping, TypeVar

from ..failures import TenantFailure
from .api import VastClient
from .transformations import Box

Found = TypeVar("Found")

# Seconds that a box may be between two states before it counts as stuck.
SCHEDULING_GRACE_S = 30.0  # longer, and the GPU was rented to someone else (vast.ai's own advice)
SETTLING_GRACE_S = 20.0  # a start or stop shows in the fields one after the other
LOST_GRACE_S = 60.0  # a missed heartbeat is not a dead host
COPY_HEARD_WITHIN_S = 120.0  # a copy shows in the status about half a minute late

_OF_A_COPY = re.compile(r"\b(cop(?:y|ies|ied|ying)|r?sync(?:ing|ed)?|rclone|transferr?(?:ing|ed|s)?)\b", re.I)
_COPY_FAILED = re.compile(r"\b(fail(?:ed|ure|s)?|errors?|denied|no space|no such|abort(?:ed)?|cancell?ed)\b", re.I)
_COPY_FINISHED = re.compile(r"\b(finished|completed?|done|success(?:ful|fully)?)\b", re.I)


class DeadlinePassed(Exception):
    """The wait ended without what it waited for."""


def wait_until(
    predicate: Callable[[], Found | None],
    deadline: float,
    backoff: Iterator[float],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Found:
    """The first answer of ``predicate`` that is not None; DeadlinePassed at ``deadline`` (in ``clock``'s time).

    It is asked at least once, and once more at the deadline itself.
    """
    while True:
        found = predicate()
        if found is not None:
            return found
        left = deadline - clock()
        if left <= 0:
            raise DeadlinePassed
        sleep(min(next(backoff), left))


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


def wait_for_running(client: VastClient, box: Box, look: Callable[[], Box | None], wait_s: float) -> Box:
    """``box`` once it runs and has an endpoint. TenantFailure that names what it is stuck in."""
    watch = StuckWatch(client, box)
    last = [box]

    def running() -> Box | None:
        found = look()
        if found is None:
            raise stuck(box, "the provider no longer lists it", fix="rent another box")
        last[0] = found
        if found.endpoint_problem:
            raise stuck(found, found.endpoint_problem)
        reason = watch.verdict(found)
        if reason:
            raise stuck(found, reason)
        return found if found.state == "running" and found.host else None

    try:
        return wait_until(running, client.clock() + wait_s, client.back_off(0.5, 10.0), client.clock, client.sleep)
    except DeadlinePassed:
        said = f", the provider says: {last[0].status_msg[:200]}" if last[0].status_msg else ""
        raise stuck(last[0], f"it is still {last[0].state} after {wait_s:.0f} s{said}") from None


def wait_for_restart(client: VastClient, box: Box, look: Callable[[], Box | None]) -> None:
    """Returns once the box shows that it was told to restart, or had the time in which it would have shown it."""

    def restarted() -> bool | None:
        found = look()
        younger = found is not None and box.uptime_s is not None and (found.uptime_s or 0.0) < box.uptime_s
        return True if found is None or found.state != "running" or younger else None

    with contextlib.suppress(DeadlinePassed):
        wait_until(restarted, client.clock() + SETTLING_GRACE_S, client.back_off(0.5, 5.0), client.clock, client.sleep)


def wait_for_rest(client: VastClient, box: Box, look: Callable[[], Box | None], wait_s: float) -> Box | None:
    """``box`` once it no longer computes, None when it is gone."""

    def resting() -> tuple[Box | None] | None:
        found = look()
        at_rest = found is None or (found.intended == "stopped" and found.state in ("stopped", "outbid"))
        return (found,) if at_rest else None

    try:
        return wait_until(resting, client.clock() + wait_s, client.back_off(0.5, 10.0), client.clock, client.sleep)[0]
    except DeadlinePassed:
        raise stuck(box, f"it has not stopped after {wait_s:.0f} s") from None


def wait_for_gone(client: VastClient, box: Box, gone: Callable[[], bool], wait_s: float) -> None:
    """Returns once ``gone`` was true twice running: the provider says it in two readings, not one."""
    readings = [0]

    def twice() -> bool | None:
        readings[0] = readings[0] + 1 if gone() else 0
        return True if readings[0] >= 2 else None

    try:
        wait_until(twice, client.clock() + wait_s, client.back_off(0.5, 10.0), client.clock, client.sleep)
    except DeadlinePassed:
        raise stuck(
            box,
            f"the provider still lists it {wait_s:.0f} s after it was destroyed",
            fix="run again: destroying it again is safe, and it may still bill",
        ) from None


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

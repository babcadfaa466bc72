# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Waiting for a provider: every wait has a deadline, every poll a back-off, and being stuck has names of its own."""

from __future__ import annotations

from typing import Any, Callable, Iterator, TypeVar

from .failures import TenantFailure
from .rented_box import AnyBox

Found = TypeVar("Found")
# How a provider's account says that a box is stuck: the box, the reason, what to do (empty for the usual).
Stuck = Callable[[Any, str, str], TenantFailure]

SETTLING_GRACE_S = 20.0  # a start or stop shows in the fields one after the other


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


def wait_for(client: Any, predicate: Callable[[], Found | None], wait_s: float) -> Found:
    """The first answer of ``predicate`` that is not None, on the client's clock. DeadlinePassed."""
    deadline = client.clock() + wait_s
    return wait_until(predicate, deadline, client.back_off(0.5, 10.0), client.clock, client.sleep)


def wait_for_running(
    client: Any,
    box: AnyBox,
    look: Callable[[], AnyBox | None],
    verdict: Callable[[AnyBox], str],
    stuck: Stuck,
    wait_s: float,
) -> AnyBox:
    """``box`` once it runs and has an endpoint. TenantFailure that names what it is stuck in.

    :param verdict: a sentence when a box as it is now will not come up, else an empty string.
    """
    last = [box]

    def running() -> AnyBox | None:
        found = look()
        if found is None:
            raise stuck(box, "the provider no longer lists it", "rent another box")
        last[0] = found
        reason = found.endpoint_problem or verdict(found)
        if reason:
            raise stuck(found, reason, "")
        return found if found.state == "running" and found.host else None

    try:
        return wait_for(client, running, wait_s)
    except DeadlinePassed:
        said = f", the provider says: {last[0].status_msg[:200]}" if last[0].status_msg else ""
        raise stuck(last[0], f"it is still {last[0].state} after {wait_s:.0f} s{said}", "") from None


def wait_for_rest(
    client: Any, box: AnyBox, look: Callable[[], AnyBox | None], stuck: Stuck, wait_s: float
) -> AnyBox | None:
    """``box`` once it no longer computes, None when it is gone."""

    def resting() -> tuple[AnyBox | None] | None:
        found = look()
        at_rest = found is None or (found.intended == "stopped" and found.is_resting)
        return (found,) if at_rest else None

    try:
        return wait_for(client, resting, wait_s)[0]
    except DeadlinePassed:
        raise stuck(box, f"it has not stopped after {wait_s:.0f} s", "") from None


def wait_for_gone(client: Any, box: AnyBox, gone: Callable[[], bool], stuck: Stuck, wait_s: float) -> None:
    """Returns once ``gone`` was true twice running: the provider says it in two readings, not one."""
    readings = [0]

    def twice() -> bool | None:
        readings[0] = readings[0] + 1 if gone() else 0
        return True if readings[0] >= 2 else None

    try:
        wait_for(client, twice, wait_s)
    except DeadlinePassed:
        reason = f"the provider still lists it {wait_s:.0f} s after it was destroyed"
        raise stuck(box, reason, "run again: destroying it again is safe, and it may still bill") from None

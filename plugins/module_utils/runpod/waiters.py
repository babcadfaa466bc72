# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Waiting for a pod: every wait has a deadline, and being stuck has names of its own."""

from __future__ import annotations

from typing import Callable

from ..failures import TenantFailure
from ..vast.waiters import SETTLING_GRACE_S, DeadlinePassed, wait_until
from .api import RunpodClient
from .transformations import Pod

Look = Callable[[], "Pod | None"]


def wait_for_running(client: RunpodClient, pod: Pod, look: Look, wait_s: float) -> Pod:
    """``pod`` once its own sshd has a public port. TenantFailure that names what it is stuck in."""
    began = client.clock()
    last = [pod]

    def running() -> Pod | None:
        found = look()
        if found is None or found.is_leaving:
            raise stuck(found or pod, "the provider no longer has it")
        last[0] = found
        if found.endpoint_problem:
            raise stuck(found, found.endpoint_problem)
        if not found.has_ssh:
            raise stuck(found, "its ports lack 22/tcp, and RunPod's proxy is a shell that carries no file")
        if found.state == "stopped" and client.clock() - began >= SETTLING_GRACE_S:
            raise stuck(found, "it is stopped although it was told to run")
        return found if found.state == "running" else None

    try:
        return wait_until(running, began + wait_s, client.back_off(0.5, 10.0), client.clock, client.sleep)
    except DeadlinePassed:
        raise stuck(last[0], f"it is still {last[0].state} after {wait_s:.0f} s") from None


def wait_for_rest(client: RunpodClient, pod: Pod, look: Look, wait_s: float) -> Pod | None:
    """``pod`` once it no longer computes, None when it is gone."""

    def resting() -> tuple[Pod | None] | None:
        found = look()
        return (found,) if found is None or found.state == "stopped" else None

    try:
        backoff = client.back_off(0.5, 10.0)
        return wait_until(resting, client.clock() + wait_s, backoff, client.clock, client.sleep)[0]
    except DeadlinePassed:
        raise stuck(pod, f"it has not stopped after {wait_s:.0f} s") from None


def wait_for_gone(client: RunpodClient, pod: Pod, gone: Callable[[], bool], wait_s: float) -> None:
    """Returns once ``gone`` was true twice running: a delete that was answered is not a pod that is gone."""
    readings = [0]

    def twice() -> bool | None:
        readings[0] = readings[0] + 1 if gone() else 0
        return True if readings[0] >= 2 else None

    try:
        wait_until(twice, client.clock() + wait_s, client.back_off(0.5, 10.0), client.clock, client.sleep)
    except DeadlinePassed:
        reason = f"the provider still has it {wait_s:.0f} s after it was terminated"
        raise stuck(pod, reason, "run again: terminating it again is safe, and it may still bill") from None


def stuck(pod: Pod, reason: str, fix: str = "") -> TenantFailure:
    return TenantFailure(
        "provider",
        f"pod {pod.provider_id}: {reason}",
        box=pod.stamp.box if pod.stamp else "",
        safe=f"it was last seen {pod.state} and is kept as it is",
        fix=fix or "look at it in the provider's console; harvest what it holds before it is made absent",
    )

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant ssh``: a shell or one command on a box, known by its pinned key."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import job
from gpu_tenant.box_ssh import known_hosts_of, ssh_command
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observer

# Its connection is the person's own: no socket that outlives it, nothing that waits for a runner.
_NO_SOCKET = ""


def one_box(boxes: Sequence[BoxHost], wanted: str) -> BoxHost:
    """The one box that was named; TenantFailure (``config``) for a group."""
    if len(boxes) != 1:
        shown = ", ".join(box.name for box in boxes[:5])
        raise TenantFailure(
            "config",
            f"{wanted} names {len(boxes)} boxes: {shown}",
            safe="no connection was opened",
            fix="name one box",
        )
    return boxes[0]


def command(observer: Observer, host: BoxHost, words: Sequence[str], terminal: bool) -> list[str]:
    """The ssh command line for ``words`` on the box, for a shell without any.

    :param terminal: whether somebody sits at one.
    """
    argv = ssh_command(host, observer.endpoint(host.name), known_hosts_of(host), _NO_SOCKET)
    # What follows the address is one text for the far shell, as ssh has it.
    return [argv[0], *(["-t"] if terminal else []), *argv[1:], *words]


def become(argv: Sequence[str]) -> None:
    """Be ssh from here on, with its exit code and signals. Returns never."""
    job.require_programs((argv[0],))
    os.execvp(argv[0], list(argv))  # noqa: S606 - no shell is wanted here

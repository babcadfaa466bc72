# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the host's daemon wrote about an instance: its own acts, with times. Its words are ours; no source has any."""

from __future__ import annotations

import datetime

from .instances import Instance


def daemon_log(instance: Instance) -> str:
    """One line for each thing that happened to the instance, oldest first."""
    lines = [(instance.created_at, f"contract {instance.id} created, image {instance.image}")]
    for segment in instance.compute:
        lines.append((segment.start, f"container C.{instance.id} runs at ${segment.rate:g} an hour"))
        if segment.end is not None:
            lines.append((segment.end, f"container C.{instance.id} ended, or its price changed"))
    last = max(moment for moment, _text in lines)
    lines.append((last, f"phase {instance.phase.value}: {instance.status_msg or 'no message'}"))
    return "".join(f"{_utc(moment)} {text}\n" for moment, text in sorted(lines, key=lambda line: line[0]))


def _utc(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which of the boxes that may do a run's work does it, chosen from one look at all of them by ``go`` and ``watch``.

A look in which one of them was not seen is no choice: the run may be at work on that very box, and another would be
rented beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import recoveries
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observation

# A run in these states is where the work is, whether or not it needs a push.
_AT_WORK = ("running", "queued", "verifying", "copying", "preempted", "done")


def why_not_yet(boxes: Sequence[BoxHost], seen: Mapping[str, Observation]) -> TenantFailure | None:
    """Why nothing can be chosen from this look; None when it can. A single box is no choice."""
    dark = [seen[box.name] for box in boxes if seen[box.name].provider == "unreachable"]
    if len(boxes) < 2 or not dark:
        return None
    names = ", ".join(one.box for one in dark)
    reason = f" ({dark[0].problem.rstrip('.')})" if dark[0].problem else ""
    refused = any(one.refused for one in dark)
    return TenantFailure(
        "config" if refused else "unreachable",
        f"which candidate does the work is not known: {names} could not be looked at{reason}",
        safe="nothing was rented or started",
        fix="mend what is named, or leave that box out" if refused else "it goes on as soon as all can be seen",
    )


def in_order(
    boxes: Iterable[BoxHost], seen: Mapping[str, Observation], lines: Sequence[Mapping[str, Any]], now: str
) -> list[BoxHost]:
    """The box that the run is on goes first, then one that runs, then one that is rented; where the run was taken from
    lately goes last. Otherwise in the order given.

    :param lines: of the journal.
    """

    def place(box: BoxHost) -> tuple[bool, bool, bool, bool]:
        look = seen[box.name]
        left = recoveries.tried(lines, box.required("tenant_project"), box.name, now).next_candidate > 0
        rented = look.provider != "absent" or _is_on_record(box)
        return look.run_state not in _AT_WORK, left, look.provider != "running", not rented

    return sorted(boxes, key=place)


def _is_on_record(box: BoxHost) -> bool:
    """Whether we rented it and do not know that it is gone: the provider may deny it by mistake, so it is not passed
    over. A record that cannot be read is one."""
    try:
        store = StateStore(box.required("tenant_state_dir"))
        return bool(store.rented_box(box.required("tenant_project"), box.name))
    except records.RecordError:
        return True

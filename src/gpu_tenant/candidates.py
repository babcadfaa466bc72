# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which of the boxes that may do a run's work does it: in the order of the run spec, chosen from one look at all of
them by ``go`` and ``watch``.

A look in which one of them was not seen is no choice: the run may be at work on that very box, and another would be
rented beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import recoveries
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

# A run in these states is where the work is, whether or not it needs a push.
_AT_WORK = ("running", "queued", "verifying", "copying", "preempted", "done")
# So many names are told to who misspelt one.
_MOST_TOLD = 8


def in_spec_order(boxes: Sequence[BoxHost], spec: Mapping[str, Any], declared: Collection[str] = ()) -> list[BoxHost]:
    """``boxes`` in the order in which ``candidates`` of the run spec names them or their groups; the boxes of a group,
    and at the end those that it does not name, in the order given.

    :param declared: all boxes of the inventory and the groups that hold them: a candidate outside of the limit is left
        out, one that is not in the inventory is a mistake.
    :raises TenantFailure: kind ``config``, for a name that is not in the inventory.
    """
    wanted = list(spec.get("candidates") or [])
    _refuse_unknown(wanted, {*declared, *(name for box in boxes for name in _names(box))}, spec)

    def rank(box: BoxHost) -> int:
        return min((wanted.index(name) for name in _names(box) if name in wanted), default=len(wanted))

    return sorted(boxes, key=rank)


def _names(box: BoxHost) -> tuple[str, ...]:
    return (box.name, *box.groups)


def _refuse_unknown(wanted: Iterable[str], known: Collection[str], spec: Mapping[str, Any]) -> None:
    unknown = [name for name in wanted if name not in known]
    if not unknown:
        return
    near = [close for name in unknown for close in difflib.get_close_matches(name, sorted(known), n=2, cutoff=0.5)]
    told = list(dict.fromkeys(near)) or sorted(known)
    more = ", …" if len(told) > _MOST_TOLD else ""
    raise TenantFailure(
        "config",
        f"run {spec.get('id')} has candidates that are no box of the inventory and no group that holds one: "
        f"{', '.join(map(repr, unknown))}",
        safe="nothing was rented",
        fix=f"correct candidates in {spec.get('source')}; {'near are' if near else 'known are'} "
        f"{', '.join(told[:_MOST_TOLD])}{more}",
    )


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
    """Whether we rented it and nobody gave it back: the provider may deny it by mistake, and one that is being
    recovered is not passed over. A record that cannot be read is one."""
    try:
        place = StateStore(box.required("tenant_state_dir")), box.required("tenant_project"), box.name
        return bool(StateStore.rented_box(*place) or gone_record.missed_box(*place))
    except records.RecordError:
        return True

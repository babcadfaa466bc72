# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is on the account: every stamped box, which of them count, and what they have cost."""

from __future__ import annotations

from typing import Any, Sequence

from ..rented_box import Box, current_and_superseded, number
from ..state_store import StateStore
from .api import VastClient
from .ghosts import listed_boxes
from .transformations import box_result, charges_by_box


def list_boxes(
    client: VastClient, project: str | None, name: str | None, charges: bool, store: StateStore | None = None
) -> dict[str, Any]:
    """What ``vast_instance_info`` returns; with ``store``, what it knows of each box as well."""
    boxes = listed_boxes(client, store)
    ours = [box for box in boxes if _is_asked_for(box, project, name)]
    current = {box.provider_id for box in _current(ours)}
    billed = charges_by_box(billed_since(client, ours)) if charges else {}
    instances = [
        dict(
            box_result(box, client.provider_now()),
            is_current=box.provider_id in current,
            billed=billed.get(box.provider_id),
            **({"record": _record(store, box)} if store else {}),
        )
        for box in sorted(ours, key=_place)
    ]
    result = {"changed": False, "instances": instances, "unstamped": len([box for box in boxes if box.stamp is None])}
    if charges:
        result["credit"] = number(client.user().get("credit"))
    return result


def billed_since(client: VastClient, boxes: Sequence[Box]) -> list[dict[str, Any]]:
    """The account's charges since the oldest of the boxes began."""
    until = client.provider_now()
    starts = [box.start_date for box in boxes if box.start_date is not None]
    return client.charges(min(starts), until) if starts and until is not None else []


def _record(store: StateStore, box: Box) -> dict[str, Any] | None:
    """The box record, if it is of this very machine."""
    stamp = box.stamp
    record = store.read_box(stamp.project, stamp.box, stamp.generation) if stamp else None
    return record if record and record.get("provider_id") == box.provider_id else None


def _is_asked_for(box: Box, project: str | None, name: str | None) -> bool:
    stamp = box.stamp
    return stamp is not None and (not project or stamp.project == project) and (not name or stamp.box == name)


def _current(boxes: Sequence[Box]) -> list[Box]:
    names = {(box.stamp.project, box.stamp.box) for box in boxes if box.stamp}
    found = [current_and_superseded(boxes, project, name)[0] for project, name in sorted(names)]
    return [box for box in found if box is not None]


def _place(box: Box) -> tuple[str, str, int, int]:
    stamp = box.stamp
    return (stamp.project if stamp else "", stamp.box if stamp else "", -box.generation, int(box.provider_id))

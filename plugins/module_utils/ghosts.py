# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes that were destroyed and that a list which lags behind goes on showing, as they ran."""

from __future__ import annotations

from typing import Any, Iterable

from . import power_record
from .box.records import RecordError
from .rented_box import AnyBox, Box
from .state_store import BoxIdentity, StateStore


def real_boxes(client: Any, store: StateStore | None, boxes: Iterable[AnyBox]) -> list[AnyBox]:
    """The boxes that are there, in their order. Only a box that should be gone costs another question.

    :param client: whose ``get_instance`` says that a box is not there by None.
    :param store: what tells which boxes we destroyed; without one, only the list itself does.
    """
    return [box for box in boxes if not is_only_listed(client, store, box)]


def is_only_listed(client: Any, store: StateStore | None, box: Box) -> bool:
    """Whether a box that we destroyed, or that is leaving, is on the list alone: its own item knows it no more."""
    return (box.is_leaving or _we_destroyed(store, box)) and client.get_instance(box.provider_id) is None


def _we_destroyed(store: StateStore | None, box: Box) -> bool:
    stamp = box.stamp
    if store is None or stamp is None:
        return False
    identity = BoxIdentity(stamp.project, stamp.box, stamp.generation, box.provider_id)
    try:
        record = power_record.read(store, identity)
    except RecordError:
        return False  # a damaged record ends no box
    return bool((record or {}).get("destroyed_at"))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes that were destroyed and that a list which lags behind goes on showing, as they ran."""

from __future__ import annotations

from typing import Iterable

from .. import power_record
from ..box.records import RecordError
from ..state_store import BoxIdentity, StateStore
from .api import VastClient
from .transformations import Box, to_box


def listed_boxes(client: VastClient, store: StateStore | None) -> list[Box]:
    """The account's boxes as the provider lists them now, without ghosts."""
    return real_boxes(client, store, map(to_box, client.list_instances()))


def real_boxes(client: VastClient, store: StateStore | None, boxes: Iterable[Box]) -> list[Box]:
    """The boxes that are there, in their order. Only a box that should be gone costs another question.

    :param store: what tells which boxes we destroyed; without one, only the list itself does.
    """
    return [box for box in boxes if not is_only_listed(client, store, box)]


def is_only_listed(client: VastClient, store: StateStore | None, box: Box) -> bool:
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

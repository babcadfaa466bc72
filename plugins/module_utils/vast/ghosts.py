# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The account's boxes, without those that only a list that lags behind still shows."""

from __future__ import annotations

from ..ghosts import real_boxes
from ..rented_box import Box
from ..state_store import StateStore
from .api import VastClient
from .transformations import to_box


def listed_boxes(client: VastClient, store: StateStore | None) -> list[Box]:
    """The account's boxes as the provider lists them now, without ghosts."""
    return real_boxes(client, store, map(to_box, client.list_instances()))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a look says, in the records that the gate, the budget and the next look go by: that a machine which counted as
lost is there, whether it rests or works, and how far its run is."""

from __future__ import annotations

from ansible_collections.tenant.gpu.plugins.module_utils import gone_record, last_contact, power_record
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant.observation import Observation


def note(store: StateStore, project: str, seen: Observation) -> None:
    """Of the machine that is there and of those that it replaced, which bill as well.

    :raises RecordError: a record cannot be read.
    """
    for item in [*([seen.item] if seen.item is not None else []), *seen.superseded]:
        identity = BoxIdentity(project, seen.box, item.generation, item.provider_id)
        gone_record.note_there(store, item, seen.asked_at)
        power_record.note_seen(store, identity, item.state, item.intended, seen.asked_at)
    if seen.item is not None and seen.run is not None:
        # If the box is lost after this look, that much is known of its run.
        ours = BoxIdentity(project, seen.box, seen.generation, seen.item.provider_id)
        last_contact.note(store, ours, last_contact.of_status([seen.run.raw]))

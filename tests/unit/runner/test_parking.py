# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which machines nobody told to stop, by what their provider shows of them and by our own record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

from gpu_tenant import parking
from gpu_tenant.hosts import BoxHost

RESTS = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped"}
OUTBID = {**RESTS, "min_bid": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def computes(store: StateStore, row: dict[str, Any], **shown: Any) -> bool:
    host = BoxHost("digits-1", {"tenant_project": "demo", "tenant_state_dir": store.root})
    return parking.computes(host, to_box({**row, **shown}))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, True),
        (RESTS, False),
        (OUTBID, True),
        ({"actual_status": "exited"}, True),
        ({"actual_status": "offline"}, True),
        ({"actual_status": "loading"}, True),
        ({"intended_status": "stopped"}, False),
        ({"cur_state": "unloaded"}, False),
    ],
    ids=["at work", "stopped", "outbid", "exited", "offline", "loading", "told to stop", "leaving"],
)
def test_what_nobody_told_to_stop(
    store: StateStore, vast_row: dict[str, Any], shown: dict[str, Any], expected: bool
) -> None:
    assert computes(store, vast_row, **shown) is expected


def test_an_outbid_box_that_we_told_to_stop_stays_stopped(store: StateStore, vast_row: dict[str, Any]) -> None:
    store.update_box("demo", "digits-1", 2, provider_id="4242")
    assert computes(store, vast_row, **OUTBID)
    store.update_box("demo", "digits-1", 2, parked_at="2026-11-23T00:00:00Z")
    assert not computes(store, vast_row, **OUTBID)


def test_the_record_of_another_machine_says_nothing_of_this_one(store: StateStore, vast_row: dict[str, Any]) -> None:
    store.update_box("demo", "digits-1", 2, provider_id="4243", parked_at="2026-11-23T00:00:00Z")
    assert computes(store, vast_row, **OUTBID)


def test_nothing_computes_where_nothing_is_rented(store: StateStore) -> None:
    host = BoxHost("digits-1", {"tenant_project": "demo", "tenant_state_dir": store.root})
    assert not parking.computes(host, None)

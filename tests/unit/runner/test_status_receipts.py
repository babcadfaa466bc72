# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the receipts at home say of a box, as ``gpu-tenant status`` shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import status, status_view
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def host(tmp_path: Path, driver: str) -> BoxHost:
    return BoxHost("b1", {"tenant_project": "p", "tenant_state_dir": str(tmp_path), "platform_driver": driver})


def receipt(store: StateStore, run_id: str, generation: int = 2, **says: Any) -> str:
    path = store.receipt_path("p", run_id, "b1", generation)
    records.write_record(path, "receipt", {"run_id": run_id, **says})
    return path


def line(host: BoxHost, seen: Observation) -> str:
    return status_view.line(status.row(host, seen))["watch out"]


def test_what_was_left_on_the_box_is_summed_over_its_runs(tmp_path: Path, store: StateStore, vast_item: Any) -> None:
    receipt(store, "r1", not_pulled_totals={"files": 3, "bytes": 2_000_000})
    receipt(store, "r2", not_pulled_totals={"files": 1, "bytes": 1_000_000})
    receipt(store, "old", generation=1, not_pulled_totals={"files": 50, "bytes": 1})
    seen = Observation("b1", "t", "stopped", vast_item)
    assert status.row(host(tmp_path, "vast"), seen)["not_pulled"] == {"files": 4, "bytes": 3_000_000}
    assert "4 files (3.0 MB) were not pulled" in line(host(tmp_path, "vast"), seen)


def test_parts_that_the_results_wait_for_are_named(tmp_path: Path, store: StateStore, vast_item: Any) -> None:
    receipt(store, "r1", waits_for=["node-b", "node-c"])
    assert "wait for node-b, node-c" in line(host(tmp_path, "vast"), Observation("b1", "t", "stopped", vast_item))


def test_a_box_that_no_provider_numbers_has_receipts_too(tmp_path: Path, store: StateStore) -> None:
    receipt(store, "r1", generation=1, not_pulled_totals={"files": 1, "bytes": 5})
    assert "1 files (5 B)" in line(host(tmp_path, ""), Observation("b1", "t", "running"))


def test_nothing_left_nothing_said_and_a_damaged_receipt_is_no_traceback(
    tmp_path: Path, store: StateStore, vast_item: Any
) -> None:
    seen = Observation("b1", "t", "stopped", vast_item)
    assert line(host(tmp_path, "vast"), seen) == ""
    path = Path(receipt(store, "r1", not_pulled_totals={"files": 1, "bytes": 5}))
    path.write_text(path.read_text()[:30])
    assert line(host(tmp_path, "vast"), seen) == ""

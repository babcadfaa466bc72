# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which receipt a finished run is told by, when several machines brought it home."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

SPEC = "5" * 64


def bring_home(store: StateStore, box: str, generation: int, hour: int, complete: bool = True) -> None:
    receipt = {"box": box, "generation": generation, "complete": complete, "spec_sha256": SPEC}
    receipt["verified_at"] = f"2026-11-21T{hour:02d}:00:00Z"
    records.write_record(store.receipt_path("p", "r", box, generation), "receipt", receipt)


@pytest.mark.parametrize(
    ("brought", "counts"),
    [
        ([("a", 1, 1, True)], ("a", 1)),
        # What was replaced is harvested by its deadline, a day after the machine that counts.
        ([("a", 1, 9, True), ("a", 2, 1, True)], ("a", 2)),
        ([("a", 2, 9, True), ("a", 10, 1, True)], ("a", 10)),
        ([("a", 1, 9, True), ("a", 2, 1, False)], ("a", 1)),
        # Of two candidates neither came after the other.
        ([("a", 3, 1, True), ("b", 1, 2, True)], ("b", 1)),
        ([("a", 1, 9, True), ("a", 2, 1, True), ("b", 1, 5, True)], ("b", 1)),
        ([("a", 1, 1, False)], None),
    ],
)
def test_of_one_box_the_machine_that_was_rented_last_counts(
    tmp_path: Path, brought: list[tuple[str, int, int, bool]], counts: tuple[str, int] | None
) -> None:
    store = StateStore(str(tmp_path))
    for one in brought:
        bring_home(store, *one)
    found = store.finished_receipt("p", "r", SPEC)
    assert (None if found is None else (found["box"], found["generation"])) == counts

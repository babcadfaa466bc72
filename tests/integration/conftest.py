# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Order of the files: those with one long story go first, so that no worker is left with one when all else is done."""

from __future__ import annotations

import pytest

# By their duration on two idle cores, from minutes down; the rest follow in their own order.
LONGEST_FIRST = (
    "test_train_nodes",
    "test_plain_ansible",
    "test_runner_go",
    "test_runner_demo",
    "test_box_probe",
    "test_resume_elsewhere",
    "test_trouble_stories",
    "test_resume_drill",
    "test_harvest_parts",
    "test_supervisor",
    "test_harvest_stopped",
    "test_watch_signals",
    "test_harvest_superseded",
    "test_runner_drill",
    "test_rehearse",
    "test_harvest_failed",
    "test_transfer_attacks",
    "test_checked_sync",
    "test_supervisor_module",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)

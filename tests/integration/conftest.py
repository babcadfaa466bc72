# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Order of the files: those with one long story go first, so that no worker is left with one when all else is done.

And the patience of Ansible's ssh: until a login's banner comes, sshd has started two processes on a machine that may
have a dozen others to run.

And one sshd for the tests of a file that need a box and no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from loopback_sshd import LoopbackBox, loopback_box

LOGIN_WITHIN_S = "120"
os.environ.setdefault("ANSIBLE_TIMEOUT", LOGIN_WITHIN_S)

# From minutes down to a quarter of one; the rest follow in their own order.
LONGEST_FIRST = (
    "test_train_nodes",
    "test_plain_ansible",
    "test_runner_go",
    "test_runner_demo",
    "test_trouble_stories",
    "test_resurrected_box",
    "test_next_market",
    "test_rehearse",
    "test_sweep_story",
    "test_resume_elsewhere",
    "test_box_probe",
    "test_supervisor_module",
    "test_runner_drill",
    "test_harvest_superseded",
    "test_supervisor",
    "test_evidence_gate",
    "test_resume_drill",
    "test_bad_input",
    "test_digits_resume",
    "test_checked_sync",
    "test_vast_modules",
    "test_marketplace_cli",
    "test_box_locate",
    "test_harvest_failed",
    "test_marketplace_differential",
    "test_durable_checkpoints",
    "test_transfer_attacks",
    "test_supervisor_watch",
    "test_runpod_plays",
    "test_profiles_inventory",
    "test_vast_inventory",
    "test_vast_litanies",
    "test_inputs_module",
    "test_tracker",
    "test_runner_playbooks",
    "test_watch_signals",
    "test_example_specs",
    "test_harvest_parts",
    "test_harvest_stopped",
)


@pytest.fixture(scope="module")
def box_with_rsync() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)

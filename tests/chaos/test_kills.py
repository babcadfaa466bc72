# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``kill -9`` of the runner at instants of a full lifecycle; the whole number is ``make bench BENCH=kills``.

What a seed found is played again with ``KILLS_SEED=7``, and one instant with ``KILLS_AT=withdrawn:12``.
"""

from __future__ import annotations

import os
from pathlib import Path

import lifecycle
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import Found
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account

pytestmark = pytest.mark.integration

# Two of each phase.
KILLS, LANES = 14, 2


def test_a_killed_runner_leaves_no_orphan_rents_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    with lifecycle.markets(tmp_path, LANES) as markets:
        counts = lifecycle.instants(tmp_path / "undisturbed", markets[0])
        assert set(counts) == {"watch", "train", "deploy", "harvest", lifecycle.WITHDRAWN, "park", "teardown"}
        chosen = lifecycle.drawn(counts, KILLS, int(os.environ.get("KILLS_SEED", "1")))
        if "KILLS_AT" in os.environ:
            phase, number = os.environ["KILLS_AT"].split(":")
            chosen = [lifecycle.Instant(phase, int(number))]
        verdicts = lifecycle.killed_at_each(tmp_path, markets, chosen)
    assert not (wrong := [verdict for verdict in verdicts if not verdict.is_clean]), "\n".join(map(str, wrong))
    assert sum(verdict.was_killed for verdict in verdicts) >= min(KILLS - 2, len(chosen))


def test_a_client_that_rents_without_a_look_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "locate", lambda self, project, name: Found(None))
    monkeypatch.setattr(Account, "_check_known_ids", lambda *_about: None)
    with lifecycle.markets(tmp_path, 1) as markets:
        (verdict,) = lifecycle.killed_at_each(tmp_path, markets, [lifecycle.Instant("deploy", 1)])
    assert verdict.was_killed
    assert verdict.double_rentals > 0

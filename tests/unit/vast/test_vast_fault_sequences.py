# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Seeded sequences of operations and faults: whatever happens, one box per name, no foreign box touched, an end.

A failure names its seed: it is the number in the test's id, and replays. ``make soak`` plays 10,000.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_sequence import LEAST_OPERATIONS, LEAST_STRUCK, RENTED_TWICE, Broken, Sequence, creates_are_repeated

SEEDS = int(os.environ.get("GPU_TENANT_FAULT_SEQUENCES", "500"))
CAUGHT_WITHIN = 500
# Sequences that broke a rule once, found by `make soak`.
BROKE_ONCE = (2614, 9385)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "market"
    shutil.rmtree(tmp_path / "market", ignore_errors=True)


@pytest.mark.parametrize("seed", [*range(SEEDS), *BROKE_ONCE])
def test_a_sequence_of_operations_and_faults(folder: Path, seed: int) -> None:
    sequence = Sequence(folder, seed)
    sequence.play()
    assert len(sequence.operations) >= LEAST_OPERATIONS
    assert sequence.struck_in_all >= LEAST_STRUCK


def test_the_same_seed_plays_the_same(folder: Path) -> None:
    played = []
    for _time in range(2):
        sequence = Sequence(folder, 7)
        sequence.play()
        shutil.rmtree(folder)
        played.append((sequence.operations, sequence.struck_in_all, [method for method, _path in sequence.market.sent]))
    assert played[0] == played[1]


def test_a_client_that_repeats_its_creates_is_caught(folder: Path) -> None:
    caught: list[Broken] = []
    seeds = iter(range(CAUGHT_WITHIN))
    with creates_are_repeated():
        while not caught:
            seed = next(seeds, None)
            assert seed is not None, f"{CAUGHT_WITHIN} sequences did not notice"
            try:
                Sequence(folder, seed).play()
            except Broken as broken:
                caught += [broken] if broken.rule in RENTED_TWICE else []
            finally:
                shutil.rmtree(folder)

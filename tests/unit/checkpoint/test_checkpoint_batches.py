# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The shuffled batches whose position can be saved, and when a save is due."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tenant_checkpoint import Cadence, CheckpointError, ShuffledBatches, young_daly
from torch.utils.data import DataLoader, TensorDataset


def epochs(batches: ShuffledBatches, count: int) -> list[list[int]]:
    """All batches until ``count`` epochs are done, advancing as a training does."""
    seen = []
    while batches.epoch < count:
        for batch in batches:
            seen.append(batch)
            batches.advance()
    return seen


sizes = st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**40)


@given(*sizes, st.booleans())
def test_an_epoch_is_every_item_once(length: int, batch_size: int, seed: int, shuffle: bool) -> None:
    batches = ShuffledBatches(length, batch_size, seed, shuffle)
    listed = list(batches)
    assert len(listed) == len(batches)
    assert sorted(itertools.chain(*listed)) == list(range(length))
    assert all(len(batch) == batch_size for batch in listed[:-1])


@given(*sizes)
def test_dropping_the_last_leaves_whole_batches(length: int, batch_size: int, seed: int) -> None:
    if length < batch_size:
        with pytest.raises(ValueError, match="no batch"):
            ShuffledBatches(length, batch_size, seed, drop_last=True)
        return
    listed = list(ShuffledBatches(length, batch_size, seed, drop_last=True))
    assert len(listed) == length // batch_size
    assert all(len(batch) == batch_size for batch in listed)


@settings(deadline=None)
@given(*sizes, st.data())
def test_resumed_anywhere_the_rest_is_the_same(length: int, batch_size: int, seed: int, data: st.DataObject) -> None:
    calm = epochs(ShuffledBatches(length, batch_size, seed), 3)
    cut = data.draw(st.integers(0, len(calm)))
    first = ShuffledBatches(length, batch_size, seed)
    for _batch in range(cut):
        first.advance()
    second = ShuffledBatches(length, batch_size, seed)
    second.load_state_dict(first.state_dict())
    assert epochs(second, 3) == calm[cut:]


def test_epochs_and_seeds_give_orders_of_their_own() -> None:
    orders = [ShuffledBatches(50, 8, seed)._order(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.integers(1, 9), st.lists(st.integers(0, 12)))
def test_advancing_counts_over_epochs(per_epoch: int, moves: list[int]) -> None:
    batches = ShuffledBatches(per_epoch, 1)
    for move in moves:
        batches.advance(move)
    assert batches.epoch * per_epoch + batches.batch == sum(moves)


def test_a_position_in_other_batches_is_refused() -> None:
    state = ShuffledBatches(50, 8, seed=1).state_dict()
    with pytest.raises(CheckpointError, match="batch_size was 8, is 10, seed was 1, is 2"):
        ShuffledBatches(50, 10, seed=2).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_reads_ahead_does_not_move_the_position(workers: int) -> None:
    """The position counts what was trained on, so what a worker had fetched is fetched again."""
    dataset = TensorDataset(torch.arange(40))

    def loader(batches: ShuffledBatches) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(dataset, batch_sampler=batches, num_workers=workers, generator=torch.Generator())

    calm = [batch.tolist() for (batch,) in loader(ShuffledBatches(40, 4, seed=9))]
    first = ShuffledBatches(40, 4, seed=9)
    for (_batch,) in itertools.islice(loader(first), 3):
        first.advance()
    assert first.batch == 3
    second = ShuffledBatches(40, 4, seed=9)
    second.load_state_dict(first.state_dict())
    assert [batch.tolist() for (batch,) in loader(second)] == calm[3:]


# ------------------------------------------------------------------------------------------ cadence


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def saves(clock: Clock, cadence: Cadence, step_s: float, save_s: float, steps: int) -> list[int]:
    """The steps after which a training with such steps and saves would save."""
    done = []
    for step in range(1, steps + 1):
        clock.now += step_s
        cadence.step_done()
        if cadence.due:
            clock.now += save_s
            cadence.saved(save_s)
            done.append(step)
    return done


def test_young_daly_of_the_known_example() -> None:
    assert math.floor(young_daly(mu_s=3 * 3600, save_s=30)) == 804


def test_the_first_step_is_saved_then_the_interval_rounded_down_to_a_step() -> None:
    clock = Clock()
    cadence = Cadence(mu_s=10800, longest_s=1e9, clock=clock)
    assert saves(clock, cadence, step_s=100, save_s=30, steps=30) == [1, 9, 17, 25]
    assert cadence.interval_s == pytest.approx(804.98, abs=0.01)


@given(mu_s=st.floats(1, 1e6), longest_s=st.floats(0.1, 1e4), step_s=st.floats(0.01, 100), save_s=st.floats(0.001, 100))
def test_never_longer_than_the_interval_or_the_cap(mu_s: float, longest_s: float, step_s: float, save_s: float) -> None:
    clock = Clock()
    done = saves(clock, Cadence(mu_s, longest_s, clock), step_s, save_s, 60)
    limit = max(step_s, min(longest_s, young_daly(mu_s, save_s)))
    assert done[0] == 1
    assert all((after - before) * step_s <= limit + 1e-6 for before, after in itertools.pairwise(done))
    assert (60 - done[-1]) * step_s <= limit + 1e-6


def test_a_dearer_save_is_made_less_often() -> None:
    counts = []
    for save_s in (0.1, 1.0, 10.0):
        clock = Clock()
        counts.append(len(saves(clock, Cadence(3600, 1e9, clock), 1.0, save_s, 2000)))
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(("mu_s", "longest_s"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_impossible_times_are_refused(mu_s: float, longest_s: float) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        Cadence(mu_s, longest_s)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The shuffled batches whose position can be saved."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tenant_checkpoint import CheckpointError, ShuffledBatches
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


@given(sizes[0], st.integers(1, 12), st.integers(0, 99), st.sampled_from([1, 2, 3, 4]), st.data())
def test_ranks_share_every_batch_and_a_resume_may_have_another_number_of_them(
    length: int, per_rank: int, seed: int, world: int, data: st.DataObject
) -> None:
    size = per_rank * world
    whole = ShuffledBatches(length, size, seed)
    if (length % size or size) < world:
        with pytest.raises(ValueError, match="cannot be shared"):
            ShuffledBatches(length, size, seed, world=world)
        return
    whole.advance(data.draw(st.integers(0, 2 * len(whole))))
    shares = []
    for rank in range(world):
        share = ShuffledBatches(length, size, seed, rank=rank, world=world)
        share.load_state_dict(whole.state_dict())
        shares.append(list(share))
    assert [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == [sorted(part) for part in whole]
    assert all(part for share in shares for part in share)

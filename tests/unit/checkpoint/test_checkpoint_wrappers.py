# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A model in DistributedDataParallel and torch.compile is saved without their prefixes, and loads with or without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tenant_checkpoint import Checkpointer, read_checkpoint

Net = torch.nn.Module


def distributed(net: Net) -> Net:
    return torch.nn.parallel.DistributedDataParallel(net)


def compiled(net: Net) -> Net:
    # Nothing is compiled before it is called, and here it is not.
    wrapped: Net = torch.compile(net)  # type: ignore[assignment]
    return wrapped


WRAPPERS: dict[str, Callable[[Net], Net]] = {
    "bare": lambda net: net,
    "DDP": distributed,
    "compiled": compiled,
    "compiled DDP": lambda net: compiled(distributed(net)),
    "DDP of compiled": lambda net: distributed(compiled(net)),
}


@contextlib.contextmanager
def ranks(wrapper: str) -> Iterator[None]:
    """A process group of one, as long as a wrapper needs it."""
    if "DDP" not in wrapper:
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def network(seed: int) -> Net:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def same(one: Net, other: Net) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("saved_in", "loaded_in"),
    [(name, "bare") for name in WRAPPERS]
    + [("bare", name) for name in WRAPPERS if name != "bare"]
    # The usual accident: trained on several cards, evaluated by another script on one.
    + [("DDP", "compiled"), ("compiled", "compiled DDP")],
)
def test_wrappers_leave_no_prefix(tmp_path: Path, saved_in: str, loaded_in: str) -> None:
    trained, fresh = network(1), network(2)
    assert not same(trained, fresh)
    with ranks(saved_in):
        saver = Checkpointer({"model": WRAPPERS[saved_in](trained)}, directory=str(tmp_path), environ={})
        saver.step = 3
        path = saver.save(wait=True)
    names = list(read_checkpoint(path)["objects"]["model"])
    assert names == list(trained.state_dict()), "as a model without any wrapper reads them"
    with ranks(loaded_in):
        loader = Checkpointer({"model": WRAPPERS[loaded_in](fresh)}, directory=str(tmp_path), environ={})
        assert loader.load_latest() == 3
    assert same(trained, fresh), "into the very module that the wrapper trains"

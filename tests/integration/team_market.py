# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A team beside a marketplace of its own, and an end for whatever the team started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gpu_tenant.marketplace.testing import Handle, running_marketplace


class Started(Protocol):
    def kill(self) -> None:
        """End it, and wait until it has ended."""


class Team(Protocol):
    @property
    def started(self) -> Sequence[Started]: ...


_Team = TypeVar("_Team", bound=Team)


@contextlib.contextmanager
def team_at_market(make: Callable[[Path, Handle], _Team], folder: Path, **settings: Any) -> Iterator[_Team]:
    """:param settings: as :func:`running_marketplace` takes them."""
    with running_marketplace("process", state_dir=folder / "market", **settings) as market:
        made = make(folder, market)
        try:
            yield made
        finally:
            for one in made.started:
                one.kill()

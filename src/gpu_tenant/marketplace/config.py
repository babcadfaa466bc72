# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a marketplace is started with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .dialects import USUAL, Dialect
from .faults import NO_FAULTS, FaultScript
from .offers import CATALOGUE_SIZE

ENGINES = ("process", "podman", "none")


def default_state_directory() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "gpu-tenant" / "marketplace"


@dataclass(frozen=True)
class MarketplaceConfig:
    """:param port: 0 takes any free one.
    :param machines: how many there are to let.
    :param speed: market seconds per real second.
    :param boot_s: real seconds that a box takes to start, at least.
    :param destroy_lag_s: real seconds for which a destroyed box's row stays.
    :param dialect: how what no source settles is worded.
    :param rate_limits: answer 429 to requests that come faster than the market's published intervals.
    :param image: the podman engine's image.
    :param moving_bids: by what share of itself the least bid of each machine moves; 0 for one that stands still.
    :param meter_ssh: bill what goes over the boxes' own ssh too, which puts a relay in front of each.
    :param credit: dollars that the account has; None for one that never runs out.
    :param faults: what goes wrong, and when.
    :param connections: cloud connections of the account, each a name and the folder that stands in for its bucket.
    """

    port: int
    api_key: str = field(repr=False)
    host: str = "127.0.0.1"
    engine: str = "process"
    seed: int = 0
    machines: int = CATALOGUE_SIZE
    state: Path = field(default_factory=default_state_directory)
    speed: float = 1.0
    boot_s: float = 0.4
    destroy_lag_s: float = 0.3
    dialect: Dialect = USUAL
    rate_limits: bool = False
    credit: float | None = None
    moving_bids: float = 0.0
    meter_ssh: bool = False
    image: str = ""
    connections: tuple[tuple[str, Path], ...] = ()
    faults: FaultScript = NO_FAULTS

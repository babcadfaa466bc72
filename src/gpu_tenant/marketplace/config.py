# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a marketplace is started with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .faults import NO_FAULTS, FaultScript
from .offers import CATALOGUE_SIZE

ENGINES = ("process", "podman", "none")
STOPPED_AS = ("exited", "stopped")
COPY_REPORTS = ("both", "destination", "source")


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
    :param stopped_as: ``actual_status`` of a stopped box; sources differ.
    :param rate_limits: answer 429 to requests that come faster than the market's published intervals.
    :param image: the podman engine's image.
    :param copy_reports: which instance's status message tells how a copy goes; no source says.
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
    stopped_as: str = "exited"
    rate_limits: bool = False
    credit: float = 100.0
    image: str = ""
    copy_reports: str = "both"
    connections: tuple[tuple[str, Path], ...] = ()
    faults: FaultScript = NO_FAULTS

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which storage tiers of a box may hold artifacts that are nowhere else: a verb that loses one of them is gated."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

# The data folder lies on it, on every platform: the profiles are checked for that. What a profile or a variable says
# can only add to it.
DATA_TIER = "disk"


def tier_of(path: str, storage: Iterable[Mapping[str, Any]]) -> str:
    """The tier with the longest path that is ``path`` or a parent of it; empty for none."""
    best, longest = "", -1
    for tier in storage:
        mounted = str(tier.get("path") or "")
        root = mounted.rstrip("/")
        holds = mounted.startswith("/") and (path == root or path.startswith(root + "/"))
        if holds and len(root) > longest:
            best, longest = str(tier.get("tier")), len(root)
    return best


def holding_artifacts(storage: Iterable[Mapping[str, Any]], paths: Sequence[str]) -> tuple[str, ...]:
    """The data tier, and every tier that one of ``paths`` (data folder, durable mount) lies on."""
    listed = list(storage)
    found = {DATA_TIER, *(tier_of(path, listed) for path in paths if path.startswith("/"))}
    return tuple(sorted(found - {""}))


def keeps_every_artifact(keeps: Sequence[str], tiers: Iterable[str]) -> bool:
    """Whether a verb that keeps ``keeps`` leaves every tier that may hold artifacts."""
    return all(tier in keeps for tier in {DATA_TIER, *tiers})

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a sealed box promises of a run, in digests: enough to know whether what is home is all of it."""

from __future__ import annotations

import os
from typing import Any

from . import left_behind
from .layout import Layout
from .run_manifest import sealed_manifest


def of_run(layout: Layout, run_id: str) -> dict[str, Any]:
    """``{sealed, state, digest, policy, not_pulled}``; only ``sealed`` where no seal holds for the run's files.

    Takes no lock and writes nothing. What a snapshot holds on to has to go first, so it counts as no seal.
    """
    kept = sealed_manifest(layout, run_id)
    if kept is None or os.path.isdir(layout.held(run_id)):
        return {"sealed": False}
    return {
        "sealed": True,
        "state": kept.get("state", ""),
        "digest": kept["digest"],
        "policy": kept.get("policy"),
        "not_pulled": left_behind.listing(layout, run_id, kept),
    }

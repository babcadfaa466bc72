# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What may be pruned after a cell is done and synced: ``checkpoint: {prune: ...}`` of the run spec."""

from __future__ import annotations

from typing import Any

# Nothing; what no done record promises; of what it would promise, all but the newest, the best and one for each glob.
NONE, SPARE, OLDER = "none", "spare", "older"
MODES = (NONE, SPARE, OLDER)
WANTED = f"a mapping whose prune is one of {', '.join(MODES)}"


def mode_of(checkpoint: dict[str, Any]) -> str:
    """The mode in force for the key ``checkpoint`` of a run."""
    chosen = checkpoint.get("prune")
    # A false or an empty word is none of the modes, and whoever wrote it did not mean the default.
    return SPARE if chosen is None else str(chosen)


def problem_of(checkpoint: dict[str, Any]) -> str:
    """Why the mode cannot be used; empty when it can."""
    mode = mode_of(checkpoint)
    return "" if mode in MODES else f"'checkpoint' must be {WANTED}, not {mode!r}"

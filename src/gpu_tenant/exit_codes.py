# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Exit codes: stable, one per kind of outcome, the same for every verb."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES

DONE = 0
UNCLASSIFIED = 1
USAGE = 2
INTERRUPTED = EXIT_CODES["interrupted"]


def of_kind(kind: str) -> int:
    """The exit code of a kind of failure; 1 for a failure that names none."""
    return EXIT_CODES.get(kind, UNCLASSIFIED)


def of_kinds(kinds: Iterable[str]) -> int:
    """One exit code for several boxes: the highest, because the later phase failed there. 0 for none."""
    return max((of_kind(kind) for kind in kinds), default=DONE)

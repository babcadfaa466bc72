# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One comparison, from which both ``changed`` and ``diff`` are read, so that they cannot disagree."""

from __future__ import annotations

from typing import Any


class DifferenceTracker:
    """Collects what is and what shall be, field by field."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}

    def compare(self, name: str, before: Any, after: Any) -> bool:
        """Note ``name`` if the two differ; says whether they do."""
        if before == after:
            return False
        self._before[name] = before
        self._after[name] = after
        return True

    @property
    def changed(self) -> bool:
        return bool(self._before or self._after)

    @property
    def names(self) -> list[str]:
        return sorted(self._after)

    def as_diff(self) -> dict[str, Any]:
        """For ``exit_json(diff=...)``."""
        return {"before": dict(self._before), "after": dict(self._after)}

    def as_result(self) -> dict[str, Any]:
        """``changed`` and ``diff`` for ``exit_json``."""
        return {"changed": self.changed, "diff": self.as_diff()}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A budget of dollars and what is gone of it: of a run, or of a project. Pure. Unknown is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass

# Of a budget that does not say at which share of it people are warned.
DEFAULT_WARN_AT = 0.8
# What a rental must leave room for: an hour at the cap.
RESERVED_HOURS = 1.0
# What a rounding of binary fractions may be off by.
_SLACK = 1e-9


@dataclass(frozen=True)
class Purse:
    """Dollars. ``budget`` None is no budget.

    :param reserve: what a rental must leave room for before it is begun.
    :param warn_at: the share of the budget from which on people are warned.
    :param held: what others that were rented a moment ago have reserved and not used up yet.
    """

    spent: float | None = 0.0
    budget: float | None = None
    reserve: float = 0.0
    warn_at: float = DEFAULT_WARN_AT
    held: float = 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more box may be rented."""
        if self.budget is None:
            return True
        return self.spent is not None and self.spent + self.held + self.reserve <= self.budget + _SLACK

    @property
    def is_near(self) -> bool:
        """Whether so much is spent that people are warned."""
        return self.budget is not None and self.spent is not None and self.spent >= self.warn_at * self.budget

    @property
    def is_spent(self) -> bool:
        return self.budget is not None and self.spent is not None and self.spent >= self.budget


# Of who may spend what he likes.
UNLIMITED = Purse()

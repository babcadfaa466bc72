# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's price for a machine, moving by itself: a pure function of the seed, the machine and the time.

Each machine's price swings in two waves of its own, hours long, so that a bid loses for a while and wins again.
"""

from __future__ import annotations

import math
import random

from .auction import Auction
from .books import Books
from .offers import Machine

# Market seconds for which a price stays.
STEP_S = 300.0
_HOUR_S = 3600.0
_WAVES = ((2.0, 8.0, 0.6), (0.5, 2.0, 0.4))


def bid_at(machine: Machine, seed: int, now: float, share: float) -> float:
    """The least winning bid: at most ``share`` from the machine's own, and never above its price on demand."""
    chance = random.Random(f"{seed}/{machine.machine_id}")  # noqa: S311 - a market drawn from a seed, no secret
    step = math.floor(now / STEP_S) * STEP_S
    swing = 0.0
    for shortest, longest, weight in _WAVES:
        period, phase = chance.uniform(shortest, longest) * _HOUR_S, chance.random()
        swing += weight * math.sin(2 * math.pi * (step / period + phase))
    return round(min(machine.min_bid * (1 + share * swing), machine.price), 4)


class MovingBids:
    """Does nothing unless the market was started with a share by which prices move."""

    def __init__(self, books: Books, auction: Auction) -> None:
        self._books = books
        self._auction = auction
        self._step = -1

    def move(self) -> None:
        """The prices of now; whoever bids less than his machine's is stopped, whoever bids enough again comes back."""
        books, share = self._books, self._books.config.moving_bids
        if not share:
            return
        with books.reading() as (state, now):
            if math.floor(now / STEP_S) == self._step:
                return
            self._step = math.floor(now / STEP_S)
            books.moved = {one.machine_id: bid_at(one, state.seed, now, share) for one in books.machines}
            let = sorted({one.machine_id for one in state.instances.values() if one.live})
        for machine_id in let:
            self._auction.settle(books.machine(machine_id))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What went over the boxes' own ssh, put on their bills as the hosts' meters do: by the gigabyte, each way."""

from __future__ import annotations

import time
from collections.abc import Callable

from .boxes import Boxes
from .money import Money

# How often the meters are read. Every reading is a line of the bill's reckoning.
READ_EVERY_S = 1.0


class Metering:
    """Does nothing unless the market was started to meter ssh.

    :param monotonic: real seconds.
    """

    def __init__(self, boxes: Boxes, money: Money, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._boxes = boxes
        self._money = money
        self._monotonic = monotonic
        self._next_reading = float("-inf")

    def look(self) -> None:
        now = self._monotonic()
        if now < self._next_reading:
            return
        self._next_reading = now + READ_EVERY_S
        self.read()

    def read(self) -> None:
        """Bill what went through since the last reading."""
        for instance_id, (to_box, from_box) in self._boxes.take_carried().items():
            for kind, moved in (("bwd", to_box), ("bwu", from_box)):
                if moved:
                    self._money.meter(instance_id, kind, moved / 1e9)

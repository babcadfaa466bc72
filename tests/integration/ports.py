# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ports for servers that must be told theirs before they start.

The system gives the ports from 32768 up to whoever connects or asks for any, also between the moment when a test picks
one and the moment when its server binds it. So these are lower, and each pytest worker has a range of its own.
"""

from __future__ import annotations

import itertools
import os
import socket

_RANGE = 1000
_FIRST = 12000 + _RANGE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
# Another session of pytest on this machine begins elsewhere in the same range.
_candidates = itertools.cycle(_FIRST + (os.getpid() * 37 + number) % _RANGE for number in range(_RANGE))


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody holds, and that this process has not given before (the first thousand times)."""
    for port in itertools.islice(_candidates, _RANGE):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise OSError(f"none of {_RANGE} ports from {_FIRST} is free on {address}")

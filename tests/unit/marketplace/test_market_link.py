# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A line that is slow loses nothing: bytes come whole, in order, at the pace that was asked for."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tenant.marketplace.engines.base import LOOPBACK, free_ports
from gpu_tenant.marketplace.link import Link, Pace

DEADLINE_S = 600


@pytest.fixture
def shouting() -> Iterator[int]:
    """The port of a server that hears everything out, then says it back and ends."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            client, _address = listener.accept()
        except OSError:
            return
        with client:
            client.sendall(everything_of(client))


def everything_of(line: socket.socket) -> bytes:
    return b"".join(iter(lambda: line.recv(65536), b""))


def said_back(port: int, data: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        return everything_of(line)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20), st.floats(1.0, 1e6))
@settings(max_examples=50)
def test_all_connections_share_one_pace(sizes: list[int], rate: float) -> None:
    pace = Pace(rate)
    assert max(pace.wait_s(size, 5.0) for size in sizes) == pytest.approx(sum(sizes) / rate)
    assert 1 <= pace.portion <= max(1, rate / 10)


def test_what_rests_saves_up_nothing() -> None:
    pace = Pace(100.0)
    pace.wait_s(50, 0.0)
    assert pace.wait_s(100, 1000.0) == pytest.approx(1.0)


def test_a_slow_line_brings_every_byte_and_takes_its_time(shouting: int) -> None:
    (port,) = free_ports(1, ())
    link = Link((port,), (shouting,), 400_000)
    data = os.urandom(100_000)
    begun = time.monotonic()
    assert said_back(port, data) == data
    # Said, and then said back: no pace lets it through earlier.
    assert time.monotonic() - begun >= 2 * len(data) / 400_000
    link.close()


def test_a_line_counts_each_way_once(shouting: int) -> None:
    (port,) = free_ports(1, ())
    link = Link((port,), (shouting,))
    data = os.urandom(250_000)
    assert said_back(port, data) == data
    with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as line:
        line.sendall(b"more")
        line.shutdown(socket.SHUT_WR)
        assert everything_of(line) == b"more"
    assert link.take_carried() == (len(data) + 4, len(data) + 4)
    assert link.take_carried() == (0, 0)
    link.close()


def test_a_line_that_is_lifted_goes_on_and_one_that_is_closed_ends(shouting: int) -> None:
    (port,) = free_ports(1, ())
    link = Link((port,), (shouting,), 1.0)
    link.lift()
    data = os.urandom(300_000)
    assert said_back(port, data) == data
    with socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S) as line:
        link.close()
        # Ended, or never taken up: the line may not have noticed the connection yet.
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(1) == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((LOOPBACK, port), timeout=DEADLINE_S)

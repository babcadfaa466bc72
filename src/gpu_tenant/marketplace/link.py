# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A line to a box: relays on its ports, in front of its sshd, that count bytes and let so many a second through."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence

from .engines.base import LOOPBACK

_MOST_AT_ONCE = 64 * 1024
_CONNECT_S = 10.0


class Pace:
    """One direction of a line; all connections share it. ``bytes_per_s`` infinite lets everything through at once."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    @property
    def portion(self) -> int:
        """Bytes that go at once: a tenth of a second's, so that a slow line trickles and does not stutter."""
        return int(max(1, min(_MOST_AT_ONCE, self.bytes_per_s / 10)))

    def wait_s(self, size: int, now: float) -> float:
        """Seconds until so many more bytes are through, which are on their way from now on."""
        with self._lock:
            self._free_at = max(now, self._free_at) + size / self.bytes_per_s
            return self._free_at - now


class Link:
    """Listens until :meth:`close`. OSError when a port is taken.

    :param ports: where clients connect.
    :param inner: where the sshd answers, in the same order.
    """

    def __init__(self, ports: Sequence[int], inner: Sequence[int], bytes_per_s: float = float("inf")) -> None:
        self._carried = [0, 0]
        self._paces = (Pace(bytes_per_s), Pace(bytes_per_s))
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        for port, behind in zip(ports, inner, strict=True):
            try:
                listener = socket.create_server((LOOPBACK, port))
            except OSError:
                self.close()
                raise
            self._open.add(listener)
            threading.Thread(target=self._serve, args=(listener, behind), daemon=True, name=f"line {port}").start()

    def take_carried(self) -> tuple[int, int]:
        """Bytes that went to the box and from it since this was asked before."""
        with self._lock:
            to_box, from_box = self._carried
            self._carried = [0, 0]
        return to_box, from_box

    def lift(self) -> None:
        """As fast as it goes from now on."""
        for pace in self._paces:
            pace.bytes_per_s = float("inf")

    def close(self) -> None:
        """End the line and every connection through it."""
        self._closed.set()
        with self._lock:
            ending = list(self._open)
        for one in ending:
            _end(one)

    def _serve(self, listener: socket.socket, behind: int) -> None:
        while not self._closed.is_set():
            try:
                client, _address = listener.accept()
            except OSError:
                return
            try:
                box = socket.create_connection((LOOPBACK, behind), timeout=_CONNECT_S)
            except OSError:
                client.close()
                continue
            box.settimeout(None)
            with self._lock:
                self._open |= {client, box}
            if self._closed.is_set():
                self.close()
            pumps = [
                threading.Thread(target=self._pump, args=way, daemon=True)
                for way in ((client, box, 0), (box, client, 1))
            ]
            for pump in pumps:
                pump.start()
            threading.Thread(target=self._bury, args=(pumps, (client, box)), daemon=True).start()

    def _pump(self, source: socket.socket, dest: socket.socket, way: int) -> None:
        pace = self._paces[way]
        with contextlib.suppress(OSError):
            while data := source.recv(pace.portion):
                if self._closed.wait(pace.wait_s(len(data), time.monotonic())):
                    break
                # Before it goes: who has it may ask for the bill.
                with self._lock:
                    self._carried[way] += len(data)
                dest.sendall(data)
        # The other side learns that nothing more comes, and may still have something to say.
        with contextlib.suppress(OSError):
            dest.shutdown(socket.SHUT_WR)

    def _bury(self, pumps: Sequence[threading.Thread], ends: tuple[socket.socket, ...]) -> None:
        for pump in pumps:
            pump.join()
        with self._lock:
            self._open.difference_update(ends)
        for one in ends:
            _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

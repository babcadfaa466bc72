# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What every attempt to move bytes has in common, and the loop of attempts around them.

An attempt reports how it ended. Whether a file arrived is said by ``settling``, from its bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Sequence

from .landing import Landing
from .progress import Progress
from .roster import Mismatch, RosterFile
from .settling import TEMPORARY
from .transfer import BULK_BYTES, Attempt, Link, RsyncWishes, back_off
from .whole_folders import WholeFolders

if TYPE_CHECKING:
    from .shared_connection import SharedConnection

END_GRACE_S = 10
_PIPE_BYTES = 1024 * 1024


class Deadline:
    """A moment on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left_s <= 0

    def cut(self) -> None:
        """It is now: what waits for it ends soon."""
        self._at = time.monotonic()


class Once:
    """Something to do beside others or before them, when they come to it; a second call does nothing."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self._act: Callable[[], object] | None = act

    def __call__(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


@dataclass(frozen=True)
class Route:
    """Where bytes go: ``far_root`` on the box, ``near_root`` here; ``python`` is the box's interpreter.

    ``landing`` takes what is pulled; ``whole`` says which folders rsync may be asked for whole. ``opened`` is a
    connection for the transfer alone that is being opened. ``beside`` is done in this thread while others log in, and
    ``asks`` where what they move takes longer than an answer; what these two raise ends the transfer.
    """

    link: Link
    pull: bool
    far_root: str
    near_root: str
    python: str
    wishes: RsyncWishes
    progress: Progress
    landing: Landing | None = None
    whole: WholeFolders | None = None
    opened: SharedConnection | None = None
    beside: Once = field(default_factory=Once)
    asks: Once = field(default_factory=Once)
    # What is asked for has begun to come, or will not.
    begun: threading.Event = field(default_factory=threading.Event)

    def way(self, deadline: Deadline, own_connection: bool) -> tuple[Link, bool]:
        """The link that a command takes, and whether it opens a connection of its own there."""
        if self.opened is None:
            return self.link, own_connection
        link = self.opened.link(deadline)
        return link, own_connection and not link.control_path

    @property
    def incoming(self) -> Landing:
        if self.landing is None:
            raise ValueError("this route brings nothing here")
        return self.landing

    @property
    def temporary(self) -> str:
        """Where rsync writes what is pulled."""
        return os.path.join(self.near_root, TEMPORARY)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: rsync then keeps what arrived."""
    process.terminate()
    try:
        process.wait(timeout=END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def widen_pipe(descriptor: int) -> None:
    """A courtesy: in a bigger pipe neither end waits for the other, and the processor changes between them less."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)


# --- the loop of attempts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patience:
    """``retries``: failed attempts in a row without progress; ``resends``: times that arrived files were wrong."""

    retries: int = 5
    resends: int = 2
    first_wait_s: float = 2.0


@dataclass(frozen=True)
class Delivery:
    """What the attempts came to. ``missing`` names what did not arrive and why; empty means that all did."""

    settled: tuple[str, ...]
    missing: tuple[Mismatch, ...]
    attempts: int
    wire_bytes: int
    reason: str = ""
    kind: str = "unreachable"


def deliver(
    files: Sequence[RosterFile],
    move: Callable[[Sequence[RosterFile]], Attempt],
    settle: Callable[[Sequence[RosterFile]], tuple[list[str], list[Mismatch]]],
    progress: Callable[[], int],
    patience: Patience,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Attempt, settle, and again for what is still missing, within ``patience`` and ``deadline``.

    :param progress: a number that grows while bytes arrive; growth makes a failed attempt count as a first one.
    """
    remaining = list(files)
    settled: list[str] = []
    attempts = failures = resends = wire_bytes = 0
    waits = back_off(patience.first_wait_s)
    seen, reason, kind = progress(), "", ""
    missing: list[Mismatch] = []
    while remaining:
        attempt = move(remaining)
        attempts += 1
        wire_bytes += attempt.wire_bytes or 0
        arrived, missing = settle(remaining)
        settled += arrived
        there = set(arrived)
        remaining = [file for file in remaining if file.path not in there]
        reason, kind = attempt.reason, attempt.kind
        if not remaining:
            break
        now = progress()
        if arrived or now > seen:
            failures, waits = 0, back_off(patience.first_wait_s)
        seen = now
        failures += attempt.status != 0
        resends += attempt.status == 0
        hopeless = attempt.status != 0 and not attempt.again
        if hopeless or failures > patience.retries or resends > patience.resends or deadline.passed:
            break
        sleep(min(next(waits), deadline.left_s))
    if remaining and not missing:
        missing = [Mismatch(file.path, "did not arrive") for file in remaining]
    return Delivery(tuple(settled), tuple(missing) if remaining else (), attempts, wire_bytes, reason, kind)


def bytes_under(folder: str) -> int:
    """Bytes of all files below ``folder``, the cut ones too."""
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def wants_own_connection(files: Sequence[RosterFile]) -> bool:
    return sum(file.bytes for file in files) >= BULK_BYTES

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The answer to a plain ``status``, kept ready by a supervisor whose trainer lives: whoever looks needs no Python then.

A shell reads it and proves it before it believes it; what it cannot prove is computed as ever. The first line says what
there is to prove: this life of the box, the supervisor and the trainer as they are named in /proc, for how long it may
be told, and the program. The second line is the answer. Decisions are never drawn from it.

Times are of ``/proc/uptime``, which nobody sets. Whoever changes what the answer tells takes it away.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from typing import Any, Callable

from . import fetch_order, gates, judge, process, records
from .layout import Layout

TELL_S = 10.0
# A look finds numbers of this age at most; from a supervisor that is later than this, none.
MOST_AGE_S = 20
# More is slower for a shell to read than Python is to start.
MOST_BYTES = 32 * 1024
# Of the supervisor's time: one in so many.
_SHARE = 500
_PROGRAM = re.compile(r"supervisor-[A-Za-z0-9_-]+\.pyz\Z")
_BOOT = re.compile(r"[0-9a-f-]{36}\Z")
_AT_WORK = (judge.RUNNING, judge.VERIFYING, judge.COPYING)


def withdraw(layout: Layout) -> None:
    """Nobody is told any more what was true until now. Call once what is told has changed."""
    # The one that is being made first: it is moved to the place of the other, and never back.
    for path in (_building(layout), layout.answer):
        with contextlib.suppress(OSError):
            os.unlink(path)


def tell(layout: Layout, program: str) -> bool:
    """Write the answer anew, or take it away where it could not be proven; whether it is there.

    :param program: the path of the program that this supervisor is.
    """
    if not _has_place(layout, program):
        return False
    with contextlib.suppress(OSError):
        os.unlink(_building(layout))
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # Made before anything is read: a verb that changes what is read takes it away, and the rename finds nothing.
        with os.fdopen(os.open(_building(layout), flags, 0o600), "w", encoding="ascii") as stream:
            text = _text(layout, os.path.basename(program))
            stream.write(text)
        if text:
            os.rename(_building(layout), layout.answer)
            return True
    except FileNotFoundError:
        pass  # withdrawn meanwhile
    except BaseException:
        withdraw(layout)
        raise
    withdraw(layout)
    return False


class Teller:
    """Tells when it is time. What takes long to find out is told less often, and so in the end is not found."""

    def __init__(self, layout: Layout, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout, self._program, self._clock = layout, program, clock
        self._due = -math.inf

    def tick(self) -> None:
        """Called at every tick while a trainer lives."""
        if self._clock() < self._due:
            return
        begun = time.thread_time()
        try:
            tell(self._layout, self._program)
        finally:
            self._due = self._clock() + max(TELL_S, (time.thread_time() - begun) * _SHARE)

    def end(self) -> None:
        """No trainer lives any more."""
        withdraw(self._layout)
        self._due = -math.inf


def _building(layout: Layout) -> str:
    return f"{layout.answer}.new"


def _has_place(layout: Layout, program: str) -> bool:
    """Of a box whose supervisors are jobs, other machines would have to be asked; of a program that does not lie where
    a look finds the newest one, nobody can tell whether it still is."""
    if layout.share or os.path.exists(layout.batch) or os.path.exists(layout.array):
        return False
    folder, name = os.path.split(program)
    return folder == layout.path("bin") and bool(_PROGRAM.match(name))


def _text(layout: Layout, name: str) -> str:
    """Both lines; empty where something is not as plain as a look can prove it."""
    from . import status  # with all that judges: only where an answer is told

    at = _uptime_s()
    told = status.status(layout)
    me, trainer = process.myself(), _trainer(told)
    plain = trainer is not None and not told["problems"] and told["daemon"]["pid"] == me.pid and told["daemon"]["alive"]
    if not plain or trainer is None or trainer.boot != me.boot or not me.pid1_start or not _BOOT.match(me.boot_id):
        return ""
    if not gates.has_room_to_tell(gates.disk_of(layout.root)):
        return ""
    proof = [me.boot_id, me.pid1_start, me.pid, me.start, trainer.pid, trainer.start, at, at + MOST_AGE_S, name]
    answer = json.dumps(told, ensure_ascii=True, allow_nan=False, sort_keys=True)
    text = f"{records.schema('answer')} {' '.join(map(str, proof))}\n{answer}\n"
    return text if len(text) <= MOST_BYTES else ""


def _trainer(told: dict[str, Any]) -> process.Identity | None:
    """The one trainer that lives, as long as which nothing of this changes without a verb; None where there is more to
    it than that."""
    if any(run["inputs"] and run["inputs"]["state"] == fetch_order.FETCHING for run in told["runs"]):
        return None
    cells = [cell for run in told["runs"] for cell in run["cells"] if cell["state"] in _AT_WORK]
    found = process.identity_from(cells[0].get("process")) if len(cells) == 1 else None
    lives = found is not None and not found.job and process.observe(found) == process.ALIVE
    return found if lives and cells[0]["state"] == judge.RUNNING else None


def _uptime_s() -> int:
    with open(os.path.join(process.PROC, "uptime"), encoding="ascii") as stream:
        return int(stream.read().split(".")[0])

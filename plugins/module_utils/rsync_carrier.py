# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One attempt to move bytes by rsync; what is pulled is hashed while it arrives."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import IO, Callable, Mapping, Protocol, Sequence

from .arrivals import Arrivals
from .carrier import Deadline, Route, end_process, widen_pipe
from .destination import room, room_problem
from .error_tail import ErrorTail
from .follower import LARGE, Follower
from .roster import RosterFile
from .shared_connection import shared_connection
from .ssh_log import SshLog
from .transfer import NO_MEMORY, SOME_NOT_SENT, Attempt, judge_rsync, rsync_argv, says_full, zero_ended
from .whole_folders import FolderArrivals, NotPromised, folder_of

_CHUNK = 64 * 1024
_TAIL = 4096
# rsync compares each name that comes with all names that were asked for, so a run's time grows with their square.
_MOST_NAMES = 2_500
# One makes its list while the other carries.
_AT_ONCE = 2
# What is done beside a transfer waits so long for its first bytes.
_FIRST_BYTES_S = 5.0
# Files that come within this are proven by their bytes sooner than a box says whether it has them.
_WORTH_ASKING_S = 3.0
# So soon it is noticed that the deadline was cut short.
_LOOK_S = 0.5
# Fewer files in whole folders come by one run.
_WORTH_TWO = 2_000
# A box that names files without end fills no memory here: rsync takes some hundred bytes for a file.
_MEMORY, _MEMORY_PER_FILE = 1024**3, 2048
_OVERALL = re.compile(rb"\s*(\d+)\s+\d+%")
# What both ends have is agreed on between them; zstd and lz4 keep up with fast links.
_ENVIRONMENT = {"LC_ALL": "C", "RSYNC_COMPRESS_LIST": "zstd lz4 zlibx zlib"}


def move_by_rsync(route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool) -> Attempt:
    """Runs of rsync for ``files``. What arrived of a cut file stays in the partial folder of the receiver.

    Small files first: logs and metrics are soon home. Large ones are followed while they grow.
    """
    attempts = _move_whole_folders(route, files, deadline, own_connection)
    left = _left(route, files) if attempts else files
    small = [file for file in left if file.bytes < LARGE]
    large = [file for file in left if file.bytes >= LARGE]
    if small and not any(_ends_all(attempt) for attempt in attempts):
        attempts += _move_small(route, small, deadline, own_connection)
    if large and not any(_ends_all(attempt) for attempt in attempts):
        route.beside()
        route.asks()
        attempts.append(_one_run(route, _Run(large), deadline, own_connection))
    failed = next((attempt for attempt in attempts if attempt.status), None)
    return failed or Attempt("rsync", 0, wire_bytes=sum(attempt.wire_bytes or 0 for attempt in attempts))


def _left(route: Route, files: Sequence[RosterFile]) -> Sequence[RosterFile]:
    return route.incoming.left(files) if route.pull else files


def _ends_all(attempt: Attempt) -> bool:
    return attempt.status != 0 and attempt.status not in SOME_NOT_SENT


@dataclass(frozen=True)
class _Run:
    """What one rsync is asked for: ``files`` by their names or, where there are ``folders``, by these.

    ``folders`` maps the name of each to those of ``files`` that lie in it.
    """

    files: Sequence[RosterFile]
    folders: Mapping[str, Sequence[RosterFile]] = field(default_factory=dict)


def _move_whole_folders(
    route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool
) -> list[Attempt]:
    """The runs for the folders of which everything is wanted, as often as it takes to find out what they hold.

    They miss no file that is gone meanwhile. Whatever did not come is asked for by its name afterwards.
    """
    attempts: list[Attempt] = []
    while route.whole is not None:
        folders = route.whole.wanted(_left(route, files))
        if not folders:
            break
        surprises = route.whole.surprises
        runs = _halves(files, folders)
        ended = _run_all(route, runs, deadline, own_connection)
        route.incoming.folders.take({folder: group for run in runs for folder, group in run.folders.items()})
        kept = [attempt for attempt in ended if attempt.status != NO_MEMORY]
        attempts += kept
        if len(kept) < len(ended):
            route.whole.give_up()
        elif route.whole.surprises == surprises or any(_ends_all(attempt) for attempt in attempts):
            break
    return attempts


def _halves(files: Sequence[RosterFile], folders: Sequence[str]) -> list[_Run]:
    """Two runs of about as many files, where there are enough: one waits while the other works."""
    inside: dict[str, list[RosterFile]] = {folder: [] for folder in folders}
    for file in files:
        group = inside.get(folder_of(file))
        if group is not None:
            group.append(file)
    total, count, half = sum(map(len, inside.values())), 0, 0
    while total >= _WORTH_TWO and count < total / 2:
        count += len(inside[folders[half]])
        half += 1
    parts = [{folder: inside[folder] for folder in part} for part in (folders[:half], folders[half:]) if part]
    return [_Run([file for group in part.values() for file in group], part) for part in parts]


def _move_small(route: Route, files: Sequence[RosterFile], deadline: Deadline, own_connection: bool) -> list[Attempt]:
    # Only what pulls compares names.
    most = _MOST_NAMES if route.pull else max(1, len(files))
    runs = [_Run(files[begin : begin + most]) for begin in range(0, len(files), most)]
    return _run_all(route, runs, deadline, own_connection)


def _run_all(route: Route, runs: Sequence[_Run], deadline: Deadline, own_connection: bool) -> list[Attempt]:
    shared = route.opened is not None or (route.link.control_path and not own_connection)
    if len(runs) < 2 or route.link.is_local or shared:
        return _side_by_side(route, runs, deadline, own_connection)
    with shared_connection(route.link, deadline) as link:
        return _side_by_side(replace(route, link=link), runs, deadline, own_connection and not link.control_path)


def _side_by_side(route: Route, runs: Sequence[_Run], deadline: Deadline, own_connection: bool) -> list[Attempt]:
    """The runs that took place, in order; none begins after one that ends all.

    One that meets a stranger in a folder is left out: ``route.whole`` knows.
    """
    over = threading.Event()

    def take(run: _Run) -> Attempt | None:
        if over.is_set():
            return None
        try:
            attempt = _one_run(route, run, deadline, own_connection)
        except NotPromised as error:
            if route.whole is not None:
                route.whole.surprised(error.folder)
            return None
        finally:
            route.begun.set()
        if _ends_all(attempt):
            over.set()
        return attempt

    if len(runs) < 2:
        route.beside()
        route.asks()
        return [attempt for attempt in map(take, runs) if attempt is not None]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            moving = [pool.submit(take, run) for run in runs]
            # While ssh logs in there is a core for it.
            route.beside()
            route.begun.wait(_FIRST_BYTES_S)
            if wait(moving, _WORTH_ASKING_S).not_done:
                route.asks()
            return [attempt for attempt in (one.result() for one in moving) if attempt is not None]
        except BaseException:
            over.set()
            deadline.cut()
            raise


def _one_run(route: Route, run: _Run, deadline: Deadline, own_connection: bool) -> Attempt:
    names = [f"{folder}/" for folder in run.folders] or [file.path for file in run.files]
    source, dest = (route.far_root, route.near_root) if route.pull else (route.near_root, route.far_root)
    followed = route.pull and not run.folders and run.files[0].bytes >= LARGE
    with tempfile.TemporaryFile() as wanted, ErrorTail() as errors, SshLog() as log:
        way, own = route.way(deadline, own_connection)
        link = replace(way, log=log.path)
        # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            rsync_argv(link, route.pull, source, dest, route.wishes, own, followed, bool(run.folders)),
            stdin=_list(names, wanted),
            stdout=subprocess.PIPE,
            stderr=errors.fileno(),
            env={**os.environ, **_ENVIRONMENT},
        ) as process:
            if route.pull:
                _bound_memory(process.pid, len(run.files))
            stdout = _watch(process, _reader(route, run), deadline, route.begun.set)
        if stdout is None:
            return Attempt("rsync", process.returncode, "the whole transfer took longer than its deadline")
        stderr = errors.read() if process.returncode else b""
        full = says_full(stderr) and _is_full(route, run.files)
        return judge_rsync(process.returncode, stdout, stderr, full, log.read())


def _is_full(route: Route, files: Sequence[RosterFile]) -> bool:
    """Whether the destination, which somebody calls full, is. One's own disk is looked at: a box may say anything.

    rsync leaves what came whole in its place and gives back the rest, so what is still to come does not fit.
    """
    if not route.pull:
        return True
    left = route.incoming.left(files)
    return bool(room_problem(left, room(route.near_root, left), 0))


def _list(names: Sequence[str], stream: IO[bytes]) -> IO[bytes]:
    stream.write(zero_ended(names))
    stream.seek(0)
    return stream


def _bound_memory(pid: int, files: int) -> None:
    """A safeguard of the controller's own; where the kernel has none, such as on macOS, it is not there."""
    limit = getattr(resource, "prlimit", None)
    if limit is not None:
        most = _MEMORY + files * _MEMORY_PER_FILE
        with contextlib.suppress(OSError, ValueError):
            limit(pid, resource.RLIMIT_AS, (most, most))


def _watch(
    process: subprocess.Popen[bytes], reader: _Reader, deadline: Deadline, begun: Callable[[], None]
) -> bytes | None:
    """The end of what rsync printed, once it has ended; None when it was ended at the deadline.

    :param begun: called when it printed something.
    """
    stdout = None
    reader.start()
    try:
        stdout = _lines(process, deadline, reader.line, begun)
    finally:
        if stdout is None:
            end_process(process)
        process.wait()
        reader.end()
    return stdout


def _reader(route: Route, run: _Run) -> _Reader:
    if not route.pull:
        return _Overall(route.progress.moved)
    if run.folders:
        return FolderArrivals(route.incoming, run.folders)
    if run.files[0].bytes < LARGE:
        return Arrivals(route.incoming, run.files)
    return Follower(route.incoming, run.files, route.temporary)


def _lines(
    process: subprocess.Popen[bytes], deadline: Deadline, take: Callable[[bytes], None], begun_to: Callable[[], None]
) -> bytes | None:
    if process.stdout is None:
        raise ValueError("the process has no pipes")
    descriptor = process.stdout.fileno()
    widen_pipe(descriptor)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    begun, tail = b"", b""
    while True:
        if not poll.poll(min(deadline.left_s, _LOOK_S) * 1000):
            if deadline.passed:
                return None
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            return tail
        begun_to()
        tail = (tail + data)[-_TAIL:]
        *lines, begun = (begun + data).replace(b"\r", b"\n").split(b"\n")
        begun = begun[-_CHUNK:]
        for line in lines:
            # What is done for a line takes as long as the box has made its files large.
            if deadline.left_s <= 0:
                return None
            take(line)


class _Reader(Protocol):
    """Reads what rsync prints."""

    def start(self) -> None:
        """rsync runs."""

    def line(self, line: bytes) -> None:
        """rsync printed a line."""

    def end(self) -> None:
        """rsync has ended."""


class _Overall:
    """The count of bytes that ``--info=progress2`` prints again and again."""

    def start(self) -> None:
        """Nothing to do."""

    def end(self) -> None:
        """Nothing to do."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        self._moved, self._seen = moved, 0

    def line(self, line: bytes) -> None:
        match = _OVERALL.match(line)
        if match and int(match.group(1)) > self._seen:
            self._moved(int(match.group(1)) - self._seen)
            self._seen = int(match.group(1))

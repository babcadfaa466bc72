# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies that the provider makes: from a box's disk to another's, or between a box and a cloud connection.

The boxes may be stopped. A copy takes the time that the machines' links need, tells how it goes in status messages
only, half a market minute late, and answers for nothing: what arrived is for its tenant to find out.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import logging
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from .engines.base import EngineError
from .faults import Fault
from .market import Market
from .refusals import MarketError

log = logging.getLogger(__name__)

REPORT_EVERY_S = 30.0
POLL_S = 0.05
FIRST_CONNECTION_ID = 1001
_PERCENT = re.compile(rb"\s(\d{1,3})%\s")
_SO_FAR = re.compile(rb"(\d+)\s+\d{1,3}%\s")
_FILES = re.compile(rb"^Number of regular files transferred: (\d+)", re.MULTILINE)
_BYTES = re.compile(rb"^Total transferred file size: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Connection:
    """A cloud connection of the account; a folder of this machine stands in for its bucket."""

    id: int
    name: str
    folder: Path
    cloud_type: str = "s3"


@dataclass(frozen=True)
class End:
    """One side of a copy: a path on an instance's disk, or below a connection's folder."""

    path: str
    instance: int | None = None
    connection: Connection | None = None

    def __str__(self) -> str:
        name = f"C.{self.instance}" if self.connection is None else f"{self.connection.cloud_type}.{self.connection.id}"
        return f"{name}:{self.path}"


@dataclass
class Job:
    source: End
    dest: End
    flags: tuple[str, ...]
    fault: Fault | None
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def title(self) -> str:
        return "Cloud Copy Operation" if self.source.connection or self.dest.connection else "Remote Copy Operation"

    def concerns(self, instance_id: int) -> bool:
        return instance_id in (self.source.instance, self.dest.instance)


class CopyFailed(Exception):
    """The copy ended without its end; the message is for the status."""


class Copies:
    """The copies of one market that are under way.

    :param struck: says what goes wrong with a copy that begins now between these instances.
    """

    def __init__(self, market: Market, struck: Callable[[Sequence[int]], Fault | None]) -> None:
        self._market = market
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._struck = struck
        self._lock = threading.Lock()
        self.connections = [
            Connection(FIRST_CONNECTION_ID + index, name, folder)
            for index, (name, folder) in enumerate(market.config.connections)
        ]

    def start(self, source: End, dest: End, flags: Sequence[str] = ()) -> None:
        """Begin a copy; the same one again while it lasts changes nothing. MarketError."""
        for end in (source, dest):
            if end.instance is not None:
                with self._disk(end):
                    pass
        with self._lock:
            if any((job.source, job.dest) == (source, dest) for job in self._jobs.values()):
                return
            fault = self._struck([end.instance for end in (source, dest) if end.instance is not None])
            number = next(self._numbers)
            self._jobs[number] = Job(source, dest, tuple(flags), fault)
        self._market.boxes.in_background(self._work, number)

    def cancel(self, instance_id: int, cloud: bool) -> int:
        """End the copies into an instance, or its exchanges with a cloud; how many there were. MarketError."""
        self._market.books.instance(instance_id)
        with self._lock:
            meant = [
                job
                for job in self._jobs.values()
                if (job.concerns(instance_id) if cloud else job.dest.instance == instance_id)
                and cloud is bool(job.source.connection or job.dest.connection)
            ]
        for job in meant:
            job.cancelled.set()
        return len(meant)

    # --- one copy -----------------------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        job = self._jobs[number]
        reporter = _Reporter(self._market, job)
        try:
            message = self._carry(job, reporter)
        except CopyFailed as failed:
            message = f"{job.title} {job.source} -> {job.dest} failed: {failed}"
        except Exception:
            log.exception("copy %s -> %s", job.source, job.dest)
            message = f"{job.title} {job.source} -> {job.dest} failed: internal error"
        finally:
            with self._lock:
                self._jobs.pop(number, None)
        reporter.last(message)

    def _carry(self, job: Job, reporter: _Reporter) -> str:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._opened(job.source, as_source=True))
            dest = stack.enter_context(self._opened(job.dest, as_source=False))
            if job.fault is not None and job.fault.kind == "copy_stuck":
                reporter.progress(12)
                self._stand_still(job, reporter)
            files, size = self._rsync(job, source, dest, reporter)
            if job.fault is not None and job.fault.kind != "copy_stuck":
                damage(Path(f"/proc/self/fd/{dest.descriptor}"), job.fault)
            if job.fault is not None and job.fault.kind == "copy_fails":
                raise CopyFailed("rsync error: error in rsync protocol data stream (code 12)")
        reporter.settle()
        return f"{job.title} Finished: {job.source} -> {job.dest}, {files} files, {size} bytes"

    def _stand_still(self, job: Job, reporter: _Reporter) -> NoReturn:
        while True:
            self._check(job)
            reporter.tick()
            self._market.boxes.closing.wait(POLL_S)

    def _rsync(self, job: Job, source: _Handle, dest: _Handle, reporter: _Reporter) -> tuple[int, int]:
        """Files and bytes that were sent. CopyFailed with rsync's own words."""
        words = ["rsync", "--archive", "--no-human-readable", "--stats", "--info=progress2", *self._pace(job)]
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*words, *job.flags, source.word, dest.word],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                pass_fds=(source.descriptor, dest.descriptor),
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    self._check(job)
                    percents = _PERCENT.findall(_tail(output))
                    if percents:
                        reporter.progress(int(percents[-1]))
                    reporter.tick()
                    self._market.boxes.closing.wait(POLL_S)
            finally:
                process.kill()
                process.wait()
                said = _tail(output)
                self._meter(job, said)
        if process.returncode != 0:
            lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
            reason = next(
                (line for line in lines if line.startswith("rsync")), f"rsync ended with {process.returncode}"
            )
            raise CopyFailed(re.sub(r"/proc/self/fd/\d+", "", reason))
        files, size = _FILES.search(said), _BYTES.search(said)
        return (int(files[1]) if files else 0, int(size[1]) if size else 0)

    def _meter(self, job: Job, said: bytes) -> None:
        """Bill what crossed the wire, also of a copy that ended before its end."""
        if "--dry-run" in job.flags:
            return
        whole, parts = _BYTES.search(said), _SO_FAR.findall(said)
        moved = int(whole[1]) if whole else int(parts[-1]) if parts else 0
        for end, kind in ((job.source, "bwu"), (job.dest, "bwd")):
            if end.instance is not None and moved:
                self._market.money.meter(end.instance, kind, moved / 1e9)

    def _pace(self, job: Job) -> list[str]:
        """rsync's limit for the links of the machines concerned, in KiB a second of this machine's time."""
        rates = []
        if job.source.instance is not None:
            rates.append(self._market.books.machine_of(job.source.instance).inet_up)
        if job.dest.instance is not None:
            rates.append(self._market.books.machine_of(job.dest.instance).inet_down)
        limit = min(rates) * 1e6 / 8 / 1024 * self._market.config.speed
        return [f"--bwlimit={max(int(limit), 1)}"]

    def _check(self, job: Job) -> None:
        if job.cancelled.is_set():
            raise CopyFailed("cancelled")
        if self._market.boxes.closing.is_set():
            raise CopyFailed("the marketplace ended")
        for end in (job.source, job.dest):
            if end.instance is not None:
                try:
                    self._market.books.instance(end.instance)
                except MarketError as gone:
                    raise CopyFailed(str(gone)) from gone

    # --- the disks ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _disk(self, end: End) -> Iterator[Path]:
        """MarketError in the API's words where an instance has no disk."""
        if end.connection is not None:
            yield end.connection.folder
            return
        assert end.instance is not None
        try:
            with self._market.boxes.disk(end.instance) as disk:
                yield disk
        except EngineError as reason:
            raise MarketError(200, "invalid_args", str(reason)) from reason

    @contextlib.contextmanager
    def _opened(self, end: End, as_source: bool) -> Iterator[_Handle]:
        """One side, held open. CopyFailed for a path that is not there or leads through a symbolic link."""
        with contextlib.ExitStack() as stack:
            try:
                disk = stack.enter_context(self._disk(end))
                parts = [part for part in end.path.split("/") if part not in ("", ".")]
                if ".." in parts:
                    raise CopyFailed(f"{end}: no path leads upwards")
                last = "" if not as_source or end.path.endswith("/") or not parts else parts.pop()
                descriptor = _walk(disk, parts, make=not as_source)
            except OSError as reason:
                raise CopyFailed(f'rsync: change_dir "{end}" failed: {reason.strerror}') from reason
            except MarketError as reason:
                raise CopyFailed(str(reason)) from reason
            stack.callback(os.close, descriptor)
            yield _Handle(descriptor, f"/proc/self/fd/{descriptor}/{last}")


@dataclass(frozen=True)
class _Handle:
    """An open directory and how rsync is told of it."""

    descriptor: int
    word: str


class _Reporter:
    """Says on the instances how a copy goes, at most every half market minute."""

    def __init__(self, market: Market, job: Job) -> None:
        self._market = market
        self._job = job
        self._message = f"{job.title}: {job.source} -> {job.dest}"
        self._next = market.clock.now() + REPORT_EVERY_S

    def progress(self, percent: int) -> None:
        self._message = f"{self._job.title}: {self._job.source} -> {self._job.dest} {percent}%"

    def tick(self) -> None:
        if self._market.clock.now() >= self._next:
            self._next += REPORT_EVERY_S
            self._say(self._message)

    def settle(self) -> None:
        """Wait for the next report: the end is told as late as everything else."""
        while self._market.clock.now() < self._next and not self._market.boxes.closing.wait(POLL_S):
            pass

    def last(self, message: str) -> None:
        self._say(message)

    def _say(self, message: str) -> None:
        where = self._market.config.dialect.copy_reports
        source, dest = self._job.source.instance, self._job.dest.instance
        told = {"source": [source], "destination": [dest], "both": [source, dest]}[where]
        # A copy with a cloud has one instance only, which is then told whatever the dialect.
        for instance_id in [one for one in told if one is not None] or [one for one in (source, dest) if one]:
            self._market.contracts.say(instance_id, message)


def _walk(root: Path, parts: Sequence[str], make: bool) -> int:
    """A descriptor of the directory at ``parts`` below ``root``, through no symbolic link of a tenant's. OSError."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=handle)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    return handle


def _tail(output: IO[bytes]) -> bytes:
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), 65536, max(0, size - 65536))


def damage(folder: Path, fault: Fault) -> None:
    """Cut, or flip a byte of, the copied files that the fault's pattern names; of all files the last one."""
    everything = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    named = [path for path in everything if fnmatch.fnmatch(f"/{path.relative_to(folder)}", fault.path)]
    for path in named[-1:] if fault.path == "*" else named:
        times = path.stat()
        size = times.st_size
        if fault.kind == "copy_corrupt":
            with path.open("r+b") as stream:
                stream.seek(size // 2)
                byte = stream.read(1) or b"\0"
                stream.seek(size // 2)
                stream.write(bytes([byte[0] ^ 1]))
        else:
            os.truncate(path, size // 2)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

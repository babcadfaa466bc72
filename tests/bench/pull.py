# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A verified pull from a container box beside the usual ways to copy, over one ssh with one cipher and no compression.

Every row stands there twice: by the clock, and in processor seconds of both ends, which say on a machine that does
other things too what the clock would say on a quiet one with all its cores busy.

Ours is the time of the engine: preflight, transfer, hashing, every file in its place. Where something is compared that
verifies, making the manifest on the box counts as ours too.

``TENANT_BENCH_BYTES``, ``TENANT_BENCH_FILES`` and ``TENANT_BENCH_ROUNDS`` make it smaller, ``TENANT_BENCH_FOLDER`` puts
the data elsewhere. ``TENANT_BENCH_TREES=many`` (or ``one``) measures that tree alone and ``TENANT_BENCH_ONLY`` the rows
whose name contains it; the page keeps the lines of the others. Needs root, podman, rsync, rclone, tc. The cipher is
OpenSSH's default.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import carrier, roster, transfer
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, transfer_order
from containers.ssh_box import CIPHER, DATA_IN_BOX, SshBox, ssh_box
from harness import Endless, Row, compare

TITLE = "A verified pull beside plain copying"
BYTES = int(os.environ.get("TENANT_BENCH_BYTES", 2 * 1024**3))
FILES = int(os.environ.get("TENANT_BENCH_FILES", 20_000))
ROUNDS = int(os.environ.get("TENANT_BENCH_ROUNDS", 5))
FILE_BYTES = 10 * 1024
ONLY = os.environ.get("TENANT_BENCH_ONLY", "")
FOLDER = os.environ.get("TENANT_BENCH_FOLDER") or None
ONE, MANY = "one", "many"
TREES = os.environ.get("TENANT_BENCH_TREES", f"{ONE} {MANY}").split()
PART = bool(ONLY) or set(TREES) != {ONE, MANY}
# What others take for many small files is bounded, and measured once: some take minutes.
PATIENCE_S = 180
TRANSPORTS = {"rsync": 1.3, "stream": 1.15}
# Many small files wait for the box's answers, so its documentation has more of them carried and compared at a time.
RCLONE = {ONE: ["--checkers", "8"], MANY: ["--transfers", "16", "--checkers", "16"]}
# The rival's way to verify: every core hashes, with hashlib.
HASH_TREE = """
import concurrent.futures, hashlib, json, os, sys
def sha256(path):
    with open(path, "rb") as stream:
        return os.path.relpath(path, sys.argv[1]), hashlib.file_digest(stream, "sha256").hexdigest()
paths = [os.path.join(parent, name) for parent, _, names in os.walk(sys.argv[1]) for name in names]
with concurrent.futures.ProcessPoolExecutor() as pool:
    print(json.dumps(dict(pool.map(sha256, paths, chunksize=256))))
"""


class Bytes(Row):
    """A row that counts bytes instead of seconds."""

    def markdown(self) -> str:
        return super().markdown().replace(" s / ", " MB / ").replace(" s |", " MB |")


class Work(Row):
    """A row that counts processor seconds of both ends, which other load hardly touches."""

    def markdown(self) -> str:
        return super().markdown().replace(" s / ", " CPU s / ").replace(" s |", " CPU s |")


class Copies:
    """Ways to bring one tree of the box here."""

    def __init__(self, box: SshBox, here: Path, tree: str) -> None:
        self.box, self.dest, self.tree = box, here / "dest", tree
        self.far = f"{DATA_IN_BOX}/{tree}"
        self.manifest = roster.parse_manifest(box.manifest(self.far))

    def work(self) -> float:
        """Processor seconds of this process, of the programs it ran, and of the box."""
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return self.box.work() + sum(usage.ru_utime + usage.ru_stime for usage in usages)

    def clear(self) -> None:
        """Empty, and nothing of an earlier round still on its way to the disk."""
        shutil.rmtree(self.dest, ignore_errors=True)
        os.sync()

    def verified(self, transport: str, manifest: roster.Manifest | None = None) -> dict[str, Any]:
        manifest = manifest or self.manifest
        order = transfer_order.Order(
            pull=True,
            src=self.far,
            dest=str(self.dest),
            files=manifest.files,
            manifest=manifest,
            transport=transport,
            patience=carrier.Patience(retries=0, first_wait_s=0.1),
            wishes=transfer.RsyncWishes(60),
        )
        return checked_transfer.run(order, transfer_order.Far("box1", self.box.link, self.box.ask))

    def proven(self, transport: str, manifest: roster.Manifest | None = None) -> None:
        result = self.verified(transport, manifest)
        if result["verified"] is not True:
            raise AssertionError(result)

    def promised_and_proven(self, transport: str) -> None:
        self.proven(transport, roster.parse_manifest(self.box.manifest(self.far)))

    def rsync(self, *flags: str) -> None:
        source = f"{self.box.place}:{self.far}/"
        _run("rsync", *flags, "--rsh", shlex.join(self.box.ssh), source, f"{self.dest}/")

    def hash_both(self) -> None:
        there = json.loads(self.box.python(HASH_TREE, self.far))
        here = json.loads(_run(sys.executable, "-c", HASH_TREE, str(self.dest)))
        here.pop(roster.MANIFEST_NAME, None)
        if there != here:
            raise AssertionError("the two ends differ")

    def rsync_and_hashes(self) -> None:
        self.rsync("-a")
        self.hash_both()

    def scp(self) -> None:
        self.dest.mkdir(parents=True)
        words = ["scp", "-q", "-r", *self.box.ssh[1:], f"{self.box.place}:{self.far}", str(self.dest)]
        _run(*words, within_s=PATIENCE_S)

    def rclone(self) -> None:
        keys = f"key_file={self.box.folder}/key,known_hosts_file={self.box.folder}/known_hosts"
        remote = f":sftp,host={self.box.address},user=root,shell_type=unix,ciphers={CIPHER},{keys}:{self.far}"
        deadline = time.monotonic() + PATIENCE_S
        for verb in ("copy", "check"):
            words = ["rclone", verb, "--quiet", "--config", "", *RCLONE[self.tree], remote, str(self.dest)]
            _run(*words, within_s=deadline - time.monotonic())


def _run(*argv: str, within_s: float | None = None) -> bytes:
    """subprocess.TimeoutExpired when it has not ended ``within_s`` seconds; it is ended then."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=within_s).stdout


# --- the data -----------------------------------------------------------------------------------------------------


def _make_trees(data: Path) -> dict[str, str]:
    """Random bytes, which no compression makes smaller; names of the trees and what is in them."""
    if ONE in TREES:
        (data / ONE).mkdir()
        with (data / ONE / "step-1.pt").open("wb") as stream:
            for begin in range(0, BYTES, 1 << 24):
                stream.write(os.urandom(min(1 << 24, BYTES - begin)))
    for number in range(FILES if MANY in TREES else 0):
        folder = data / MANY / f"c{number % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number:05d}.bin").write_bytes(os.urandom(FILE_BYTES))
    os.sync()
    size = f"{BYTES / 2**30:g} GiB" if BYTES >= 2**30 else f"{BYTES / 2**20:g} MiB"
    what = {ONE: f"{size} in one file", MANY: f"{FILES:,} files of {FILE_BYTES // 1024} KiB"}
    return {tree: what[tree] for tree in TREES}


# --- the rows -----------------------------------------------------------------------------------------------------


def rows() -> list[Row]:
    # Ended early, it still takes its container away.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="gt-bench-", dir=FOLDER) as folder:
        here = Path(folder)
        (here / "data").mkdir()
        trees = _make_trees(here / "data")
        with ssh_box(here / "data") as box:
            found = []
            for tree, what in trees.items():
                copies = Copies(box, here, tree)
                for plan in (_plain, _shaped, _proven, _others, _repeat, _cut):
                    for row in plan(copies, what):
                        print(row.markdown(), file=sys.stderr, flush=True)
                        found.append(row)
            return found


def _compared(
    copies: Copies, name: str, ours: Callable[[], object], theirs: Callable[[], object], limit: float | None = None
) -> Iterator[Row]:
    if ONLY in name:
        yield from _both_measures(copies, name, ours, theirs, limit, copies.clear)


def _both_measures(
    copies: Copies,
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    limit: float | None,
    before: Callable[[], object] | None = None,
) -> Iterator[Row]:
    """By the clock, which the bar is about, and in processor seconds."""
    worked: dict[str, list[float]] = {"ours": [], "theirs": []}

    def metered(key: str, action: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            begun = copies.work()
            action()
            worked[key].append(copies.work() - begun)

        return run

    yield compare(name, metered("ours", ours), metered("theirs", theirs), limit, ROUNDS, before)
    # The first round does not count here either.
    yield Work(f"{name}, in processor time", tuple(worked["ours"][1:]), tuple(worked["theirs"][1:]))


def _plain(copies: Copies, what: str) -> Iterator[Row]:
    for transport, limit in TRANSPORTS.items():
        name = f"{what}: verified pull by {transport}, to rsync -aW"
        yield from _compared(copies, name, lambda by=transport: copies.proven(by), lambda: copies.rsync("-aW"), limit)


def _shaped(copies: Copies, what: str) -> Iterator[Row]:
    for transport in TRANSPORTS:
        name = f"{what}: the same on 1 Gbit/s (tc-tbf), by {transport}"
        if ONLY in name:
            with copies.box.shaped("1gbit"):
                yield from _compared(
                    copies, name, lambda by=transport: copies.proven(by), lambda: copies.rsync("-aW"), 1.05
                )


def _proven(copies: Copies, what: str) -> Iterator[Row]:
    for transport in TRANSPORTS:
        name = f"{what}: manifest and verified pull by {transport}, to rsync -a and SHA-256 of both ends on all cores"
        ours = functools.partial(copies.promised_and_proven, transport)
        yield from _compared(copies, name, ours, copies.rsync_and_hashes, 1.0)


def _others(copies: Copies, what: str) -> Iterator[Row]:
    ours = functools.partial(copies.promised_and_proven, "auto")
    compared = _compared if copies.tree == ONE else _compared_once
    yield from compared(copies, f"{what}: manifest and verified pull, to rclone copy and check", ours, copies.rclone)
    yield from compared(copies, f"{what}: manifest and verified pull, to scp -r", ours, copies.scp)


def _compared_once(
    copies: Copies, name: str, ours: Callable[[], object], theirs: Callable[[], object]
) -> Iterator[Row]:
    """One round of what may take minutes, or longer than anybody waits."""
    if ONLY not in name:
        return
    seconds, worked, ended = [], [], True
    for action in (ours, theirs):
        copies.clear()
        begun, work = time.perf_counter(), copies.work()
        try:
            action()
        except subprocess.TimeoutExpired:
            ended = False
        seconds.append(time.perf_counter() - begun)
        worked.append(copies.work() - work)
    if not ended:
        yield Endless(name, (seconds[0],), (float(PATIENCE_S),))
        return
    yield Row(name, (seconds[0],), (seconds[1],))
    yield Work(f"{name}, in processor time", (worked[0],), (worked[1],))


def _repeat(copies: Copies, what: str) -> Iterator[Row]:
    """Nothing is cleared: the tree is there and unchanged."""
    name = f"{what}, again and unchanged: manifest and pull, to SHA-256 of both ends on all cores"
    if ONLY not in name:
        return
    copies.clear()
    copies.proven("auto")
    yield from _both_measures(copies, name, lambda: copies.promised_and_proven("auto"), copies.hash_both, 1.2)


def _cut(copies: Copies, what: str) -> Iterator[Row]:
    """ssh is killed when half of the bytes have left the box; what leaves it in the second run is counted."""
    for transport in TRANSPORTS:
        name = f"{what}: second run by {transport} after a cut at 50 %, to all"
        if ONLY not in name:
            continue
        moved = []
        for _unused in range(ROUNDS):
            copies.clear()
            with _cutting_at_half(copies):
                result = copies.verified(transport)
            if not result.get("failed"):
                raise AssertionError("the transfer was not cut")
            before = copies.box.sent_bytes()
            copies.proven(transport)
            moved.append((copies.box.sent_bytes() - before) / 1e6)
        whole = copies.manifest.total_bytes / 1e6
        yield Bytes(name, tuple(moved), (whole,) * len(moved), 0.55)


@contextlib.contextmanager
def _cutting_at_half(copies: Copies) -> Iterator[None]:
    """On a shaped link, so that the cut comes near the half."""
    over = threading.Event()
    with copies.box.shaped("1gbit"):
        watcher = threading.Thread(target=_cut_at_half, args=(copies, over))
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _cut_at_half(copies: Copies, over: threading.Event) -> None:
    half = copies.box.sent_bytes() + copies.manifest.total_bytes // 2
    while not over.is_set():
        time.sleep(0.01)
        if copies.box.sent_bytes() >= half:
            _kill_the_transfers_ssh()
            return


def _kill_the_transfers_ssh() -> None:
    """The ssh that carries it, not the connection that stays open: that one is no child of ours."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            text = (entry / "stat").read_text()
            name, parent = text[text.index("(") + 1 : text.rindex(")")], int(text.rpartition(")")[2].split()[1])
            if name == "ssh" and parent in _our_processes():
                os.kill(int(entry.name), signal.SIGKILL)


def _our_processes() -> set[int]:
    """This process and its rsyncs."""
    found = {os.getpid()}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            text = (entry / "stat").read_text()
            if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found

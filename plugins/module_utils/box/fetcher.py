# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The fetcher: brings the inputs of an order to the box, proves them by hash and places them. One process per set.

Everything it knows lies on the disk. Killed at any instruction, the next one goes on inside the file where it ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import shutil
import signal
import threading
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from . import (
    aria2,
    calling,
    diary,
    download,
    fetch_order,
    gates,
    http_get,
    hub,
    inputs,
    ladder,
    locks,
    process,
    records,
    run_record,
    urls,
)
from .http_get import DENIED, FULL, WRONG, HttpProblem
from .layout import Layout
from .refusal import DISK, ENVIRONMENT, INPUTS, SYSTEM, USAGE, Refused

TELL_EVERY_S = 1.0
# A source that others follow is given this part of the tries.
_SHARE = 3
_CHUNK = 1024 * 1024
_FIXES = {
    DENIED: "see the secret that the input names, or deploy again where its URL was made for this box and has expired",
    FULL: "free space or rent a larger disk, then deploy again: it continues",
    WRONG: "correct the hash or the address in the run spec, then deploy again",
    http_get.MISSING: "correct the address in the run spec, then deploy again",
    http_get.REFUSED: "correct the address in the run spec, then deploy again",
}
_GO_ON = "deploy again: it continues where it ended"


@dataclass(frozen=True)
class Wanted:
    """One file: where it lies in the set, what it must be, and where it comes from: each rung is tried in turn."""

    path: str
    algorithm: str
    hash: str
    bytes: int | None
    rungs: tuple[ladder.Rung, ...]


class Fetcher:
    def __init__(self, layout: Layout, set_digest: str) -> None:
        self._root = layout.root
        self._store = inputs.Store(layout)
        self._digest = set_digest
        self._order = fetch_order.read(layout, set_digest)
        self._stop = threading.Event()
        self._count_lock = threading.Lock()
        self._fetched = 0
        self._done = 0
        self._done_bytes = 0
        self._facts: dict[str, Any] = {}
        self._started = time.monotonic()

    def main(self, ready: Callable[[], None]) -> int:
        """Fetch until the set is proven. Exit code 0, or that of the refusal, which the progress record tells too."""
        lock = locks.lock_within(self._store.lock(self._digest), 3.0, "the fetch of these inputs")
        try:
            os.umask(0o077)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_arguments: self._stop.set())
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._tell(state=fetch_order.FETCHING, process=process.myself().as_dict(), why="")
            ready()
            return self._run()
        finally:
            os.close(lock)

    def _run(self) -> int:
        try:
            self._fetch()
        except download.Stopped:
            diary.say("fetcher", "asked to stop")
            return 0
        except Refused as refused:
            return self._fail(refused)
        except HttpProblem as problem:
            code = DISK if problem.kind == FULL else INPUTS
            return self._fail(Refused(code, str(problem), _FIXES.get(problem.kind, _GO_ON)))
        except OSError as error:
            code = DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else SYSTEM
            return self._fail(Refused(code, f"the operating system refused: {error}", "look at disk and permissions"))
        diary.say("fetcher", f"the inputs {self._digest} are proven")
        return 0

    def _fail(self, refused: Refused) -> int:
        diary.say("fetcher", f"failed: {refused.what}")
        with contextlib.suppress(OSError):
            self._tell(state=fetch_order.FAILED, why=refused.what, fix=refused.fix, code=refused.code)
        return refused.code

    def _fetch(self) -> None:
        calling.prepare(self._root, self._order["env"], self._order["proxy_hook"])
        wanted = self._wanted()
        sizes = [file.bytes for file in wanted]
        total = sum(size or 0 for size in sizes) if None not in sizes else None
        self._tell(files_total=len(wanted), bytes_total=total, now="looking at what is here")
        self._check_room(wanted)
        for folder in ("blobs", "partial"):
            os.makedirs(os.path.join(self._store.root, folder), mode=0o700, exist_ok=True)
        with self._alone():
            self._bring_all(wanted)
        self._tell(now="placing")
        self._place(wanted)
        self._tell(state=fetch_order.PROVEN, now="", why="")
        # Whoever holds a presigned URL may read what it is for, so none stays longer than it is needed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._store.order(self._digest))

    # --- what is wanted ---------------------------------------------------------------------------------------

    def _wanted(self) -> list[Wanted]:
        found: list[Wanted] = []
        for entry in self._order["inputs"]:
            with _naming(entry["dest"]):
                found += self._of_uri(entry) if "uri" in entry else self._of_repository(entry)
        return found

    def _of_uri(self, entry: dict[str, Any]) -> list[Wanted]:
        url = self._order["urls"].get(entry["dest"], entry["uri"])
        if not url.startswith(("http://", "https://")):
            raise Refused(USAGE, f"{entry['uri']} needs a presigned URL", "deploy from a controller that has its key")
        rungs = (ladder.Rung(url, self._secret(entry)),)
        return [Wanted(entry["dest"], hub.SHA256, entry["sha256"], None, rungs)]

    def _of_repository(self, entry: dict[str, Any]) -> list[Wanted]:
        headers = self._secret(entry)
        asked = ladder.endpoints(os.environ, self._order["env"], bool(headers))
        if headers and urls.is_open(asked[0].url):
            raise HttpProblem(http_get.REFUSED, f"{urls.shown(asked[0].url)} is http, where anybody reads a token")
        self._tell(now=f"listing {entry['repo']}")
        repository, listed = self._listed(entry, headers, asked)
        files = hub.chosen(listed, entry["include"], entry["exclude"])
        if not files:
            raise HttpProblem(WRONG, f"no file of {entry['repo']} is chosen by include and exclude")
        return [
            Wanted(
                f"{entry['dest']}/{each.path}",
                each.algorithm,
                each.hash,
                each.bytes,
                tuple(ladder.rungs(asked, repository, each, os.environ)),
            )
            for each in files
        ]

    def _listed(
        self, entry: dict[str, Any], headers: dict[str, str], asked: list[ladder.Endpoint]
    ) -> tuple[hub.Repository, list[hub.HubFile]]:
        """The files of the commit, from the first endpoint that tells them."""
        failed: list[HttpProblem] = []
        for number, endpoint in enumerate(asked, 1):
            patience = self._patience(is_last=number == len(asked))
            repository = hub.Repository(
                entry["repo"], entry["type"], entry["revision"], endpoint.url, headers, self._order["stall_s"]
            )
            read = functools.partial(_read_by, endpoint.route, patience)
            try:
                return repository, repository.files(read)
            except HttpProblem as problem:
                self._give_up(problem, endpoint.url, failed)
        raise _all_failed(failed)

    def _give_up(self, problem: HttpProblem, endpoint: str, failed: list[HttpProblem]) -> None:
        """Go on with the next source, unless no source can help."""
        if problem.kind in (FULL, http_get.DEADLINE):
            raise problem
        failed.append(problem)
        if endpoint:
            diary.say("fetcher", f"{urls.shown(endpoint)} failed: {problem}")
            with contextlib.suppress(OSError):
                calling.note_failure(self._root, endpoint, str(problem))

    def _secret(self, entry: dict[str, Any]) -> dict[str, str]:
        name = entry["secret"]
        if not name:
            return {}
        known = run_record.read_env_file(self._order["env_file"]) if self._order["env_file"] else {}
        if not known.get(name):
            raise Refused(ENVIRONMENT, f"the secret {name} is not on this box", "name it in the run spec's secrets")
        return {"Authorization": f"Bearer {known[name]}"}

    def _patience(self, is_last: bool = True) -> download.Patience:
        """:param is_last: no other source is left, so that this one is given every try."""
        order = self._order
        return download.Patience(
            self._started + order["deadline_s"],
            stall_s=order["stall_s"],
            tries=int(order["tries"]) if is_last else max(1, int(order["tries"]) // _SHARE),
            first_wait_s=order["first_wait_s"],
            stop=self._stop,
        )

    def _check_room(self, wanted: list[Wanted]) -> None:
        """Bytes and inodes for everything whose size is known; the others are checked when their answer comes."""
        disk = gates.disk_of(self._store.root)
        blobs = {self._store.blob(file.algorithm, file.hash): file for file in wanted}
        missing = {path: file for path, file in blobs.items() if not os.path.exists(path)}
        there = sum(_size(self._store.partial(file.algorithm, file.hash)) for file in missing.values())
        need = max(0, sum(file.bytes or 0 for file in missing.values()) - there)
        folders = {os.path.dirname(file.path) for file in wanted}
        limits = {
            "min_free_bytes": need + int(self._order["reserve_bytes"]),
            "min_free_inodes": len(missing) + len(folders) + int(self._order["reserve_inodes"]),
        }
        short = gates.shortages(disk, limits)
        if short:
            raise Refused(DISK, f"the inputs do not fit: {'; '.join(short)} (inputs and reserve)", _FIXES[FULL])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One fetch at a time: two sets may want the same file, and the wire is the same in any case."""
        patience = self._patience()
        path = os.path.join(self._store.root, "fetch.lock")
        lock = locks.try_lock(path)
        while lock is None:
            self._tell(now="waiting for another fetch")
            patience.pause(TELL_EVERY_S)
            lock = locks.try_lock(path)
        try:
            yield
        finally:
            os.close(lock)

    # --- bring and prove --------------------------------------------------------------------------------------

    def _bring_all(self, wanted: list[Wanted]) -> None:
        once = list({(file.algorithm, file.hash): file for file in wanted}.values())
        patience = self._patience()
        with ThreadPoolExecutor(max_workers=int(self._order["connections"])) as pool:
            pending: set[Future[None]] = {pool.submit(self._bring, file, patience) for file in once}
            try:
                while pending:
                    ended, pending = wait(pending, timeout=TELL_EVERY_S)
                    for each in ended:
                        each.result()
                    self._tell()
            except BaseException:
                # The first failure ends the others; what they brought is kept.
                self._stop.set()
                raise

    def _bring(self, file: Wanted, patience: download.Patience) -> None:
        patience.check()
        blob, partial = self._store.blob(file.algorithm, file.hash), self._store.partial(file.algorithm, file.hash)
        with _naming(file.path):
            if not (os.path.exists(blob) and self._is_right(blob, file)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(blob)
                self._download(file, partial, blob)
        with self._count_lock:
            self._done += 1
            self._done_bytes += os.path.getsize(blob)

    def _download(self, file: Wanted, partial: str, blob: str) -> None:
        failed: list[HttpProblem] = []
        for number, rung in enumerate(file.rungs, 1):
            try:
                self._climb(file, rung, partial, blob, self._patience(is_last=number == len(file.rungs)))
                return
            except HttpProblem as problem:
                self._give_up(problem, rung.endpoint, failed)
        raise _all_failed(failed)

    def _climb(self, file: Wanted, rung: ladder.Rung, partial: str, blob: str, patience: download.Patience) -> None:
        """The file from one source, proven. What another one brought of the same version is gone on with."""
        reserve = int(self._order["reserve_bytes"])
        source = download.Source(rung.url, rung.secret_headers, file.bytes, reserve, rung.route)
        coming = download.Download(source, partial, patience, self._arrived)
        for last in (False, True):
            if rung.engine == ladder.ARIA2:
                aria2.bring(rung.url, rung.route, partial, patience)
            else:
                coming.run()
            right = self._right_file(file, partial, coming.encoding)
            if right:
                os.chmod(right, 0o400)
                os.replace(right, blob)
                records.fsync_directory(os.path.dirname(blob))
                coming.forget()
                return
            # Pieces of two versions do not make one: only an answer that came in one piece proves what lies there.
            doubtful = coming.is_doubtful
            found = self._hash(partial, file)
            coming.forget()
            if last or not doubtful:
                raise HttpProblem(
                    WRONG, f"what lies at {urls.shown(rung.url)} has {file.algorithm} {found}, not {file.hash}"
                )

    def _right_file(self, file: Wanted, partial: str, encoding: str) -> str:
        """The path of the bytes that were promised: as they came, or without their content encoding; else empty."""
        if self._is_right(partial, file):
            return partial
        if encoding in ("gzip", "x-gzip", "deflate"):
            decoded = f"{partial}.decoded"
            if _decode(partial, decoded, int(self._order["reserve_bytes"])) and self._is_right(decoded, file):
                return decoded
            with contextlib.suppress(FileNotFoundError):
                os.unlink(decoded)
        return ""

    def _is_right(self, path: str, file: Wanted) -> bool:
        return file.bytes in (None, os.path.getsize(path)) and self._hash(path, file) == file.hash

    def _hash(self, path: str, file: Wanted) -> str:
        if file.algorithm == hub.SHA256:
            return records.sha256_file(path)
        # Git's own name of the bytes, which guards against accidents only; large files carry a SHA-256.
        hasher = hashlib.sha1(b"blob %d\0" % os.path.getsize(path))  # noqa: S324
        with open(path, "rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                hasher.update(chunk)
        return hasher.hexdigest()

    def _arrived(self, count: int) -> None:
        with self._count_lock:
            self._fetched += count

    # --- place ------------------------------------------------------------------------------------------------

    def _place(self, wanted: list[Wanted]) -> None:
        """Build the set beside its place, swap it in, and only then write the proof."""
        folder = self._store.folder(self._digest)
        new, old = f"{folder}.new", f"{folder}.old"
        for path in (new, old):
            _remove(path)
        os.makedirs(new, mode=0o700)
        for file in wanted:
            path = os.path.join(new, file.path)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _link(self._store.blob(file.algorithm, file.hash), path)
        for path, _folders, _files in os.walk(new):
            os.chmod(path, 0o500)
        if os.path.isdir(folder):
            os.rename(folder, old)
        os.rename(new, folder)
        records.fsync_directory(os.path.dirname(folder))
        _remove(old)
        files = [self._proof_of(folder, file) for file in wanted]
        proof = {"inputs": self._order["inputs"], "files": files, "proven_at": records.utc_now()}
        records.write_record(self._store.proof(self._digest), "inputs-proof", proof)

    def _proof_of(self, folder: str, file: Wanted) -> dict[str, Any]:
        mark = inputs.mark_of(os.path.join(folder, file.path))
        return {"path": file.path, "bytes": mark[1], "algorithm": file.algorithm, "hash": file.hash, "mark": mark}

    def _tell(self, **changes: Any) -> None:
        with self._count_lock:
            seconds = max(0.001, time.monotonic() - self._started)
            told = {
                "files": self._done,
                "bytes": self._done_bytes,
                "fetched_bytes": self._fetched,
                "rate": round(self._fetched / seconds, 1),
            }
        self._facts = {**self._facts, **told, "updated_at": records.utc_now(), **changes}
        records.write_record(self._store.progress(self._digest), "fetch-progress", self._facts)


def _read_by(route: str, patience: download.Patience, call: http_get.Call) -> tuple[Mapping[str, str], bytes]:
    return download.read_patiently(dataclasses.replace(call, route=route), patience)


def _all_failed(failed: list[HttpProblem]) -> HttpProblem:
    """The first failure is of the best source; the others say that nothing else helped."""
    first, others = failed[0], failed[1:]
    more = f"; then {'; '.join(str(each) for each in others)}" if others else ""
    return HttpProblem(first.kind, f"{first}{more}", first.wait_s)


@contextlib.contextmanager
def _naming(dest: str) -> Iterator[None]:
    """Every failure says which input it is about."""
    try:
        yield
    except HttpProblem as problem:
        raise HttpProblem(problem.kind, f"input {dest}: {problem}", problem.wait_s) from problem
    except Refused as refused:
        raise Refused(refused.code, f"input {dest}: {refused.what}", refused.fix) from refused


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _link(source: str, path: str) -> None:
    """A hard link, so that nothing dangles; a symlink where the file system knows none."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES):
            raise
        os.symlink(os.path.relpath(source, os.path.dirname(path)), path)


def _remove(folder: str) -> None:
    """Remove a set: links only. Its folders are read-only, which a user without root must lift first."""
    if not os.path.isdir(folder):
        return
    for path, _folders, _files in os.walk(folder):
        os.chmod(path, 0o700)
    shutil.rmtree(folder)


def _decode(source: str, target: str, reserve: int) -> bool:
    """Undo a gzip or deflate encoding; False when the bytes are not of that kind."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        unpacker = zlib.decompressobj(wbits=47)
        try:
            for chunk in iter(lambda: reader.read(_CHUNK), b""):
                while chunk:
                    writer.write(unpacker.decompress(chunk, _CHUNK))
                    chunk = unpacker.unconsumed_tail
                if gates.disk_of(os.path.dirname(target)).free_bytes < reserve:
                    raise HttpProblem(FULL, "the disk would be full before the compressed answer is unpacked")
            writer.write(unpacker.flush())
        except zlib.error:
            return False
        writer.flush()
        os.fsync(writer.fileno())
    return unpacker.eof


def main(layout: Layout, set_digest: str, ready_fd: int | None) -> int:
    """Entry of the verb ``fetcher``."""

    def ready() -> None:
        if ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"1")
                os.close(ready_fd)

    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)
    return Fetcher(layout, set_digest).main(ready)

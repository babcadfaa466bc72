# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the box does to bring files into an object store: hash ranges of them, and send ranges to presigned URLs.

The box has no key of the store. A URL admits one request for one object and, where the store checks the signed
SHA-256, no other bytes than those.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping, Sequence

from .box.names import UnsafeName, inside
from .failures import TenantFailure
from .object_requests import CHANGED, CHUNK, Patience, Request, Session, StoreProblem, cores, run_all
from .roster import RosterFile, check_path, is_sha256
from .settling import check_file

HASHES = ("sha256", "md5")


class BadOrder(ValueError):
    """An order that makes no sense; the text says why, and quotes no URL."""


@dataclass(frozen=True)
class Range:
    """``bytes`` bytes of the file ``path`` from ``offset`` on; ``of`` is how long the whole file must be."""

    path: str
    offset: int
    bytes: int
    of: int


@dataclass(frozen=True)
class Hashing:
    """A range and the name of the hash that is wanted of it."""

    range: Range
    algorithm: str


@dataclass(frozen=True)
class Sending:
    """A range and the presigned request that takes it; ``sha256`` is what the bytes must have, empty for not known."""

    range: Range
    url: str
    headers: Mapping[str, str]
    sha256: str = ""


@dataclass(frozen=True)
class Order:
    """All of one call: what to hash, what to send, and which whole files to compare with the roster meanwhile."""

    root: str
    hashes: tuple[Hashing, ...] = ()
    sends: tuple[Sending, ...] = ()
    whole: tuple[RosterFile, ...] = ()
    connections: int = 8
    stall_timeout_s: float = 60.0
    deadline_s: float = 3600.0
    tries: int = 5


def parse_order(record: object) -> Order:
    """The order in ``record``. BadOrder for anything that cannot be one."""
    try:
        return _parse_order(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, (BadOrder, UnsafeName)):
            raise BadOrder(str(error)) from error
        raise BadOrder(f"the order is malformed ({type(error).__name__})") from None


def _parse_order(record: Any) -> Order:
    root = record["root"]
    if not isinstance(root, str) or not os.path.isabs(root):
        raise BadOrder("root is not an absolute path")
    return Order(
        root=root,
        hashes=tuple(Hashing(_parse_range(entry), _one_of(entry["algorithm"])) for entry in record.get("hashes", ())),
        sends=tuple(_parse_sending(entry) for entry in record.get("sends", ())),
        whole=tuple(_parse_whole(entry) for entry in record.get("whole", ())),
        connections=max(1, int(record.get("connections", 8))),
        stall_timeout_s=float(record.get("stall_timeout_s", 60.0)),
        deadline_s=float(record.get("deadline_s", 3600.0)),
        tries=max(1, int(record.get("tries", 5))),
    )


def _parse_range(entry: Mapping[str, Any]) -> Range:
    found = Range(check_path(entry["path"]), int(entry["offset"]), int(entry["bytes"]), int(entry["of"]))
    if found.offset < 0 or found.bytes < 0 or found.offset + found.bytes > found.of:
        raise BadOrder(f"the range of {found.path!r} is not inside it")
    return found


def _parse_sending(entry: Mapping[str, Any]) -> Sending:
    url, sha256 = str(entry["url"]), str(entry.get("sha256", ""))
    if not url.startswith(("https://", "http://")):
        raise BadOrder("a URL is neither https nor http")
    headers = {str(name): str(value) for name, value in entry.get("headers", {}).items()}
    return Sending(_parse_range(entry), url, headers, sha256)


def _parse_whole(entry: Mapping[str, Any]) -> RosterFile:
    if not is_sha256(entry["sha256"]):
        raise BadOrder("a SHA-256 is not one")
    return RosterFile(check_path(entry["path"]), int(entry["bytes"]), entry["sha256"])


def _one_of(algorithm: str) -> str:
    if algorithm not in HASHES:
        raise BadOrder(f"no hash is called {algorithm!r}")
    return algorithm


def as_dict(wanted: Range, **more: Any) -> dict[str, Any]:
    """``wanted`` as it stands in an order."""
    return {"path": wanted.path, "offset": wanted.offset, "bytes": wanted.bytes, "of": wanted.of, **more}


# --- carrying out -------------------------------------------------------------------------------------------------


def carry_out(order: Order) -> dict[str, Any]:
    """Hash and send at the same time; ``{hashed, sent, whole}``, each in the order's order.

    An entry that did not work is ``{kind, problem}``; the others are ``{digest}`` and ``{etag, version_id}``.
    ``whole`` lists the files that are not what the roster says.
    """
    hashed: list[dict[str, str]] = []
    whole: list[dict[str, str]] = []
    failures: list[BaseException] = []

    def hash_all() -> None:
        try:
            with ThreadPoolExecutor(cores()) as pool:
                ranges = [pool.submit(_hash, order.root, wanted) for wanted in order.hashes]
                files = [pool.submit(check_file, order.root, file) for file in order.whole]
                hashed.extend(future.result() for future in ranges)
                found = [future.result() for future in files]
            whole.extend({"path": file.path, "what": what} for file, what in zip(order.whole, found) if what)
        except BaseException as error:
            failures.append(error)

    hasher = threading.Thread(target=hash_all)
    hasher.start()
    sent = _send_all(order)
    hasher.join()
    if failures:
        raise failures[0]
    return {"hashed": hashed, "sent": sent, "whole": whole}


def _hash(root: str, wanted: Hashing) -> dict[str, str]:
    hasher = hashlib.new(wanted.algorithm, usedforsecurity=False) if _KNOWS_PURPOSE else hashlib.new(wanted.algorithm)
    try:
        with _opened(root, wanted.range) as descriptor:
            for chunk in _chunks(descriptor, wanted.range):
                hasher.update(chunk)
    except StoreProblem as problem:
        return {"kind": problem.kind, "problem": str(problem)}
    return {"digest": hasher.hexdigest()}


def _knows_purpose() -> bool:
    """Whether this Python can say that MD5 is no security here (3.9 on), which hardened builds want to hear."""
    try:
        hashlib.new("md5", usedforsecurity=False)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


_KNOWS_PURPOSE = _knows_purpose()


def _send_all(order: Order) -> list[dict[str, str]]:
    patience = Patience(time.monotonic() + order.deadline_s, order.stall_timeout_s, order.tries)

    def work(session: Session, sending: Sending) -> dict[str, str]:
        return _send(order.root, session, sending)

    results: Sequence[dict[str, str] | StoreProblem] = run_all(order.sends, work, patience, order.connections)
    return [
        {"kind": result.kind, "problem": str(result)} if isinstance(result, StoreProblem) else result
        for result in results
    ]


def _send(root: str, session: Session, sending: Sending) -> dict[str, str]:
    wanted = sending.range
    with _opened(root, wanted) as descriptor:

        def body() -> Iterator[bytes]:
            for chunk in _proven(descriptor, sending) if sending.sha256 else _chunks(descriptor, wanted):
                session.patience.check()
                yield chunk

        headers = dict(sending.headers, **{"Content-Length": str(wanted.bytes)})
        reply = session.send(Request("PUT", sending.url, headers, body))
    return {
        "etag": reply.headers.get("etag", "").strip('"'),
        "version_id": reply.headers.get("x-amz-version-id", ""),
    }


def _proven(descriptor: int, sending: Sending) -> Iterator[bytes]:
    """The bytes to send, hashed on their way. The last of them are held back until all have the promised SHA-256:
    a store that checks nothing would take whatever the file has become, but no store takes a request without its end.
    """
    hasher = hashlib.sha256()
    held = b""
    for chunk in _chunks(descriptor, sending.range):
        hasher.update(chunk)
        if held:
            yield held
        held = chunk
    if hasher.hexdigest() != sending.sha256:
        raise StoreProblem(CHANGED, "has other bytes than promised (its SHA-256 differs)")
    if held:
        yield held


@contextlib.contextmanager
def _opened(root: str, wanted: Range) -> Iterator[int]:
    try:
        descriptor = os.open(inside(root, wanted.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except UnsafeName as error:
        raise StoreProblem(CHANGED, "leads out of its folder through a symlink") from error
    except OSError as error:
        raise StoreProblem(CHANGED, f"cannot be read ({error.strerror})") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise StoreProblem(CHANGED, "is not a regular file")
        if facts.st_size != wanted.of:
            raise StoreProblem(CHANGED, f"has {facts.st_size} bytes, {wanted.of} were promised")
        yield descriptor
    finally:
        os.close(descriptor)


def _chunks(descriptor: int, wanted: Range) -> Iterator[bytes]:
    position, end = wanted.offset, wanted.offset + wanted.bytes
    while position < end:
        try:
            chunk = os.pread(descriptor, min(CHUNK, end - position), position)
        except OSError as error:
            raise StoreProblem(CHANGED, f"cannot be read ({error.strerror})") from error
        if not chunk:
            raise StoreProblem(CHANGED, "became shorter while it was read")
        position += len(chunk)
        yield chunk


def answer(record: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the box says of an order: see :func:`carry_out`. TenantFailure for one that makes no sense."""
    try:
        order = parse_order(record)
    except BadOrder as error:
        raise TenantFailure("config", str(error), safe="Nothing was sent", fix="Run the same task again") from error
    return carry_out(replace(order, sends=()) if check_mode else order)

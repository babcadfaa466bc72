# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The far end of a transfer where there is no rsync: one process, one connection, resumable per file.

Runs on the box as ``python -c <this file>``, so it imports nothing of ours. One JSON line on standard input says what
is wanted:

* ``{"op": "send", "root", "files": [{"path", "offset"}]}``: for each file a JSON line ``{"path", "bytes"}`` or
  ``{"path", "error"}``, then that many raw bytes from ``offset`` on;
* ``{"op": "receive", "root", "files": [{"path", "partial", "bytes"}]}``: answers a JSON line ``{"offsets": [..]}``,
  then reads the rest of every file, in order, and ends with ``{"received": true}``.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any, BinaryIO

CHUNK = 256 * 1024


def contained(root: str, path: str) -> str:
    """The absolute path of root/path; ValueError when it leads elsewhere."""
    real_root = os.path.realpath(root).rstrip("/") + "/"
    whole = os.path.join(real_root, path)
    parent = os.path.realpath(os.path.dirname(whole)) + "/"
    if path.startswith("/") or ".." in path.split("/") or not parent.startswith(real_root):
        raise ValueError("leads out of its folder")
    return whole


def write_line(stream: BinaryIO, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value).encode("utf-8") + b"\n")
    stream.flush()


def send(request: dict[str, Any], out: BinaryIO) -> None:
    for entry in request["files"]:
        try:
            send_file(contained(request["root"], entry["path"]), entry, out)
        except (OSError, ValueError) as error:
            write_line(out, {"path": entry["path"], "error": str(error)})


def send_file(place: str, entry: dict[str, Any], out: BinaryIO) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as source:
        facts = os.fstat(source.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("is not a regular file")
        source.seek(entry["offset"])
        left = max(0, facts.st_size - entry["offset"])
        write_line(out, {"path": entry["path"], "bytes": left})
        while left:
            # A file that shrinks meanwhile is filled up to the promised length; its hash then tells.
            chunk = source.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
            out.write(chunk)
            left -= len(chunk)
        out.flush()


def receive(request: dict[str, Any], source: BinaryIO, out: BinaryIO) -> None:
    files = request["files"]
    partials = [contained(request["root"], entry["partial"]) for entry in files]
    places = [contained(request["root"], entry["path"]) for entry in files]
    offsets = [usable_bytes(partial, entry["bytes"]) for partial, entry in zip(partials, files)]
    write_line(out, {"offsets": offsets})
    for partial, place, entry, offset in zip(partials, places, files, offsets):
        if not receive_file(partial, entry["bytes"], offset, source):
            return
        os.replace(partial, place)
    write_line(out, {"received": True})


def usable_bytes(partial: str, size: int) -> int:
    """How much of the file arrived before; 0 when what lies there cannot be its beginning."""
    have = os.path.getsize(partial) if os.path.isfile(partial) and not os.path.islink(partial) else 0
    return have if have <= size else 0


def receive_file(partial: str, size: int, offset: int, source: BinaryIO) -> bool:
    """Whether the rest of the file arrived; what did arrive is kept either way."""
    os.makedirs(os.path.dirname(partial), exist_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.truncate(offset)
        target.seek(offset)
        left = size - offset
        while left:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                return False
            target.write(chunk)
            target.flush()
            left -= len(chunk)
    return True


def main() -> None:
    source, out = sys.stdin.buffer, sys.stdout.buffer
    request = json.loads(source.readline().decode("utf-8"))
    if request["op"] == "send":
        send(request, out)
    else:
        receive(request, source, out)


if __name__ == "__main__":
    main()

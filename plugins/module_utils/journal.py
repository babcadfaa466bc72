# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The journal: append-only JSON lines of intents and effects.

Written by the process that makes the effect, intent first, whoever started it. It explains and sums up; no law
depends on it, so losing it loses history and nothing else. Lines that a newer version wrote are left out, because
guessing there could open the gate, and then nothing is added, so that no verb is begun either.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import uuid
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .box import records
from .failures import TenantFailure
from .file_locks import Lock, take
from .holders import user_name
from .state_store import StateStore

# A line takes as long as the disk needs to have it.
LOCKED_WITHIN_S = 60.0
_TAIL = 65536


class Effect:
    """Collects what an intent led to; ``details`` end up in the effect's line."""

    def __init__(self) -> None:
        self.details: dict[str, Any] = {}


@dataclass(frozen=True)
class Reading:
    """:param lines: oldest first; :param note: says what was left out, empty when nothing was."""

    lines: list[dict[str, Any]]
    note: str = ""


class Journal:
    def __init__(self, store: StateStore) -> None:
        self._path = store.journal_path

    def append(self, kind: str, verb: str, **fields: Any) -> dict[str, Any]:
        """Add one line under a lock, on disk before this returns. Never put a secret into ``fields``.

        :raises TenantFailure: nothing was written: another process has the journal for too long (``lease_held``), or a
            newer version wrote its last line (``config``).
        """
        line = dict(
            fields,
            schema=records.schema("journal"),
            id=fields.get("id", uuid.uuid4().hex),
            at=records.utc_now(),
            kind=kind,
            verb=verb,
            by={"user": user_name(), "host": socket.gethostname(), "pid": os.getpid()},
        )
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as stream:
            take(stream.fileno(), Lock(self._path, "the journal", _unharmed(kind, verb), LOCKED_WITHIN_S))
            if is_newer(_last_line(stream)):
                raise self.newer(_unharmed(kind, verb))
            text = json.dumps(line, sort_keys=True, ensure_ascii=False)
            stream.write(_separator(stream) + records.json_bytes(text) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        return line

    @contextlib.contextmanager
    def effect(self, verb: str, **fields: Any) -> Iterator[Effect]:
        """Journal an intent, run the body, journal its effect or its failure under the same id."""
        intent = self.append("intent", verb, **fields)
        effect = Effect()
        try:
            yield effect
        except BaseException as error:
            # What went wrong outweighs that it cannot be written down: an ambiguous answer must reach who looks it up.
            with contextlib.suppress(TenantFailure):
                self.append("failed", verb, **dict(fields, id=intent["id"], error=str(error)[:500], **effect.details))
            raise
        self.append("effect", verb, **dict(fields, id=intent["id"], **effect.details))

    def check(self) -> None:
        """For what is done before it is written down: the refusal of a newer journal comes first.

        :raises TenantFailure: ``config``.
        """
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as stream:
            if is_newer(_last_line(stream)):
                raise self.newer("nothing was begun")

    def newer(self, safe: str) -> TenantFailure:
        """The refusal to work where a newer version did."""
        fix = "use the gpu-tenant that wrote them, or a newer one; status and report of this one still read the rest"
        return TenantFailure("config", f"{self._newer_words()}, and nothing is written into it", safe=safe, fix=fix)

    def _newer_words(self) -> str:
        return (
            f"the journal {self._path} has lines of a newer gpu-tenant (this one knows version {records.SCHEMA_MAJOR})"
        )

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line of a known version, oldest first; a line torn by a crash is left out."""
        return self.read().lines

    def read(self) -> Reading:
        if not os.path.exists(self._path):
            return Reading([])
        with open(self._path, "rb") as stream:
            whole = [line for line in map(read_line, stream) if line is not None]
        known = [line for line in whole if not is_newer(line)]
        left_out = len(whole) - len(known)
        return Reading(known, f"{self._newer_words()}: {left_out} left out of what is told here" if left_out else "")


def read_line(raw: bytes) -> dict[str, Any] | None:
    """One line of a journal; None for one that a crash tore, or that nobody can read."""
    try:
        line = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def is_newer(line: Mapping[str, Any] | None) -> bool:
    """Whether a line is of a version that this one does not know."""
    match = re.fullmatch(r"gpu-tenant/journal/v([0-9]{1,9})", str((line or {}).get("schema")))
    return match is not None and int(match.group(1)) > records.SCHEMA_MAJOR


def _last_line(stream: Any) -> dict[str, Any] | None:
    """The last whole line; None when there is none. Newer lines are last: whoever finds one there adds none."""
    size = begin = stream.seek(0, os.SEEK_END)
    while begin > 0:
        begin = max(0, 2 * begin - size - _TAIL)
        stream.seek(begin)
        found = stream.read(size - begin).split(b"\n")
        # The first piece may have begun before what was read.
        for raw in reversed(found[1:] if begin else found):
            line = read_line(raw)
            if line is not None:
                return line
    return None


def _unharmed(kind: str, verb: str) -> str:
    if kind == "intent":
        return f"nothing was begun: {verb} is not done before its intent is on disk"
    return f"the journal is whole, it only lacks the line {kind} {verb}; what is true is read from providers and boxes"


def _separator(stream: Any) -> bytes:
    """A newline when a crash left the last line torn, so that the next line stands alone."""
    if stream.seek(0, os.SEEK_END) == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"

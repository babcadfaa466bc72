# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The journal: append-only JSON lines of intents and effects.

Written by the process that makes the effect, intent first, whoever started it. It explains and sums up; no law
depends on it, so losing it loses history and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from typing import Any, Iterator

from .box import records
from .failures import TenantFailure
from .file_locks import Lock, take
from .holders import user_name
from .state_store import StateStore

# A line takes as long as the disk needs to have it.
LOCKED_WITHIN_S = 60.0


class Effect:
    """Collects what an intent led to; ``details`` end up in the effect's line."""

    def __init__(self) -> None:
        self.details: dict[str, Any] = {}


class Journal:
    def __init__(self, store: StateStore) -> None:
        self._path = store.journal_path

    def append(self, kind: str, verb: str, **fields: Any) -> dict[str, Any]:
        """Add one line under a lock, on disk before this returns. Never put a secret into ``fields``.

        :raises TenantFailure: ``lease_held``, nothing was written: another process has the journal for too long.
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
            stream.write(_separator(stream) + json.dumps(line, sort_keys=True, ensure_ascii=False).encode() + b"\n")
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

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line, oldest first; a line torn by a crash is left out."""
        if not os.path.exists(self._path):
            return []
        found = []
        with open(self._path, "rb") as stream:
            for raw in stream:
                with contextlib.suppress(ValueError):
                    found.append(json.loads(raw.decode("utf-8")))
        return [line for line in found if isinstance(line, dict)]


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

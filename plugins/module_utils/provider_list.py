# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One provider list per account, shared by every process of a play for a few seconds.

Sixteen forks that look for their boxes ask the provider once: the first one asks under a lock, the others read what
it wrote. A failure is shared in the same way, so that a provider that is down is not asked sixteen times. The file
lies in the state store, is written for its owner only, holds what :class:`Box` holds (but no environment, no start
script and no key) and may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any, Callable, List

from .box import records
from .failures import EXIT_CODES, TenantFailure
from .file_locks import Lock, held
from .rented_box import Box
from .stamp import parse_stamp
from .state_store import StateStore

SCHEMA = "provider-list"
# One asks under the lock: every page of the list, with repeats.
LOCKED_WITHIN_S = 600.0
Fetch = Callable[[], List[Box]]
# Whatever somebody put into the environment or the start script of a box may be a secret, and nobody here asks for it.
_NOT_WRITTEN = ("environment", "onstart")
_FIELDS = {field.name: field for field in dataclasses.fields(Box) if field.name not in _NOT_WRITTEN}


@dataclasses.dataclass(frozen=True)
class Listing:
    """Every box of an account, as the provider told it at ``observed_at`` (epoch seconds, when it was asked)."""

    boxes: list[Box]
    observed_at: float


class ProviderList:
    """The shared list of one account.

    :param account: what tells accounts apart (API and key); only its hash is written.
    """

    def __init__(self, store: StateStore, driver: str, account: str, clock: Callable[[], float] = time.time) -> None:
        name = hashlib.sha256(account.encode("utf-8")).hexdigest()[:16]
        self._path = store.path("cache", f"{driver}-{name}.json")
        self._clock = clock

    def get(self, fetch: Fetch, not_before: float) -> Listing:
        """A list that the provider was asked for at ``not_before`` or later.

        :raises TenantFailure: the provider's refusal, this process's own or one shared by another; ``lease_held`` when
            another process asks for longer than any provider may take.
        """
        what, safe = "the list of this account's boxes", "the provider was not asked, and nothing was changed"
        with held(Lock(self._path + ".lock", what, safe, LOCKED_WITHIN_S)):
            record = self._shared(not_before) or self._ask(fetch)
        return _listing(record)

    def _shared(self, not_before: float) -> dict[str, Any] | None:
        try:
            record = records.read_record_or_none(self._path, SCHEMA)
        except records.RecordError:
            return None
        if record is None or not _is_usable(record):
            return None
        fresh = not_before <= record["observed_at"] <= self._clock()
        return record if fresh else None

    def _ask(self, fetch: Fetch) -> dict[str, Any]:
        asked_at = self._clock()
        record: dict[str, Any] = {"observed_at": asked_at}
        try:
            record["boxes"] = [_as_record(box) for box in fetch()]
        except TenantFailure as failure:
            record["failure"] = failure.as_result()["failure"]
        return records.write_record(self._path, SCHEMA, record)


def _listing(record: dict[str, Any]) -> Listing:
    failure = record.get("failure")
    if failure is not None:
        raise TenantFailure(**failure)
    return Listing([_as_box(row) for row in record["boxes"]], float(record["observed_at"]))


def _is_usable(record: dict[str, Any]) -> bool:
    """A file of another version, or one that was edited, is asked for anew."""
    if not isinstance(record.get("observed_at"), (int, float)):
        return False
    failure, rows = record.get("failure"), record.get("boxes")
    if failure is not None:
        wanted = {"kind", "what", "box", "safe", "fix"}
        return isinstance(failure, dict) and set(failure) == wanted and failure["kind"] in EXIT_CODES
    return isinstance(rows, list) and all(isinstance(row, dict) and set(row) == set(_FIELDS) for row in rows)


def _as_record(box: Box) -> dict[str, Any]:
    row = {name: getattr(box, name) for name in _FIELDS}
    row["stamp"] = str(box.stamp) if box.stamp else ""
    return row


def _as_box(row: dict[str, Any]) -> Box:
    return Box(**dict(row, stamp=parse_stamp(row["stamp"])))

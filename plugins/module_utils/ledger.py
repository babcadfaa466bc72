# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the journal says of records: an edited one, or an older one put back, does not fit its last line.

The journal can only keep the gate shut. Without it every law still holds, on the records alone.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .box import records
from .state_store import BoxIdentity

SEAL_READING = "seal-reading"
COPY_READING = "copy-reading"
DEPLOY_STARTED = "deploy_started"
_RECEIPT = "receipt"
_WITHDRAWN = "withdraw-receipt"
# A receipt has one place for a run on a box generation. What else its line says of it, it says itself.
_RECEIPT_PLACE = ("project", "run_id", "box", "generation")
_RECEIPT_FIELDS = ("provider_id", "manifest_digest", "complete", "files", "bytes")


class Ledger:
    """The journal's lines, oldest first."""

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._lines = lines

    def seal_reading_problem(self, identity: BoxIdentity, reading: Mapping[str, Any]) -> str:
        """Why a stored seal reading is not the last one that was made; empty when it is or nothing is known."""
        return self._hash_problem(SEAL_READING, identity.as_dict(), reading)

    def copy_reading_problem(self, uri: str, reading: Mapping[str, Any]) -> str:
        return self._hash_problem(COPY_READING, {"uri": uri}, reading)

    def receipt_problem(self, receipt: Mapping[str, Any]) -> str:
        """Why a receipt is not the one in force; empty when it is or nothing is known."""
        about = {key: receipt.get(key) for key in _RECEIPT_PLACE}
        last = self._last((_RECEIPT, _WITHDRAWN), about, ("effect", "intent"))
        if last is None:
            return ""
        if last["verb"] == _WITHDRAWN:
            return f"was withdrawn at {last.get('at')} and put back"
        # A crash between the record and its line leaves the intent as the last word, which promises no values.
        if last["kind"] == "effect" and _differs(last, receipt):
            return "was edited after it was written (it differs from the journal)"
        return ""

    def was_deployed(self, identity: BoxIdentity) -> bool:
        """Whether a deploy began on this machine, whatever its box record says by now."""
        return self._last((DEPLOY_STARTED,), identity.as_dict(), ("effect",)) is not None

    def _hash_problem(self, verb: str, about: Mapping[str, Any], record: Mapping[str, Any]) -> str:
        last = self._last((verb,), about, ("effect",))
        if last is None or last.get("sha256") == fingerprint(record):
            return ""
        return f"is not the one that was written last, at {last.get('at')}: it was edited, or an older one was put back"

    def _last(self, verbs: Sequence[str], about: Mapping[str, Any], kinds: Sequence[str]) -> Mapping[str, Any] | None:
        for line in self._lines[::-1]:
            known = line.get("verb") in verbs and line.get("kind") in kinds
            if known and all(line.get(key) == value for key, value in about.items()):
                return line
        return None


def _differs(line: Mapping[str, Any], receipt: Mapping[str, Any]) -> bool:
    if any(line.get(key) != receipt.get(key) for key in _RECEIPT_FIELDS):
        return True
    # Earlier versions wrote lines without the hash of the whole.
    return "sha256" in line and line["sha256"] != fingerprint(receipt)


def fingerprint(record: Mapping[str, Any]) -> str:
    """The hash by which a line knows a record; empty for one that holds what no record can hold."""
    try:
        return records.digest(dict(record))
    except (ValueError, TypeError, RecursionError):  # a hand-edited record can hold NaN
        return ""

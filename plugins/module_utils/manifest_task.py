# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``manifest`` does with what it built: keep it, compare it, and say what keeps it from being built."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator

from .box import manifest, records, refusal
from .box.names import UnsafeName
from .difference import DifferenceTracker
from .failures import TenantFailure

_SAFE = "nothing was deleted and nothing was started"
_KINDS = {refusal.USAGE: "config", refusal.SEALED: "gate_refused", refusal.HELD: "lease_held"}


def kept_and_compared(params: dict[str, Any], built: dict[str, Any], check: bool) -> dict[str, Any]:
    """``manifest``, ``comparison`` where one was asked for, ``changed`` and ``diff``. :raises TenantFailure: config."""
    result: dict[str, Any] = {"manifest": built}
    if params["compare"] is not None:
        result["comparison"] = manifest.compare(_usable(params["compare"]), built["files"])
    return dict(result, **_keep(params["dest"], built, check))


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """What refuses or is damaged, as a failure that says what to do."""
    try:
        yield
    except refusal.Refused as refused:
        kind = _KINDS.get(refused.code, "evidence_missing")
        raise TenantFailure(kind, refused.what, safe=_SAFE, fix=refused.fix) from refused
    except (records.RecordError, UnsafeName, OSError, KeyError) as error:
        fix = "look at the file on the box; a damaged record needs a person"
        raise TenantFailure("evidence_missing", str(error), safe=_SAFE, fix=fix) from error


def _usable(known: dict[str, Any]) -> dict[str, Any]:
    """The manifest to compare with, if its lines have what is compared."""
    lines = known.get("files")
    if not isinstance(lines, list) or not all(
        isinstance(line, dict) and {"path", "bytes", "sha256"} <= set(line) for line in lines
    ):
        fix = "give a whole manifest, as this module returns it"
        raise TenantFailure("config", "'compare' has no files with path, bytes and sha256", safe=_SAFE, fix=fix)
    return known


def _keep(dest: str | None, built: dict[str, Any], check: bool) -> dict[str, Any]:
    """Write the manifest to ``dest`` unless the one there has the same digest; ``changed`` and ``diff``."""
    difference = DifferenceTracker()
    if dest and difference.compare("digest", _digest_at(dest), built["digest"]) and not check:
        records.write_record(os.path.abspath(dest), "manifest", built)
    return difference.as_result()


def _digest_at(path: str) -> str | None:
    try:
        record = records.read_record_or_none(path, "manifest")
    except records.RecordError:
        # Damaged is as good as absent: it is written anew.
        return None
    return str(record.get("digest")) if record else None

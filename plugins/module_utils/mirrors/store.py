# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What was written on the box, and what lay there before: so that all of it can be given back.

A file that nobody changed since is put back byte by byte. From one that somebody changed only what is ours is taken.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Mapping

from ..box import records
from . import files
from .choice import Choice

_KINDS: dict[str, Any] = {
    "pip": files.Pip,
    "conda": files.Conda,
    "apt": files.Apt,
    "docker": files.Docker,
    "text": files.Whole,
}


@dataclass(frozen=True)
class Wanted:
    """A file that shall hold something of ours: its kind's name, and what that kind is made with."""

    kind: str
    options: Mapping[str, Any]
    mode: int = 0o644

    @property
    def target(self) -> Any:
        return target_of(self.kind, self.options)


def target_of(kind: str, options: Mapping[str, Any]) -> Any:
    known = dict(options)
    if "choice" in known:
        known["choice"] = Choice(**known["choice"])
    return _KINDS[kind](**known)


def read(path: str) -> str | None:
    """The text with every byte kept; None where there is no file."""
    try:
        with open(path, "rb") as stream:
            return stream.read().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def base(path: str, entry: Mapping[str, Any] | None) -> str | None:
    """What the file would hold without us; None where there would be none."""
    now = read(path)
    if entry is None:
        return now
    before = None if entry["before"] is None else _unpacked(entry["before"])
    if now is None or _sha256(now) == entry["sha256"]:
        # Somebody who removed ours wanted none of it: what lay there before is still what is given back.
        return before
    left = str(target_of(entry["kind"], entry["options"]).undone(now, before or ""))
    return left if left.strip() or before is not None else None


@dataclass(frozen=True)
class Plan:
    """What to write (a path to its text, None to remove it), and what is ours on the box when that is done."""

    changes: Mapping[str, str | None]
    written: Mapping[str, dict[str, Any]]
    differences: list[dict[str, str]]


def plan(wanted: Mapping[str, Wanted], written: Mapping[str, Mapping[str, Any]]) -> Plan:
    """How the files come to ``wanted``, and the others of ``written`` to what they were."""
    changes: dict[str, str | None] = {}
    ours: dict[str, dict[str, Any]] = {}
    differences = []
    for path in sorted({*wanted, *written}):
        entry, want, now = written.get(path), wanted.get(path), read(path)
        before = base(path, entry)
        after = before
        if want is not None:
            after = str(want.target.done(before or ""))
            ours[path] = _entry(want, after, before, entry["folders"] if entry else _missing_folders(path))
        if after != now:
            changes[path] = after
            differences.append({"path": path, "before": now or "", "after": after or ""})
    return Plan(changes, ours, differences)


def _entry(want: Wanted, after: str, before: str | None, folders: list[str]) -> dict[str, Any]:
    return {
        "kind": want.kind,
        "options": dict(want.options),
        "mode": want.mode,
        "sha256": _sha256(after),
        "before": None if before is None else _packed(before),
        "folders": folders,
    }


def carry_out(found: Plan, written: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the changes of a plan. Its record is to be on the disk before: it alone knows what lay there."""
    for path, text in found.changes.items():
        known = found.written.get(path) or written[path]
        _put(path, text, int(known["mode"]), list(known["folders"]))


def _put(path: str, text: str | None, mode: int, folders: list[str]) -> None:
    if text is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        for folder in reversed(folders):
            # Somebody else may use it by now.
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
    records.write_bytes(path, text.encode("utf-8", "surrogateescape"), mode)


def _missing_folders(path: str) -> list[str]:
    """Folders that will be made for the file, outermost first."""
    found: list[str] = []
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder):
        found.insert(0, folder)
        folder = os.path.dirname(folder)
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _packed(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _unpacked(text: str) -> str:
    return base64.b64decode(text).decode("utf-8", "surrogateescape")

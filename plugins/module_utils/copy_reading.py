# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reading a durable mount from a machine that did not write it, and keeping what was found.

The files must fit a manifest that the controller has; the reader says by which kernel and through which mount it read.
"""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, Sequence

from . import copies, roster, settling
from .box import process, records
from .journal import Journal
from .ledger import COPY_READING
from .state_store import BoxIdentity, StateStore

_MOUNT = re.compile(r"mount://[A-Za-z0-9][A-Za-z0-9_-]*\.[a-z][a-z0-9_]*/[^\x00-\x1f]*\Z")
_MOST_PROBLEMS = 100


def is_mount_uri(uri: str) -> bool:
    """Whether ``uri`` is ``mount://<platform>.<tier>/<path>``."""
    return bool(_MOUNT.match(uri)) and bool(copies.tier_of_mount(uri))


def read_here(root: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """On the reader: re-read every promised file below ``root``; ``{problems, boot_id, device}``.

    :raises BadManifest: for a roster that must not be used.
    """
    wanted = roster.parse_files([dict(line) for line in files])
    try:
        device = os.stat(root).st_dev
    except OSError as error:
        return {"problems": [f"{root} cannot be read: {error.strerror}"], "boot_id": "", "device": None}
    return {
        "problems": [str(mismatch) for mismatch in settling.check_files(root, wanted)[:_MOST_PROBLEMS]],
        "boot_id": process.current_boot().boot_id,
        "device": device,
    }


def as_record(
    uri: str, manifest: roster.Manifest, reader: BoxIdentity, read_at: str, answer: Mapping[str, Any]
) -> dict[str, Any]:
    """The record that the gate looks up. ``read_at`` is when the question was sent, by the controller's clock."""
    problems = answer.get("problems")
    return {
        "schema": records.schema("copy-reading"),
        "uri": uri,
        "project": manifest.project,
        "run_id": manifest.run_id,
        "digest": manifest.digest,
        "read_at": read_at,
        "problems": [str(problem) for problem in problems] if isinstance(problems, list) else ["no readable answer"],
        "reader": dict(reader.as_dict(), boot_id=answer.get("boot_id"), device=answer.get("device")),
    }


def save(store: StateStore, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a reading, its hash in the journal first, so that a later edit or an older reading put back shows."""
    whole = dict(reading, schema=records.schema("copy-reading"))
    Journal(store).append("effect", COPY_READING, uri=whole["uri"], sha256=records.digest(whole))
    path = store.copy_reading_path(whole["project"], whole["uri"])
    return records.write_record(path, "copy-reading", whole)

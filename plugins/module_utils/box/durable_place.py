# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a run lies on its durable mount, and records that are put there only once they read back."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable

from . import records
from .layout import AttemptPaths
from .refusal import DURABLE_FAILED, Refused


def run_folder(run: dict[str, Any]) -> str:
    """Where all boxes and generations of the run lie on the mount."""
    return str(os.path.join(run["durable"]["path"], run["project"], run["run_id"]))


def destination(run: dict[str, Any], paths: AttemptPaths) -> str:
    """The attempt's own folder on the mount. Box, generation and attempt are in it: no two boxes share one, not even
    those of one run, which may all be of the first generation."""
    return os.path.join(run_folder(run), run["box"], f"g{run['generation']}", *paths.relative.split("/"))


def put_record(folder: str, name: str, record: dict[str, Any], moved: Callable[[], object] = lambda: None) -> None:
    """Write ``<folder>/<name>.json``, read it back, and only then give it its name.

    :param moved: called before it gets its name; what it raises leaves the old one in place.
    :raises Refused: DURABLE_FAILED.
    """
    target, data = os.path.join(folder, f"{name}.json"), records.record_bytes(name, record)
    temporary = f"{target}.{os.getpid()}.part"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(temporary, "wb") as writer:
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
        if records.sha256_file(temporary) != hashlib.sha256(data).hexdigest():
            raise Refused(DURABLE_FAILED, f"{temporary} reads back with another hash")
        moved()
        os.replace(temporary, target)
        sync_folder(folder)
    except OSError as error:
        raise Refused(DURABLE_FAILED, f"cannot write {target}: {error.strerror or error}") from error


def sync_folder(folder: str) -> None:
    try:
        records.fsync_directory(folder)
    except OSError:
        # Network and FUSE mounts often cannot sync a folder; the file itself is synced and was read back.
        return

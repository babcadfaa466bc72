# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies to durable storage. The word "synced" is written only behind a copy that was read back and compared."""

from __future__ import annotations

import os
from typing import Any

from . import durable_place, gates
from .artifacts import hash_stable
from .layout import AttemptPaths, Layout
from .refusal import DURABLE_FAILED, Refused

_CHUNK = 1024 * 1024


def copy_artifacts(
    layout: Layout, run: dict[str, Any], paths: AttemptPaths, artifacts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Copy ``artifacts`` (paths relative to the run folder) if the run has a mount; what became of them.

    :returns: ``{kind, state, path}``; ``state`` is ``synced`` or the kind itself when nothing is copied from here.
    :raises Refused: DURABLE_FAILED, naming the file.
    """
    kind = run["durable"]["kind"]
    if kind != "mount":
        return {"kind": kind, "state": kind, "path": ""}
    problem = gates.durable_problem(run["durable"], layout.root)
    if problem:
        raise Refused(DURABLE_FAILED, problem, "mount it, then start again: nothing is trained twice")
    target = durable_place.destination(run, paths)
    for artifact in artifacts:
        inner = os.path.relpath(artifact["path"], paths.relative)
        _copy_one(os.path.join(paths.folder, inner), os.path.join(target, inner), artifact)
    return {"kind": kind, "state": "synced", "path": target}


def copy_done(copied: dict[str, Any], done: dict[str, Any]) -> None:
    """Put the done record beside the copied artifacts, because the manifest promises it too.

    Before it is written on the box itself: a record there says that everything is on the mount.

    :raises Refused: DURABLE_FAILED.
    """
    if copied["state"] != "synced":
        return
    durable_place.put_record(copied["path"], "done", done)


def _copy_one(source: str, target: str, artifact: dict[str, Any]) -> None:
    try:
        if _is_same(target, artifact):
            return
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        temporary = f"{target}.{os.getpid()}.part"
        try:
            _copy_bytes(source, temporary)
            if not _is_same(temporary, artifact):
                raise Refused(DURABLE_FAILED, f"the copy of {artifact['path']} reads back with another hash")
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        durable_place.sync_folder(os.path.dirname(target))
    except OSError as error:
        raise Refused(
            DURABLE_FAILED, f"cannot copy {artifact['path']} to {target}: {error.strerror or error}"
        ) from error


def _copy_bytes(source: str, target: str) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:
        for chunk in iter(lambda: reader.read(_CHUNK), b""):
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())


def _is_same(path: str, artifact: dict[str, Any]) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) != artifact["bytes"]:
        return False
    return hash_stable(path) == (artifact["bytes"], artifact["sha256"])

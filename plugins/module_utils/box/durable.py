# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies to durable storage. The word "synced" is written only behind a copy that was read back and compared."""

from __future__ import annotations

import os
import threading
from typing import Any, BinaryIO, Iterator

from . import durable_place, gates, mount_answer
from .artifacts import FileChanged, hash_stable
from .layout import AttemptPaths, Layout
from .refusal import DURABLE_FAILED, Refused

_CHUNK = 1024 * 1024
# So often a copy is synced: the server shows that it takes what it is given, also in a file of many gigabytes.
_SYNC_EACH = 64
# What counting the files of the mount may take; what is found by then is the least that is there.
_COUNT_WITHIN_S = 30.0
# The record of the attempt's end, and the other name under which each file arrives.
_BESIDES = 2


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

    def copy(movement: mount_answer.Movement) -> None:
        inner = [os.path.relpath(artifact["path"], paths.relative) for artifact in artifacts]
        _refuse_too_many(run["durable"], [os.path.join(target, each) for each in inner])
        for each, artifact in zip(inner, artifacts):
            _copy_one(os.path.join(paths.folder, each), os.path.join(target, each), artifact, movement)

    mount_answer.moving(run["durable"]["path"], f"the copy of {paths.relative}", copy)
    return {"kind": kind, "state": "synced", "path": target}


def copy_done(copied: dict[str, Any], done: dict[str, Any]) -> None:
    """Put the done record beside the copied artifacts, because the manifest promises it too.

    Before it is written on the box itself: a record there says that everything is on the mount.

    :raises Refused: DURABLE_FAILED.
    """
    if copied["state"] != "synced":
        return
    place = copied["path"]
    mount_answer.moving(
        place,
        "the copy of the done record",
        lambda movement: durable_place.put_record(place, "done", done, movement.moved),
    )


def _refuse_too_many(durable: dict[str, Any], targets: list[str]) -> None:
    """Before the first byte: a copy that ends in the middle leaves files that count as well."""
    missing = [target for target in targets if not os.path.lexists(target)]
    if not missing:
        return
    folders = {folder for target in missing for folder in _missing_folders(os.path.dirname(target))}
    wanted = len(missing) + len(folders) + _BESIDES
    try:
        problem = gates.files_problem(durable, wanted, _COUNT_WITHIN_S)
    except OSError:
        # What cannot be counted is tried.
        return
    if problem:
        raise Refused(DURABLE_FAILED, problem, "make room there, then start again: nothing is trained twice")


def _missing_folders(folder: str) -> Iterator[str]:
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        yield folder
        folder = os.path.dirname(folder)


def _copy_one(source: str, target: str, artifact: dict[str, Any], movement: mount_answer.Movement) -> None:
    try:
        if _is_same(target, artifact, movement):
            return
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        # Of this thread alone: one that was left behind on a mount that hung may still hold its own.
        temporary = f"{target}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            _copy_bytes(source, temporary, movement)
            if not _is_same(temporary, artifact, movement):
                raise Refused(DURABLE_FAILED, f"the copy of {artifact['path']} reads back with another hash")
            movement.moved()
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        durable_place.sync_folder(os.path.dirname(target))
    except (OSError, FileChanged) as error:
        why = getattr(error, "strerror", None) or error
        raise Refused(DURABLE_FAILED, f"cannot copy {artifact['path']} to {target}: {why}") from error


def _copy_bytes(source: str, target: str, movement: mount_answer.Movement) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:
        for number, chunk in enumerate(iter(lambda: reader.read(_CHUNK), b""), 1):
            writer.write(chunk)
            movement.moved()
            if number % _SYNC_EACH == 0:
                _sync(writer)
                movement.moved()
        _sync(writer)


def _sync(writer: BinaryIO) -> None:
    writer.flush()
    os.fsync(writer.fileno())


def _is_same(path: str, artifact: dict[str, Any], movement: mount_answer.Movement) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) != artifact["bytes"]:
        return False
    return hash_stable(path, movement.moved) == (artifact["bytes"], artifact["sha256"])

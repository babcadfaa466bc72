# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that survive a box which may vanish at any instant.

One file; needs Python 3.8 and PyTorch 2.1 or newer (sharded models: 2.4). In a training script::

    batches = ShuffledBatches(len(images), batch_size=64, seed=seed)
    checkpoints = Checkpointer({"model": model, "optimizer": optimizer}, batches=batches, total_steps=total)
    checkpoints.load_latest()
    while batches.epoch < epochs:
        for indices in batches:
            loss = train_on(indices)
            checkpoints.after_step(loss=loss)
            if checkpoints.should_stop:
                sys.exit(EXIT_STOPPED)
    checkpoints.save(wait=True)

``after_step`` counts the step, appends a metrics line and saves when it is time: the loop waits for the copy to host
memory only, the rest happens behind it. The same command starts or goes on. Under torchrun every rank makes the same
calls. The supervisor says where things are through ``TENANT_CHECKPOINT_DIR``, ``TENANT_RESUME_DIRS``,
``TENANT_METRICS``, ``TENANT_MU_S`` and ``TENANT_GRACE_S``; without them the folder ``checkpoints`` is used.

A run that was interrupted ends with the same weights, bit for bit, as one that was not, if every source of change is
in the checkpoint and the arithmetic is the same: same machine type, same torch build, same number of threads and ranks.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import ctypes
import errno
import functools
import hashlib
import itertools
import json
import logging
import math
import mmap
import os
import pickle
import random
import re
import shutil
import signal
import sys
import threading
import time
import zipfile
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple

import torch

SCHEMA = "gpu-tenant/checkpoint/v1"
EXIT_STOPPED = 30
"""Exit code for a run that was asked to stop and can be resumed."""

DEFAULT_MU_S = 3 * 3600.0
"""Mean time between losses of a box that is assumed when nobody says better, in seconds."""
DEFAULT_GRACE_S = 30.0
"""Seconds between SIGTERM and SIGKILL that are assumed when nobody says better."""
COPY_BYTES_S, WRITE_BYTES_S = 2e9, 5e8
"""How fast a state is copied to host memory, and written, as long as no save has been measured."""

MANIFEST = "manifest.json"
_ARCHIVE = re.compile(r"step-(?P<step>\d{10})\.pt\Z")
_FOLDER = re.compile(r"step-(?P<step>\d{10})\.dcp\Z")
_OF_TRAINER = re.compile(r"checkpoint-(?P<step>\d+)\Z")
_OF_LIGHTNING = re.compile(r"step-(?P<step>\d{10})\.ckpt\Z")
_LEFTOVER = re.compile(r"\.(step-\d{10}\.(pt|dcp|ckpt)|checkpoint-\d+|attempts\.json|brought)\.tmp\Z")
# Below the own folder: what another machine has sent, until the first save takes it over.
_BROUGHT = ".brought.tmp"
_SENT_AT_ONCE = 32 << 20
_PIECE = 1 << 20
_MOVED_AT_ONCE, _WORTH_THREADS, _MOST_MOVERS = 16 << 20, 32 << 20, 8
_MEMORY_FULL = ("allocate memory", "not enough memory", "out of memory")
# Of a vector in a metrics line: that is for people and curves, not for weights.
_MOST_VALUES = 64
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_log = logging.getLogger("tenant_checkpoint")


class CheckpointError(Exception):
    """Saving or resuming cannot go on; the message says what is safe and what to do."""


class CheckpointDamaged(CheckpointError):
    """The file is not a whole checkpoint: cut short, changed, or not one of ours."""


class CheckpointUnloadable(CheckpointError):
    """Every byte is as it was saved, but this torch does not load it safely. Another one may."""


# ---------------------------------------------------------------------------------------------- files


def checkpoint_name(step: int, sharded: bool = False) -> str:
    """``checkpoint_name(42)`` is ``step-0000000042.pt``; a sharded one is the folder ``step-0000000042.dcp``."""
    return f"step-{step:010d}.{'dcp' if sharded else 'pt'}"


def step_of(name: str, pattern: re.Pattern[str] = _ARCHIVE) -> int | None:
    """The step that a file name carries; None for any other name."""
    match = pattern.match(name)
    return int(match.group("step")) if match else None


def write_torch(path: str, value: Any) -> None:
    """Save ``value`` with ``torch.save`` so that ``path`` is whole or as it was before."""
    _write(path, lambda stream: torch.save(value, stream))


def write_json(path: str, value: Any) -> None:
    """Save ``value`` as JSON so that ``path`` is whole or as it was before."""
    _write(path, lambda stream: stream.write(_json(value)))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("utf-8")


def _write(path: str, fill: Callable[[Any], object], check: Callable[[str], object] | None = None) -> None:
    """Temporary file in the same folder, flush, fsync, rename, fsync of the folder: in this order.

    :param check: called with the temporary file before it takes the name; may raise to refuse it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    _make_folder(folder)
    temporary = os.path.join(folder, f".{name}.tmp")
    try:
        with open(temporary, "w+b") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Make ``folder`` so that it is still there after a power cut."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(parent)


def _make_afresh(folder: str) -> None:
    """Make ``folder``, empty."""
    _remove(folder)
    _make_folder(folder)


def _sync_folder(folder: str) -> None:
    _sync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def _sync(path: str, flags: int = os.O_RDONLY) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a folder; there the rename is all one can have.
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _sha256(path: str, into: Any = None) -> tuple[str, int]:
    """Digest and size of the file at ``path``, written to the stream ``into`` on the way if there is one."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(_PIECE), b""):
            digest.update(piece)
            size += len(piece)
            if into is not None:
                into.write(piece)
    return digest.hexdigest(), size


def _remove(path: str) -> None:
    """Remove a checkpoint. A folder loses its manifest first: at no instant is half of one valid."""
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, MANIFEST))
    shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- manifests


def seal_archive(stream: Any, about: Mapping[str, Any]) -> None:
    """Add the manifest to a file that ``torch.save`` wrote: what it is, and size and CRC-32 of its every record.

    It lies in the file itself, as one record more, so that a copied or harvested checkpoint never lacks it.
    """
    with zipfile.ZipFile(stream, "a") as archive:
        records = {entry.filename: [entry.file_size, entry.CRC] for entry in archive.infolist()}
        place = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{place}/{MANIFEST}", _json({"schema": SCHEMA, **about, "records": records}))


def archive_manifest(path: str) -> dict[str, Any]:
    """The manifest in the file at ``path``, after every byte was compared with it. Nothing is loaded.

    :raises CheckpointDamaged: a byte has changed, a record is missing, or there is no manifest.
    :raises OSError: it cannot be read now, which says nothing about its worth.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            if bad:
                raise CheckpointDamaged(f"{path}: its part {bad} has changed")
            names = archive.namelist()
            manifest = _parsed(archive.read(names.pop(_index_of_manifest(names, path))), path)
            records = {entry.filename: [entry.file_size, entry.CRC] for entry in archive.infolist()}
    except OSError as error:
        # A damaged directory can send a seek to before the start, which is the file's fault, not the disk's.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise CheckpointDamaged(f"{path}: it is damaged ({error})") from error
    except (CheckpointDamaged, MemoryError):
        raise
    except Exception as error:
        raise CheckpointDamaged(f"{path}: it is cut short or damaged ({error})") from error
    if {name: records.get(name) for name in names} != manifest.get("records"):
        raise CheckpointDamaged(f"{path}: its records are not those of its manifest")
    return manifest


def _index_of_manifest(names: list[str], path: str) -> int:
    place = names[0].split("/")[0]
    if f"{place}/{MANIFEST}" not in names:
        raise CheckpointDamaged(f"{path}: it is not a {SCHEMA} file: it has no manifest")
    return names.index(f"{place}/{MANIFEST}")


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    manifest = json.loads(content)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise CheckpointDamaged(f"{path}: it is not a {SCHEMA} file")
    return manifest


def _files_below(folder: str) -> list[str]:
    found = []
    for place, _folders, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in names]
    return sorted(name for name in found if name != MANIFEST)


def _entries(folder: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Roster of the files, each synced and then read back from where it lies."""
    found = []
    for name in names:
        _sync(os.path.join(folder, name))
        digest, size = _sha256(os.path.join(folder, name))
        found.append({"path": name, "bytes": size, "sha256": digest})
    return found


def seal_folder(folder: str, about: Mapping[str, Any], files: list[dict[str, Any]] | None = None) -> None:
    """Write the manifest of a folder: last, so that a folder without one is one that was not finished."""
    files = _entries(folder, _files_below(folder)) if files is None else files
    for place in {os.path.join(folder, os.path.dirname(entry["path"])) for entry in files}:
        _sync_folder(place)
    write_json(os.path.join(folder, MANIFEST), {"schema": SCHEMA, **about, "files": files})


def folder_manifest(folder: str, share: int = 0, of: int = 1) -> dict[str, Any]:
    """The manifest of the folder, after names, sizes and SHA-256 were compared with it. Nothing is loaded.

    :param share: look at every ``of``-th file only, from this one on: the ranks divide the reading.
    """
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as stream:
            manifest = _parsed(stream.read(), folder)
    except FileNotFoundError as error:
        raise CheckpointDamaged(f"{folder}: no {MANIFEST}, so its save was not finished") from error
    except ValueError as error:
        raise CheckpointDamaged(f"{folder}: its {MANIFEST} is damaged ({error})") from error
    try:
        listed = {entry["path"]: (entry["sha256"], entry["bytes"]) for entry in manifest["files"]}
    except (KeyError, TypeError) as error:
        raise CheckpointDamaged(f"{folder}: its {MANIFEST} lists no files ({error})") from error
    missing = sorted(set(listed) - set(_files_below(folder)))
    if missing:
        raise CheckpointDamaged(f"{folder}: {', '.join(missing[:3])} missing")
    for name in sorted(listed)[share::of]:
        if _sha256(os.path.join(folder, name)) != listed[name]:
            raise CheckpointDamaged(f"{folder}: {name} has changed")
    return manifest


def manifest_of(path: str) -> dict[str, Any]:
    """The manifest of a checkpoint, file or folder, after every byte was compared with it."""
    return folder_manifest(path) if os.path.isdir(path) else archive_manifest(path)


def read_checkpoint(path: str, mmap: bool = False) -> dict[str, Any]:
    """The checkpoint at ``path``, on the CPU, nothing in it executed.

    :param mmap: leave the tensors in the file, for a look at a checkpoint that memory may not hold twice.
    :raises CheckpointDamaged: it is not a whole checkpoint.
    :raises CheckpointUnloadable: it is whole, but not what this torch loads safely.
    :raises OSError: it cannot be read now, which says nothing about its worth.
    """
    archive_manifest(path)
    state = _load_tensors(path, mmap)
    missing = {"step", "epoch", "config", "objects", "ranks", "best", "trained_s", "losses"} - set(state)
    if missing:
        raise CheckpointDamaged(f"{path}: {', '.join(sorted(missing))} missing")
    return state


def _load_tensors(path: str, mmap: bool = False) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointUnloadable(f"{path}: torch cannot load it safely ({_what_is_unsafe(error)})") from error
    except Exception as error:
        # All bytes are right by now. Too little memory must not condemn a good checkpoint.
        if any(words in str(error) for words in _MEMORY_FULL):
            raise CheckpointError(f"{path} is whole, but does not fit into memory: {_what_is_unsafe(error)}") from error
        raise CheckpointDamaged(f"{path}: torch cannot load it ({_what_is_unsafe(error)})") from error
    if not isinstance(state, dict):
        raise CheckpointDamaged(f"{path}: it is not a {SCHEMA} file")
    return state


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _what_is_unsafe(error: BaseException) -> str:
    """What torch refuses to build; its advice around that would have people load it unsafely."""
    found = re.search(r"(?i)\bunsupported [^\n]{1,200}|(?<=unpickler error: )[^\n]{1,200}", str(error))
    said = found.group() if found else _first_line(error)
    return re.split(r"(?i)[.;,]?\s+(?:please use|re-running)\b", said)[0].strip()


# ---------------------------------------------------------------------------------------------- newest valid


class Skipped(NamedTuple):
    """A checkpoint that was passed over."""

    path: str
    reason: str
    quarantined: bool
    damaged: bool


class Found(NamedTuple):
    """The newest valid checkpoint (``state`` None: there is none) and what was passed over on the way to it."""

    path: str
    state: Any
    skipped: tuple[Skipped, ...]


def find_newest(
    folders: Iterable[str],
    pattern: re.Pattern[str] = _ARCHIVE,
    examine: Callable[[str], dict[str, Any]] = read_checkpoint,
    beyond: int = -1,
) -> Found:
    """The valid checkpoint with the highest step in ``folders``; for equal steps the earlier folder wins.

    A damaged one moves to ``quarantine/`` in its folder, where that can be written; nothing is ever deleted.

    :param beyond: only one of a higher step is looked for.
    :param examine: what it makes of the path is the ``state``; raises CheckpointDamaged for one that is not valid.
    """
    skipped: list[Skipped] = []
    for path, step in _candidates(folders, pattern, skipped):
        if step <= beyond:
            break
        try:
            state = examine(path)
            if state["step"] != step:
                raise CheckpointDamaged(f"{path}: its name says another step than its content, {state['step']!r}")
        except CheckpointDamaged as error:
            skipped.append(Skipped(path, str(error), _quarantine(path), True))
        except (OSError, CheckpointUnloadable) as error:
            skipped.append(Skipped(path, f"{path}: cannot be read now ({error})", False, False))
        else:
            return Found(path, state, tuple(skipped))
    return Found("", None, tuple(skipped))


def _candidates(folders: Iterable[str], pattern: re.Pattern[str], skipped: list[Skipped]) -> list[tuple[str, int]]:
    """Paths and steps, highest step first."""
    found = []
    for order, folder in enumerate(folders):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(Skipped(folder, f"{folder}: cannot be listed ({error})", False, False))
            continue
        steps = ((step_of(name, pattern), name) for name in names)
        found += [(-step, order, os.path.join(folder, name)) for step, name in steps if step is not None]
    return [(path, -step) for step, _order, path in sorted(found)]


def _quarantine(path: str) -> bool:
    """Move ``path`` to ``quarantine/`` beside it; False where the folder cannot be written."""
    try:
        _set_aside(path)
    except OSError:
        return False
    return True


def _set_aside(path: str) -> None:
    """Move ``path`` to ``quarantine/`` beside it, under a name that nothing there has."""
    folder, name = os.path.split(path)
    place = os.path.join(folder, "quarantine")
    os.makedirs(place, exist_ok=True)
    target, number = os.path.join(place, name), 1
    while os.path.lexists(target):
        target, number = os.path.join(place, f"{name}.{number}"), number + 1
    os.rename(path, target)
    with contextlib.suppress(OSError):  # it is there, whatever a power cut makes of that
        _sync_folder(place)
        _sync_folder(folder)


class PassedOver:
    """What a resume has left in its place, because it cannot be loaded or read *here*: it may be whole.

    With another torch, or once it can be read, it is the newest again. That ends when the training has come as far by
    itself: before a save of its step or a later one takes its name, or removes what is older, it moves to
    ``quarantine/``. Not after that save: a process killed in between would know of it no more. Where it
    may turn out that no save follows, only what has its very name moves before.
    """

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def note(self, found: Found, pattern: re.Pattern[str]) -> None:
        left = {skipped.path: step_of(os.path.basename(skipped.path), pattern) for skipped in _left_in_place(found)}
        self._steps.update({os.path.abspath(path): step for path, step in left.items() if step is not None})

    def make_way(self, folder: str, step: int, earlier: bool = True) -> None:
        """Before a save of ``step``.

        :param earlier: also those of earlier steps, which it may remove; not where it may never come.
        :raises OSError: one of them can be neither kept nor left: the save would take its name or remove it.
        """
        folder, steps = os.path.abspath(folder), range(0 if earlier else step, step + 1)
        for path in [path for path, of in self._steps.items() if of in steps and os.path.dirname(path) == folder]:
            _make_way(path)
            self.forget(path)

    def forget(self, path: str) -> None:
        """What has the name now is another one."""
        self._steps.pop(path, None)


def _make_way(path: str) -> None:
    """Keep what has the name that a save is about to take.

    :raises OSError: it cannot be kept.
    """
    if not os.path.lexists(path):
        return
    try:
        _set_aside(path)
    except OSError as error:
        said = f"{path} is in the way of what is saved anew, and cannot be moved to quarantine/ ({error.strerror})"
        raise OSError(error.errno, said) from error
    _log.warning("moved to quarantine/, because its step or a later one is saved anew: %s", path)


def _nothing_readable(found: Found) -> CheckpointError | None:
    """Why a start at step 0 would throw work away; None where it would not."""
    reasons = "; ".join(skipped.reason for skipped in found.skipped if not skipped.damaged)
    if found.state is not None or not reasons:
        return None
    return CheckpointError(
        f"no checkpoint can be read now: {reasons}. "
        "Nothing was changed. Make the folder readable, or move it away to start at step 0"
    )


def _left_in_place(found: Found) -> list[Skipped]:
    return [skipped for skipped in found.skipped if not skipped.quarantined]


def _tell_skipped(found: Found) -> None:
    for skipped in found.skipped:
        place = "moved to quarantine/" if skipped.quarantined else "left where it is"
        _log.warning("skipped a checkpoint, %s: %s", place, skipped.reason)
    maybe_whole = [skipped.path for skipped in _left_in_place(found) if not skipped.damaged]
    if maybe_whole and found.state is not None:
        _log.warning(
            "the steps after %s are trained again, though %s may be whole: stop now and run the same command where it "
            "can be loaded to go on from there. It stays, in quarantine/ once the training has come as far",
            *(found.path, ", ".join(maybe_whole)),
        )


def _prune(folder: str, pattern: re.Pattern[str], keep_last: int, upto: int, best: int | None) -> None:
    """Remove what is older than the newest ``keep_last``, except the best. Later steps are not ours to judge.

    The new checkpoint is whole by now: one that cannot be removed costs room, and is tried again with the next save.
    """
    try:
        named = {step_of(name, pattern): name for name in os.listdir(folder)}
        steps = sorted(step for step in named if step is not None and step <= upto)
        for step in set(steps[:-keep_last]) - {best}:
            _remove(os.path.join(folder, named[step]))
    except OSError as error:
        _log.warning("older checkpoints in %s cannot be removed (%s): they take room until they can", folder, error)


def _remove_leftovers(folder: str) -> None:
    """Remove what a process killed in mid-save left unfinished in its own folder."""
    with contextlib.suppress(OSError):
        for name in filter(_LEFTOVER.match, os.listdir(folder)):
            _remove(os.path.join(folder, name))


def _stamp_of(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _places(name: str, folders: Iterable[str]) -> list[str]:
    """Where in ``folders`` something has this name."""
    return [path for path in (os.path.join(folder, name) for folder in folders) if os.path.exists(path)]


def _take_in(name: str, own: str, folders: Iterable[str]) -> str:
    """Have the whole checkpoint ``name`` of another of the folders in ``own`` as well; its path, empty if that failed.

    What an earlier attempt has saved would not come home with this one, and dies with its box.
    """
    target = os.path.join(own, name)
    for path in _places(name, [own, *folders]):
        if path == target:
            return target
        try:
            manifest_of(path)
            _link(path, target)
        except (CheckpointDamaged, OSError) as error:
            _log.warning("%s, the best so far, cannot be taken into %s: %s", path, own, error)
        else:
            return target
    return ""


def _link(path: str, target: str) -> None:
    """Give a checkpoint a second name, or copy it where no link can lead; ``target`` is whole or not there."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.tmp")
    _remove(temporary)
    _make_folder(folder)
    if os.path.isdir(path):
        for inner in [*_files_below(path), MANIFEST]:
            _link_file(os.path.join(path, inner), os.path.join(temporary, inner))
    else:
        _link_file(path, temporary)
    os.replace(temporary, target)
    _sync_folder(folder)


def _link_file(path: str, target: str) -> None:
    _make_folder(os.path.dirname(target))
    try:
        os.link(path, target)
    except OSError:
        _copy_file(path, target)
    else:
        _sync_folder(os.path.dirname(target))


def _resume_dirs(environ: Mapping[str, str]) -> list[str]:
    """Folders of earlier attempts, as the supervisor says."""
    return [part for part in environ.get("TENANT_RESUME_DIRS", "").split(os.pathsep) if part]


def _keep_durably(
    path: str, folder: str, pattern: re.Pattern[str], keep_last: int, best: int | None, passed_over: PassedOver
) -> OSError | None:
    """Copy a whole checkpoint to a disk that outlives the box, and prune there; what went wrong, if anything.

    A network disk that hiccups must not end the training: the next save tries again.
    """
    step = step_of(os.path.basename(path), pattern)
    assert step is not None
    try:
        passed_over.make_way(folder, step)
        copy_durably(path, os.path.abspath(folder))
        _prune(folder, pattern, keep_last, step, best)
    except OSError as error:
        _log.warning("%s is whole, but its copy to %s failed: %s", path, folder, error)
        return error
    return None


def copy_durably(path: str, folder: str) -> str:
    """Copy a checkpoint into ``folder``: temporary name, sync, read back and compare, rename, sync of the folder."""
    target = os.path.join(folder, os.path.basename(path))
    if not os.path.isdir(path):
        _copy_file(path, target)
        return target
    temporary = os.path.join(folder, f".{os.path.basename(path)}.tmp")
    _remove(temporary)
    for name in [*_files_below(path), MANIFEST]:
        _copy_file(os.path.join(path, name), os.path.join(temporary, name))
    _remove(target)
    os.replace(temporary, target)
    _sync_folder(folder)
    return target


def _copy_file(path: str, target: str) -> None:
    seen: list[tuple[str, int]] = []

    def compare(temporary: str) -> None:
        if _sha256(temporary) != seen[0]:
            raise OSError(errno.EIO, f"what was copied to {target} reads back differently")

    _write(target, lambda stream: seen.append(_sha256(path, into=stream)), compare)


# ---------------------------------------------------------------------------------------------- host memory


class HostCopy:
    """Copies of tensors in host memory, in space that the next copy uses again.

    One copy for each storage, so that tied weights and views stay what they are, as in ``torch.save``. What lies on a
    CUDA device is copied on a stream of its own into pinned memory; work that the training enqueues later waits for it
    on the device, the host does not wait at all. Call :meth:`ready` before the copies are read.
    """

    def __init__(self) -> None:
        self._used: dict[tuple[int, bool], list[Any]] = {}
        self._free: dict[tuple[int, bool], list[Any]] = {}
        self._seen: dict[Any, tuple[Any, Any]] = {}
        self._streams: dict[Any, Any] = {}
        self._moves: list[tuple[int, int, int]] = []

    def take(self, state: Any) -> Any:
        """``state`` with every tensor replaced by its copy."""
        self._free, self._used, self._seen, self._streams = self._used, {}, {}, {}
        self._moves = []
        copied = _storable(state, self._tensor)
        self._free = {}
        _move(self._moves, torch.get_num_threads())
        for device, side in self._streams.items():
            torch.cuda.current_stream(device).wait_stream(side)
        return copied

    def ready(self) -> None:
        for side in self._streams.values():
            side.synchronize()
        self._seen = {}  # the sources had to live until here

    def _tensor(self, tensor: Any) -> Any:
        if not _is_plain(tensor):
            return copy.deepcopy(tensor.detach()).cpu()
        storage = tensor.untyped_storage()
        key = (tensor.device, storage.data_ptr(), storage.nbytes())
        if key not in self._seen:
            self._seen[key] = (self._copied(storage), storage)
        space = self._seen[key][0]
        return torch.empty(0, dtype=tensor.dtype).set_(space, tensor.storage_offset(), tensor.size(), tensor.stride())

    def _copied(self, storage: Any) -> Any:
        kind = (storage.nbytes(), storage.device.type == "cuda")
        space = self._free[kind].pop() if self._free.get(kind) else _host_space(*kind)
        self._used.setdefault(kind, []).append(space)
        target = space.untyped_storage()
        if kind[1]:
            self._copy_from_device(space, storage)
        elif kind[0]:
            self._moves += _pieces(target.data_ptr(), storage.data_ptr(), kind[0])
        return target

    def _copy_from_device(self, space: Any, storage: Any) -> None:
        device = storage.device
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
            self._streams[device].wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._streams[device]):
            source = torch.empty(0, dtype=torch.uint8, device=device).set_(storage)
            space.copy_(source, non_blocking=True)


def _pieces(target: int, source: int, size: int) -> Iterator[tuple[int, int, int]]:
    for start in range(0, size, _MOVED_AT_ONCE):
        yield target + start, source + start, min(_MOVED_AT_ONCE, size - start)


def _move(moves: list[tuple[int, int, int]], threads: int) -> None:
    """Copy bytes between addresses, ``(target, source, size)``, on several threads where that is worth it.

    memmove without Python's lock is several times as fast as Tensor.copy_, which reads every line of the target before
    it writes it.
    """
    total = sum(size for _target, _source, size in moves)
    threads = min(threads, _MOST_MOVERS, total // _WORTH_THREADS)
    waiting = iter(moves)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                piece = next(waiting, None)
            if piece is None:
                return
            ctypes.memmove(*piece)

    others = [threading.Thread(target=work, name="tenant-checkpoint-copy") for _other in range(1, threads)]
    for other in others:
        other.start()
    work()
    for other in others:
        other.join()


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _host_space(size: int, pinned: bool) -> Any:
    """``size`` bytes: pinned for copies from a device, else in huge pages where the kernel has them."""
    if pinned or size < 2 * _PIECE:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    memory = mmap.mmap(-1, size)
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _storable(value: Any, tensor: Callable[[Any], Any] = lambda tensor: tensor) -> Any:
    """``value`` with containers of its own, its numbers made plain, which a safe load wants, and ``tensor`` applied."""
    if isinstance(value, torch.Tensor):
        return tensor(value)
    if isinstance(value, dict):
        whole = copy.copy(value)  # keeps the class, and the version notes that a module's state_dict carries
        for key in value:
            whole[key] = _storable(value[key], tensor)
        return whole
    if type(value) in (list, tuple):
        return type(value)(_storable(item, tensor) for item in value)
    plain = _plain(value)
    return plain if type(plain) in (bool, int, float, str, bytes, type(None)) else copy.deepcopy(plain)


class Behind:
    """One piece of work at a time, behind the training, on a thread. What goes wrong in it is raised by the next call.

    A thread, because the bytes go through checksum, ``write`` and ``fsync`` without Python's lock; what holds the lock
    is the pickling of names and shapes. A fork would be no safer than the lock it avoids: the child of a process that
    runs CUDA, gloo or OpenMP threads may not touch what those had locked. The thread is not a daemon: an interpreter
    that ends waits for the save that is under way.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], object]) -> None:
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="tenant-checkpoint")
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            # Said at once as well: the next call may never come.
            _log.error("%s", error)
            self._failure = error

    def wait(self, limit_s: float | None = None) -> bool:
        """Wait until the work is done; False if that took longer than ``limit_s``."""
        if self._thread is not None:
            self._thread.join(limit_s)
            if self._thread.is_alive():
                return False
            self._thread = None
        self.raise_failure()
        return True

    def raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


# ---------------------------------------------------------------------------------------------- ranks


class Ranks:
    """This process among those that train together; alone where ``torch.distributed`` is not in use.

    Two gloo groups of its own: ``_now`` for what ranks agree on between steps, ``_behind`` for saves under way. The
    training's group is never used, so that its collectives keep their order.
    """

    def __init__(self) -> None:
        dist = torch.distributed
        self._dist = dist if dist.is_available() and dist.is_initialized() else None
        self.rank, self.world, self.nodes = 0, 1, 1
        self._now = self._behind = None
        if self._dist is not None:
            self.rank, self.world = self._dist.get_rank(), self._dist.get_world_size()
            self.nodes = max(1, self.world // int(os.environ.get("LOCAL_WORLD_SIZE") or self.world))
            self._now, self._behind = (self._dist.new_group(backend="gloo") for _group in range(2))

    @property
    def behind(self) -> Any:
        return self._behind

    @property
    def now(self) -> Any:
        return self._now

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true if it is true on some rank."""
        if self._dist is None:
            return flags
        votes = torch.tensor([int(flag) for flag in flags], dtype=torch.int32)
        self._dist.all_reduce(votes, op=self._dist.ReduceOp.MAX, group=self._now)
        return tuple(bool(vote) for vote in votes.tolist())

    def gather(self, value: Any, behind: bool = False) -> list[Any]:
        """``value`` of every rank, on every rank."""
        if self._dist is None:
            return [value]
        values: list[Any] = [None] * self.world
        self._dist.all_gather_object(values, value, group=self._behind if behind else self._now)
        return values

    @property
    def leads_machine(self) -> bool:
        """Whether this is the one process of its machine that looks at files there for all of them."""
        return self.rank == 0 or (self.nodes > 1 and os.environ.get("LOCAL_RANK") == "0")

    def from_first(self, value: Any) -> Any:
        """``value`` as rank 0 has it."""
        return self.from_rank(0, value)

    def from_rank(self, rank: int, value: Any) -> Any:
        """``value`` as ``rank`` has it."""
        if self._dist is None:
            return value
        values = [value]
        self._dist.broadcast_object_list(values, src=rank, group=self._now)
        return values[0]

    def pieces(self, holder: int, path: str) -> Iterator[bytes]:
        """The bytes of the file ``path`` of the rank ``holder``, on every rank, and every rank takes them all.

        :raises OSError: on every rank, where the holder cannot read it.
        """
        with contextlib.ExitStack() as opened:
            stream: Any = None
            while True:
                answer: bytes | OSError = b""
                if self.rank == holder:
                    try:
                        stream = stream or opened.enter_context(open(path, "rb"))
                        answer = stream.read(_SENT_AT_ONCE)
                    except OSError as error:
                        answer = error
                answer = self.from_rank(holder, answer)
                if isinstance(answer, OSError):
                    raise answer
                if not answer:
                    return
                yield answer

    def first_does(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns on rank 0, on every rank; what it raises there is raised on every rank."""
        answer: tuple[Any, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                answer = (work(), None)
            except (CheckpointError, OSError) as error:
                answer = (None, error)
        value, failure = self.from_first(answer)
        if failure is not None:
            raise failure
        return value


# ---------------------------------------------------------------------------------------------- random numbers


def random_state() -> dict[str, Any]:
    """The state of the generators of Python, NumPy (if imported), torch and every CUDA device (if in use)."""
    version, words, gauss = random.getstate()
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": _numpy_random_state(),
        "torch": torch.get_rng_state(),
        # Asking an idle CUDA for its state would start it, and cost memory on every device.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _numpy_random_state() -> list[Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    state = numpy.random.get_state()
    if not isinstance(state, tuple):
        raise CheckpointError("numpy.random uses another bit generator than MT19937, whose state cannot be saved")
    name, words, position, has_gauss, gauss = state
    return [str(name), torch.tensor(words.tolist(), dtype=torch.int64), int(position), int(has_gauss), float(gauss)]


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set every generator to ``state``, as :func:`random_state` gave it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    torch.set_rng_state(state["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and state["numpy"] is not None:
        name, words, position, has_gauss, gauss = state["numpy"]
        numpy.random.set_state((name, words.numpy().astype("uint32"), position, has_gauss, gauss))
    if state["cuda"] and torch.cuda.is_available():
        for device in range(min(len(state["cuda"]), torch.cuda.device_count())):
            torch.cuda.set_rng_state(state["cuda"][device], device)


# ---------------------------------------------------------------------------------------------- batches


class ShuffledBatches:
    """Batches of indices in an order that depends on seed and epoch alone, from a position that can be saved.

    Iterating gives the rest of the current epoch, so it can be a ``DataLoader``'s ``batch_sampler``. The position moves
    by :meth:`advance`, which ``Checkpointer.after_step`` calls, not by iterating: a loader reads ahead of the training.

    :param batch_size: items of a step, over all ranks.
    :param rank: which share of every batch is this process's; the position is that of all, whatever their number.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ):
        if length < 1 or batch_size < 1 or (drop_last and length < batch_size):
            raise ValueError(f"no batch of {batch_size} can be made of {length} items")
        last = batch_size if drop_last else (length % batch_size or batch_size)
        if not 0 <= rank < world or batch_size % world or last < world:
            raise ValueError(f"batches of {batch_size}, the last of {last}, cannot be shared by {world} ranks")
        self.rank, self.world = rank, world
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order(self.epoch)
        for batch in range(self.batch, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size][self.rank :: self.world]

    def advance(self, batches: int = 1) -> None:
        """Say that ``batches`` more batches have been trained on."""
        epochs, self.batch = divmod(self.batch + batches, len(self))
        self.epoch += epochs

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        # A hash, because seed + epoch would give seed 1 the shuffles of seed 0, one epoch late.
        mixed = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "length": self.length,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        ours = self.state_dict()
        changed = [key for key in ours if key not in ("epoch", "batch") and ours[key] != state[key]]
        if changed:
            pairs = ", ".join(f"{key} was {state[key]}, is {ours[key]}" for key in changed)
            raise CheckpointError(f"the position in the data fits other batches: {pairs}. Keep them or start a new run")
        self.epoch, self.batch = state["epoch"], state["batch"]


# ---------------------------------------------------------------------------------------------- cadence


def young_daly(mu_s: float, save_s: float) -> float:
    """Seconds between saves after Young (1974): ``sqrt(2 * mu * C)``, right where ``C`` is small against ``mu``."""
    return math.sqrt(2.0 * mu_s * save_s)


def best_interval(mu_s: float, save_s: float) -> float:
    """Seconds of work between saves that lose least time (Daly 2006): Young's value, exact for dear saves too.

    ``W`` of work and a save are done in ``(mu + restart) * (exp((W + C) / mu) - 1)`` seconds on average, if losses come
    independently. Per second of work that is least where ``1 - W / mu = exp(-(W + C) / mu)``.
    """
    cost = save_s / mu_s
    share = min(1.0, math.sqrt(2.0 * cost))
    for _round in range(50):  # Newton, from above, on a convex function: it comes down to the root
        slope = -math.expm1(-(share + cost))
        if slope <= 0.0:
            break
        better = share - (share - slope) / slope
        if not 0.0 < better < share * (1.0 - 1e-12):
            break
        share = better
    return share * mu_s


def mean_behind_young(guess_s: float, save_s: float) -> float:
    """The mean seconds between losses for which :func:`best_interval` is what Young's formula makes of ``guess_s``.

    The root of ``1 - W * x = exp(-(W + C) * x)`` in ``x``, one over that mean, for Young's ``W``.
    """
    interval_s = young_daly(guess_s, save_s)
    rate = min(1.0 / guess_s, 1.0 / interval_s) if save_s else 1.0 / guess_s
    for _round in range(50 if save_s else 0):  # Newton, from the right, on a convex function
        decay = math.exp(-(interval_s + save_s) * rate)
        better = rate - (math.expm1(-(interval_s + save_s) * rate) + interval_s * rate) / (
            interval_s - (interval_s + save_s) * decay
        )
        if not 0.0 < better < rate * (1.0 - 1e-12):
            break
        rate = better
    return 1.0 / rate


class Losses:
    """How often a box is lost: a guess, which is corrected by what has been seen.

    Losses come independently of each other, so the number seen in a time is Poisson, and a belief in a rate is a gamma
    distribution that weighs as much as so many losses seen. There are two of them: the guess is about right, or boxes
    are lost three times as often. A guess that is off by up to three either way would allow the reverse as well, but
    an interval that is too short costs a few saves, one that is too long work that grows exponentially; so only the
    second is looked out for, and the first is left to time without a loss. What is seen moves each belief, and weighs
    the two by how well they foretold it: a guess that is about right stays where it is, one that is far too long is
    soon given up. Before anything is seen the expected rate is 1.21 of the guessed one, as of an error between a third
    and three times whose logarithm is uniform. (How little it depends on these numbers: make bench BENCH=young_daly.)
    """

    BELIEFS = ((0.85, 0.93), (0.15, 2.8))  # how likely, and how many times the guessed rate
    WEIGHT = 10.0

    def __init__(self, guess_s: float):
        if not 0 < guess_s < math.inf:
            raise ValueError(f"mu ({guess_s}) is seconds above 0")
        self.guess_s = guess_s
        self.seen = 0
        self.exposed_s = 0.0

    @property
    def mu_s(self) -> float:
        """Mean seconds between losses, as far as is known now: one over the expected rate."""
        return self._corrected(self.guess_s)

    def mean_s(self, save_s: float) -> float:
        """The mean to choose an interval by. The guess is taken as Young's formula would take it, which for dear saves
        gives longer intervals than the exact theory: so nothing is lost against that formula before there is evidence,
        and with evidence the exact one takes over."""
        return self._corrected(mean_behind_young(self.guess_s, save_s))

    def _corrected(self, guess_s: float) -> float:
        rates, likely = [], []
        for share, times in self.BELIEFS:
            before_s = self.WEIGHT * guess_s / times
            after_s = before_s + self.exposed_s
            rates.append((self.WEIGHT + self.seen) / after_s)
            foretold = self.WEIGHT * math.log(before_s / after_s) - self.seen * math.log(after_s / guess_s)
            likely.append(math.log(share) + foretold)
        weights = [math.exp(each - max(likely)) for each in likely]
        return sum(weights) / sum(weight * rate for weight, rate in zip(weights, rates))


class Cadence:
    """When to save next, so that least time is lost, for the losses and the cost of a save as both are known by now.

    An interval is the most work that a loss may cost: it runs from the moment that one checkpoint holds to the moment
    at which the next one is on the disk. So a save begins early enough for its write to end within the interval, and
    where a write takes longer the training waits for it. It is rounded down to a whole step, never so short that
    writes come without a pause, and what is left of a run is cut into equal ones, so that no save comes just before
    the last.

    The cost is what a save takes from the training: the time for which the loop is held, and what the steps during the
    write behind it take longer. The first save is due after the first step: it measures the cost, and shows early
    whether saving works at all. Only where the state is so large that this would be dear does it come later.
    """

    LEAD = 1.25  # of what a write has taken so far: the next may take longer
    FIRST_SHARE = 0.05  # of an interval: what a first save may cost that is made to measure

    def __init__(self, losses: Losses, longest_s: float = math.inf, clock: Callable[[], float] = time.monotonic):
        if math.isnan(longest_s) or longest_s <= 0:
            raise ValueError(f"the longest interval ({longest_s}) is seconds above 0")
        self.losses, self.longest_s = losses, longest_s
        self.save_s: float | None = None
        self.expected_s = 0.0
        """What the first save will take, judged by the size of the state."""
        self.left_steps: int | None = None
        """Steps until the end of the run, if that is known."""
        self.write_s = 0.0
        self.step_s = 0.0
        self._clock = clock
        self._costs_seen = 0
        self._held_s = self._slower_s = 0.0
        self._unwritten_s = self._allowed_s = 0.0
        self._last_save = self._last_step = clock()

    @property
    def interval_s(self) -> float:
        cost_s, mean_s = self._cost_and_mean_s()
        best_s = best_interval(mean_s, cost_s)
        if self.save_s is None and cost_s <= self.FIRST_SHARE * best_s:
            return 0.0
        # Below twice the write, one would begin before the other has ended.
        return max(2.0 * self._lead_s, self._evened(min(self.longest_s, best_s), mean_s, cost_s))

    def _cost_and_mean_s(self) -> tuple[float, float]:
        cost_s = self.expected_s if self.save_s is None else self.save_s
        return cost_s, self.losses.mean_s(cost_s)

    @property
    def _usual_s(self) -> float:
        """The interval of a run without an end."""
        cost_s, mean_s = self._cost_and_mean_s()
        return min(self.longest_s, best_interval(mean_s, cost_s))

    @property
    def _lead_s(self) -> float:
        """How long before the end of the interval a save has to begin: the write, in whole steps it goes behind."""
        if not self.step_s:
            return self.LEAD * self.write_s
        return math.ceil(self.LEAD * self.write_s / self.step_s) * self.step_s

    def _evened(self, interval_s: float, mean_s: float, cost_s: float) -> float:
        """What is left of the run since the last save, in as many equal parts as lose least time."""
        left_s = self._left_s()
        if left_s is None or interval_s <= 0.0:
            return interval_s
        fewer = max(1, int(left_s / interval_s))
        # Where a part of the longer kind is as good as lost, its expected time is more than a float can hold.
        expected = [parts * math.expm1(min(500.0, (left_s / parts + cost_s) / mean_s)) for parts in (fewer, fewer + 1)]
        parts = fewer if expected[0] <= expected[1] and left_s / fewer <= self.longest_s else fewer + 1
        return left_s / parts

    def _left_s(self) -> float | None:
        if self.left_steps is None or self.left_steps < 0 or self.step_s <= 0.0:
            return None
        return self.left_steps * self.step_s + (self._clock() - self._last_save)

    @property
    def at_risk_s(self) -> float:
        """Seconds of work that would have to be done again now: all since the newest checkpoint that is on the disk."""
        return self._clock() - self._last_save + self._unwritten_s

    @property
    def due(self) -> bool:
        """True if a save must begin now: after one more step its write might not end within the interval."""
        interval_s = self.interval_s
        if interval_s == 0.0:
            return True
        left_s = self._left_s()
        # The end of the run is saved anyway, and nothing is trained while that is written.
        lead_s = 0.0 if left_s is not None and left_s <= interval_s else self._lead_s
        return self.at_risk_s + self.step_s + lead_s > interval_s

    @property
    def overdue(self) -> bool:
        """True if a save is under way and one more step would put more at risk than the interval in which it began, or
        a longer one now. Steps vary a little: a tenth of one is no reason to hold the training."""
        if self._unwritten_s <= 0.0:
            return False
        allowed_s = max(self._allowed_s, self.interval_s, self._usual_s)
        return self.at_risk_s + 0.9 * self.step_s > allowed_s

    def begin(self, save_s: float | None = None, write_s: float = 0.0) -> None:
        """Start the clock, with what an earlier attempt has measured."""
        self.save_s, self.write_s = save_s, write_s
        self._unwritten_s = 0.0
        self._last_save = self._last_step = self._clock()

    def step_done(self, busy: bool = False) -> None:
        """Say that a step is done; ``busy``: while a save was being written behind it."""
        now = self._clock()
        took = now - max(self._last_step, self._last_save)
        if busy and self.step_s:
            self._slower_s += took - self.step_s
        else:
            self.step_s = took if self.step_s == 0.0 else 0.8 * self.step_s + 0.2 * took
        self._last_step = now

    def held(self, seconds: float) -> None:
        """Say that the loop has been held for ``seconds`` to copy the state; the next interval runs from now."""
        now, self._allowed_s = self._clock(), self.interval_s
        self._held_s, self._slower_s = seconds, 0.0
        self._unwritten_s += max(0.0, now - seconds - self._last_save)
        self._last_save = now
        if self.save_s is None:
            self.save_s = seconds  # until it is known what the write has cost

    def waited(self, seconds: float) -> None:
        """Say that the loop has waited for the write to end: no work was put at risk meanwhile."""
        self._held_s += seconds
        self._last_save += seconds
        self._last_step = self._clock()

    def written(self, seconds: float) -> None:
        """Say that the save is on the disk, ``seconds`` after the loop was let go."""
        cost = self._held_s + min(seconds, max(0.0, self._slower_s))
        # The first save of a process also finds the memory for the copy; it is not what later ones cost.
        fresh = self._costs_seen < 2
        self.save_s = cost if fresh else ((self.save_s or 0.0) + cost) / 2
        self.write_s = seconds if fresh else (self.write_s + seconds) / 2
        self._costs_seen += 1
        self._unwritten_s = 0.0

    def numbers(self) -> dict[str, Any]:
        """The theory and the values in use, for people to look at."""
        save_s = self.save_s or 0.0
        return {
            "interval_s": round(self.interval_s, 3),
            "interval_steps": max(1, int(self.interval_s / self.step_s)) if self.step_s else None,
            "young_daly_s": round(young_daly(self.losses.mu_s, save_s), 3),
            "mu_s": round(self.losses.mu_s, 1),
            "losses_seen": self.losses.seen,
            "exposed_s": round(self.losses.exposed_s, 1),
            "save_s": round(save_s, 4),
            "write_s": round(self.write_s, 4),
        }


class Attempts:
    """What earlier attempts of this run have seen, in ``attempts.json`` beside the checkpoints.

    The file's time of change is the last sign of life, so an attempt that was lost before it saved anything counts. It
    is the start of the attempt and what has passed since by the monotonic clock: a box whose clock is set, by minutes
    or from 1970, has not lived longer for it.
    """

    NAME = "attempts.json"
    SCHEMA = "gpu-tenant/attempts/v1"

    def __init__(self, folder: str, cadence: Cadence):
        self._path = os.path.join(folder, self.NAME)
        self._cadence = cadence
        self._before_s = 0.0
        self._noted_s: float | None = None
        self.ends_whole = False
        """Nothing is lost when this attempt ends: it was asked to stop, and what it saves now is all there is."""
        self._start_the_clock()

    def _start_the_clock(self) -> None:
        self._started, self._began_s = time.time(), time.monotonic()
        self._touched_s = 0.0

    @property
    def _lived_s(self) -> float:
        """Seconds of this attempt so far."""
        return time.monotonic() - self._began_s

    def begin(self, folders: Iterable[str], kept: Mapping[str, Any] | None) -> None:
        """Start an attempt: if there was one before, it has been lost, unless it ended whole.

        :param kept: what the checkpoint says, for attempts whose folders are not here.
        """
        known = [found for found in map(self._read, folders) if found is not None]
        if kept is not None:
            with contextlib.suppress(ValueError, OverflowError, KeyError, TypeError):
                known.append(self._checked(kept))
        last = max(known, key=lambda entry: entry["exposed_s"], default=None)
        losses = self._cadence.losses
        losses.seen = last["seen"] + (0 if last["ended_whole"] else 1) if last else 0
        self.ends_whole = False
        losses.exposed_s = self._before_s = last["exposed_s"] if last else 0.0
        self._start_the_clock()
        self._cadence.begin(last["save_s"] if last else None, last["write_s"] if last else 0.0)
        self.note()

    def _read(self, folder: str) -> dict[str, Any] | None:
        path = os.path.join(folder, self.NAME)
        try:
            with open(path, "rb") as stream:
                entry = json.loads(stream.read())
            lived_s = os.stat(path).st_mtime - entry["started_at"]
            found = self._checked(entry)
            return self._checked({**found, "exposed_s": found["exposed_s"] + max(0.0, lived_s)})
        except (OSError, ValueError, OverflowError, KeyError, TypeError):
            return None

    @staticmethod
    def _checked(entry: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of an entry. :raises ValueError, OverflowError, KeyError, TypeError: one of them is none."""
        save_s = entry["save_s"]
        found = {
            "seen": int(entry["seen"]),
            "exposed_s": float(entry["exposed_s"]),
            "save_s": None if save_s is None else float(save_s),
            "write_s": float(entry["write_s"]),
            "ended_whole": entry.get("ended_whole") is True,
        }
        if not all(0 <= number < 1e15 for number in found.values() if number is not None):
            raise ValueError(f"{found} holds a number that cannot be true")
        return found

    def alive(self) -> None:
        """A sign of life, at most one a second."""
        lived_s = self._lived_s
        self._cadence.losses.exposed_s = self._before_s + lived_s
        if lived_s - self._touched_s >= 1.0:
            self._touch()

    def _touch(self) -> None:
        self._touched_s = self._lived_s
        with contextlib.suppress(OSError):
            os.utime(self._path, (self._started + self._touched_s,) * 2)

    def as_state(self) -> dict[str, Any]:
        """For the checkpoint. Half an interval more: about as long will this attempt have gone on when it is lost."""
        cadence = self._cadence
        exposed_s = cadence.losses.exposed_s + (0.0 if self.ends_whole else cadence.interval_s / 2)
        return {
            "seen": cadence.losses.seen,
            "exposed_s": exposed_s,
            "save_s": cadence.save_s,
            "write_s": cadence.write_s,
            "ended_whole": self.ends_whole,
        }

    def note_cost(self) -> None:
        """Write down what a save costs, where that is not yet known or has changed by more than a quarter."""
        now_s, noted_s = self._cadence.save_s or 0.0, self._noted_s or 0.0
        if not 0.75 * now_s <= noted_s <= 1.25 * now_s:
            self.note()

    def note(self) -> None:
        """Write down how it stands. Never stops the training: it only makes the interval better."""
        cadence = self._cadence
        self._noted_s = cadence.save_s
        entry = {
            "schema": self.SCHEMA,
            "seen": cadence.losses.seen,
            "exposed_s": self._before_s,
            "started_at": self._started,
            "save_s": cadence.save_s,
            "write_s": cadence.write_s,
            "ended_whole": self.ends_whole,
        }
        try:
            write_json(self._path, entry)
        except OSError as error:
            _log.warning("cannot write %s (%s); the interval forgets this attempt", self._path, error)
            return
        self._touch()


# ---------------------------------------------------------------------------------------------- metrics, signal


class Metrics:
    """JSON lines that the supervisor reads progress from. Never stops the training: the checkpoint is what counts."""

    def __init__(self, path: str):
        self.path = path
        self._descriptor: int | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        if not self.path:
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, (json.dumps(_finite(line), allow_nan=False) + "\n").encode("utf-8"))
        except OSError as error:
            _log.warning("cannot write metrics to %s (%s); training goes on without them", self.path, error)
            self.path = ""

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # an earlier writer died in mid-line
        return descriptor


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a line. It has no NaN: such a value becomes null and its name is listed under
    ``non_finite``."""
    whole = {key: _as_json(value) for key, value in line.items()}
    bad = sorted(key for key, value in whole.items() if not _is_finite(value))
    if bad:
        whole.update(dict.fromkeys(bad), non_finite=bad)
    return whole


def _as_json(value: Any) -> Any:
    """Numbers, text, lists and dicts of ``value``; of what is large, or something else, a word about what it is."""
    # By what it is: Parameter, and what other packages derive from Tensor, say another module than torch. The numbers
    # of a tensor in pieces would have to be asked of all ranks, and this is one of them.
    is_tensor = isinstance(value, torch.Tensor) and not _holds(value, "DTensor", "ShardedTensor")
    size = value.numel() if is_tensor else getattr(value, "size", 1)
    if is_tensor or (type(value).__module__ == "numpy" and hasattr(value, "tolist")):
        value = value.item() if size == 1 else value.tolist() if size <= _MOST_VALUES else f"{size} values"
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    plain = _plain(value)
    return plain if type(plain) in (bool, int, float, str, type(None)) else str(plain)[:200]


def _is_finite(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value: Any) -> Any:
    """A NumPy scalar or an instance of a subclass of int or float as the plain number that it is."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, (int, float)) and type(value) not in (bool, int, float):
        return int(value) if isinstance(value, int) else float(value)
    return value


class StopFlag:
    """Becomes true at SIGTERM. The handler does nothing else, so a save in progress is never disturbed."""

    def __init__(self) -> None:
        self.is_set = False
        self.since = 0.0
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._set)

    def _set(self, _signal: int, _frame: object) -> None:
        if not self.is_set:
            self.is_set, self.since = True, time.monotonic()


class Pace:
    """When to save and when to stop. Every rank asks after every step, and all get the same answer.

    Rank 0's clock says when to save, SIGTERM at any rank says when to stop. A loss of one box stops all, so ``mu`` of a
    run is that of a box divided by the number of boxes.
    """

    def __init__(self, ranks: Ranks, directory: str, longest_s: float, environ: Mapping[str, str]):
        self.ranks = ranks
        self.cadence = Cadence(Losses(_seconds(environ, "TENANT_MU_S", DEFAULT_MU_S) / ranks.nodes), longest_s)
        self.attempts = Attempts(directory, self.cadence)
        self._grace_s = _seconds(environ, "TENANT_GRACE_S", DEFAULT_GRACE_S)
        self._stop = StopFlag()

    def begin(self, folders: Iterable[str], kept: Mapping[str, Any] | None = None) -> None:
        if self.ranks.rank == 0:
            self.attempts.begin(folders, kept)

    def step_done(self, busy: bool = False, wanted: bool = False) -> tuple[bool, bool]:
        """Whether to save now (``wanted`` by any rank, or due) and whether to stop."""
        self.cadence.step_done(busy)
        due = False
        if self.ranks.rank == 0:
            self.attempts.alive()
            due = not busy and self.cadence.due
        save, stop = self.ranks.any(wanted or due, self._stop.is_set)
        return save, stop

    @property
    def grace_left_s(self) -> float:
        """Seconds until SIGKILL must be expected."""
        return self._grace_s - (time.monotonic() - self._stop.since) if self._stop.is_set else self._grace_s


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise CheckpointError(f"{name} is {text!r}, which is not a number of seconds") from error


# ---------------------------------------------------------------------------------------------- sharded models


def _unwrapped(thing: Any) -> Any:
    """The module without DistributedDataParallel and torch.compile around it, whose prefixes fit nothing else."""
    while isinstance(thing, torch.nn.Module):
        if type(thing).__name__ == "DistributedDataParallel":
            thing = thing.module
        elif hasattr(thing, "_orig_mod"):
            thing = thing._orig_mod
        else:
            break
    return thing


def _is_sharded(thing: Any) -> bool:
    """True for a module of FSDP, old or new. By name: where these classes live differs between versions of torch."""
    if not isinstance(thing, torch.nn.Module):
        return False
    return any(type(part).__name__ == "FullyShardedDataParallel" for part in thing.modules()) or any(
        type(parameter).__name__ == "DTensor" for parameter in thing.parameters()
    )


def _holds(value: Any, *kinds: str) -> bool:
    """Whether a tensor of one of these classes is somewhere in a state."""
    if isinstance(value, (Mapping, list, tuple)):
        return any(_holds(each, *kinds) for each in (value.values() if isinstance(value, Mapping) else value))
    return type(value).__name__ in kinds


def _refuse_pieces(states: Mapping[str, Any]) -> None:
    """Of what rank 0 saves for all: its own pieces of a tensor are not those of the others."""
    names = sorted(name for name, state in states.items() if _holds(state, "DTensor", "ShardedTensor"))
    if names:
        raise ValueError(f"{names} hold a rank's own pieces of sharded tensors: name them in per_rank")


class Shards:
    """The modules and their optimizers whose state lies in pieces on all ranks, by way of
    ``torch.distributed.checkpoint``: it writes the pieces, and puts them together for another number of ranks."""

    def __init__(self, objects: Mapping[str, Any], ranks: Ranks):
        import torch.distributed.checkpoint as dcp

        if not hasattr(dcp, "async_save"):
            raise CheckpointError(f"torch {torch.__version__} cannot save sharded models behind; 2.4 or newer can")
        from torch.distributed.checkpoint import state_dict

        self._dcp, self._of, self._ranks = dcp, state_dict, ranks
        self._modules = {name: thing for name, thing in objects.items() if isinstance(thing, torch.nn.Module)}
        self._optimizers = {
            name: (thing, self._owner(name, thing))
            for name, thing in objects.items()
            if isinstance(thing, torch.optim.Optimizer)
        }
        self.names = frozenset([*self._modules, *self._optimizers])
        self._stager: Any = None

    def _owner(self, name: str, optimizer: Any) -> Any:
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for module in self._modules.values():
            if trained & {id(parameter) for parameter in module.parameters()}:
                return module
        raise CheckpointError(f"{name!r} trains no module among the objects: name that module too")

    def _state(self) -> dict[str, Any]:
        state = {name: self._of.get_model_state_dict(module) for name, module in self._modules.items()}
        for name, (optimizer, module) in self._optimizers.items():
            state[name] = self._of.get_optimizer_state_dict(module, optimizer)
        return state

    def save(self, folder: str) -> Callable[[], object]:
        """Copy every piece to host memory; returns what waits until the pieces are in ``folder``. All ranks."""
        state, group = self._state(), self._ranks.behind
        if _holds(state, "ShardedTensor"):
            # torch cannot copy these behind. FSDP makes DTensors, which it can, if it is given a device_mesh.
            self._speaking(lambda: self._dcp.save(state, checkpoint_id=folder, process_group=group))
            return lambda: None
        options = {"async_stager": self._own_stager()} if self._own_stager() is not None else {}
        answer = self._speaking(
            lambda: self._dcp.async_save(state, checkpoint_id=folder, process_group=group, **options)
        )
        return functools.partial(self._speaking, getattr(answer, "upload_completion", answer).result)

    def _speaking(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns. What torch raises is no Exception, and its first line says whose it is, not what."""
        try:
            return work()
        except self._dcp.CheckpointException as error:
            said = "; ".join(f"rank {rank}: {_what_is_unsafe(wrapped[0])}" for rank, wrapped in error.failures.items())
            raise CheckpointError(said) from error

    def _own_stager(self) -> Any:
        """Keeps its space for the next save, where this torch has such a thing."""
        if self._stager is None:
            with contextlib.suppress(ImportError):
                from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

                self._stager = DefaultStager(StagingOptions(False, False, False, False))
        return self._stager

    def load(self, folder: str) -> None:
        """Give every rank its pieces, however many ranks have written them. All ranks.

        :raises CheckpointError: they do not fit these objects, or cannot be read.
        """
        state = self._state()
        try:
            self._speaking(lambda: self._dcp.load(state, checkpoint_id=folder, process_group=self._ranks.now))
        except CheckpointError as error:
            raise CheckpointError(
                f"{folder} is whole, but its pieces cannot be loaded into these objects: {error}. It is as it was. "
                "Build the model and the optimizer as they were when it was saved, or give this run its own folder"
            ) from error
        for name, module in self._modules.items():
            self._of.set_model_state_dict(module, state[name])
        for name, (optimizer, module) in self._optimizers.items():
            self._of.set_optimizer_state_dict(module, optimizer, optim_state_dict=state[name])

    def files_of(self, folder: str, rank: int) -> list[str]:
        """The files in ``folder`` that ``rank`` has written."""
        own = [name for name in _files_below(folder) if name.startswith(f"__{rank}_")]
        return own + ([".metadata"] if rank == 0 else [])


# ---------------------------------------------------------------------------------------------- all together


class Checkpointer:
    """Saves and restores the whole state of a training run.

    Under ``torch.distributed`` every rank makes the same calls. Replicated models (DDP) are written by rank 0 into one
    file; models of FSDP by all ranks into one folder. Random numbers and ``per_rank`` objects are kept for each rank.

    :param objects: everything with ``state_dict``/``load_state_dict`` that training changes, by name: model, optimizer,
        scheduler, gradient scaler, EMA, … Random number generators are saved without being named.
    :param batches: the position in the data; moved by :meth:`after_step`.
    :param total_steps: for the metrics; None if unknown.
    :param config: plain values that must not change between start and resume, such as seed and learning rate.
    :param directory: default ``TENANT_CHECKPOINT_DIR``, else ``checkpoints``. All ranks must see it, if sharded.
    :param durable_dir: each checkpoint is copied there, behind the training, and read back; default
        ``TENANT_DURABLE_CHECKPOINT_DIR``, else nowhere.
    :param keep_last: how many of the newest checkpoints stay; the one with the best metric stays too.
    :param best: ``max`` or ``min``, which end of the metric given to :meth:`after_step` is better.
    :param longest_interval_s: save at least this often, whatever Young and Daly say.
    :param asynchronous: write behind the training; needs host memory for a second copy of the state.
    :param sharded: one folder written by all ranks; None: if a module among the objects is sharded.
    :param per_rank: names of objects whose state differs between ranks, such as a rank's own data loader.
    :param metrics: path; default ``TENANT_METRICS``, else none.
    :param metrics_every: write a metrics line at every so many steps.
    :param environ: where the ``TENANT_`` variables are read, default ``os.environ``.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        batches: ShuffledBatches | None = None,
        total_steps: int | None = None,
        config: Mapping[str, Any] | None = None,
        directory: str | None = None,
        durable_dir: str | None = None,
        keep_last: int = 2,
        best: str = "max",
        longest_interval_s: float = 900.0,
        asynchronous: bool = True,
        sharded: bool | None = None,
        per_rank: Iterable[str] = (),
        metrics: str | None = None,
        metrics_every: int = 1,
        environ: Mapping[str, str] | None = None,
    ):
        environ = os.environ if environ is None else environ
        self._objects = _stateful(objects, batches)
        if keep_last < 1 or metrics_every < 1 or best not in ("max", "min"):
            raise ValueError("keep_last and metrics_every are at least 1, best is 'max' or 'min'")
        self.batches, self.total_steps, self.config = batches, total_steps, dict(config or {})
        self.directory = os.path.abspath(directory or environ.get("TENANT_CHECKPOINT_DIR") or "checkpoints")
        self.durable_dir = durable_dir or environ.get("TENANT_DURABLE_CHECKPOINT_DIR") or ""
        self.resume_dirs = _resume_dirs(environ)
        self.step = 0
        self.resumed_from: int | None = None
        self.best: dict[str, Any] | None = None
        self.durable_step: int | None = None
        self._keep_last, self._best_is, self._metrics_every = keep_last, best, metrics_every
        self._asynchronous = asynchronous
        self._ranks = Ranks()
        self._pace = Pace(self._ranks, self.directory, longest_interval_s, environ)
        self._shards = self._find_shards(sharded)
        self._per_rank = self._find_per_rank(per_rank)
        path = environ.get("TENANT_METRICS", "") if metrics is None else metrics
        self._metrics = Metrics(path if self._ranks.rank == 0 else "")
        self._copy, self._behind = HostCopy(), Behind()
        self._written: tuple[int, float] | None = None
        self._safe_path, self._saved_step, self._stopped, self._new_numbers = "", -1, False, False
        self._checked = False
        self._best_elsewhere: int | None = None
        self._passed_over = PassedOver()
        self._started, self._trained_before_s = time.monotonic(), 0.0

    def _find_shards(self, sharded: bool | None) -> Shards | None:
        if sharded is None:
            sharded = any(map(_is_sharded, self._objects.values()))
        return Shards(self._objects, self._ranks) if sharded else None

    def _find_per_rank(self, names: Iterable[str]) -> frozenset[str]:
        found = frozenset(names)
        unknown = found - set(self._objects)
        if unknown or (self._shards is not None and found & self._shards.names):
            raise ValueError(f"per_rank names {sorted(found)}: they are objects, and no sharded ones")
        return found

    @property
    def cadence(self) -> Cadence:
        """When it saves, and why: ``checkpoints.cadence.numbers()``."""
        return self._pace.cadence

    @property
    def should_stop(self) -> bool:
        """True after SIGTERM. :meth:`after_step` has saved by then, if the grace allowed: leave with
        :data:`EXIT_STOPPED`."""
        return self._stopped

    @property
    def epoch(self) -> int:
        return self.batches.epoch if self.batches is not None else 0

    @property
    def trained_s(self) -> float:
        """Seconds spent on the work so far, over all attempts; work that was lost is not counted."""
        return self._trained_before_s + time.monotonic() - self._started

    # ------------------------------------------------------------------ resuming

    def load_latest(self) -> int:
        """Go on from the newest valid checkpoint; returns its step, 0 for a new run. Call it last before the loop.

        :raises CheckpointError: the checkpoint belongs to another configuration, or none could be read though some are
            there: to start again at 0 would throw work away.
        """
        folders = [self.directory, *self.resume_dirs, *([self.durable_dir] if self.durable_dir else [])]
        if self._ranks.rank == 0:
            _remove_leftovers(self.directory)
        found = self._find_sharded(folders) if self._shards else self._find_whole(folders)
        _tell_skipped(found)
        failure = _nothing_readable(found) or self._other_kind(found, folders)
        if failure is not None:
            raise failure
        if found.state is not None:
            self._restore(found.state, found.path)
            self._find_best(folders)
        self._pace.begin(folders, found.state["losses"] if found.state is not None else None)
        self._report_resume(found)
        self._started = time.monotonic()
        return self.step

    def _find_whole(self, folders: list[str]) -> Found:
        """The newest that any machine holds; its holder sends it to the ranks that do not see the same file.

        Rank 0 looks first, and the others for something newer only: a machine that took the place of a lost one may be
        rank 0 now, and hold nothing or what was copied home a while ago.
        """
        own = Found("", None, ())

        def look(beyond: int = -1) -> int:
            nonlocal own
            own = find_newest(folders, beyond=beyond)
            return own.state["step"] if own.state is not None else -1

        step: int = self._ranks.first_does(look)
        if self._ranks.leads_machine and self._ranks.rank != 0:
            step = max(step, look(step))
        # A rank that found nothing newer has rank 0's step and no path.
        looks = self._ranks.gather((step, own.path, own.skipped))
        self._passed_over.note(own, _ARCHIVE)
        holder = max(range(len(looks)), key=lambda rank: (bool(looks[rank][1]), looks[rank][0], -rank))
        path, skipped = looks[holder][1], tuple(itertools.chain.from_iterable(told[2] for told in looks))
        if not path or self._ranks.world == 1:
            return own._replace(skipped=skipped)
        if self._sees_same(path, holder):
            return Found(path, own.state if own.path == path else _load_tensors(path), skipped)
        return Found(path, self._ranks.from_rank(holder, own.state), skipped)

    def _sees_same(self, path: str, holder: int) -> bool:
        """Whether every rank has the very file of ``holder`` under ``path``, and not one of its own machine."""
        stamps = self._ranks.gather(_stamp_of(path))
        return all(stamp is not None and stamp == stamps[holder] for stamp in stamps)

    def _find_sharded(self, folders: list[str]) -> Found:
        """All ranks look at the same candidates, each at its share of the files: no piece is loaded to be judged."""
        skipped: list[Skipped] = []
        for path, step in self._ranks.first_does(lambda: _candidates(folders, _FOLDER, skipped)):
            # Every rank has compared its share before any rank loads: what is damaged may fail in any way at all.
            state, problem = self._agreed(path, functools.partial(self._compare_share, path, step))
            if problem is None:
                state, problem = self._agreed(path, functools.partial(self._load_unsharded, path))
            if problem is None:
                found = Found(path, state, tuple(skipped))
                break
            reason, kind = problem
            if kind == "too large":
                raise CheckpointError(reason)
            moved = kind == "damaged" and self._ranks.first_does(functools.partial(_quarantine, path))
            skipped.append(Skipped(path, reason, moved, kind == "damaged"))
        else:
            found = Found("", None, tuple(self._ranks.from_first(skipped)))
        self._passed_over.note(found, _FOLDER)
        return found

    def _agreed(self, path: str, examine: Callable[[], Any]) -> tuple[Any, tuple[str, str] | None]:
        """What ``examine`` makes of ``path`` here; or why some rank does without, and what that is: the same on all.

        That it is damaged is certain on whichever rank says so; that it cannot be read may be that rank's own trouble.
        """
        rank = self._ranks.rank
        value, own = None, None
        try:
            value = examine()
        except CheckpointDamaged as error:
            own = (str(error), "damaged")
        except (OSError, CheckpointUnloadable) as error:
            own = (f"{path}: cannot be read now by rank {rank} ({error})", "unreadable")
        except CheckpointError as error:
            own = (str(error), "too large")
        problems = filter(None, self._ranks.gather(own))
        return value, min(problems, key=lambda problem: problem[1] != "damaged", default=None)

    def _compare_share(self, path: str, step: int) -> None:
        if folder_manifest(path, self._ranks.rank, self._ranks.world).get("step") != step:
            raise CheckpointDamaged(f"{path}: its name says another step than its manifest")

    def _load_unsharded(self, path: str) -> dict[str, Any]:
        """What is not in pieces, this rank's own of it as ``rank``."""
        state = _load_tensors(os.path.join(path, "common.pt"))
        if state.get("world") == self._ranks.world:
            state["rank"] = _load_tensors(os.path.join(path, f"rank-{self._ranks.rank}.pt"))
        return state

    def _other_kind(self, found: Found, folders: list[str]) -> CheckpointError | None:
        """Checkpoints of the other layout must not make it start at 0."""
        if found.state is not None:
            return None
        pattern = _ARCHIVE if self._shards else _FOLDER
        others = self._ranks.first_does(lambda: [path for path, _step in _candidates(folders, pattern, [])])
        if not others:
            return None
        is_now, was = ("sharded", "in one file") if self._shards else ("in one file", "sharded")
        return CheckpointError(
            f"{others[0]} was saved {was}, this run saves {is_now}. Nothing was changed. "
            f"Set sharded={not self._shards}, or give this run its own folder"
        )

    def _restore(self, state: dict[str, Any], path: str) -> None:
        self._check_fits(state, path)
        if self._shards is not None:
            self._shards.load(path)
        for name, thing in self._objects.items():
            if name in state["objects"]:
                thing.load_state_dict(state["objects"][name])
        self._restore_rank(state, path)
        self.step, self.best = state["step"], state["best"]
        self._trained_before_s = state["trained_s"]
        self.resumed_from = self.step
        self._safe_path = path
        is_own = os.path.dirname(os.path.abspath(path)) == self.directory
        if self._ranks.first_does(lambda: is_own and os.path.exists(path)):
            self._saved_step = self.step

    def _find_best(self, folders: list[str]) -> None:
        """The best may lie in the folder of an earlier attempt. It is taken over with the first save and not now: an
        attempt that saves nothing must not look like one that did."""
        if self.best is None:
            return
        name = checkpoint_name(self.best["step"], self._shards is not None)
        places = self._ranks.first_does(lambda: _places(name, folders))
        if not places and self._shards is None:
            places = self._bring_best(name, folders)
        if not places:
            _log.warning("%s, the best so far (%s), is nowhere any more: the next measured one is", name, self.best)
            self._metrics.write({"best_lost": self.best})
            self.best = None
        elif places[0] != os.path.join(self.directory, name):
            self._best_elsewhere = self.best["step"]

    def _bring_best(self, name: str, folders: list[str]) -> list[str]:
        """The best that another machine holds, for rank 0's; where it is now, nowhere if nobody holds it."""
        mine = _places(name, folders) if self._ranks.leads_machine else []
        held = self._ranks.gather(mine[:1])
        holder = next((rank for rank, paths in enumerate(held) if paths), None)
        if holder is None:
            return []
        target = os.path.join(self.directory, _BROUGHT, name)
        pieces = self._ranks.pieces(holder, held[holder][0])
        problem = ""
        try:
            if self._ranks.rank == 0:
                _write(target, lambda stream: stream.writelines(pieces))
        except OSError as error:
            problem = _first_line(error)
        with contextlib.suppress(OSError):
            collections.deque(pieces, maxlen=0)  # the holder goes on until everybody has taken all
        problem = self._ranks.from_first(problem)
        if problem:
            _log.warning("%s, the best so far, did not come from rank %d: %s", name, holder, problem)
        return [] if problem else [target]

    def _restore_rank(self, state: dict[str, Any], path: str) -> None:
        rank, world = self._ranks.rank, state["world"]
        if world != self._ranks.world:
            # No rank's random numbers can be gone on with; all ranks start new ones, the same at every such resume.
            if self._per_rank:
                raise CheckpointError(
                    f"{path} was saved by {world} ranks, {self._ranks.world} are here, and {sorted(self._per_rank)} "
                    "have a state for each rank. Nothing was changed. Start as many ranks"
                )
            _seed_all(f"{state['step']}/{rank}/{self._ranks.world}")
            return
        own = state["rank"] if self._shards else state["ranks"][rank]
        for name in sorted(self._per_rank):
            self._objects[name].load_state_dict(own["objects"][name])
        restore_random_state(own["rng"])

    def _check_fits(self, state: dict[str, Any], path: str) -> None:
        keys = set(state["config"]) | set(self.config)
        changed = sorted(key for key in keys if not _is_same(state["config"].get(key), self.config.get(key)))
        if changed:
            pairs = ", ".join(f"{key} was {state['config'].get(key)!r}, is {self.config.get(key)!r}" for key in changed)
            raise CheckpointError(f"{path} is of another run: {pairs}. It is as it was. Give this run its own folder")
        if state["names"] != sorted(self._objects):
            raise CheckpointError(
                f"{path} holds {state['names']}, this script has {sorted(self._objects)}. "
                "Nothing was changed. Name the same"
            )

    def _report_resume(self, found: Found) -> None:
        line = _resume_line(self.step, found)
        if line is not None:
            self._metrics.write(line)

    # ------------------------------------------------------------------ training

    def after_step(self, loss: Any = None, metric: Any = None, batches: int = 1, **values: Any) -> None:
        """Count one finished step; save if it is time, if the metric is the best so far, or if asked to stop.

        :param metric: of the model as it is now, for instance a validation accuracy; None if not measured.
        :param batches: how many batches the step used (gradient accumulation).
        :param values: further numbers for the metrics line.
        :raises CheckpointError: the save that was under way has failed.
        """
        self.step += 1
        if self.batches is not None:
            self.batches.advance(batches)
        busy = self._behind.busy
        if not busy:
            self._behind.raise_failure()
        self._learn()
        self._look_ahead()
        better = self._note_metric(metric)
        save, stop = self._pace.step_done(busy, better)
        if self.step % self._metrics_every == 0 or self.step == self.total_steps:
            self._write_metrics(loss, metric, values)
        if stop and not self._stopped:
            self._flush()
            return
        if save:
            self.save()
        if self._behind.busy and self._ranks.rank == 0 and self.cadence.overdue:
            self._hold()

    def _hold(self) -> None:
        """Let the training wait for a write that takes too long: no loss shall cost more than an interval."""
        begun = time.monotonic()
        self._behind.wait()
        self.cadence.waited(time.monotonic() - begun)
        self._learn()

    def _note_metric(self, metric: Any) -> bool:
        if metric is None or not math.isfinite(metric):
            return False
        sign = 1.0 if self._best_is == "max" else -1.0
        if self.best is not None and sign * float(metric) <= sign * self.best["metric"]:
            return False
        self.best = {"step": self.step, "metric": float(metric)}
        return True

    def _write_metrics(self, loss: Any, metric: Any, values: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {"step": self.step, "steps": self.total_steps, "epoch": self.epoch}
        line.update({} if loss is None else {"loss": loss})
        line.update({} if metric is None else {"metric": metric})
        if self._new_numbers:
            line["checkpoint"] = dict(self.cadence.numbers(), path=self._safe_path, durable_step=self.durable_step)
            self._new_numbers = False
        self._metrics.write(dict(line, trained_s=round(self.trained_s, 3), **values))

    def _look_ahead(self) -> None:
        """Tell the cadence what is left of the run, and what the first save may take while none has been made."""
        cadence = self.cadence
        cadence.left_steps = None if self.total_steps is None else self.total_steps - self.step
        if cadence.save_s is None and not cadence.expected_s:
            speed = COPY_BYTES_S if self._asynchronous else WRITE_BYTES_S
            cadence.expected_s = sum(map(_bytes_of, self._objects.values())) / speed

    def _learn(self) -> None:
        """Take what the last save has cost, once it is on the disk."""
        written, self._written = self._written, None
        if written is not None:
            self._saved_step, seconds = max(self._saved_step, written[0]), written[1]
            self.cadence.written(seconds)
            self._new_numbers = True

    def _flush(self) -> None:
        """SIGTERM: save what there is if the grace allows it, else let the save under way come to its end."""
        attempts, is_free = self._pace.attempts, self._behind.wait(self._pace.grace_left_s)
        needed = (self.cadence.save_s or 0.0) + self.cadence.write_s
        attempts.ends_whole = self._ranks.from_first(is_free and needed <= self._pace.grace_left_s)
        if attempts.ends_whole:
            self.save()
        elif is_free:
            _log.warning("a save takes %.1f s, %.1f s of grace are left: not begun", needed, self._pace.grace_left_s)
        if not self._behind.wait(self._pace.grace_left_s):
            attempts.ends_whole = False
            _log.warning("the save under way is not done within the grace; safe is %s", self._safe_path)
        if attempts.ends_whole and self._ranks.rank == 0:
            attempts.note()
        self._stopped = True

    # ------------------------------------------------------------------ saving

    def save(self, wait: bool = False) -> str:
        """Save this step, unless that is done already; returns its path.

        The training may go on when it returns: the state is copied. The file is there when the write behind has ended.

        :param wait: return only when it is there.
        :raises CheckpointError: it, or the save before it, could not be written. Earlier checkpoints are as they were.
        """
        path = os.path.join(self.directory, checkpoint_name(self.step, self._shards is not None))
        if self._saved_step != self.step:
            begun = time.monotonic()
            self.wait()
            work = self._stage(path)
            self._saved_step = self.step
            if self._asynchronous:
                # Said first: a small state may be written, and its cost noted, before this thread is back.
                self.cadence.held(time.monotonic() - begun)
                self._behind.start(work)
            else:
                work()
                self._hold_all(begun)
        if wait:
            self.wait()
            self._insist_on_durable(path)
        return path

    def wait(self) -> None:
        """Wait until the save under way is on the disk. Raises what went wrong with it."""
        self._behind.wait()
        self._learn()

    def _hold_all(self, begun: float) -> None:
        self.cadence.held(time.monotonic() - begun)
        if self._written is not None:
            self._written = (self._written[0], 0.0)

    def _stage(self, path: str) -> Callable[[], object]:
        """Copy the state; returns what writes it."""
        best = self.best["step"] if self.best is not None else None
        step = self.step
        about = {"step": step, "epoch": self.epoch, "world": self._ranks.world, "best": best}
        with self._failing(path):
            write = self._stage_sharded(path, about) if self._shards is not None else self._stage_whole(path, about)

        def work() -> None:
            begun = time.monotonic()
            with self._failing(path):
                write()
                self._safe_path = path
                if self._ranks.rank == 0:
                    self._after_write(path, step, best)
            self._written = (step, time.monotonic() - begun)

        return work

    @contextlib.contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        """Lets a save that fails say so, and the step count as not saved."""
        try:
            yield
        except (OSError, RuntimeError, MemoryError, CheckpointError) as error:
            self._saved_step = -1
            self._metrics.write({"checkpoint_failed": _first_line(error), "safe": self._safe_path})
            raise CheckpointError(self._save_failure(path, error)) from error

    def _stage_whole(self, path: str, about: Mapping[str, Any]) -> Callable[[], object]:
        ranks = self._ranks.gather(_storable(self._rank_state()))
        if self._ranks.rank != 0:
            return lambda: None
        state = self._taken(dict(self._common_state(), ranks=ranks))
        # A state that cannot be loaded must show now, not after a loss. The first time the bytes are read back too.
        check = _loads if self._checked or self.resumed_from is not None else _check_loads
        self._checked = True

        def fill(stream: Any) -> None:
            torch.save(state, stream)
            seal_archive(stream, about)

        def check_and_make_way(temporary: str) -> None:
            check(temporary)
            self._passed_over.make_way(self.directory, about["step"])

        def write() -> None:
            self._copy.ready()
            _write(path, fill, check_and_make_way)

        return write

    def _stage_sharded(self, path: str, about: Mapping[str, Any]) -> Callable[[], object]:
        assert self._shards is not None
        rank, shards = self._ranks.rank, self._shards
        temporary = os.path.join(self.directory, f".{os.path.basename(path)}.tmp")
        self._ranks.first_does(lambda: _make_afresh(temporary))
        contents, common = {f"rank-{rank}.pt": self._rank_state()}, self._common_state()
        _refuse_pieces(common["objects"])
        if rank == 0:
            contents["common.pt"] = common
        files = self._taken(contents)
        pieces_written = shards.save(temporary)

        def write_own() -> list[dict[str, Any]]:
            pieces_written()
            self._copy.ready()
            for name, state in files.items():
                own = os.path.join(temporary, name)
                _write(own, functools.partial(torch.save, state), _loads)
            return _entries(temporary, [*shards.files_of(temporary, rank), *files])

        def write() -> None:
            entries: list[dict[str, Any]] = []
            problem: CheckpointError | None = None
            try:
                entries = write_own()
            except CheckpointError as error:
                problem = error
            except Exception as error:
                problem = CheckpointError(f"rank {rank}: {_first_line(error)}")
            answers = self._ranks.gather((entries, problem), behind=True)
            problems = [said for _entries_of, said in answers if said is not None]
            # Every rank has said that its files are on the disk: only now the manifest, then the name.
            if rank == 0 and not problems:
                try:
                    seal_folder(temporary, about, [entry for entries_of, _said in answers for entry in entries_of])
                    self._passed_over.make_way(self.directory, about["step"])
                    # No folder takes the name of another: not that of a save whose last sync failed, either.
                    _make_way(path)
                    os.replace(temporary, path)
                    _sync_folder(self.directory)
                except OSError as error:
                    problems = [CheckpointError(f"rank 0: {_first_line(error)}")]
            problems = self._ranks.gather(problems, behind=True)[0]
            if problems:
                if rank == 0:
                    with contextlib.suppress(OSError):
                        _remove(temporary)  # the room is for the next save
                raise type(problems[0])("; ".join(dict.fromkeys(map(str, problems))))

        return write

    def _taken(self, state: dict[str, Any]) -> dict[str, Any]:
        if not self._asynchronous:
            return dict(_storable(state))
        try:
            return dict(self._copy.take(state))
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _MEMORY_FULL):
                raise
            _log.warning("no memory for a second copy of the state (%s): saves hold the training", _first_line(error))
            self._asynchronous, self._copy = False, HostCopy()
            return dict(_storable(state))

    def _save_failure(self, path: str, error: BaseException) -> str:
        safe = f"{self._safe_path} is safe" if self._safe_path else "no checkpoint of this run exists yet"
        fix = "Make room there, or make the folder writable, and run the same command again"
        if isinstance(error, CheckpointUnloadable):
            fix = "Let every state_dict hold tensors, numbers, text, lists and dicts only"
        return f"cannot save {path}: {_first_line(error)}. {safe}. {fix}"

    def _common_state(self) -> dict[str, Any]:
        apart = self._per_rank | (self._shards.names if self._shards is not None else frozenset())
        return {
            "schema": SCHEMA,
            "step": self.step,
            "epoch": self.epoch,
            "world": self._ranks.world,
            "config": self.config,
            "names": sorted(self._objects),
            "objects": {name: thing.state_dict() for name, thing in self._objects.items() if name not in apart},
            "best": self.best,
            "trained_s": self.trained_s,
            "losses": self._pace.attempts.as_state(),
        }

    def _rank_state(self) -> dict[str, Any]:
        own = {name: self._objects[name].state_dict() for name in sorted(self._per_rank)}
        return {"rng": random_state(), "objects": own}

    def _after_write(self, path: str, step: int, best: int | None) -> None:
        pattern = _FOLDER if self._shards is not None else _ARCHIVE
        if best is not None and best == self._best_elsewhere:
            self._best_elsewhere = None
            name = checkpoint_name(best, self._shards is not None)
            brought = os.path.join(self.directory, _BROUGHT)
            durable = [self.durable_dir] if self.durable_dir else []
            _take_in(name, self.directory, [*self.resume_dirs, *durable, brought])
            _remove(brought)
        _prune(self.directory, pattern, self._keep_last, step, best)
        self._pace.attempts.note_cost()
        if self.durable_dir:
            error = _keep_durably(path, self.durable_dir, pattern, self._keep_last, best, self._passed_over)
            if error is None:
                self.durable_step = step
            else:
                self._metrics.write({"durable_copy_failed": str(error), "durable_step": self.durable_step})

    def _insist_on_durable(self, path: str) -> None:
        if self.durable_dir and self.durable_step != self.step and self._ranks.rank == 0:
            try:
                self._passed_over.make_way(self.durable_dir, self.step)
                copy_durably(path, os.path.abspath(self.durable_dir))
            except OSError as error:
                raise CheckpointError(
                    f"{path} is whole, but it cannot be copied to {self.durable_dir} ({error}); there, step "
                    f"{self.durable_step} is the last. Make room there or mount it, and run the same command again"
                ) from error
            self.durable_step = self.step


def _bytes_of(thing: Any) -> int:
    """Bytes of the tensors here that ``thing`` would put into a checkpoint, without asking other ranks for theirs."""
    if isinstance(thing, torch.nn.Module):
        return sum(map(_bytes_of, [*thing.parameters(), *thing.buffers()]))
    if isinstance(thing, torch.optim.Optimizer):
        return _bytes_of(list(thing.state.values()))
    if isinstance(thing, torch.Tensor):
        local = getattr(thing, "_local_tensor", thing)
        return int(local.numel() * local.element_size())
    if isinstance(thing, Mapping):
        return sum(map(_bytes_of, thing.values()))
    return sum(map(_bytes_of, thing)) if isinstance(thing, (list, tuple)) else 0


def _loads(path: str) -> None:
    """Let what was written be built again, its tensors left in the file: that costs no reading of them."""
    _load_tensors(path, mmap=True)


def _check_loads(path: str) -> None:
    read_checkpoint(path, mmap=True)


def _is_same(one: Any, other: Any) -> bool:
    """Whether a configured value is what it was; NaN is what it was."""
    return bool(one == other) or all(isinstance(each, float) and math.isnan(each) for each in (one, other))


def _seed_all(text: str) -> None:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    random.seed(seed)
    torch.manual_seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)


def _stateful(objects: Mapping[str, Any], batches: ShuffledBatches | None) -> dict[str, Any]:
    whole = {name: _unwrapped(thing) for name, thing in objects.items()}
    if batches is not None:
        if "batches" in whole:
            raise ValueError("the name 'batches' is taken by the position in the data")
        whole["batches"] = batches
    for name, thing in whole.items():
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise TypeError(f"{name!r} ({type(thing).__name__}) has no state_dict and load_state_dict")
    return whole


def _resume_line(step: int, found: Found) -> dict[str, Any] | None:
    """The metrics line of a start that found something; None for a new run."""
    if found.state is None and not found.skipped:
        return None
    line: dict[str, Any] = {"resumed_from": step, "path": found.path}
    line["deterministic"] = torch.are_deterministic_algorithms_enabled()
    if found.skipped:
        line["skipped"] = [dict(item._asdict()) for item in found.skipped]
    return line


# ---------------------------------------------------------------------------------------------- other people's loops


class _LoopMetrics:
    """The metrics lines of a loop that is not ours, as :class:`Checkpointer` writes its own."""

    def __init__(self, path: str = ""):
        self._metrics = Metrics(path)
        self._held: dict[str, Any] = {}
        self._numbers: dict[str, Any] = {}
        self.durable_step: int | None = None
        self._before_s, self._started = 0.0, time.monotonic()

    @property
    def trained_s(self) -> float:
        """Seconds spent on the work so far, over all attempts; work that was lost is not counted."""
        return self._before_s + time.monotonic() - self._started

    def begin(self, found: Found, step: int) -> None:
        """:param step: where the loop itself begins: a script may have loaded another checkpoint than ``found``."""
        if found.state is None or found.state["step"] != step:
            found = found._replace(path="", state={} if step else None)
        self._before_s = float((found.state or {}).get("trained_s", 0.0))
        line = _resume_line(step, found)
        if line is not None:
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        self._metrics.write(line)

    def step_done(self, step: int, steps: int | None, epoch: int, hold: bool = False, **values: Any) -> None:
        """:param hold: the loop will tell the loss of this step in a moment, by :meth:`add_loss`."""
        self.flush()
        line = {"step": step, "steps": steps, "epoch": epoch, **values, "trained_s": round(self.trained_s, 3)}
        if self._numbers:
            line["checkpoint"], self._numbers = self._numbers, {}
        self._held = line
        if not hold:
            self.flush()

    def add_loss(self, step: int, loss: float) -> None:
        """The loss that the loop tells at ``step``; in a line of its own where that of the step has been written."""
        self._held = {**(self._held or {"step": step}), "loss": loss}
        self.flush()

    def saved(self, path: str, cadence: Cadence) -> None:
        """The next line tells what saving costs, and what is safe."""
        self._numbers = dict(cadence.numbers(), path=path, durable_step=self.durable_step)

    def flush(self) -> None:
        line, self._held = self._held, {}
        if line:
            self.write(line)

    def end(self, error: Exception) -> None:
        if self._metrics.path:
            _log.warning("cannot write metrics (%s); training goes on without them", _first_line(error))
        self._metrics, self._held = Metrics(""), {}


class _Callback:
    """What the callbacks for other loops share: they let the loop save as it always does, say when, and make what it
    wrote whole: synced, with a manifest, copied to the durable disk, old ones removed only then.

    The folder that the supervisor names comes before the script's: there, and nowhere else, the next attempt, the
    harvest and the next box look. What a script says is a name that its loop demands, and good without a supervisor.
    """

    pattern = _ARCHIVE

    def __init__(
        self,
        directory: str | None = None,
        keep_last: int = 2,
        longest_interval_s: float = 900.0,
        environ: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self._environ = os.environ if environ is None else environ
        self.directory = os.path.abspath(self._environ.get("TENANT_CHECKPOINT_DIR") or directory or "checkpoints")
        self.durable_dir = self._environ.get("TENANT_DURABLE_CHECKPOINT_DIR") or ""
        self.resume_dirs = _resume_dirs(self._environ)
        self._keep_last, self._longest_s = keep_last, longest_interval_s
        self._pace: Pace | None = None
        self._asked_at = 0.0
        self._found = Found("", None, ())
        self._passed_over = PassedOver()
        self._lines = _LoopMetrics()
        # A drill compares the losses of each step; else they are told when the loop itself looks at them.
        self._drilled = self._environ.get("TENANT_DRILL") == "1"
        self.should_stop = False

    @property
    def _folders(self) -> list[str]:
        return [self.directory, *self.resume_dirs, *([self.durable_dir] if self.durable_dir else [])]

    def load_latest(self) -> str | None:
        """Path of the newest valid checkpoint, None for a new run. Those that are not valid go to quarantine/.

        It is looked for in the own folder, in those of earlier attempts and boxes, and in the durable one. Validity is
        the manifest's word, over every byte; nothing is loaded.
        """
        found = find_newest(self._folders, self.pattern, manifest_of)
        _tell_skipped(found)
        failure = _nothing_readable(found)
        if failure is not None:
            raise failure
        _remove_leftovers(self.directory)
        self._found = found
        self._passed_over.note(found, self.pattern)
        return found.path or None

    def _begin(self) -> None:
        self._pace = Pace(Ranks(), self.directory, self._longest_s, self._environ)
        self._pace.begin(self._folders, (self._found.state or {}).get("losses"))
        self._lines = _LoopMetrics(self._environ.get("TENANT_METRICS", "") if self._pace.ranks.rank == 0 else "")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[_LoopMetrics]:
        """The metrics lines. Another package says what stands in them, and may say it otherwise one day: what goes
        wrong in it ends the lines and not the training."""
        try:
            yield self._lines
        except Exception as error:
            self._lines.end(error)

    def _place_of_best(self, name: str) -> str:
        """Where the best of earlier attempts lies; empty if that is nowhere any more."""
        assert self._pace is not None
        places = self._pace.ranks.first_does(lambda: _places(name, self._folders))
        if places:
            return str(places[0])
        _log.warning("%s, the best so far, is nowhere any more: the next measured one is", name)
        with self._telling() as lines:
            lines.write({"best_lost": {"step": step_of(name, self.pattern)}})
        return ""

    def _after_step(self) -> bool:
        """True if the loop shall save now."""
        assert self._pace is not None
        save, self.should_stop = self._pace.step_done()
        self._asked_at = time.monotonic()
        return save or self.should_stop

    def _about(self, step: int, best: int | None) -> dict[str, Any]:
        """What the manifest of a save says. One that follows a stop is all there is: the attempt ends whole."""
        assert self._pace is not None
        attempts = self._pace.attempts
        attempts.ends_whole = self.should_stop
        return {"step": step, "best": best, "trained_s": self._lines.trained_s, "losses": attempts.as_state()}

    def _make_way(self, step: int, earlier: bool = True) -> None:
        assert self._pace is not None
        self._pace.ranks.first_does(lambda: self._passed_over.make_way(self.directory, step, earlier))

    def _saved(self, path: str, step: int, best: int | None = None) -> None:
        assert self._pace is not None
        is_first, attempts = self._pace.ranks.rank == 0, self._pace.attempts
        if is_first:
            _prune(self.directory, self.pattern, self._keep_last, step, best)
            if self.durable_dir:
                keep_last, passed_over = self._keep_last, self._passed_over
                error = _keep_durably(path, self.durable_dir, self.pattern, keep_last, best, passed_over)
                self._tell_copied(step, error)
        self._pace.cadence.held(time.monotonic() - self._asked_at)
        self._pace.cadence.written(0.0)
        if is_first and attempts.ends_whole:
            attempts.note()
        elif is_first:
            attempts.note_cost()
        with self._telling() as lines:
            lines.saved(path, self._pace.cadence)

    def _tell_copied(self, step: int, error: OSError | None) -> None:
        with self._telling() as lines:
            if error is None:
                lines.durable_step = step
            else:
                lines.write({"durable_copy_failed": str(error), "durable_step": lines.durable_step})


class _TrainerHooks(_Callback):
    pattern = _OF_TRAINER
    _output_dir: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        # The Trainer would remove the older checkpoint before the newer one is known to be whole.
        args.save_total_limit = None
        # It saves below output_dir; what the script itself writes there afterwards stays where the script has it.
        self._output_dir, args.output_dir = args.output_dir, self.directory
        self._begin()
        with self._telling() as lines:
            lines.begin(self._found, state.global_step)
        self._find_best(state)

    def _find_best(self, state: Any) -> None:
        """The state names the best by the path that it had in its own attempt, on its own box."""
        if not state.best_model_checkpoint:
            return
        place = self._place_of_best(os.path.basename(state.best_model_checkpoint))
        state.best_model_checkpoint = place or None
        if not place:
            state.best_metric = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        if self._output_dir is not None:
            args.output_dir, self._output_dir = self._output_dir, None
        with self._telling() as lines:
            lines.flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        control.should_save = self._after_step() or control.should_save
        control.should_training_stop = self.should_stop or control.should_training_stop
        if control.should_save:
            # The Trainer would write into a folder of that name that is there.
            self._make_way(state.global_step)
        with self._telling() as lines:
            # The loss that it logs is the mean since it last did: of one step only where it logs each.
            control.should_log = self._drilled or control.should_log
            steps = state.max_steps if state.max_steps > 0 else None
            lines.step_done(state.global_step, steps, int(state.epoch), hold=control.should_log)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        if control.should_save:
            # With save_strategy="epoch" it is decided here.
            self._make_way(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        # With "best" it is decided after this, and saved before anybody is asked. No save follows outside of train, nor
        # where this is no best: only the name that it would take is freed, and on_save sees to the earlier ones.
        if args.save_strategy == "best" and self._output_dir is not None:
            self._make_way(state.global_step, earlier=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_others: Any) -> None:
        with self._telling() as lines:
            if logs and "loss" in logs:
                lines.add_loss(state.global_step, float(logs["loss"]))

    def on_save(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        assert self._pace is not None
        path = os.path.join(self.directory, f"checkpoint-{state.global_step}")
        self._pace.ranks.gather(None)  # every rank has written its files
        name = os.path.basename(state.best_model_checkpoint or "")
        best = step_of(name, _OF_TRAINER)

        def seal() -> str:
            seal_folder(path, self._about(state.global_step, best))
            self._passed_over.forget(path)
            self._passed_over.make_way(self.directory, state.global_step)
            return _take_in(name, self.directory, self._folders) if best is not None else ""

        # The ranks need not agree on the best where they do not share a disk: rank 0's word counts.
        state.best_model_checkpoint = self._pace.ranks.first_does(seal) or state.best_model_checkpoint
        self._saved(path, state.global_step, best)


def trainer_callback(directory: str | None = None, **options: Any) -> Any:
    """A callback for the Trainer of Hugging Face transformers, which is imported here and not before.

    The Trainer saves into ``checkpoint-<step>`` as it always does; this says when, at Young and Daly's interval and at
    SIGTERM, and gives each folder a manifest when it is whole::

        callback = trainer_callback(arguments.output_dir)
        trainer = Trainer(model, arguments, ..., callbacks=[callback])
        trainer.train(resume_from_checkpoint=callback.load_latest())
        sys.exit(EXIT_STOPPED if callback.should_stop else 0)

    :param directory: ``output_dir`` of the Trainer's arguments. Where ``TENANT_CHECKPOINT_DIR`` is set the checkpoints
        go there instead, for ``train`` alone: afterwards ``output_dir`` is what it was. ``save_total_limit`` is
        replaced by ``keep_last``.
    :param options: ``keep_last``, ``longest_interval_s``, ``environ`` as for :class:`Checkpointer`.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise CheckpointError("trainer_callback needs the package transformers, which is not installed") from error
    return type("TenantTrainerCallback", (_TrainerHooks, TrainerCallback), {})(directory, **options)


_LOGGED_LOSS = ("loss", "train_loss", "train/loss")


class _LightningHooks(_Callback):
    pattern = _OF_LIGHTNING

    def __init__(
        self,
        directory: str | None = None,
        batches: ShuffledBatches | None = None,
        monitor: str | None = None,
        mode: str = "min",
        **options: Any,
    ):
        super().__init__(directory, **options)
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {mode!r}")
        self._batches = batches
        self._monitor, self._mode = monitor, mode
        self.best: dict[str, Any] | None = None
        self._missed = False
        self._rng: Any = None
        self._step = -1
        self._steps: int | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin()
        self._step = trainer.global_step
        with self._telling() as lines:
            lines.begin(self._found, self._step)
            self._steps = _steps_of_lightning(trainer)
        if self.best is not None and not self._place_of_best(_lightning_name(self.best["step"])):
            self.best = None
        if self._rng is not None:
            restore_random_state(self._rng)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._batches is not None:
            self._batches.advance()
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        save = self._after_step()
        with self._telling() as lines:
            epoch = int(trainer.current_epoch) + bool(trainer.is_last_batch)
            lines.step_done(self._step, self._steps, epoch, **self._loss(trainer, outputs))
        if save:
            self._save(trainer)
        trainer.should_stop = self.should_stop or trainer.should_stop

    def _loss(self, trainer: Any, outputs: Any) -> dict[str, float]:
        """The loss of this step. Looking at one on a device makes the loop wait for it: that is done as often as
        Lightning itself does it, and at each step of a drill."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        waits = not isinstance(loss, float) and not (isinstance(loss, torch.Tensor) and loss.device.type == "cpu")
        if waits and not self._drilled and self._step % max(1, trainer.log_every_n_steps):
            return {}
        if loss is None:
            # Where the module steps its optimizers itself, only what it logs says how it does.
            logged = trainer.callback_metrics
            loss = next((logged[name] for name in _LOGGED_LOSS if name in logged), None)
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return {"loss": float(loss)}
        return {}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """The model as it is now has been measured: if it is the best so far, it is saved and stays."""
        # A sanity check before the first step, and trainer.validate() at any time, are no part of the training.
        if self._monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert self._pace is not None
        # The ranks save together, so one word counts, even of a metric that is not the same on all of them.
        metric = self._pace.ranks.from_first(self._measured(trainer))
        if metric is None or not self._is_better(metric):
            return
        self._step = trainer.global_step
        self.best = {"monitor": self._monitor, "mode": self._mode, "step": self._step, "metric": metric}
        self._asked_at = time.monotonic()
        self._save(trainer)

    def _measured(self, trainer: Any) -> float | None:
        metric = trainer.callback_metrics.get(self._monitor)
        if metric is None:
            if not self._missed:
                logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
                _log.warning("no validation logs %s, so no best is kept; logged: %s", self._monitor, logged)
            self._missed = True
            return None
        return float(metric) if math.isfinite(metric) else None

    def _is_better(self, metric: float) -> bool:
        sign = 1.0 if self._mode == "max" else -1.0
        return self.best is None or sign * metric > sign * self.best["metric"]

    def _save(self, trainer: Any) -> None:
        assert self._pace is not None
        path = os.path.join(self.directory, _lightning_name(self._step))
        temporary = os.path.join(self.directory, f".{os.path.basename(path)}.tmp")
        self._pace.ranks.first_does(lambda: _make_afresh(temporary))
        self._pace.ranks.first_does(lambda: _remove(temporary))
        trainer.save_checkpoint(temporary)
        best = self.best["step"] if self.best is not None else None

        def seal() -> None:
            self._passed_over.make_way(self.directory, self._step)
            _take_over(temporary, path, self._about(self._step, best))
            if best is not None:
                _take_in(_lightning_name(best), self.directory, self._folders)

        self._pace.ranks.first_does(seal)
        self._saved(path, self._step, best)

    def state_dict(self) -> dict[str, Any]:
        position = self._batches.state_dict() if self._batches is not None else None
        return {"rng": random_state(), "batches": position, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rng = state["rng"]
        if self._batches is not None and state["batches"] is not None:
            self._batches.load_state_dict(state["batches"])
        best = state.get("best")
        if best is not None and (best["monitor"], best["mode"]) == (self._monitor, self._mode):
            self.best = dict(best)


def _lightning_name(step: int) -> str:
    return f"step-{step:010d}.ckpt"


def _steps_of_lightning(trainer: Any) -> int | None:
    """The steps of the whole training; None where Lightning cannot say, or has no end."""
    try:
        steps = trainer.estimated_stepping_batches
    except Exception:
        # It refuses to say so where the accumulation changes from epoch to epoch.
        steps = trainer.max_steps
    return int(steps) if 0 < steps < math.inf else None


def _take_over(temporary: str, path: str, about: Mapping[str, Any]) -> None:
    """Seal what another program has written under a temporary name, and give it its own."""
    if os.path.isdir(temporary):
        seal_folder(temporary, about)
        _remove(path)
    else:
        with open(temporary, "r+b") as stream:
            seal_archive(stream, about)
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(temporary, path)
    _sync_folder(os.path.dirname(path))


def lightning_callback(directory: str | None = None, **options: Any) -> Any:
    """A callback for Lightning's Trainer, which is imported here and not before.

    The Trainer writes its own full state; this says when, at Young and Daly's interval and at SIGTERM, and makes the
    file whole: synced, with a manifest, under its name only then. Random numbers go in too::

        callback = lightning_callback("checkpoints", batches=batches, monitor="val_loss", mode="min")
        trainer = Trainer(..., callbacks=[callback], enable_checkpointing=False)
        trainer.fit(model, loader, ckpt_path=callback.load_latest())

    :param directory: where to save; where ``TENANT_CHECKPOINT_DIR`` is set, the checkpoints go there instead.
    :param options: ``batches``, the loader's ``batch_sampler`` if that is :class:`ShuffledBatches`: its position is
        saved; ``monitor``, what a validation logs, and ``mode`` (``min`` or ``max``), which end of it is better: the
        best is saved too and stays beside the newest, as with Lightning's ModelCheckpoint; ``keep_last``,
        ``longest_interval_s``, ``environ`` as for :class:`Checkpointer`.
    """
    for package in ("lightning.pytorch", "pytorch_lightning"):
        with contextlib.suppress(ImportError):
            base = __import__(package, fromlist=["Callback"]).Callback
            return type("TenantLightningCallback", (_LightningHooks, base), {})(directory, **options)
    raise CheckpointError("lightning_callback needs the package lightning, which is not installed")

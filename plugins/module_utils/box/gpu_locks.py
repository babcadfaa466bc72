# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One trainer for each GPU of a machine, over all tenant roots and users on it.

A lock of the supervisor covers its own root only; two projects on one machine would share a card unseen. The shim holds
these locks for as long as it lives.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
from typing import Any, Sequence

from . import gpu, locks
from .refusal import HELD, SYSTEM, Refused

FOLDER = "/tmp/gpu-tenant-gpus"  # noqa: S108  # one place that every user of a machine may write
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_PAUSE_S = 0.05
_NAME = "name others in the run's env, or leave it out"


def cards(run: dict[str, Any], reading: gpu.Reading) -> list[str]:
    """Names of the cards that the run's trainers use: its CUDA_VISIBLE_DEVICES, else the one that they inherit (a batch
    system sets it), else every card of the machine.

    A card is named by its UUID where nvidia-smi tells it, so that an index and a UUID mean the same lock.
    """
    if not run["gpu"]["required"]:
        return []
    visible = _visible(run)
    if visible is None:
        return sorted(card.uuid for card in reading.gpus)
    return sorted({_card(word, reading) or word for word in _words(visible)})


def misnamed(run: dict[str, Any], reading: gpu.Reading) -> list[str]:
    """Why the cards that the run names are not those that it needs: CUDA would train on fewer, or on none, unasked."""
    visible = _visible(run)
    if visible is None or not run["gpu"]["required"]:
        return []
    named, needed = f"CUDA_VISIBLE_DEVICES is {visible!r}", int(run["gpu"].get("count") or 1)
    # nvidia-smi lists the cards, not their parts.
    absent = [word for word in _words(visible) if not word.startswith("MIG-") and not _card(word, reading)]
    if absent:
        return [
            f"{named}: of the {len(reading.gpus)} GPUs that nvidia-smi reports none is {', '.join(absent)}; {_NAME}"
        ]
    shown = len(cards(run, reading))
    return [f"{named}: it shows {shown} GPUs, the run needs {needed}; {_NAME}"] if shown < needed else []


def _visible(run: dict[str, Any]) -> str | None:
    visible = run["env"].get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    return None if visible is None else str(visible)


def _words(visible: str) -> list[str]:
    """The cards that are named; CUDA takes ``-1`` for the end of the list."""
    words = [word.strip() for word in visible.split(",") if word.strip()]
    return list(itertools.takewhile(lambda word: not word.startswith("-"), words))


def _card(word: str, reading: gpu.Reading) -> str:
    """The UUID of the card that an index or the beginning of a UUID means; empty where it is none, or not just one."""
    whole = [card.uuid for card in reading.gpus if word == str(card.index) or card.uuid.startswith(word)]
    return whole[0] if len(whole) == 1 else ""


def held(names: Sequence[str], folder: str = FOLDER) -> list[str]:
    """Those of ``names`` that a trainer of some tenant root uses now."""
    return [name for name in names if locks.is_held(_path(name, folder))]


def acquire(names: Sequence[str], within_s: float, folder: str = FOLDER) -> list[int]:
    """Locked descriptors of all ``names``, or none of them.

    :raises Refused: HELD when one is taken for longer than ``within_s``; SYSTEM when the folder is not usable.
    """
    descriptors: list[int] = []
    until = time.monotonic() + within_s
    try:
        # Always in the same order, so that two that want the same cards cannot wait for each other.
        for name in sorted(names):
            descriptors.append(_lock(name, folder, until))
    except BaseException:
        release(descriptors)
        raise
    return descriptors


def release(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lock(name: str, folder: str, until: float) -> int:
    _prepare(folder)
    path = _path(name, folder)
    while True:
        descriptor = _open(path)
        if locks.flock_now(descriptor):
            return descriptor
        os.close(descriptor)
        if time.monotonic() >= until:
            raise Refused(HELD, f"another run on this machine uses GPU {name} ({path})", "wait for it, or stop it")
        time.sleep(_PAUSE_S)


def _prepare(folder: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, 0o1777)  # noqa: S103  # every user of the machine takes part, and removes only what is his
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise Refused(SYSTEM, f"{folder} is not a folder", "find out who put it there, and remove it")


def _open(path: str) -> int:
    # Creating is a second step: a sticky folder refuses O_CREAT on another user's file.
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Refused(SYSTEM, f"{path} cannot be opened: {error.strerror}", "find out whose it is") from error
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _path(name: str, folder: str) -> str:
    return os.path.join(folder, _UNSAFE.sub("_", name) + ".lock")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Trackers that a run may name, and how their entry is written."""

from __future__ import annotations

import re
from typing import Any, Mapping

NONE, TENSORBOARD, WANDB, TRACKIO = "none", "tensorboard", "wandb", "trackio"
TRACKERS = (NONE, TENSORBOARD, WANDB, TRACKIO)
ONLINE, OFFLINE = "online", "offline"
_KEYS = ("name", "mode", "project", "entity")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class BadTracker(ValueError):
    """An entry that cannot be used; ``key`` is the part of it that is wrong, empty for the whole."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def check(entry: object) -> dict[str, str]:
    """``{name, mode, project, entity}`` from a name alone or a mapping. :raises BadTracker: naming the key."""
    given: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
    for key in given:
        if key not in _KEYS:
            raise BadTracker(f"unknown key {key!r}; a tracker has {', '.join(_KEYS)}", str(key))
    name, mode = given.get("name"), given.get("mode") or ONLINE
    if name not in TRACKERS:
        raise BadTracker(f"tracker {name!r} is none of {', '.join(TRACKERS)}", "name" if "name" in given else "")
    if mode not in (ONLINE, OFFLINE) or (mode == OFFLINE and name != WANDB):
        raise BadTracker(f"mode is {ONLINE} or, with wandb, {OFFLINE}", "mode")
    whole = {"name": str(name), "mode": str(mode)}
    for key in ("project", "entity"):
        value = given.get(key) or ""
        if not isinstance(value, str) or (value and not _WORD.match(value)) or (value and name != WANDB):
            raise BadTracker(f"{key} is a name, and only wandb has one", key)
        whole[key] = value
    return whole

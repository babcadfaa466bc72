# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which boxes have one shared disk, by the name that each read from it when it was admitted.

A platform calls the shared disks of all its regions by one path. So the path says nothing, and the name that the first
box left on the disk says everything: who reads another one does not see what a box of the other name wrote.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Mapping

from .box import records
from .probe_report import one_line
from .state_store import StateStore


def compared(store: StateStore, project: str, box: str, platform: str, durable: object) -> dict[str, list[str]]:
    """Other boxes of the project on the platform, live by our records, ``with`` this box's disk and ``apart`` from it.

    :param durable: what the probe said of the durable mount of ``box``; without the name of a disk nothing is compared.
    """
    found: dict[str, list[str]] = {"with": [], "apart": []}
    disk = _disk(durable)
    if not disk:
        return found
    for name in _boxes(store, project):
        other = _disk_of(store, project, name, platform) if name != box else ""
        if other:
            found["with" if other == disk else "apart"].append(name)
    return found


def _boxes(store: StateStore, project: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(store.path("boxes", project)))
    return []


def _disk_of(store: StateStore, project: str, box: str, platform: str) -> str:
    """The name of the shared disk of the newest machine of a box; empty where it is gone or never told."""
    try:
        record = store.read_box(project, box, store.last_generation(project, box)) or {}
    except (records.RecordError, ValueError):
        return ""
    if record.get("platform") != platform or record.get("destroyed_at"):
        return ""
    admission = record.get("admission")
    probe = admission.get("probe") if isinstance(admission, Mapping) else None
    return _disk(probe.get("durable") if isinstance(probe, Mapping) else None)


def _disk(durable: object) -> str:
    """The name as the box told it: a stranger's word, so it must look like one."""
    name: Any = durable.get("disk") if isinstance(durable, Mapping) else None
    return name if isinstance(name, str) and name == one_line(name) and name.isalnum() else ""

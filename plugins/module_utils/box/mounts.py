# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which file system a path lies on, by the kernel's own table."""

from __future__ import annotations

import contextlib
import os
import re

# Disks that other machines see too. What FUSE mounts is taken for one unless it is known to be local.
_SHARED = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "gpfs",
    "afs",
    "juicefs",
)
_LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs")


def nearest(path: str) -> str:
    """``path`` with links resolved, or its nearest parent that exists."""
    real = os.path.realpath(path)
    while not os.path.exists(real):
        real = os.path.dirname(real)
    return real


def mount_of(path: str) -> tuple[str, str]:
    """Mount point and file system type of a resolved path, by the kernel's own table."""
    best = ("", "")
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            before, _dash, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) < 5 or not kind:
                continue
            point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), fields[4])
            holds = path == point or path.startswith(point.rstrip("/") + "/")
            if holds and len(point) >= len(best[0]):
                best = (point, kind[0])
    return best


def is_shared(kind: str) -> bool:
    """Whether a file system of this type is seen by other machines."""
    return kind in _SHARED or (kind.startswith("fuse") and kind not in _LOCAL_FUSE)

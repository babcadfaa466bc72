# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which file system a path lies on, by the kernel's own table, and whether a durable place is one of its own."""

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
# Disks of the machine itself. What is in neither list is not judged.
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "ramfs", "vfat", "ntfs3", "erofs")
_LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs")


def nearest(path: str) -> str:
    """``path`` with links resolved, or its nearest parent that exists."""
    real = os.path.realpath(path)
    while not os.path.exists(real):
        real = os.path.dirname(real)
    return real


def mounts() -> list[tuple[str, str]]:
    """Mount point and file system type of everything that is mounted, in the kernel's order."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            before, _dash, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) >= 5 and kind:
                found.append((re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4]), kind[0]))
    return found


def mount_of(path: str) -> tuple[str, str]:
    """Mount point and file system type of a resolved path, by the kernel's own table."""
    best = ("", "")
    for point, kind in mounts():
        holds = path == point or path.startswith(point.rstrip("/") + "/")
        if holds and len(point) >= len(best[0]):
            best = (point, kind)
    return best


def is_local(kind: str) -> bool:
    """Whether a file system of this type lies on a disk of the machine itself, as far as is known."""
    return kind in _LOCAL or kind in _LOCAL_FUSE


def is_shared(kind: str) -> bool:
    """Whether a file system of this type is seen by other machines."""
    return kind in _SHARED or (kind.startswith("fuse") and kind not in _LOCAL_FUSE)


def why_not_durable(path: str, data: str) -> str:
    """Why what lies at ``path`` outlives nothing; empty when a disk of its own is mounted there, at it or above it.

    A folder on which nobody has mounted anything lies on the disk of the data or on that of the system, and these need
    not be one: a data disk may be there while the network disk is not.

    :param data: the folder of what is to outlive the box.
    """
    if not os.path.isdir(path):
        return f"the durable mount {path} is not there"
    device = os.stat(path).st_dev
    for other in (data, "/"):
        if os.path.isabs(other) and os.stat(nearest(other)).st_dev == device:
            return f"{path} is no mount of its own: it lies on the same disk as {other}, nothing is mounted there"
    return ""

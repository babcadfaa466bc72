# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What user and group quotas still allow on a filesystem, asked from the kernel.

Only what binds this process is reported: a process with CAP_SYS_RESOURCE is not bound, and project quotas (XFS, ext4,
container storage limits) already show in ``statvfs``. Runs on the box too.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import Any, Callable, Optional

_QUOTACTL_FD = 443  # since Linux 5.14, the same number on every architecture
_GETQUOTA = 0x800007
_KINDS = ((0, "user"), (1, "group"))
_HAS_BLOCK_LIMITS, _HAS_INODE_LIMITS = 1, 4
_BLOCK = 1024
_CAP_SYS_RESOURCE = 24
_UNLIMITED = -1


class DiskQuota(ctypes.Structure):
    """``struct if_dqblk``: limits in KiB and in inodes, 0 for none; current space in bytes."""

    _fields_ = [
        ("block_hard", ctypes.c_uint64),
        ("block_soft", ctypes.c_uint64),
        ("space", ctypes.c_uint64),
        ("inode_hard", ctypes.c_uint64),
        ("inode_soft", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("block_grace", ctypes.c_uint64),
        ("inode_grace", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    ]


Asker = Callable[[str, int, int], Optional[DiskQuota]]


def binding_quotas(path: str, ask: Asker | None = None) -> list[dict[str, Any]]:
    """``[{what, free_bytes, free_inodes}]`` for the folder ``path``, -1 for unlimited; empty where no quota binds us.

    :param ask: ``(path, kind, id)`` to a quota or None, in the place of the kernel.
    """
    if ask is None:
        if not sys.platform.startswith("linux") or _is_exempt():
            return []
        ask = _ask_kernel
    found = []
    for (kind, name), number in zip(_KINDS, (os.geteuid(), os.getegid())):
        quota = ask(path, kind, number)
        if quota is not None:
            found.append(_left(f"the quota of {name} {number}", quota))
    return [entry for entry in found if (entry["free_bytes"], entry["free_inodes"]) != (_UNLIMITED, _UNLIMITED)]


def _left(what: str, quota: DiskQuota) -> dict[str, Any]:
    space = (quota.block_hard or quota.block_soft) * _BLOCK if quota.valid & _HAS_BLOCK_LIMITS else 0
    inodes = quota.inode_hard or quota.inode_soft if quota.valid & _HAS_INODE_LIMITS else 0
    return {
        "what": what,
        "free_bytes": max(0, space - quota.space) if space else _UNLIMITED,
        "free_inodes": max(0, inodes - quota.inodes) if inodes else _UNLIMITED,
    }


def _is_exempt() -> bool:
    """Whether the kernel lets this process exceed quotas."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            match = re.search(r"^CapEff:\s*([0-9a-f]+)", stream.read(), re.MULTILINE)
    except OSError:
        return False
    return bool(match and int(match.group(1), 16) >> _CAP_SYS_RESOURCE & 1)


def _ask_kernel(path: str, kind: int, number: int) -> DiskQuota | None:
    """None where the filesystem has no such quota, or the kernel does not say."""
    quota = DiskQuota()
    command = ctypes.c_uint(_GETQUOTA << 8 | kind)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = libc.syscall(_QUOTACTL_FD, descriptor, command, number, ctypes.byref(quota))
        finally:
            os.close(descriptor)
        device = _device(path) if status != 0 else ""
        if device:
            status = libc.quotactl(command, device.encode(), number, ctypes.byref(quota))
    except (OSError, AttributeError):
        return None
    return quota if status == 0 else None


def _device(path: str) -> str:
    """The block device that ``path`` lies on, which an older kernel wants to be asked about; empty when not visible."""
    number = os.stat(path).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            left, _dash, right = line.partition(" - ")
            if left.split()[2] == wanted and right.split()[1].startswith("/dev/"):
                return right.split()[1]
    return ""

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The gate before each cell: bytes, inodes and the durable mount. A full disk tears checkpoints apart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import disk_hogs, disk_use, mount_answer, mounts
from .errand import Errand
from .refusal import Refused

DEFAULT_MIN_FREE_BYTES = 512 * 1024 * 1024
DEFAULT_MIN_FREE_INODES = 1000
# The last of a disk belongs to the records that decide; what only tells is not written on it.
TELL_FREE_BYTES, TELL_FREE_INODES = 1024 * 1024, 64
# What naming the largest entries of a full disk may take. The data folder may lie on a network disk that hangs.
NAMED_WITHIN_S = 2.0
# The tenant root's name in a data folder.
TENANT_FOLDER = "gpu-tenant"


@dataclass(frozen=True)
class Disk:
    """Free space for this user. ``free_inodes`` is None on file systems that do not count them."""

    free_bytes: int
    free_inodes: int | None

    def as_dict(self) -> dict[str, Any]:
        return {"free_bytes": self.free_bytes, "free_inodes": self.free_inodes}


def disk_of(path: str) -> Disk:
    """Free space at ``path``, or at the nearest folder above it that exists."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return Disk(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def has_room_to_tell(disk: Disk) -> bool:
    """Whether records that only tell (heartbeat, health) may take space here."""
    return disk.free_bytes >= TELL_FREE_BYTES and (disk.free_inodes is None or disk.free_inodes >= TELL_FREE_INODES)


def in_words(disk: Disk) -> str:
    inodes = "" if disk.free_inodes is None else f" and {disk.free_inodes} inodes"
    return f"{disk.free_bytes} bytes{inodes} are free"


def shortages(disk: Disk, limits: dict[str, Any]) -> list[str]:
    """Why a cell must not start on this disk; empty when it may. Limits absent from the run take the defaults."""
    return list(_short(disk, limits).values())


def _short(disk: Disk, limits: dict[str, Any]) -> dict[str, str]:
    """What this disk lacks, ``bytes`` or ``inodes``, in words."""
    least_bytes = int(limits.get("min_free_bytes", DEFAULT_MIN_FREE_BYTES))
    least_inodes = int(limits.get("min_free_inodes", DEFAULT_MIN_FREE_INODES))
    found = {}
    if disk.free_bytes < least_bytes:
        found["bytes"] = f"{disk.free_bytes} bytes are free, the run asks for {least_bytes}"
    if disk.free_inodes is not None and disk.free_inodes < least_inodes:
        found["inodes"] = f"{disk.free_inodes} inodes are free, the run asks for {least_inodes}"
    return found


def shortages_named(root: str, limits: dict[str, Any]) -> list[str]:
    """The ``shortages`` of the disk of a tenant root, with what fills it: there is what a person may delete."""
    short = _short(disk_of(root), limits)
    named = _most_of(root) if short else {}
    return [text + named.get(kind, "") for kind, text in short.items()]


def _most_of(root: str) -> dict[str, str]:
    """The largest entries of the data folder, by what is lacking; none where it cannot be looked at in time."""
    folder, name = os.path.split(root)
    path, opened = (folder, name) if name == TENANT_FOLDER else (root, "")
    look = Errand("what fills the disk", lambda: disk_hogs.hogs(path, NAMED_WITHIN_S / 2, opened))
    if not look.wait(NAMED_WITHIN_S) or look.problem:
        return {}
    found = look.result()
    if not found.entries:
        return {}
    least = "" if found.whole else ", as far as was counted"
    return {
        "bytes": f" (most of {path}{least}: {found.by_bytes()})",
        "inodes": f" (most of {path}{least}: {found.by_inodes()})",
    }


def durable_problem(durable: dict[str, Any], root: str) -> str:
    """Why the durable mount cannot be used; empty when it can, or when none is declared. One that hangs cannot."""
    if durable.get("kind") != "mount":
        return ""
    try:
        return mount_answer.asked(durable["path"], lambda: _mount_problem(durable["path"], root))
    except (Refused, OSError) as error:
        return str(error)


def _mount_problem(path: str, root: str) -> str:
    why = mounts.why_not_durable(path, root)
    if why or os.access(path, os.W_OK | os.X_OK):
        return why
    return f"the durable mount {path} cannot be written"


def refusals(root: str, run: dict[str, Any]) -> list[str]:
    """Why the next cell of ``run`` must not start now."""
    short = shortages_named(root, run["limits"])
    problem = durable_problem(run["durable"], root)
    return short + ([problem] if problem else _durable_shortages(run["durable"], run["limits"]))


def _durable_shortages(durable: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    """What the mount lacks: each checkpoint and the results go there too. One that tells no size lacks nothing."""
    if durable.get("kind") != "mount":
        return []
    path = durable["path"]
    try:
        disk = mount_answer.asked(path, lambda: disk_of(path) if os.statvfs(path).f_blocks else None)
    except (Refused, OSError) as error:
        return [str(error)]
    short = [f"on the durable mount {path} {each}" for each in shortages(disk, limits)] if disk else []
    return short or _over_quota(durable, limits) + _over_files(durable, limits)


def _over_quota(durable: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    """What a quota leaves that the file system itself does not tell. A mount that cannot be counted lacks nothing."""
    path, cap = durable["path"], int(durable.get("cap_bytes") or 0)
    if not cap:
        return []
    try:
        use = mount_answer.asked(path, lambda: disk_use.measured_use(path, cap, mount_answer.WITHIN_S / 2))
    except (Refused, OSError):
        return []
    # A whole quota may be less than what a run asks of a disk.
    least = min(int(limits.get("min_free_bytes", DEFAULT_MIN_FREE_BYTES)), cap // 10)
    if use.free_bytes >= least:
        return []
    most = ", ".join(f"{name} {size} bytes" for name, size in use.largest)
    told = f" (most of it: {most})" if most else ""
    return [f"on the durable mount {path} {use.used_bytes} of the {cap} bytes of its quota are used{told}"]


def _over_files(durable: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    """What a known cap on files leaves, whatever the file system tells. What cannot be counted lacks nothing."""
    least = min(int(limits.get("min_free_inodes", DEFAULT_MIN_FREE_INODES)), int(durable.get("inode_cap") or 0) // 10)
    try:
        problem = mount_answer.asked(durable["path"], lambda: files_problem(durable, least, mount_answer.WITHIN_S / 2))
    except (Refused, OSError):
        return []
    return [problem] if problem else []


def files_problem(durable: dict[str, Any], wanted: int, within_s: float) -> str:
    """Why ``wanted`` more files do not go onto the mount under the cap that is known of it; empty when they do.

    :raises OSError: when the mount cannot be counted.
    """
    path, cap = durable["path"], int(durable.get("inode_cap") or 0)
    if not cap:
        return ""
    files = disk_use.counted_files(path, cap, within_s)
    if files.free >= wanted:
        return ""
    most = ", ".join(f"{name} {count}" for name, count in files.largest)
    told = f" (most of them: {most})" if most else ""
    return (
        f"on the durable mount {path} {files.used} of the {cap} files that it may hold are there{told}, and {wanted} "
        "are to be free: remove what no run needs from it, or pack many small files into one; if the platform allows "
        "more, raise platform_inode_cap and deploy again"
    )

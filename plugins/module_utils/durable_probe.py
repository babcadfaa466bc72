# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether the durable mount of a box is what its profile says, which disk it is, and what it still takes.

Guides name folders that are no mount at all, or a disk of the machine itself; a path says nothing of which region's
disk it leads to; and a small quota often shows in no number of the file system. So it is tried, marked and counted.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from dataclasses import asdict
from typing import Any

from .box import records
from .box.disk_use import Files, Use, counted_files, measured_use
from .box.mounts import is_local, is_shared, mount_of, mounts, why_not_durable

# Lies at the root of a shared disk and names it: two boxes that read one name have one disk.
MARK = ".gpu-tenant-disk.json"
MARK_SCHEMA = "shared-disk"
# What counting the files of a mount may take; what is counted by then is reported as the least.
COUNT_WITHIN_S = 15.0
_MOST_OTHERS = 5


def check_durable(
    kind: str, path: str, data_dir: str, write: bool, shared: bool = False, cap_bytes: int = 0, inode_cap: int = 0
) -> dict[str, Any]:
    """What the durable place is: ``real`` (another disk that takes and returns bytes; None where none is a mount),
    ``why`` not, ``others`` (network mounts of the box, where it is not), ``disk`` (the name of a shared one), ``use``
    and ``files``.

    :param shared: whether the profile says that several boxes see it.
    :param cap_bytes: its quota, where one is known; 0 for none.
    :param inode_cap: the same of its files.
    """
    found: dict[str, Any] = {
        "kind": kind, "path": path, "real": None, "why": "", "others": [], "disk": None, "use": None, "files": None,
    }  # fmt: skip
    if kind != "mount":
        return found
    why = _mount_problem(path, data_dir, shared) or _write_problem(path, write)
    if why:
        return dict(found, real=False, why=why, others=network_mounts(path))
    use = _told(measured_use(path, cap_bytes, COUNT_WITHIN_S)) if cap_bytes else None
    files = _told(counted_files(path, inode_cap, COUNT_WITHIN_S)) if inode_cap else None
    return dict(found, real=True, disk=disk_name(path, write) if shared else None, use=use, files=files)


def _told(use: Use | Files) -> dict[str, Any]:
    return dict(asdict(use), largest=[list(pair) for pair in use.largest])


def _mount_problem(path: str, data_dir: str, shared: bool) -> str:
    why = why_not_durable(path, data_dir)
    if why:
        return why
    point, kind = mount_of(os.path.realpath(path))
    if shared and is_local(kind):
        return f"{path} lies on {point}, a disk of this machine ({kind}), and not on one that other boxes see"
    return ""


def network_mounts(but: str) -> list[dict[str, str]]:
    """Network disks that are mounted on this box, for a person who looks for the right one; never ``but`` itself."""
    found = [{"path": point, "fstype": kind} for point, kind in mounts() if is_shared(kind) and point != but]
    return found[:_MOST_OTHERS]


def _write_problem(path: str, write: bool) -> str:
    """Writes a small file, reads it back, removes it. Without ``write`` only the permission is looked at."""
    if not write:
        return "" if os.access(path, os.W_OK) else f"{path} cannot be written"
    wanted = os.urandom(4096)
    descriptor, name = -1, ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".tenant-probe-", dir=path)
        os.write(descriptor, wanted)
        os.fsync(descriptor)
        os.close(descriptor)
        descriptor = -1
        with open(name, "rb") as stream:
            return "" if stream.read() == wanted else f"{path} gives back other bytes than were written"
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)


# --- which disk it is -------------------------------------------------------------------------------------------


def disk_name(path: str, write: bool) -> str | None:
    """The name that the first box gave to the shared disk at ``path``; None where it has none."""
    mark = os.path.join(path, MARK)
    if write and not os.path.lexists(mark):
        with contextlib.suppress(OSError):
            _name_it(path, mark)
    # Read last: another box may have named it between any look and this one.
    return _read_name(mark)


def _name_it(path: str, mark: str) -> None:
    """A name that appears whole or not at all; of two boxes that come at the same time the first one names it."""
    record = {"disk": uuid.uuid4().hex, "named_at": records.utc_now()}
    descriptor, temporary = tempfile.mkstemp(prefix=".gpu-tenant-disk-", dir=path)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(records.record_bytes(MARK_SCHEMA, record))
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        try:
            os.link(temporary, mark)
        except FileExistsError:
            return
        except OSError:
            # A network disk without hard links: the last of two that come at once names it, and both read that name.
            if not os.path.lexists(mark):
                os.replace(temporary, mark)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _read_name(mark: str) -> str | None:
    with contextlib.suppress(records.RecordError):
        name = (records.read_record_or_none(mark, MARK_SCHEMA) or {}).get("disk")
        if isinstance(name, str) and len(name) == 32 and name.isalnum():
            return name
    return None

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies of results, re-read where they lie, now. A copy is what its bytes say, never what a record says of it.

``file:///folder``      on the controller: every byte is hashed.
``s3://bucket/prefix``  every object by its version: re-read, or by the checksum that the provider computed.
``hf://datasets/owner/repository/prefix``  every file at the commit that the copy names: likewise.
``mount://platform.tier/path``  a durable mount: as another kernel than the one that wrote it read it a moment ago
                        (see ``copy_reading``), because the writer's page cache would answer for a disk that lost it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from . import roster, settling
from .box import records
from .failures import TenantFailure
from .journal import Journal
from .ledger import Ledger
from .state_store import BoxIdentity, StateStore

# A mount may be written again by whoever has it, so what was read there holds no longer than a seal.
FRESH_READING_S = 300
CLOCK_SLACK_S = 60
OBJECT_SCHEMES = ("s3", "hf")
SCHEMES = ("file", *OBJECT_SCHEMES, "mount")


@dataclass(frozen=True)
class CopyEvidence:
    """One copy as re-read now: the digest of the manifest that its bytes fit, and every broken promise.

    ``reader`` is who read a mount, ``{provider_id, boot_id, device}``; empty for copies that were read from here.
    """

    uri: str
    digest: str = ""
    problems: tuple[str, ...] = ()
    reader: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tier(self) -> str:
        """The storage tier that a mount belongs to; empty for copies that lie off the platform's own disks."""
        return tier_of_mount(self.uri)


def reread(store: StateStore, copy: Mapping[str, Any], identity: BoxIdentity, now: str) -> CopyEvidence:
    """Read a copy where it lies; whatever cannot be read is a problem, never an exception."""
    uri = copy.get("uri")
    if not isinstance(uri, str):
        return CopyEvidence(str(uri), "", (f"the copy {uri!r} has no URI",))
    scheme = uri.partition("://")[0]
    if scheme == "file":
        return _reread_folder(uri)
    if scheme in OBJECT_SCHEMES:
        return _reread_objects(uri, copy)
    if scheme == "mount":
        return _look_up_reading(store, uri, identity, now)
    return CopyEvidence(uri, "", (f"the copy {uri} cannot be re-read: only {', '.join(SCHEMES)} copies can",))


# --- a folder of the controller -----------------------------------------------------------------------------------


def _reread_folder(uri: str) -> CopyEvidence:
    root = folder_of(uri)
    if not root:
        return CopyEvidence(uri, "", (f"{uri} names no absolute folder of this machine",))
    try:
        manifest = roster.read_manifest(root)
    except roster.BadManifest as error:
        return CopyEvidence(uri, "", (f"the copy in {root}: {error}",))
    broken = settling.check_files(root, manifest.files)
    return CopyEvidence(uri, manifest.digest, tuple(f"{os.path.join(root, item.path)} {item.what}" for item in broken))


def folder_of(uri: str) -> str:
    """The absolute folder of a ``file://`` URI; empty for anything else."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    folder = unquote(parts.path)
    return folder if parts.scheme == "file" and not parts.netloc and os.path.isabs(folder) else ""


# --- an object store ----------------------------------------------------------------------------------------------


def _reread_objects(uri: str, copy: Mapping[str, Any]) -> CopyEvidence:
    # Both clients are thousands of lines that a module would compile, and most boxes have no copy in a store.
    from . import stores

    try:
        digest, problems = stores.reread(copy)
    except TenantFailure as failure:
        return CopyEvidence(uri, "", (str(failure),))
    return CopyEvidence(uri, digest, tuple(problems))


# --- a durable mount ----------------------------------------------------------------------------------------------


def tier_of_mount(uri: str) -> str:
    """``fs`` of ``mount://autodl.fs/digits``: the tier of the platform's profile; empty for other copies."""
    scheme, _separator, rest = uri.partition("://")
    return rest.split("/")[0].rpartition(".")[2] if scheme == "mount" else ""


def _look_up_reading(store: StateStore, uri: str, identity: BoxIdentity, now: str) -> CopyEvidence:
    path = store.copy_reading_path(identity.project, uri)
    again = f"read {uri} with tenant.gpu.copy_reading from another box that has it mounted"
    try:
        reading = records.read_record_or_none(path, "copy-reading")
    except records.RecordError as error:
        return CopyEvidence(uri, "", (f"{error}; {again}",))
    if reading is None:
        return CopyEvidence(uri, "", (f"nobody but its writer read {uri}; {again}",))
    ledger = Ledger(Journal(store).lines())
    why = _why_not_current(reading, uri, identity, now) or ledger.copy_reading_problem(uri, reading)
    if why:
        return CopyEvidence(uri, "", (f"{path} {why}; {again}",))
    reader = reading.get("reader")
    return CopyEvidence(
        uri,
        str(reading.get("digest")),
        tuple(f"{uri}: {problem}" for problem in reading["problems"]),
        reader if isinstance(reader, Mapping) else {},
    )


def _why_not_current(reading: Mapping[str, Any], uri: str, identity: BoxIdentity, now: str) -> str:
    if (reading.get("uri"), reading.get("project")) != (uri, identity.project):
        return f"is a reading of {reading.get('uri')!r} in project {reading.get('project')!r}"
    if not isinstance(reading.get("problems"), list):
        return "does not say what was found"
    try:
        age = (records.parse_utc(now) - records.parse_utc(reading["read_at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return "has no readable time"
    if age > FRESH_READING_S:
        return f"is {age:.0f} s old (at most {FRESH_READING_S} s)"
    return f"is {-age:.0f} s in the future; check the clock" if age < -CLOCK_SLACK_S else ""


def why_not_independent(copy: CopyEvidence, writer: Mapping[str, Any]) -> str:
    """Why the reader of a mount may have seen its writer's page cache; empty when it cannot.

    :param writer: the reading of the box's seal: ``{provider_id, boot_id, durable: [devices]}``.
    """
    if not copy.tier:
        return ""
    reader, kernel = copy.reader, writer.get("boot_id")
    if not all(isinstance(boot, str) and boot for boot in (reader.get("boot_id"), kernel)):
        return f"{copy.uri} was read by an unknown kernel, or written by one"
    if reader["boot_id"] != kernel:
        return ""
    devices = writer.get("durable")
    device = reader.get("device")
    fresh = isinstance(devices, list) and devices and isinstance(device, int) and device not in devices
    # On the same kernel only a mount of its own has a cache of its own.
    return "" if fresh else f"{copy.uri} was read through the page cache of the kernel that wrote it"


def survives(copy: CopyEvidence, keeps: Sequence[str]) -> bool:
    """Whether the copy is still there after a verb that keeps only ``keeps`` of the box's tiers."""
    return not copy.tier or copy.tier in keeps

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A copy of a run's results in a repository of the Hugging Face Hub: its layout, and whether it keeps its promise.

Below the prefix the files of the manifest lie under their own paths, each a git-LFS object named by its SHA-256, and
``manifest.json`` beside them. One commit brings them all, so where the manifest is, every file came. The commit's id
is the version of the copy: nothing that is committed later changes what it says, and only rewriting history removes it.
"""

from __future__ import annotations

import time
from typing import Any, Iterable, Mapping, Sequence

from . import hub_location
from .box import records
from .hub_client import BATCH_FILES, HubClient
from .object_client import Listed
from .object_requests import Patience
from .object_store import CONNECTIONS, PROVIDER_CHECKSUM, REREAD, StoredFile, check_objects, read_manifest
from .roster import BadManifest, Manifest, Mismatch, RosterFile

_REREAD_DEADLINE_S = 24 * 3600


def is_at(listed: Listed | None, file: RosterFile) -> bool:
    """Whether the repository names these very bytes; an empty file is the only one that is not kept by its hash."""
    return listed is not None and listed.bytes == file.bytes and (not file.bytes or listed.etag == file.sha256)


def entries_of(
    files: Iterable[RosterFile], listed: Mapping[str, Listed], location: hub_location.HubLocation, commit: str
) -> tuple[list[StoredFile], list[Mismatch]]:
    """Each file as it lies at ``commit``, and what does not lie there as the manifest has it."""
    entries, problems = [], []
    for file in files:
        if is_at(listed.get(file.path), file):
            entries.append(StoredFile(file.path, file.bytes, file.sha256, file.sha256, commit, 0, ""))
        else:
            there = "has other bytes in" if file.path in listed else "is missing from"
            problems.append(Mismatch(file.path, f"{there} {location.uri} at commit {commit}"))
    return entries, problems


def check(
    client: HubClient, files: Sequence[RosterFile], commit: str, how: str, patience: Patience, connections: int
) -> list[Mismatch]:
    """What ``commit`` does not hold, or the Hub cannot give, as ``files`` say.

    ``reread`` streams every file through SHA-256 here. ``provider_checksum`` believes the hash by which the commit
    names each object, and asks the Hub whether it has that object.
    """
    entries, problems = entries_of(files, client.list_objects(commit), client.location, commit)
    kept = [entry for entry in entries if entry.bytes]
    if how == PROVIDER_CHECKSUM:
        return problems + _not_held(client, kept)
    return problems + check_objects(client, kept, REREAD, patience, connections)


def _not_held(client: HubClient, entries: Sequence[StoredFile]) -> list[Mismatch]:
    objects = {entry.sha256: RosterFile(entry.path, entry.bytes, entry.sha256) for entry in entries}
    asked = list(objects.values())
    absent: dict[str, str] = {}
    for start in range(0, len(asked), BATCH_FILES):
        absent.update(client.absent(asked[start : start + BATCH_FILES]))
    where = client.location.uri
    return [
        Mismatch(entry.path, f"is named by {where}, but the Hub does not hold its bytes ({absent[entry.sha256]})")
        for entry in entries
        if entry.sha256 in absent
    ]


def as_copy(client: HubClient, manifest: Manifest, commit: str, how: str) -> dict[str, str]:
    """A receipt's copy: what :func:`reread` needs to look at this very commit again. The token is not in it."""
    told = {"version_id": commit, "sha256": manifest.digest, "how": how, "at": records.utc_now()}
    return {**client.location.as_copy(), **told}


def reread(copy: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(digest of the manifest, every promise that is not kept), read from the copy's commit now.

    TenantFailure when the Hub cannot be asked, or has no such commit any more.
    """
    location = hub_location.locate(copy.get("uri"), copy)
    commit = str(copy.get("version_id") or "")
    if not hub_location.COMMIT.match(commit):
        return "", (f"the copy {location.uri} names no commit, so nothing says what it held",)
    patience = Patience(time.monotonic() + _REREAD_DEADLINE_S)
    client = HubClient(location, patience)
    try:
        manifest, _commit = read_manifest(client, commit)
    except BadManifest as error:
        return "", (str(error),)
    how = str(copy.get("how") or REREAD)
    broken = check(client, manifest.files, commit, how, patience, CONNECTIONS)
    return manifest.digest, tuple(f"{location.uri}: {mismatch}" for mismatch in broken)


# --- .gitattributes -----------------------------------------------------------------------------------------------


def attributes_with(text: str, prefix: str) -> str:
    """``.gitattributes`` with the line that keeps everything below ``prefix`` in git-LFS, whatever its size or name.

    The Hub decides by it, and a small text file that it kept in git would not be named by its SHA-256.
    """
    line = f"{prefix}/** filter=lfs diff=lfs merge=lfs -text"
    if line in text.splitlines():
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"

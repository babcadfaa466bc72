# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A copy of a run's results in an object store: how it is laid out, and whether it keeps its manifest's promise.

Below ``s3://bucket/prefix/`` the files of the manifest lie under their own paths. ``.tenant-objects.json`` pins the
version, the ETag and the checksum of each. ``manifest.json`` is written last: where it is, every file came.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from .box import records
from .failures import TenantFailure
from .object_client import Client, NoObject, Readable, locate, pinnable, version_of
from .object_requests import BUSY, CHUNK, MISSING, Patience, Request, Session, StoreProblem, run_all
from .roster import MANIFEST_NAME, BadManifest, Manifest, Mismatch, RosterFile, parse_manifest

OBJECTS_NAME = ".tenant-objects.json"
UPLOADS_NAME = ".tenant-uploads.json"
OURS = (MANIFEST_NAME, OBJECTS_NAME, UPLOADS_NAME)
REREAD = "reread"
PROVIDER_CHECKSUM = "provider_checksum"
CONNECTIONS = 32
_REREAD_DEADLINE_S = 24 * 3600
_EXPIRY_MARGIN_S = 300


@dataclass(frozen=True)
class StoredFile:
    """One object as it was when it came. ``checksum`` is the SHA-256 that the store must have computed of it.

    ``part_bytes`` is 0 for an object that came in one request; else ``checksum`` is that of the parts' SHA-256s.
    """

    path: str
    bytes: int
    sha256: str
    etag: str
    version_id: str
    part_bytes: int
    checksum: str

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def base64_of(sha256: str) -> str:
    """A hash in hexadecimal digits as S3 writes it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode("ascii")


def composite(part_hashes: Sequence[str]) -> str:
    """The checksum that S3 gives to an object of parts: the SHA-256 of the parts' SHA-256s, and their number."""
    whole = hashlib.sha256(b"".join(bytes.fromhex(part) for part in part_hashes)).hexdigest()
    return f"{base64_of(whole)}-{len(part_hashes)}"


# --- records in the bucket ----------------------------------------------------------------------------------------


def read_manifest(client: Readable, version_id: str = "") -> tuple[Manifest, str]:
    """(the manifest beside the objects, its version id). BadManifest when it is absent, damaged or unsafe."""
    where = f"{client.location.uri}/{MANIFEST_NAME}"
    try:
        data, version = client.read(MANIFEST_NAME, version_id)
        return parse_manifest(records.parse_record(data, "manifest", where), where), version
    except NoObject:
        pinned = f" in version {version_id}" if version_id else ""
        raise BadManifest(f"there is no {where}{pinned}") from None
    except records.RecordError as error:
        raise BadManifest(str(error)) from error


def write_manifest(client: Client, manifest: Manifest) -> str:
    return client.write(MANIFEST_NAME, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> bytes:
    """``manifest.json`` as it lies in a store."""
    return _text(dict(manifest.record, schema=records.schema("manifest")))


@dataclass(frozen=True)
class ObjectsRecord:
    """What ``.tenant-objects.json`` says; all of it empty where there is none."""

    manifest_digest: str = ""
    entries: Mapping[str, StoredFile] = field(default_factory=dict)
    sha256: str = ""
    version_id: str = ""


def read_objects(client: Client, version_id: str = "") -> ObjectsRecord:
    """The record of the objects. BadManifest when it is damaged."""
    where = f"{client.location.uri}/{OBJECTS_NAME}"
    try:
        data, version = client.read(OBJECTS_NAME, version_id)
    except NoObject:
        return ObjectsRecord()
    try:
        record = records.parse_record(data, "objects", where)
        entries = {entry.path: entry for entry in map(_stored_file, record["files"])}
        return ObjectsRecord(str(record["manifest_digest"]), entries, hashlib.sha256(data).hexdigest(), version)
    except (records.RecordError, KeyError, TypeError, ValueError) as error:
        raise BadManifest(f"{where} is damaged ({type(error).__name__})") from error


def _stored_file(entry: Mapping[str, Any]) -> StoredFile:
    texts = {name: entry[name] for name in ("path", "sha256", "etag", "version_id", "checksum")}
    numbers = {name: entry[name] for name in ("bytes", "part_bytes")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a text is not one")
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise TypeError("a number is not one")
    return StoredFile(**texts, **numbers)


def write_objects(client: Client, manifest: Manifest, stored: Iterable[StoredFile]) -> ObjectsRecord:
    entries = {entry.path: entry for entry in sorted(stored, key=lambda entry: entry.path)}
    record = {
        "schema": records.schema("objects"),
        "project": manifest.project,
        "run_id": manifest.run_id,
        "box": manifest.box,
        "generation": manifest.generation,
        "manifest_digest": manifest.digest,
        "created_at": records.utc_now(),
        "files": [entry.as_dict() for entry in entries.values()],
    }
    data = _text(record)
    return ObjectsRecord(manifest.digest, entries, hashlib.sha256(data).hexdigest(), client.write(OBJECTS_NAME, data))


def as_copy(client: Client, record: ObjectsRecord, manifest_version: str, how: str) -> dict[str, str]:
    """A receipt's copy: what :func:`reread` needs to look at these very objects again. Credentials are not in it."""
    pins = {"version_id": manifest_version, "objects_version_id": record.version_id, "objects_sha256": record.sha256}
    told = {"sha256": record.manifest_digest, "how": how, "at": records.utc_now()}
    return {**client.location.as_copy(), **pins, **told}


def _text(record: Mapping[str, Any]) -> bytes:
    return records.json_bytes(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)) + b"\n"


# --- checking objects ---------------------------------------------------------------------------------------------


def check_objects(
    client: Readable, entries: Sequence[StoredFile], how: str, patience: Patience, connections: int = CONNECTIONS
) -> list[Mismatch]:
    """What the store no longer, or never, holds as ``entries`` say.

    ``reread`` streams every object through SHA-256 here. ``provider_checksum`` asks what the store computed when the
    object came: for an object of one request that is the very SHA-256 of the roster; for one of several parts it is
    tied to the roster by the word of the box that hashed the parts.

    :raises TenantFailure: the store cannot be reached, or refuses to say.
    """

    def work(session: Session, entry: StoredFile) -> str:
        if how == PROVIDER_CHECKSUM:
            return _ask_checksum(client, session, entry)
        return _reread_object(client, session, entry)

    found: list[Mismatch] = []
    for entry, result in zip(entries, run_all(entries, work, patience, connections)):
        if not isinstance(result, StoreProblem):
            problem = result
        elif result.kind == MISSING:
            problem = f"is missing from {client.location.uri}{_version(entry)}"
        else:
            raise _unreadable(client, entry.path, result)
        if problem:
            found.append(Mismatch(entry.path, problem))
    return found


def _version(entry: StoredFile) -> str:
    return f" in version {entry.version_id}" if entry.version_id else ""


def _unreadable(client: Readable, path: str, problem: StoreProblem) -> TenantFailure:
    kind = "unreachable" if problem.kind in ("unreachable", BUSY, "deadline") else "config"
    return TenantFailure(
        kind,
        f"{client.location.uri}/{path} at {client.location.where} could not be read: {problem}",
        safe="Nothing was removed anywhere",
        fix="See the store and the permissions of these keys, then run this again",
    )


class Reading:
    """An object on its way through SHA-256, continued where a connection was cut."""

    def __init__(self, bytes_promised: int) -> None:
        self.promised = bytes_promised
        self.hasher = hashlib.sha256()
        self.position = 0

    def resume(self) -> dict[str, str]:
        return {"Range": f"bytes={self.position}-"} if self.position else {}

    def take(self, response: http.client.HTTPResponse) -> None:
        if self.position and response.status != 206:
            self.hasher, self.position = hashlib.sha256(), 0
        while True:
            chunk = response.read(CHUNK)
            if not chunk:
                break
            self.hasher.update(chunk)
            self.position += len(chunk)
            if self.position > self.promised:
                return
        if self.position < self.promised and response.length:
            raise StoreProblem(BUSY, "the answer was cut short")


def _reread_object(client: Readable, session: Session, entry: StoredFile) -> str:
    reading = Reading(entry.bytes)
    url = presigned(client, session.patience, "get_object", entry.path, **version_of(entry.version_id))
    session.send(Request("GET", url, resume=reading.resume), reading.take)
    if reading.position != entry.bytes:
        return f"has {reading.position} bytes in {client.location.uri}, {entry.bytes} were promised"
    if reading.hasher.hexdigest() != entry.sha256:
        return f"has other bytes in {client.location.uri} than promised (its SHA-256 differs)"
    return ""


def presigned(client: Readable, patience: Patience, operation: str, path: str, **more: Any) -> str:
    """A URL that lives a little longer than ``patience``."""
    left = patience.deadline - time.monotonic()
    return client.presigned(operation, path, int(left) + _EXPIRY_MARGIN_S, **more)


def _ask_checksum(client: Readable, session: Session, entry: StoredFile) -> str:
    where = client.location.uri
    told = _head(client, session, entry.path, entry.version_id)
    if told.get("content-length") != str(entry.bytes):
        return f"has {told.get('content-length')} bytes in {where}, {entry.bytes} were promised"
    checksum = told.get("x-amz-checksum-sha256", "")
    if not checksum:
        return f"has no SHA-256 in {where}: this store computes none, so choose verify: {REREAD}"
    if not _same_checksum(entry, checksum):
        return f"has other bytes in {where} than promised (the store's SHA-256 differs)"
    return ""


def _head(client: Readable, session: Session, path: str, version_id: str) -> dict[str, str]:
    more = version_of(version_id)
    url = presigned(client, session.patience, "head_object", path, ChecksumMode="ENABLED", **more)
    return session.send(Request("HEAD", url, {"x-amz-checksum-mode": "ENABLED"})).headers


def _same_checksum(entry: StoredFile, told: str) -> bool:
    if not entry.part_bytes:
        # The roster's own hash, not the record's: the record lies in the bucket that is being judged.
        return told == base64_of(entry.sha256)
    expected, _hyphen, parts = entry.checksum.partition("-")
    value, _hyphen, count = told.partition("-")
    return value == expected and count in ("", parts)


# --- a copy as evidence -------------------------------------------------------------------------------------------


def reread(copy: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(digest of the manifest, every promise that is not kept), read from the store now.

    ``copy`` is the one of a receipt: its version ids are pinned, its ``objects_sha256`` says what the record of the
    objects must be, and its ``how`` says which proof its owner chose.
    TenantFailure when the store cannot be asked.
    """
    client = Client(locate(copy.get("uri"), copy))
    patience = Patience(time.monotonic() + _REREAD_DEADLINE_S)
    where = client.location.uri
    try:
        manifest, _version_id = read_manifest(client, str(copy.get("version_id") or ""))
        record = read_objects(client, str(copy.get("objects_version_id") or ""))
    except BadManifest as error:
        return "", (str(error),)
    if record.manifest_digest != manifest.digest:
        return manifest.digest, (f"{where}/{OBJECTS_NAME} is of another manifest, or missing",)
    if copy.get("objects_sha256") not in (None, record.sha256):
        return manifest.digest, (f"{where}/{OBJECTS_NAME} was changed after it was written",)
    entries, problems = entries_of(manifest.files, record, where)
    broken = check_objects(client, entries, str(copy.get("how") or REREAD), patience)
    return manifest.digest, problems + tuple(f"{where}: {mismatch}" for mismatch in broken)


def entries_of(
    files: Iterable[RosterFile], record: ObjectsRecord, where: str
) -> tuple[list[StoredFile], tuple[str, ...]]:
    """The object of each file, and a problem for each file that the record does not have as the manifest does."""
    entries, problems = [], []
    for file in files:
        entry = record.entries.get(file.path)
        if entry is None or not is_of(entry, file):
            problems.append(f"{where}: {file.path} is not in {OBJECTS_NAME} as the manifest has it")
        else:
            entries.append(entry)
    return entries, tuple(problems)


def is_of(entry: StoredFile, file: RosterFile) -> bool:
    return (entry.path, entry.bytes, entry.sha256) == (file.path, file.bytes, file.sha256)


# --- objects that came without being recorded ---------------------------------------------------------------------


def adopt(client: Client, files: Sequence[RosterFile], patience: Patience, connections: int) -> dict[str, StoredFile]:
    """Those of ``files`` that the store, by its own checksum, holds already: what a cut transfer left behind."""

    def work(session: Session, file: RosterFile) -> StoredFile | None:
        told = _head(client, session, file.path, "")
        if told.get("content-length") != str(file.bytes):
            return None
        if told.get("x-amz-checksum-sha256") != base64_of(file.sha256):
            return None
        return in_one_request(file, told.get("etag", ""), told.get("x-amz-version-id", ""))

    found = run_all(files, work, patience, connections)
    return {entry.path: entry for entry in found if isinstance(entry, StoredFile)}


def in_one_request(file: RosterFile, etag: str, version_id: str) -> StoredFile:
    checksum = base64_of(file.sha256)
    return StoredFile(file.path, file.bytes, file.sha256, etag.strip('"'), pinnable(version_id), 0, checksum)

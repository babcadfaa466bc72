# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a box's files into an object store, in waves: this side signs and completes, the box hashes and sends.

While the box sends one wave it hashes the parts of the next, whose SHA-256s are then signed into the URLs, so that a
store which checks them takes no other bytes. What the store already has is asked of the store each time anew: a
transfer that was cut anywhere continues.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import object_parts, object_requests, object_store
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.object_client import Client, NoObject, Upload
from ansible_collections.tenant.gpu.plugins.module_utils.object_parts import Unit
from ansible_collections.tenant.gpu.plugins.module_utils.object_store import StoredFile
from ansible_collections.tenant.gpu.plugins.module_utils.object_upload import as_dict
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile, is_sha256

Ask = Callable[[dict[str, Any]], Mapping[str, Any]]
ETAG = re.compile(r"[\x21-\x7e]{0,200}\Z")
_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_EXPIRY_MARGIN_S = 900


class Cut(Exception):
    """An attempt that did not bring everything, for a reason that may pass."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Means:
    """How to send; times in seconds, ``deadline`` a moment of time.monotonic."""

    root: str
    deadline: float
    connections: int = 8
    stall_timeout_s: float = 60.0
    part_bytes: int = object_parts.PART_BYTES


@dataclass
class Standing:
    """What has come so far: objects by path, files that are not what was promised, and bytes sent."""

    stored: dict[str, StoredFile] = field(default_factory=dict)
    mismatches: dict[str, str] = field(default_factory=dict)
    sent_bytes: int = 0
    recorded_uploads: bool = False


@dataclass
class _Parts:
    """One file on its way in parts."""

    file: RosterFile
    bytes: int
    upload: Upload | None = None
    listed: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    sha256s: dict[int, str] = field(default_factory=dict)
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return -(-self.file.bytes // self.bytes)


class Sender:
    """Brings ``files`` into the store as far as this attempt gets, into ``standing``."""

    def __init__(
        self, client: Client, ask: Ask, means: Means, standing: Standing, report: Callable[[Standing], None]
    ) -> None:
        self.client, self.ask, self.means, self.standing, self.report = client, ask, means, standing, report
        self.parts: dict[str, _Parts] = {}
        self.foreign: list[str] = []
        self._hashes: dict[Unit, dict[str, str]] = {}

    def run(self, files: Sequence[RosterFile]) -> None:
        """Send everything. Cut when the rest may come with another attempt, TenantFailure when it will not."""
        queue = self._plan(files)
        wave = object_parts.next_wave(queue, object_parts.FIRST_WAVE_BYTES)
        if self._wanted_hashes(wave):
            self._take_hashes(wave, self._ask({"hashes": self._hashing(wave)}))
        begun, before, reasons = time.monotonic(), self.standing.sent_bytes, []
        while wave:
            queue = queue[len(wave) :]
            budget = object_parts.wave_budget(self.standing.sent_bytes - before, time.monotonic() - begun)
            following = object_parts.next_wave(queue, budget)
            reasons += self._send_wave(wave, following)
            wave = following
        if reasons:
            raise Cut(reasons[0])

    # --- what the store has already -------------------------------------------------------------------------------

    def _plan(self, files: Sequence[RosterFile]) -> list[Unit]:
        """The requests that are to be made, small files first; resumes and tidies uploads of earlier attempts."""
        ours = self._resumable(files)
        whole, cut = [], []
        for file in files:
            resumed = ours.get(file.path)
            if resumed is None and not object_parts.part_bytes_for(file.bytes, self.means.part_bytes):
                whole += object_parts.units_of(file, 0)
                continue
            parts = resumed or _Parts(file, object_parts.part_bytes_for(file.bytes, self.means.part_bytes))
            self.parts[file.path] = parts
            cut += object_parts.units_of(file, parts.bytes)
        return whole + cut

    def _resumable(self, files: Sequence[RosterFile]) -> dict[str, _Parts]:
        """Unfinished uploads of our own record that still serve. The others of it are aborted; strangers' are not."""
        open_uploads = self.client.list_uploads()
        recorded = self._recorded_uploads() if open_uploads else {}
        wanted = {file.path: file for file in files}
        found: dict[str, _Parts] = {}
        for upload in open_uploads:
            entry = recorded.get(upload.id)
            if entry is None:
                self.foreign.append(upload.path)
                continue
            file = wanted.get(upload.path)
            serves = file is not None and (file.sha256, file.bytes) == (entry["sha256"], entry["bytes"])
            if file is None or not serves or upload.path in found:
                self.client.abort_upload(upload)
                continue
            found[upload.path] = _Parts(file, entry["part_bytes"], upload, self.client.list_parts(upload))
        return found

    def _recorded_uploads(self) -> dict[str, dict[str, Any]]:
        try:
            data = self.client.read(object_store.UPLOADS_NAME)[0]
            record = records.parse_record(data, "uploads", object_store.UPLOADS_NAME)
            entries = [entry for entry in record["files"] if entry["part_bytes"] >= object_parts.MIB]
            return {str(entry["upload_id"]): entry for entry in entries if {"sha256", "bytes", "path"} <= set(entry)}
        except (NoObject, records.RecordError, KeyError, TypeError):
            # Without a record nothing is known to be ours, so nothing is resumed and nothing aborted.
            return {}

    def _record_uploads(self) -> None:
        files = [
            {
                "path": parts.file.path,
                "sha256": parts.file.sha256,
                "bytes": parts.file.bytes,
                "part_bytes": parts.bytes,
                "upload_id": parts.upload.id,
            }
            for parts in self.parts.values()
            if parts.upload is not None
        ]
        record = {"schema": records.schema("uploads"), "files": files}
        self.standing.recorded_uploads = True
        self.client.write(object_store.UPLOADS_NAME, json.dumps(record, indent=1).encode("utf-8"))

    # --- one wave -------------------------------------------------------------------------------------------------

    def _send_wave(self, wave: Sequence[Unit], following: Sequence[Unit]) -> list[str]:
        """Send one wave and hash the next; reasons of what may still come."""
        wave = [unit for unit in wave if unit.file.path not in self.standing.mismatches]
        self._begin_uploads(wave)
        sends = [unit for unit in wave if not self._is_there(unit)]
        whole = [unit.file for unit in wave if unit.number == 1]
        answer = self._ask(
            {
                "sends": [self._signed(unit) for unit in sends],
                "hashes": self._hashing(following),
                "whole": [file.as_dict() for file in whole],
            }
        )
        self._take_hashes(following, answer)
        self._take_wrong_files(whole, answer)
        reasons = self._take_sent(sends, answer)
        self._complete({unit.file.path for unit in wave if unit.is_part})
        self.report(self.standing)
        return reasons

    def _begin_uploads(self, wave: Sequence[Unit]) -> None:
        fresh = [self.parts[unit.file.path] for unit in wave if unit.is_part]
        begun = False
        for parts in fresh:
            if parts.upload is None:
                parts.upload = self.client.begin_upload(parts.file.path)
                begun = True
        if begun:
            self._record_uploads()

    def _is_there(self, unit: Unit) -> bool:
        if not unit.is_part:
            return False
        parts, hashes = self.parts[unit.file.path], self._hashes.pop(unit)
        parts.sha256s[unit.number] = hashes["sha256"]
        listed = parts.listed.get(unit.number)
        if not object_parts.is_there(unit, listed, hashes, object_store.base64_of(hashes["sha256"])):
            return False
        parts.etags[unit.number] = str((listed or {})["ETag"]).strip('"')
        return True

    def _signed(self, unit: Unit) -> dict[str, Any]:
        """The presigned request for one unit. The URL is a secret: it goes to the box and nowhere else."""
        sha256 = self.parts[unit.file.path].sha256s[unit.number] if unit.is_part else unit.file.sha256
        checksum = object_store.base64_of(sha256)
        more: dict[str, Any] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": checksum}
        operation = "put_object"
        if unit.is_part:
            upload = self.parts[unit.file.path].upload
            if upload is None:
                raise ValueError(f"{unit.file.path} is in parts and has no upload")
            operation = "upload_part"
            more |= {"PartNumber": unit.number, "UploadId": upload.id}
        expires = int(self.means.deadline - time.monotonic()) + _EXPIRY_MARGIN_S
        url = self.client.presigned(operation, unit.file.path, expires, **more)
        headers = {"x-amz-checksum-sha256": checksum, "x-amz-sdk-checksum-algorithm": "SHA256"}
        return as_dict(unit.range, url=url, headers=headers, sha256="" if unit.is_part else sha256)

    def _hashing(self, wave: Sequence[Unit]) -> list[dict[str, Any]]:
        return [as_dict(unit.range, algorithm=algorithm) for unit, algorithm in self._wanted_hashes(wave)]

    def _wanted_hashes(self, wave: Sequence[Unit]) -> list[tuple[Unit, str]]:
        parts = [unit for unit in wave if unit.is_part]
        return [
            (unit, algorithm)
            for unit in parts
            for algorithm in object_parts.hashes_wanted(unit, self.parts[unit.file.path].listed.get(unit.number))
        ]

    # --- what the box answers: a stranger's word, read strictly ---------------------------------------------------

    def _ask(self, order: dict[str, Any]) -> Mapping[str, Any]:
        left = self.means.deadline - time.monotonic()
        if left <= 0:
            raise Cut("the deadline passed")
        means = self.means
        how = {"root": means.root, "connections": means.connections, "stall_timeout_s": means.stall_timeout_s}
        return self.ask({**how, **order, "deadline_s": left})

    def _take_hashes(self, wave: Sequence[Unit], answer: Mapping[str, Any]) -> None:
        wanted = self._wanted_hashes(wave)
        for (unit, algorithm), told in zip(wanted, answer_entries(answer, "hashed", len(wanted)), strict=True):
            digest = told.get("digest")
            fits = is_sha256(digest) if algorithm == "sha256" else isinstance(digest, str) and bool(_MD5.match(digest))
            if fits:
                self._hashes.setdefault(unit, {})[algorithm] = str(digest)
            else:
                self._mark_wrong(unit.file.path, str(told.get("problem", "could not be hashed")))

    def _take_wrong_files(self, whole: Sequence[RosterFile], answer: Mapping[str, Any]) -> None:
        wrong, asked = answer.get("whole"), {file.path for file in whole}
        for entry in wrong if isinstance(wrong, list) else ():
            path = entry.get("path") if isinstance(entry, Mapping) else None
            # Only files that it was asked about: names and their number are not the box's to choose.
            if isinstance(path, str) and path in asked:
                self._mark_wrong(path, str(entry.get("what")))

    def _mark_wrong(self, path: str, what: str) -> None:
        self.standing.mismatches[path] = ascii(what)[1:-1][:200]
        parts = self.parts.get(path)
        if parts is not None and parts.upload is not None:
            self.client.abort_upload(parts.upload)
            parts.upload = None

    def _take_sent(self, sends: Sequence[Unit], answer: Mapping[str, Any]) -> list[str]:
        reasons = []
        for unit, told in zip(sends, answer_entries(answer, "sent", len(sends)), strict=True):
            if unit.file.path in self.standing.mismatches:
                continue
            if "kind" not in told:
                self._note_sent(unit, str(told.get("etag", "")), str(told.get("version_id", "")))
            elif told["kind"] == object_requests.CHANGED:
                self._mark_wrong(unit.file.path, str(told.get("problem")))
            elif told["kind"] == object_requests.REFUSED:
                raise self._refused(unit, str(told.get("problem")))
            else:
                reasons.append(self._reason(str(told["kind"]), str(told.get("problem"))))
        return reasons

    def _note_sent(self, unit: Unit, etag: str, version_id: str) -> None:
        if not ETAG.match(etag) or not ETAG.match(version_id):
            raise senseless_answer()
        self.standing.sent_bytes += unit.bytes
        if unit.is_part:
            self.parts[unit.file.path].etags[unit.number] = etag
        else:
            self.standing.stored[unit.file.path] = object_store.in_one_request(unit.file, etag, version_id)

    def _reason(self, kind: str, problem: str) -> str:
        shown = ascii(problem)[1:-1][:200]
        if kind == object_requests.UNREACHABLE:
            return f"the box cannot reach {self.client.location.where}: {shown}"
        return f"{self.client.location.where} did not take everything ({shown})"

    def _refused(self, unit: Unit, problem: str) -> TenantFailure:
        where = self.client.location
        return TenantFailure(
            "config",
            f"{where.uri} at {where.where} refused {unit.file.path}: {ascii(problem)[1:-1][:200]}",
            safe="Nothing was removed at the source, and what arrived is kept",
            fix="Allow the controller's keys s3:PutObject there; the box sends with URLs that they signed",
        )

    def _complete(self, paths: Iterable[str]) -> None:
        for path in paths:
            parts = self.parts[path]
            if parts.upload is None or path in self.standing.mismatches or len(parts.etags) < parts.count:
                continue
            numbers = range(1, parts.count + 1)
            checksums = [object_store.base64_of(parts.sha256s[number]) for number in numbers]
            etag, version_id = self._completed(parts.upload, [parts.etags[number] for number in numbers], checksums)
            checksum = object_store.composite([parts.sha256s[number] for number in numbers])
            file = parts.file
            entry = StoredFile(path, file.bytes, file.sha256, etag, version_id, parts.bytes, checksum)
            self.standing.stored[path] = entry
            parts.upload = None

    def _completed(self, upload: Upload, etags: Sequence[str], checksums: Sequence[str]) -> tuple[str, str]:
        try:
            return self.client.complete_upload(upload, etags, checksums)
        except NoObject:
            raise Cut(f"the unfinished upload of {upload.path} is gone from the store") from None


def answer_entries(answer: Mapping[str, Any], name: str, count: int) -> list[Mapping[str, Any]]:
    found = answer.get(name)
    if not isinstance(found, list) or len(found) != count or not all(isinstance(entry, Mapping) for entry in found):
        raise senseless_answer()
    return found


def senseless_answer() -> TenantFailure:
    return TenantFailure(
        "evidence_missing",
        "the box's answer about what it sent makes no sense",
        safe="Nothing was removed at the source",
        fix="Run the same task again; if it happens again, do not trust this box",
    )

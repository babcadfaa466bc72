# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a box's files to the Hugging Face Hub as git-LFS objects: this side asks where to, the box sends.

An object is named by its SHA-256, which the manifest knows, so what the Hub holds already is never sent again. What a
cut left unfinished is continued with the same addresses while they hold, else begun anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import object_parts, object_requests
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.hub_client import BATCH_FILES, HubClient, NotThere, Upload
from ansible_collections.tenant.gpu.plugins.module_utils.object_parts import Unit
from ansible_collections.tenant.gpu.plugins.module_utils.object_upload import as_dict
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_storing import (
    ETAG,
    Ask,
    Cut,
    Means,
    answer_entries,
    senseless_answer,
)


@dataclass
class _Object:
    """One object on its way: ``etags`` are of the requests that the Hub's storage took, by part, or 0 for the whole."""

    file: RosterFile
    upload: Upload
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def units(self) -> list[Unit]:
        return object_parts.units_of(self.file, self.upload.part_bytes if self.upload.parts else 0)

    @property
    def missing(self) -> list[Unit]:
        return [unit for unit in self.units if unit.number not in self.etags]

    def url(self, unit: Unit) -> str:
        return self.upload.parts[unit.number - 1] if unit.is_part else self.upload.href


@dataclass
class HubStanding:
    """What has come so far: hashes that the Hub holds, files that are not what was promised, and bytes sent."""

    held: set[str] = field(default_factory=set)
    mismatches: dict[str, str] = field(default_factory=dict)
    sent_bytes: int = 0
    unfinished: dict[str, _Object] = field(default_factory=dict)

    @property
    def progress(self) -> tuple[int, int]:
        """Grows with everything that the Hub has confirmed, and with every part of what it may yet confirm."""
        return len(self.held), sum(len(each.etags) for each in self.unfinished.values())


class HubSender:
    """Brings ``files`` to the Hub as far as this attempt gets, into ``standing``."""

    def __init__(
        self, client: HubClient, ask: Ask, means: Means, standing: HubStanding, report: Callable[[HubStanding], None]
    ) -> None:
        self.client, self.ask, self.means, self.standing, self.report = client, ask, means, standing, report

    def run(self, files: Sequence[RosterFile]) -> None:
        """Send everything. Cut when the rest may come with another attempt, TenantFailure when it will not."""
        distinct = {file.sha256: file for file in reversed(files) if file.sha256 not in self.standing.held}
        queue = [unit for file in distinct.values() for unit in object_parts.units_of(file, 0)]
        queue.sort(key=lambda unit: (unit.bytes, unit.file.path))
        begun, before, reasons = time.monotonic(), self.standing.sent_bytes, []
        while queue:
            budget = object_parts.wave_budget(self.standing.sent_bytes - before, time.monotonic() - begun)
            wave = object_parts.next_wave(queue[:BATCH_FILES], budget)
            queue = queue[len(wave) :]
            reasons += self._send_wave([unit.file for unit in wave])
        if reasons:
            raise Cut(reasons[0])

    def _send_wave(self, files: Sequence[RosterFile]) -> list[str]:
        """Send what the Hub does not hold of ``files``; reasons of what may still come."""
        objects = self._objects(files)
        sends = [(each, unit) for each in objects for unit in each.missing]
        reasons = self._take_answer(objects, sends, self._ask(objects, sends)) if objects else []
        for each in objects:
            reasons += self._finish(each)
        self.report(self.standing)
        return reasons

    def _objects(self, files: Sequence[RosterFile]) -> list[_Object]:
        """The objects to send; those of an earlier attempt with the addresses that they had."""
        standing = self.standing
        fresh = [file for file in files if file.sha256 not in standing.unfinished]
        uploads = self.client.uploads(fresh) if fresh else {}
        for file in fresh:
            if file.sha256 in uploads:
                standing.unfinished[file.sha256] = _Object(file, uploads[file.sha256])
            else:
                standing.held.add(file.sha256)
        return [standing.unfinished[file.sha256] for file in files if file.sha256 in standing.unfinished]

    def _ask(self, objects: Sequence[_Object], sends: Sequence[tuple[_Object, Unit]]) -> Mapping[str, Any]:
        """Have the box send. The URLs are secrets: they go to the box and nowhere else."""
        left = self.means.deadline - time.monotonic()
        if left <= 0:
            raise Cut("the deadline passed")
        means = self.means
        order = {
            "root": means.root,
            "connections": means.connections,
            "stall_timeout_s": means.stall_timeout_s,
            "deadline_s": left,
            "sends": [
                as_dict(unit.range, url=each.url(unit), headers={}, sha256="" if unit.is_part else unit.file.sha256)
                for each, unit in sends
            ],
            "whole": [each.file.as_dict() for each in objects if each.upload.parts],
        }
        try:
            return self.ask(order)
        except TenantFailure:
            # Nobody knows what of this arrived: the Hub is asked anew, except for objects with parts known to be there.
            self.standing.unfinished = {sha256: each for sha256, each in self.standing.unfinished.items() if each.etags}
            raise

    # --- what the box answers: a stranger's word, read strictly ---------------------------------------------------

    def _take_answer(
        self, objects: Sequence[_Object], sends: Sequence[tuple[_Object, Unit]], answer: Mapping[str, Any]
    ) -> list[str]:
        wrong = answer.get("whole")
        for entry in wrong if isinstance(wrong, list) else ():
            if isinstance(entry, Mapping):
                self._mark_wrong(objects, str(entry.get("path")), str(entry.get("what")))
        reasons = []
        for (each, unit), told in zip(sends, answer_entries(answer, "sent", len(sends)), strict=True):
            problem = str(told.get("problem"))
            if "kind" not in told:
                self._note_sent(each, unit, str(told.get("etag", "")))
            elif told["kind"] == object_requests.CHANGED:
                self._mark_wrong(objects, unit.file.path, problem)
            else:
                reasons.append(self._reason(each, str(told["kind"]), problem))
        return reasons

    def _mark_wrong(self, objects: Sequence[_Object], path: str, what: str) -> None:
        for each in objects:
            if each.file.path == path:
                self.standing.mismatches[path] = ascii(what)[1:-1][:200]
                self.standing.unfinished.pop(each.file.sha256, None)

    def _note_sent(self, each: _Object, unit: Unit, etag: str) -> None:
        if not ETAG.match(etag) or (unit.is_part and not etag):
            raise senseless_answer()
        self.standing.sent_bytes += unit.bytes
        each.etags[unit.number] = etag

    def _reason(self, each: _Object, kind: str, problem: str) -> str:
        shown = ascii(problem)[1:-1][:200]
        if kind == object_requests.UNREACHABLE:
            return f"the box cannot reach the storage of {self.client.location.where}: {shown}"
        if kind in (object_requests.EXPIRED, object_requests.REFUSED, object_requests.MISSING):
            # These addresses do not serve any more: the next attempt asks for others.
            self.standing.unfinished.pop(each.file.sha256, None)
        return f"the storage of {self.client.location.where} did not take everything ({shown})"

    def _finish(self, each: _Object) -> list[str]:
        """Have the Hub confirm an object that was sent whole; the reason when it does not."""
        file, standing = each.file, self.standing
        if standing.unfinished.get(file.sha256) is not each or each.missing:
            return []
        etags = [each.etags[unit.number] for unit in each.units if unit.is_part]
        try:
            self.client.finish(each.upload, file, etags)
        except NotThere as error:
            standing.unfinished.pop(file.sha256)
            return [f"{self.client.location.where} did not find what was sent of {file.path} ({error})"]
        except TenantFailure as failure:
            if failure.kind != "unreachable":
                raise
            return [failure.what]
        standing.unfinished.pop(file.sha256)
        standing.held.add(file.sha256)
        return []

# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of a checked transfer that go through an object store: box to store, store to controller, and both."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import (
    delivery,
    destination,
    object_fetch,
    object_parts,
    object_store,
    progress,
    roster,
    settling,
    snapshots,
    stores,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.hub_location import HubLocation
from ansible_collections.tenant.gpu.plugins.module_utils.object_client import Listed
from ansible_collections.tenant.gpu.plugins.module_utils.object_store import StoredFile
from ansible_collections.tenant.gpu.plugins.module_utils.roster import Manifest, Mismatch, RosterFile
from ansible_collections.tenant.gpu.plugins.plugin_utils.hub_transfer import HubStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_route import Order, Route, StoringRoute, manifest_of
from ansible_collections.tenant.gpu.plugins.plugin_utils.object_storing import Ask, Cut, Means, Sender, Standing

_SHOWN = 10


def store(order: Order, ask: Ask, report: progress.Report | None = None) -> dict[str, Any]:
    """Bring the manifest's files from the box into the store; the task's result."""
    return _timed(_storing(order, ask, report).run)


def _storing(
    order: Order, ask: Ask, report: progress.Report | None, distrusted: frozenset[str] = frozenset()
) -> _Store | HubStore:
    """The route from the box into the kind of store that ``order`` names."""
    kind = HubStore if isinstance(order.location, HubLocation) else _Store
    return kind(order, ask, report, distrusted)


def fetch(order: Order, report: progress.Report | None = None) -> dict[str, Any]:
    """Bring the files of the store's manifest, or of ``order.manifest``, here; the task's result."""
    return _timed(_Fetch(order, report).run)


def through_store(order: Order, source: str, ask: Ask, report: progress.Report | None = None) -> dict[str, Any]:
    """Box to store to here, where the way between is too narrow: the hashes taken here are the proof of both halves.

    ``order`` is the one for :func:`fetch`, with its manifest; ``source`` is the folder on the box.
    """
    return _timed(lambda: _through_store(order, source, ask, report))


def missing_here(order: Order) -> list[RosterFile]:
    """The files of ``order.manifest`` that are not right in ``order.folder`` yet, by re-reading it."""
    files = manifest_of(order).files
    good = set(_survey_folder(order, files)["good"])
    return [file for file in files if file.path not in good]


def _timed(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    begun = time.monotonic()
    result = run()
    return dict(result, seconds=round(time.monotonic() - begun, 3))


def _through_store(order: Order, source: str, ask: Ask, report: progress.Report | None) -> dict[str, Any]:
    fetching = _Fetch(order, report)
    plan = fetching.plan(manifest_of(order))
    uri = order.location.uri
    if not plan.result["changed"]:
        return fetching.nothing_to_do(plan)
    if order.check_mode:
        return dict(plan.result, via=uri)
    sending = dataclasses.replace(order, folder=source, folder_root="", verify="", extra="report")
    result: dict[str, Any] = {}
    distrusted: frozenset[str] = frozenset()
    attempts = 0
    for left in range(order.resends, -1, -1):
        rest = max(0.0, fetching.deadline - time.monotonic())
        stored = _storing(dataclasses.replace(sending, deadline_s=rest), ask, report, distrusted).run()
        attempts += int(stored["attempts"])
        if stored.get("failed"):
            return dict(stored, attempts=attempts, via=uri)
        result = fetching.carry(plan, fetching.what_is_there()[1])
        distrusted = frozenset(entry["path"] for entry in result["mismatches"])
        if not (result.get("failed") and distrusted and left):
            break
    return dict(result, attempts=attempts + int(result["attempts"]), via=uri)


# --- box to store -------------------------------------------------------------------------------------------------


class _Store(StoringRoute):
    def __init__(
        self, order: Order, ask: Ask, report: progress.Report | None, distrusted: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(order, ask, report, distrusted)
        self.standing = Standing()
        self.unproven: list[StoredFile] = []
        self.record = object_store.ObjectsRecord()
        self.foreign: list[str] = []
        self.has_uploads_record = False

    def run(self) -> dict[str, Any]:
        saved = self._saved_manifest()
        listed = self.client.list_objects()
        self.has_uploads_record = object_store.UPLOADS_NAME in listed
        self._survey(listed)
        wanted = self._wanted()
        paths = {file.path for file in self.manifest.files} | set(object_store.OURS)
        extra = sorted(path for path in listed if path not in paths)
        self._refuse_extra(extra, self.order.location.uri)
        difference = self._difference(wanted, [], (saved, self.manifest.digest))
        if self.record.manifest_digest != self.manifest.digest or not self._is_recorded():
            difference.compare(object_store.OBJECTS_NAME, self.record.manifest_digest, self.manifest.digest)
        result = {
            "src": self.order.folder,
            "dest": self.order.location.uri,
            "direction": "store",
            **self._result(self.manifest, wanted, extra, difference),
            "unfinished_uploads": [],
        }
        if self.order.check_mode:
            return result
        if difference.changed:
            failed = self._deliver(wanted, bool(saved))
            if failed:
                return {**result, **failed}
        return {**result, **self._good()}

    def _survey(self, listed: Mapping[str, Listed]) -> None:
        """Which files are there already: by our record and the ETag, else by the store's own checksum; then proven."""
        try:
            self.record = object_store.read_objects(self.client)
        except roster.BadManifest:
            self.record = object_store.ObjectsRecord()
        there: dict[str, StoredFile] = {}
        unrecorded: list[RosterFile] = []
        for file in self.manifest.files:
            found, entry = listed.get(file.path), self.record.entries.get(file.path)
            if found is None or found.bytes != file.bytes or file.path in self.distrusted:
                continue
            if entry is not None and object_store.is_of(entry, file) and entry.etag == found.etag:
                there[file.path] = entry
            elif not object_parts.part_bytes_for(file.bytes, self.order.part_bytes):
                unrecorded.append(file)
        there.update(object_store.adopt(self.client, unrecorded, self.patience, self.order.connections))
        if self.order.verify and not self.order.check_mode:
            for mismatch in self._check(list(there.values())):
                del there[mismatch.path]
        self.standing.stored = there

    def _check(self, entries: Sequence[StoredFile]) -> list[Mismatch]:
        order = self.order
        return object_store.check_objects(self.client, entries, order.verify, self.patience, order.connections)

    def _is_recorded(self) -> bool:
        return dict(self.record.entries) == self.standing.stored

    def _wanted(self) -> list[RosterFile]:
        stored, wrong = self.standing.stored, self.standing.mismatches
        return [file for file in self.manifest.files if file.path not in stored and file.path not in wrong]

    def _deliver(self, wanted: Sequence[RosterFile], withdraw: bool) -> dict[str, Any]:
        """Send, prove, publish. Empty, or the result of a failure."""
        if wanted and withdraw:
            # While files are missing there is no manifest that says that all came.
            self.client.remove(roster.MANIFEST_NAME)
        failures = resends = 0
        reason = ""
        self.progress = progress.Progress(self.report, len(wanted), object_parts.total_bytes(wanted))
        self.progress_files, self.progress_bytes = len(self.standing.stored), 0
        while self._wanted():
            before = self._progress()
            reason = self._attempt(self._wanted())
            if reason:
                failures = 1 if self._progress() > before else failures + 1
                if self._again(failures):
                    continue
                break
            broken = self._prove()
            resends += 1
            if broken and resends > self.order.resends:
                self.standing.mismatches.update({mismatch.path: mismatch.what for mismatch in broken})
        self.progress.end()
        missing = self._missing()
        if missing:
            fix = (
                "See that the box and this controller can reach the store, then run the same task again: it continues"
                if reason
                else "Make the manifest again on the box, then run this task again"
            )
            return self._failed(missing, len(self.manifest.files), reason, self.standing.sent_bytes > 0, fix)
        self._publish()
        return {}

    def _progress(self) -> tuple[int, int]:
        return self.standing.sent_bytes, len(self.standing.stored)

    def _attempt(self, wanted: Sequence[RosterFile]) -> str:
        """Send what is wanted; the reason when not all came that may still come."""
        self.attempts += 1
        order = self.order
        means = Means(order.folder, self.deadline, order.connections, order.stall_timeout_s, order.part_bytes)
        known = set(self.standing.stored)
        sender = Sender(self.client, self.ask, means, self.standing, self._after_wave)
        try:
            sender.run(wanted)
        except Cut as cut:
            return cut.reason
        except TenantFailure as failure:
            if failure.kind != "unreachable":
                raise
            return failure.what
        finally:
            self.foreign = sorted(set(sender.foreign))
            self.unproven += [entry for path, entry in self.standing.stored.items() if path not in known]
        return ""

    def _after_wave(self, standing: Standing) -> None:
        self._write_record()
        files, sent = len(standing.stored) - self.progress_files, standing.sent_bytes - self.progress_bytes
        self.progress_files, self.progress_bytes = len(standing.stored), standing.sent_bytes
        self.progress.moved(sent)
        self.progress.landed(files)

    def _write_record(self) -> None:
        if not self._is_recorded() or self.record.manifest_digest != self.manifest.digest:
            self.record = object_store.write_objects(self.client, self.manifest, self.standing.stored.values())

    def _prove(self) -> list[Mismatch]:
        """Look at what came since the last time; what is not right there is to be sent again."""
        broken = self._check(self.unproven) if self.order.verify else []
        self.unproven = []
        for mismatch in broken:
            self.standing.stored.pop(mismatch.path, None)
        return broken

    def _missing(self) -> list[Mismatch]:
        wrong = [Mismatch(path, what) for path, what in sorted(self.standing.mismatches.items())]
        return wrong + [Mismatch(file.path, "did not arrive") for file in self._wanted()]

    def _publish(self) -> None:
        self._write_record()
        self.manifest_version = object_store.write_manifest(self.client, self.manifest)
        if self.has_uploads_record or self.standing.recorded_uploads:
            self.client.remove(object_store.UPLOADS_NAME)

    def _good(self) -> dict[str, Any]:
        uri, files = self.order.location.uri, self.manifest
        good = {"attempts": self.attempts, "wire_bytes": self.standing.sent_bytes, "unfinished_uploads": self.foreign}
        if not self.order.verify:
            return dict(good, msg=f"{len(files.files)} files ({files.total_bytes} bytes) sent to {uri}")
        how = "by SHA-256" if self.order.verify == object_store.REREAD else "by the provider's checksums"
        copy = object_store.as_copy(self.client, self.record, self.manifest_version, self.order.verify)
        msg = f"{len(files.files)} files ({files.total_bytes} bytes) verified {how} in {uri}"
        return dict(good, verified=True, copies=[copy], msg=msg)


# --- store to controller ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What a fetch is to bring, what it moves aside and what it keeps there, and the result so far."""

    manifest: Manifest
    wanted: Sequence[RosterFile]
    aside: Sequence[str]
    kept: tuple[RosterFile, ...]
    result: dict[str, Any]


class _Fetch(Route):
    def __init__(self, order: Order, report: progress.Report | None) -> None:
        super().__init__(order, report)
        self.arrived: set[str] = set()
        self.gone: list[Mismatch] = []
        self.wire_bytes = 0

    def run(self) -> dict[str, Any]:
        manifest, entries = self.what_is_there()
        plan = self.plan(manifest)
        if not plan.result["changed"]:
            return self.nothing_to_do(plan)
        return plan.result if self.order.check_mode else self.carry(plan, entries)

    def plan(self, manifest: Manifest) -> _Plan:
        """What is to come, once nothing speaks against it here."""
        survey = _survey_folder(self.order, manifest.files)
        good = set(survey["good"])
        wanted = [file for file in manifest.files if file.path not in good]
        extra = list(survey["extra"])
        self._refuse_extra(extra, self.order.folder)
        moves = self.order.extra == "quarantine"
        kept = snapshots.kept(self.order.folder, manifest, frozenset(extra)) if moves and extra else ()
        stay = {file.path for file in kept}
        aside = [path for path in extra if path not in stay] if moves else []
        difference = self._difference(wanted, aside, (self._saved_manifest(manifest), manifest.digest))
        self._refuse_room(wanted)
        ends = {"src": self.order.location.uri, "dest": self.order.folder, "direction": "fetch"}
        result = {**ends, **self._result(manifest, wanted, extra, difference)}
        return _Plan(manifest, wanted, aside, kept, result)

    def nothing_to_do(self, plan: _Plan) -> dict[str, Any]:
        return dict(plan.result, verified=True, msg=self._good_word(plan.manifest))

    def carry(self, plan: _Plan, entries: Mapping[str, StoredFile]) -> dict[str, Any]:
        """Bring what has not arrived yet."""
        self.gone = []
        wanted = [file for file in plan.wanted if file.path not in self.arrived]
        with destination.held(self.order.folder):
            return {**plan.result, **self._bring(plan, entries, wanted)}

    def what_is_there(self) -> tuple[Manifest, dict[str, StoredFile]]:
        """The manifest to keep, and the object of each of its files."""
        uri = self.order.location.uri
        try:
            beside, _version = object_store.read_manifest(self.client)
            manifest = self.order.manifest or beside
            entries, problems = stores.entries_of(self.client, manifest)
        except roster.BadManifest as error:
            fix = "Bring a run there with direction store, or name the prefix where it is"
            raise self._refusal("evidence_missing", str(error), fix) from error
        if manifest.digest != beside.digest:
            what = f"{uri} holds manifest {beside.digest}, not {manifest.digest}"
            raise self._refusal("evidence_missing", what, "Store this run there again, or name its own prefix")
        if problems:
            raise self._refusal("evidence_missing", "; ".join(problems[:_SHOWN]), "Store the run there again")
        return manifest, {entry.path: entry for entry in entries}

    def _saved_manifest(self, manifest: Manifest) -> str:
        try:
            saved = roster.read_manifest(self.order.folder)
        except roster.BadManifest:
            return ""
        return saved.digest if saved.record == manifest.record else "another manifest of these files"

    def _refuse_room(self, wanted: Sequence[RosterFile]) -> None:
        room = destination.room(self.order.folder, wanted, self.order.check_mode)
        problem = destination.room_problem(wanted, room, self.order.reserve_bytes)
        if problem:
            raise self._refusal("config", problem, "Free space there, or choose another destination")

    def _bring(self, plan: _Plan, entries: Mapping[str, StoredFile], wanted: Sequence[RosterFile]) -> dict[str, Any]:
        root, manifest = self.order.folder, plan.manifest
        self.wanted_bytes = object_parts.total_bytes(wanted)
        self.progress = progress.Progress(self.report, len(wanted), self.wanted_bytes)
        missing, reason = self._deliver(entries, wanted)
        self.progress.end()
        if missing:
            fix = (
                "See that this controller can reach the store, then run the same task again: it continues"
                if reason
                else "The store no longer has what was brought there: store the run again, then fetch it"
            )
            return self._failed(missing, len(manifest.files), reason, bool(self.arrived), fix)
        moved_to = delivery.quarantine(root, plan.aside) if plan.aside else ""
        delivery.close_staging(root)
        with snapshots.naming(root, manifest, plan.kept):
            records.write_record(os.path.join(root, roster.MANIFEST_NAME), "manifest", dict(manifest.record))
        return {
            "attempts": self.attempts,
            "wire_bytes": self.wire_bytes,
            "quarantine": moved_to,
            "verified": True,
            "msg": self._good_word(manifest),
        }

    def _deliver(self, entries: Mapping[str, StoredFile], wanted: Sequence[RosterFile]) -> tuple[list[Mismatch], str]:
        """(what did not arrive whole, why the last attempt ended early)."""
        resends = failures = 0
        pending = list(wanted)
        while pending:
            fetched, broken = self._attempt([entries[file.path] for file in pending], pending)
            gone = {mismatch.path for mismatch in fetched.missing}
            pending = [file for file in pending if file.path not in self.arrived and file.path not in gone]
            resends += bool(broken)
            failures = 1 if fetched.bytes else failures + 1
            tired = bool(fetched.reason) and not self._again(failures)
            if pending and (tired or resends > self.order.resends):
                late = {mismatch.path: mismatch.what for mismatch in broken}
                late_files = [Mismatch(file.path, late.get(file.path, "did not arrive")) for file in pending]
                return [*self.gone, *late_files], fetched.reason
        return self.gone, ""

    def _attempt(
        self, entries: Sequence[StoredFile], pending: Sequence[RosterFile]
    ) -> tuple[object_fetch.Download, list[Mismatch]]:
        """One download of everything pending; what came whole is put in its place."""
        root = self.order.folder
        self.attempts += 1
        whole = object_parts.total_bytes(pending)
        self.progress.begin(len(self.arrived), self.wanted_bytes - whole)
        staged = delivery.open_staging(root, pending)
        fetched = object_fetch.download(
            self.client, entries, staged, self.patience, self.order.connections, self.progress
        )
        self.wire_bytes += fetched.bytes
        self.gone += fetched.missing
        complete = [file for file in pending if file.path in fetched.complete]
        settled, broken = settling.settle(root, complete, fetched.evidence)
        self.progress.landed(len(settled))
        self.arrived |= set(settled)
        object_fetch.forget(staged, [mismatch.path for mismatch in broken])
        return fetched, broken

    def _good_word(self, manifest: Manifest) -> str:
        count, size = len(manifest.files), manifest.total_bytes
        return f"{count} files ({size} bytes) verified by SHA-256 in {self.order.folder}"


def _survey_folder(order: Order, files: Iterable[RosterFile]) -> dict[str, Any]:
    try:
        return delivery.answer_survey(order.folder, tuple(files), order.folder_root, dry=True)
    except (destination.BadDestination, delivery.UnsafeTree, OSError) as error:
        raise TenantFailure(
            "config",
            str(error),
            box=order.box,
            safe="Nothing was transferred or removed",
            fix="Choose a destination inside dest_root",
        ) from error

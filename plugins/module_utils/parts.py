# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Runs over several boxes: each box's share has a receipt of its own, and sharded files load only once all are home.

The shares of sharded files are put together in one folder (the whole) by reflink or hard link, loaded there as one,
and listed in a run manifest. Only then are the receipts of the parts complete. Any order, any number of times, and two
harvests at once come to the same end: whoever settles reads every receipt again, under one lock per run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import quote

from . import copies, delivery, load_checks, receipts, roster, settling
from .box import locks, records
from .box.names import inside
from .box.refusal import Refused
from .failures import TenantFailure
from .receipts import SHARDED, Claim, Outcome
from .state_store import BoxIdentity, StateStore

WHOLE = "whole"
# Whoever holds the lock may be loading a large checkpoint.
LOCK_WITHIN_S = 1800.0
_BUILDING = ".whole-"
# What the digest of a run manifest covers.
_COVERED = ("project", "run_id", "parts", "files")
_ATTEMPT = re.compile(r"(?P<cell>[^/]+)/a(?P<number>[0-9]+)/out/(?P<inner>.+)\Z", re.DOTALL)
_FICLONE = 0x40049409


class NotWhole(Exception):
    """The shares do not make one whole; the text says why."""


@dataclass(frozen=True)
class Part:
    """One box's share: its receipt, and the folder at home that the receipt speaks of."""

    receipt: Mapping[str, Any]
    root: str
    manifest: roster.Manifest

    @property
    def box(self) -> str:
        return self.manifest.box

    @property
    def identity(self) -> BoxIdentity:
        return BoxIdentity(
            self.manifest.project, self.box, self.manifest.generation, str(self.receipt.get("provider_id"))
        )

    @property
    def shards(self) -> list[roster.RosterFile]:
        return [file for file in self.manifest.files if file.loader in SHARDED]


@dataclass(frozen=True)
class Shard:
    """A file of the whole: where it lies in it, whose it is, and where it came from."""

    file: roster.RosterFile
    box: str
    source: str


def establish(store: StateStore, claim: Claim, whole_root: str, check_mode: bool = False) -> Outcome:
    """Like :func:`receipts.establish`, and then settle what the run's parts make together.

    :param whole_root: the folder at home for the whole.
    :raises TenantFailure: ``evidence_missing`` when all parts are home and do not load as one.
    """
    if not claim.spans:
        return receipts.establish(store, claim, check_mode)
    if WHOLE in claim.parts:
        raise _config(claim, f"a part of a sharded run cannot be called {WHOLE!r}", "Give that box another name")
    outcome = receipts.establish(store, claim, check_mode, before_withdrawal=lambda: _suspend(store, claim))
    with contextlib.nullcontext() if check_mode else _lock(store, claim):
        return _settle(store, claim, whole_root, outcome, check_mode)


def finished_receipt(store: StateStore, project: str, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The complete receipt of this very spec once it is home from every box that it names; None before."""
    receipt = store.finished_receipt(project, spec["id"], spec["spec_sha256"])
    if receipt is None or len(spec["parts"]) < 2:
        return receipt
    found = [records.read_record(path, "receipt") for path in store.receipts(project, spec["id"])]
    home = {
        one.get("box") for one in found if one.get("complete") is True and one.get("spec_sha256") == spec["spec_sha256"]
    }
    return receipt if home >= set(spec["parts"]) else None


def reread_whole(receipt: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """(load checks, problems) of the whole that a receipt names, hashed and loaded now; both empty without one."""
    whole = receipt.get("whole")
    if not isinstance(whole, Mapping):
        return [], []
    folder = copies.folder_of(str(whole.get("uri")))
    try:
        record = records.read_record(os.path.join(folder, roster.MANIFEST_NAME), "run-manifest")
        files = roster.parse_files(record["files"], "the run manifest")
        digest = records.digest({name: record[name] for name in _COVERED})
    except (records.RecordError, roster.BadManifest, KeyError) as error:
        return [], [f"the whole in {folder}: {error}"]
    if digest != whole.get("sha256"):
        return [], [f"the whole in {folder} is not what the receipt speaks of"]
    broken = [str(mismatch) for mismatch in settling.check_files(folder, files)]
    if broken:
        return [], [f"the whole in {folder}: {problem}" for problem in broken]
    checks = load_checks.check_roster(folder, [{"path": file.path, "loader": file.loader} for file in files])
    return checks, [f"{check['path']} {check['error']}" for check in checks if not check["ok"]]


def _config(claim: Claim, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=claim.identity.box, safe="No receipt was touched", fix=fix)


@contextlib.contextmanager
def _lock(store: StateStore, claim: Claim) -> Iterator[None]:
    path = store.path("receipts", claim.identity.project, claim.run_id, ".whole.lock")
    try:
        with locks.exclusive(path, LOCK_WITHIN_S, f"the whole of run {claim.run_id}"):
            yield
    except Refused as refused:
        raise TenantFailure(
            "lease_held",
            refused.what,
            box=claim.identity.box,
            safe="The receipts that are in force were not touched",
            fix="Wait for the other harvest of this run, then harvest again",
        ) from refused


# --- the receipts of the parts ------------------------------------------------------------------------------------


def _suspend(store: StateStore, claim: Claim) -> None:
    """A share is being verified anew, so no other part may go on saying that the whole is there."""
    with _lock(store, claim):
        for part in _home(store, claim):
            if part.box != claim.identity.box and part.receipt.get("complete") is True:
                _say(store, part, None, [receipts.waiting(claim.run_id, [claim.identity.box])], [claim.identity.box])


def _home(store: StateStore, claim: Claim) -> list[Part]:
    """The newest share of each part that is home for this very spec, in the order of the parts."""
    newest: dict[str, Part] = {}
    for path in store.receipts(claim.identity.project, claim.run_id):
        part = _read_part(path, claim)
        if part is not None and part.manifest.generation >= (
            newest[part.box].manifest.generation if part.box in newest else 0
        ):
            newest[part.box] = part
    return [newest[box] for box in claim.parts if box in newest]


def _read_part(path: str, claim: Claim) -> Part | None:
    """None for a receipt that does not count: damaged, of another spec, not home, or of files that changed since."""
    try:
        receipt = records.read_record(path, "receipt")
        folders = [copies.folder_of(str(copy.get("uri"))) for copy in receipt["copies"]]
        root = next(folder for folder in folders if folder)
        part = Part(receipt, root, roster.read_manifest(root))
    except (records.RecordError, roster.BadManifest, KeyError, TypeError, AttributeError, StopIteration):
        return None
    same = receipt.get("spec_sha256") == claim.manifest.record.get("spec_sha256")
    digest = receipt.get("manifest_digest") == part.manifest.digest
    return part if same and digest and receipt.get("home") is True else None


def _say(
    store: StateStore, part: Part, whole: Mapping[str, Any] | None, because: list[str], waits_for: list[str]
) -> bool:
    """Let a part's receipt say how the whole is; whether that is news."""
    says = {
        "complete": whole is not None,
        "incomplete_because": because,
        "waits_for": waits_for,
        "whole": None if whole is None else dict(whole),
    }
    if all(part.receipt.get(name) == value for name, value in says.items()):
        return False
    receipts.write(store, part.identity, {**part.receipt, **says})
    return True


def _settle(store: StateStore, claim: Claim, whole_root: str, outcome: Outcome, check_mode: bool) -> Outcome:
    """Make the receipts of all parts say how the whole is now."""
    found = _home(store, claim)
    missing = [box for box in claim.parts if box not in {part.box for part in found}]
    if check_mode:
        return _predict(claim, outcome, missing)
    if missing:
        said = [_say(store, part, None, [receipts.waiting(claim.run_id, missing)], missing) for part in found]
        return _after(store, claim, outcome, any(said))
    sharing = [part for part in found if part.shards]
    try:
        whole = _assemble(claim, sharing, whole_root)
    except NotWhole as problem:
        because = [f"the parts of run {claim.run_id} do not make a whole: {problem}"]
        for part in sharing:
            _say(store, part, None, because, [])
        raise TenantFailure(
            "evidence_missing",
            because[0],
            box=claim.identity.box,
            safe="Every part is home and its hashes are right; no box of the run can be destroyed as if it were whole",
            fix="Compare what the boxes wrote, harvest the part that is wrong again, or harvest an earlier checkpoint",
        ) from problem
    said = [_say(store, part, whole, [], []) for part in sharing]
    return _after(store, claim, outcome, any(said))


def _predict(claim: Claim, outcome: Outcome, missing: Sequence[str]) -> Outcome:
    """In check mode this share counts as home; the others are as they are."""
    still = [box for box in missing if box != claim.identity.box]
    known = outcome.receipt
    if not outcome.changed and bool(known.get("complete")) == (not still):
        return outcome
    because = [receipts.waiting(claim.run_id, still)] if still else []
    receipt = {**known, "complete": known["home"] and not still, "incomplete_because": because, "waits_for": still}
    return replace(outcome, changed=True, receipt=receipt, diff=receipts.difference(known, receipt).as_diff())


def _after(store: StateStore, claim: Claim, outcome: Outcome, news: bool) -> Outcome:
    """The outcome with the receipt as it now is on the disk."""
    now = receipts.read(store, claim.identity, claim.run_id) or outcome.receipt
    if not (outcome.changed or news):
        return replace(outcome, receipt=now)
    diff = receipts.difference(outcome.receipt, now).as_diff()
    merged = {side: {**outcome.diff.get(side, {}), **diff[side]} for side in ("before", "after")}
    return replace(outcome, changed=True, receipt=now, diff=merged)


# --- the whole ----------------------------------------------------------------------------------------------------


def _assemble(claim: Claim, sharing: Sequence[Part], whole_root: str) -> dict[str, Any]:
    """Put the shares together, load them as one, list them; what a receipt says of the whole.

    A standing whole of the same shares is kept when every byte that this part gave to it is right: each harvest looks
    after its own share, so that many boxes do not all hash all of it.
    """
    shards = _union(sharing)
    record = _run_manifest(claim, sharing, shards)
    with contextlib.suppress(records.RecordError):
        known = records.read_record_or_none(os.path.join(whole_root, roster.MANIFEST_NAME), "run-manifest") or {}
        same = all(known.get(name) == record[name] for name in ("digest", "level", "expect"))
        own = [shard.file for shard in shards if shard.box == claim.identity.box]
        if same and not settling.check_files(whole_root, own):
            return _said_of(known, whole_root)
    return _said_of(_build(claim, shards, record, whole_root), whole_root)


def _said_of(record: Mapping[str, Any], whole_root: str) -> dict[str, Any]:
    return {
        "uri": "file://" + quote(os.path.realpath(whole_root)),
        "sha256": record["digest"],
        **record["totals"],
        **{name: record[name] for name in ("level", "checks")},
    }


def _union(sharing: Sequence[Part]) -> list[Shard]:
    """Every share's sharded files under the path that all boxes know them by. NotWhole when two boxes disagree."""
    union: dict[str, Shard] = {}
    for part in sharing:
        for path, file in _common_paths(part.shards):
            shard = Shard(file._replace(path=path), part.box, inside(part.root, file.path))
            known = union.setdefault(path, shard)
            if (known.file.bytes, known.file.sha256) != (file.bytes, file.sha256):
                raise NotWhole(f"{path} has other bytes on {known.box} than on {part.box}")
    try:
        roster.parse_files([shard.file._asdict() for shard in union.values()], "the whole")
    except roster.BadManifest as error:
        raise NotWhole(str(error)) from error
    return [union[path] for path in sorted(union)]


def _common_paths(files: Sequence[roster.RosterFile]) -> Iterator[tuple[str, roster.RosterFile]]:
    """(path without the attempt, file): boxes number their attempts each by itself. The last attempt counts."""
    matches = [(_ATTEMPT.match(file.path), file) for file in files]
    last: dict[str, int] = {}
    for match, _file in matches:
        if match:
            last[match.group("cell")] = max(int(match.group("number")), last.get(match.group("cell"), 0))
    for match, file in matches:
        if match is None:
            yield file.path, file
        elif int(match.group("number")) == last[match.group("cell")]:
            yield f"{match.group('cell')}/{match.group('inner')}", file


def _run_manifest(claim: Claim, sharing: Sequence[Part], shards: Sequence[Shard]) -> dict[str, Any]:
    """The run manifest, less the checks. Its digest covers project, run, parts and files, and nothing else."""
    files = [{**shard.file.as_dict(), "loader": shard.file.loader, "part": shard.box} for shard in shards]
    parts = [dict(part.identity.as_dict(), manifest_digest=part.manifest.digest) for part in sharing]
    covered = dict(zip(_COVERED, (claim.identity.project, claim.run_id, parts, files)))
    return {
        **covered,
        "schema": records.schema("run-manifest"),
        "spec_sha256": claim.manifest.record.get("spec_sha256"),
        "totals": {"files": len(files), "bytes": sum(shard.file.bytes for shard in shards)},
        "level": claim.level,
        "expect": _expect_of_whole(claim),
        "digest": records.digest(covered),
    }


def _expect_of_whole(claim: Claim) -> dict[str, Any]:
    """Metrics are in files of the single parts, where they were looked for already."""
    return {name: value for name, value in claim.expect.items() if name != "metrics"}


def _build(claim: Claim, shards: Sequence[Shard], record: dict[str, Any], whole_root: str) -> dict[str, Any]:
    """Make the whole beside its place, load it there, and move it in only when it is right."""
    folder = os.path.dirname(whole_root)
    if os.path.islink(whole_root):
        raise NotWhole(f"{whole_root} is a symlink: remove it")
    for name in os.listdir(folder):
        if name.startswith(_BUILDING):
            # Left by a harvest that was killed; it held this lock, so nobody works in it.
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    building = tempfile.mkdtemp(prefix=_BUILDING, dir=folder)
    try:
        for shard in shards:
            _place(shard.source, os.path.join(building, shard.file.path))
        whole = dict(record, checks=_verified(claim, building, shards), verified_at=records.utc_now())
        records.write_record(os.path.join(building, roster.MANIFEST_NAME), "run-manifest", whole)
        delivery.flush(building)
        _put_aside(whole_root)
        os.rename(building, whole_root)
    except OSError as error:
        raise NotWhole(f"they could not be put together in {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    records.fsync_directory(folder)
    return whole


def _verified(claim: Claim, root: str, shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """Hashes and loads of the whole in ``root``. NotWhole, naming the files, when something is wrong."""
    broken = [str(mismatch) for mismatch in settling.check_files(root, [shard.file for shard in shards])]
    checks: list[dict[str, Any]] = []
    if not broken:
        loadable = [{"path": shard.file.path, "loader": shard.file.loader} for shard in shards]
        checks = load_checks.check_roster(root, loadable, claim.level, _expect_of_whole(claim))
        broken = [f"{check['path']} {check['error']}" for check in checks if not check["ok"]]
    if broken:
        raise NotWhole("; ".join(broken[:10]))
    return [dict(check) for check in checks]


def _place(source: str, target: str) -> None:
    """``source`` at ``target`` as cheaply as this filesystem can: shared blocks, another name, or a copy."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        _reflink(source, target)
        return
    except OSError:
        if os.path.lexists(target):
            os.unlink(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def _reflink(source: str, target: str) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(writer, _FICLONE, reader)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _put_aside(whole_root: str) -> None:
    """An older whole is kept under another name: nothing of a result is deleted here."""
    if not os.path.lexists(whole_root):
        return
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = os.path.join(os.path.dirname(whole_root), roster.QUARANTINE)
    os.makedirs(kept, mode=0o700, exist_ok=True)
    os.rename(whole_root, tempfile.mkdtemp(prefix=f"{WHOLE}-{stamp}-", dir=kept))

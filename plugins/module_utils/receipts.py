# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Receipts: the controller's record that a manifest came home, every hash matched and every checkpoint loaded.

The old receipt is withdrawn before a new verification starts, so a receipt on disk is never older than the last look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence
from urllib.parse import quote

from . import copies, delivery, load_checks, roster, settling
from .box import records
from .difference import DifferenceTracker
from .failures import TenantFailure
from .journal import Journal
from .ledger import fingerprint
from .state_store import BoxIdentity, StateStore

_SHOWN = 10
# Formats of which one box may hold a share only.
SHARDED = ("dcp", "hf")
# What stands for the state of a run that was not asked to stand still.
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class Claim:
    """What a receipt would say: this manifest's files lie in ``root`` and load at ``level``.

    ``run_state`` is the supervisor's word for the run; only a finished run's full manifest makes a receipt complete.
    ``copies`` are further ones, as the receipt names them. ``parts`` are all boxes of a run that works on several.
    ``not_pulled`` is what was left on the box: ``{files, bytes, listed}``.
    """

    identity: BoxIdentity
    root: str
    manifest: roster.Manifest
    run_state: str
    level: str = "load"
    expect: Mapping[str, Any] = field(default_factory=dict)
    how: str = "pulled"
    copies: Sequence[Mapping[str, Any]] = ()
    parts: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    not_pulled: Mapping[str, Any] = field(default_factory=dict)
    tool_version: str = "unknown"

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def uri(self) -> str:
        return "file://" + quote(os.path.realpath(self.root))

    @property
    def spans(self) -> bool:
        """Whether this is a share of sharded files, which load only together with the shares of other boxes."""
        return len(self.parts) > 1 and any(item.loader in SHARDED for item in self.manifest.files)


@dataclass(frozen=True)
class Verification:
    """What was found: broken promises, load checks, and files that nobody promised."""

    mismatches: tuple[roster.Mismatch, ...]
    checks: tuple[Mapping[str, Any], ...]
    extra: tuple[str, ...]
    copies: tuple[copies.CopyEvidence, ...] = ()

    @property
    def problems(self) -> list[str]:
        failed = [f"{check['path']} {check['error']}" for check in self.checks if not check["ok"]]
        elsewhere = [problem for copy in self.copies for problem in copy.problems]
        return [str(mismatch) for mismatch in self.mismatches] + failed + elsewhere


@dataclass(frozen=True)
class Outcome:
    changed: bool
    receipt: Mapping[str, Any]
    extra: tuple[str, ...]
    diff: Mapping[str, Any]


def establish(
    store: StateStore, claim: Claim, check_mode: bool = False, before_withdrawal: Callable[[], None] = lambda: None
) -> Outcome:
    """Make the receipt true: keep a valid one, else withdraw it, verify, and write a new one.

    :param before_withdrawal: called before the old receipt is put out of force.
    :raises TenantFailure: ``evidence_missing``, naming the files; the receipt is then withdrawn, not kept. ``config``
        for a snapshot with other files than the finished run, whose receipt stays.
    """
    _check_claim(claim)
    kept = standing(store, claim) or _of_finished(store, claim)
    if kept is not None:
        extra = tuple(roster.extra_files(claim.root, claim.manifest.files))
        return Outcome(False, kept, extra, DifferenceTracker().as_diff())
    before = read(store, claim.identity, claim.run_id) or {}
    if not check_mode:
        before_withdrawal()
        withdraw(store, claim.identity, claim.run_id)
    verification = verify(claim.root, claim.manifest, claim.level, claim.expect, spans=claim.spans)
    if not verification.mismatches:
        verification = replace(verification, copies=_reread_copies(store, claim))
    if verification.problems:
        raise _evidence_missing(claim, verification)
    receipt = compose(claim, verification)
    if not check_mode:
        _flush(claim)
        receipt = write(store, claim.identity, receipt)
    return Outcome(True, receipt, verification.extra, difference(before, receipt).as_diff())


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> DifferenceTracker:
    """What a receipt newly says, in a few values that fit a diff."""
    found = DifferenceTracker()
    for name in ("spec_sha256", "manifest_digest", "complete", "waits_for", "files", "bytes", "level", "verified_at"):
        found.compare(name, before.get(name), after.get(name))
    found.compare("copies", _uris(before), _uris(after))
    return found


def _uris(receipt: Mapping[str, Any]) -> list[str]:
    listed = receipt.get("copies")
    return [str(copy.get("uri")) for copy in listed if isinstance(copy, dict)] if isinstance(listed, list) else []


def withdraw(store: StateStore, identity: BoxIdentity, run_id: str) -> str:
    """Take a receipt out of force; returns where it lies now, empty when there was none."""
    path = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    withdrawn = path + ".withdrawn"
    Journal(store).check()
    try:
        os.replace(path, withdrawn)
    except FileNotFoundError:
        return ""
    records.fsync_directory(os.path.dirname(path))
    Journal(store).append("effect", "withdraw-receipt", run_id=run_id, **identity.as_dict())
    return withdrawn


def verify(
    root: str, manifest: roster.Manifest, level: str, expect: Mapping[str, Any], spans: bool = False
) -> Verification:
    """Re-hash every file of ``root`` against the manifest; if all are right, load every one that has a loader.

    :param spans: leave sharded files to be loaded together with the shares of other boxes.
    """
    mismatches = tuple(settling.check_files(root, manifest.files))
    extra = tuple(roster.extra_files(root, manifest.files))
    if mismatches:
        return Verification(mismatches, (), extra)
    left = ("none", *SHARDED) if spans else ("none",)
    loadable = [{"path": item.path, "loader": item.loader} for item in manifest.files if item.loader not in left]
    return Verification((), tuple(load_checks.check_roster(root, loadable, level, expect)), extra)


def _reread_copies(store: StateStore, claim: Claim) -> tuple[copies.CopyEvidence, ...]:
    """The further copies, read where they lie now; one that holds other files has a problem."""
    now = records.utc_now()
    found = [copies.reread(store, copy, claim.identity, now) for copy in claim.copies]
    return tuple(
        copy
        if copy.problems or copy.digest == claim.manifest.digest
        else replace(copy, problems=(f"the copy {copy.uri} holds other files than the manifest says",))
        for copy in found
    )


def compose(claim: Claim, verification: Verification) -> dict[str, Any]:
    """The receipt for a verification without problems."""
    because = _why_not_home(claim)
    now = records.utc_now()
    digest = claim.manifest.digest
    left = claim.not_pulled
    return dict(
        claim.identity.as_dict(),
        schema=records.schema("receipt"),
        run_id=claim.run_id,
        spec_sha256=claim.manifest.record.get("spec_sha256"),
        manifest_digest=digest,
        run_state=claim.run_state,
        snapshot=claim.manifest.snapshot,
        home=not because,
        # A share is complete only once the whole was loaded, which is settled after this (see ``parts``).
        complete=not because and not claim.spans,
        incomplete_because=because + ([waiting(claim.run_id, claim.parts)] if claim.spans else []),
        parts=list(claim.parts),
        waits_for=list(claim.parts) if claim.spans else [],
        whole=None,
        verified_at=now,
        level=claim.level,
        expect=dict(claim.expect),
        files=len(claim.manifest.files),
        bytes=claim.manifest.total_bytes,
        copies=[
            {"uri": claim.uri, "version_id": None, "sha256": digest, "how": claim.how, "at": now},
            *[{"version_id": None, "how": "reread", **copy, "sha256": digest, "at": now} for copy in claim.copies],
        ],
        checks=[dict(check) for check in verification.checks],
        extra=list(verification.extra),
        not_pulled=list(left.get("listed") or []),
        not_pulled_totals={"files": left.get("files", 0), "bytes": left.get("bytes", 0)},
        policy=claim.manifest.record.get("policy"),
        provenance=dict(claim.provenance),
        tool_version=claim.tool_version,
    )


def waiting(run_id: str, missing: Sequence[str]) -> str:
    return f"the sharded whole of run {run_id} waits for part(s) {', '.join(missing)}"


def _why_not_home(claim: Claim) -> list[str]:
    """What this box's own share lacks to be home; empty when nothing is missing."""
    because = []
    if claim.manifest.snapshot:
        because.append("the manifest is a snapshot of a live run")
    if claim.run_state != "done":
        because.append(f"the run is {claim.run_state}, not done")
    made_when = claim.manifest.record.get("state", "done")
    if made_when != "done":
        because.append(f"the manifest was made when the run was {made_when}")
    if not claim.manifest.files:
        because.append("the manifest lists no file")
    if claim.level == "structure" and any(item.loader != "none" for item in claim.manifest.files):
        because.append("the files were checked for structure only, not loaded")
    return because


def _check_claim(claim: Claim) -> None:
    identity, manifest = claim.identity, claim.manifest
    wanted = (identity.project, identity.box, identity.generation)
    if claim.parts and identity.box not in claim.parts:
        raise TenantFailure(
            "config",
            f"{identity.box} is not among the parts of run {claim.run_id}: {', '.join(claim.parts)}",
            box=identity.box,
            safe="No receipt was touched",
            fix="Name every box of the run in its spec (parts) or in harvest_parts",
        )
    if (manifest.project, manifest.box, manifest.generation) != wanted:
        raise TenantFailure(
            "config",
            f"the manifest is of {manifest.project}/{manifest.box} g{manifest.generation}, "
            f"not of {identity.project}/{identity.box} g{identity.generation}",
            box=identity.box,
            safe="No receipt was touched",
            fix="Give the manifest that was made on this box",
        )
    try:
        load_checks.validate_request(claim.level, claim.expect)
    except load_checks.BadExpectation as error:
        raise TenantFailure("config", str(error), box=identity.box, safe="No receipt was touched") from error


def read(store: StateStore, identity: BoxIdentity, run_id: str) -> dict[str, Any] | None:
    """The receipt on disk, None when absent or damaged: a damaged one is replaced like an old one."""
    path = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    try:
        return records.read_record_or_none(path, "receipt")
    except records.RecordError:
        return None


def standing(store: StateStore, claim: Claim) -> dict[str, Any] | None:
    """The receipt on disk if it says all that ``claim`` would, and its files still hash right."""
    receipt = read(store, claim.identity, claim.run_id)
    if receipt is None or not _says_the_same(receipt, claim):
        return None
    if settling.check_files(claim.root, claim.manifest.files):
        return None
    # A mount is read by another box at its own time, and the gate asks for a fresh reading of it.
    near = [copy for copy in claim.copies if not copies.tier_of_mount(str(copy.get("uri")))]
    return None if any(copy.problems for copy in _reread_copies(store, replace(claim, copies=near))) else receipt


def _of_finished(store: StateStore, claim: Claim) -> dict[str, Any] | None:
    """The receipt of the finished run, where the claim is of a snapshot of it: that cannot say more, and takes nothing
    out of force. None where there is no such receipt, or its files are not right any more."""
    of_snapshot = claim.manifest.snapshot or claim.run_state == SNAPSHOT
    receipt = read(store, claim.identity, claim.run_id) if of_snapshot else None
    same = {**claim.identity.as_dict(), "spec_sha256": claim.manifest.record.get("spec_sha256"), "home": True}
    if receipt is None or any(receipt.get(name) != value for name, value in same.items()):
        return None
    if receipt.get("manifest_digest") == claim.manifest.digest:
        return None if settling.check_files(claim.root, claim.manifest.files) else receipt
    raise TenantFailure(
        "config",
        f"run {claim.run_id} is finished and home, and this is a snapshot of it with other files",
        box=claim.identity.box,
        safe="The receipt of the finished run stays in force",
        fix="Harvest the run without harvest_snapshot: that compares all of it with what the box holds",
    )


def _says_the_same(receipt: Mapping[str, Any], claim: Claim) -> bool:
    """Whether the receipt says all that the claim would, times and the state of the whole aside."""
    would = compose(claim, Verification((), (), ()))
    names = [*claim.identity.as_dict(), "run_id", "manifest_digest", "run_state", "level", "expect", "home", "parts"]
    # The digest covers the files only: a spec with fewer cells may promise the very same ones.
    names += ["spec_sha256", "not_pulled", "not_pulled_totals", "policy"] + ([] if claim.spans else ["complete"])
    if any(receipt.get(name) != would[name] for name in names):
        return False
    listed = receipt.get("copies")
    return isinstance(listed, list) and _timeless(listed) == _timeless(would["copies"])


def _timeless(listed: Sequence[Any]) -> list[Any]:
    """Copies without when they were seen last. The results folder, which is the first, is as good reread as pulled."""
    aside = [("at", "how") if number == 0 else ("at",) for number in range(len(listed))]
    return [
        {key: copy[key] for key in copy if key not in names}
        for copy, names in zip(listed, aside)
        if isinstance(copy, dict)
    ]


def write(store: StateStore, identity: BoxIdentity, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Put a receipt in force, journalled; returns what was written."""
    path = store.receipt_path(identity.project, receipt["run_id"], identity.box, identity.generation)
    with Journal(store).effect("receipt", run_id=receipt["run_id"], **identity.as_dict()) as effect:
        records.write_record(path, "receipt", dict(receipt))
        # As every reader will see it: JSON has no tuples and no numbers for keys.
        written = records.read_record(path, "receipt")
        effect.details.update({name: written[name] for name in ("manifest_digest", "complete", "files", "bytes")})
        effect.details["sha256"] = fingerprint(written)
    return written


def _flush(claim: Claim) -> None:
    """The record says that the bytes are home, so they are on the disk before it is."""
    try:
        delivery.flush(claim.root)
    except OSError as error:
        raise TenantFailure(
            "evidence_missing",
            f"{claim.root} cannot be put on its disk for good: {error.strerror or error}",
            box=claim.identity.box,
            safe="The box and its files were not touched, and no receipt is in force",
            fix="Look after the disk of this machine, then harvest again",
        ) from error


def _evidence_missing(claim: Claim, verification: Verification) -> TenantFailure:
    problems = verification.problems
    shown = "; ".join(problems[:_SHOWN])
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return TenantFailure(
        "evidence_missing",
        f"the copy of run {claim.run_id} in {claim.root} is not what was promised: {shown}{more}",
        box=claim.identity.box,
        safe="The box and its files were not touched, and no receipt is in force",
        fix="Pull the run again with the harvest playbook",
    )

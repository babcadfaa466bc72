# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Receipts: the controller's record that a manifest came home, every hash matched and every checkpoint loaded.

The old receipt is withdrawn before a new verification starts, so a receipt on disk is never older than the last look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence
from urllib.parse import quote

from . import load_checks, roster
from .box import records
from .difference import DifferenceTracker
from .failures import TenantFailure
from .journal import Journal
from .state_store import BoxIdentity, StateStore

_SHOWN = 10


@dataclass(frozen=True)
class Claim:
    """What a receipt would say: this manifest's files lie in ``root`` and load at ``level``.

    ``run_state`` is the supervisor's word for the run; only a finished run's full manifest makes a receipt complete.
    """

    identity: BoxIdentity
    root: str
    manifest: roster.Manifest
    run_state: str
    level: str = "load"
    expect: Mapping[str, Any] = field(default_factory=dict)
    how: str = "pulled"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    not_pulled: Sequence[str] = ()
    tool_version: str = "unknown"

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def uri(self) -> str:
        return "file://" + quote(os.path.realpath(self.root))


@dataclass(frozen=True)
class Verification:
    """What was found: broken promises, load checks, and files that nobody promised."""

    mismatches: tuple[roster.Mismatch, ...]
    checks: tuple[Mapping[str, Any], ...]
    extra: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        failed = [f"{check['path']} {check['error']}" for check in self.checks if not check["ok"]]
        return [str(mismatch) for mismatch in self.mismatches] + failed


@dataclass(frozen=True)
class Outcome:
    changed: bool
    receipt: Mapping[str, Any]
    extra: tuple[str, ...]
    diff: Mapping[str, Any]


def establish(store: StateStore, claim: Claim, check_mode: bool = False) -> Outcome:
    """Make the receipt true: keep a valid one, else withdraw it, verify, and write a new one.

    :raises TenantFailure: ``evidence_missing``, naming the files; the receipt is then withdrawn, not kept.
    """
    _check_claim(claim)
    standing = _standing_receipt(store, claim)
    if standing is not None:
        extra = tuple(roster.extra_files(claim.root, claim.manifest.files))
        return Outcome(False, standing, extra, DifferenceTracker().as_diff())
    before = _readable(store, claim) or {}
    if not check_mode:
        withdraw(store, claim.identity, claim.run_id)
    verification = verify(claim.root, claim.manifest, claim.level, claim.expect)
    if verification.problems:
        raise _evidence_missing(claim, verification)
    receipt = compose(claim, verification)
    if not check_mode:
        receipt = _write(store, claim, receipt)
    difference = DifferenceTracker()
    for name in ("manifest_digest", "complete", "files", "bytes", "level"):
        difference.compare(name, before.get(name), receipt[name])
    difference.compare("verified_at", before.get("verified_at"), receipt["verified_at"])
    return Outcome(True, receipt, verification.extra, difference.as_diff())


def withdraw(store: StateStore, identity: BoxIdentity, run_id: str) -> str:
    """Take a receipt out of force; returns where it lies now, empty when there was none."""
    path = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    withdrawn = path + ".withdrawn"
    try:
        os.replace(path, withdrawn)
    except FileNotFoundError:
        return ""
    records.fsync_directory(os.path.dirname(path))
    Journal(store).append("effect", "withdraw-receipt", run_id=run_id, **identity.as_dict())
    return withdrawn


def verify(root: str, manifest: roster.Manifest, level: str, expect: Mapping[str, Any]) -> Verification:
    """Re-hash every file of ``root`` against the manifest; if all are right, load every one that has a loader."""
    mismatches = tuple(roster.check_files(root, manifest.files))
    extra = tuple(roster.extra_files(root, manifest.files))
    if mismatches:
        return Verification(mismatches, (), extra)
    loadable = [{"path": item.path, "loader": item.loader} for item in manifest.files if item.loader != "none"]
    return Verification((), tuple(load_checks.check_roster(root, loadable, level, expect)), extra)


def compose(claim: Claim, verification: Verification) -> dict[str, Any]:
    """The receipt for a verification without problems."""
    because = _why_incomplete(claim)
    now = records.utc_now()
    return dict(
        claim.identity.as_dict(),
        schema=records.schema("receipt"),
        run_id=claim.run_id,
        spec_sha256=claim.manifest.record.get("spec_sha256"),
        manifest_digest=claim.manifest.digest,
        run_state=claim.run_state,
        snapshot=claim.manifest.snapshot,
        complete=not because,
        incomplete_because=because,
        verified_at=now,
        level=claim.level,
        expect=dict(claim.expect),
        files=len(claim.manifest.files),
        bytes=claim.manifest.total_bytes,
        copies=[{"uri": claim.uri, "version_id": None, "sha256": claim.manifest.digest, "how": claim.how, "at": now}],
        checks=[dict(check) for check in verification.checks],
        extra=list(verification.extra),
        not_pulled=list(claim.not_pulled),
        provenance=dict(claim.provenance),
        tool_version=claim.tool_version,
    )


def _why_incomplete(claim: Claim) -> list[str]:
    """What keeps the receipt from letting the box go; empty when nothing does."""
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


def _readable(store: StateStore, claim: Claim) -> dict[str, Any] | None:
    """The receipt on disk, None when absent or damaged: a damaged one is replaced like an old one."""
    identity = claim.identity
    path = store.receipt_path(identity.project, claim.run_id, identity.box, identity.generation)
    try:
        return records.read_record_or_none(path, "receipt")
    except records.RecordError:
        return None


def _standing_receipt(store: StateStore, claim: Claim) -> dict[str, Any] | None:
    """The receipt on disk if it says all that ``claim`` would, and its files still hash right."""
    receipt = _readable(store, claim)
    if receipt is None:
        return None
    wanted = dict(
        claim.identity.as_dict(),
        run_id=claim.run_id,
        manifest_digest=claim.manifest.digest,
        complete=not _why_incomplete(claim),
        run_state=claim.run_state,
        level=claim.level,
        expect=dict(claim.expect),
    )
    if any(receipt.get(key) != value for key, value in wanted.items()):
        return None
    copies = receipt.get("copies")
    if not isinstance(copies, list) or [copy.get("uri") for copy in copies if isinstance(copy, dict)] != [claim.uri]:
        return None
    return None if roster.check_files(claim.root, claim.manifest.files) else receipt


def _write(store: StateStore, claim: Claim, receipt: dict[str, Any]) -> dict[str, Any]:
    identity = claim.identity
    path = store.receipt_path(identity.project, claim.run_id, identity.box, identity.generation)
    with Journal(store).effect("receipt", run_id=claim.run_id, **identity.as_dict()) as effect:
        written = records.write_record(path, "receipt", receipt)
        effect.details.update(
            manifest_digest=claim.manifest.digest,
            complete=written["complete"],
            files=written["files"],
            bytes=written["bytes"],
        )
    return written


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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The Iron Law: nothing irreversible unless the evidence is home.

:func:`gather` re-reads the evidence from disk, :func:`decide` judges it and touches nothing. Every irreversible verb
calls both itself, just before it acts; a result that a playbook passes along opens nothing.

It stops mistakes. It does not stop a person who holds the provider's key.
"""

from __future__ import annotations

import datetime
import glob
import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from . import approvals, roster
from .box import records
from .box.names import UnsafeName, check_name
from .state_store import BoxIdentity, StateStore

# A verb is gated unless it keeps every tier named here.
GATED_TIERS = ("disk",)
FRESH_SEAL_S = 300
CLOCK_SLACK_S = 60
# In these states nothing on the box can write, so a seal read earlier still holds.
STOPPED_STATES = ("stopped", "outbid", "exited")

RULE_KEEPS_DISK = "keeps_disk"
RULE_VIRGIN = "virgin"
RULE_EVIDENCE_HOME = "evidence_home"
RULE_STANDING = "standing_approval"
RULE_LOSS = "loss"
RULE_SUPERSEDED = "superseded"
RULE_REFUSED = "refused"


@dataclass(frozen=True)
class ProviderView:
    """What the provider says of the box now. Times are the provider's, UTC text.

    ``state`` is one of absent, loading, running, stopped, outbid, scheduling, exited, offline, unknown;
    ``started_at`` is the last known start, ``observed_at`` the ``Date`` of the answer.
    """

    state: str
    started_at: str | None
    observed_at: str


@dataclass(frozen=True)
class CopyEvidence:
    """One copy as re-read now: the digest of the manifest saved with it, and every broken promise."""

    uri: str
    digest: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceiptEvidence:
    path: str
    record: Mapping[str, Any] | None
    problem: str = ""
    copies: tuple[CopyEvidence, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything :func:`decide` looks at, as it was re-read at ``now``."""

    identity: BoxIdentity
    verb: str
    keeps: tuple[str, ...]
    provider: ProviderView
    now: str
    box_record: Mapping[str, Any] | None = None
    box_problem: str = ""
    reading: Mapping[str, Any] | None = None
    reading_problem: str = ""
    receipts: Mapping[str, ReceiptEvidence] = field(default_factory=dict)
    receipt_paths: tuple[str, ...] = ()
    approvals: tuple[approvals.LoadedApproval, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The evidence in a few plain values, for people and for a task's result."""
        return {
            "verb": self.verb,
            "keeps": list(self.keeps),
            "provider_state": self.provider.state,
            "seal_read_at": (self.reading or {}).get("read_at"),
            "live_cells": (self.reading or {}).get("live_cells"),
            "runs": {
                run_id: {
                    "receipt": receipt.path,
                    "complete": (receipt.record or {}).get("complete") is True,
                    "manifest_digest": (receipt.record or {}).get("manifest_digest"),
                    "copies": [copy.uri for copy in receipt.copies],
                    "problems": [receipt.problem] * bool(receipt.problem)
                    + [problem for copy in receipt.copies for problem in copy.problems],
                }
                for run_id, receipt in sorted(self.receipts.items())
            },
        }


@dataclass(frozen=True)
class Decision:
    """``missing`` lists, in words and with the fix, everything that keeps the gate shut."""

    allowed: bool
    rule: str
    missing: tuple[str, ...]
    approval_id: str | None


def gather(
    store: StateStore,
    identity: BoxIdentity,
    verb: str,
    keeps: Sequence[str],
    provider: ProviderView,
    now: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Evidence:
    """Re-read the evidence for ``verb`` on this box. Reads every byte of every copy; damaged records become problems.

    :param keeps: the tiers that survive the verb, from the profile (``["disk"]`` for a plain stop).
    :param now: UTC text; the present when None.
    :param reading: a seal reading made just now, in place of the stored one.
    """
    if isinstance(keeps, str):
        raise TypeError("keeps is a list of tiers, not one text")
    moment = now or records.utc_now()
    project, box, generation = identity.project, identity.box, identity.generation
    box_record, box_problem = _read(store.box_record_path(project, box, generation), "box")
    reading_problem = ""
    if reading is None:
        reading, reading_problem = _read(store.seal_path(project, box, generation), "seal-reading")
    # A verb that keeps the disk asks for no evidence, so it does not wait for a re-read of every byte.
    runs = [] if _keeps_every_tier(keeps) else _named_runs(reading)
    return Evidence(
        identity=identity,
        verb=verb,
        keeps=tuple(keeps),
        provider=provider,
        now=moment,
        box_record=box_record,
        box_problem=box_problem,
        reading=reading,
        reading_problem=reading_problem,
        receipts={run_id: _read_receipt(store, identity, run_id) for run_id in runs},
        receipt_paths=_receipt_paths(store, identity),
        approvals=approvals.load_all(store),
    )


def _read(path: str, name: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        return records.read_record_or_none(path, name), ""
    except records.RecordError as error:
        return None, str(error)


def _receipt_paths(store: StateStore, identity: BoxIdentity) -> tuple[str, ...]:
    """Receipts of whatever run for this box generation: proof that it was used."""
    folder = glob.escape(store.path("receipts", identity.project))
    return tuple(sorted(glob.glob(os.path.join(folder, "*", f"{identity.box}.g{identity.generation}.json"))))


def _read_receipt(store: StateStore, identity: BoxIdentity, run_id: str) -> ReceiptEvidence:
    path = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    record, problem = _read(path, "receipt")
    if record is None:
        return ReceiptEvidence(path, None, problem)
    listed = record.get("copies")
    uris = [copy.get("uri") for copy in listed if isinstance(copy, dict)] if isinstance(listed, list) else []
    return ReceiptEvidence(path, record, "", tuple(reread_copy(uri) for uri in uris))


def reread_copy(uri: object) -> CopyEvidence:
    """Hash every file of a copy where it lies, against the manifest saved with it."""
    text = str(uri)
    root = copy_folder(text)
    if not root:
        return CopyEvidence(text, "", (f"the copy {text} cannot be re-read from here; only file:// copies can",))
    try:
        manifest = roster.read_manifest(root)
    except roster.BadManifest as error:
        return CopyEvidence(text, "", (f"the copy in {root}: {error}",))
    broken = roster.check_files(root, manifest.files)
    return CopyEvidence(text, manifest.digest, tuple(f"{os.path.join(root, item.path)} {item.what}" for item in broken))


def copy_folder(uri: str) -> str:
    """The absolute folder of a ``file://`` URI; empty for anything else."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    folder = unquote(parts.path)
    return folder if parts.scheme == "file" and not parts.netloc and os.path.isabs(folder) else ""


def decide(evidence: Evidence) -> Decision:
    """Whether the verb may be done, by which rule, and what is missing. Pure: no clock, no disk, no network."""
    if _keeps_every_tier(evidence.keeps):
        return Decision(True, RULE_KEEPS_DISK, (), None)
    if not _why_not_virgin(evidence):
        return Decision(True, RULE_VIRGIN, (), None)
    missing = _seal_gaps(evidence) + _run_gaps(evidence)
    usable, refusals = _sort_approvals(evidence)
    if not missing:
        for approval_id, binds in usable:
            rule = _rule_of(binds, _sealed_digests(evidence))
            if rule:
                return Decision(True, rule, (), approval_id)
    for approval_id, binds in usable:
        if binds["kind"] == "loss":
            return Decision(True, RULE_LOSS, (), approval_id)
    return Decision(False, RULE_REFUSED, tuple(missing + _approval_gap(evidence, usable, refusals)), None)


def _keeps_every_tier(keeps: Iterable[str]) -> bool:
    kept = tuple(keeps)
    return all(tier in kept for tier in GATED_TIERS)


# --- exceptions ---------------------------------------------------------------------------------------------------


def _why_not_virgin(evidence: Evidence) -> str:
    """Why the box counts as used; empty when we created it and nothing was ever deployed on it."""
    record = evidence.box_record
    if record is None or evidence.box_problem or evidence.reading_problem:
        return "there is no readable record that we created it"
    if any(record.get(key) != value for key, value in evidence.identity.as_dict().items()):
        return "the record is of another machine"
    # A record rebuilt from the provider's list knows nothing of deploys and must not look virgin.
    if not isinstance(record.get("created_at"), str) or "deploy_started_at" not in record:
        return "the record does not say that we created it"
    if record["deploy_started_at"] is not None:
        return f"its deploy started at {record['deploy_started_at']}"
    if evidence.receipt_paths:
        return f"there is a receipt for it: {evidence.receipt_paths[0]}"
    return _why_reading_shows_use(evidence.reading)


def _why_reading_shows_use(reading: Mapping[str, Any] | None) -> str:
    if reading is None:
        return ""
    if reading.get("live_cells") or reading.get("unlisted_runs") or reading.get("problems"):
        return "there are cells, runs or damaged records on it"
    for name in ("index", "seal"):
        found = reading.get(name)
        if found is not None and not (isinstance(found, dict) and found.get("runs") == []):
            return f"its {name} names runs"
    return ""


# --- (a) the seal -------------------------------------------------------------------------------------------------


def _subject(evidence: Evidence) -> str:
    identity = evidence.identity
    return f"{identity.box} g{identity.generation} (provider id {identity.provider_id})"


def _seal_gaps(evidence: Evidence) -> list[str]:
    subject, reading = _subject(evidence), evidence.reading
    again = "run the harvest playbook: it seals the box and reads the seal"
    if evidence.reading_problem:
        return [f"{evidence.reading_problem}; delete that file and read the seal again ({again})"]
    if reading is None:
        return [f"no seal of {subject} was ever read: {again}"]
    if reading.get("schema") != records.schema("seal-reading"):
        return [f"the seal reading of {subject} is of an unknown version: {again}"]
    gaps = []
    if reading.get("reachable") is not True:
        gaps.append(f"the last seal reading of {subject} did not reach the box: {again}")
    if reading.get("provider_id") != evidence.identity.provider_id:
        gaps.append(f"the seal was read from provider id {reading.get('provider_id')!r}, not from {subject}: {again}")
    if any(reading.get(key, value) != value for key, value in evidence.identity.as_dict().items()):
        gaps.append(f"the seal reading says that it is of another box than {subject}: {again}")
    if reading.get("live_cells") != []:
        gaps.append(f"cells are live on {subject}: {reading.get('live_cells')!r}; stop or await them, then seal again")
    gaps += [f"{subject}: {problem}; repair or remove that file, then {again}" for problem in _problems(reading)]
    unlisted = reading.get("unlisted_runs", [])
    if unlisted != []:
        gaps.append(f"{subject} holds runs that its index does not list: {unlisted!r}; register or move them, {again}")
    gaps += _promise_gaps(evidence, "seal", again) + _promise_gaps(evidence, "index", again)
    return gaps + _age_gaps(evidence, again)


def _problems(reading: Mapping[str, Any]) -> list[str]:
    problems = reading.get("problems", [])
    return [str(problem) for problem in problems] if isinstance(problems, list) else ["its answer cannot be read"]


def _promise_gaps(evidence: Evidence, name: str, again: str) -> list[str]:
    """Whether ``seal`` or ``index`` is there, of a known version, of this very box, and has a readable list of runs."""
    subject, found = _subject(evidence), (evidence.reading or {}).get(name)
    if found is None and name == "seal":
        return [f"{subject} is not sealed, so a cell may still write: {again}"]
    if found is None:
        return [f"the index of {subject} was not read, so its runs are unknown: {again}"]
    if not isinstance(found, dict) or found.get("schema") != records.schema(name):
        return [f"the {name} of {subject} is of an unknown version or damaged: {again}"]
    wrong = [key for key, value in evidence.identity.as_dict().items() if found.get(key) != value]
    if wrong:
        return [f"the {name} read from {subject} belongs to another box ({', '.join(wrong)} differ): {again}"]
    if _runs(found) is None:
        return [f"the {name} of {subject} has no readable list of runs: {again}"]
    return []


def _age_gaps(evidence: Evidence, again: str) -> list[str]:
    """A seal holds while nothing can have started the box since it was read."""
    subject = _subject(evidence)
    now, read_at = _moment(evidence.now), _moment((evidence.reading or {}).get("read_at"))
    if now is None or read_at is None:
        return [f"the seal reading of {subject} has no readable time: {again}"]
    age = (now - read_at).total_seconds()
    if age < -CLOCK_SLACK_S:
        return [f"the seal reading of {subject} is {-age:.0f} s in the future: check the clock, then {again}"]
    if evidence.provider.state not in STOPPED_STATES:
        if age <= FRESH_SEAL_S:
            return []
        state = evidence.provider.state
        return [f"the box is {state} and its seal was read {age:.0f} s ago (at most {FRESH_SEAL_S} s): {again}"]
    return _restart_gaps(evidence, now, read_at, again)


def _restart_gaps(evidence: Evidence, now: datetime.datetime, read_at: datetime.datetime, again: str) -> list[str]:
    subject, view = _subject(evidence), evidence.provider
    observed = _moment(view.observed_at)
    if observed is None or abs((now - observed).total_seconds()) > FRESH_SEAL_S:
        return [f"the provider's view of {subject} is from {view.observed_at!r}: look at the provider again"]
    if view.started_at is None:
        return []
    started = _moment(view.started_at)
    if started is None:
        return [f"the provider's start time of {subject} cannot be read ({view.started_at!r}): look again"]
    # The provider's clock, moved onto ours by the age of its answer; staleness then counts against opening.
    if started + (now - observed) > read_at:
        return [f"{subject} was started at {view.started_at}, after its seal was read: {again}"]
    return []


def _moment(text: object) -> datetime.datetime | None:
    try:
        return records.parse_utc(text) if isinstance(text, str) else None
    except ValueError:
        return None


# --- (b) and (c) receipts and their copies ------------------------------------------------------------------------


def _runs(record: object) -> list[dict[str, Any]] | None:
    """The runs of a seal or an index; None when the list or one of its names cannot be read."""
    listed = record.get("runs") if isinstance(record, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(run, dict) for run in listed):
        return None
    try:
        names = [check_name("run", run.get("run_id")) for run in listed]
    except UnsafeName:
        return None
    return listed if len(set(names)) == len(names) else None


def _named_runs(reading: Mapping[str, Any] | None) -> list[str]:
    """Every run that the index or the seal names."""
    known = reading or {}
    return sorted({run["run_id"] for name in ("index", "seal") for run in _runs(known.get(name)) or []})


def _sealed_digests(evidence: Evidence) -> dict[str, str]:
    """{run_id: digest} as the seal carries it."""
    return {run["run_id"]: run.get("manifest_digest", "") for run in _runs((evidence.reading or {}).get("seal")) or []}


def _run_gaps(evidence: Evidence) -> list[str]:
    sealed = _sealed_digests(evidence)
    gaps: list[str] = []
    known = {run["run_id"] for run in _runs((evidence.reading or {}).get("index")) or []}
    for run_id in sorted(set(sealed) - known):
        gaps.append(f"run {run_id}: it is sealed, but the index does not list it; register it and seal the box again")
    for run_id in _named_runs(evidence.reading):
        digest = sealed.get(run_id)
        if not roster.is_sha256(digest):
            gaps.append(f"run {run_id}: the seal carries no manifest digest for it; harvest it and seal the box again")
            continue
        receipt = evidence.receipts.get(run_id)
        gaps += _receipt_gaps(evidence, run_id, str(digest), receipt)
    return gaps


def _receipt_gaps(evidence: Evidence, run_id: str, digest: str, receipt: ReceiptEvidence | None) -> list[str]:
    harvest = "harvest the run again"
    if receipt is None or (receipt.record is None and not receipt.problem):
        return [f"run {run_id}: there is no receipt, so its results are not known to be home; {harvest}"]
    if receipt.record is None:
        return [f"run {run_id}: {receipt.problem}; {harvest}"]
    record, where = receipt.record, f"run {run_id}: the receipt {receipt.path}"
    if record.get("schema") != records.schema("receipt"):
        return [f"{where} is of an unknown version; {harvest}"]
    wanted = dict(evidence.identity.as_dict(), run_id=run_id)
    wrong = [key for key, value in wanted.items() if record.get(key) != value]
    if wrong:
        return [f"{where} is for another {', '.join(wrong)}; {harvest}"]
    gaps = []
    if record.get("complete") is not True:
        gaps.append(f"{where} is not complete; {harvest} when it is done")
    if record.get("manifest_digest") != digest:
        gaps.append(f"{where} is for other files than the box sealed; {harvest}")
    return gaps + _check_gaps(record, where, harvest) + _copy_gaps(record, receipt, digest, where, harvest)


def _check_gaps(record: Mapping[str, Any], where: str, harvest: str) -> list[str]:
    checks = record.get("checks")
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return [f"{where} has no readable checks; {harvest}"]
    failed = [str(check.get("path")) for check in checks if check.get("ok") is not True]
    return [f"{where} says that {', '.join(failed)} did not load; {harvest}"] if failed else []


def _copy_gaps(record: Mapping[str, Any], receipt: ReceiptEvidence, digest: str, where: str, harvest: str) -> list[str]:
    """Every copy that the receipt names must have been re-read now, with the digest that the box sealed."""
    named = record.get("copies")
    if not isinstance(named, list) or not named or not all(isinstance(copy, dict) for copy in named):
        return [f"{where} names no copy; {harvest}"]
    reread = {copy.uri: copy for copy in receipt.copies}
    gaps: list[str] = []
    for uri in [str(copy.get("uri")) for copy in named]:
        copy = reread.get(uri)
        if copy is None:
            gaps.append(f"{where}: its copy {uri} was not re-read; {harvest}")
        elif copy.problems:
            gaps += [f"{where}: its copy is not whole: {problem}; {harvest}" for problem in copy.problems]
        elif copy.digest != digest:
            gaps.append(f"{where}: the copy {uri} holds other files than the box sealed; {harvest}")
    return gaps


# --- (d) the approval ---------------------------------------------------------------------------------------------


def _sort_approvals(evidence: Evidence) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    """(usable as (id, binds), oldest first; why each other one that was meant for this box and verb is not)."""
    usable, refusals = [], []
    for approval in evidence.approvals:
        why = approvals.why_unusable(approval, evidence.identity, evidence.verb, evidence.now)
        if not why and approval.record is not None:
            usable.append((approval.record["created_at"], approval.approval_id, approval.record["binds"]))
        elif approval.record is None or approvals.concerns(approval, evidence.identity, evidence.verb):
            refusals.append(why)
    return [(approval_id, binds) for _at, approval_id, binds in sorted(usable, key=lambda item: item[:2])], refusals


def _rule_of(binds: Mapping[str, Any], sealed: Mapping[str, str]) -> str:
    """The rule by which this approval opens when the evidence is whole; empty when it is bound to other evidence."""
    if binds["kind"] == "digest":
        return RULE_EVIDENCE_HOME if dict(binds["digests"]) == dict(sealed) else ""
    return RULE_STANDING if binds["kind"] == "complete_receipt" else ""


def _approval_gap(
    evidence: Evidence, usable: Iterable[tuple[str, Mapping[str, Any]]], refusals: Sequence[str]
) -> list[str]:
    bound_elsewhere = [
        f"approval {approval_id} is bound to other digests than the box sealed"
        for approval_id, binds in usable
        if not _rule_of(binds, _sealed_digests(evidence))
    ]
    if any(_rule_of(binds, _sealed_digests(evidence)) for _id, binds in usable):
        return []
    fix = "give one with gpu-tenant approve"
    reasons = [f"{reason}; {fix}" for reason in list(refusals) + bound_elsewhere]
    return reasons or [f"nobody approved {evidence.verb} of {_subject(evidence)}: {fix}"]

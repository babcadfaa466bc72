# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The Iron Law: nothing irreversible unless the evidence is home.

:func:`gather` re-reads the evidence from disk, :func:`decide` judges it and touches nothing. Every irreversible verb
calls both itself, just before it acts; a result that a playbook passes along opens nothing.

It stops mistakes. It does not stop a person who holds the provider's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from . import approvals, artifact_tiers, copies, losses, roster, standstill, supersession
from .box import records
from .copies import CopyEvidence
from .evidence import Evidence, ProviderView, ReceiptEvidence, gather, named_runs, runs_of
from .standstill import STOPPED_STATES

__all__ = [
    "STOPPED_STATES",
    "CopyEvidence",
    "Decision",
    "Evidence",
    "ProviderView",
    "ReceiptEvidence",
    "decide",
    "gather",
]

RULE_KEEPS_DISK = "keeps_disk"
RULE_VIRGIN = "virgin"
RULE_EVIDENCE_HOME = "evidence_home"
RULE_STANDING = "standing_approval"
RULE_SUPERSEDED = "superseded"
RULE_LOSS = "loss"
RULE_REFUSED = "refused"

_AGAIN = "run the harvest playbook: it seals the box and reads the seal"
_HARVEST = "harvest the run again"
_APPROVE = "give one with gpu-tenant approve"
# In these states nobody can ask the box, and waiting may not help.
_OUT_OF_REACH = ("offline", "unknown")


@dataclass(frozen=True)
class Decision:
    """``missing`` lists, in words and with the fix, everything that keeps the gate shut."""

    allowed: bool
    rule: str
    missing: tuple[str, ...]
    approval_id: str | None


def decide(evidence: Evidence) -> Decision:
    """Whether the verb may be done, by which rule, and what is missing. Pure: no clock, no disk, no network."""
    if artifact_tiers.keeps_every_artifact(evidence.keeps, evidence.gated_tiers):
        return Decision(True, RULE_KEEPS_DISK, (), None)
    if not why_not_virgin(evidence):
        return Decision(True, RULE_VIRGIN, (), None)
    missing = _seal_gaps(evidence) + _run_gaps(evidence) + list(evidence.sweep_gaps)
    usable, refusals = _sort_approvals(evidence)
    if not missing:
        for approval_id, binds in usable:
            rule = _rule_of(binds, _sealed_digests(evidence))
            if rule:
                return Decision(True, rule, (), approval_id)
    if not supersession.gaps(evidence):
        return Decision(True, RULE_SUPERSEDED, (), None)
    loss = losses.of(evidence)
    for approval_id, binds in usable:
        if not losses.growth(binds, loss):
            return Decision(True, RULE_LOSS, (), approval_id)
    missing += _superseded_gaps(evidence) + _reach_gaps(evidence, loss)
    return Decision(False, RULE_REFUSED, tuple(missing + _approval_gaps(evidence, loss, usable, refusals)), None)


# --- exceptions ---------------------------------------------------------------------------------------------------


def why_not_virgin(evidence: Evidence) -> str:
    """Why the box counts as used; empty when we created it and nothing was ever deployed on it."""
    record = evidence.box_record
    if record is None or evidence.box_problem or evidence.reading_problem or evidence.contact_problem:
        return "there is no readable record that we created it"
    if any(record.get(key) != value for key, value in evidence.identity.as_dict().items()):
        return "the record is of another machine"
    # A record rebuilt from the provider's list knows nothing of deploys and must not look virgin.
    if not isinstance(record.get("created_at"), str) or "deploy_started_at" not in record:
        return "the record does not say that we created it"
    if record["deploy_started_at"] is not None:
        return f"its deploy started at {record['deploy_started_at']}"
    if evidence.was_deployed:
        return "the journal says that a deploy started on it"
    if evidence.receipt_paths:
        return f"there is a receipt for it: {evidence.receipt_paths[0]}"
    if evidence.contact:
        return f"runs were seen on it: {', '.join(sorted(evidence.contact))}"
    return _why_reading_shows_use(evidence.reading)


def _why_reading_shows_use(reading: Mapping[str, Any] | None) -> str:
    if reading is None:
        return ""
    if any(reading.get(name) for name in ("live_cells", "unlisted_runs", "checkpoints", "problems")):
        return "there are cells, runs or damaged records on it"
    for name in ("index", "seal"):
        found = reading.get(name)
        if found is not None and not (isinstance(found, dict) and found.get("runs") == []):
            return f"its {name} names runs"
    return ""


def _superseded_gaps(evidence: Evidence) -> list[str]:
    """Why a superseded box may not go by itself, and by when somebody has to see to it."""
    policy = supersession.policy(evidence)
    return [f"{policy}; it may not go by itself: {'; '.join(supersession.gaps(evidence))}"] if policy else []


def _reach_gaps(evidence: Evidence, loss: losses.Loss) -> list[str]:
    """For a box that cannot be asked: what there is without it, and the only way on."""
    if evidence.provider.state not in _OUT_OF_REACH:
        return []
    fix = f"wait for its host; or consent to exactly this loss: {_consent_words(evidence)}"
    lost = "; ".join(loss.words())
    return [f"{evidence.subject} is {evidence.provider.state}: nobody can ask it; lost with it would be {lost}: {fix}"]


def _consent_words(evidence: Evidence) -> str:
    identity = evidence.identity
    return f"gpu-tenant approve {evidence.verb} {identity.box} --generation {identity.generation} --loss"


# --- (a) the seal -------------------------------------------------------------------------------------------------


def _seal_gaps(evidence: Evidence) -> list[str]:
    subject, reading = evidence.subject, evidence.reading
    if evidence.reading_problem:
        return [f"{evidence.reading_problem}; delete that file and read the seal again ({_AGAIN})"]
    if reading is None:
        return [f"no seal of {subject} was ever read: {_AGAIN}"]
    if reading.get("schema") != records.schema("seal-reading"):
        return [f"the seal reading of {subject} is of an unknown version: {_AGAIN}"]
    gaps = []
    if reading.get("reachable") is not True:
        gaps.append(f"the last seal reading of {subject} did not reach the box: {_AGAIN}")
    wrong = [
        f"{key} {reading.get(key)!r}" for key, value in evidence.identity.as_dict().items() if reading.get(key) != value
    ]
    if wrong:
        gaps.append(f"the seal was read from another box ({', '.join(wrong)}) than {subject}: {_AGAIN}")
    if reading.get("live_cells") != []:
        gaps.append(f"cells are live on {subject}: {reading.get('live_cells')!r}; stop or await them, then seal again")
    why = f"find out why, take the seal back (unseal), then {_AGAIN}"
    gaps += [f"{subject}: {problem}; {why}" for problem in _problems(reading)]
    unlisted = reading.get("unlisted_runs", [])
    if unlisted != []:
        gaps.append(f"{subject} holds runs that its index does not list: {unlisted!r}; register or move them, {_AGAIN}")
    gaps += _promise_gaps(evidence, "seal") + _promise_gaps(evidence, "index")
    moved = standstill.why_not_still(evidence)
    return gaps + ([f"{subject}: {moved}: {_look_again(evidence)}"] if moved else [])


def _look_again(evidence: Evidence) -> str:
    """How a seal is read that counts: a box at rest cannot be asked."""
    if evidence.provider.state not in STOPPED_STATES:
        return _AGAIN
    return (
        "start it (provision playbook) and harvest it again; or harvest it at rest (harvest_via); or consent to its "
        f"loss: {_consent_words(evidence)}"
    )


def _problems(reading: Mapping[str, Any]) -> list[str]:
    problems = reading.get("problems", [])
    return [str(problem) for problem in problems] if isinstance(problems, list) else ["its answer cannot be read"]


def _promise_gaps(evidence: Evidence, name: str) -> list[str]:
    """Whether ``seal`` or ``index`` is there, of a known version, of this very box, and has a readable list of runs."""
    subject, found = evidence.subject, evidence.seen.get(name)
    if found is None and name == "seal":
        return [f"{subject} is not sealed, so a cell may still write: {_AGAIN}"]
    if found is None:
        return [f"the index of {subject} was not read, so its runs are unknown: {_AGAIN}"]
    if not isinstance(found, dict) or found.get("schema") != records.schema(name):
        return [f"the {name} of {subject} is of an unknown version or damaged: {_AGAIN}"]
    wrong = [key for key, value in evidence.identity.as_dict().items() if found.get(key) != value]
    if wrong:
        return [f"the {name} read from {subject} belongs to another box ({', '.join(wrong)} differ): {_AGAIN}"]
    if runs_of(found) is None:
        return [f"the {name} of {subject} has no readable list of runs: {_AGAIN}"]
    return []


# --- (b) and (c) receipts and their copies ------------------------------------------------------------------------


def _sealed_digests(evidence: Evidence) -> dict[str, str]:
    """{run_id: digest} as the seal carries it."""
    sealed = runs_of(evidence.seen.get("seal")) or []
    return {run["run_id"]: run.get("manifest_digest", "") for run in sealed}


def _run_gaps(evidence: Evidence) -> list[str]:
    sealed = _sealed_digests(evidence)
    known = {run["run_id"] for run in runs_of(evidence.seen.get("index")) or []}
    gaps = [
        f"run {run_id}: it is sealed, but the index does not list it; register it and seal the box again"
        for run_id in sorted(set(sealed) - known)
    ]
    for run_id in sorted({*named_runs(evidence.reading), *evidence.contact}):
        digest = sealed.get(run_id)
        if not roster.is_sha256(digest):
            gaps.append(f"run {run_id}: the seal carries no manifest digest for it; harvest it and seal the box again")
            continue
        gaps += _receipt_gaps(evidence, run_id, str(digest), evidence.receipts.get(run_id))
    return gaps


def _receipt_gaps(evidence: Evidence, run_id: str, digest: str, receipt: ReceiptEvidence | None) -> list[str]:
    if receipt is None or (receipt.record is None and not receipt.problem):
        return [f"run {run_id}: there is no receipt, so its results are not known to be home; {_HARVEST}"]
    untrusted = [f"run {run_id}: {receipt.problem}; {_HARVEST}"] if receipt.problem else []
    if receipt.record is None:
        return untrusted
    record, where = receipt.record, f"run {run_id}: the receipt {receipt.path}"
    if record.get("schema") != records.schema("receipt"):
        return [*untrusted, f"{where} is of an unknown version; {_HARVEST}"]
    wanted = dict(evidence.identity.as_dict(), run_id=run_id)
    wrong = [key for key, value in wanted.items() if record.get(key) != value]
    if wrong:
        return [*untrusted, f"{where} is for another {', '.join(wrong)}; {_HARVEST}"]
    gaps = untrusted + _completeness_gaps(record, where)
    if record.get("manifest_digest") != digest:
        gaps.append(f"{where} is for other files than the box sealed; {_HARVEST}")
    gaps += _part_gaps(evidence, record, where)
    return gaps + _check_gaps(record, where) + _copy_gaps(evidence, record, receipt, digest, where)


def _completeness_gaps(record: Mapping[str, Any], where: str) -> list[str]:
    reasons = record.get("incomplete_because", [])
    if record.get("complete") is True and reasons == []:
        return []
    told = f" ({'; '.join(str(reason) for reason in reasons)})" if isinstance(reasons, list) and reasons else ""
    return [f"{where} is not complete{told}; {_HARVEST} when it is done"]


def _part_gaps(evidence: Evidence, record: Mapping[str, Any], where: str) -> list[str]:
    """A run over several boxes: this box must be one of its parts, and no share may be waited for."""
    parts, waits_for = record.get("parts", []), record.get("waits_for", [])
    gaps = []
    if parts != [] and not (isinstance(parts, list) and evidence.identity.box in parts):
        gaps.append(f"{where} does not name this box among the parts of the run; {_HARVEST}")
    if waits_for != []:
        gaps.append(f"{where} waits for other parts of the run ({waits_for!r}); harvest them, then this one again")
    return gaps


def _check_gaps(record: Mapping[str, Any], where: str) -> list[str]:
    checks = record.get("checks")
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return [f"{where} has no readable checks; {_HARVEST}"]
    failed = [str(check.get("path")) for check in checks if check.get("ok") is not True]
    return [f"{where} says that {', '.join(failed)} did not load; {_HARVEST}"] if failed else []


def _copy_gaps(
    evidence: Evidence, record: Mapping[str, Any], receipt: ReceiptEvidence, digest: str, where: str
) -> list[str]:
    """Every copy that the receipt names must be whole now, with the digest that the box sealed; one must survive."""
    named = record.get("copies")
    if not isinstance(named, list) or not named or not all(isinstance(copy, dict) for copy in named):
        return [f"{where} names no copy; {_HARVEST}"]
    reread = {copy.uri: copy for copy in receipt.copies}
    gaps: list[str] = []
    for uri in [str(copy.get("uri")) for copy in named]:
        copy = reread.get(uri)
        if copy is None:
            gaps.append(f"{where}: its copy {uri} was not re-read; {_HARVEST}")
        else:
            gaps += _whole_gaps(copy, digest, evidence.seen, where)
    if not any(copies.survives(copy, evidence.keeps) for copy in receipt.copies):
        gaps.append(f"{where}: {evidence.verb} would take every copy with it; bring one elsewhere and {_HARVEST}")
    return gaps


def _whole_gaps(copy: CopyEvidence, digest: str, reading: Mapping[str, Any], where: str) -> list[str]:
    if copy.problems:
        return [f"{where}: its copy is not whole: {problem}; {_HARVEST}" for problem in copy.problems]
    if copy.digest != digest:
        return [f"{where}: the copy {copy.uri} holds other files than the box sealed; {_HARVEST}"]
    why = copies.why_not_independent(copy, reading)
    return [f"{where}: {why}; read it again from another box or after a fresh mount"] if why else []


# --- (d) the approval ---------------------------------------------------------------------------------------------

_Usable = Sequence["tuple[str, Mapping[str, Any]]"]


def _sort_approvals(evidence: Evidence) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    """(usable as (id, binds), oldest first; why each other one that was meant for this box and verb is not)."""
    usable, refusals = [], []
    for approval in evidence.approvals:
        why = approvals.why_unusable(approval, evidence.identity, evidence.verb, evidence.now)
        if approval.record is None:
            refusals.append(why)
        elif not why:
            usable.append((approval.record["created_at"], approval.approval_id, approval.record["binds"]))
        elif approvals.concerns(approval.record, evidence.identity, evidence.verb):
            refusals.append(why)
    return [(approval_id, binds) for _at, approval_id, binds in sorted(usable, key=lambda item: item[0])], refusals


def _rule_of(binds: Mapping[str, Any], sealed: Mapping[str, str]) -> str:
    """The rule by which this approval opens when the evidence is whole; empty when it is bound to other evidence."""
    if binds["kind"] == "digest":
        return RULE_EVIDENCE_HOME if dict(binds["digests"]) == dict(sealed) else ""
    return RULE_STANDING if binds["kind"] == "complete_receipt" else ""


def _approval_gaps(evidence: Evidence, loss: losses.Loss, usable: _Usable, refusals: Iterable[str]) -> list[str]:
    sealed = _sealed_digests(evidence)
    if any(_rule_of(binds, sealed) for _id, binds in usable):
        return []
    reasons = [f"{reason}; {_APPROVE}" for reason in refusals]
    for approval_id, binds in usable:
        if binds["kind"] == "loss":
            more = "; ".join(losses.growth(binds, loss))
            reasons.append(f"approval {approval_id} consented to a smaller loss: {more}; {_APPROVE}")
        else:
            reasons.append(f"approval {approval_id} is bound to other digests than the box sealed; {_APPROVE}")
    return reasons or [f"nobody approved {evidence.verb} of {evidence.subject}: {_APPROVE}"]

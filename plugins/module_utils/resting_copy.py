# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The copied records of a box at rest: what the provider copied from a stopped box to another box of ours.

While the provider says that a box rests, nothing on it can write, so what was copied is all that there is. That word
stands in for the supervisor's promise: where the box was never sealed, the copy is. This is the controller's part.
"""

from __future__ import annotations

from typing import Any, Mapping

from . import gate, roster, seal_reading
from .box import records
from .copied_records import COPY_AGAIN, SAFE
from .evidence import named_runs, runs_of
from .failures import TenantFailure
from .state_store import BoxIdentity, StateStore

RECORD = "provider-copy"


def record_path(store: StateStore, identity: BoxIdentity) -> str:
    return store.path("provider-copies", identity.project, identity.box, f"g{identity.generation}.json")


def save_record(store: StateStore, identity: BoxIdentity, **facts: Any) -> dict[str, Any]:
    """Keep that this box was copied: where to, when it was asked for, and that it rested all the while."""
    return records.write_record(record_path(store, identity), RECORD, dict(facts, **identity.as_dict()))


def read_record(store: StateStore, identity: BoxIdentity, tenant_root: str) -> dict[str, Any]:
    """The record of the copy at ``tenant_root``. TenantFailure when this very box was not copied there at rest."""
    known = records.read_record_or_none(record_path(store, identity), RECORD)
    wanted = dict(identity.as_dict(), dest_path=tenant_root.rstrip("/"), at_rest=True)
    wrong = [key for key, value in wanted.items() if known is None or known.get(key) != value]
    if known is None or wrong:
        what = "no copy of it is on record" if known is None else f"its copy on record differs in {', '.join(wrong)}"
        raise _missing(identity, f"{what}, so {tenant_root} proves nothing about it")
    return known


def reading_of(identity: BoxIdentity, record: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """The seal reading of the box at rest. It is as old as the request for the copy, and says what it was read from."""
    reading = seal_reading.as_record(identity, str(record["asked_at"]), answer)
    for name in ("index", "seal"):
        found = reading.get(name)
        wrong = [key for key, value in identity.as_dict().items() if not found or found.get(key) != value]
        if wrong:
            raise _missing(identity, f"the copied {name} is of another box: {', '.join(wrong)} differ")
    facts = {key: record.get(key) for key in ("dest", "dest_provider_id", "dest_path", "asked_at", "copied_at")}
    made = bool((reading["seal"] or {}).get("made_of"))
    return dict(reading, at_rest=dict(facts, sealed_by="controller" if made else "supervisor"))


def runs_not_home(evidence: gate.Evidence) -> list[str]:
    """Why each run that the copy holds, or that was ever seen on its box, is not home; empty when deleting the copy
    loses nothing.

    The box's own seal may be older than a run of it, so not only what that lists is asked for.
    """
    sealed = {run["run_id"]: run.get("manifest_digest") for run in runs_of(evidence.seen.get("seal")) or []}
    unlisted = evidence.seen.get("unlisted_runs")
    if not isinstance(unlisted, list):
        return ["which runs it holds cannot be told: its unlisted_runs cannot be read"]
    runs = {*named_runs(evidence.reading), *evidence.contact, *(str(run_id) for run_id in unlisted)}
    return [
        f"run {run_id}: {why}"
        for run_id in sorted(runs)
        for why in [_why_not_home(evidence.receipts.get(run_id), sealed.get(run_id))]
        if why
    ]


def _why_not_home(receipt: gate.ReceiptEvidence | None, digest: object) -> str:
    if not roster.is_sha256(digest):
        return "its seal carries no manifest digest for it, so nothing says which files of it must be home"
    if receipt is None or receipt.record is None or receipt.problem:
        return (receipt.problem if receipt else "") or "there is no receipt for it"
    if receipt.record.get("manifest_digest") != digest:
        return "its receipt is for other files"
    if not receipt.copies:
        return "its receipt names no copy"
    problems = [problem for copy in receipt.copies for problem in copy.problems]
    if problems:
        return f"its copy at home is not whole: {problems[0]}"
    return "" if all(copy.digest == digest for copy in receipt.copies) else "its copy at home holds other files"


def _missing(identity: BoxIdentity, what: str) -> TenantFailure:
    return TenantFailure("evidence_missing", what, box=identity.box, safe=SAFE, fix=COPY_AGAIN)

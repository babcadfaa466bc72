# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The evidence that the gate judges, gathered from disk just before a verb. Nothing is taken from a playbook.

Damaged records become problems of the evidence, never exceptions: what cannot be read keeps the gate shut.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from . import approvals, artifact_tiers, copies, home_contents, last_contact, sweeps
from .box import records
from .box.names import UnsafeName, check_name
from .copies import CopyEvidence
from .home_contents import Contents
from .journal import Journal
from .last_contact import Reached
from .ledger import Ledger
from .state_store import BoxIdentity, StateStore


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
class ReceiptEvidence:
    """A receipt and its copies, re-read; ``problem`` is why the record itself cannot be trusted."""

    path: str
    record: Mapping[str, Any] | None
    problem: str = ""
    copies: tuple[CopyEvidence, ...] = ()
    contents: Contents = field(default_factory=Contents)


@dataclass(frozen=True)
class Evidence:
    """Everything that the decision looks at, as it was re-read at ``now``.

    ``receipts`` are this box generation's own, by run; ``elsewhere`` are those of the same runs on other boxes and
    generations, read when the own ones may not suffice. ``contact`` is how far the runs were last known to be.
    ``was_deployed`` is the journal's word, for a box record that was edited or put back does not say it.
    """

    identity: BoxIdentity
    verb: str
    keeps: tuple[str, ...]
    provider: ProviderView
    now: str
    gated_tiers: tuple[str, ...] = (artifact_tiers.DATA_TIER,)
    box_record: Mapping[str, Any] | None = None
    box_problem: str = ""
    was_deployed: bool = False
    newer: Mapping[str, Any] | None = None
    reading: Mapping[str, Any] | None = None
    reading_problem: str = ""
    contact: Mapping[str, Mapping[str, Reached]] = field(default_factory=dict)
    contact_problem: str = ""
    receipts: Mapping[str, ReceiptEvidence] = field(default_factory=dict)
    receipt_paths: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[ReceiptEvidence, ...]] = field(default_factory=dict)
    approvals: tuple[approvals.LoadedApproval, ...] = ()
    # Of sweeps that this box holds a share of: what keeps them from being whole.
    sweep_gaps: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        identity = self.identity
        return f"{identity.box} g{identity.generation} (provider id {identity.provider_id})"

    @property
    def seen(self) -> Mapping[str, Any]:
        """The reading, empty without one."""
        return self.reading or {}

    def summary(self) -> dict[str, Any]:
        """The evidence in a few plain values, for people and for a task's result."""
        return {
            "verb": self.verb,
            "keeps": list(self.keeps),
            "gated_tiers": list(self.gated_tiers),
            "provider_state": self.provider.state,
            "seal_read_at": self.seen.get("read_at"),
            "live_cells": self.seen.get("live_cells"),
            "superseded_by": (self.newer or {}).get("generation"),
            "runs": {run_id: _summary_of(receipt) for run_id, receipt in sorted(self.receipts.items())},
        }


def _summary_of(receipt: ReceiptEvidence) -> dict[str, Any]:
    record = receipt.record or {}
    problems = [receipt.problem] if receipt.problem else []
    return {
        "receipt": receipt.path,
        "complete": record.get("complete") is True,
        "manifest_digest": record.get("manifest_digest"),
        "copies": [copy.uri for copy in receipt.copies],
        "problems": problems + [problem for copy in receipt.copies for problem in copy.problems],
    }


def gather(
    store: StateStore,
    identity: BoxIdentity,
    verb: str,
    keeps: Sequence[str],
    provider: ProviderView,
    now: str | None = None,
    reading: Mapping[str, Any] | None = None,
    gated_tiers: Sequence[str] = (),
) -> Evidence:
    """Re-read the evidence for ``verb`` on this box. Reads every byte of every copy; damaged records become problems.

    :param keeps: the tiers that survive the verb, from the profile (``["disk"]`` for a plain stop).
    :param now: UTC text; the present when None.
    :param reading: a seal reading made just now, in place of the stored one.
    :param gated_tiers: tiers that may hold artifacts besides the data tier; see ``artifact_tiers``.
    """
    if isinstance(keeps, str):
        raise TypeError("keeps is a list of tiers, not one text")
    moment = now or records.utc_now()
    tiers = tuple(sorted({artifact_tiers.DATA_TIER, *gated_tiers}))
    ledger = Ledger(Journal(store).lines())
    place = (identity.project, identity.box, identity.generation)
    box_record, box_problem = _read(store.box_record_path(*place), "box")
    stored_reading, reading_problem = (reading, "") if reading is not None else _stored_reading(store, identity, ledger)
    contact, contact_problem = _contact(store, identity)
    paths = tuple(store.receipts_of_box(*place))
    # A verb that keeps every artifact asks for no evidence, so it does not wait for a re-read of every byte.
    keeps_all = artifact_tiers.keeps_every_artifact(keeps, tiers)
    runs = [] if keeps_all else sorted({*named_runs(stored_reading), *_runs_of(paths), *contact})
    receipts = {run_id: _own_receipt(store, identity, run_id, moment, ledger) for run_id in runs}
    short = [run_id for run_id in runs if (receipts[run_id].record or {}).get("complete") is not True]
    return Evidence(
        identity=identity,
        verb=verb,
        keeps=tuple(keeps),
        provider=provider,
        now=moment,
        gated_tiers=tiers,
        box_record=box_record,
        box_problem=box_problem,
        was_deployed=ledger.was_deployed(identity),
        newer=successor(store, identity),
        reading=stored_reading,
        reading_problem=reading_problem,
        contact=contact,
        contact_problem=contact_problem,
        receipts=receipts,
        receipt_paths=paths,
        elsewhere={run_id: _other_receipts(store, identity, run_id, moment, ledger) for run_id in short},
        approvals=approvals.load_all(store),
        sweep_gaps=sweeps.gaps(store, identity.project, runs, ledger),
    )


def _read(path: str, name: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        return records.read_record_or_none(path, name), ""
    except records.RecordError as error:
        return None, str(error)


def _stored_reading(store: StateStore, identity: BoxIdentity, ledger: Ledger) -> tuple[Mapping[str, Any] | None, str]:
    path = store.seal_path(identity.project, identity.box, identity.generation)
    reading, problem = _read(path, "seal-reading")
    why = ledger.seal_reading_problem(identity, reading) if reading is not None else ""
    return (None, f"{path} {why}") if why else (reading, problem)


def _contact(store: StateStore, identity: BoxIdentity) -> tuple[dict[str, dict[str, Reached]], str]:
    path = store.contact_path(identity.project, identity.box, identity.generation)
    record, problem = _read(path, "contact")
    if record is None or record.get("provider_id") != identity.provider_id:
        return {}, problem
    runs = last_contact.parse(record.get("runs"))
    return ({}, f"{path} does not say what was reached") if runs is None else (runs, "")


def successor(store: StateStore, identity: BoxIdentity) -> Mapping[str, Any] | None:
    """The record of the newest later generation that was admitted: the box that took this one's place."""
    for generation in range(store.last_generation(identity.project, identity.box), identity.generation, -1):
        record, _problem = _read(store.box_record_path(identity.project, identity.box, generation), "box")
        if record is not None and record.get("provider_id") and record.get("admitted_at"):
            return record
    return None


# --- runs ---------------------------------------------------------------------------------------------------------


def runs_of(record: object) -> list[dict[str, Any]] | None:
    """The runs of a seal or an index; None when the list or one of its names cannot be read."""
    listed = record.get("runs") if isinstance(record, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(run, dict) for run in listed):
        return None
    try:
        names = [check_name("run", run.get("run_id")) for run in listed]
    except UnsafeName:
        return None
    return listed if len(set(names)) == len(names) else None


def named_runs(reading: Mapping[str, Any] | None) -> list[str]:
    """Every run that the index or the seal names."""
    known = reading or {}
    return sorted({run["run_id"] for name in ("index", "seal") for run in runs_of(known.get(name)) or []})


# --- receipts -----------------------------------------------------------------------------------------------------


def _runs_of(receipt_paths: Iterable[str]) -> list[str]:
    names = [os.path.basename(os.path.dirname(path)) for path in receipt_paths]
    return [name for name in names if _is_name(name)]


def _is_name(text: str) -> bool:
    try:
        check_name("run", text)
    except UnsafeName:
        return False
    return True


def _own_receipt(store: StateStore, identity: BoxIdentity, run_id: str, now: str, ledger: Ledger) -> ReceiptEvidence:
    path = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    return _read_receipt(store, path, identity, now, ledger)


def _other_receipts(
    store: StateStore, identity: BoxIdentity, run_id: str, now: str, ledger: Ledger
) -> tuple[ReceiptEvidence, ...]:
    own = store.receipt_path(identity.project, run_id, identity.box, identity.generation)
    others = [path for path in store.receipts(identity.project, run_id) if path != own]
    return tuple(_read_receipt(store, path, identity, now, ledger) for path in others)


def _read_receipt(store: StateStore, path: str, identity: BoxIdentity, now: str, ledger: Ledger) -> ReceiptEvidence:
    record, problem = _read(path, "receipt")
    if record is None:
        return ReceiptEvidence(path, None, problem)
    why = _why_misplaced(store, path, record) or ledger.receipt_problem(record)
    listed = record.get("copies")
    named = [copy for copy in listed if isinstance(copy, dict)] if isinstance(listed, list) else []
    reread = tuple(copies.reread(store, copy, identity, now) for copy in named)
    contents = home_contents.read(record, reread)
    return ReceiptEvidence(path, record, f"the receipt {path} {why}" if why else "", reread, contents)


def _why_misplaced(store: StateStore, path: str, record: Mapping[str, Any]) -> str:
    """Why a receipt is not what its place says; the journal is asked by that place, so it must be its own."""
    try:
        place = store.receipt_path(record["project"], record["run_id"], record["box"], record["generation"])
    except (KeyError, UnsafeName):
        return "does not say whose it is"
    return "" if place == path else f"is that of another run or box: its place is {place}"

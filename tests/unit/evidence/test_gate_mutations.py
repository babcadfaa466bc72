# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A gate condition that is wrong is found: every condition is made wrong, one at a time, and the tables must tell.

Against each mutant the decision table of ``gate_cases`` is gone through; for the code that reads files, a handful of
files is looked at.
"""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import gate_cases
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    approvals,
    artifact_tiers,
    copies,
    copy_reading,
    gate,
    last_contact,
    ledger,
    losses,
    standstill,
    supersession,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import World, edit_json, later
from mutants import mutants_of, survivors

# --- the decision table -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    evidence: gate.Evidence
    decision: gate.Decision


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """One row for each different decision comes first: they end most mutants at once."""
    found = []
    for case in gate_cases.table():
        evidence = gate_cases.build(case)
        decision = gate.decide(evidence)
        assert (decision.allowed, decision.rule, decision.approval_id) == gate_cases.judge(case)
        found.append(Row(evidence, decision))
    first = {row.decision: row for row in reversed(found)}
    return [*first.values(), *found]


def is_found_by_table(rows: list[Row]) -> bool:
    """Whether a row tells; that row goes to the front, because what finds one mutant finds more."""
    for place, row in enumerate(rows):
        if not _is_as_wanted(row):
            rows.insert(0, rows.pop(place))
            return True
    return False


def _is_as_wanted(row: Row) -> bool:
    try:
        return gate.decide(row.evidence) == row.decision
    except Exception:
        return False


PURE: dict[types.ModuleType, set[str] | None] = {
    gate: None,
    losses: None,
    supersession: None,
    standstill: None,
    artifact_tiers: {"keeps_every_artifact"},
    approvals: {"concerns", "why_unusable", "_why_out_of_time", "binds_problem", "fingerprint"},
    copies: {"why_not_independent", "survives", "tier_of_mount"},
    last_contact: {"at_least", "is_told", "includes", "_has", "furthest"},
}
# Mutants that are no other program, each with the reason.
EQUIVALENT: dict[str, str] = {
    "approvals.find: approval.record is not None and (not why_unusable(approval, identity, verb, moment)) #1": (
        "an approval without a record is never usable; the type checker wants to be told"
    ),
}


@pytest.mark.parametrize("module", list(PURE), ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_mutant_of_the_decision_is_found(module: types.ModuleType, rows: list[Row]) -> None:
    found = list(mutants_of(module, PURE[module]))
    alive = []
    for mutant in found:
        with mutant.standing_in():
            if not is_found_by_table(rows):
                alive.append(mutant.where)
    assert [name for name in alive if name not in EQUIVALENT] == [], f"of {len(found)}"


# --- the code that reads and writes files -------------------------------------------------------------------------

MOUNT = "mount://autodl.fs/"
READER = BoxIdentity("demo", "reader", 1, "900")


class Shelf:
    """Copies of every kind, readings of mounts whole and wrong, and a journal; only looked at, never changed."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.roots = [self.world.root(run_id) for run_id in ("r1", "r2")]
        self.manifests = [self.world.bring_home(run_id) for run_id in ("r1", "r2")]
        (self.roots[1] / "c0/a1/done.json").unlink()
        self.reading = self._saved("good", {"problems": [], "boot_id": "other", "device": 4})
        self._saved("torn", {"problems": ["x is missing"], "boot_id": "other", "device": 4})
        for name, changes in {
            "foreign": {"uri": "mount://autodl.fs/good"},
            "project": {"project": "demo2"},
            "edited": {"digest": "0" * 64},
            "unread": {"problems": None},
            "readerless": {"reader": None},
            "timeless": {"read_at": "soon"},
        }.items():
            self._saved(name, {"problems": [], "boot_id": "other", "device": 4})
            edit_json(self.world.store.copy_reading_path("demo", MOUNT + name), **changes)
        damaged = Path(self.world.store.copy_reading_path("demo", MOUNT + "damaged"))
        damaged.write_text("{")

    def _saved(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        reading = copy_reading.as_record(MOUNT + name, self.manifests[0], READER, self.world.now, answer)
        return copy_reading.save(self.world.store, reading)

    def look(self) -> list[Any]:
        world = self.world
        found: list[Any] = [
            copies.folder_of(uri) for uri in ("file:///a%20b", "file://h/a", "file:a", "/etc", "ftp:/x", "file:///[")
        ]
        uris: list[Any] = [root.as_uri() for root in self.roots]
        uris += [None, "ftp://x/y", "file:relative", "mount://", "s3", f"file://{world.results}"]
        names = ("good", "torn", "foreign", "project", "edited", "unread", "readerless", "timeless", "damaged", "never")
        uris += [MOUNT + name for name in names]
        for uri in uris:
            found.append(copies.reread(world.store, {"uri": uri}, world.identity, world.now))
        for seconds in (300, 301, -60, -61):
            found.append(copies.reread(world.store, {"uri": MOUNT + "good"}, world.identity, later(world.now, seconds)))
        return [*found, *self._ledger()]

    def _ledger(self) -> list[str]:
        who = self.world.identity
        reading = {"read_at": "t", **who.as_dict()}
        receipt = dict(who.as_dict(), run_id="r1", manifest_digest="a", complete=True, files=2, bytes=9)
        of = {key: receipt[key] for key in ("project", "run_id", "box", "generation", "provider_id")}
        line = dict(receipt, verb="receipt", kind="effect")
        intent, gone = dict(of, verb="receipt", kind="intent"), dict(of, verb="withdraw-receipt", kind="effect", at="t")
        seal = dict(who.as_dict(), verb="seal-reading", kind="effect", sha256=records.digest(reading), at="t")
        deploy = dict(who.as_dict(), verb=ledger.DEPLOY_STARTED, kind="effect")
        stories = [
            [], [line], [gone], [line, gone], [gone, line], [gone, dict(line, kind="failed")],
            [gone, intent], [dict(line, run_id="r9", files=3)],
            [dict(line, files=3)], [dict(line, bytes=3)], [dict(line, complete=1)], [dict(line, manifest_digest="b")],
            [dict(line, files=3, kind="failed")], [dict(line, provider_id="1")], [dict(line, generation=1, files=3)],
            [dict(line, sha256=records.digest(receipt))], [dict(line, sha256="x")], [dict(line, sha256=None)],
            [dict(line, box="b", files=3)], [dict(line, project="p", files=3)],
            [seal], [dict(seal, sha256="x")], [dict(seal, sha256="x", box="b")],
            [dict(seal, sha256="x"), seal], [seal, dict(seal, sha256="x")], [dict(seal, sha256="")],
            [deploy], [dict(deploy, provider_id="1"), line], [dict(deploy, kind="intent")],
        ]  # fmt: skip
        told = []
        for lines in stories:
            book = ledger.Ledger(lines)
            told += [book.receipt_problem(receipt), book.seal_reading_problem(who, reading)]
            told.append(book.seal_reading_problem(who, dict(reading, live=float("nan"))))
            told.append(str(book.was_deployed(who)))
        return told


class Consents:
    """Approvals given, refused, found, spent and left behind by a crash; in a folder of its own each time."""

    TRIED: ClassVar[list[dict[str, Any]]] = [
        {"binds": {}},
        {"approver": " "},
        {"reason": " "},
        {"ttl_s": 0},
        {"ttl_s": approvals.MOST_TTL_S + 1},
        {"verb": "../destroy"},
        {"verb": 7},
        {"identity": BoxIdentity("demo", "../b", 1, "1")},
        {"identity": BoxIdentity("../d", "b", 1, "1")},
        {"identity": BoxIdentity("demo", "b", 0, "1")},
        {"identity": BoxIdentity("demo", "b", 1, "")},
        {"identity": BoxIdentity("demo", "b", 1, "1")},
        {"ttl_s": 1},
    ]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds = itertools.count()

    def look(self) -> list[Any]:
        root = self.folder / str(next(self.rounds))
        world = World(root)
        world.now = "2026-11-21T03:00:00Z"
        world.digests = {"r1": "a" * 64}
        names = (f"{number:04d}" for number in itertools.count())
        with (
            mock.patch.object(approvals.secrets, "token_hex", side_effect=names),
            mock.patch.object(records, "utc_now", return_value="2026-11-21T03:00:07Z"),
        ):
            found = self._told(world)
            found += approvals.load_all(world.store)
            found += [approvals.find(world.store, world.identity, verb) for verb in ("destroy", "recycle")]
        folder = root / "state" / "approvals"
        found.append(approvals.find(world.store, world.identity, "destroy", "2100-01-01T00:00:00Z"))
        found += [oct(path.stat().st_mode) for path in (folder, folder / ".ap-absent.lock")]
        return [json.loads(json.dumps(one, default=str).replace(str(root), "")) for one in found]

    def _told(self, world: World) -> list[Any]:
        """Ten that are refused, five that are given; verbs that crash or arrive, each tried twice."""
        found: list[Any] = [self._try(lambda: self._spend(world, "ap-absent", False))]
        found += [self._try(lambda tried=tried: world.approve(**tried)) for tried in self.TRIED]
        verbs = ("destroy", "recycle", "destroy", "recycle")
        given = [world.approve(verb=verb, ttl_s=approvals.MOST_TTL_S) for verb in verbs]
        Path(world.store.approval_path("ap-damaged")).write_text("{")
        for odd in ({"approval_id": ["x"]}, {"approval_id": given[0], "kind": "effect"}, {"approval_id": None}):
            for kind in ("approval", "approval-used"):
                Journal(world.store).append(**{"kind": kind, "verb": "destroy", **odd})
        for approval_id, crashes in zip([*given, "ap-damaged"], (True, True, False, False, False), strict=True):
            for _again in (1, 2):
                found.append(self._try(lambda name=approval_id, fails=crashes: self._spend(world, name, fails)))
        return [*found, *given, self._try(lambda: self._nested(world)), self._at_a_given_time(world)]

    @staticmethod
    def _spend(world: World, approval_id: str, fails: bool) -> str:
        with approvals.spending(world.store, approval_id):
            if fails:
                raise OSError("the connection was cut")
        return "spent"

    @staticmethod
    def _at_a_given_time(world: World) -> str:
        approval_id = world.approve(verb="release")
        with approvals.spending(world.store, approval_id, world.now):
            return "spent"

    @staticmethod
    def _nested(world: World) -> str:
        approval_id = world.approve(verb="release")
        with approvals.spending(world.store, approval_id, world.now):
            return Consents._spend(world, approval_id, False)

    @staticmethod
    def _try(act: Callable[[], Any]) -> str:
        try:
            return str(act())
        except (TenantFailure, OSError) as error:
            return str(error)


ON_DISK: dict[str, tuple[types.ModuleType, set[str] | None, Callable[[Path], Any]]] = {
    "copies": (copies, {"reread", "_reread_folder", "folder_of", "_look_up_reading", "_why_not_current"}, Shelf),
    "ledger": (ledger, None, Shelf),
    "approvals": (
        approvals,
        {"_check_consent", "check_verb", "load_all", "_load", "find", "spending", "_read_unspent", "_held"},
        Consents,
    ),
}


@pytest.mark.parametrize("name", sorted(ON_DISK))
def test_every_mutant_of_what_reads_the_disk_is_found(name: str, tmp_path: Path) -> None:
    module, functions, stage = ON_DISK[name]
    alive, of = survivors({name: stage(tmp_path).look}, module, functions)
    assert [where for where in alive if where not in EQUIVALENT] == [], f"of {of}"

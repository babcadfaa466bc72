# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Cases for the gate: what the world is, in a few words; the evidence made of it; and an oracle that judges it.

The oracle is written from law 2 of the design and knows nothing of the gate's code: it looks at the case, not at the
evidence.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import (
    approvals,
    copies,
    evidence,
    gate,
    home_contents,
    losses,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import later

NOW = "2026-11-21T12:00:00Z"
ME = BoxIdentity("demo", "box1", 1, "4711")
DIGESTS = {"r1": "a" * 64, "r2": "b" * 64}
OTHER = "f" * 64
SPEC = "5" * 64
KERNEL, READER = "boot-of-the-box", "boot-of-another"


def at(step: int, done: bool = False, optimizer: int | None = None) -> Reached:
    """A step that is one file, or, with its optimizer, two."""
    beside = () if optimizer is None else (("optim-step-*.pt", optimizer, 1),)
    return Reached(step, done, series=(*beside, ("step-*.pt", step, 1)))


def in_epoch(epoch: int, step: int) -> Reached:
    """Its steps may be counted within the epoch or through."""
    return Reached(step, series=((f"epoch-{epoch}-step-*.pt", step, 1),))


NOTHING, FINISHED = Reached(), at(9, True)
UNNAMED = Reached(unnamed=("last.pt",))
# As an earlier version looked, which noted no names of files.
UNTOLD = Reached(9)
IN_TWO, IN_TWO_RANKS = at(9, optimizer=9), Reached(9, series=(("step-*/rank*.pt", 9, 2),))
REACHED = (NOTHING, at(3), at(3, True), at(9), FINISHED, IN_TWO)
REST = ("stopped", "outbid", "exited")
RUNS = ("running", "loading", "scheduling")


@dataclass(frozen=True)
class Run:
    """A run of the box, of one cell: ``seen`` is how far the last reading saw it, ``home`` how far its receipt goes."""

    run_id: str = "r1"
    indexed: bool = True
    spec: str = SPEC
    sealed: str = "ok"
    seen: Reached | None = FINISHED
    contact: Reached | None = None
    receipt: str = "ok"
    copies: tuple[str, ...] = ("file",)
    home: Reached = FINISHED
    elsewhere: Reached | None = None
    elsewhere_flaw: str = ""


@dataclass(frozen=True)
class Approval:
    """``agreed`` and ``agreed_home`` are what a consent to loss names for every run's cell."""

    kind: str = "digest"
    flaw: str = ""
    agreed: Reached = FINISHED
    agreed_home: Reached = NOTHING
    names: str = "all"
    unknown_too: bool = True


@dataclass(frozen=True)
class Case:
    verb: str = "destroy"
    keeps: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ("disk",)
    box_record: str = "used"
    journalled_deploy: bool = False
    provider: str = "running"
    started: str = ""
    parked: str = ""
    recorded_start: str = ""
    observed_age: int = 0
    observed_unread: bool = False
    reading: str = "ok"
    reading_flaw: str = ""
    age: int = 10
    live: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    seal: str = "ok"
    index: str = "ok"
    contact_damaged: bool = False
    stray_receipt: bool = False
    runs: tuple[Run, ...] = (Run("r1"), Run("r2"))
    newer: str = ""
    approvals: tuple[Approval, ...] = (Approval(),)


# --- the evidence of a case ---------------------------------------------------------------------------------------


def build(case: Case) -> evidence.Evidence:
    """The evidence as it would be gathered. Consents to loss name what the case says that they name."""
    found = _without_approvals(case)
    given = [_approval(case, number, approval, found) for number, approval in enumerate(case.approvals)]
    return replace(found, approvals=tuple(given))


def _without_approvals(case: Case) -> evidence.Evidence:
    started = {
        "": None,
        "before": later(NOW, -case.age - 60),
        "as it was read": later(NOW, -case.age),
        "after": later(NOW, -case.age + 5),
        "soon": "soon",
    }
    observed = "lately" if case.observed_unread else later(NOW, -case.observed_age)
    shift = -case.observed_age if started[case.started] not in (None, "soon") else 0
    at = later(str(started[case.started]), shift) if shift else started[case.started]
    box, box_problem = _box_record(case)
    reading = _reading(case) if case.reading == "ok" else None
    return evidence.Evidence(
        identity=ME,
        verb=case.verb,
        keeps=case.keeps,
        provider=evidence.ProviderView(case.provider, at, observed),
        now=NOW,
        gated_tiers=case.tiers,
        box_record=box,
        box_problem=box_problem,
        was_deployed=case.journalled_deploy,
        newer=_newer(case),
        reading=reading,
        reading_problem="seal.json is half-written" if case.reading == "damaged" else "",
        contact={run.run_id: {"c0": run.contact} for run in case.runs if run.contact is not None},
        contact_problem="contact.json is half-written" if case.contact_damaged else "",
        receipts={run.run_id: _own_receipt(run) for run in case.runs if run.receipt != "not asked"},
        receipt_paths=("receipts/r0/box1.g1.json",) if case.stray_receipt else (),
        elsewhere={run.run_id: _elsewhere(run) for run in case.runs},
    )


def _box_record(case: Case) -> tuple[dict[str, Any] | None, str]:
    virgin = dict(
        ME.as_dict(),
        created_at="2026-11-21T11:00:00Z",
        deploy_started_at=None,
        parked_at=_beside_reading(case, case.parked),
        started_at=_beside_reading(case, case.recorded_start),
    )
    return {
        "virgin": (virgin, ""),
        "used": (dict(virgin, deploy_started_at="2026-11-21T11:10:00Z"), ""),
        "none": (None, ""),
        "damaged": (virgin, "g2.json is half-written"),
        "other_machine": (dict(virgin, provider_id="1"), ""),
        "not_ours": (dict(virgin, created_at=None), ""),
        "rebuilt": ({key: value for key, value in virgin.items() if key != "deploy_started_at"}, ""),
    }[case.box_record]


def _beside_reading(case: Case, when: str) -> str | None:
    """A time of the box record, said by its distance from the reading."""
    apart = {"before": -60, "as it was read": 0, "soon after": 5, "in time": 300, "late": 301}
    return later(NOW, -case.age + apart[when]) if when in apart else when or None


def _newer(case: Case) -> dict[str, Any] | None:
    record = {"project": "demo", "box": "box1", "generation": 3, "provider_id": "99", "admitted_at": later(NOW, -3600)}
    return {
        "": None,
        "admitted": record,
        "overdue": dict(record, admitted_at=later(NOW, -25 * 3600)),
        "just due": dict(record, admitted_at=later(NOW, -24 * 3600)),
        "text": dict(record, generation="3"),
        "not_admitted": dict(record, admitted_at=None),
        "nameless": dict(record, provider_id=""),
        "same": dict(record, generation=1),
        "true": dict(record, generation=True),
        "other_box": dict(record, box="box2"),
        "other_project": dict(record, project="demo2"),
    }[case.newer]


def _promise(case: Case, name: str, runs: list[dict[str, Any]]) -> Any:
    whole = dict(ME.as_dict(), schema=records.schema(name), runs=runs)
    return {
        "ok": whole,
        "none": None,
        "text": "sealed",
        "foreign": dict(whole, provider_id="1"),
        "old": dict(whole, schema="gpu-tenant/other/v1"),
        "runless": dict(whole, runs="all"),
    }[case.seal if name == "seal" else case.index]


def _reading(case: Case) -> dict[str, Any]:
    sealed = [
        {"run_id": run.run_id, "manifest_digest": DIGESTS[run.run_id] if run.sealed == "ok" else "short"}
        for run in case.runs
        if run.sealed != "absent"
    ]
    indexed = [{"run_id": run.run_id, "spec_sha256": run.spec} for run in case.runs if run.indexed]
    whole = dict(
        ME.as_dict(),
        schema=records.schema("seal-reading"),
        reachable=True,
        read_at=later(NOW, -case.age),
        seal=_promise(case, "seal", sealed),
        index=_promise(case, "index", indexed),
        live_cells=list(case.live),
        unlisted_runs=list(case.unlisted),
        problems=list(case.problems),
        checkpoints={run.run_id: {"c0": run.seen.as_dict()} for run in case.runs if run.seen is not None},
        durable=[41],
        boot_id=KERNEL,
    )
    return dict(whole, **READING_FLAWS[case.reading_flaw])


READING_FLAWS: dict[str, dict[str, Any]] = {
    "": {},
    "project": {"project": "other"},
    "box": {"box": "other"},
    "generation": {"generation": 3},
    "provider_id": {"provider_id": "1"},
    "schema": {"schema": "gpu-tenant/seal-reading/v2"},
    "unreachable": {"reachable": False},
    "timeless": {"read_at": "yesterday"},
    "problems unread": {"problems": "none"},
    "unlisted unread": {"unlisted_runs": None},
    "live unread": {"live_cells": None},
    "steps unread": {"checkpoints": None},
    "devices unread": {"durable": None},
    "no devices": {"durable": []},
    "devices in words": {"durable": "41"},
    "kernel unread": {"boot_id": 7},
    "no kernel": {"boot_id": ""},
}


def _copy(kind: str, digest: str) -> copies.CopyEvidence:
    other_reader = {"boot_id": READER, "device": 41}
    same_kernel = {"boot_id": KERNEL, "device": 41}
    return {
        "file": copies.CopyEvidence("file:///home/r", digest),
        "s3": copies.CopyEvidence("s3://bucket/r", digest),
        "broken": copies.CopyEvidence("file:///broken/r", digest, ("model.pt is missing",)),
        "other": copies.CopyEvidence("file:///other/r", OTHER),
        "unread": copies.CopyEvidence("file:///unread/r", digest),
        "mount": copies.CopyEvidence("mount://autodl.fs/r", digest, (), other_reader),
        "mount, own": copies.CopyEvidence("mount://autodl.fs/own", digest, (), same_kernel),
        "mount, afresh": copies.CopyEvidence("mount://autodl.fs/new", digest, (), dict(same_kernel, device=42)),
        "mount, odd": copies.CopyEvidence("mount://autodl.fs/odd", digest, (), dict(same_kernel, device="42")),
        "mount, number": copies.CopyEvidence("mount://autodl.fs/no", digest, (), {"boot_id": 7, "device": 42}),
        "mount, blank": copies.CopyEvidence("mount://autodl.fs/no", digest, (), {"boot_id": "", "device": 42}),
        "mount, nobody": copies.CopyEvidence("mount://autodl.fs/who", digest, (), {}),
    }[kind]


def _record(run: Run, reached: Reached, kinds: tuple[str, ...]) -> dict[str, Any]:
    checks = [
        {"path": "c0/a1/out/metrics.json", "ok": True, "loader": "json", "step": 77},
        {"path": "c0/a1/logs/notes.pt", "ok": True, "loader": "torch", "step": 78},
        {"path": "c0/a1/out", "ok": True, "loader": "torch", "step": 79},
        {"path": "notes", "ok": True, "loader": "torch", "step": 80},
    ]
    for name, step, files in reached.series:
        for number in range(files):
            # By its name: the step inside may count something else, and is told by nobody on the box.
            path = "c0/a1/out/" + name.replace("*", f"{step:06d}", 1).replace("*", str(number))
            checks.append({"path": path, "ok": True, "loader": "torch", "step": 10 * step})
    for name in reached.unnamed:
        checks.append({"path": f"c0/a1/out/{name}", "ok": True, "loader": "torch", "step": 100})
    if reached.done:
        checks.append({"path": "c0/a1/done.json", "ok": True, "loader": "json", "step": None})
    digest = DIGESTS[run.run_id]
    named = [{"uri": _copy(kind, digest).uri} for kind in kinds]
    return dict(
        ME.as_dict(),
        schema=records.schema("receipt"),
        run_id=run.run_id,
        spec_sha256=SPEC,
        manifest_digest=digest,
        complete=True,
        incomplete_because=[],
        level="load",
        parts=[],
        waits_for=[],
        verified_at=later(NOW, -120),
        checks=checks,
        copies=named,
    )


_WEIGHTS: dict[str, Any] = {"path": "c0/a1/out/model.pt", "ok": True, "loader": "torch"}
RECEIPT_FLAWS: dict[str, dict[str, Any]] = {
    "ok": {},
    "part": {"parts": ["box0", "box1"]},
    "old": {"schema": "gpu-tenant/receipt/v2"},
    "foreign project": {"project": "other"},
    "foreign box": {"box": "box2"},
    "foreign generation": {"generation": 3},
    "foreign machine": {"provider_id": "1"},
    "foreign run": {"run_id": "r9"},
    "steps of another kind": {"checks": [dict(_WEIGHTS, step=True)]},
    "steps below zero": {"checks": [dict(_WEIGHTS, step=-1)]},
    "steps by name": {"checks": [dict(_WEIGHTS, path="c0/a1/out/step-000009.pt", step=None)]},
    "no steps": {"checks": [dict(_WEIGHTS, step=None)]},
    "step zero": {"checks": [dict(_WEIGHTS, path="c0/a1/out/step-000009.pt", step=0)]},
    "epochs by name": {"checks": [dict(_WEIGHTS, path="c0/a1/out/ckpt-3.pt", step=5000)]},
    "no name, a step inside": {"checks": [dict(_WEIGHTS, path="c0/a1/out/last.pt", step=5000)]},
    "a part of a folder": {"checks": [dict(_WEIGHTS, path="c0/a1/out/checkpoint-9/config.json", loader="hf", step=9)]},
    "a folder by its head": {"checks": [dict(_WEIGHTS, path="c0/a1/out/checkpoint-9/model.safetensors", loader="hf")]},
    "no name, no step": {"checks": [dict(_WEIGHTS, path="c0/a1/out/last.pt", step=None)]},
    "reasons unread": {"incomplete_because": 7},
    "incomplete": {"complete": False, "incomplete_because": ["the run is failed, not done"]},
    "said to be complete": {"complete": 1},
    "complete but": {"incomplete_because": ["the manifest is a snapshot"]},
    "waits": {"waits_for": ["box2"]},
    "not a part": {"parts": ["box2"]},
    "parts unread": {"parts": "box1"},
    "other files": {"manifest_digest": OTHER},
    "checks unread": {"checks": None},
    "checks of text": {"checks": ["loaded"]},
    "checks, one of text": {"checks": [_WEIGHTS, "loaded"]},
    "copies unread": {"copies": None},
    "copies of text": {"copies": ["file:///home/r"]},
    "copies, one of text": {"copies": [{"uri": "file:///home/r"}, "file:///home/r"]},
    "copies of a number": {"copies": 7},
    "no copy": {"copies": []},
    # What its copy holds, not what it says.
    "done record alone": {},
    "of whichever work": {},
    "of an earlier work": {},
}


# What the checks of a receipt say, where they do not say what the run's ``home`` says.
STEPS_OF_RECEIPT = {
    "steps of another kind": NOTHING,
    "steps below zero": NOTHING,
    "steps by name": at(9),
    "no steps": NOTHING,
    "step zero": at(9),
    "epochs by name": Reached(3, series=(("ckpt-*.pt", 3, 1),)),
    "a part of a folder": NOTHING,
    "a folder by its head": Reached(9, series=(("checkpoint-*/model.safetensors", 9, 1),)),
    "no name, a step inside": UNNAMED,
    "no name, no step": UNNAMED,
    "of whichever work": NOTHING,
    "of an earlier work": NOTHING,
}
SOUND_RECEIPTS = ("ok", "part", "done record alone", *STEPS_OF_RECEIPT)


def _contents(record: dict[str, Any], flaw: str = "") -> home_contents.Contents:
    """The copy that a receipt's checks were made of; the optimizer in it is of a kind that nobody loads."""
    checks = record["checks"] if isinstance(record["checks"], list) else []
    paths = {check["path"]: check["loader"] for check in checks if isinstance(check, dict)}
    files = [(path[len("c0/a1/out/") :], loader) for path, loader in paths.items() if path.startswith("c0/a1/out/")]
    lines = tuple((path, "metrics" if loader == "json" else "checkpoint", loader) for path, loader in files)
    cell = {"of whichever work": "", "of an earlier work": "c0@" + "e" * 12}.get(flaw, "c0")
    finished = "c0/a1/done.json" in paths and flaw != "done record alone"
    return home_contents.Contents({"c0/a1": home_contents.Attempt(cell, lines, finished)})


def _own_receipt(run: Run) -> evidence.ReceiptEvidence:
    path = f"receipts/{run.run_id}/box1.g1.json"
    if run.receipt == "none":
        return evidence.ReceiptEvidence(path, None)
    if run.receipt == "damaged":
        return evidence.ReceiptEvidence(path, None, f"{path} is half-written")
    record = _record(run, run.home, run.copies)
    reread = tuple(_copy(kind, DIGESTS[run.run_id]) for kind in run.copies if kind != "unread")
    if run.receipt == "withdrawn":
        return evidence.ReceiptEvidence(path, record, f"{path} was withdrawn", reread, _contents(record))
    if run.receipt == "failed check":
        record["checks"][-1]["ok"] = False
        return evidence.ReceiptEvidence(path, record, "", reread, _contents(record))
    if run.receipt == "no copy":
        reread = ()
    record = dict(record, **RECEIPT_FLAWS[run.receipt])
    return evidence.ReceiptEvidence(path, record, "", reread, _contents(record, run.receipt))


def _elsewhere(run: Run) -> tuple[evidence.ReceiptEvidence, ...]:
    if run.elsewhere is None:
        return ()
    flaw = run.elsewhere_flaw
    kind = flaw if flaw in ("broken", "other", "unread", "mount") else "file"
    record = dict(_record(run, run.elsewhere, (kind,)), box="box1", generation=3, provider_id="99", complete=False)
    record = dict(record, **ELSEWHERE_FLAWS.get(flaw, {}))
    if flaw == "failed check":
        record["checks"][0]["ok"] = False
    reread = () if kind == "unread" else (_copy(kind, DIGESTS[run.run_id]),)
    problem = "it was edited" if flaw == "edited" else ""
    return (evidence.ReceiptEvidence("elsewhere.json", record, problem, reread, _contents(record)),)


ELSEWHERE_FLAWS: dict[str, dict[str, Any]] = {
    "other spec": {"spec_sha256": "6" * 64},
    "other project": {"project": "other"},
    "other run": {"run_id": "r9"},
    "structure": {"level": "structure"},
    "old": {"schema": "gpu-tenant/receipt/v2"},
}
# Of one box's part of a run: no copy of another box's part, unless the whole was put together and loaded.
_SHARE = {"box": "box2", "parts": ["box1", "box2"]}
ELSEWHERE_FLAWS.update(
    {
        "another share": _SHARE,
        "another share, partless": dict(_SHARE, parts=7),
        "own share": dict(_SHARE, box="box1"),
        "share of a whole": dict(_SHARE, whole={"uri": "file:///whole"}),
        "only part": dict(_SHARE, parts=["box2"]),
        "no part": dict(_SHARE, parts=None),
    }
)
SOUND_ELSEWHERE = ("", "own share", "share of a whole", "only part", "no part")
ELSEWHERE = ("", *ELSEWHERE_FLAWS, "broken", "other", "unread", "mount", "failed check", "edited")

APPROVAL_FLAWS: dict[str, dict[str, Any]] = {
    "": {},
    "expired": {"expires_at": NOW},
    "no expiry": {"expires_at": "never"},
    "future": {"created_at": later(NOW, 301)},
    "hardly future": {"created_at": later(NOW, 300)},
    "used": {"used_at": later(NOW, -5)},
    "claimed": {"claimed_at": later(NOW, -5)},
    "other verb": {"verb": "recycle-all"},
    "other generation": {"generation": 3},
    "true generation": {"generation": True},
    "other machine": {"provider_id": "1"},
    "other box": {"box": "box2"},
    "other project": {"project": "other"},
    "old": {"schema": "gpu-tenant/approval/v2"},
    "renamed": {"id": "ap-other"},
    "bindless": {"binds": None},
    "binds in words": {"binds": "all"},
    "binds to everything": {"binds": {"kind": "everything"}},
    "digests in words": {"binds": {"kind": "digest", "digests": "all"}},
    "digest of no run": {"binds": {"kind": "digest", "digests": {1: "a" * 64}}},
    "digest in words": {"binds": {"kind": "digest", "digests": {"r1": "all"}}},
    "loss of a number": {"binds": {"kind": "loss", "loss": 7, "cells": {}, "unknown": []}},
    "loss of nothing": {"binds": {"kind": "loss", "loss": " ", "cells": {}, "unknown": []}},
    "loss without cells": {"binds": {"kind": "loss", "loss": "all", "cells": "all", "unknown": []}},
    "loss without unknown": {"binds": {"kind": "loss", "loss": "all", "cells": {}, "unknown": "all"}},
}
LOADED_FLAWS = ("damaged", "damaged, unsaid", "edited", "journalled as used", "journalled as claimed")


def approval_id(number: int) -> str:
    return f"ap-{number:04d}"


def _approval(case: Case, number: int, given: Approval, found: evidence.Evidence) -> approvals.LoadedApproval:
    path = f"approvals/{approval_id(number)}.json"
    if given.flaw == "damaged, unsaid":
        return approvals.LoadedApproval(path, None)
    if given.flaw == "damaged":
        return approvals.LoadedApproval(path, None, f"{path} is half-written")
    record = dict(
        ME.as_dict(),
        schema=records.schema("approval"),
        id=approval_id(number),
        verb=case.verb,
        binds=_binds(case, given, found),
        approver="ada",
        reason="it is home",
        created_at=later(NOW, -600 - number),
        expires_at=later(NOW, 600),
        claimed_at=None,
        used_at=None,
    )
    sha256 = records.digest({key: value for key, value in record.items() if key not in ("claimed_at", "used_at")})
    if given.flaw == "edited":
        record["approver"] = "mallory"
    else:
        record.update(APPROVAL_FLAWS.get(given.flaw, {}))
    changed = given.flaw in APPROVAL_FLAWS and given.flaw not in ("", "used", "claimed")
    return approvals.LoadedApproval(
        path,
        record,
        "",
        # With its journal line gone where a field is wrong, so that the rule refuses and not the hash.
        "" if changed else sha256,
        given.flaw == "journalled as used",
        given.flaw == "journalled as claimed",
    )


def _binds(case: Case, given: Approval, found: evidence.Evidence) -> dict[str, Any]:
    if given.kind == "standing":
        return {"kind": "complete_receipt"}
    if given.kind == "loss":
        pair = {"known": given.agreed.as_dict(), "home": given.agreed_home.as_dict()}
        pair = {"known": pair["known"]} if given.names == "half" else pair
        cells = {f"{run.run_id}/c0": pair for run in case.runs} if given.names != "none" else {}
        unknown = list(losses.of(found).unknown) if given.unknown_too else []
        return {"kind": "loss", "loss": "all of it", "cells": cells, "unknown": unknown}
    digests = {run.run_id: DIGESTS[run.run_id] for run in case.runs if run.sealed != "absent"}
    if given.kind == "other digest":
        digests = {**digests, "r1": OTHER}
    return {"kind": "digest", "digests": digests}


# --- the oracle ---------------------------------------------------------------------------------------------------


def judge(case: Case) -> tuple[bool, str, str | None]:
    """(allowed, rule, id of the approval) as law 2 has it."""
    if {"disk", *case.tiers} <= set(case.keeps):
        return True, gate.RULE_KEEPS_DISK, None
    if _is_virgin(case):
        return True, gate.RULE_VIRGIN, None
    # The oldest first, which is the last one here.
    usable = [(number, given) for number, given in enumerate(case.approvals) if _is_usable(case, given)][::-1]
    usable = sorted(usable, key=lambda pair: pair[1].flaw == "hardly future")
    if _is_sealed(case) and all(_is_home(case, run) for run in _known_runs(case)):
        for number, given in usable:
            if given.kind in ("digest", "standing"):
                rule = gate.RULE_EVIDENCE_HOME if given.kind == "digest" else gate.RULE_STANDING
                return True, rule, approval_id(number)
    if _may_go_as_superseded(case):
        return True, gate.RULE_SUPERSEDED, None
    for number, given in usable:
        if given.kind == "loss" and _covers(case, given):
            return True, gate.RULE_LOSS, approval_id(number)
    return False, gate.RULE_REFUSED, None


def _known_runs(case: Case) -> list[Run]:
    """Law 2 (b): every run in the box's index; and none that was ever seen on it is forgotten."""
    return [run for run in case.runs if run.indexed or run.sealed != "absent" or run.contact is not None]


def _is_virgin(case: Case) -> bool:
    """Created by us, nothing deployed yet, and no sign of the contrary."""
    signs = [
        case.journalled_deploy,
        case.stray_receipt,
        case.contact_damaged,
        case.reading == "damaged",
        case.box_record != "virgin",
    ]
    if case.reading == "ok":
        signs += [bool(case.live), bool(case.unlisted), bool(case.problems), bool(case.runs)]
        signs += [case.seal in ("text", "runless"), case.index in ("text", "runless")]
        signs += [case.reading_flaw == "problems unread"]
    return not any([*signs, *(run.contact is not None for run in case.runs)])


def _is_sealed(case: Case) -> bool:
    """Law 2 (a): no live cell, nothing writes any more; read just now, or before the box came to rest."""
    whole = (
        case.reading == "ok"
        and case.reading_flaw in (*UNSEEN_WRITER, "", "steps unread")
        and case.seal == case.index == "ok"
    )
    quiet = not (case.live or case.unlisted or case.problems)
    listed = all(run.indexed and run.sealed == "ok" for run in _known_runs(case))
    return whole and quiet and listed and _stands_still(case)


def _stands_still(case: Case) -> bool:
    if case.age < -60:
        return False
    if case.provider in REST:
        in_time = case.parked in ("before", "as it was read", "soon after", "in time")
        return _was_not_started(case) and _has_record(case) and in_time
    return case.age <= 300 and not _is_known_to_have_started(case)


def _was_not_started(case: Case) -> bool:
    observed = abs(case.observed_age) <= 300 and not case.observed_unread
    told = case.started in ("", "before", "as it was read")
    return observed and told and not _is_known_to_have_started(case)


def _has_record(case: Case) -> bool:
    return case.box_record not in ("none", "damaged", "other_machine")


def _is_known_to_have_started(case: Case) -> bool:
    """Our record says that it was started, or seen started, and not surely before the reading."""
    return _has_record(case) and case.recorded_start not in ("", "before")


def _is_home(case: Case, run: Run) -> bool:
    """Law 2 (b) and (c): a complete receipt for what the seal carries, every copy whole where it lies, one to stay."""
    if run.receipt not in SOUND_RECEIPTS or not run.copies:
        return False
    good = {"file", "s3"} | _believed_mounts(case)
    stays = [kind for kind in run.copies if not kind.startswith("mount") or "fs" in case.keeps]
    return set(run.copies) <= good and bool(stays)


# Flaws of a reading that leave open by which kernel, or through which mounts, the box wrote; and nothing else.
UNSEEN_WRITER = ("devices unread", "devices in words", "no devices", "kernel unread", "no kernel")


def _believed_mounts(case: Case) -> set[str]:
    """Law 2 (c): re-read through another kernel than the writer's, or after a fresh mount; both must be known."""
    if case.reading != "ok" or case.reading_flaw in ("kernel unread", "no kernel"):
        return set()
    return {"mount"} | (set() if case.reading_flaw in UNSEEN_WRITER else {"mount, afresh"})


def _is_usable(case: Case, given: Approval) -> bool:
    """Law 2 (d): for this verb on this box generation, unexpired, unedited, used by nobody."""
    claimed = given.flaw in ("claimed", "journalled as claimed")
    sound = given.flaw in ("", "hardly future")
    return (sound or (claimed and case.verb == "destroy")) and given.kind != "other digest"


def _known(run: Run, case: Case) -> Reached | None:
    seen = run.seen if case.reading == "ok" and case.reading_flaw != "steps unread" else None
    known = [reached for reached in (seen, run.contact) if reached is not None]
    if not known:
        return None
    return _together(known)


def _together(known: list[Reached]) -> Reached:
    steps = [reached.step for reached in known if reached.step is not None]
    unnamed = tuple(sorted({name for reached in known for name in reached.unnamed}))
    series = tuple(sorted({each for reached in known for each in reached.series}))
    return Reached(max(steps, default=None), any(reached.done for reached in known), unnamed, series)


def _best_copy(case: Case, run: Run) -> Reached:
    """The furthest verified, loaded and whole copy of the run, of whichever box, that the verb leaves."""
    found = []
    own = run.receipt in (
        *SOUND_RECEIPTS, "reasons unread", "foreign box", "foreign generation", "foreign machine",
        "incomplete", "said to be complete",
        "complete but", "waits", "not a part", "parts unread",
    )  # fmt: skip
    good = {"file", "s3"} | _believed_mounts(case)
    stays = [kind for kind in run.copies if not kind.startswith("mount") or "fs" in case.keeps]
    if own and run.copies and set(run.copies) <= good and stays:
        home = replace(run.home, done=False) if run.receipt == "done record alone" else run.home
        found.append(STEPS_OF_RECEIPT.get(run.receipt, home))
    spec_known = case.reading == "ok" and case.index not in ("none", "text", "runless") and run.indexed
    if spec_known and not run.spec:
        return NOTHING  # whose copy it is cannot be said
    if run.elsewhere is not None and (
        run.elsewhere_flaw in SOUND_ELSEWHERE or (run.elsewhere_flaw == "other spec" and not spec_known)
    ):
        found.append(run.elsewhere)
    return _together(found)


def _is_ahead(known: Reached, copy: Reached) -> bool:
    """Whether something is known of the box that the copy does not have."""
    # A checkpoint whose name says no step is as far as any, unless nothing is beyond it: the cell is finished.
    unnamed = bool(known.unnamed) and not (known.done and copy.done)
    # Nobody knows which files a step has of which no file was named.
    untold = known.step is not None and all(step != known.step for _name, step, _files in known.series)
    # What a finished cell removed itself is no loss.
    kept = replace(known, series=()) if known.done and copy.done else known
    return unnamed or untold or _is_more(kept, copy)


def _is_more(known: Reached, named: Reached) -> bool:
    """Whether something is known that was not named: what was named is so although nobody knows how far it got."""
    newer = known.step is not None and (named.step is None or named.step < known.step)
    more_names = not set(known.unnamed) <= set(named.unnamed)
    lacking = [
        (name, step)
        for name, step, files in known.series
        if not any(_stands_for(own, name) and at >= step and of_it >= files for own, at, of_it in named.series)
    ]
    return newer or (known.done and not named.done) or more_names or bool(lacking)


def _stands_for(own: str, name: str) -> bool:
    """Of an earlier epoch, at a step as high, one of a later epoch is at least as far, however steps are counted."""
    epoch = re.compile(r"epoch-(\d+)-(.+)")
    one, other = epoch.match(own), epoch.match(name)
    if one is None or other is None:
        return own == name
    return one[2] == other[2] and int(one[1]) >= int(other[1])


def _has_unknown(case: Case) -> bool:
    """Whether something may be on the box that nobody can count."""
    if case.reading != "ok" or case.reading_flaw in ("project", "box", "generation", "provider_id"):
        return True
    unread = ("problems unread", "unlisted unread", "live unread", "steps unread", "timeless")
    if case.reading_flaw in unread or case.contact_damaged or case.index in ("text", "runless"):
        return True
    if case.live or case.unlisted or case.problems:
        return True
    return not (_stands_still(case) if case.provider in RUNS else _was_not_started(case))


def _may_go_as_superseded(case: Case) -> bool:
    """Outbid, its place taken; a verified copy at a step at or beyond its last known checkpoint exists."""
    if case.newer not in ("admitted", "overdue", "just due") or case.provider not in REST:
        return False
    if not _has_record(case) or case.parked in ("", "yesterday"):
        return False  # nobody told it to stop, so it revives by itself
    flaw = case.reading_flaw not in ("", *UNSEEN_WRITER)
    flaws = case.reading != "ok" or flaw or case.index != "ok" or case.unlisted or case.problems
    if flaws or case.contact_damaged or not _was_not_started(case):
        return False
    if any(run.seen is None if run.indexed else _known(run, case) is not None for run in case.runs):
        return False
    known = [(_known(run, case), _best_copy(case, run)) for run in case.runs]
    return not any(reached is not None and _is_ahead(reached, copy) for reached, copy in known)


def _covers(case: Case, given: Approval) -> bool:
    """The loss is no greater than the one that was named."""
    if _has_unknown(case) and not given.unknown_too:
        return False
    for run in case.runs:
        known, copy = _known(run, case), _best_copy(case, run)
        if known is None or not _is_ahead(known, copy):
            continue
        if given.names != "all" or _is_more(known, given.agreed) or _is_more(given.agreed_home, copy):
            return False
    return True


# --- the table ----------------------------------------------------------------------------------------------------

_LOSS = Approval("loss")
_LOST = Run("r1", seen=at(9), receipt="none", home=Reached(), sealed="absent")
_OUTBID = Run("r1", seen=at(3), receipt="none", sealed="absent", elsewhere=at(9))
_SNAPSHOT = Run("r1", seen=at(3), receipt="incomplete", sealed="absent", home=at(3))
_RESULT = replace(FINISHED, unnamed=("model.pt",))
# It was seen when it was there; the script has removed it since.
_BEST_BEFORE = replace(_RESULT, series=(("auc-0.91-step-*.pt", 3, 1), *_RESULT.series))


def _superseded(**run: Any) -> Case:
    return Case(
        provider="stopped",
        seal="none",
        newer="admitted",
        parked="soon after",
        runs=(replace(_SNAPSHOT, **run),),
        approvals=(),
    )


def _superseded_by_price(**run: Any) -> Case:
    return replace(_superseded(**run), provider="outbid", age=9000, parked="late")


BASES: dict[str, Case] = {
    "home": Case(),
    "standing": Case(approvals=(Approval("standing"),)),
    "parked": Case(provider="stopped", age=7200, started="before", parked="soon after"),
    "parked again": Case(provider="outbid", age=7200, parked="in time", recorded_start="before"),
    "on a mount": Case(keeps=("fs",), runs=(Run(copies=("mount",)), Run("r2", copies=("mount, afresh", "s3")))),
    "empty": Case(runs=()),
    "virgin": Case(box_record="virgin", reading="none", runs=(), approvals=()),
    "virgin, read": Case(box_record="virgin", runs=(), approvals=(), seal="none", index="none"),
    "virgin, index": Case(box_record="virgin", runs=(), approvals=()),
    "keeps all": Case(keeps=("disk", "fs"), tiers=("disk", "fs"), runs=(_LOST,), approvals=()),
    "loss": Case(runs=(_LOST,), seal="none", approvals=(_LOSS,)),
    "loss, in part": Case(
        runs=(replace(_LOST, receipt="incomplete", home=at(3)),),
        seal="none",
        approvals=(replace(_LOSS, agreed=at(9), agreed_home=at(3)),),
    ),
    "offline": Case(
        provider="offline",
        age=9000,
        runs=(replace(_LOST, contact=at(11), elsewhere=at(3)),),
        approvals=(replace(_LOSS, agreed=at(11)),),
    ),
    "never read": Case(provider="unknown", reading="none", runs=(replace(_LOST, contact=at(9)),), approvals=(_LOSS,)),
    "superseded": replace(_superseded_by_price(), runs=(_OUTBID,)),
    "superseded, by its snapshot": replace(_superseded_by_price(), newer="overdue", live=("r1/c0/a1",)),
    "superseded, finished": _superseded(seen=_BEST_BEFORE, home=_RESULT),
    "superseded, in two copies": _superseded(seen=at(9, True), home=at(9), elsewhere=at(3, True)),
    "superseded, in two files": _superseded_by_price(seen=at(9, optimizer=3), home=IN_TWO),
    "superseded, at a later epoch": _superseded_by_price(seen=in_epoch(1, 4), home=in_epoch(2, 4)),
    "superseded, in two ranks": _superseded_by_price(seen=IN_TWO_RANKS, home=IN_TWO_RANKS),
    "loss, nobody knows how far": Case(
        runs=(replace(_LOST, seen=UNNAMED),), seal="none", approvals=(replace(_LOSS, agreed=UNNAMED),)
    ),
    "nobody": Case(approvals=()),
    "nobody, offline": Case(provider="offline", runs=(replace(_SNAPSHOT, seen=FINISHED),), approvals=()),
    "two approvals": Case(approvals=(Approval("loss"), Approval("standing"))),
    "stop": Case(verb="recycle", keeps=("fs",), tiers=("disk", "fs")),
}


# No way through: only the box has its newest checkpoint, and the copy's step or the lack of one must not hide it.
SHUT: dict[str, Case] = {
    "its checkpoint overwritten": _superseded(seen=UNNAMED, receipt="no name, a step inside"),
    "no step anywhere": _superseded(seen=UNNAMED, receipt="no name, no step"),
    "at a later epoch": _superseded(seen=at(9), receipt="epochs by name"),
    "its done record is home, its result is not": _superseded(seen=_RESULT, home=FINISHED),
    "what its done record promises is not": _superseded(seen=FINISHED, home=FINISHED, receipt="done record alone"),
    "its optimizer is not home": _superseded(seen=IN_TWO, home=at(12)),
    "the files of one rank are not home": _superseded(
        seen=IN_TWO_RANKS, home=Reached(9, series=(("step-*/rank*.pt", 9, 1),))
    ),
    "of a later epoch only a lower step is on it": _superseded(seen=in_epoch(2, 4), home=in_epoch(1, 5)),
    "of an earlier epoch a higher step is on it": _superseded(seen=in_epoch(1, 5), home=in_epoch(2, 4)),
    "nobody said what its step consists of": _superseded(seen=UNTOLD, home=at(9)),
    "of whichever work the copy is": _superseded(seen=at(3), home=at(9), receipt="of whichever work"),
    "the copy is of an earlier work": _superseded(seen=at(3), home=at(9), receipt="of an earlier work"),
}
RUN_CHANGES: dict[str, list[Any]] = {
    "indexed": [False],
    "spec": [""],
    "sealed": ["absent", "no digest", "ok"],
    "seen": [None, *REACHED, at(12), UNNAMED, UNTOLD],
    "contact": [*REACHED, at(12), UNNAMED, replace(FINISHED, unnamed=("last.pt",))],
    "receipt": ["ok", "not asked", "none", "damaged", "withdrawn", "failed check", *RECEIPT_FLAWS],
    "copies": [
        (), ("file",), ("file", "s3"), ("broken",), ("file", "broken"), ("file", "other"), ("other",), ("unread",),
        ("file", "unread"), ("mount",), ("mount, own",), ("mount, afresh",), ("mount, nobody",),
        ("mount, odd",), ("mount, number",), ("mount, blank",), ("file", "mount"),
        ("file", "mount, own"),
    ],
    "home": [*REACHED, at(8), UNNAMED, Reached(9, series=(("step-*/rank*.pt", 9, 1),))],
    "elsewhere": [None, *REACHED],
    "elsewhere_flaw": list(ELSEWHERE),
}  # fmt: skip
APPROVAL_CHANGES: dict[str, list[Any]] = {
    "kind": ["digest", "other digest", "standing", "loss"],
    "flaw": [*APPROVAL_FLAWS, *LOADED_FLAWS],
    "agreed": [*REACHED, at(8), replace(FINISHED, unnamed=("last.pt",))],
    "agreed_home": [*REACHED, UNNAMED],
    "names": ["none", "half"],
    "unknown_too": [False],
}
CHANGES: dict[str, list[Any]] = {
    "verb": ["recycle"],
    "keeps": [(), ("disk",), ("fs",), ("disk", "fs"), ("diskette",)],
    "tiers": [("disk",), ("disk", "fs"), ("fs",)],
    "box_record": ["virgin", "used", "none", "damaged", "other_machine", "not_ours", "rebuilt"],
    "journalled_deploy": [True],
    "provider": [*RUNS, *REST, "offline", "unknown", "absent"],
    "started": ["", "before", "as it was read", "after", "soon"],
    "parked": ["", "before", "as it was read", "soon after", "in time", "late", "yesterday"],
    "recorded_start": ["", "before", "as it was read", "soon after", "yesterday"],
    "observed_unread": [True],
    "observed_age": [300, 301, -300, -301],
    "reading": ["ok", "none", "damaged"],
    "reading_flaw": list(READING_FLAWS),
    "age": [0, 300, 301, -60, -61, 9000],
    "live": [("r1/c0/a1",)],
    "unlisted": [("r9",)],
    "problems": [("index.json is half-written",)],
    "seal": ["ok", "none", "text", "foreign", "old", "runless"],
    "index": ["ok", "none", "text", "foreign", "old", "runless"],
    "contact_damaged": [True],
    "stray_receipt": [True],
    "runs": [(), (Run("r1"),), (Run("r1", receipt="none"),)],
    "newer": [
        "",
        "admitted",
        "overdue",
        "just due",
        "text",
        "not_admitted",
        "nameless",
        "same",
        "true",
        "other_box",
        "other_project",
    ],
    "approvals": [(), (Approval(),), (Approval("standing"),), (_LOSS,)],
}


def changes_of(case: Case) -> list[Case]:
    """Every case that differs from this one in a single value."""
    found = [replace(case, **{name: value}) for name, values in CHANGES.items() for value in values]
    for name, values in RUN_CHANGES.items():
        for value in values if case.runs else ():
            found.append(replace(case, runs=(replace(case.runs[0], **{name: value}), *case.runs[1:])))
    for name, values in APPROVAL_CHANGES.items():
        for value in values if case.approvals else ():
            found.append(replace(case, approvals=(replace(case.approvals[0], **{name: value}), *case.approvals[1:])))
    return found


def table() -> list[Case]:
    """Every base, and every base with one value changed; and what stays shut."""
    found: dict[Case, None] = dict.fromkeys(SHUT.values())
    for base in BASES.values():
        found.update(dict.fromkeys([base, *changes_of(base)]))
    return list(found)


def fields(case: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(case)]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A finished run whose receipt is lost with its state store, and whose box is gone: its results lie at home with the
manifest beside them, and nothing is rented to make them a second time.

Every byte is hashed against that manifest and every checkpoint loaded, as for a receipt; only then a record is made
again, which says so. It keeps a run from being run again and nothing else: it lies apart from the receipts, and the
gate, the approvals and the harvest do not know it. A machine that is still there is asked itself, and so is whatever
this state store has a record of: there a missing receipt means that the results never came home.
"""

from __future__ import annotations

import contextlib
import glob
import os
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import quote

from . import generations, parts, receipts, roster
from .box import locks, records
from .box.names import UnsafeName, check_name
from .box.refusal import Refused
from .failures import TenantFailure
from .journal import Journal
from .state_store import BoxIdentity, StateStore

_WHY = "its receipt was lost; every file was hashed against the manifest beside it and loaded again"


@dataclass(frozen=True)
class Asker:
    """The box that something would be rented or started for, and its machine; ``generation`` 0 when there is none."""

    box: str
    generation: int = 0
    provider_id: str = ""


@dataclass(frozen=True)
class _Share:
    """What one machine left at home; ``problem`` is why its manifest cannot be used."""

    root: str
    box: str
    generation: int
    manifest: roster.Manifest | None
    problem: str = ""

    def is_of(self, provider_id: str) -> bool:
        """Whether this machine may have left it: always, unless both ids are known and differ."""
        told = str(self.manifest.record.get("provider_id") or "") if self.manifest else ""
        return not (told and provider_id and told != provider_id)


@dataclass(frozen=True)
class Found:
    """The record by which the run counts as finished. ``news``: it was proven now, not before."""

    record: Mapping[str, Any]
    news: bool

    def __str__(self) -> str:
        record = self.record
        return (
            f"run {record['run_id']} is home already, from box {record['box']} g{record['generation']}, and its "
            f"receipt is lost: {record['files']} files were hashed against {record['rebuilt']['from']} and loaded at "
            f"{record['rebuilt']['at']}. Nothing more is rented, deployed or started for it; this opens no gate"
        )


def find(
    store: StateStore,
    project: str,
    spec: Mapping[str, Any],
    results_dir: str,
    asker: Asker,
    check_mode: bool = False,
) -> Found | None:
    """What lies at home of a finished run; None where nothing there says that it came to its end.

    :param spec: of the run: ``id``, ``spec_sha256`` and ``parts``.
    :param check_mode: prove it, and write nothing.
    :raises TenantFailure: ``evidence_missing`` where the asker would be rented although its results lie at home, and
        they cannot be proven right.
    """
    shares = _shares(store, project, spec, results_dir, asker) if results_dir else []
    named = _parts_of(spec)
    if not shares or not {share.box for share in shares} >= set(named):
        return None
    with contextlib.nullcontext() if check_mode else _lock(store, project, spec):
        proven, news, problems = _prove_all(store, project, spec, shares, check_mode)
    whole: dict[str, Any] = {}
    if named and not problems:
        whole, problems = _whole(spec, results_dir, project, proven)
    if proven and not (named and problems):
        return Found({**proven[0], **whole}, news)
    if not asker.generation:
        raise _unproven(spec, shares, problems, asker)
    return None


def last_record(store: StateStore, project: str, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest record of this very spec that was made so; None without one. Nothing is read again."""
    made = []
    for path in store.records_at_home(project, spec["id"]):
        with contextlib.suppress(records.RecordError):
            made.append(records.read_record(path, "receipt"))
    made = [one for one in made if one.get("spec_sha256") == spec["spec_sha256"] and one.get("complete") is True]
    return max(made, key=lambda one: str(one.get("verified_at")), default=None)


def _parts_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The boxes that all have to bring their share home; none where one box does the work."""
    named = tuple(str(name) for name in spec.get("parts") or [])
    return named if len(named) > 1 else ()


# --- what lies there ------------------------------------------------------------------------------------------------


def _shares(store: StateStore, project: str, spec: Mapping[str, Any], results_dir: str, asker: Asker) -> list[_Share]:
    """The newest generation first. What is of another spec, unfinished, or known to this store is none."""
    run_root = os.path.join(os.path.abspath(os.path.expanduser(results_dir)), project, check_name("run", spec["id"]))
    found = []
    for path in glob.glob(os.path.join(glob.escape(run_root), "*", "g*", roster.MANIFEST_NAME)):
        root = os.path.dirname(path)
        box, place = os.path.basename(os.path.dirname(root)), generations.PLACE.match(os.path.basename(root))
        if place is None or (_parts_of(spec) and box not in _parts_of(spec)):
            continue
        share = _read(root, box, int(place.group(1)))
        if _is_finished(share, project, spec) and not _answers_itself(store, project, share, asker):
            found.append(share)
    return sorted(found, key=lambda share: (-share.generation, share.box))


def _answers_itself(store: StateStore, project: str, share: _Share, asker: Asker) -> bool:
    """Whether its machine is there to be asked, or is one that this store knows. A lost store counts generations from
    1 again, so that another machine may bear the same number."""
    if (share.box, share.generation) == (asker.box, asker.generation) and share.is_of(asker.provider_id):
        return True
    try:
        record = store.read_box(project, share.box, share.generation)
    except UnsafeName:  # no box has such a name
        return True
    return record is not None and share.is_of(str(record.get("provider_id") or ""))


def _read(root: str, box: str, generation: int) -> _Share:
    try:
        return _Share(root, box, generation, roster.read_manifest(root))
    except roster.BadManifest as error:
        return _Share(root, box, generation, None, str(error))


def _is_finished(share: _Share, project: str, spec: Mapping[str, Any]) -> bool:
    """Whether its manifest says that this very spec came to its end there. One that cannot be read may say so."""
    manifest = share.manifest
    if manifest is None:
        return _may_be_of(share.root, spec)
    place = (manifest.project, manifest.run_id, manifest.box, manifest.generation)
    return (
        place == (project, spec["id"], share.box, share.generation)
        and manifest.record.get("spec_sha256") == spec["spec_sha256"]
        and manifest.record.get("state", "done") == "done"
        and not manifest.snapshot
        and bool(manifest.files)
    )


def _may_be_of(root: str, spec: Mapping[str, Any]) -> bool:
    try:
        record = records.read_record(os.path.join(root, roster.MANIFEST_NAME), "manifest")
    except records.RecordError:
        return True
    same = record.get("spec_sha256") == spec["spec_sha256"]
    return same and record.get("state", "done") == "done" and record.get("snapshot", False) is False


# --- the proof ------------------------------------------------------------------------------------------------------


def _prove_all(
    store: StateStore, project: str, spec: Mapping[str, Any], shares: Sequence[_Share], check_mode: bool
) -> tuple[list[dict[str, Any]], bool, list[str]]:
    """(records, whether one is new, problems): the newest share of each box that is right, and what is wrong with the
    boxes that have none."""
    news = False
    proven: dict[str, dict[str, Any]] = {}
    problems: dict[str, list[str]] = {}
    for share in shares:
        if share.box in proven:
            continue
        record = _kept(store, project, spec, share)
        if record is None:
            record, wrong = _prove(project, spec, share)
            problems.setdefault(share.box, []).extend(f"{share.root}: {problem}" for problem in wrong)
            news = news or record is not None
            if record is not None and not check_mode:
                _write(store, record)
        if record is not None:
            proven[share.box] = record
    return list(proven.values()), news, [text for box in problems if box not in proven for text in problems[box]]


def _kept(store: StateStore, project: str, spec: Mapping[str, Any], share: _Share) -> dict[str, Any] | None:
    """What was proven before, while the same manifest lies there for the same spec."""
    path = store.at_home_path(project, spec["id"], share.box, share.generation)
    try:
        record = records.read_record_or_none(path, "receipt")
    except records.RecordError:
        return None
    if record is None or share.manifest is None or not isinstance(record.get("copies"), list):
        return None
    said = (record.get("manifest_digest"), record.get("spec_sha256"), [copy.get("uri") for copy in record["copies"]])
    return record if said == (share.manifest.digest, spec["spec_sha256"], [_uri(share.root)]) else None


def _uri(root: str) -> str:
    return "file://" + quote(os.path.realpath(root))


def _prove(project: str, spec: Mapping[str, Any], share: _Share) -> tuple[dict[str, Any] | None, list[str]]:
    if share.manifest is None:
        return None, [share.problem]
    identity = BoxIdentity(project, share.box, share.generation, str(share.manifest.record.get("provider_id") or ""))
    claim = receipts.Claim(identity, share.root, share.manifest, "done", how="reread", parts=_parts_of(spec))
    verification = receipts.verify(claim.root, claim.manifest, claim.level, {}, spans=claim.spans)
    if verification.problems:
        return None, verification.problems
    record = receipts.compose(claim, verification)
    manifest = os.path.join(share.root, roster.MANIFEST_NAME)
    return dict(record, rebuilt={"why": _WHY, "from": manifest, "at": record["verified_at"]}), []


def _write(store: StateStore, record: Mapping[str, Any]) -> None:
    identity = BoxIdentity(*(record[name] for name in ("project", "box", "generation", "provider_id")))
    path = store.at_home_path(identity.project, record["run_id"], identity.box, identity.generation)
    with Journal(store).effect("rebuild-record", run_id=record["run_id"], **identity.as_dict()) as effect:
        records.write_record(path, "receipt", dict(record))
        effect.details.update({name: record[name] for name in ("manifest_digest", "files", "bytes")})


def _whole(
    spec: Mapping[str, Any], results_dir: str, project: str, proven: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """(what the record says of it, problems): whether shares of sharded files, each right by itself, load as one."""
    sharing = [record for record in proven if record["complete"] is not True]
    if not sharing:
        return {}, []
    folder = os.path.join(os.path.abspath(os.path.expanduser(results_dir)), project, spec["id"], parts.WHOLE)
    try:
        record = records.read_record(os.path.join(folder, roster.MANIFEST_NAME), "run-manifest")
    except records.RecordError as error:
        return {}, [f"the whole in {folder}: {error}"]
    listed = [part for part in record.get("parts") or [] if isinstance(part, dict)]
    made_of = {(part.get("box"), part.get("generation"), part.get("manifest_digest")) for part in listed}
    if made_of != {(one["box"], one["generation"], one["manifest_digest"]) for one in sharing}:
        return {}, [f"the whole in {folder} was made of other shares than those that lie there now"]
    said = {"uri": _uri(folder), "sha256": record.get("digest")}
    problems = parts.reread_whole({"whole": said})[1]
    return {"complete": True, "incomplete_because": [], "waits_for": [], "whole": said}, problems


@contextlib.contextmanager
def _lock(store: StateStore, project: str, spec: Mapping[str, Any]) -> Iterator[None]:
    """Sixteen boxes of one run hash its results once."""
    path = os.path.join(os.path.dirname(store.at_home_path(project, spec["id"], "any", 1)), ".lock")
    try:
        with locks.exclusive(path, parts.LOCK_WITHIN_S, f"the results of run {spec['id']} at home"):
            yield
    except Refused as refused:
        fix = "wait for whoever reads them, then run the same command again"
        raise TenantFailure("lease_held", refused.what, safe="nothing was rented", fix=fix) from refused


def _unproven(
    spec: Mapping[str, Any], shares: Sequence[_Share], problems: Sequence[str], asker: Asker
) -> TenantFailure:
    shown = "; ".join(problems[:10]) + (f" and {len(problems) - 10} more" if len(problems) > 10 else "")
    folders = ", ".join(share.root for share in shares)
    return TenantFailure(
        "evidence_missing",
        f"this state store has no receipt of run {spec['id']}, and results of this very spec lie at home that are not "
        f"what was promised: {shown}",
        box=asker.box,
        safe="nothing was rented, and nothing at home was touched",
        fix=f"put the state store or the files back from a backup; to have it trained again, rename {folders} "
        "(.old at its end will do), then run the same command again",
    )

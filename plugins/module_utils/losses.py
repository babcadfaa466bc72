# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What would be lost if a box went now: how far its runs got, against what is home, whole and loaded.

Pure. The same look composes the loss that a person consents to, and finds out whether it has grown since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from . import copies, home_contents, last_contact, roster, standstill
from .box import records
from .evidence import Evidence, ReceiptEvidence, runs_of
from .last_contact import Reached
from .rented_box import WORKING

_LOADED = ("load", "expect")


@dataclass(frozen=True)
class HomeCopy:
    """The furthest verified copy of a cell: where it lies, of which box, since when.

    ``doubt`` is said of one that does not count because nobody knows of which work of the cell it is.
    """

    reached: Reached = field(default_factory=Reached)
    uri: str = ""
    source: str = ""
    verified_at: str = ""
    doubt: str = ""

    def __str__(self) -> str:
        if self.reached == Reached():
            return f"none{self.doubt}"
        return f"{self.reached}, of {self.source}, verified {self.verified_at}, in {self.uri}"


@dataclass(frozen=True)
class Loss:
    """By ``run/cell``: how far it was known to be, and its best copy. ``unknown`` names what nobody can count."""

    known: Mapping[str, Reached]
    home: Mapping[str, HomeCopy]
    unknown: tuple[str, ...]
    seen_at: str

    def of_cell(self, cell: str) -> HomeCopy:
        return self.home.get(cell, HomeCopy())

    def reach_of(self, cell: str) -> str:
        """How far a cell is known to have got and how far it is home, in words."""
        known, home = self.known[cell], self.of_cell(cell)
        lacking = "" if home.reached == Reached() else known.series_words(home.reached)
        return f"{cell} got to {known}; last durable copy: {home}{f', without {lacking}' if lacking else ''}"

    @property
    def cells(self) -> list[str]:
        """The cells that got further than their best copy."""
        return [cell for cell in sorted(self.known) if not self.of_cell(cell).reached.at_least(self.known[cell])]

    def words(self) -> list[str]:
        """The loss in sentences without end marks, the copies that remain named."""
        told = [self._cell_words(cell) for cell in self.cells]
        told += [f"{cell}: nothing that is known of; last durable copy: {self.home[cell]}" for cell in self._covered()]
        told += list(self.unknown)
        return [*told, f"whatever it wrote after {self.seen_at}" if self.seen_at else "all that it holds"]

    def _covered(self) -> list[str]:
        return [cell for cell in sorted(self.home) if cell not in self.cells]

    def _cell_words(self, cell: str) -> str:
        known, home = self.known[cell], self.of_cell(cell)
        lost = [what for what in (_named_loss(known, home.reached), known.unnamed_words()) if what]
        return f"{cell}: {' and '.join(lost)}; last durable copy: {home}"

    def as_binds(self) -> dict[str, Any]:
        """What an approval of this loss carries."""
        cells = {
            cell: {"known": self.known[cell].as_dict(), "home": self.of_cell(cell).reached.as_dict()}
            for cell in self.cells
        }
        return {"kind": "loss", "loss": "; ".join(self.words()), "cells": cells, "unknown": list(self.unknown)}


def _named_loss(known: Reached, home: Reached) -> str:
    """What the names of the checkpoints and the done record tell of a loss; empty when nothing of it is beyond home."""
    if known.done and not home.done:
        return "its finished results"
    if home.furthest(known).step == home.step:
        return known.series_words(home)
    return f"everything up to step {known.step}" if home.step is None else f"steps {home.step} to {known.step}"


def of(evidence: Evidence) -> Loss:
    """The loss by the evidence as it was gathered."""
    reading = evidence.seen
    seen = last_contact.parse(reading.get("checkpoints"))
    known = last_contact.merged(seen or {}, evidence.contact)
    home: dict[str, HomeCopy] = {}
    for run_id in sorted({*known, *evidence.receipts}):
        home.update({f"{run_id}/{cell}": copy for cell, copy in copies_of_run(evidence, run_id).items()})
    return Loss(
        {f"{run_id}/{cell}": reached for run_id, cells in known.items() for cell, reached in cells.items()},
        home,
        tuple(_unknown(evidence, seen is None)),
        str(reading.get("read_at") or ""),
    )


def _unknown(evidence: Evidence, steps_unread: bool) -> list[str]:
    """What cannot be counted. Without times, so that the same ignorance reads the same later."""
    if evidence.reading_problem:
        return ["which runs it holds: the last look at it cannot be trusted"]
    reading = evidence.reading
    if reading is None:
        return ["which runs it holds: no look at it is recorded"]
    if any(reading.get(key) != value for key, value in evidence.identity.as_dict().items()):
        return ["which runs it holds: the last look was at another machine"]
    told = []
    if runs_of(reading.get("index")) is None and reading.get("index") is not None:
        told.append("which runs it holds: its index cannot be read")
    if steps_unread or evidence.contact_problem:
        told.append("how far its runs got")
    for name, what in (("unlisted_runs", "run {}, which its index does not list"), ("live_cells", "the live cell {}")):
        found = reading.get(name)
        told += [what.format(item) for item in found] if isinstance(found, list) else [f"its {name} cannot be read"]
    problems = reading.get("problems")
    told += [str(problem) for problem in problems] if isinstance(problems, list) else ["its problems cannot be read"]
    if _may_have_run_since(evidence):
        told.append("what it wrote since it was started again, or writes now")
    return told


def _may_have_run_since(evidence: Evidence) -> bool:
    """Whether the box runs and was not seen just now, or was started since. An offline host says neither."""
    if evidence.provider.state in WORKING:
        return bool(standstill.why_not_still(evidence))
    return bool(standstill.why_restarted(evidence))


# --- what is home -------------------------------------------------------------------------------------------------


def copies_of_run(evidence: Evidence, run_id: str) -> dict[str, HomeCopy]:
    """By cell, the furthest copy of a run that was verified, loaded, and is whole now; of whichever box."""
    own = evidence.receipts.get(run_id)
    found: dict[str, HomeCopy] = {}
    doubtful: list[tuple[str, Mapping[str, Any]]] = []
    for receipt in [*([own] if own else []), *evidence.elsewhere.get(run_id, ())]:
        writer = evidence.seen if receipt is own else {}
        if receipt.record is not None and not _why_not_verified(evidence, run_id, receipt.record, receipt, writer):
            _add_cells(found, receipt.record, receipt)
            doubtful += [(cell, receipt.record) for cell in receipt.contents.untold]
    for cell, record in doubtful:
        found.setdefault(cell, HomeCopy(doubt=_doubt(record)))
    return found


def _doubt(record: Mapping[str, Any]) -> str:
    """An earlier version noted less, and on a box that has another work of the cell by now it may be of either."""
    source = f"{record.get('box')} g{record.get('generation')}"
    return f" that counts: that of {source} does not say which of its files are of the present spec; harvest it again"


def _why_not_verified(
    evidence: Evidence, run_id: str, record: Mapping[str, Any], receipt: ReceiptEvidence, writer: Mapping[str, Any]
) -> str:
    """Why a receipt proves no copy; empty when it does. It may be of a snapshot, but what it names must be whole."""
    if receipt.problem or record.get("schema") != records.schema("receipt"):
        return "there is no receipt that can be trusted"
    spec = _spec_of(evidence, run_id)
    if (record.get("project"), record.get("run_id")) != (evidence.identity.project, run_id):
        return "it is of another run"
    if spec is not None and record.get("spec_sha256") != spec:
        return "it is of another spec"
    if _is_another_share(record, evidence):
        return "it is another box's part of a run whose whole was not put together"
    if record.get("level") not in _LOADED or not all_checks_passed(record.get("checks")):
        return "its files were not loaded"
    listed = record.get("copies")
    entries = listed if isinstance(listed, list) else []
    named = [copy.get("uri") for copy in entries if isinstance(copy, Mapping)]
    if len(named) != len(entries) or named != [copy.uri for copy in receipt.copies]:
        return "its copies were not re-read"
    if any(copy.problems or copy.digest != record.get("manifest_digest") for copy in receipt.copies):
        return "its copies are not whole"
    if any(copies.why_not_independent(copy, writer) for copy in receipt.copies):
        return "its copies were read by their writer"
    return "" if any(copies.survives(copy, evidence.keeps) for copy in receipt.copies) else "its copies would go too"


def _is_another_share(record: Mapping[str, Any], evidence: Evidence) -> bool:
    """Boxes of one run have the same cells and each its own part of them: one part is no copy of another."""
    parts = record.get("parts") or []
    several = not isinstance(parts, list) or len(parts) > 1
    return several and record.get("whole") is None and record.get("box") != evidence.identity.box


def all_checks_passed(checks: object) -> bool:
    return isinstance(checks, list) and all(isinstance(check, dict) and check.get("ok") is True for check in checks)


def _spec_of(evidence: Evidence, run_id: str) -> object:
    """The spec that the box's index names for a run; None when the index does not list the run."""
    for run in runs_of(evidence.seen.get("index")) or []:
        if run["run_id"] == run_id:
            spec = run.get("spec_sha256")
            return spec if roster.is_sha256(spec) else "a spec that its index does not name"
    return None


def _add_cells(found: dict[str, HomeCopy], record: Mapping[str, Any], receipt: ReceiptEvidence) -> None:
    source, uri = f"{record.get('box')} g{record.get('generation')}", receipt.copies[0].uri
    for cell, reached in home_contents.reached(record["checks"], receipt.contents).items():
        copy = HomeCopy(reached, uri, source, str(record.get("verified_at")))
        known = found.get(cell)
        if known is None or (not known.reached.includes(reached) and reached.includes(known.reached)):
            found[cell] = copy
        elif not known.reached.includes(reached):
            # One has the later step, the other the finished cell: together they hold both.
            both, uris = known.reached.furthest(reached), f"{known.uri} and {copy.uri}"
            found[cell] = HomeCopy(both, uris, f"{known.source} and {source}", copy.verified_at)


# --- has it grown -------------------------------------------------------------------------------------------------


def growth(binds: Mapping[str, Any], loss: Loss) -> list[str]:
    """What would be lost now and was not consented to; empty when the consent covers the loss."""
    if binds["kind"] != "loss":
        return ["no loss was consented to"]
    agreed, unknown = binds["cells"], binds["unknown"]
    more = [f"{cell}: {_cell_growth(agreed.get(cell), loss, cell)}" for cell in loss.cells]
    more = [line for line in more if not line.endswith(": ")]
    return more + [what for what in loss.unknown if what not in unknown]


def _cell_growth(agreed: object, loss: Loss, cell: str) -> str:
    pair = last_contact.parse({"r": agreed}) if isinstance(agreed, Mapping) else None
    if pair is None or set(pair["r"]) != {"known", "home"}:
        return "its loss was not named"
    if not pair["r"]["known"].includes(loss.known[cell]):
        return _further(pair["r"]["known"], loss.known[cell])
    if not loss.of_cell(cell).reached.includes(pair["r"]["home"]):
        return "its best copy is not what it was"
    return ""


def _further(agreed: Reached, known: Reached) -> str:
    if agreed.furthest(known).step != agreed.step:
        return f"it got further since, to step {known.step}"
    return f"it got further since: {known}"

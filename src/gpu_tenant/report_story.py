# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What happened to the boxes of a report: interruptions, recoveries, checkpoints brought home, receipts, losses.

The journal tells it for every controller that shares the state store; a runner's own history adds what it saw.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import accrual, copies, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress import parse_lines

from gpu_tenant import money_ladder
from gpu_tenant.recoveries import RECOVER, RECOVERED
from gpu_tenant.risk import PULLED

INTERRUPTION, RECOVERY, CHECKPOINT, RESUMED, ACT, RECEIPT, BUDGET = (
    "interruption",
    "recovery",
    "checkpoint",
    "resumed",
    "act",
    "receipt",
    "budget",
)
_ACTS = ("rent", "start", "seen-started", "stop", "destroy", accrual.SEEN_GONE)
# More points than a screen has columns tell nothing more.
MOST_POINTS = 400
# Of a metrics file of home; more than this is the log of another program.
MOST_BYTES = 64 * 1024 * 1024
_METRICS = "metrics.jsonl"


def events(
    lines: Iterable[Mapping[str, Any]],
    history: Iterable[Mapping[str, Any]],
    receipts: Iterable[Mapping[str, Any]],
    boxes: Iterable[str],
) -> list[dict[str, Any]]:
    """Everything that happened to ``boxes``, oldest first, as ``{at, kind, box, generation, run, text}``."""
    named = set(boxes)
    found = [_of_journal(line) for line in lines]
    found += [_of_history(line) for line in history]
    found += [_of_receipt(receipt) for receipt in receipts]
    kept = [event for event in found if event is not None and event["box"] in named and accrual.is_moment(event["at"])]
    return sorted(kept, key=lambda event: (event["at"], event["box"]))


def _of_journal(line: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, verb = line.get("kind"), str(line.get("verb"))
    if verb == RECOVER and kind == "intent":
        rung = str(line.get("rung") or "").replace("_", " ")
        return _event(line, RECOVERY, f"{rung}: {line.get('why') or 'no reason was noted'}")
    if kind != "effect":
        return None
    if verb == RECOVERED:
        return _event(line, RECOVERY, "it trains again")
    if verb == PULLED:
        return _event(line, CHECKPOINT, _at_step("checkpoints came home", line.get("step")))
    if verb in (money_ladder.BUDGET, money_ladder.PROJECT_BUDGET):
        return _event(line, BUDGET, money_ladder.told_by(line))
    if verb in _ACTS:
        rule = f" ({line['rule']})" if line.get("rule") else ""
        return _event(line, ACT, f"{verb}{rule}")
    return None


def _of_history(line: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, step = line.get("kind"), line.get("step")
    if kind == "interruption":
        return _event(line, INTERRUPTION, _at_step(str(line.get("why") or "interrupted"), step))
    if kind == "resumed":
        return _event(line, RESUMED, _at_step("training went on", step))
    return _event(line, CHECKPOINT, _at_step("checkpoints came home", step)) if kind == "pull" else None


def _of_receipt(receipt: Mapping[str, Any]) -> dict[str, Any]:
    state = "complete" if receipt.get("complete") is True else "not complete"
    line = {**receipt, "at": receipt.get("verified_at")}
    return _event(line, RECEIPT, f"receipt of {receipt.get('run_id')} ({state}): {receipt.get('files')} files verified")


def _event(line: Mapping[str, Any], kind: str, text: str) -> dict[str, Any]:
    generation = line.get("generation")
    return {
        "at": str(line.get("at")),
        "kind": kind,
        "box": str(line.get("box")),
        "generation": generation if records.is_count(generation) else 0,
        "run": str(line.get("run_id") or ""),
        "text": text,
    }


def _at_step(text: str, step: object) -> str:
    return f"{text} (step {step})" if records.is_count(step) else text


# --- receipts -------------------------------------------------------------------------------------------------------


def receipt_rows(receipts: Iterable[Mapping[str, Any]], boxes: Iterable[str]) -> list[dict[str, Any]]:
    """What a reader asks of the receipts of ``boxes``, as harvest wrote it: no copy is read again."""
    named = set(boxes)
    return [_receipt_row(receipt) for receipt in receipts if receipt.get("box") in named]


def _receipt_row(receipt: Mapping[str, Any]) -> dict[str, Any]:
    left = receipt.get("not_pulled_totals") or {}
    loaded = [check for check in receipt.get("checks") or [] if isinstance(check, Mapping) and check.get("ok") is True]
    return {
        "run": str(receipt.get("run_id")),
        "box": str(receipt.get("box")),
        "generation": receipt.get("generation"),
        "complete": receipt.get("complete") is True,
        "lacks": [str(why) for why in receipt.get("incomplete_because") or []],
        "files": receipt.get("files"),
        "bytes": receipt.get("bytes"),
        "loaded": len(loaded),
        "not_pulled": {name: left.get(name, 0) for name in ("files", "bytes")},
        "copies": [str(copy.get("uri")) for copy in receipt.get("copies") or [] if isinstance(copy, Mapping)],
        "manifest_digest": str(receipt.get("manifest_digest") or ""),
        "verified_at": str(receipt.get("verified_at") or ""),
    }


# --- losses ---------------------------------------------------------------------------------------------------------


def curves(receipts: Sequence[Mapping[str, Any]], boxes: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The losses by step of every attempt whose metrics are at home, and what could not be read, in sentences."""
    named = set(boxes)
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for receipt in receipts:
        folder = _home_of(receipt) if receipt.get("box") in named else ""
        if not folder:
            continue
        try:
            manifest = roster.read_manifest(folder)
        except roster.BadManifest as error:
            notes.append(f"no losses of {receipt.get('run_id')} on {receipt.get('box')}: {error}")
            continue
        for file in manifest.files:
            if file.role == "metrics" and os.path.basename(file.path) == _METRICS:
                found += _curve(folder, file.path, manifest)
    return found, notes


def _home_of(receipt: Mapping[str, Any]) -> str:
    """The folder on this machine that the receipt's files are in; empty when there is none."""
    listed = [copy for copy in receipt.get("copies") or [] if isinstance(copy, Mapping)]
    folders = [copies.folder_of(str(copy.get("uri"))) for copy in listed]
    return next((folder for folder in folders if folder and os.path.isdir(folder)), "")


def _curve(folder: str, path: str, manifest: roster.Manifest) -> list[dict[str, Any]]:
    points = _points(os.path.join(folder, path))
    cell, _slash, rest = path.partition("/")
    attempt = rest.partition("/")[0].removeprefix("a")
    facts = {"run": manifest.run_id, "box": manifest.box, "generation": manifest.generation}
    return [{**facts, "cell": cell, "attempt": attempt, "points": thinned(points)}] if points else []


def _points(path: str) -> list[tuple[float, float]]:
    """Step and loss of every line that has both. A link or a device is not followed, whatever the manifest says."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        data = stream.read(MOST_BYTES)
    pairs = [(records.finite(line.get("step")), records.finite(line.get("loss"))) for line in parse_lines(data)]
    return [(step, loss) for step, loss in pairs if step is not None and loss is not None]


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[list[float]]:
    """At most ``most`` points: of each stretch the lowest and the highest loss, so that no spike is lost."""
    if len(points) <= most:
        return [list(point) for point in points]
    kept: list[list[float]] = []
    stretches = max(most // 2, 1)
    for number in range(stretches):
        stretch = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += [list(point) for point in sorted(ends, key=stretch.index)]
    return kept

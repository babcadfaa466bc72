# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Older checkpoints of a finished cell leave the box's disk, once its results are on the durable mount and its done
record says so. The best and the newest sound one stay, and so does whatever the done record promises: the seal and the
harvest read that again. Where any of it is in doubt, everything stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import Any, Callable, NamedTuple

from . import artifacts, attempt, checkpoint_manifest, globs, half_saved, records, run_record
from .layout import AttemptPaths, Layout
from .prune_modes import NONE, OLDER, mode_of
from .step_name import series_of

_QUARANTINE = "quarantine"


class Checkpoint(NamedTuple):
    """One checkpoint of one attempt; ``unit`` as :func:`artifacts.checkpoint_units` gives it."""

    paths: AttemptPaths
    unit: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.unit["step"])

    @property
    def where(self) -> str:
        return os.path.join(self.paths.output, self.unit["key"])

    @property
    def name(self) -> str:
        return f"{self.paths.relative}/out/{self.unit['key']}"

    def sizes(self) -> dict[str, int]:
        """Bytes of its files, by their paths in the run's folder."""
        return {f"{self.paths.relative}/out/{entry['path']}": entry["bytes"] for entry in self.unit["files"]}

    def is_named_by(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.match(entry["path"]) for entry in self.unit["files"])


class _Verdict(NamedTuple):
    """Of one series: what stays for a resume and for people, what nobody needs, or why nothing is touched."""

    stay: list[Checkpoint]
    spare: list[Checkpoint]
    why_not: str = ""


# --- after the done record ------------------------------------------------------------------------------------


def is_due(layout: Layout, run: dict[str, Any], paths: AttemptPaths) -> bool:
    """Whether a finished attempt still has to be pruned after: its copy is synced, its done record written."""
    # Boxes that train as one may have to go on together from an older step than the newest that lies here.
    if mode_of(run["checkpoint"]) == NONE or run["nodes"] or os.path.lexists(layout.seal):
        return False
    done = attempt.read(paths.done, "done")
    synced = (done.get("durable") or {}).get("state") == "synced"
    return synced and not attempt.read(paths.pruned, "pruned").get("finished_at")


def prune(layout: Layout, run: dict[str, Any], cell_id: str, number: int) -> dict[str, Any] | None:
    """Prune after attempt ``number``, which is done; the record of it, None when nothing may be pruned.

    Never raises: what goes wrong is a ``problem`` of the record, and tried again by the next supervisor.
    """
    paths = layout.attempt(run["run_id"], cell_id, number)
    keys = attempt.work(run, run_record.cell_of(run, cell_id), number)
    try:
        return _prune(layout, run, paths, keys) if is_due(layout, run, paths) else None
    except Exception as error:
        return _tell(paths, dict(keys, kept=[], removed=[], problems=[f"{type(error).__name__}: {error}"]))


def sentences(record: dict[str, Any]) -> list[str]:
    """What a record of :func:`prune` says to people; nothing when there was nothing to do."""
    removed = record["removed"]
    total = sum(each["bytes"] for each in removed)
    done = [f"{len(removed)} older checkpoints pruned ({total} bytes), as {record['kept']} stay"] if removed else []
    failed = [f"pruning failed, the next start tries again: {each}" for each in record["problems"]]
    return [*done, *failed, *record.get("why_kept", [])]


def _prune(layout: Layout, run: dict[str, Any], paths: AttemptPaths, keys: dict[str, Any]) -> dict[str, Any]:
    done = attempt.read(paths.done, "done")
    promised = {line["path"]: line["bytes"] for line in done["artifacts"]}
    copied = {line["path"]: line["bytes"] for line in done.get("durable_only") or []}
    doubtful = {f"{paths.relative}/out/{each['path']}" for each in done.get("skipped") or []}
    attempts = _attempts(layout, run, paths)
    for each in attempts:
        half_saved.remove(each.checkpoints)
    spare: list[Checkpoint] = []
    kept, problems = [], []
    for series in _series(run, attempts):
        if len(series) < 2 or all(one.sizes().keys() & promised.keys() for one in series):
            continue  # nothing could go, so nothing need be read
        verdict = _judge(run, series, {**promised, **copied})
        spare += [one for one in verdict.spare if not one.sizes().keys() & (promised.keys() | doubtful)]
        kept += [one.name for one in verdict.stay]
        problems += [verdict.why_not] if verdict.why_not else []
    removed = {each["path"]: each for each in attempt.read(paths.pruned, "pruned").get("removed") or []}
    removed.update({one.name: {"path": one.name, "bytes": sum(one.sizes().values())} for one in spare})
    record = dict(keys, kept=kept, removed=list(removed.values()), why_kept=problems, problems=[], finished_at=None)
    if spare:
        # First, so that what is gone is told even by a box that stops in the midst of it.
        _tell(paths, record)
    failed = {one.name: why for one, why in ((one, _remove(one)) for one in spare) if why}
    gone = [each for each in removed.values() if each["path"] not in failed]
    finished_at = None if failed else records.utc_now()
    return _tell(paths, dict(record, removed=gone, problems=list(failed.values()), finished_at=finished_at))


def _tell(paths: AttemptPaths, record: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(OSError):  # a full disk is what pruning is for
        records.write_record(paths.pruned, "pruned", record)
    return record


def _attempts(layout: Layout, run: dict[str, Any], done: AttemptPaths) -> list[AttemptPaths]:
    """The attempt that is done, then the others that did the same work and live no more, newest first."""
    cell_id = done.relative.split("/")[0]
    found = [done]
    keys = attempt.work(run, run_record.cell_of(run, cell_id), done.number)
    for number in reversed(layout.attempt_numbers(run["run_id"], cell_id)):
        paths = layout.attempt(run["run_id"], cell_id, number)
        same = attempt.is_same_work(attempt.work_of(paths), keys)
        if number != done.number and same and not attempt.is_alive(paths):
            found.append(paths)
    return found


def _remove(one: Checkpoint) -> str:
    """Remove a checkpoint; why it could not be, empty when it is gone."""
    try:
        if os.path.isdir(one.where) and not os.path.islink(one.where):
            # Under the name of what is not whole: nobody takes a half removed folder for a checkpoint.
            hidden = os.path.join(os.path.dirname(one.where), f".{os.path.basename(one.where)}.tmp")
            os.rename(one.where, hidden)
            shutil.rmtree(hidden)
        else:
            os.unlink(one.where)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{one.name} could not be removed: {error.strerror or error}"
    return ""


# --- before the done record -----------------------------------------------------------------------------------


def split(
    run: dict[str, Any], paths: AttemptPaths, roster: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A roster that lies on the mount, as what the done record promises of this box and what is left to the mount.

    The second is empty unless the run asks for it (``checkpoint: {prune: older}``).
    """
    if mode_of(run["checkpoint"]) != OLDER or run["nodes"]:
        return roster, []
    try:
        left = _left_to_the_mount(run, paths, roster)
    except Exception:
        # What cannot be judged is promised as ever; the pruning that follows meets the same and tells it.
        left = set()
    return [line for line in roster if line["path"] not in left], [line for line in roster if line["path"] in left]


def _left_to_the_mount(run: dict[str, Any], paths: AttemptPaths, roster: list[dict[str, Any]]) -> set[str]:
    known = {line["path"]: line["bytes"] for line in roster if line["role"] == "checkpoint"}
    patterns = [globs.regex(entry["glob"]) for entry in run["artifacts"]]
    left: set[str] = set()
    for series in _series(run, [paths]):
        copied = [one for one in series if one.sizes().keys() <= known.keys()]
        # Each glob of the run spec keeps what proves it.
        proofs = [next((one for one in copied if one.is_named_by(pattern)), None) for pattern in patterns]
        for one in _judge(run, copied, known).spare:
            if one not in proofs:
                left |= one.sizes().keys()
    return left


# --- which ones -----------------------------------------------------------------------------------------------


def _series(run: dict[str, Any], attempts: list[AttemptPaths]) -> list[list[Checkpoint]]:
    """Checkpoints of one series, in the order of ``attempts`` and then newest first: steps of two
    models or two folds say nothing of each other."""
    found: dict[str, list[Checkpoint]] = {}
    for paths in attempts:
        for unit in artifacts.checkpoint_units(paths.output, run["artifacts"]):
            if unit["step"] is not None and _QUARANTINE not in unit["key"].split("/"):
                found.setdefault(series_of(unit["key"]), []).append(Checkpoint(paths, unit))
    return list(found.values())


def _judge(run: dict[str, Any], series: list[Checkpoint], verified: dict[str, int]) -> _Verdict:
    """:param verified: files that were hashed and copied a moment ago, with their sizes; they are not read again."""

    def is_sound(one: Checkpoint) -> bool:
        if all(verified.get(path) == size for path, size in one.sizes().items()):
            return True
        return artifacts.is_sound(one.paths.output, one.unit, run_record.is_part(run))

    anchor = _first(series, is_sound)
    if anchor is None:
        return _Verdict([], [], "none of the checkpoints is sound, so all of them stay" if series else "")
    about = checkpoint_manifest.about(anchor.where)
    if about is None or "best" not in about:
        why = f"{anchor.name} does not say which checkpoint is the best, so all of its series stay"
        return _Verdict([anchor], [], why)
    stay = [anchor]
    if about["best"] not in (None, anchor.step):
        best = _first([one for one in series if one.step == about["best"]], is_sound)
        if best is None:
            why = f"the best checkpoint (step {about['best']}) is nowhere sound, so all of its series stay"
            return _Verdict(stay, [], why)
        stay.append(best)
    # What comes before the anchor is later, or damaged: neither is ours to remove.
    behind = series[series.index(anchor) + 1 :]
    return _Verdict(stay, [one for one in behind if one.step <= anchor.step and one not in stay])


def _first(series: list[Checkpoint], wanted: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    return next((one for one in series if wanted(one)), None)

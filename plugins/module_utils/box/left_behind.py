# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What lies in the folders of a run and is not in its manifest: it dies with the box, so leaving it is a decision."""

from __future__ import annotations

import heapq
import os
import re
import stat
from typing import Any

from . import artifacts, attempt, globs, policy, records, run_record
from .layout import Layout
from .names import is_temporary, printable
from .step_name import step_in, unit_of

# The largest ones are named, the totals cover all.
MOST_LISTED = 200
_SHOWN = 3
_ATTEMPT = re.compile(r"(?P<cell>[^/]+)/a(?P<number>[0-9]+)/(?P<inner>.+)\Z", re.DOTALL)
# Of the supervisor, and of tenant_checkpoint.
_RECORDS = re.compile(
    r"(claim|status|exit|stop|progress|done|pruned)\.json|shim\.lock|reserve-[0-9]+|snapshot/metrics\.jsonl"
    r"|out/checkpoints/attempts\.json"
)
_ROLES = {"metrics.jsonl": "metrics", "run.log": "log", "run.log.1": "log"}


def listing(layout: Layout, run_id: str, manifest: dict[str, Any], most: int = MOST_LISTED) -> dict[str, Any]:
    """``{files, bytes, listed: [{path, bytes, why}], summary}``: totals over everything, the ``most`` largest named."""
    promised = {line["path"] for line in manifest["files"]}
    attempts = {tuple(path.split("/")[:2]) for path in promised}
    made_under = manifest.get("policy")
    chosen = policy.of_record(made_under) if made_under else policy.read(layout, run_id)
    judge = _Judge(layout, run_id, attempts, chosen)
    found: list[dict[str, Any]] = []
    for path, info in artifacts.files_below(layout.run_dir(run_id)):
        why = "" if path in promised else judge.why(path, info.st_mode)
        if why:
            found.append({"path": printable(path), "bytes": info.st_size, "why": printable(why)})
    largest = heapq.nsmallest(most, found, key=lambda each: (-int(each["bytes"]), each["path"]))
    total = sum(int(each["bytes"]) for each in found)
    return {"files": len(found), "bytes": total, "listed": largest, "summary": summary(len(found), total, largest)}


def summary(count: int, total: int, largest: list[dict[str, Any]]) -> str:
    """One sentence for people; empty when nothing stays behind. ``largest`` as in :func:`listing`."""
    if not count:
        return ""
    named = ", ".join(f"{each['path']} ({each['why']})" for each in largest[:_SHOWN])
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    files = "1 file" if count == 1 else f"{count} files"
    return f"{files} ({total} bytes) of the run stay on the box and die with it: {named}{more}"


class _Judge:
    """:param attempts: (cell, aN) of every attempt that the manifest takes files from.
    :param chosen: the policy that the manifest was made under.
    """

    def __init__(self, layout: Layout, run_id: str, attempts: set[tuple[str, ...]], chosen: policy.Policy) -> None:
        self._layout, self._run_id, self._attempts = layout, run_id, attempts
        self._policy = chosen
        try:
            self._declared = run_record.read_run(layout, run_id)["artifacts"]
        except records.RecordError:
            self._declared = []
        self._patterns = [(globs.regex(entry["glob"]), entry["role"]) for entry in self._declared]
        self._skipped: dict[tuple[str, int], dict[str, str]] = {}

    def why(self, path: str, mode: int) -> str:
        """Why a file is not in the manifest; empty for our own records and for what came from home itself."""
        match = _ATTEMPT.match(path)
        if match is None:
            return "" if path.count("/") == 0 or path.split("/")[1] == "resume" else "it is not of any attempt"
        cell, number, inner = match.group("cell"), int(match.group("number")), match.group("inner")
        if _RECORDS.fullmatch(inner):
            return ""
        if not stat.S_ISREG(mode):
            return "it is a symlink" if stat.S_ISLNK(mode) else "it is not a plain file"
        inside_out = inner[len("out/") :] if inner.startswith("out/") else inner
        skipped = self._skipped_of(cell, number).get(inside_out)
        return skipped or self._why_of(cell, number, inside_out, self._role(inner, inside_out))

    def _why_of(self, cell: str, number: int, inner: str, role: str) -> str:
        chosen = self._policy.why_left(inner, role or "other")
        if chosen and (role or chosen.startswith("harvest_exclude")):
            return chosen
        if is_temporary(inner):
            return "its name is a temporary one"
        if not role:
            return "no artifact glob names it"
        if role == "checkpoint" and step_in(unit_of(inner)) is None:
            return "a checkpoint whose name says no step: another one came home in place of it, or it is not sound"
        if role == "checkpoint":
            return "an older checkpoint, or one that is not sound"
        other = (cell, f"a{number}") not in self._attempts
        return "of an attempt that another one replaced" if other else "it was still being written"

    def _role(self, inner: str, inside_out: str) -> str:
        if inner in _ROLES:
            return _ROLES[inner]
        return next((role for pattern, role in self._patterns if pattern.match(inside_out)), "")

    def _skipped_of(self, cell: str, number: int) -> dict[str, str]:
        """What the verification of a finished attempt left out, and why."""
        key = (cell, number)
        if key not in self._skipped:
            path = os.path.join(self._layout.run_dir(self._run_id), cell, f"a{number}", "done.json")
            done = attempt.read(path, "done")
            entries = [each for each in done.get("skipped") or [] if isinstance(each, dict)]
            self._skipped[key] = {str(each.get("path")): str(each.get("why")) for each in entries}
        return self._skipped[key]

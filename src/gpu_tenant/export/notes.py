# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run spec asks for and an exported job does not do: said, never dropped in silence."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

_WIDTH = 116
# key of the spec: what is not done for it there.
_LEFT_OUT = {
    "candidates": "the target chooses machines by itself",
    "budget": "the target knows no cap on money, so nothing ends the job when it is spent",
    "smoke": "it is not run before machines are rented: run it yourself",
    "evaluate": "it is not run afterwards: run it on the results",
    "requirements": "they must be installed where the job runs",
    "inputs": "they are neither fetched nor verified there: they must lie in the folder that was named",
    "progress": "nobody reads how far the trainer is",
}


def notes(spec: Mapping[str, Any], where: str, resources: Collection[str], done: Collection[str] = ()) -> list[str]:
    """Sentences for what is left out.

    :param where: where the results stay.
    :param resources: keys of ``resources`` that the target was told.
    :param done: keys of the spec that it does after all.
    """
    found = [
        f"artifacts: they stay in {where}; they are neither verified nor brought home, and no receipt is written",
    ]
    found += [
        f"{key} {_shown(spec[key])}: {why}" for key, why in _LEFT_OUT.items() if key not in done and spec.get(key)
    ]
    left = {key: value for key, value in spec["resources"].items() if key not in resources}
    if left:
        found.append(f"resources {_shown(left)}: the target is not told, and no box is probed for it")
    if spec["stall_s"]:
        found.append(f"stall_s {_shown(spec['stall_s'])}: nobody ends a trainer that hangs before the deadline does")
    if spec["cell_timeout_s"]:
        found.append(f"cell_timeout_s {_shown(spec['cell_timeout_s'])}: only the deadline of the whole run ends a cell")
    if spec["on_fail"] == "stop" and len(spec["cells"]) > 1:
        found.append("on_fail stop: the target begins the other cells all the same")
    if spec["checkpoint"].get("prune", "none") != "none":
        found.append("checkpoint.prune: nothing is removed but what the trainer itself removes")
    if spec["tracker"]["name"] != "none":
        found.append(f"tracker {spec['tracker']['name']}: what it could not send is not recovered after the run")
    return found


def _shown(value: Any) -> str:
    """On one line and in ASCII, whatever it holds: it becomes a comment."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"


def comment(lines: list[str]) -> str:
    """``lines`` as a comment of a shell script or of YAML; a note with a line end cannot leave it."""
    found = []
    for line in lines:
        plain = "".join(char if char.isprintable() else " " for char in line)
        found += textwrap.wrap(plain, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]
    return "".join(f"# {line}".rstrip() + "\n" for line in found)


def header(spec: Mapping[str, Any], target: str, usage: list[str], left_out: list[str]) -> str:
    """The comment that opens what is rendered."""
    lines = [
        f"Run {spec['id']} as a job for {target}, made by gpu-tenant export.",
        f"spec_sha256 {spec['spec_sha256']}",
        f"code_sha256 {spec['code_sha256']}",
        *usage,
        "Not done there, or otherwise:",
        *(f"- {note}" for note in left_out),
    ]
    return comment(lines)

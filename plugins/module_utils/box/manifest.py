# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Manifests: a roster of files, every byte read. Built where the files are."""

from __future__ import annotations

import os
from typing import Any

from . import artifacts, records
from .names import UnsafeName, check_relative_path
from .refusal import ARTIFACT_INVALID, USAGE, Refused
from .spread import FILE_COST, spread

_LINE_KEYS = ("path", "bytes", "sha256", "role", "loader")


def build(identity: dict[str, Any], run_id: str, spec_sha256: str, files: list[dict[str, Any]], **more: Any) -> Any:
    """A manifest record. The digest covers project, run id, generation and the files, in no particular order."""
    roster = sorted(({key: line[key] for key in _LINE_KEYS} for line in files), key=lambda line: str(line["path"]))
    for line in roster:
        check_relative_path(line["path"])
    covered = {"project": identity["project"], "run_id": run_id, "generation": identity["generation"], "files": roster}
    record = {
        **identity,
        "run_id": run_id,
        "spec_sha256": spec_sha256,
        "created_at": records.utc_now(),
        "files": roster,
        "totals": {"files": len(roster), "bytes": sum(line["bytes"] for line in roster)},
        "digest": records.digest(covered),
    }
    return dict(record, schema=records.schema("manifest"), **more)


def of_folder(path: str, globs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines for the files below ``path`` that match ``globs`` (``{glob, role, loader}``), every one of them sound.

    :raises Refused: USAGE for a folder that is not there, ARTIFACT_INVALID for a symlink, an unsafe name, a file that
        changes or is damaged.
    """
    if not os.path.isdir(path):
        raise Refused(USAGE, f"{path} is not a folder")
    try:
        found, skipped = artifacts.matches(path, globs)
        if skipped:
            raise UnsafeName(f"{skipped[0]['path']} is {skipped[0]['why']}")
    except UnsafeName as error:
        raise Refused(ARTIFACT_INVALID, str(error)) from error
    costs = [entry["bytes"] + FILE_COST for entry in found]
    examined = spread(found, costs, lambda share: [artifacts.examine(path, entry) for entry in share])
    for entry, (problem, _line_of_it) in zip(found, examined):
        if problem:
            raise Refused(ARTIFACT_INVALID, f"{entry['path']} cannot be listed: {problem}")
    return [line for _problem, line in examined]


def compare(known: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
    """How ``files`` differ from the manifest ``known``: ``{equal, missing, extra, different}``, paths sorted."""
    promised = {line["path"]: (line["bytes"], line["sha256"]) for line in known.get("files", [])}
    present = {line["path"]: (line["bytes"], line["sha256"]) for line in files}
    both = set(promised) & set(present)
    result = {
        "missing": sorted(set(promised) - set(present)),
        "extra": sorted(set(present) - set(promised)),
        "different": sorted(path for path in both if promised[path] != present[path]),
    }
    return dict(result, equal=not any(result.values()))

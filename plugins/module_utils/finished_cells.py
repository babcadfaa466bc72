# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Cells of a run that are finished and whole at home, though the box that finished them is lost: they are brought to
the next box as they are, so that it does not run them again.

A cell counts when its done record is home, and every result that this promises has the bytes and the hash there that it
had when the cell finished. The gate counts likewise: what lets the box go is not trained again.
"""

from __future__ import annotations

import os
from typing import Any, Container, Iterator

from . import promised, roster, settling


def finished_cells(
    results_dir: str, project: str, run_id: str, not_from: tuple[str, int], spec_sha256: str, only_from: str = ""
) -> list[dict[str, Any]]:
    """Per cell at most one ``{cell, attempt, bytes, dest, shares}``, as ``newest_checkpoints`` has them; the done
    record is a share of its own behind what it promises, so that nothing looks finished before it is.

    :param not_from: (box, generation): what is there already need not be brought.
    :param only_from: the box whose results count, of a run that has shares on several; empty takes any.
    """
    found: dict[str, dict[str, Any]] = {}
    for root, manifest in roster.manifests_at_home(results_dir, project, run_id):
        is_here = (manifest.box, manifest.generation) == not_from
        if is_here or manifest.record.get("spec_sha256") != spec_sha256 or (only_from and manifest.box != only_from):
            continue
        for each in _finished_in(root, manifest, found):
            found[each["cell"]] = each
    return [found[cell] for cell in sorted(found)]


def _finished_in(root: str, manifest: roster.Manifest, known: Container[str]) -> Iterator[dict[str, Any]]:
    """:param known: cells that were found already, here or elsewhere; they are not read again."""
    files = {file.path: file for file in manifest.files}
    for path in sorted(files):
        parts = path.split("/")
        if len(parts) != 3 or parts[2] != promised.DONE or parts[0] in known or settling.check_file(root, files[path]):
            continue
        lines = promised.lines(promised.read(os.path.join(root, path)))
        if lines is not None and all(_is_home(root, files, line) for line in lines if promised.is_result(line)):
            home = [line for line in lines if promised.is_result(line) or _is_home(root, files, line)]
            yield _described(root, parts[0], parts[1], [files[path], *(files[line["path"]] for line in home)])


def _is_home(root: str, files: dict[str, roster.RosterFile], line: dict[str, Any]) -> bool:
    return promised.is_listed(files, line) and not settling.check_file(root, files[line["path"]])


def _described(root: str, cell: str, attempt: str, files: list[roster.RosterFile]) -> dict[str, Any]:
    dest = f"{cell}/{attempt}"
    done, inner = files[0], sorted(file.path[len(dest) + 1 :] for file in files[1:])
    folder = os.path.join(root, cell, attempt)
    shares = [{"folder": folder, "paths": inner}] if inner else []
    return {
        "cell": cell,
        "attempt": attempt,
        "bytes": sum(file.bytes for file in files),
        "dest": dest,
        "shares": [*shares, {"folder": folder, "paths": [done.path[len(dest) + 1 :]]}],
    }

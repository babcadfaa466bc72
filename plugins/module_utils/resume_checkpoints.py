# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which checkpoints brought home earlier a new box should go on from.

Looks through the results of every box and generation of a run and takes, per cell, the newest checkpoint whose bytes
are those of its manifest and whose structure is sound.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from .box import records
from .box.structure import check_structure

_CHECKPOINT = re.compile(r"(?P<cell>[^/]+)/a(?P<attempt>\d+)/out/checkpoints/step-(?P<step>\d+)\.pt\Z")


def newest_checkpoints(results_dir: str, project: str, run_id: str, not_from: tuple[str, int]) -> list[dict[str, Any]]:
    """Per cell ``{cell, step, name, folder, bytes, sha256}`` of the newest sound checkpoint at home.

    :param not_from: (box, generation) to leave out: what is there already need not be brought.
    """
    newest: dict[str, dict[str, Any]] = {}
    for found in sorted(_candidates(results_dir, project, run_id, not_from), key=lambda entry: -int(entry["step"])):
        if found["cell"] not in newest and _sound(found):
            newest[found["cell"]] = found
    return [newest[cell] for cell in sorted(newest)]


def _candidates(results_dir: str, project: str, run_id: str, not_from: tuple[str, int]) -> list[dict[str, Any]]:
    found = []
    run_dir = os.path.join(results_dir, project, run_id)
    for manifest_path in glob.glob(os.path.join(run_dir, "*", "g*", "manifest.json")):
        try:
            manifest = records.read_record(manifest_path, "manifest")
        except records.RecordError:
            continue
        if (manifest.get("box"), manifest.get("generation")) == not_from:
            continue
        for entry in manifest.get("files", []):
            match = _CHECKPOINT.match(entry["path"])
            if match:
                path = os.path.join(os.path.dirname(manifest_path), entry["path"])
                found.append(
                    {
                        "cell": match.group("cell"),
                        "step": int(match.group("step")),
                        "name": os.path.basename(path),
                        "folder": os.path.dirname(path),
                        "bytes": entry["bytes"],
                        "sha256": entry["sha256"],
                    }
                )
    return found


def _sound(found: dict[str, Any]) -> bool:
    path = os.path.join(found["folder"], found["name"])
    if not os.path.isfile(path) or records.sha256_file(path) != found["sha256"]:
        return False
    return not check_structure(path, "torch")

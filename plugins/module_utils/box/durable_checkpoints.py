# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints on the durable mount while a cell trains: where this attempt writes, and where others have written.

Each attempt of each box writes below a folder of its own and says there whose work it is, so that any later attempt,
on whatever box, knows which checkpoints it may go on from, and a box that revives overwrites nobody's.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from . import attempt, durable_place, gates, half_saved, mount_answer
from .layout import AttemptPaths, Layout
from .refusal import DISK, Refused

VARIABLE = "TENANT_DURABLE_CHECKPOINT_DIR"
PREPARED_WITHIN_S = 30.0
_CLAIM = "claim"
_PLACE = re.compile(r"/g(?P<generation>\d+)/[^/]+/a(?P<number>\d+)\Z")


def prepare(layout: Layout, run: dict[str, Any], paths: AttemptPaths, keys: dict[str, Any]) -> tuple[str, list[str]]:
    """:func:`claim`, and :func:`earlier`; nothing on the mount is waited for without end.

    :raises Refused: DISK, as :func:`claim`, and when the mount gives no answer.
    """
    if run["durable"]["kind"] != "mount":
        return "", []
    return mount_answer.asked(
        run["durable"]["path"],
        lambda: (claim(layout, run, paths, keys), earlier(run, paths, keys)),
        # Folders of many attempts on a slow server.
        PREPARED_WITHIN_S,
    )


def claim(layout: Layout, run: dict[str, Any], paths: AttemptPaths, keys: dict[str, Any]) -> str:
    """The attempt's checkpoint folder on the mount, claimed for ``keys``; empty when the run has no mount.

    The claim is written and read back, so it also proves that the mount takes files.

    :raises Refused: DISK when the mount is not there, is no mount, or does not take the claim; or when another machine
        has claimed the folder.
    """
    if run["durable"]["kind"] != "mount":
        return ""
    # The gate before the cell looked too, but a mount may have gone since, and then its folder would fill the disk.
    problem = gates.durable_problem(run["durable"], layout.root)
    if problem:
        raise Refused(DISK, problem, "mount it, then start again")
    place = durable_place.destination(run, paths)
    folder = _checkpoints(place)
    _refuse_taken(place, keys)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        durable_place.put_record(place, _CLAIM, keys)
    except OSError as error:
        raise Refused(DISK, f"the durable mount does not take {folder}: {error.strerror or error}") from error
    except Refused as refused:
        raise Refused(DISK, f"the durable mount does not take files: {refused.what}", refused.fix) from refused
    for before in _predecessors(run, paths):
        half_saved.remove(before)
    return folder


def _refuse_taken(place: str, keys: dict[str, Any]) -> None:
    """A generation is one machine's. Another one of the same number was rented when the state store was lost; what the
    first one saved here would be overwritten."""
    known = attempt.read(os.path.join(place, f"{_CLAIM}.json"), _CLAIM).get("provider_id")
    if known and known != keys.get("provider_id"):
        generation = os.path.dirname(os.path.dirname(place))
        raise Refused(
            DISK,
            f"{place} on the durable mount is of another machine, {known}, which had the same name and generation",
            f"rename {generation} (.lost at its end will do), then start again: its checkpoints are still gone on from",
        )


def _predecessors(run: dict[str, Any], paths: AttemptPaths) -> list[str]:
    """Folders of earlier attempts and generations of this very box: they are dead. Another box may be writing."""
    box, cell = os.path.join(durable_place.run_folder(run), run["box"]), paths.relative.split("/")[0]
    own = (run["generation"], paths.number)
    found = []
    for path in glob.glob(os.path.join(glob.escape(box), "g*", glob.escape(cell), "a*")):
        match = _PLACE.search(path)
        if match and (int(match["generation"]), int(match["number"])) < own:
            found.append(_checkpoints(path))
    return found


def earlier(run: dict[str, Any], paths: AttemptPaths, keys: dict[str, Any]) -> list[str]:
    """Folders on the mount with checkpoints of the same work, by other attempts of any box and generation."""
    if run["durable"]["kind"] != "mount":
        return []
    pattern = os.path.join(
        glob.escape(durable_place.run_folder(run)), "*", "g*", glob.escape(keys["cell"]), "a*", "claim.json"
    )
    own = durable_place.destination(run, paths)
    places = [os.path.dirname(path) for path in sorted(glob.glob(pattern), reverse=True) if _is_same_work(path, keys)]
    return [_checkpoints(place) for place in places if place != own and os.path.isdir(_checkpoints(place))]


def _is_same_work(path: str, keys: dict[str, Any]) -> bool:
    return attempt.is_same_work(attempt.read(path, _CLAIM), keys)


def _checkpoints(place: str) -> str:
    """As below an attempt's folder on the box, so that what is copied at the end is found there and compared only."""
    return os.path.join(place, "out", "checkpoints")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A pull that brings less than what lies at home already: a box may vanish after it, so it takes nothing back.

What must not take the place of the results at home comes into a folder beside them (:func:`why_beside`). Of what does
take their place, the checkpoints of a cell stay where it brings no later one (:func:`kept`), and a manifest of their
own goes on naming them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Container, Iterable, Iterator, Sequence

from . import roster
from .box import policy, records
from .box.refusal import Refused
from .box.step_name import Order, newest_first
from .resume_checkpoints import place_of

# What the manifest of the kept files has of the one beside it.
_SAME = ("project", "run_id", "spec_sha256", "box", "generation", "created_at")


def why_beside(root: str, new: roster.Manifest) -> str:
    """Why a snapshot must not take the place of what lies in ``root``; empty when it may, or is none."""
    there = _read(root, roster.MANIFEST_NAME)
    if there is None or not new.snapshot or _spec(there) != _spec(new):
        return ""
    if _is_finished(there):
        return "all of the finished run is home there"
    before, now = _policy(there), _policy(new)
    left_out = [role for role in before.roles if role not in now.roles]
    left_out += [pattern for pattern in now.exclude if pattern not in before.exclude]
    return f"it leaves out what came home there before ({', '.join(left_out)})" if left_out else ""


def standing_for(root: str, new: roster.Manifest) -> roster.Manifest:
    """The manifest to pull by: of the finished run in ``root``, for a snapshot which promises the very same files."""
    there = _read(root, roster.MANIFEST_NAME) if new.snapshot else None
    same = there is not None and _is_finished(there) and _spec(there) == _spec(new) and there.digest == new.digest
    return there if there is not None and same else new


def kept(root: str, new: roster.Manifest, extra: Container[str]) -> tuple[roster.RosterFile, ...]:
    """The files of the checkpoints in ``root`` that ``new`` has no successor for: of that cell, at the same or a later
    step. A finished run needs none of them.

    :param extra: the paths that lie there and that ``new`` does not promise.
    """
    if _is_finished(new):
        return ()
    found: dict[str, roster.RosterFile] = {}
    for name in (roster.KEPT, roster.MANIFEST_NAME):
        there = _read(root, name)
        if there is not None and _spec(there) == _spec(new):
            found.update((file.path, file) for file in there.files if place_of(file))
    before, now = _steps(found.values()), _steps(new.files)
    stay = {cell for cell, orders in before.items() if _is_beyond(orders, now.get(cell, set()))}
    places = {path: place_of(file) for path, file in found.items() if path in extra}
    return tuple(found[path] for path, place in sorted(places.items()) if place is not None and place.cell in stay)


def _steps(files: Iterable[roster.RosterFile]) -> dict[str, set[Order]]:
    """The steps of each cell's checkpoints."""
    found: dict[str, set[Order]] = {}
    for file in files:
        place = place_of(file)
        if place is not None:
            found.setdefault(place.cell, set()).add(place.order)
    return found


def _is_beyond(before: set[Order], now: set[Order]) -> bool:
    """Whether the newest is of ``before`` alone, or the highest step, where these are two."""
    newest = newest_first(before | now)[0]
    return newest not in now or max(order[-1] for order in before) > max(order[-1] for order in now)


@contextlib.contextmanager
def naming(root: str, new: roster.Manifest | None, files: Sequence[roster.RosterFile]) -> Iterator[None]:
    """Name the kept ``files`` in a manifest of their own. In the body ``new`` is saved: they are never without one."""
    path = os.path.join(root, roster.KEPT)
    if new is not None and files:
        record: dict[str, Any] = {name: new.record.get(name) for name in _SAME}
        record.update(snapshot=True, files=[file._asdict() for file in files])
        records.write_record(path, "manifest", dict(record, digest=roster.manifest_digest(record)))
    yield
    if not files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _read(root: str, name: str) -> roster.Manifest | None:
    try:
        return roster.read_manifest(root, name)
    except roster.BadManifest:
        return None


def _is_finished(manifest: roster.Manifest) -> bool:
    return not manifest.snapshot and manifest.record.get("state", "done") == "done"


def _spec(manifest: roster.Manifest) -> object:
    return manifest.record.get("spec_sha256")


def _policy(manifest: roster.Manifest) -> policy.Policy:
    """What was chosen to come home; everything where a stranger's record does not say."""
    try:
        return policy.of_record(manifest.record["policy"])
    except (KeyError, TypeError, ValueError, AttributeError, Refused):
        return policy.Policy()

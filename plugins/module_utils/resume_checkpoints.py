# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which checkpoints brought home earlier a new box should go on from.

Looks through the results of every box and generation of a run and takes, per cell, the newest checkpoint whose bytes
are those of its manifests and whose structure is sound, and the best one that it names. A sharded one is a folder
(``step-<n>.dcp``; of other loops ``step-<n>.ckpt`` and ``checkpoint-<n>``) with a manifest of its own; its files may
have come home from several boxes and are put together by their hashes. A loop that writes files of other names into its
checkpoint folder declares them with role checkpoint: all of one step that came home together are one checkpoint. Its
newest may have come home half saved, so it is followed by the earlier ones that have what the later ones lack.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, NamedTuple

from . import roster, settling
from .box import checkpoint_manifest, reach, sharded
from .box.step_name import Order, newest_first, order_of
from .box.structure import check_structure

# Of tenant_checkpoint, of Lightning and of the Trainer of transformers, the last two with our callbacks.
_CHECKPOINT = re.compile(
    r"(?P<cell>[^/]+)/a\d+/out/checkpoints/"
    r"(?P<name>(?:step-(?=\d+\.)|checkpoint-(?=\d+/))(?P<step>\d+)(?:\.pt|\.ckpt|(?:\.dcp|\.ckpt)?/(?P<inner>.+)))\Z",
    re.DOTALL,
)
_OF_OWN_LOOP = re.compile(r"(?P<cell>[^/]+)/a\d+/out/checkpoints/(?P<name>[^/]+)\Z", re.DOTALL)
# What can be checked without running what a hostile box may have put into it. Other files stay at home.
_INERT = ("torch", "safetensors", "npz", "json")
_OF_TRAINER = "checkpoint-"
_MANIFEST = checkpoint_manifest.NAME
_MOST_MANIFEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Piece:
    """A file of a checkpoint at home, below ``root``, a harvested folder. ``inner`` is its name in the checkpoint's own
    folder, and empty where it has none; ``own_loop``: it is named as its training script likes."""

    cell: str
    order: Order
    name: str
    inner: str
    root: str
    file: roster.RosterFile
    is_here: bool
    own_loop: bool = False

    @property
    def step(self) -> int:
        return self.order[-1]

    @property
    def folder(self) -> str:
        """The ``checkpoints`` folder at home."""
        inside = self.file.path[: -len(self.name)]
        return os.path.join(self.root, inside).rstrip("/")

    @property
    def content(self) -> tuple[str, int, str]:
        return self.inner, self.file.bytes, self.file.sha256

    def is_right(self) -> bool:
        return not settling.check_file(self.root, self.file)

    def is_sound(self) -> bool:
        """Of one that has no folder of its own."""
        loader = self.file.loader if self.own_loop else "torch"
        return self.is_right() and not check_structure(os.path.join(self.root, self.file.path), loader)


def newest_checkpoints(
    results_dir: str, project: str, run_id: str, not_from: tuple[str, int], spec_sha256: str = ""
) -> list[dict[str, Any]]:
    """Per cell ``{cell, step, name, best, bytes, sha256, dest, shares, files}`` of the newest sound checkpoint at home,
    then of those before it that complete it, and then of the one that it names the best so far, if it is another
    (``best`` is true).

    :param not_from: (box, generation): what is there whole already need not be brought.
    :param spec_sha256: only what this spec has trained; empty takes any.
    """
    manifests = roster.manifests_at_home(results_dir, project, run_id)
    pieces = list(_pieces(manifests, not_from, spec_sha256))
    by_cell: dict[str, list[_Piece]] = {}
    for piece in pieces:
        by_cell.setdefault(piece.cell, []).append(piece)
    found = []
    for _cell, of_cell in sorted(by_cell.items()):
        to_go_on = list(_to_go_on(of_cell))
        found += [_described(whole, spec_sha256, False) for whole in to_go_on]
        best = _best_beside(of_cell, to_go_on[0]) if to_go_on else None
        if best is not None and best[0].step not in [whole[0].step for whole in to_go_on]:
            found.append(_described(best, spec_sha256, True))
    return found


def _sound_one(pieces: list[_Piece], order: Order) -> list[_Piece] | None:
    of_step = [piece for piece in pieces if piece.order == order]
    return next((whole for whole in _wholes(of_step) if _sound(whole)), None)


def _to_go_on(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Of one cell the newest, and behind it what completes it."""
    orders = newest_first(piece.order for piece in pieces)
    for number, order in enumerate(orders, start=1):
        newest = _sound_one(pieces, order)
        if newest is not None:
            yield newest
            yield from _completing(pieces, orders[number:], newest)
            return


def _completing(pieces: list[_Piece], earlier: list[Order], newest: list[_Piece]) -> Iterator[list[_Piece]]:
    """What a loop of one's own saved before ``newest`` and this lacks, as it came home by the same rule."""
    there = list(_series(newest))
    taken = 1
    for order in earlier if newest[0].own_loop else ():
        wholes = _wholes([piece for piece in pieces if piece.own_loop and piece.order == order])
        whole = next((each for each in wholes if reach.adds(_series(each), there) and _sound(each)), None)
        if whole is None:
            continue
        there += _series(whole)
        taken += 1
        yield whole
        if taken == reach.MOST:
            return


def _series(whole: list[_Piece]) -> tuple[reach.Series, ...]:
    units = [
        {"key": piece.name, "step": piece.step, "files": [{"path": piece.name, "loader": piece.file.loader}]}
        for piece in whole
    ]
    return reach.counted(units)


def _best_beside(pieces: list[_Piece], newest: list[_Piece]) -> list[_Piece] | None:
    first = newest[0]
    path = os.path.join(first.root, first.file.path)
    step = checkpoint_manifest.best_step(os.path.dirname(path) if first.inner else path)
    return None if step is None or step == first.step else _sound_one(pieces, (step,))


class Place(NamedTuple):
    """Which checkpoint a file belongs to; the fields are as :class:`_Piece` has them."""

    cell: str
    order: Order
    name: str
    inner: str = ""
    own_loop: bool = False


def place_of(file: roster.RosterFile) -> Place | None:
    """The checkpoint that a new box could go on from and that ``file`` belongs to; None for any other file."""
    match = _CHECKPOINT.match(file.path)
    if match:
        return Place(match.group("cell"), (int(match.group("step")),), match.group("name"), match.group("inner") or "")
    of_own_loop = file.role == "checkpoint" and file.loader in _INERT
    match = _OF_OWN_LOOP.match(file.path) if of_own_loop else None
    order = order_of(match.group("name")) if match else ()
    return Place(match.group("cell"), order, match.group("name"), own_loop=True) if match and order else None


def _pieces(
    manifests: Iterable[tuple[str, roster.Manifest]], not_from: tuple[str, int], spec_sha256: str
) -> Iterator[_Piece]:
    for root, manifest in manifests:
        if spec_sha256 and manifest.record.get("spec_sha256") != spec_sha256:
            continue
        is_here = (manifest.box, manifest.generation) == not_from
        for file in manifest.files:
            place = place_of(file)
            if place is not None:
                yield _Piece(place.cell, place.order, place.name, place.inner, root, file, is_here, place.own_loop)


# --- what belongs together ----------------------------------------------------------------------------------------


def _wholes(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Every way to have the whole checkpoint, from the pieces of one cell and step."""
    for piece in pieces:
        if not piece.inner and not piece.is_here and not piece.own_loop:
            yield [piece]
    together: dict[str, list[_Piece]] = {}
    for piece in pieces:
        if piece.own_loop and not piece.is_here:
            together.setdefault(piece.folder, []).append(piece)
    # Of the tries that saved this step the one that has most of it: another may have ended half-way.
    yield from sorted(together.values(), key=len, reverse=True)
    by_content: dict[tuple[str, int, str], list[_Piece]] = {}
    for piece in pieces:
        by_content.setdefault(piece.content, []).append(piece)
    for content in sorted(content for content in by_content if content[0] == _MANIFEST):
        whole = _gathered(by_content, content)
        if whole and not all(any(each.is_here for each in by_content[piece.content]) for piece in whole):
            yield whole


def _gathered(
    by_content: dict[tuple[str, int, str], list[_Piece]], manifest: tuple[str, int, str]
) -> list[_Piece] | None:
    """The manifest of the checkpoint and a right copy of each file that it lists; None when one is not home."""
    found = _first_right(by_content[manifest])
    if found is None:
        return None
    whole = [found]
    for wanted in _listed(os.path.join(found.root, found.file.path)):
        piece = _first_right(by_content.get(wanted, []))
        if piece is None:
            return None
        whole.append(piece)
    return whole if len(whole) > 1 else None


def _first_right(pieces: list[_Piece]) -> _Piece | None:
    """Those of one box come first, so that most of a checkpoint is carried from one folder."""
    return next((piece for piece in pieces if piece.is_right()), None)


def _listed(path: str) -> list[tuple[str, int, str]]:
    """What a checkpoint's own manifest lists; nothing when it cannot be trusted."""
    try:
        with open(path, "rb") as stream:
            record = json.loads(stream.read(_MOST_MANIFEST_BYTES).decode("utf-8"))
        files = record["files"]
        return [(file.path, file.bytes, file.sha256) for file in roster.parse_files(files, path)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


# --- whether it is sound ------------------------------------------------------------------------------------------


def _sound(whole: list[_Piece]) -> bool:
    """Nothing is carried that would run code where it is loaded: torch unpickles the index of a sharded checkpoint."""
    first = whole[0]
    if not first.inner:
        return all(piece.is_sound() for piece in whole)
    with tempfile.TemporaryDirectory(prefix="tenant-checkpoint-") as folder:
        for piece in whole:
            path = os.path.join(folder, piece.inner)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(os.path.abspath(os.path.join(piece.root, piece.file.path)), path)
        names = [piece.inner for piece in whole]
        of_trainer = first.name.startswith(_OF_TRAINER)
        indexed = of_trainer or any(sharded.index_loader(name) == "dcp" for name in names)
        loader = "hf" if of_trainer else "dcp"
        weightless = sharded.without_weights((piece.name, loader) for piece in whole)
        if not indexed or weightless or sharded.folder_problem(folder, names):
            return False
        return not any(check_structure(os.path.join(folder, name), loader) for name in names)


def _described(whole: list[_Piece], spec_sha256: str, best: bool) -> dict[str, Any]:
    first = whole[0]
    # Where the supervisor looks for it, below the run's folder on the box.
    dest = os.path.join(first.cell, "resume", spec_sha256[:12]).rstrip("/")
    shares: dict[str, list[str]] = {}
    for piece in whole:
        shares.setdefault(piece.folder, []).append(piece.name)
    return {
        "cell": first.cell,
        "step": first.step,
        "name": first.name.partition("/")[0],
        "best": best,
        "bytes": sum(piece.file.bytes for piece in whole),
        "sha256": first.file.sha256,
        "dest": dest,
        "shares": [{"folder": folder, "paths": sorted(paths)} for folder, paths in sorted(shares.items())],
        "files": [{"path": f"{dest}/{piece.name}", "loader": piece.file.loader} for piece in whole],
    }

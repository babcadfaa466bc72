# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Sharded checkpoints: which files of a roster belong together, and what they promise as one."""

from __future__ import annotations

import io
import os
from typing import Any, Mapping, NamedTuple, Sequence

from .box import dcp, sharded, zip_archive
from .box.step_name import training_step_in
from .box.structure import SHARDED_LOADERS, problem_in
from .box.zip_archive import Window
from .load_failures import CheckFailed, Inside, need, refuse_broken_promises, refuse_infinite
from .load_formats import step_of_trainer
from .load_torch import FIX, STEP_KEYS, is_finite, load, named_tensors, names_a_resume, whole_number

# A Hugging Face trainer pickles its own settings: they need code, and nobody needs them to have the weights.
SETTINGS = "training_args.bin"
_MAX_OBJECT = 1024 * 1024 * 1024
_PIECE = 16 * 1024 * 1024


class Entry(NamedTuple):
    """One file of the roster: it lies at ``root/path``."""

    root: str
    path: str
    loader: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


class Folder:
    """The files of one sharded checkpoint. ``head`` is the number of the entry whose check speaks for all of it."""

    def __init__(self, head: int, loader: str, files: Mapping[str, int]):
        self.head, self.loader, self.files = head, loader, dict(files)
        self.index: sharded.Index | None = None
        self.problem = ""

    @property
    def shards(self) -> list[int]:
        """The files that the index names and that are there."""
        named = self.index.shards if self.index else {}
        return [self.files[shard] for shard in named if shard in self.files]


def group(entries: Sequence[Entry]) -> list[Folder]:
    """The sharded checkpoints among ``entries``: those with an index, and folders of one file of weights."""
    by_folder: dict[tuple[str, str], dict[str, int]] = {}
    for number, entry in enumerate(entries):
        if entry.loader in SHARDED_LOADERS:
            by_folder.setdefault((entry.loader, entry.folder), {})[os.path.basename(entry.path)] = number
    folders = []
    for (loader, _folder), files in by_folder.items():
        heads = [name for name in sorted(files) if sharded.index_loader(name) == loader]
        heads = heads or [name for name in sharded.WHOLE_WEIGHTS if name in files and loader == "hf"][:1]
        folders += [Folder(files[name], loader, files) for name in heads]
    return folders


def incomplete(folders: Sequence[Folder], entries: Sequence[Entry]) -> dict[int, str]:
    """By number of an entry, what its folder lacks."""
    found = {}
    for folder in folders:
        problem = sharded.missing_shards(folder.index, folder.files) if folder.index else ""
        if problem:
            found[folder.head] = problem
    by_folder: dict[str, dict[str, int]] = {}
    for number, entry in enumerate(entries):
        if entry.loader in SHARDED_LOADERS:
            by_folder.setdefault(entry.folder, {})[os.path.basename(entry.path)] = number
    for files in by_folder.values():
        found.update({files[name]: sharded.NO_METADATA for name in sharded.lone_rank_files(files)})
        problem = sharded.numbered_gaps(files)
        if problem and not any(sharded.index_loader(name) for name in files):
            found[files[sorted(files)[0]]] = problem
    for weightless in sharded.without_weights((entry.path, entry.loader) for entry in entries):
        lacking = [number for number, entry in enumerate(entries) if entry.path.startswith(f"{weightless}/")]
        found.update(dict.fromkeys(lacking, sharded.NO_WEIGHTS))
    covered = {number for folder in folders for number in folder.shards}
    indexed = [folder for folder in folders if folder.index and folder.loader == "dcp"]
    for folder in indexed:
        stale = [number for name, number in folder.files.items() if name.endswith(".distcp") and number not in covered]
        found.update(dict.fromkeys(stale, f"is not named by {dcp.METADATA}: another save left it behind"))
    return found


def expect_of_part(expect: Mapping[str, Any]) -> dict[str, Any]:
    """What a file that is only a part of a checkpoint can promise."""
    return {"min_tensors": 0, **{key: expect[key] for key in ("finite", "globals") if key in expect}}


def describe_index(path: str) -> dict[str, Any]:
    """The index at ``path`` in what JSON can carry from a child."""
    index = sharded.read_index(path)
    return {"loader": index.loader, "shards": index.shards, "shapes": index.shapes}


def index_from(described: Mapping[str, Any]) -> sharded.Index:
    shards = dict(described["shards"])
    if described["loader"] == "dcp":
        shards = {file: [_item(fields) for fields in items] for file, items in shards.items()}
    return sharded.Index(described["loader"], shards, {k: tuple(v) for k, v in described["shapes"].items()})


def _item(fields: Sequence[Any]) -> dcp.Item:
    item = dcp.Item(*fields)
    return item if item.sizes is None else item._replace(sizes=tuple(item.sizes))


# --- a rank's file of a torch distributed checkpoint ------------------------------------------------------------


def check_rank_file(path: str, items: Sequence[dcp.Item], level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    """Every item loaded: objects whole, tensors by their shape and, where numbers count, in pieces of the file."""
    need("torch", FIX)
    looks = level == "expect" and expect.get("finite", True)
    steps: list[tuple[str, int]] = []
    infinite: list[str] = []

    def look(window: Window) -> None:
        for item in items:
            if item.transformed:
                raise CheckFailed(f"cannot be loaded here: an extension of torch's storage writer packed {item.name!r}")
            part = Window(window.descriptor, window.start + item.offset, item.length)
            check = _look_at_object if item.sizes is None else _look_at_tensor
            value, finite = check(part, item, path, looks, expect)
            if not finite:
                infinite.append(item.name)
            step = whole_number(value) if item.name.rpartition(".")[2] in STEP_KEYS else None
            if step is not None:
                steps.append((item.name, step))

    problem_in(path, look)
    if looks:
        refuse_infinite(infinite, len(items))
    return {"tensors": sum(item.sizes is not None for item in items), "finite": looks or None, "steps": steps}


def _look_at_object(
    part: Window, item: dcp.Item, path: str, looks: bool, expect: Mapping[str, Any]
) -> tuple[Any, bool]:
    """(the object, whether all tensors in it are finite)."""
    if item.length > _MAX_OBJECT:
        raise CheckFailed(f"holds the object {item.name!r} of {item.length} bytes, more than {_MAX_OBJECT}")
    value = load(io.BytesIO(part.read(0, item.length)), path, expect)
    return value, not looks or all(is_finite(tensor) for _name, tensor in named_tensors(value))


def _look_at_tensor(
    part: Window, item: dcp.Item, path: str, looks: bool, expect: Mapping[str, Any]
) -> tuple[Any, bool]:
    """(the number in it if it is a single one, whether it is finite)."""
    import torch

    tensor = load(io.BufferedReader(_Stream(part)), path, expect, device="meta")
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != item.sizes or str(tensor.dtype) != item.dtype:
        raise CheckFailed(f"holds {item.name!r} in another shape or type than {dcp.METADATA} says")
    value = load(io.BufferedReader(_Stream(part)), path, expect) if tensor.numel() == 1 else None
    if not looks or not (tensor.is_floating_point() or tensor.is_complex()):
        return value, True
    storage = next((member for member in zip_archive.read_members(part) if "/data/" in member.name), None)
    offsets = range(storage.start, storage.start + storage.size, _PIECE) if storage else ()
    pieces = (part.read(at, min(_PIECE, storage.start + storage.size - at)) for at in offsets if storage)
    return value, all(is_finite(torch.frombuffer(bytearray(piece), dtype=tensor.dtype)) for piece in pieces)


class _Stream(io.RawIOBase):
    """A window as a file of its own."""

    def __init__(self, window: Window):
        self._window, self._position = window, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._window.length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._window.length - self._position))
        buffer[:count] = self._window.read(self._position, count)
        self._position += count
        return count


# --- a folder as one --------------------------------------------------------------------------------------------


def speak_for(folder: Folder, entries: Sequence[Entry], checks: Sequence[dict[str, Any]], level: str) -> None:
    """Put into the head's check what is true of the whole folder."""
    head, entry = checks[folder.head], entries[folder.head]
    head["unit"] = True
    failed = [checks[number]["path"] for number in folder.shards if not checks[number]["ok"]]
    if head["ok"] and failed:
        head.update(ok=False, error=f"is unsound: its part {failed[0]} did not pass")
    if not head["ok"]:
        return
    step = step_of_trainer(os.path.join(entry.root, entry.folder)) if folder.loader == "hf" else None
    if step is None:
        step = training_step_in(os.path.basename(entry.folder))
    if step is None:
        step = head["step"]
    head.update(level=level, step=step, resume_state=names_a_resume(list(folder.files)))
    if folder.index is None or level == "structure":
        return
    parts = [checks[number] for number in folder.shards]
    head["tensors"] = sum(part["tensors"] or 0 for part in parts)
    if folder.loader == "dcp":
        head["step"] = _common_step(parts, step)
        head["tensors"] = len(folder.index.shapes)
        head["resume_state"] = names_a_resume([*folder.index.shapes, *_object_names(folder.index)])


def _object_names(index: sharded.Index) -> list[str]:
    return [item.name for items in index.shards.values() for item in items]


def _common_step(parts: Sequence[Mapping[str, Any]], named: int | None) -> int | None:
    """The step in the values of the checkpoint, that of the run before those of single optimizers."""
    found = {name: step for part in parts for name, step in part.get("steps") or ()}
    for name in sorted(found, key=lambda name: (name.count("."), name)):
        if "optim" not in name.lower():
            return int(found[name])
    return max(found.values(), default=named)


def expect_of_folder(folder: Folder, checks: Sequence[dict[str, Any]], expect: Mapping[str, Any]) -> None:
    """What no part can promise alone; CheckFailed for the first promise that the folder breaks."""
    if folder.index is None:
        return
    parts = [checks[number] for number in folder.shards]
    shapes: dict[str, Sequence[int]] = dict(folder.index.shapes)
    for part in parts:
        shapes.update(part.get("shapes") or {})
    keys = {*shapes, *_object_names(folder.index)} if folder.loader == "dcp" else set(shapes)
    keys |= {name.split(".")[0] for name in keys}
    head = checks[folder.head]
    refuse_broken_promises(Inside(shapes, sorted(keys), head["step"], False), expect)
    _refuse_mixed_steps(parts)
    if all(part["finite"] for part in parts) and parts:
        head["finite"] = True


def _refuse_mixed_steps(parts: Sequence[Mapping[str, Any]]) -> None:
    """Every rank's newest optimizer step is the run's step, so a rank that is behind comes from another save."""
    newest = {part["path"]: max(step for _name, step in part["steps"]) for part in parts if part.get("steps")}
    if len(set(newest.values())) > 1:
        shown = ", ".join(f"{os.path.basename(path)} at {step}" for path, step in sorted(newest.items())[:4])
        raise CheckFailed(f"mixes files of different steps: {shown}")

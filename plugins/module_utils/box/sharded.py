# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Checkpoints that are folders: complete as their index tells it, or named incomplete.

An index is a ``*.index.json`` of Hugging Face beside its shards, or a ``.metadata`` of torch's distributed checkpoints
beside the file of every rank.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from typing import Any, Iterable, NamedTuple

from . import dcp, inert_pickle, structure
from .names import UnsafeName, check_relative_path
from .step_name import step_in
from .zip_archive import Damaged, Window

_OF_MANY = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<total>\d+)(?P<ending>\.[A-Za-z]+)\Z")
_INDEX_ENDINGS = (".safetensors.index.json", ".bin.index.json")
_SHOWN = 5
# Where one file holds all weights of a folder of Hugging Face, it speaks for the folder as an index does.
WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")
# What is not surely something else may be weights: models of other libraries lie in such folders too.
_TENSORS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_NO_WEIGHTS = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state|random_states)|.*optim_states")


class Index(NamedTuple):
    """What an index promises: by shard the names (``hf``) or items (``dcp``) in it, by tensor its whole shape."""

    loader: str
    shards: dict[str, list[Any]]
    shapes: dict[str, tuple[int, ...]]


def index_loader(path: str) -> str:
    """``hf`` or ``dcp`` if the file name is that of an index; else empty."""
    name = os.path.basename(path)
    if dcp.is_metadata(name):
        return "dcp"
    return "hf" if name.endswith(_INDEX_ENDINGS) else ""


def read_index(path: str) -> Index:
    """The index at ``path``; Damaged when it cannot be trusted."""
    found: list[Index] = []
    read = _read_dcp if index_loader(path) == "dcp" else _read_hf
    problem = structure.problem_in(path, lambda window: found.append(read(window)))
    if problem:
        raise Damaged(problem)
    return found[0]


def _read_dcp(window: Window) -> Index:
    metadata = dcp.read_metadata(window)
    return Index("dcp", {file: metadata.of_file(file) for file in metadata.files}, metadata.tensors)


def _read_hf(window: Window) -> Index:
    (document,) = structure.json_documents(window, lines=False)
    weights = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise Damaged("it has no weight_map, so it does not say which shard holds what")
    shards: dict[str, list[Any]] = {}
    for name, shard in weights.items():
        try:
            shards.setdefault(check_relative_path(shard), []).append(name)
        except UnsafeName as error:
            raise Damaged(f"it names a shard that is no file beside it: {error}") from error
    return Index("hf", shards, {})


def missing_shards(index: Index, names: Iterable[str]) -> str:
    """Which shards are not among the files ``names`` beside the index; empty when it is complete."""
    missing = sorted(set(index.shards) - set(names))
    if not missing:
        return ""
    return f"it is incomplete: {_named(missing)} of {len(index.shards)} files missing"


def _named(files: list[str]) -> str:
    shown = [f"{file} ({dcp.rank_of(file)})" if dcp.rank_of(file) else file for file in files[:_SHOWN]]
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(shown) + more


def shard_problem(index: Index, path: str, shard: str, threads: int | None = None) -> str:
    """What is wrong with one shard, which lies at ``path``, as its index tells it; empty when nothing is.

    The CRCs in a rank's file are found through the index alone, so they are checked here.
    """
    promised = index.shards[shard]
    if index.loader == "dcp":
        check = functools.partial(dcp.check_rank_file, items=promised, threads=threads)
    else:
        check = functools.partial(_check_names, shard=shard, promised=promised)
    return structure.problem_in(path, check)


def _check_names(window: Window, shard: str, promised: list[str]) -> None:
    if structure.loader_for(shard, "hf") == "torch":
        held = _keys(structure.read_torch(window)[1].value)
    else:
        held = set(shapes_in(window))
    lacking = sorted(set(promised) - held)
    if lacking:
        raise Damaged(f"it lacks {len(lacking)} tensors that the index promises, {lacking[0]!r} first")


def shapes_in(window: Window) -> dict[str, tuple[int, ...]]:
    """Shapes by name of the tensors in a safetensors file."""
    header, _data = structure.safetensors_header(window)
    return {name: tuple(tensor["shape"]) for name, tensor in header.items()}


def _keys(value: Any) -> set[str]:
    items = value.items if isinstance(value, inert_pickle.Inert) else value
    return {str(name) for name in items} if isinstance(items, dict) else set()


def numbered_gaps(names: Iterable[str]) -> str:
    """What ``…-00001-of-00003.safetensors`` say is missing beside them; empty when they are all there."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        found = _OF_MANY.match(name)
        if found:
            sets.setdefault((found["stem"], found["total"], found["ending"]), set()).add(int(found["number"]))
    for (stem, total, ending), numbers in sorted(sets.items()):
        # Some formats number from 0.
        first = 0 if 0 in numbers else 1
        lacking = sorted(set(range(first, first + min(int(total), 100_000))) - numbers)
        if lacking:
            files = [f"{stem}-{number:0{len(total)}d}-of-{total}{ending}" for number in lacking]
            return f"it is incomplete: {_named(files)} of {int(total)} files missing"
    return ""


# --- a folder of Hugging Face without weights ---------------------------------------------------------------------

NO_WEIGHTS = "it is incomplete: it has no weights, which a trainer writes into a folder that has its last name already"


def is_head(path: str, loader: str) -> bool:
    """Whether the check of this file speaks for the whole of its folder."""
    return index_loader(path) == loader or (loader == "hf" and os.path.basename(path) in WHOLE_WEIGHTS)


def without_weights(files: Iterable[tuple[str, str]]) -> list[str]:
    """Of these files, each with its loader, the folders of Hugging Face that name a step and hold no weights.

    One below another is part of that: other savers put their parts into folders of their own there.
    """
    there = list(files)
    folders = {posixpath.dirname(path) for path, loader in there if loader == "hf"}
    named = sorted(folder for folder in folders if step_in(posixpath.basename(folder)) is not None)
    outer = [folder for folder in named if not any(folder.startswith(f"{other}/") for other in named)]
    return [folder for folder in outer if not any(_is_weights_in(folder, path) for path, _loader in there)]


def _is_weights_in(folder: str, path: str) -> bool:
    """Whether the file lies below the folder and holds weights, or says where they are."""
    name = posixpath.basename(path)
    holds = name.endswith(_TENSORS) and _NO_WEIGHTS.match(name) is None
    return path.startswith(f"{folder}/") and (holds or bool(index_loader(name)))


# --- a folder, all at once ------------------------------------------------------------------------------------

NO_METADATA = (
    f"it is incomplete: no {dcp.METADATA} lies beside it, which a save writes last "
    "(a glob names it only with '**' or by its name)"
)


def folder_problem(folder: str, names: Iterable[str]) -> str:
    """What makes the sharded checkpoint ``names`` below ``folder`` incomplete or unsound; empty when nothing does.

    The files have been checked one by one; this is what they must be to each other.
    """
    there = sorted(names)
    for name in there:
        problem = _index_problem(folder, name, there) if index_loader(name) else ""
        if problem:
            return problem
    lone = lone_rank_files(there)
    return f"{lone[0]}: {NO_METADATA}" if lone else numbered_gaps(there)


def lone_rank_files(names: Iterable[str]) -> list[str]:
    """Files of ranks that no metadata lies beside."""
    there = list(names)
    covered = {os.path.dirname(name) for name in there if index_loader(name) == "dcp"}
    return [name for name in there if name.endswith(".distcp") and os.path.dirname(name) not in covered]


def _index_problem(folder: str, name: str, names: Iterable[str]) -> str:
    beside = os.path.dirname(name)
    try:
        index = read_index(os.path.join(folder, name))
    except Damaged as error:
        return f"{name}: {error}"
    problem = missing_shards(index, (os.path.relpath(other, beside or ".") for other in names))
    if problem:
        return f"{name}: {problem}"
    for shard in sorted(index.shards):
        problem = shard_problem(index, os.path.join(folder, beside, shard), shard)
        if problem:
            return f"{os.path.join(beside, shard)}: {problem}"
    return ""

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Does a result load? Three levels, each including the one before.

* ``structure``: the container is whole (CRCs, headers, offsets, indexes, JSON). Standard library only.
* ``load``: the library reads it, without running any code from the file.
* ``expect``: what is inside is what the run promised (finite tensors, keys, shapes, step, metrics, resume state).

The files come from a stranger's machine. They are parsed in child processes, so that a file which crashes a native
parser fails its own check and nothing else. torch, numpy and safetensors are imported there, when needed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import stat
import sys
from typing import Any, Callable, Iterable, Mapping, Sequence

from . import load_children, load_formats, load_sharded, load_torch
from .box import sharded
from .box.names import UnsafeName, inside
from .box.structure import SHARDED_LOADERS, check_structure, loader_for
from .box.zip_archive import Damaged, cores
from .failures import TenantFailure
from .load_failures import CheckFailed
from .load_sharded import Entry, Folder
from .load_torch import step_in_name

LEVELS = ("structure", "load", "expect")
LOADERS = ("torch", "safetensors", "npz", "json", "hf", "dcp", "none")
CHECKPOINT_LOADERS = ("torch", "safetensors")
_SHOWN = 10
_SMALL_FILE = 256 * 1024
_SMALL_FILES_A_CHILD = 32
# What may be asked for, as an argument spec; documented in the fragment tenant.gpu.load_checks.
EXPECT_SPEC: dict[str, dict[str, Any]] = {
    "finite": {"type": "bool"},
    "min_tensors": {"type": "int"},
    "required_keys": {"type": "list", "elements": "str", "no_log": False},
    "shapes": {"type": "dict"},
    "min_step": {"type": "int"},
    "resume_state": {"type": "bool"},
    "metrics": {"type": "list", "elements": "str"},
    "globals": {"type": "list", "elements": "str"},
}
EXPECTATIONS = frozenset(EXPECT_SPEC)
_ALSO_AT_LOAD = frozenset(["globals"])
_RESULT = ("path", "level", "loader", "tensors", "step", "finite", "ok", "error")


class BadExpectation(ValueError):
    """``expect`` or ``level`` asks for something that does not exist, or that is refused."""


def validate_request(level: str, expect: Mapping[str, Any]) -> None:
    """BadExpectation for an unknown level or expectation: a misspelt one would otherwise check nothing."""
    if level not in LEVELS:
        raise BadExpectation(f"level {level!r} is not one of {', '.join(LEVELS)}")
    unknown = sorted(set(expect) - EXPECTATIONS)
    if unknown:
        raise BadExpectation(
            f"expect has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(EXPECTATIONS))}"
        )
    if set(expect) - (_ALSO_AT_LOAD if level == "load" else frozenset()) and level != "expect":
        raise BadExpectation(f"expect is checked at level expect only, and the level is {level}")
    _validate_shapes(expect.get("shapes") or {})
    problem = load_torch.refuse_dangerous([str(name) for name in expect.get("globals") or []])
    if problem:
        raise BadExpectation(problem)


def _validate_shapes(shapes: Any) -> None:
    if not isinstance(shapes, dict):
        raise BadExpectation("expect.shapes is a mapping from the names of tensors to lists of sizes")
    for name, shape in shapes.items():
        if not isinstance(shape, list) or not all(str(size).isdigit() for size in shape):
            raise BadExpectation(f"expect.shapes: {name} is given as {shape!r}, not as a list of sizes")


def check_roster(
    root: str, files: Iterable[Mapping[str, Any]], level: str = "load", expect: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One check per file: ``{path, level, loader, tensors, step, finite, ok, error}``.

    The check of an index (``.metadata``, ``*.index.json``) speaks for the whole folder.

    :param files: mappings with ``path`` (relative to ``root``) and ``loader``; a ``root`` in one goes before ``root``,
        so that a sharded checkpoint whose parts came home from several boxes is checked as one.
    :param expect: ``finite`` (default true), ``min_tensors`` (default 1), ``required_keys``, ``shapes`` and
        ``resume_state`` for checkpoints, ``min_step`` for the newest checkpoint of each cell (top folder), ``metrics``
        that some JSON file of each cell must have; ``globals`` that a pickle may name, also at level load.
    """
    wishes = dict(expect or {})
    validate_request(level, wishes)
    entries = [Entry(str(file.get("root", root)), str(file["path"]), str(file.get("loader", "none"))) for file in files]
    if not entries:
        return []
    # One child imports the libraries and forks the rest, so that this process stays light and they cost one import.
    ((_number, answer),) = load_children.each_in_children(
        lambda _number: {"checks": _Roster(entries, level, wishes).checked()}, [[0]], 1, seconds=0
    )
    if "crashed" in answer:
        ended = _blame(answer["crashed"])
        return [_result(dict(_empty_check(entry, level), error=ended)) for entry in entries]
    return list(answer["checks"])


def _empty_check(entry: Entry, level: str) -> dict[str, Any]:
    return {
        "path": entry.path,
        "level": level,
        "loader": entry.loader,
        "tensors": None,
        "step": None,
        "finite": None,
        "ok": False,
        "error": "",
    }


def _result(check: Mapping[str, Any]) -> dict[str, Any]:
    return {key: check[key] for key in _RESULT}


def _blame(ended: str) -> str:
    return f"ended its loader ({ended}), so it is not trusted"


# --- the files of a roster --------------------------------------------------------------------------------------


class _Roster:
    """Checks of many files, level by level; each step runs in children of this process."""

    def __init__(self, entries: Sequence[Entry], level: str, expect: Mapping[str, Any]):
        self._entries, self._level, self._expect = entries, level, expect
        self._checks = [_empty_check(entry, level) for entry in entries]
        self._folders = load_sharded.group(entries)
        self._shard_of: dict[int, Folder] = {}
        self._sizes = [_size(entry) for entry in entries]
        self._threads = 1
        # A process that used OpenMP before it forked cannot use it after.
        self._used_torch = "torch" in sys.modules

    def checked(self) -> list[dict[str, Any]]:
        everything = range(len(self._entries))
        self._read_indexes()
        self._run(_structure_of, [number for number in everything if not self._checks[number]["error"]], self._import)
        for number in everything:
            self._checks[number]["ok"] = not self._checks[number]["error"]
        if self._level != "structure":
            self._run(_load_of, [number for number in everything if self._checks[number]["ok"]])
        self._judge_folders()
        if self._level == "expect":
            _expect_of_cells(self._checks, self._expect)
        return [_result(check) for check in self._checks]

    def _read_indexes(self) -> None:
        heads = [folder.head for folder in self._folders if sharded.index_loader(self._entries[folder.head].path)]
        found = self._run(_index_of, heads)
        for folder in self._folders:
            if folder.head in found:
                folder.index = load_sharded.index_from(found[folder.head])
                self._shard_of.update(dict.fromkeys(folder.shards, folder))
        for number, problem in load_sharded.incomplete(self._folders, self._entries).items():
            self._checks[number]["error"] = self._checks[number]["error"] or problem

    def _run(
        self,
        work: Callable[[_Roster, int], dict[str, Any]],
        numbers: Sequence[int],
        meanwhile: Callable[[], object] | None = None,
    ) -> dict[int, dict[str, Any]]:
        """``work`` on each of ``numbers`` in children; what it found goes into the checks and is returned."""
        batches = self._batches(numbers)
        children = max(1, min(cores(), len(batches)))
        self._threads = max(1, cores() // children)
        found = {}
        for number, answer in load_children.each_in_children(
            functools.partial(_guarded, work, self), batches, children, meanwhile
        ):
            if "crashed" in answer:
                answer = {"error": _blame(answer["crashed"])}
            if answer.get("error"):
                self._checks[number].update(ok=False, error=answer["error"])
            else:
                found[number] = answer
                self._checks[number].update(answer)
        return found

    def _batches(self, numbers: Sequence[int]) -> list[list[int]]:
        """The largest first, so that none is begun when the others end; small ones together."""
        ordered = sorted(numbers, key=lambda number: -self._sizes[number])
        large = [[number] for number in ordered if self._sizes[number] > _SMALL_FILE]
        small = [number for number in ordered if self._sizes[number] <= _SMALL_FILE]
        share = max(1, min(_SMALL_FILES_A_CHILD, -(-len(small) // cores())))
        return large + [small[begin : begin + share] for begin in range(0, len(small), share)]

    def _import(self) -> None:
        """The libraries that level load will need, while children look at the structure."""
        if self._level == "structure":
            return
        wanted = load_formats.libraries_for((entry.path, entry.loader) for entry in self._entries)
        # Its tensors are those of torch where there is one.
        wanted |= {"torch"} if "safetensors" in wanted else set()
        # What an import makes stays: to look for garbage in it takes a quarter of the time that torch needs.
        gc.disable()
        try:
            for name in sorted(wanted):
                # Whoever needs it finds out that it is not there, and says so.
                with contextlib.suppress(ImportError):
                    __import__(name)
        finally:
            gc.enable()

    def _judge_folders(self) -> None:
        for folder in self._folders:
            load_sharded.speak_for(folder, self._entries, self._checks, self._level)
            head = self._checks[folder.head]
            if self._level == "expect" and head["ok"]:
                try:
                    load_sharded.expect_of_folder(folder, self._checks, self._expect)
                except CheckFailed as error:
                    head.update(ok=False, error=str(error))

    # --- in a child, one file ---

    def index(self, number: int) -> dict[str, Any]:
        return load_sharded.describe_index(_regular_file(self._entries[number]))

    def structure(self, number: int) -> dict[str, Any]:
        entry = self._entries[number]
        path = _regular_file(entry)
        if entry.loader not in LOADERS:
            raise CheckFailed(f"has a loader that is not one of {', '.join(LOADERS)}: {entry.loader!r}")
        problem = check_structure(path, entry.loader, self._threads)
        folder = self._shard_of.get(number)
        if folder and folder.index and not problem:
            problem = sharded.shard_problem(folder.index, path, os.path.basename(path), self._threads)
        if problem:
            raise CheckFailed(problem)
        unit = entry.loader in CHECKPOINT_LOADERS
        return {"step": step_in_name(path), "unit": unit} if unit else {"unit": False}

    def load(self, number: int) -> dict[str, Any]:
        entry = self._entries[number]
        path = _regular_file(entry)
        self._use_threads()
        folder = self._shard_of.get(number)
        name = os.path.basename(path)
        if folder and folder.index and folder.loader == "dcp":
            return load_sharded.check_rank_file(path, folder.index.shards[name], self._level, self._expect)
        if entry.loader == "hf" and name == load_sharded.SETTINGS:
            return {"level": "structure"}
        heads = [folder.head for folder in self._folders]
        alone = entry.loader not in SHARDED_LOADERS or number in heads
        expect = self._expect if alone else load_sharded.expect_of_part(self._expect)
        return LOADERS_BEYOND[loader_for(path, entry.loader)](path, self._level, expect)

    def _use_threads(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(1 if self._used_torch else self._threads)

    def limit_memory(self, number: int) -> None:
        load_children.limit_memory(self._sizes[number])


_index_of, _structure_of, _load_of = _Roster.index, _Roster.structure, _Roster.load


def _guarded(work: Callable[[_Roster, int], dict[str, Any]], roster: _Roster, number: int) -> dict[str, Any]:
    """``work``, with whatever goes wrong as the error of its file."""
    try:
        roster.limit_memory(number)
        return work(roster, number)
    except (CheckFailed, Damaged) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "does not fit into memory"}
    except Exception as error:
        # Parsers of hostile bytes raise anything; whatever it is, the file did not load.
        return {"error": f"cannot be read: {type(error).__name__}: {str(error)[:300]}"}


def _regular_file(entry: Entry) -> str:
    try:
        whole = inside(entry.root, entry.path)
        mode = os.lstat(whole).st_mode
    except UnsafeName as error:
        raise CheckFailed(str(error)) from error
    except FileNotFoundError as error:
        raise CheckFailed("is missing") from error
    if not stat.S_ISREG(mode):
        raise CheckFailed("is not a regular file")
    return whole


def _size(entry: Entry) -> int:
    try:
        return os.lstat(os.path.join(entry.root, entry.path)).st_size
    except (OSError, ValueError):
        return 0


def _nothing_more(_path: str, _level: str, _expect: Mapping[str, Any]) -> dict[str, Any]:
    return {"level": "structure"}


LOADERS_BEYOND: dict[str, Callable[[str, str, Mapping[str, Any]], dict[str, Any]]] = {
    "torch": load_torch.check_torch,
    "safetensors": load_formats.check_safetensors,
    "npz": load_formats.check_npz,
    "json": load_formats.check_json,
    "none": _nothing_more,
}


# --- what is promised of a whole cell -----------------------------------------------------------------------------


def _expect_of_cells(checks: Sequence[dict[str, Any]], expect: Mapping[str, Any]) -> None:
    """Promises that no single file can keep: the newest checkpoint of each cell, and metrics in some file of it."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for check in checks:
        cells.setdefault(check["path"].split("/")[0] if "/" in check["path"] else "", []).append(check)
    for members in cells.values():
        _expect_newest(members, expect)
        _expect_metrics(members, expect)


def _expect_metrics(members: Sequence[dict[str, Any]], expect: Mapping[str, Any]) -> None:
    wanted = [str(name) for name in expect.get("metrics") or []]
    present = {name for check in members for name in check.get("metrics", ())}
    missing = [name for name in wanted if name not in present]
    if not missing or any(check["loader"] == "json" and not check["ok"] for check in members):
        return
    blamed = next((check for check in members if check["loader"] == "json"), members[0])
    blamed.update(ok=False, error=f"lacks the metrics {', '.join(missing)}, and so does every JSON file beside it")


def _expect_newest(members: Sequence[dict[str, Any]], expect: Mapping[str, Any]) -> None:
    """``min_step`` and ``resume_state`` bind the newest checkpoint; older ones are history."""
    sound = [check for check in members if check.get("unit") and check["ok"]]
    if sound:
        newest = max(sound, key=lambda check: check["step"] or 0)
        _judge_newest(newest, newest.get("resume_state"), expect)


def _judge_newest(check: dict[str, Any], resume: bool | None, expect: Mapping[str, Any]) -> None:
    wanted = expect.get("min_step")
    if wanted is not None and (check["step"] is None or check["step"] < int(wanted)):
        check.update(ok=False, error=f"is at step {check['step']}, step {int(wanted)} or later was expected")
    elif expect.get("resume_state") and not resume:
        check.update(ok=False, error="lacks the optimizer's or the random state, so it cannot be resumed from")


# --- what a failed check means ------------------------------------------------------------------------------------


class LoadFailure(TenantFailure):
    """Some files did not load; ``checks`` says of each one how it went."""

    def __init__(self, checks: Sequence[Mapping[str, Any]], root: str) -> None:
        failed = [f"{check['path']} {check['error']}" for check in checks if not check["ok"]]
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        super().__init__(
            "evidence_missing",
            f"{len(failed)} of {len(checks)} files in {root} did not pass: {'; '.join(failed[:_SHOWN])}{more}",
            safe="Nothing was changed, and nothing in the files was executed",
            fix="Pull or make the named files again",
        )
        self.checks = list(checks)

    def as_result(self) -> dict[str, Any]:
        return {**super().as_result(), "checks": self.checks}


def refuse_failed(checks: Sequence[Mapping[str, Any]], root: str) -> None:
    """LoadFailure when a check failed."""
    if any(not check["ok"] for check in checks):
        raise LoadFailure(checks, root)

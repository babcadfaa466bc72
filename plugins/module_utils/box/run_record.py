# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The run record (``run.json``): checked once at the door, so that nothing after it needs to doubt a key."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from . import inputs, progress_source, prune_modes, records, tracker_names
from .layout import Layout
from .names import UnsafeName, check_name, check_relative_path
from .preemption import SOURCES
from .refusal import ENVIRONMENT, USAGE, Refused

if TYPE_CHECKING:
    from typing import TypeGuard

IDENTITY = ("project", "box", "generation", "provider_id")
ROLES = ("checkpoint", "metrics", "log", "other")
LOADERS = ("torch", "safetensors", "npz", "json", "none", "dcp", "hf")
DURABLE_KINDS = ("mount", "object", "pull", "none")
DEFAULT_GRACE_S = 30.0
DEFAULT_RETRIES, MOST_RETRIES = 1, 100
DEFAULT_STALL_S = 1800.0
# Whether the cells after one that failed are begun.
CONTINUE, STOP = "continue", "stop"
ON_FAIL = (CONTINUE, STOP)
MOST_SECONDS = 86400.0 * 30
_RESERVED_CELLS = ("manifest.json", "run.json", "launch.json", "secrets.env", "requirements.txt")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def check_run(record: object) -> dict[str, Any]:
    """``record`` with every optional key present, or Refused(USAGE) naming the key that is wrong."""
    if not isinstance(record, dict):
        raise Refused(USAGE, "the run record is not a JSON object")
    try:
        return _checked(dict(record))
    except UnsafeName as error:
        raise Refused(USAGE, f"the run record cannot be used: {error}") from error


def _checked(run: dict[str, Any]) -> dict[str, Any]:
    for kind, key in (("project", "project"), ("box", "box"), ("run", "run_id")):
        check_name(kind, run.get(key))
    _demand(_is_count(run.get("generation")) and run["generation"] >= 1, "generation", "a number from 1")
    _demand(isinstance(run.get("provider_id"), str) and run["provider_id"], "provider_id", "a text")
    run["work_sha256"] = run.get("work_sha256") or ""
    for key in ("spec_sha256", "code_sha256", *(["work_sha256"] if run["work_sha256"] else [])):
        _demand(isinstance(run.get(key), str) and _SHA256.match(run[key]), key, "64 hexadecimal digits")
    for key in ("python", "workdir"):
        _demand(isinstance(run.get(key), str) and os.path.isabs(run[key]), key, "an absolute path")
    _demand(is_argv(run.get("command")) and run["command"], "command", "a list of texts, the program first")
    run["env"] = _environment(run.get("env") or {})
    run["env_file"] = run.get("env_file") or ""
    _demand(not run["env_file"] or os.path.isabs(run["env_file"]), "env_file", "an absolute path or empty")
    run["cells"] = _cells(run.get("cells"))
    run["parts"] = [check_name("box", name) for name in _list("parts", run.get("parts") or [])]
    run["nodes"] = _nodes(_mapping("nodes", run.get("nodes")), run)
    run["artifacts"] = [_artifact(entry) for entry in _list("artifacts", run.get("artifacts") or [])]
    run["inputs"] = inputs.check(run.get("inputs") or [])
    run["tracker"] = _tracker(run.get("tracker") or tracker_names.NONE)
    run["checkpoint"] = _mapping("checkpoint", run.get("checkpoint"))
    _demand(not prune_modes.problem_of(run["checkpoint"]), "checkpoint", prune_modes.WANTED)
    run["retries"] = _retries(_mapping("retries", run.get("retries")))
    run["durable"] = _durable(_mapping("durable", run.get("durable")))
    run["limits"] = _limits(_mapping("limits", run.get("limits")))
    run["gpu"] = _gpu(_mapping("gpu", run.get("gpu")))
    run["preemption"] = _preemption(_mapping("preemption", run.get("preemption")))
    run["progress"] = _progress(run.get("progress") or {})
    run["grace_s"] = _seconds("grace_s", run.get("grace_s", DEFAULT_GRACE_S))
    run["stall_s"] = _seconds("stall_s", run.get("stall_s", DEFAULT_STALL_S))
    run["cell_timeout_s"] = _seconds("cell_timeout_s", run.get("cell_timeout_s", 0))
    run["on_fail"] = run.get("on_fail", CONTINUE)
    _demand(run["on_fail"] in ON_FAIL, "on_fail", f"one of {', '.join(ON_FAIL)}")
    return run


def _cells(value: object) -> list[dict[str, Any]]:
    cells = _list("cells", value)
    _demand(cells, "cells", "a list with at least one cell")
    known: set[str] = set()
    whole = []
    for cell in cells:
        _demand(isinstance(cell, dict) and is_argv(cell.get("args") or []), "cells", "a list of {id, args, seed}")
        name = check_name("cell", cell.get("id"))
        _demand(name not in known and name not in _RESERVED_CELLS, "cells", f"a list without {name!r} (twice or taken)")
        known.add(name)
        whole.append({"id": name, "args": list(cell.get("args") or []), "seed": cell.get("seed") or 0})
    return whole


def _nodes(value: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Empty, or how many boxes train as one, or, without parts, nodes of one job; the launch says the rest."""
    if value:
        _demand(_is_count(value.get("count")) and value["count"] >= 2, "nodes", "with a count from 2")
        fits = value["count"] == len(run["parts"]) or not run["parts"]
        _demand(fits and len(run["cells"]) == 1, "nodes", "for its parts and one cell")
    return value


def _artifact(entry: object) -> dict[str, Any]:
    _demand(isinstance(entry, dict), "artifacts", "a list of {glob, role, loader}")
    found: dict[str, Any] = dict(entry)  # type: ignore[call-overload]  # _demand has just proven it a dict
    check_relative_path(found.get("glob"))
    found.setdefault("role", "other")
    found.setdefault("loader", "none")
    _demand(found["role"] in ROLES, "artifacts", f"a role among {', '.join(ROLES)}")
    _demand(found["loader"] in LOADERS, "artifacts", f"a loader among {', '.join(LOADERS)}")
    return {"glob": found["glob"], "role": found["role"], "loader": found["loader"]}


def _durable(value: dict[str, Any]) -> dict[str, Any]:
    kind, path = value.get("kind") or "none", value.get("path") or ""
    _demand(kind in DURABLE_KINDS, "durable", f"of a kind among {', '.join(DURABLE_KINDS)}")
    _demand(kind != "mount" or os.path.isabs(path), "durable", "a mount with an absolute path")
    caps = {name: value.get(name) or 0 for name in ("cap_bytes", "inode_cap")}
    for name, cap in caps.items():
        _demand(_is_count(cap) and cap >= 0, "durable", f"with {name} as a number")
    return {"kind": kind, "path": path, **{name: cap for name, cap in caps.items() if cap}}


def _gpu(value: dict[str, Any]) -> dict[str, Any]:
    count = value.get("count", 1)
    _demand(_is_count(count) and 1 <= count <= 64, "gpu", "with a count from 1 to 64")
    return {"required": value.get("required") is True, "count": count}


def _preemption(value: dict[str, Any]) -> dict[str, Any]:
    source, url, grace_s = value.get("source") or "", value.get("url") or "", value.get("grace_s")
    _demand(source in ("", *SOURCES), "preemption", f"of a source among {', '.join(SOURCES)}, or none")
    _demand(not url or str(url).startswith("http://"), "preemption", "with an http url, or none")
    _demand(grace_s is None or is_seconds(grace_s), "preemption", "with grace_s as a number of seconds, or none")
    return {"source": source, "url": url, "grace_s": grace_s}


def _progress(value: object) -> dict[str, Any]:
    """Checked again where it is used: the Python here may not know every pattern that the controller's does."""
    try:
        return progress_source.check(value)
    except progress_source.BadProgress as error:
        raise Refused(USAGE, f"the run record cannot be used: {error}") from error


def _retries(value: dict[str, Any]) -> dict[str, Any]:
    value.setdefault("max", DEFAULT_RETRIES)
    _demand(_is_count(value["max"]) and 0 <= value["max"] <= MOST_RETRIES, "retries", f"at most {MOST_RETRIES}")
    return value


def _limits(value: dict[str, Any]) -> dict[str, Any]:
    for key in ("min_free_bytes", "min_free_inodes"):
        _demand(key not in value or (_is_count(value[key]) and value[key] >= 0), "limits", f"with {key} as a number")
    return value


def _tracker(value: object) -> dict[str, str]:
    try:
        return tracker_names.check(value)
    except tracker_names.BadTracker as error:
        raise Refused(USAGE, f"the run record cannot be used: {error}") from error


def _environment(value: object) -> dict[str, str]:
    mapping = _mapping("env", value)
    for name, text in mapping.items():
        _demand(_VARIABLE.match(str(name)), "env", f"without the unusable name {name!r}")
        _demand(isinstance(text, (str, int, float)) and "\0" not in str(text), "env", f"text at {name}")
    return {str(name): str(text) for name, text in mapping.items()}


def is_variable(name: object) -> bool:
    """Whether ``name`` can name an environment variable."""
    return isinstance(name, str) and _VARIABLE.match(name) is not None


def _mapping(key: str, value: object) -> dict[str, Any]:
    _demand(value is None or isinstance(value, dict), key, "a mapping")
    return dict(value) if isinstance(value, dict) else {}


def _list(key: str, value: object) -> list[Any]:
    _demand(isinstance(value, list), key, "a list")
    return list(value) if isinstance(value, list) else []


def _seconds(key: str, value: object) -> float:
    _demand(is_seconds(value), key, "a number of seconds")
    return float(value) if isinstance(value, (int, float)) else 0.0


def is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST_SECONDS


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_argv(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)


def _demand(condition: object, key: str, wanted: str) -> None:
    if not condition:
        raise Refused(USAGE, f"the run record cannot be used: {key!r} must be {wanted}")


def identity(run: dict[str, Any]) -> dict[str, Any]:
    """Project, box, generation and provider id."""
    return {key: run[key] for key in IDENTITY}


def is_part(run: dict[str, Any]) -> bool:
    """Whether other boxes work on the run too, so that sharded artifacts are complete only together with theirs."""
    return len(run["parts"]) > 1


def cell_of(run: dict[str, Any], cell_id: str) -> dict[str, Any]:
    for cell in run["cells"]:
        if cell["id"] == cell_id:
            return dict(cell)
    raise Refused(USAGE, f"run {run['run_id']} has no cell {cell_id!r}")


def work_sha256(run: dict[str, Any]) -> str:
    """The hash of what every cell of the run does, whichever cells there are: what its spec says besides them.

    A controller that does not tell it means that each cell hangs on the whole spec.
    """
    return str(run.get("work_sha256") or run["spec_sha256"])


def config_sha256(run: dict[str, Any], cell: dict[str, Any]) -> str:
    """What makes two tries of a cell the same work: the spec without its other cells, the code, and the cell itself.

    Machine-local values (python, paths, env) are left out.
    """
    same = {"run_id": run["run_id"], "work_sha256": work_sha256(run), "code_sha256": run["code_sha256"]}
    return records.digest(dict(same, cell={key: cell[key] for key in ("id", "args", "seed")}))


def read_run(layout: Layout, run_id: str) -> dict[str, Any]:
    """The run record of a registered run. RecordMissing or RecordError when it cannot be trusted."""
    try:
        return check_run(records.read_record(layout.run_record(run_id), "run"))
    except Refused as error:
        raise records.RecordError(f"{layout.run_record(run_id)}: {error.what}") from error


def trainer_argv(run: dict[str, Any], cell: dict[str, Any]) -> list[str]:
    """The command of a cell: a leading ``python`` becomes the run's interpreter, the cell's arguments follow."""
    program, rest = run["command"][0], run["command"][1:]
    return [run["python"] if program in ("python", "python3") else program, *rest, *cell["args"]]


def read_env_file(path: str) -> dict[str, str]:
    """``NAME=value`` lines; blank lines and ``#`` comments are skipped, the value is taken as it stands.

    :raises Refused: ENVIRONMENT, when the file is not there, is readable by others, or has another line.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise Refused(ENVIRONMENT, f"{path} can be read by others", f"chmod 600 {path}")
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(ENVIRONMENT, f"cannot read the environment file {path}", "deploy the run again") from error
    found = {}
    # Not splitlines(): a value may hold what it takes for the end of a line (U+2028, a form feed).
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        # The line itself is a secret: only its number is told.
        if not equals or not _VARIABLE.match(name.strip()):
            raise Refused(ENVIRONMENT, f"line {number} of {path} is not NAME=value", "deploy the run again")
        found[name.strip()] = value.rstrip("\r")
    return found


def is_value(text: object) -> TypeGuard[str]:
    """Whether ``text`` can be the value in a line that :func:`read_env_file` reads, and in an environment."""
    return isinstance(text, str) and text != "" and not any(mark in text for mark in "\n\r\0")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The run spec: one training job as a YAML file (``runs/<name>.yml``), read, checked and given its hash.

``spec_sha256`` covers the spec and every byte of the code tree, so that a record names exactly what was trained.
PyYAML is imported where the file is read; everything else is standard library.
"""

from __future__ import annotations

import os
from typing import Any

from . import delivery, rendezvous, run_secrets, run_spec_values
from .box import inputs, progress_source, prune_modes, records, tracker_names
from .box import run_record as run_record_on_box
from .box.names import UnsafeName, check_name, check_relative_path
from .box.preemption import SOURCES
from .failures import TenantFailure
from .yaml_lines import Lines, text_of

ROLES = ("checkpoint", "metrics", "log", "other")
LOADERS = ("torch", "safetensors", "npz", "json", "dcp", "hf", "none")
# How a run is looked at, what it may cost and where it is tried is no part of what it is: a budget that is raised goes
# on with the run, and makes no other one.
_NOT_HASHED = ("progress", "stall_s", "cell_timeout_s", "on_fail", "budget", "candidates", "deadline_s")
# What a shell reads whatever its first line says, and how much of a script is looked at.
_SHELL_SCRIPTS = (".sh", ".bash")
_SCRIPT_BYTES = 1024 * 1024
ALWAYS_EXCLUDED = (
    ".git", "__pycache__", "*.pyc", ".venv*", ".tenant", ".ansible", ".pytest_cache", ".mypy_cache", ".ruff_cache",
)  # fmt: skip

# name: (accepted types, default); a default of None means that the key is required.
_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "id": ((str,), None),
    "command": ((list,), None),
    "artifacts": ((list,), None),
    "code": ((dict,), {}),
    "workdir": ((str,), "."),
    "env": ((dict,), {}),
    "cells": ((list,), [{"id": "main", "args": [], "seed": 0}]),
    "resources": ((dict,), {}),
    "candidates": ((list,), []),
    "parts": ((list,), []),
    "nodes": ((dict,), {}),
    "inputs": ((list,), []),
    "requirements": ((str,), ""),
    "secrets": ((list,), []),
    "tracker": ((str, dict), "none"),
    "checkpoint": ((dict,), {}),
    "progress": ((dict,), {}),
    "smoke": ((list,), []),
    "evaluate": ((list,), []),
    "retries": ((dict,), {}),
    "budget": ((dict,), {}),
    "deadline_s": ((int, float), 86400),
    "grace_s": ((int, float), 30),
    "stall_s": ((int, float), run_record_on_box.DEFAULT_STALL_S),
    "cell_timeout_s": ((int, float), 0),
    "on_fail": ((str,), run_record_on_box.CONTINUE),
}


def load_run_spec(path: str) -> dict[str, Any]:
    """The run spec at ``path``, whole and checked, with ``code_files``, ``code_sha256`` and ``spec_sha256``.

    :raises TenantFailure: kind ``config``, naming file and line.
    """
    lines = _read_yaml(path)
    return _Reader(path, lines).normalise(lines.document)


class _Reader:
    def __init__(self, path: str, lines: Lines) -> None:
        self.path = os.path.abspath(path)
        self._lines = lines

    def normalise(self, spec: Any) -> dict[str, Any]:
        if not isinstance(spec, dict):
            self.refuse((), "a run spec is a mapping with id, command and artifacts")
        for key in spec:
            if key not in _FIELDS:
                self.refuse((key,), f"unknown key {key!r}; known keys are {', '.join(_FIELDS)}")
        whole = {name: self._field(spec, name) for name in _FIELDS}
        self._checked("id", lambda: check_name("run id", whole["id"]))
        whole["command"] = self._argv("command", whole["command"], required=True)
        whole["smoke"] = self._argv("smoke", whole["smoke"])
        whole["evaluate"] = self._argv("evaluate", whole["evaluate"])
        whole["cells"] = self._cells(whole["cells"])
        for where, why in run_spec_values.problems(whole):
            self.refuse(where, why)
        whole["env"] = {name: str(value) for name, value in whole["env"].items()}
        whole["artifacts"] = self._artifacts(whole["artifacts"])
        whole["secrets"] = self._entries("secrets", whole["secrets"], run_secrets.check_entry)
        whole["inputs"] = self._inputs(whole)
        whole["parts"] = self._parts(whole["parts"])
        whole["nodes"] = self._nodes(whole)
        whole["progress"] = self._progress(whole["progress"])
        why = prune_modes.problem_of(whole["checkpoint"])
        if why:
            self.refuse(("checkpoint", "prune"), why)
        whole["workdir"] = self._workdir(whole["workdir"])
        whole["tracker"] = self._tracker(whole)
        return self._with_code(whole)

    def _field(self, spec: dict[str, Any], name: str) -> Any:
        types, default = _FIELDS[name]
        if name not in spec or spec[name] is None:
            if default is None:
                self.refuse((), f"{name!r} is missing")
            return default
        if not isinstance(spec[name], types) or isinstance(spec[name], bool):
            wanted = " or ".join(kind.__name__ for kind in types)
            self.refuse((name,), f"{name!r} must be a {wanted}, not {type(spec[name]).__name__}")
        return spec[name]

    def _argv(self, name: str, value: list[Any], required: bool = False) -> list[str]:
        if required and not value:
            self.refuse((name,), f"{name!r} is empty: give the program and its arguments as a list")
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)) or item is None:
                self.refuse((name, index), f"{name}[{index}] must be a plain value")
        return [str(item) for item in value]

    def _cells(self, cells: list[Any]) -> list[dict[str, Any]]:
        known: set[str] = set()
        whole = []
        for index, cell in enumerate(cells):
            if not isinstance(cell, dict) or "id" not in cell:
                self.refuse(("cells", index), f"cells[{index}] needs an id")
            unknown = set(cell) - {"id", "args", "seed"}
            if unknown:
                self.refuse(("cells", index), f"cells[{index}] has unknown keys: {', '.join(sorted(unknown))}")
            name = str(cell["id"])
            self._checked(("cells", index, "id"), lambda name=name: check_name("cell", name))
            if name in known:
                self.refuse(("cells", index, "id"), f"two cells are called {name!r}: they would share a folder")
            known.add(name)
            args = [str(argument) for argument in cell.get("args") or []]
            whole.append({"id": name, "args": args, "seed": int(cell.get("seed") or 0)})
        if not whole:
            self.refuse(("cells",), "'cells' is empty: nothing would be trained")
        return whole

    def _artifacts(self, artifacts: list[Any]) -> list[dict[str, str]]:
        if not artifacts:
            self.refuse(("artifacts",), "'artifacts' is empty: nothing would be brought home")
        whole = []
        for index, entry in enumerate(artifacts):
            if not isinstance(entry, dict) or not isinstance(entry.get("glob"), str):
                self.refuse(("artifacts", index), f"artifacts[{index}] needs a glob")
            self._checked(("artifacts", index), lambda entry=entry: check_relative_path(entry["glob"]))
            role, loader = entry.get("role", "other"), entry.get("loader", "none")
            if role not in ROLES or loader not in LOADERS:
                self.refuse(
                    ("artifacts", index),
                    f"artifacts[{index}]: role is one of {', '.join(ROLES)} and loader one of {', '.join(LOADERS)}",
                )
            whole.append({"glob": entry["glob"], "role": role, "loader": loader})
        return whole

    def _entries(self, name: str, entries: list[Any], check: Any) -> list[dict[str, Any]]:
        """``entries`` as ``check`` makes them; what it refuses is told with the line of the very key."""
        whole = []
        for index, entry in enumerate(entries):
            try:
                whole.append(check(entry))
            except (run_secrets.BadSecret, inputs.BadInput) as error:
                self.refuse((name, index, *([error.key] if error.key else [])), f"{name}[{index}]: {error}")
        return whole

    def _inputs(self, spec: dict[str, Any]) -> list[dict[str, Any]]:
        whole = self._entries("inputs", spec["inputs"], inputs.check_entry)
        delivered = {secret["name"] for secret in spec["secrets"]}
        for index, entry in enumerate(whole):
            try:
                inputs.check_dests(whole[: index + 1])
            except inputs.BadInput as error:
                self.refuse(("inputs", index, "dest"), str(error))
            if entry["secret"] and entry["secret"] not in delivered:
                self.refuse(("inputs", index, "secret"), f"{entry['secret']} is not among the secrets of this run spec")
        return whole

    def _tracker(self, spec: dict[str, Any]) -> dict[str, str]:
        try:
            found = tracker_names.check(spec["tracker"])
        except tracker_names.BadTracker as error:
            return dict(self.refuse(("tracker", *([error.key] if error.key else [])), str(error)))
        needs_key = found["name"] == tracker_names.WANDB and found["mode"] == tracker_names.ONLINE
        if needs_key and "WANDB_API_KEY" not in {secret["name"] for secret in spec["secrets"]}:
            self.refuse(("tracker",), "wandb needs WANDB_API_KEY among the secrets, or mode: offline")
        return found

    def _progress(self, value: dict[str, Any]) -> dict[str, Any]:
        try:
            return progress_source.check(value)
        except progress_source.BadProgress as error:
            return self.refuse(("progress", error.key), str(error))  # type: ignore[no-any-return]

    def _parts(self, parts: list[Any]) -> list[str]:
        """The boxes that work on this run together; each of them holds a part of the results."""
        for index, name in enumerate(parts):
            self._checked(("parts", index), lambda name=name: check_name("box", name))
            if name in parts[:index]:
                self.refuse(("parts", index), f"{name!r} is listed twice among the parts")
        return list(parts)

    def _nodes(self, spec: dict[str, Any]) -> dict[str, Any]:
        """How the parts train as one; empty for boxes that share a run and nothing else."""
        try:
            return dict(rendezvous.normalise(spec["nodes"], spec["parts"], spec["cells"], spec["command"]))
        except rendezvous.BadNodes as error:
            self.refuse(error.where, str(error))
            raise

    def _workdir(self, workdir: str) -> str:
        if workdir in ("", "."):
            return "."
        return str(self._checked(("workdir",), lambda: check_relative_path(workdir)))

    def _with_code(self, spec: dict[str, Any]) -> dict[str, Any]:
        folder = os.path.join(os.path.dirname(self.path), str(spec["code"].get("path", ".")))
        excluded = list(ALWAYS_EXCLUDED) + [str(pattern) for pattern in spec["code"].get("exclude") or []]
        if not os.path.isdir(folder):
            self.refuse(("code",), f"the code folder {folder} does not exist")
        files = self._checked(("code",), lambda: code_files(folder, excluded))
        if not files:
            self.refuse(("code",), f"the code folder {folder} holds no files")
        for file in files:
            self._refuse_line_ends(folder, file["path"])
        code_sha256 = records.digest(files)
        hashed = {key: value for key, value in spec.items() if key not in _NOT_HASHED}
        spec_sha256 = records.digest({"spec": hashed, "code_sha256": code_sha256})
        # What the queue grows by must not make what is done already another work.
        every_cell = {key: value for key, value in hashed.items() if key != "cells"}
        return dict(
            spec,
            source=self.path,
            code_dir=os.path.realpath(folder),
            code_files=files,
            code_exclude=excluded,
            code_sha256=code_sha256,
            spec_sha256=spec_sha256,
            work_sha256=records.digest({"spec": every_cell, "code_sha256": code_sha256}),
        )

    def _refuse_line_ends(self, folder: str, name: str) -> None:
        """A script that a shell or the kernel would read with its CRs: found here, not minutes into a rental."""
        path = os.path.join(folder, name)
        is_shell = name.endswith(_SHELL_SCRIPTS)
        if not is_shell and not os.access(path, os.X_OK):
            return
        with open(path, "rb") as stream:
            # Of a program only the line that names its interpreter is read so.
            lines = stream.readlines(_SCRIPT_BYTES) if is_shell else [stream.readline(_SCRIPT_BYTES)]
        if not is_shell and not lines[0].startswith(b"#!"):
            return
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\r\n"):
                self.refuse(
                    ("code",),
                    f"{path} line {number} ends with CR LF, which breaks it on a box; save it with LF, and write "
                    f"*{os.path.splitext(name)[1]} text eol=lf into .gitattributes",
                )

    def _checked(self, where: Any, check: Any) -> Any:
        try:
            return check()
        except (UnsafeName, delivery.UnsafeTree) as error:
            self.refuse(where if isinstance(where, tuple) else (where,), str(error))

    def refuse(self, where: tuple[Any, ...], why: str) -> Any:
        line = self._lines.line(where)
        raise TenantFailure(
            "config",
            f"run spec {self.path} line {line}: {why}",
            safe="nothing was rented and nothing was started",
            fix="correct the file and run the same command again",
        )


def code_files(folder: str, exclude: list[str]) -> list[dict[str, Any]]:
    """The code tree as ``[{path, bytes, sha256}]``, sorted by path. UnsafeTree for a symlink or an unsafe name."""
    return [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in delivery.scan_tree(folder, exclude)
    ]


def resolve_argv(argv: list[str], python: str, **placeholders: str) -> list[str]:
    """``argv`` with a leading ``python`` replaced by the interpreter and ``{name}`` by its value."""
    resolved = [python if index == 0 and item in ("python", "python3") else item for index, item in enumerate(argv)]
    for name, value in placeholders.items():
        resolved = [item.replace("{" + name + "}", value) for item in resolved]
    return resolved


def run_record(spec: dict[str, Any], endpoint: dict[str, Any], project: str, box: dict[str, Any]) -> dict[str, Any]:
    """What the supervisor on the box is given (``run.json``).

    :param endpoint: the fact ``box_endpoint``.
    :param box: ``name``, ``tenant_root``, ``python``, ``env``, ``python_path``, ``env_file``, ``durable``,
        ``spot_signal`` (of the profile; a metadata service there is watched by the supervisor), ``spot_grace_s`` (what
        the platform leaves after that signal, None where that is not known), ``gpu`` ``{required, count}`` (what the
        supervisor looks at before each cell).
    """
    root = str(box["tenant_root"]).rstrip("/")
    code = f"{root}/code/{spec['code_sha256']}"
    environment = dict(box.get("env") or {}, **spec["env"])
    environment["PYTHONPATH"] = ":".join(
        path for path in (str(box.get("python_path") or ""), environment.get("PYTHONPATH", "")) if path
    )
    return {
        "project": project,
        "box": box["name"],
        "generation": int(endpoint["generation"]),
        "provider_id": str(endpoint["provider_id"]),
        "run_id": spec["id"],
        "spec_sha256": spec["spec_sha256"],
        "work_sha256": spec["work_sha256"],
        "code_sha256": spec["code_sha256"],
        "python": box["python"],
        "command": resolve_argv(spec["command"], str(box["python"])),
        "workdir": os.path.normpath(os.path.join(code, spec["workdir"])),
        "env": environment,
        "env_file": box.get("env_file") or "",
        "cells": spec["cells"],
        "artifacts": spec["artifacts"],
        "inputs": spec["inputs"],
        "tracker": spec["tracker"],
        "parts": spec["parts"],
        "nodes": spec["nodes"],
        "checkpoint": spec["checkpoint"],
        "progress": spec["progress"],
        "retries": spec["retries"],
        "durable": box.get("durable") or {"kind": "none", "path": ""},
        "preemption": _preemption(str(box.get("spot_signal") or ""), box.get("spot_grace_s")),
        "gpu": box.get("gpu") or {"required": False, "count": 1},
        "grace_s": spec["grace_s"],
        "stall_s": spec["stall_s"],
        "cell_timeout_s": spec["cell_timeout_s"],
        "on_fail": spec["on_fail"],
        "limits": spec["resources"].get("limits") or {},
    }


def _preemption(signal: str, grace_s: float | None) -> dict[str, Any]:
    """A platform that takes a machine without a word leaves no grace that could be shared out."""
    return {"source": signal if signal in SOURCES else "", "grace_s": grace_s if signal else None}


def _read_yaml(path: str) -> Lines:
    """The file with the line of each of its keys."""
    import yaml

    try:
        text = text_of(path)
    except (OSError, UnicodeDecodeError) as error:
        raise TenantFailure(
            "config",
            f"cannot read the run spec {path}: {error}",
            safe="nothing was rented",
            fix="give the path of a YAML file, for instance tenant_run=runs/digits.yml",
        ) from error
    try:
        return Lines(text)
    except (ValueError, RecursionError) as error:
        # Of a date that no calendar has, of a number without digits, of nesting without end: the parser's own.
        raise TenantFailure(
            "config",
            f"run spec {os.path.abspath(path)}: {str(error) or 'it cannot be read'}",
            safe="nothing was rented",
            fix="correct the value, or put it into quotes where it is text, and run the same command again",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "not YAML"
        raise TenantFailure(
            "config",
            f"run spec {os.path.abspath(path)} line {line}: {problem}",
            safe="nothing was rented",
            fix="correct the YAML and run the same command again",
        ) from error

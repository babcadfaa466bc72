# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Does a result load? Three levels, each including the one before.

* ``structure``: the container is whole (CRCs, headers, offsets, JSON). Standard library only.
* ``load``: the library reads it, without running any code from the file.
* ``expect``: what is inside is what the run promised (finite tensors, keys, step, metrics, resume state).

The files come from a stranger's machine. They are parsed in a child process, so that a file which crashes a native
parser fails its own check and nothing else. torch, numpy and safetensors are imported there, when needed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import stat
import sys
import zipfile
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from .box.artifacts import check_structure, loader_for
from .box.names import UnsafeName, inside
from .failures import TenantFailure

LEVELS = ("structure", "load", "expect")
LOADERS = ("torch", "safetensors", "npz", "json", "hf", "dcp", "none")
CHECKPOINT_LOADERS = ("torch", "safetensors")
STEP_KEYS = ("step", "global_step", "iteration", "steps")
_STEP_IN_NAME = re.compile(r"step-(\d+)\.[A-Za-z]+\Z")
_MAX_JSON_BYTES = 256 * 1024 * 1024
_SECONDS_PER_FILE = 3600
_SHOWN = 10
_CHUNK_ELEMENTS = 16 * 1024 * 1024
# What level expect may ask for, as an argument spec; documented in the fragment tenant.gpu.load_checks.
EXPECT_SPEC: dict[str, dict[str, Any]] = {
    "finite": {"type": "bool"},
    "min_tensors": {"type": "int"},
    "required_keys": {"type": "list", "elements": "str", "no_log": False},
    "min_step": {"type": "int"},
    "resume_state": {"type": "bool"},
    "metrics": {"type": "list", "elements": "str"},
}
EXPECTATIONS = frozenset(EXPECT_SPEC)


class CheckFailed(Exception):
    """The file is not what it should be; the text completes "<path>: …"."""


class BadExpectation(ValueError):
    """``expect`` or ``level`` asks for something that does not exist."""


def validate_request(level: str, expect: Mapping[str, Any]) -> None:
    """BadExpectation for an unknown level or expectation: a misspelt one would otherwise check nothing."""
    if level not in LEVELS:
        raise BadExpectation(f"level {level!r} is not one of {', '.join(LEVELS)}")
    unknown = sorted(set(expect) - EXPECTATIONS)
    if unknown:
        raise BadExpectation(
            f"expect has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(EXPECTATIONS))}"
        )
    if expect and level != "expect":
        raise BadExpectation(f"expect is checked at level expect only, and the level is {level}")


def check_roster(
    root: str, files: Iterable[Mapping[str, Any]], level: str = "load", expect: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """One check per file: ``{path, level, loader, tensors, step, finite, ok, error}``.

    :param files: mappings with ``path`` (relative to ``root``) and ``loader``.
    :param expect: ``finite`` (default true), ``min_tensors`` (default 1), ``required_keys`` and ``resume_state`` for
        checkpoints, ``min_step`` for the newest checkpoint of each cell (top folder), ``metrics`` that some JSON file
        of each cell must have.
    """
    wishes = dict(expect or {})
    validate_request(level, wishes)
    entries = [(str(file["path"]), str(file.get("loader", "none"))) for file in files]
    checks = list(_check_in_children(root, entries, level, wishes))
    if level == "expect":
        _expect_of_cells(checks, wishes)
    return checks


# --- one file -----------------------------------------------------------------------------------------------------


def _check_one(root: str, path: str, loader: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    check = _empty_check(path, loader, level)
    try:
        whole = _regular_file(root, path)
        _check_structure(whole, loader)
        check.update(_LEVELS_BEYOND[loader_for(path, loader)](whole, level, expect))
        check["ok"] = True
    except CheckFailed as error:
        check["error"] = str(error)
    except MemoryError:
        check["error"] = "does not fit into memory"
    except Exception as error:
        # Parsers of hostile bytes raise anything; whatever it is, the file did not load.
        check["error"] = f"cannot be read as {loader}: {type(error).__name__}: {str(error)[:300]}"
    return check


def _empty_check(path: str, loader: str, level: str) -> dict[str, Any]:
    return {
        "path": path,
        "level": level,
        "loader": loader,
        "tensors": None,
        "step": None,
        "finite": None,
        "ok": False,
        "error": "",
    }


def _regular_file(root: str, path: str) -> str:
    try:
        whole = inside(root, path)
        mode = os.lstat(whole).st_mode
    except UnsafeName as error:
        raise CheckFailed(str(error)) from error
    except FileNotFoundError as error:
        raise CheckFailed("is missing") from error
    if not stat.S_ISREG(mode):
        raise CheckFailed("is not a regular file")
    return whole


# --- torch --------------------------------------------------------------------------------------------------------


def _check_structure(path: str, loader: str) -> None:
    if loader not in LOADERS:
        raise CheckFailed(f"has a loader that is not one of {', '.join(LOADERS)}: {loader!r}")
    if loader == "json" and path.endswith(".jsonl"):
        _json_documents(path)
        return
    problem = check_structure(path, loader)
    if problem:
        raise CheckFailed(problem)


def _check_torch(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_compressed(path)
    if level == "structure":
        return {"step": _step_in_name(path)}
    state = _load_torch(path)
    tensors = list(_tensors(state))
    keys = sorted(str(key) for key in state) if isinstance(state, dict) else []
    found: dict[str, Any] = {"tensors": len(tensors), "step": _step_of(state, path)}
    if level == "expect":
        found["finite"] = _expect_of_checkpoint(tensors, keys, _torch_finite, expect)
        found["resume_state"] = _has_resume_state(state)
    return found


def _refuse_compressed(path: str) -> None:
    """torch.save stores and never compresses, so a compressed member is foreign and could be a bomb."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise CheckFailed("has compressed members, which torch.save never writes")


def _load_torch(path: str) -> Any:
    torch = _import("torch", "pip install 'gpu-tenant[torch]', or use level structure")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, AttributeError):
            stack.enter_context(torch.serialization.safe_globals(_numpy_globals()))
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            needs = re.search(r"GLOBAL ([\w.]+)", str(error))
            if needs:
                raise CheckFailed(
                    f"needs code to load ({needs.group(1)}) and was refused: nothing from a box is executed. "
                    "Save tensors and plain values only"
                ) from error
            if "weights_only" in str(error) or "Weights only" in str(error):
                paragraphs = [line.strip() for line in str(error).splitlines() if line.strip()]
                reason = paragraphs[min(1, len(paragraphs) - 1)][:200]
                raise CheckFailed(f"needs more than plain tensors to load and was refused ({reason})") from error
            raise


def _numpy_globals() -> list[Any]:
    """What numpy scalars and the numpy random state need; none of it runs code from the file."""
    import numpy

    core: Any = getattr(numpy, "_core", None) or numpy.core  # numpy 2 renamed it
    multiarray = core.multiarray
    dtypes = [type(numpy.dtype(code)) for code in "?bBhHiIlLqQefdFD"]
    return [multiarray.scalar, multiarray._reconstruct, numpy.ndarray, numpy.dtype, *dtypes]


def _import(name: str, fix: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise CheckFailed(f"cannot be loaded here: {name} is not installed. Fix: {fix}") from error


def _tensors(state: Any) -> Iterator[Any]:
    """Every tensor in nested containers, each once."""
    import torch

    seen, waiting = set(), [state]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)


def _torch_finite(tensor: Any) -> bool:
    import torch

    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    for piece in tensor.reshape(-1).split(_CHUNK_ELEMENTS):
        wide = piece.to(torch.float32) if piece.element_size() == 1 else piece
        if not bool(torch.isfinite(wide).all()):
            return False
    return True


def _has_resume_state(state: Any) -> bool:
    """Whether an optimizer's state and a random state are inside: without them a resume is a restart."""
    if not isinstance(state, dict):
        return False
    filled = [str(key).lower() for key, value in state.items() if value is not None]
    return any("optim" in key for key in filled) and any("rng" in key or "random" in key for key in filled)


def _step_of(state: Any, path: str) -> int | None:
    for key in STEP_KEYS if isinstance(state, dict) else ():
        value = state.get(key)
        if hasattr(value, "numel") and value.numel() == 1:
            value = value.item()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value):
            return int(value)
    return _step_in_name(path)


def _step_in_name(path: str) -> int | None:
    match = _STEP_IN_NAME.search(os.path.basename(path))
    return int(match.group(1)) if match else None


def _expect_of_checkpoint(
    tensors: Sequence[Any], keys: Sequence[str], is_finite: Callable[[Any], bool], expect: Mapping[str, Any]
) -> bool | None:
    """Whether all tensors are finite (None when not asked); CheckFailed for a broken promise."""
    wanted = int(expect.get("min_tensors", 1))
    if len(tensors) < wanted:
        raise CheckFailed(f"holds {len(tensors)} tensors, at least {wanted} were expected")
    missing = [str(key) for key in expect.get("required_keys") or [] if str(key) not in keys]
    if missing:
        raise CheckFailed(f"lacks the keys {', '.join(missing)}; it has {', '.join(keys[:20])}")
    if not expect.get("finite", True):
        return None
    infinite = sum(1 for tensor in tensors if not is_finite(tensor))
    if infinite:
        raise CheckFailed(f"holds NaN or infinity in {infinite} of {len(tensors)} tensors")
    return True


# --- safetensors --------------------------------------------------------------------------------------------------


def _check_safetensors(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    if level == "structure":
        return {"step": _step_in_name(path)}
    fix = "pip install safetensors numpy, or use level structure"
    _import("safetensors", fix)
    framework = "pt" if _installed("torch") else "np"
    if framework == "np":
        _import("numpy", fix)
    from safetensors import safe_open

    with safe_open(path, framework=framework) as archive:
        keys = sorted(archive.keys())
        tensors = [archive.get_tensor(key) for key in keys]
    found: dict[str, Any] = {"tensors": len(tensors), "step": _step_in_name(path)}
    if level == "expect":
        is_finite = _torch_finite if framework == "pt" else _numpy_finite
        found["finite"] = _expect_of_checkpoint(tensors, keys, is_finite, expect)
        found["resume_state"] = False
    return found


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


# --- npz and json -------------------------------------------------------------------------------------------------


def _check_npz(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    if level == "structure":
        return {}
    numpy = _import("numpy", "pip install numpy, or use level structure")
    finite = True
    with numpy.load(path, allow_pickle=False) as archive:
        keys = sorted(archive.files)
        for key in keys:
            try:
                array = archive[key]
            except ValueError as error:
                raise CheckFailed(f"needs code to load (object array {key!r}) and was refused") from error
            finite = finite and (level != "expect" or _numpy_finite(array))
    if level == "expect" and expect.get("finite", True):
        if not finite:
            raise CheckFailed("holds NaN or infinity")
        return {"tensors": len(keys), "finite": True}
    return {"tensors": len(keys)}


def _numpy_finite(array: Any) -> bool:
    import numpy

    return array.dtype.kind not in "fc" or bool(numpy.isfinite(array).all())


def _check_json(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    if level != "expect":
        return {}
    documents = _json_documents(path)
    found: dict[str, Any] = {"step": _last_step(documents)}
    values = {str(name): _last_metric(documents, str(name)) for name in expect.get("metrics") or []}
    present = [name for name, value in values.items() if value is not None]
    infinite = [name for name in present if not _finite_number(values[name])]
    if infinite:
        raise CheckFailed(f"has metrics that are not finite numbers: {', '.join(infinite)}")
    if present:
        found["finite"] = True
    return dict(found, metrics=present)


def _json_documents(path: str) -> list[Any]:
    """The document, or one per line of a .jsonl file."""
    if os.path.getsize(path) > _MAX_JSON_BYTES:
        raise CheckFailed(f"is larger than {_MAX_JSON_BYTES} bytes, too large for a JSON result")
    with open(path, "rb") as stream:
        data = stream.read()
    pieces = [line for line in data.splitlines() if line.strip()] if path.endswith(".jsonl") else [data]
    try:
        return [json.loads(piece.decode("utf-8")) for piece in pieces]
    except (ValueError, RecursionError) as error:
        raise CheckFailed(f"is truncated or not JSON: {str(error)[:200]}") from error


def _last_metric(documents: Sequence[Any], name: str) -> Any:
    """The last value of a metric; a dot in its name leads into nested mappings."""
    for document in reversed(documents):
        value = document
        for part in [name] if isinstance(document, dict) and name in document else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _last_step(documents: Sequence[Any]) -> int | None:
    steps = [document.get("step") for document in documents if isinstance(document, dict)]
    return max((step for step in steps if isinstance(step, int) and not isinstance(step, bool)), default=None)


def _finite_number(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_finite_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_nothing(_path: str, _level: str, _expect: Mapping[str, Any]) -> dict[str, Any]:
    return {"level": "structure"}


_LEVELS_BEYOND: dict[str, Callable[[str, str, Mapping[str, Any]], dict[str, Any]]] = {
    "torch": _check_torch,
    "safetensors": _check_safetensors,
    "npz": _check_npz,
    "json": _check_json,
    "none": _check_nothing,
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
    for check in checks:
        check.pop("resume_state", None)
        check.pop("metrics", None)


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
    sound = [check for check in members if check["loader"] in CHECKPOINT_LOADERS and check["ok"]]
    if sound:
        newest = max(sound, key=lambda check: check["step"] or 0)
        _judge_newest(newest, newest.get("resume_state"), expect)


def _judge_newest(check: dict[str, Any], resume: bool | None, expect: Mapping[str, Any]) -> None:
    wanted = expect.get("min_step")
    if wanted is not None and (check["step"] is None or check["step"] < int(wanted)):
        check.update(ok=False, error=f"is at step {check['step']}, step {int(wanted)} or later was expected")
    elif expect.get("resume_state") and not resume:
        check.update(ok=False, error="lacks the optimizer's or the random state, so it cannot be resumed from")


# --- the child process --------------------------------------------------------------------------------------------


def _check_in_children(
    root: str, entries: Sequence[tuple[str, str]], level: str, expect: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Check ``entries`` in a child; when one of them kills it, name that one and go on in a new child."""
    done = 0
    while done < len(entries):
        remaining = entries[done:]
        finished, ended = _run_child(root, remaining, level, expect)
        yield from finished
        done += len(finished)
        if len(finished) < len(remaining):
            path, loader = remaining[len(finished)]
            yield dict(_empty_check(path, loader, level), error=f"ended its loader ({ended}), so it is not trusted")
            done += 1


def _run_child(
    root: str, entries: Sequence[tuple[str, str]], level: str, expect: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """(checks that were finished, how the child ended). Plain fork: no start-up cost, nothing to import by path."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, root, entries, level, expect)
    os.close(writer)
    finished = []
    with os.fdopen(reader, "rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                finished.append(json.loads(line.decode("utf-8")))
    _pid, status = os.waitpid(child, 0)
    ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"
    return finished, ended


def _child(writer: int, root: str, entries: Sequence[tuple[str, str]], level: str, expect: Mapping[str, Any]) -> None:
    """Write one JSON line per file, then leave without running anything of the parent's."""
    status = 1
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Ansible puts an object in the place of sys.intern, beside which parts of torch refuse to be imported.
        sys.intern = getattr(sys.intern, "unpatched_implementation", sys.intern)
        with os.fdopen(writer, "wb", buffering=0) as stream:
            for path, loader in entries:
                signal.alarm(_SECONDS_PER_FILE)
                check = _check_one(root, path, loader, level, expect)
                stream.write(json.dumps(check).encode("utf-8") + b"\n")
        status = 0
    finally:
        os._exit(status)


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


def refuse_failed(checks: Sequence[Mapping[str, Any]], root: str) -> None:
    """LoadFailure when a check failed."""
    if any(not check["ok"] for check in checks):
        raise LoadFailure(checks, root)

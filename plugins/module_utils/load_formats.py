# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files of safetensors, numpy and JSON: loaded, and looked through one array at a time."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any, Iterable, Iterator, Mapping, Sequence

from .box import zip_archive
from .box.structure import json_documents, loader_for, problem_in
from .box.zip_archive import Member, Window
from .load_failures import CheckFailed, Inside, finite_number, need, refuse_broken_promises, refuse_infinite
from .load_torch import is_finite, step_in_name, too_old

_FIX = "pip install safetensors numpy, or use level structure"
# safetensors gives its tensors as those of torch or of numpy.
_LIBRARIES = {"torch": ("torch",), "dcp": ("torch",), "safetensors": ("safetensors",), "npz": ("numpy",)}


def libraries_for(files: Iterable[tuple[str, str]]) -> set[str]:
    """The libraries that load files given as (path, loader); the index of the folder format ``dcp`` needs one too."""
    loaders: set[str] = set()
    for path, loader in files:
        loaders |= {loader_for(path, loader), *(["dcp"] if loader == "dcp" else [])}
    return {name for loader in loaders for name in _LIBRARIES.get(loader, ())}


def missing_library(files: Iterable[tuple[str, str]]) -> str:
    """Why the Python that runs this cannot load such files, as (path, loader); empty when it can. Imports nothing."""
    wanted = libraries_for(files)
    lacking = sorted(name for name in wanted if not _is_there(name))
    if "safetensors" in wanted and not (_is_there("torch") or _is_there("numpy")):
        lacking.append("numpy")
    if lacking:
        return f"{sys.executable} has no {' and no '.join(lacking)}"
    if "torch" in wanted:
        return too_old()
    return ""


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


# --- safetensors --------------------------------------------------------------------------------------------------


def check_safetensors(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    shapes: dict[str, Sequence[int]] = {}
    infinite = []
    for name, tensor, finite in _safetensors(path):
        shapes[name] = tuple(tensor.shape)
        if level == "expect" and expect.get("finite", True) and not finite(tensor):
            infinite.append(name)
    found: dict[str, Any] = {"tensors": len(shapes), "step": step_in_name(path)}
    if level == "expect":
        refuse_broken_promises(Inside(shapes, list(shapes), found["step"], False), expect)
        if expect.get("finite", True):
            refuse_infinite(infinite, len(shapes))
            found["finite"] = True
        found.update(resume_state=False, shapes=shapes)
    return found


def _safetensors(path: str) -> Iterator[tuple[str, Any, Any]]:
    """(name, tensor, how to tell that it is finite); torch knows more number formats than numpy."""
    need("safetensors", _FIX)
    framework = "pt" if _installed("torch") else "np"
    if framework == "np":
        need("numpy", _FIX)
    from safetensors import safe_open

    with safe_open(path, framework=framework) as archive:
        for name in sorted(archive.keys()):
            yield name, archive.get_tensor(name), is_finite if framework == "pt" else _numpy_finite


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def _numpy_finite(array: Any) -> bool:
    import numpy

    if array.dtype.names:
        return all(_numpy_finite(array[name]) for name in array.dtype.names)
    return array.dtype.kind not in "fc" or bool(numpy.isfinite(array).all())


# --- npz ----------------------------------------------------------------------------------------------------------


def check_npz(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    numpy = need("numpy", "pip install numpy, or use level structure")
    looks = level == "expect" and expect.get("finite", True)
    found: dict[str, bool] = {}

    def look(window: Window) -> None:
        for member in zip_archive.read_members(window):
            found[member.name[: -len(".npy")]] = _check_array(numpy, window, member, looks)

    problem_in(path, look)
    if looks:
        refuse_infinite([name for name, finite in found.items() if not finite], len(found))
        return {"tensors": len(found), "finite": True}
    return {"tensors": len(found)}


class _Part:
    """An unpacked part as a stream, for numpy's reader of headers."""

    def __init__(self, window: Window, member: Member):
        self._chunks = zip_archive.unpacked(window, member)
        self._kept = b""

    def read(self, count: int) -> bytes:
        while len(self._kept) < count:
            data = next(self._chunks, b"")
            if not data:
                break
            self._kept += data
        taken, self._kept = self._kept[:count], self._kept[count:]
        return taken


def _check_array(numpy: Any, window: Window, member: Member, looks: bool) -> bool:
    """Whether all numbers of an array are finite. Read in pieces: a part may unpack to a thousand times its size."""
    part = _Part(window, member)
    version = numpy.lib.format.read_magic(part)
    reader = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
    shape, _fortran, dtype = reader(part)
    if dtype.hasobject:
        raise CheckFailed(f"needs code to load (object array {member.name[: -len('.npy')]!r}) and was refused")
    left, finite = int(numpy.prod(shape, dtype=object)) * dtype.itemsize, True
    step = max(1, 1024 * 1024 // max(1, dtype.itemsize)) * dtype.itemsize
    while left:
        data = part.read(min(step, left))
        if not data or len(data) % dtype.itemsize:
            raise CheckFailed(f"is truncated: array {member.name[: -len('.npy')]!r} lacks {left} bytes")
        left -= len(data)
        if looks and finite:
            finite = _numpy_finite(numpy.frombuffer(data, dtype))
    return finite


# --- json ---------------------------------------------------------------------------------------------------------


def check_json(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    if level != "expect":
        return {}
    documents: list[Any] = []
    problem_in(path, lambda window: documents.extend(json_documents(window, path.endswith(".jsonl"))))
    found: dict[str, Any] = {"step": last_step(documents)}
    values = {str(name): _last_metric(documents, str(name)) for name in expect.get("metrics") or []}
    present = [name for name, value in values.items() if value is not None]
    infinite = [name for name in present if not finite_number(values[name])]
    if infinite:
        raise CheckFailed(f"has metrics that are not finite numbers: {', '.join(infinite)}")
    if present:
        found["finite"] = True
    return dict(found, metrics=present)


def _last_metric(documents: Sequence[Any], name: str) -> Any:
    """The last value of a metric; a dot in its name leads into nested mappings."""
    for document in reversed(documents):
        value = document
        for part in [name] if isinstance(document, dict) and name in document else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def last_step(documents: Sequence[Any]) -> int | None:
    found = [
        document.get(key) for document in documents if isinstance(document, dict) for key in ("step", "global_step")
    ]
    return max((step for step in found if isinstance(step, int) and not isinstance(step, bool)), default=None)


def step_of_trainer(folder: str) -> int | None:
    """The step in the ``trainer_state.json`` that a Hugging Face trainer leaves in a checkpoint's folder."""
    path = os.path.join(folder, "trainer_state.json")
    documents: list[Any] = []
    try:
        problem_in(path, lambda window: documents.extend(json_documents(window, lines=False)))
    except OSError:
        return None
    return last_step(documents)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files of torch.save: loaded without running code from them, looked through without copying them into memory."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import re
import sys
from typing import Any, BinaryIO, Iterator, Mapping, Sequence

from .box.inert_pickle import never_allowed
from .load_failures import CheckFailed, Inside, need, refuse_broken_promises, refuse_infinite

# The first that leaves the tensors in the file.
OLDEST = (2, 1)
STEP_KEYS = ("step", "global_step", "iteration", "steps")
FIX = "pip install 'gpu-tenant[torch]', or use level structure"
_STEP_IN_NAME = re.compile(r"step-(\d+)\.[A-Za-z]+\Z")
_CHUNK_ELEMENTS = 4 * 1024 * 1024


def too_old() -> str:
    """Why the torch that is installed cannot load a file bit by bit; empty when it can. Does not import it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("torch")
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers and tuple(map(int, numbers.groups())) < OLDEST:
            return f"torch {version} of {sys.executable} is older than {'.'.join(map(str, OLDEST))}"
    return ""


def check_torch(path: str, level: str, expect: Mapping[str, Any]) -> dict[str, Any]:
    """``tensors``, ``step`` and what level expect adds; CheckFailed when it cannot be loaded or breaks a promise."""
    state = load(path, path, expect)
    tensors = dict(named_tensors(state))
    inside = Inside(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        [str(key) for key in state] if isinstance(state, dict) else [],
        step_in_state(state),
        _has_resume_state(state),
    )
    _refuse_other_step(path, state)
    found: dict[str, Any] = {"tensors": len(tensors), "step": inside.step}
    if inside.step is None:
        found["step"] = step_in_name(path)
    if level == "expect":
        refuse_broken_promises(inside, expect)
        found.update(resume_state=inside.resume_state, shapes=inside.shapes)
        if expect.get("finite", True):
            refuse_infinite([name for name, tensor in tensors.items() if not is_finite(tensor)], len(tensors))
            found["finite"] = True
    return found


def load(source: str | BinaryIO, path: str, expect: Mapping[str, Any], device: str = "cpu") -> Any:
    """What is in ``source``; a file given by its path stays mapped, so its bytes are read when they are looked at.

    :param device: ``meta`` loads shapes only.
    """
    torch = need("torch", FIX)
    with _allowed(torch, expect.get("globals") or [], path):
        try:
            return torch.load(source, map_location=device, weights_only=True, mmap=isinstance(source, str))
        except Exception as error:
            raise _refusal(torch, source, error) from error


def _refusal(torch: Any, source: str | BinaryIO, error: Exception) -> Exception:
    """CheckFailed naming the code that a file asks for; any other error as it is."""
    if "weights_only" not in str(error) and "Weights only" not in str(error):
        return error
    needs: Sequence[str] = ()
    with contextlib.suppress(Exception):
        if not isinstance(source, str):
            source.seek(0)
        needs = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(source))
    needs = needs or re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]
    if not needs:
        paragraphs = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = paragraphs[min(1, len(paragraphs) - 1)][:200]
        return CheckFailed(f"needs more than plain tensors to load and was refused ({reason})")
    more = f" and {len(needs) - 10} more" if len(needs) > 10 else ""
    return CheckFailed(
        f"needs code to load ({', '.join(needs[:10])}{more}) and was refused: nothing from a box is executed. "
        "Save tensors and plain values only, or name in expect.globals what you trust to be called with any arguments"
    )


# --- names that a user trusts ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _allowed(torch: Any, names: Sequence[str], path: str) -> Iterator[None]:
    """Within it torch may call numpy's own constructors and what ``names`` lists, taken from this machine."""
    trusted = [_resolve(name, path) for name in names]
    safe_globals = getattr(torch.serialization, "safe_globals", None)
    if safe_globals is None:
        if trusted:
            raise CheckFailed("cannot be loaded with expect.globals by this torch: 2.5 or newer is needed")
        yield
        return
    with contextlib.suppress(ImportError, AttributeError):
        trusted += _numpy_globals()
    with safe_globals(trusted):
        yield


def refuse_dangerous(names: Sequence[str]) -> str:
    """Which of ``names`` no list can make safe, as a sentence; empty when there is none."""
    dangerous = [name for name in names if never_allowed(name) or "." not in name]
    if not dangerous:
        return ""
    return f"globals names {', '.join(dangerous)}, through which a file could run any command: refused even when listed"


def _resolve(name: str, path: str) -> tuple[Any, str]:
    """The class or function ``name`` of this machine, never of the folder that the file lies in."""
    if refuse_dangerous([name]):
        raise CheckFailed(refuse_dangerous([name]))
    _forget_folder(os.path.dirname(path))
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        with contextlib.suppress(AttributeError):
            for attribute in parts[length:]:
                found = getattr(found, attribute)
            return found, name
    raise CheckFailed(f"needs {name}, which expect.globals lists but which cannot be imported here")


def _forget_folder(folder: str) -> None:
    """What came from a box must not be found by an import."""
    there = os.path.join(os.path.realpath(folder), "")
    elsewhere = [entry for entry in sys.path if not os.path.join(os.path.realpath(entry), "").startswith(there)]
    # A relative entry is wherever the command happens to run.
    sys.path[:] = [entry for entry in elsewhere if os.path.isabs(entry)]


def _numpy_globals() -> list[Any]:
    """What numpy scalars and the numpy random state need; none of it runs code from the file."""
    import numpy

    core: Any = getattr(numpy, "_core", None) or numpy.core  # numpy 2 renamed it
    multiarray = core.multiarray
    dtypes = [type(numpy.dtype(code)) for code in "?bBhHiIlLqQefdFD"]
    renamed = [(multiarray.scalar, "numpy.core.multiarray.scalar")]
    renamed += [(multiarray._reconstruct, "numpy.core.multiarray._reconstruct")]
    return [multiarray.scalar, multiarray._reconstruct, numpy.ndarray, numpy.dtype, *dtypes, *renamed]


# --- what is inside -------------------------------------------------------------------------------------------


def named_tensors(state: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor in nested containers, each once, named by the keys that lead to it: ``model.layer.weight``."""
    import torch

    seen, waiting = set(), [("", state)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield name, value
            continue
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, (list, tuple)):
            inner = list(enumerate(value))
        else:
            continue
        waiting += [(f"{name}.{key}" if name else str(key), item) for key, item in inner]


def step_in_state(state: Any) -> int | None:
    for key in STEP_KEYS if isinstance(state, dict) else ():
        value = whole_number(state.get(key))
        if value is not None:
            return value
    return None


def whole_number(value: Any) -> int | None:
    """``value``, also from a tensor of one element, as a whole number."""
    if hasattr(value, "numel") and value.numel() == 1:
        value = value.item()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return None


def step_in_name(path: str) -> int | None:
    match = _STEP_IN_NAME.search(os.path.basename(path))
    return int(match.group(1)) if match else None


def _refuse_other_step(path: str, state: Any) -> None:
    """A file whose name and content differ is an old one under a new name."""
    named = step_in_name(path)
    inside = whole_number(state.get("step")) if isinstance(state, dict) else None
    if named is not None and inside is not None and named != inside:
        raise CheckFailed(f"is of step {inside}, its name says {named}: it is not the file of that step")


def _has_resume_state(state: Any) -> bool:
    """Whether an optimizer's state and a random state are inside: without them a resume is a restart."""
    if not isinstance(state, dict):
        return False
    names = [str(key) for key, value in state.items() if value is not None]
    objects = state.get("objects")
    if isinstance(objects, dict):
        names += [str(key) for key in objects]
    return names_a_resume(names)


def names_a_resume(names: Sequence[str]) -> bool:
    lower = [name.lower() for name in names]
    return any("optim" in name for name in lower) and any("rng" in name or "random" in name for name in lower)


# --- finite ---------------------------------------------------------------------------------------------------


def is_finite(tensor: Any) -> bool:
    """Whether a tensor holds neither NaN nor infinity, looked at in pieces that need no memory to speak of."""
    import torch

    if tensor.device.type == "meta":
        raise CheckFailed("holds a tensor without numbers (on the device meta)")
    if tensor.layout != torch.strided:
        return is_finite(_values_of_sparse(tensor))
    if tensor.is_quantized:
        return True  # whole numbers with a scale
    if tensor.is_complex():
        return is_finite(torch.view_as_real(tensor.resolve_conj()))
    if not tensor.is_floating_point():
        return True
    return all(_finite_piece(piece) for piece in _pieces(tensor.detach()))


def _values_of_sparse(tensor: Any) -> Any:
    import torch

    return tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()


def _finite_piece(piece: Any) -> bool:
    import torch

    wide = piece.to(torch.float32) if piece.element_size() < 4 else piece
    low, high = torch.aminmax(wide)
    # NaN comes through both, infinity through one.
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _pieces(tensor: Any) -> Iterator[Any]:
    """Every element in views of bounded size."""
    if not tensor.numel():
        return
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    if tensor.numel() > span:
        # Strides of 0 or less than a row show one element many times, in a hostile file for ever.
        tensor = tensor.as_strided((span,), (1,))
    order = sorted(range(tensor.dim()), key=lambda dimension: -tensor.stride(dimension))
    yield from _pieces_in_order(tensor.permute(order))


def _pieces_in_order(tensor: Any) -> Iterator[Any]:
    if tensor.is_contiguous():
        yield from tensor.reshape(-1).split(_CHUNK_ELEMENTS)
    elif tensor.numel() <= _CHUNK_ELEMENTS:
        yield tensor
    else:
        for part in tensor.split(max(1, tensor.shape[0] // 2)) if tensor.shape[0] > 1 else tensor.unbind(0):
            yield from _pieces_in_order(part)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reads a probe: states in one sentence what torch runs on, and says which wishes the box does not meet.

The probe's values come from a stranger's machine, so every one of them is checked for its type before it is used.
"""

from __future__ import annotations

import re
from typing import Any

from .box import records
from .box.gates import DEFAULT_MIN_FREE_BYTES, DEFAULT_MIN_FREE_INODES

# A card reports up to 6.25 % less than it is sold with where ECC takes its share (a "16 GB" T4 reports 15,360 MiB).
ECC_SHARE = 0.07

_VENDOR_WORDS = {"NVIDIA", "GEFORCE", "TESLA", "QUADRO", "GRAPHICS", "DEVICE", "GENERATION", "TENSOR", "CORE"}
_FORM_WORDS = {"SXM", "SXM2", "SXM3", "SXM4", "SXM5", "SXM6", "PCIE", "NVL", "HBM2", "HBM2E", "HBM3", "HBM3E", "PG506"}
_VARIANT_WORDS = {"TI", "SUPER", "ADA", "D", "LAPTOP", "MOBILE", "MAX", "Q", "MIG"}
_CAPACITY = re.compile(r"[0-9]+GB?\Z")


def statement(torch: Any, training_python: Any, driver_cuda: Any) -> str:
    """One plain sentence: what torch runs on, or why it does not run."""
    path = one_line(_field(training_python, "path")) or "the training Python"
    if isinstance(training_python, dict) and not training_python.get("version"):
        return f"{path} cannot train: {one_line(_field(training_python, 'why')) or 'it does not run'}"
    if not isinstance(torch, dict):
        return "torch was not looked at"
    version, error = one_line(torch.get("version")), one_line(torch.get("error"))
    if not version:
        return f"torch does not run in {path}: {error or 'it said nothing'}"
    if error:
        return f"torch {version} does not work: {error}"
    if torch.get("cuda_available") is True:
        device = one_line(torch.get("device_name")) or "an unnamed GPU"
        return f"torch {version} runs on the GPU: {device} (CUDA {one_line(torch.get('cuda_built')) or 'unknown'})"
    return f"torch {version} runs on the CPU: {_why_no_cuda(torch, driver_cuda)}"


def _why_no_cuda(torch: dict[str, Any], driver_cuda: Any) -> str:
    built = one_line(torch.get("cuda_built"))
    if not built:
        return "CUDA is not available"
    if _version(driver_cuda) and _version(driver_cuda) < _version(built):
        return f"it was built for CUDA {built}, the driver runs at most {driver_cuda}"
    return f"CUDA is not available although it was built for CUDA {built}"


def refusals(probe: Any, require: dict[str, Any]) -> list[str]:
    """A sentence for each wish that the box does not meet; empty when it may be admitted.

    :param require: any of gpu_name, num_gpus, min_gpu_ram_gb, cuda, min_free_gb, min_free_inodes; a missing or None
        value asks for nothing.
    """
    wish = {name: value for name, value in require.items() if value is not None}
    found = _python_refusals(probe) + _gpu_refusals(probe, wish)
    if wish.get("cuda") and _field(_field(probe, "torch"), "cuda_available") is not True:
        found.append(one_line(_field(probe, "statement")) or "torch does not see a GPU")
    return found + _disk_refusals(probe, wish) + _durable_refusals(probe)


def _python_refusals(probe: Any) -> list[str]:
    training = _field(probe, "training_python")
    if not isinstance(training, dict) or training.get("version"):
        return []
    found = one_line(_field(_field(probe, "python"), "path"))
    hint = f"; {found} is there, set platform_python if it is the one that trains" if found else ""
    return [
        f"the training Python {one_line(training.get('path'))} is not usable: {one_line(training.get('why'))}{hint}"
    ]


def _gpu_refusals(probe: Any, wish: dict[str, Any]) -> list[str]:
    wanted = {name for name in ("gpu_name", "num_gpus", "min_gpu_ram_gb") if wish.get(name)}
    if not wanted:
        return []
    gpus = [gpu for gpu in _list(_field(probe, "gpus")) if isinstance(gpu, dict)]
    if not gpus:
        why = one_line(_field(_field(probe, "nvidia_smi"), "why")) or "nvidia-smi reports none"
        return [f"a GPU was offered, none is seen: {why}"]
    found = []
    count = int(wish.get("num_gpus") or 1)
    if len(gpus) < count:
        found.append(f"offered {_plural(count, 'GPU')}, nvidia-smi reports {len(gpus)}")
    name = one_line(wish.get("gpu_name"))
    strangers = sorted(
        {one_line(gpu.get("name")) for gpu in gpus if name and not same_gpu(name, one_line(gpu.get("name")))}
    )
    if strangers:
        found.append(f"offered {name}, nvidia-smi reports {', '.join(strangers)}")
    return found + _memory_refusals(gpus, wish)


def _memory_refusals(gpus: list[dict[str, Any]], wish: dict[str, Any]) -> list[str]:
    wanted = records.finite(wish.get("min_gpu_ram_gb"))
    if not wanted:
        return []
    sizes = [records.finite(gpu.get("memory_mb")) for gpu in gpus]
    if any(size is None for size in sizes):
        return [f"offered {wanted:g} GB, nvidia-smi does not say how much memory there is"]
    smallest = min(size for size in sizes if size is not None)
    if smallest < wanted * 1024 * (1 - ECC_SHARE):
        return [f"offered {wanted:g} GB, nvidia-smi reports {round(smallest / 1024, 1):g} GB"]
    return []


def _disk_refusals(probe: Any, wish: dict[str, Any]) -> list[str]:
    gigabytes, inodes = records.finite(wish.get("min_free_gb")), records.finite(wish.get("min_free_inodes"))
    if not gigabytes and not inodes:
        return []
    mounts = [mount for mount in _list(_field(probe, "mounts")) if _field(mount, "role") == "data"]
    if not mounts:
        return ["the data folder could not be measured"]
    mount, found = mounts[0], []
    path = one_line(mount.get("path"))
    free, files = records.finite(mount.get("free_bytes")), records.finite(mount.get("free_inodes"))
    if gigabytes and (free is None or free < gigabytes * 1e9):
        has = "unknown" if free is None else f"{free / 1e9:.1f} GB"
        found.append(f"{gigabytes:g} GB are needed in {path}, free: {has}")
    if inodes and files is not None and files < inodes:
        found.append(f"{inodes:.0f} files are needed in {path}, free inodes: {files:.0f}")
    return found


def _durable_refusals(probe: Any) -> list[str]:
    durable = _field(probe, "durable")
    if _field(durable, "kind") != "mount":
        return []
    if _field(durable, "real") is not True:
        why = one_line(_field(durable, "why")) or "it was not proven"
        return [f"the durable mount is not real: {why}; {_instead(durable)}"]
    return _full(durable)


def _instead(durable: Any) -> str:
    """What to write instead: a network disk that the box has, or none."""
    others = [one_line(_field(each, "path")) for each in _list(_field(durable, "others"))]
    there = f"set platform_durable_path to a network disk of this box ({', '.join(others)}), or " if any(others) else ""
    return f"{there}set platform_durable_kind to pull and platform_durable_path to '' so that results are pulled"


def _full(durable: Any) -> list[str]:
    """A quota or a cap on files that is used up: neither a checkpoint nor a result would land."""
    use, path = _field(durable, "use"), one_line(_field(durable, "path"))
    cap, used = records.finite(_field(use, "cap_bytes")), records.finite(_field(use, "used_bytes"))
    found = []
    if cap is not None and used is not None and cap - used < min(DEFAULT_MIN_FREE_BYTES, cap / 10):
        most = [f"{name} {size / 1e9:.1f} GB" for name, size in _largest(use)]
        found.append(f"the durable mount {path} is full: {used / 1e9:.1f} of {cap / 1e9:g} GB are used{_mostly(most)}")
    return found + _full_of_files(_field(durable, "files"), path)


def _full_of_files(files: Any, path: str) -> list[str]:
    cap, used = records.finite(_field(files, "cap")), records.finite(_field(files, "used"))
    if cap is None or used is None or cap - used >= min(DEFAULT_MIN_FREE_INODES, cap / 10):
        return []
    most = _mostly([f"{name} {count:.0f} files" for name, count in _largest(files)])
    return [
        f"the durable mount {path} is full: {used:.0f} of the {cap:.0f} files that it may hold are there{most}; "
        "remove what no run needs from it, or raise platform_inode_cap if the platform allows more"
    ]


def _largest(use: Any) -> list[tuple[str, float]]:
    pairs = [each for each in _list(_field(use, "largest")) if isinstance(each, (list, tuple)) and len(each) == 2]
    sizes = [(one_line(name), records.finite(size)) for name, size in pairs]
    return [(name, size) for name, size in sizes if size is not None]


def _mostly(most: list[str]) -> str:
    return f" (most of it: {', '.join(most)})" if most else ""


def same_gpu(wanted: str, reported: str) -> bool:
    """Whether the card that is there is the card that was wanted.

    Markets and nvidia-smi write one card differently ("RTX_4090", "NVIDIA GeForce RTX 4090"): vendor words and sizes do
    not count, a form factor counts where both name one, a variant (Ti, Super, D, Laptop) always counts.
    """
    want, have = _words(wanted), _words(reported)
    both_forms = want & _FORM_WORDS, have & _FORM_WORDS
    if all(both_forms) and not _forms_agree(*both_forms):
        return False
    want_core, have_core = want - _FORM_WORDS, have - _FORM_WORDS
    missing = want_core - have_core
    surplus = (have_core - want_core) & _VARIANT_WORDS
    return bool(want_core) and not missing and not surplus


def _forms_agree(first: set[str], second: set[str]) -> bool:
    """SXM agrees with SXM4; a kind of memory says nothing against a form factor."""
    plain = [{word[:3] if word.startswith("SXM") else word for word in words} for words in (first, second)]
    kinds = [{word for word in words if not word.startswith("HBM")} for words in plain]
    return not all(kinds) or bool(kinds[0] & kinds[1])


def _words(name: str) -> set[str]:
    spread = re.sub(r"([0-9])(ADA|SUPER|TI|D)(?![A-Z0-9])", r"\1 \2", name.upper())
    words = {word for word in re.split(r"[^A-Z0-9]+", spread) if word}
    return {word for word in words if word not in _VENDOR_WORDS and not _CAPACITY.match(word)}


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def one_line(value: Any) -> str:
    """Untrusted text fit for a sentence: one line, no control characters, at most 200 characters."""
    if not isinstance(value, str):
        return ""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value).strip()[:200]


def _version(text: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:2]) if isinstance(text, str) else ()

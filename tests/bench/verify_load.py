# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""verify_load of one file of torch.save, 2 GiB, against hashlib's SHA-256 of the same file.

Each side is a new process with a warm page cache, so that ``import torch`` is paid for where it is needed.
``VERIFY_LOAD_MIB`` takes another size.

Then the same check in a memory cgroup that may hold 500 MiB more than an idle ``import torch`` does, and a plain
``torch.load`` in another such, which the kernel must kill: the limit is real. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import Figure, Row, compare
from memory_group import idle_torch_bytes, memory_group

TITLE = "verify_load against SHA-256, 2 GiB torch file"
_COLLECTIONS = Path(__file__).resolve().parent.parent.parent / "collections"
_TENSORS = 16
_MARGIN = 500 * 2**20
_MIB = 2**20
_SAVE = """
import sys, torch
torch.manual_seed(0)
elements = int(sys.argv[2]) * 2**20 // 4 // int(sys.argv[3])
torch.save({"step": 1, "model": {f"w{n}": torch.randn(elements) for n in range(int(sys.argv[3]))}}, sys.argv[1])
"""
_SHA256 = """
import hashlib, sys
with open(sys.argv[1], "rb") as stream:
    hashlib.file_digest(stream, "sha256").hexdigest()
"""
_CHECK = """
import sys
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks
checks = load_checks.check_roster(sys.argv[1], [{"path": "m.pt", "loader": "torch"}], sys.argv[2])
load_checks.refuse_failed(checks, sys.argv[1])
"""
_LOOK_THROUGH = """
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks
(check,) = load_checks.check_roster(folder, [{"path": "m.pt", "loader": "torch"}], "expect")
print(check["ok"], check["finite"], check["tensors"], check["error"])
"""
_HOLD = """
import torch
state = torch.load(folder + "/m.pt", weights_only=True)
print("held all of it")
"""


def rows() -> list[Row]:
    mebibytes = _size()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.pt")
        _python(_SAVE, path, mebibytes, str(_TENSORS))()
        sha256 = _python(_SHA256, path)
        found = [
            compare("structure: every CRC-32", _python(_CHECK, folder, "structure"), sha256, limit=0.6),
            compare("load and finite, with import torch", _python(_CHECK, folder, "expect"), sha256, limit=2.0),
        ]
        _python(_SAVE, path, mebibytes, "1")()
        one_tensor = compare("structure, all in one tensor", _python(_CHECK, folder, "structure"), sha256, limit=0.6)
        return [*found, one_tensor]


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        _python(_SAVE, str(Path(folder) / "m.pt"), _size(), str(_TENSORS))()
        found = memory(Path(folder))
    passed = found.checked.stdout.startswith("True True ")
    above = found.peak_mib - found.idle_mib if passed else float("inf")
    survived = float(not (found.held.returncode < 0 and found.kills))
    return [
        Figure("memory of an idle `import torch`", found.idle_mib, "MiB"),
        Figure("load and finite: peak above that, page cache included", above, "MiB", limit=_MARGIN / _MIB),
        Figure("plain `torch.load` under the same limit, not killed by the kernel", survived, "of 1", limit=0),
    ]


@dataclass(frozen=True)
class Memory:
    """``checked`` and ``held`` are what became of the check and of a plain load, ``kills`` what the latter cost."""

    idle_mib: float
    limit_mib: float
    peak_mib: float
    checked: subprocess.CompletedProcess[str]
    held: subprocess.CompletedProcess[str]
    kills: int


def memory(folder: Path) -> Memory:
    """``m.pt`` of ``folder``, looked through and then held, each with the margin above an idle torch."""
    idle = idle_torch_bytes(folder)
    with memory_group() as group:
        group.limit(idle + _MARGIN)
        checked = group.run(_LOOK_THROUGH, folder)
        peak = int(group.peak.read_text())
    with memory_group() as group:
        group.limit(idle + _MARGIN)
        held = group.run(_HOLD, folder)
        kills = group.kills
    return Memory(idle / _MIB, (idle + _MARGIN) / _MIB, peak / _MIB, checked, held, kills)


def _size() -> str:
    return os.environ.get("VERIFY_LOAD_MIB", "2048")


def _python(script: str, *arguments: str) -> Callable[[], object]:
    environment = dict(os.environ, PYTHONPATH=str(_COLLECTIONS))
    return lambda: subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True)

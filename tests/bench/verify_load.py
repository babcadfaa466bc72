# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""verify_load of one file of torch.save, 2 GiB, against hashlib's SHA-256 of the same file.

Each side is a new process with a warm page cache, so that ``import torch`` is paid for where it is needed.
``VERIFY_LOAD_MIB`` takes another size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness import Row, compare

TITLE = "verify_load against SHA-256, 2 GiB torch file"
_COLLECTIONS = Path(__file__).resolve().parent.parent.parent / "collections"
_TENSORS = 16
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


def rows() -> list[Row]:
    mebibytes = os.environ.get("VERIFY_LOAD_MIB", "2048")
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


def _python(script: str, *arguments: str) -> Callable[[], object]:
    environment = dict(os.environ, PYTHONPATH=str(_COLLECTIONS))
    return lambda: subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True)

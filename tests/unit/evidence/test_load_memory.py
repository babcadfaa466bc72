# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Memory of a load check: bounded, however large the file. The kernel enforces it here, through a cgroup."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The figure is for 2048 MiB; whatever is larger than the margin shows that the file is never in memory whole.
MEBIBYTES = int(os.environ.get("VERIFY_LOAD_MIB", "640"))
MARGIN = 500 * 2**20
_COLLECTIONS = str(Path(__file__).resolve().parents[3] / "collections")
_IDLE = "import torch\nprint(open(usage).read())"
_CHECK = """
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks
(check,) = load_checks.check_roster(folder, [{"path": "m.pt", "loader": "torch"}], "expect")
print(check["ok"], check["finite"], check["tensors"], check["error"])
"""
_HOLD = """
import torch
state = torch.load(folder + "/m.pt", weights_only=True)
print("held all of it")
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A new memory cgroup, of version 1 or 2."""
    name = f"tenant-load-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    made = (old if (old / "memory.limit_in_bytes").exists() else new) / name
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory cgroup: {error}")
    try:
        if not _usage(made).exists():
            pytest.skip("the memory controller is not delegated here")
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()


def _usage(group: Path) -> Path:
    old = group / "memory.usage_in_bytes"
    return old if old.exists() else group / "memory.current"


def _limit(group: Path) -> Path:
    old = group / "memory.limit_in_bytes"
    return old if old.exists() else group / "memory.max"


def run_in(group: Path, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    enter = f"import os\nopen({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    names = f"usage, folder = {str(_usage(group))!r}, {str(folder)!r}\n"
    environment = {"PYTHONPATH": _COLLECTIONS, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", enter + names + script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_file_larger_than_the_memory_left_is_loaded_and_looked_through(group: Path, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(MEBIBYTES * 2**18)}, tmp_path / "m.pt")
    idle = int(run_in(group, _IDLE, tmp_path).stdout)
    _limit(group).write_text(str(idle + MARGIN))
    done = run_in(group, _CHECK, tmp_path)
    assert done.stdout.split() == ["True", "True", "1"], (done, f"{idle / 2**20:.0f} MiB idle")
    assert run_in(group, _HOLD, tmp_path).returncode == -9, "the limit is real: holding the file is killed"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Memory of a load check: bounded, however large the file. The kernel enforces it here, through a cgroup.

``make bench BENCH=verify_load`` does the same with the issue's 2 GiB.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import verify_load as bench
from memory_group import NoMemoryGroup

# Whatever is larger than the margin shows that the file is never in memory whole.
MEBIBYTES = int(os.environ.get("VERIFY_LOAD_MIB", "640"))


def test_a_file_larger_than_the_memory_left_is_loaded_and_looked_through(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(MEBIBYTES * 2**18)}, tmp_path / "m.pt")
    try:
        found = bench.memory(tmp_path)
    except NoMemoryGroup as reason:
        pytest.skip(str(reason))
    assert found.checked.stdout.split() == ["True", "True", "1"], (found.checked, f"{found.idle_mib:.0f} MiB idle")
    assert found.peak_mib <= found.limit_mib
    assert (found.held.returncode, found.kills) == (-9, 1), "the limit is real: holding the file is killed"

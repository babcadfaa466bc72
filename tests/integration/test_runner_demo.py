# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The demo as a newcomer runs it. It is the whole story, so it is one test; what it must prove is in ``demo.Proof``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_sshd import wait_for

from gpu_tenant import demo

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]


def left_running(folder: Path) -> bool:
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False).returncode == 0


def test_the_demo_proves_everything_from_any_folder(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "VAST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "gpu_tenant", "demo", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["shortcomings"] == []
    assert told["resumed_from"] > 0
    assert told["accuracy"] >= demo.LEAST_ACCURACY
    assert told["leftovers"] == []
    # Nothing is left running, and no private key or account key lies outside its own private file.
    folder = next((tmp_path / demo.DEFAULT_FOLDER).iterdir())
    key = (folder / "api-key").read_bytes().strip()
    # What keeps the leases sees the end of the demo from outside, and gives them back after it.
    wait_for(lambda: not left_running(folder), what="the end of every process of the demo")
    holders = [path for path in folder.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert [str(path.relative_to(folder)) for path in holders if "marketplace" not in path.parts] == ["api-key"]

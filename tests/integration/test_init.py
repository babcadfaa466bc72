# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``gpu-tenant init`` writes is planned on a marketplace as it is, and has no fault that ansible-lint knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration
DEADLINE_S = 600


def test_a_new_folder_is_planned_unchanged_and_lints(tmp_path: Path) -> None:
    folder, home = tmp_path / "vision", tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"], check=True)
    folder.mkdir()
    (folder / "train.py").write_text("from tenant_checkpoint import Checkpoints\n")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    with running_marketplace(engine="none") as market:
        environment = {**os.environ, **market.environment, "HOME": str(home), "ANSIBLE_HOME": str(tmp_path / "ansible")}
        run(sys.executable, "-m", "gpu_tenant", "init")
        planned = run(sys.executable, "-m", "gpu_tenant", "plan", "-l", "vast", "--json").stdout.splitlines()
        assert market.bill()["instances"] == []
    told = [json.loads(line) for line in planned]
    assert any("offers fit; the best is offer" in line["text"] for line in told)
    assert any("would do: offer" in line["text"] for line in told)
    assert any("danger clock of vast: the disk of a stopped box bills" in line["text"] for line in told)
    assert told[-1]["event"] == "result"
    run(str(Path(sys.executable).with_name("ansible-lint")), "--offline", "--profile", "production", ".")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""ansible-runner's transmit, worker and process: a play is packed here, run by another process, and read back here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_tenant import scaffold
from gpu_tenant.detect import Detected
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration
RUNNER = str(Path(sys.executable).with_name("ansible-runner"))
COLLECTIONS = Path(__file__).parents[2] / "collections"
DEADLINE_S = 600
KEY, KEY_FILE = "planted-market-key", "~/.config/vastai/vast_api_key"


def packed(folder: Path) -> Path:
    """A folder as ansible-runner takes it: a project, an inventory, a run, and no secret."""
    project = folder / "project"
    project.mkdir(parents=True)
    (project / "provision.yml").write_text("---\n- name: Provision\n  import_playbook: tenant.gpu.provision\n")
    script = project / "train.py"
    script.write_text("print('trained')\n")
    found = Detected(script=script, api_key_file=KEY_FILE)
    for name, text in scaffold.files(folder, scaffold.Wanted("remote"), found).items():
        if name.startswith(("inventory/", "runs/")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


def run(words: list[str], data: bytes, **environment: str) -> bytes:
    keep = {name: os.environ[name] for name in ("PYTHONPATH", "LANG") if name in os.environ}
    # ansible-runner looks for ansible-playbook on its PATH.
    keep["PATH"] = f"{Path(RUNNER).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [RUNNER, *words],
        input=data,
        env={**keep, **environment},
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def events(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("artifacts/*/job_events/*.json"))
    return [json.loads(path.read_text()) for path in paths]


def test_a_play_is_packed_run_elsewhere_and_read_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"], check=True)
    key = Path(KEY_FILE.replace("~", str(home)))
    key.parent.mkdir(parents=True)
    key.write_text(KEY)
    private = packed(tmp_path / "controller")
    play = ["-p", "provision.yml", "--cmdline", "--check -l vast", "-i", "remote-1"]
    with running_marketplace(engine="none", api_key=KEY) as market:
        package = run(["transmit", str(private), *play], b"", HOME=str(tmp_path))
        worker = {
            "VAST_URL": market.url,
            "HOME": str(home),
            "ANSIBLE_HOME": str(home / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        }
        # The key is a file of the worker's own: ansible-runner sends its whole environment back with the answer.
        answer = run(["worker", "--private-data-dir", str(tmp_path / "worker")], package, **worker)
        assert market.bill()["instances"] == []
    read = tmp_path / "read"
    run(["process", str(read), "-i", "remote-1"], answer, HOME=str(tmp_path))
    assert (read / "artifacts/remote-1/rc").read_text() == "0"
    told = [event["event_data"].get("res") or {} for event in events(read)]
    assert any((res.get("best") or {}).get("price_per_hour") for res in told), "the offer that would be rented"
    assert KEY.encode() not in package + answer

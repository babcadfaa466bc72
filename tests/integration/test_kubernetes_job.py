# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From ``gpu-tenant export`` by way of the module to an API server on the loopback, as ``kubectl proxy`` is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_server import SPACE, Server, kubernetes_server

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration
BIN = Path(sys.executable).parent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with kubernetes_server(tmp_path) as served:
        yield served


def run(server: Server, folder: Path, **options: Any) -> dict[str, Any]:
    """The module's result."""
    words = {
        "manifests": str(folder / "job.yml"), "project": "vision", "state_dir": str(folder / "state"),
        "namespace": SPACE, "api_url": server.url, **options,
    }  # fmt: skip
    command = [str(BIN / "ansible"), "localhost", "-m", "tenant.gpu.kubernetes_job", "-a", json.dumps(words)]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout[done.stdout.find("=> ") + 3 :]
    assert said.startswith("{"), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(said)
    return result


def test_a_run_is_exported_applied_judged_and_ended(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('trained')\n")
    kept = [{"glob": "model.json", "role": "metrics", "loader": "json"}]
    spec = {"id": "digits", "command": ["python", "train.py"], "resources": {"gpu_count": 1}, "artifacts": kept}
    (tmp_path / "run.yml").write_text(yaml.safe_dump(spec))
    words = ["export", str(tmp_path / "run.yml"), "--to", "kubernetes", "--image", "registry.example/digits:1"]
    exported = subprocess.run(
        [sys.executable, "-m", "gpu_tenant", *words, "--output", str(tmp_path / "job.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert exported.returncode == 0, exported.stdout + exported.stderr

    applied = run(server, tmp_path)
    assert (applied["changed"], applied["verdict"]) == (True, "scheduling"), applied
    cluster = server.cluster
    limits = cluster.objects["Job", applied["job"]]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "1"}
    waits = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ]
    labels = {"batch.kubernetes.io/job-name": applied["job"]}
    cluster.put("Pod", "p", metadata={"labels": labels}, status={"phase": "Pending", "conditions": waits})
    judged = run(server, tmp_path)
    assert (judged["changed"], judged["verdict"]) == (False, "scheduling-stuck")
    assert "0/3 nodes are available" in judged["evidence"]

    refused = run(server, tmp_path, state="absent", claim="absent")
    assert refused["failure"]["kind"] == "gate_refused"
    assert ("Job", applied["job"]) in cluster.objects
    ended = run(server, tmp_path, state="absent")
    assert (ended["changed"], ended["verdict"]) == (True, "gone")
    assert list(cluster.objects) == [("PersistentVolumeClaim", applied["claim"])]

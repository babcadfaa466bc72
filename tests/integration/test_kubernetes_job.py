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


def ask(folder: Path, *words: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """A command of the runner's on the host k1, without the project's own configuration."""
    command = [sys.executable, "-m", "gpu_tenant", *words, "-l", "k1", "--json"]
    surroundings = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), **environment}
    command += [f"-i{folder / name}" for name in ("profiles.yml", "hosts.yml")]
    done = subprocess.run(
        command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=600, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_plan_and_status_of_a_host_that_is_a_job(server: Server, tmp_path: Path) -> None:
    """The whole way, from an inventory as a team has it: no playbook looks for a box."""
    labels = {"app.kubernetes.io/managed-by": "gpu-tenant"}
    spec = {
        "activeDeadlineSeconds": 7200,
        "backoffLimit": 2,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "trainer"}]}},
    }
    about = {"name": "digits", "labels": labels, "annotations": {"gpu-tenant/run": "digits"}}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}
    (tmp_path / "job.yml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
    told = {
        "tenant_project": "vision",
        "tenant_state_dir": str(tmp_path / "state"),
        "kubernetes_manifests": str(tmp_path / "job.yml"),
        "kubernetes_api_url": server.url,
        "kubernetes_namespace": SPACE,
    }
    inventory = {"kubernetes": {"hosts": {"k1": None}, "vars": told}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))

    code, events = ask(tmp_path, "plan")
    said = " ".join(event["text"] for event in events)
    assert code == 0, said
    clocks = yaml.safe_load((ROOT / "inventories/profiles/group_vars/kubernetes.yml").read_text())["platform_clocks"]
    for clock in clocks:
        assert f"danger clock of kubernetes: {clock['effect']}" in said
    assert "would apply Job digits" in said
    assert "would make: job" in said
    assert server.cluster.objects == {}

    server.cluster.put("Job", "digits", metadata=about, spec=spec, status={"startTime": "2020-01-01T00:00:00Z"})
    labels = {"batch.kubernetes.io/job-name": "digits"}
    server.cluster.put("Pod", "digits-x", metadata={"labels": labels}, status={"phase": "Running"})
    code, (row,) = ask(tmp_path, "status")
    assert (code, row["verdict"], row["provider"]) == (0, "running", "Running")
    assert [(one["left"], one["alarm"]) for one in row["countdowns"]] == [("overdue", True)]
    server.cluster.objects["Job", "digits"]["metadata"]["labels"] = {}
    code, events = ask(tmp_path, "plan")
    assert code == 10
    assert "is there and is not ours" in events[-1]["text"]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An inventory host whose run is a Job: what ``status`` shows of it and what ``plan`` says of it, by the cluster's own
words; nobody looks for a box, and nothing is changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.job import deadlines_of
from small_cluster import URL, SmallCluster

from gpu_tenant import cluster_jobs, status, verdicts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.status_view import line

PROFILE = Path(__file__).parents[3] / "inventories/profiles/group_vars/kubernetes.yml"
ABOUT = {
    "labels": {"app.kubernetes.io/managed-by": "gpu-tenant"},
    "annotations": {f"gpu-tenant/{name}": name for name in ("run", "spec-sha256", "code-sha256")},
}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "digits", **ABOUT},
    "spec": {
        "activeDeadlineSeconds": 7200,
        "completions": 2,
        "backoffLimitPerIndex": 3,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": "4"}}}],
            }
        },
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "digits-ckpt", **ABOUT},
    "spec": {"resources": {"requests": {"storage": "40Gi"}}},
}
STARTED, ENDED = "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCluster:
    found = SmallCluster(tmp_path)
    monkeypatch.setattr(cluster_jobs, "client_of", lambda _host: found.client())
    monkeypatch.delenv("KUBERNETES_API_URL", raising=False)
    (tmp_path / "job.yml").write_text(yaml.safe_dump_all([CLAIM, JOB]))
    return found


def host_of(cluster: SmallCluster, **changes: str) -> BoxHost:
    told = {
        "tenant_project": "vision",
        "tenant_state_dir": cluster.store.root,
        "kubernetes_manifests": str(Path(cluster.store.root).parent / "job.yml"),
        "kubernetes_api_url": URL,
    }
    return BoxHost("k1", {**yaml.safe_load(PROFILE.read_text()), **told, **changes})


def seen_of(host: BoxHost) -> Observation:
    return Observer([host], "").observe(each_alone=True)["k1"]


def row_of(host: BoxHost) -> dict[str, Any]:
    return status.row(host, seen_of(host))


def put(cluster: SmallCluster, **status: Any) -> dict[str, Any]:
    made = copy.deepcopy(JOB)
    return cluster.put("Job", "digits", metadata=made["metadata"], spec=made["spec"], status=status)


def pod(cluster: SmallCluster, **status: Any) -> None:
    cluster.put("Pod", "digits-0", metadata={"labels": {"batch.kubernetes.io/job-name": "digits"}}, status=status)


def test_a_job_at_work_is_shown_in_the_words_of_its_cluster(cluster: SmallCluster) -> None:
    put(cluster, startTime=STARTED)
    pod(cluster, phase="Running")
    row = row_of(host_of(cluster))
    assert (row["verdict"], row["provider"], row["provider_id"]) == (verdicts.RUNNING, "Running", "digits")
    assert (row["contact"], row["spent_usd"], row["problem"]) == ("not_tried", None, "")
    assert "pod digits-0 runs" in row["why"]
    assert line(row)["instance"] == "Running digits"
    assert [one for one in cluster.sent if one[0] != "GET"] == []


def test_a_job_that_waits_says_what_for_and_what_to_do(cluster: SmallCluster) -> None:
    put(cluster)
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod(cluster, phase="Pending", conditions=[waits])
    row = row_of(host_of(cluster))
    assert (row["verdict"], row["provider"]) == ("scheduling-stuck", "Unschedulable")
    assert "0/3 nodes" in row["why"]
    assert "device plugin" in line(row)["watch out"]


def test_a_job_that_is_not_there_is_no_box_that_went_silent(cluster: SmallCluster) -> None:
    row = row_of(host_of(cluster))
    assert (row["verdict"], row["provider"]) == ("gone", "NotFound")
    assert "unreachable" not in (row["provider"], row["contact"])


def test_a_cluster_that_does_not_answer_concludes_nothing(cluster: SmallCluster) -> None:
    cluster.faults += [OSError("no route")] * 50
    host = host_of(cluster)
    row = row_of(host)
    assert (row["verdict"], row["provider"]) == (verdicts.UNREACHABLE, "unreachable")
    assert {one["effect"] for one in row["countdowns"]} == {one["effect"] for one in host.variables["platform_clocks"]}
    assert {one["left_s"] for one in row["countdowns"]} == {None}


@pytest.mark.parametrize("missing", ["kubernetes_manifests", "kubernetes_api_url"])
def test_where_nobody_says_which_job_it_is_all_clocks_are_told(cluster: SmallCluster, missing: str) -> None:
    host = host_of(cluster, **{missing: ""})
    row = row_of(host)
    assert (row["verdict"], row["provider"]) == ("not-asked", "not-asked")
    assert f"set {missing} in the inventory" in row["why"]
    assert {one["effect"] for one in row["countdowns"]} == {one["effect"] for one in host.variables["platform_clocks"]}
    assert {(one["left_s"], one["alarm"]) for one in row["countdowns"]} == {(None, False)}
    assert cluster.sent == []


def test_when_the_logs_of_an_ended_job_go_is_counted_from_its_end() -> None:
    job = {**JOB, "spec": {**JOB["spec"], "ttlSecondsAfterFinished": 600}, "status": {"startTime": STARTED}}
    begun = deadlines_of(job)
    assert begun["released"] is None
    assert begun["job_deadline"] is not None
    done = {"type": "Complete", "status": "True", "lastTransitionTime": ENDED}
    ended = deadlines_of({**job, "status": {"startTime": STARTED, "conditions": [done]}})
    assert ended == {"released": begun["job_deadline"] - 3600 + 600}


# --- plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_applied_and_its_caps(cluster: SmallCluster) -> None:
    caps, checked = cluster_jobs.plan(host_of(cluster), {})
    for word in ("Job digits", "2 cells", "4 GPUs each", "after 2 h", "at most 3 more times", "digits-ckpt of 40Gi"):
        assert word in caps
    assert checked == "the API server checked it and would make: claim and job"
    assert cluster.objects == {}


def test_a_plan_of_what_is_there_changes_nothing(cluster: SmallCluster) -> None:
    put(cluster, startTime=STARTED)
    cluster.put("PersistentVolumeClaim", "digits-ckpt", metadata=CLAIM["metadata"])
    pod(cluster, phase="Running")
    told = cluster_jobs.plan(host_of(cluster), {})[-1]
    assert told.startswith("nothing to change: it is there, running")


def test_a_plan_without_a_cluster_says_that_nobody_was_asked(cluster: SmallCluster) -> None:
    told = cluster_jobs.plan(host_of(cluster, kubernetes_api_url=""), {})
    assert "kubernetes_api_url is not set" in told[-1]
    assert cluster.sent == []


def test_a_plan_before_the_export_says_how_to_render_it(cluster: SmallCluster) -> None:
    spec = {
        "resources": {"gpu_count": 2, "disk_gb": 16}, "cells": [{"id": "a"}], "deadline_s": 3600, "grace_s": 30,
        "retries": {"max": 1},
    }  # fmt: skip
    caps, how = cluster_jobs.plan(host_of(cluster, kubernetes_manifests=""), spec)
    assert "1 cells, 2 GPUs each; ended after 1 h" in caps
    assert "--to kubernetes" in how
    assert "kubernetes_manifests" in how
    assert cluster_jobs.plan(host_of(cluster, kubernetes_manifests=""), {}) == [how]


@pytest.mark.parametrize("text", ["", "kind: Pod\n", "{", "[]"])
def test_a_file_that_is_no_export_is_refused_in_words(cluster: SmallCluster, text: str) -> None:
    Path(host_of(cluster).text("kubernetes_manifests")).write_text(text)
    with pytest.raises(TenantFailure) as refused:
        cluster_jobs.plan(host_of(cluster), {})
    assert refused.value.kind == "config"
    assert seen_of(host_of(cluster)).refused is not None


@pytest.mark.parametrize(
    "spoiled",
    [{"activeDeadlineSeconds": "soon"}, {"template": {"spec": {"restartPolicy": "Never", "containers": []}}}],
)
def test_manifests_that_somebody_spoiled_are_told(cluster: SmallCluster, spoiled: dict[str, Any]) -> None:
    job = copy.deepcopy(JOB)
    job["spec"].update(spoiled)
    host = host_of(cluster)
    Path(host.text("kubernetes_manifests")).write_text(yaml.safe_dump_all([CLAIM, job]))
    with pytest.raises(TenantFailure, match=r"job\.yml cannot be read") as refused:
        cluster_jobs.plan(host, {})
    assert (refused.value.kind, refused.value.box, cluster.sent) == ("config", "k1", [])


def test_a_clock_that_somebody_spoiled_is_told(cluster: SmallCluster) -> None:
    host = host_of(cluster)
    host.variables["platform_clocks"] = [{"from": "a", "effect": 3, "hours": "many"}]  # type: ignore[index]
    with pytest.raises(TenantFailure, match="platform_clocks"):
        cluster_jobs.say_first(host)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run as a Job, from the renderer of ``gpu-tenant export`` to a claim that only a person's consent deletes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, losses, volume_gate
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes import job as jobs
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.api import KubernetesClient
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.job import (
    Desire,
    clocks_of,
    converge,
    read_manifests,
)
from ansible_collections.tenant.gpu.plugins.module_utils.volume_stamp import record_name
from small_cluster import SmallCluster, status

ABOUT: dict[str, Any] = {
    "labels": {"app.kubernetes.io/managed-by": "gpu-tenant"},
    "annotations": {"gpu-tenant/run": "digits", "gpu-tenant/spec-sha256": "a" * 64, "gpu-tenant/code-sha256": "b" * 64},
}
POD = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": []}}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "digits", **ABOUT}, "spec": {"template": POD},
}  # fmt: skip
CLAIM: dict[str, Any] = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "digits-ckpt", **ABOUT}, "spec": {},
}  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> SmallCluster:
    return SmallCluster(tmp_path)


def bring(cluster: SmallCluster, state: str, check: bool = False, job: Any = None, **more: Any) -> dict[str, Any]:
    desire = Desire("plain", state, read_manifests([CLAIM, job or JOB]), **more)
    begun = len(cluster.writes())
    result = converge(cluster.client(), cluster.store, desire, check)
    assert not check or all(method == "POST" for method, _path in cluster.writes()[begun:]), "dry runs"
    return result


def test_applied_once_and_judged(cluster: SmallCluster) -> None:
    first = bring(cluster, "present")
    assert (first["changed"], first["job"], first["claim"]) == (True, "digits", "digits-ckpt")
    assert (first["verdict"], first["reason"]) == ("scheduling", "NoPods")
    assert [path.rsplit("/", 1)[1] for _method, path in cluster.writes()] == ["persistentvolumeclaims", "jobs"]
    labels = {"batch.kubernetes.io/job-name": "digits"}
    cluster.put("Pod", "digits-x", metadata={"labels": labels}, status={"phase": "Running"})
    cluster.put("Pod", "other", metadata={"labels": {}}, status={"phase": "Failed"})
    second = bring(cluster, "present")
    assert (second["changed"], second["verdict"], second["pod"]) == (False, "running", "digits-x")
    assert len(cluster.writes()) == 2


def test_the_deadline_of_a_job_is_counted_down_once_it_was_started() -> None:
    job: dict[str, Any] = {"spec": {"activeDeadlineSeconds": 7200}, "status": {}}
    [waits] = clocks_of(job, None)
    assert (waits["left_s"], waits["left"], waits["is_alarm"]) == (None, "unknown", False)
    job["status"] = {"startTime": "2026-11-21T10:00:00Z"}
    now = records.parse_utc("2026-11-21T10:30:00Z").timestamp()
    [runs] = clocks_of(job, now)
    assert (runs["left_s"], runs["at"], runs["is_alarm"]) == (5400, "2026-11-21T12:00:00Z", False)
    [ends] = clocks_of(job, now + 3000)
    assert (ends["left"], ends["is_alarm"]) == ("40 min", True)
    assert clocks_of({"spec": {}}, now) == []
    assert clocks_of({"spec": {"activeDeadlineSeconds": "soon"}, "status": {"startTime": 7}}, now) == []


def test_an_applied_job_tells_its_deadline(cluster: SmallCluster) -> None:
    limited = copy.deepcopy(JOB)
    limited["spec"]["activeDeadlineSeconds"] = 600
    [clock] = bring(cluster, "present", check=True, job=limited)["clocks"]
    assert (clock["left_s"], "(after 600s)" in clock["text"]) == (None, True)


def test_check_mode_has_the_server_check_and_makes_nothing(cluster: SmallCluster) -> None:
    assert bring(cluster, "present", check=True)["changed"] is True
    assert cluster.objects == {}
    bad = copy.deepcopy(JOB)
    bad["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    with pytest.raises(TenantFailure, match="Unsupported value"):
        bring(cluster, "present", check=True, job=bad)


def test_a_lost_answer_makes_no_second_one(cluster: SmallCluster) -> None:
    client = cluster.client()
    sent = cluster._serve

    def lose(method: str, *words: Any) -> tuple[int, Any]:
        done = sent(method, *words)
        if method == "POST":
            cluster._serve = sent  # type: ignore[method-assign]
            raise ConnectionResetError
        return done

    cluster._serve = lose  # type: ignore[method-assign]
    desire = Desire("plain", "present", read_manifests([CLAIM, JOB]))
    assert converge(client, cluster.store, desire)["changed"] is True
    assert sorted(kind for kind, _name in cluster.objects) == ["Job", "PersistentVolumeClaim"]


def test_another_spec_under_the_name_is_left_at_work(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    other = copy.deepcopy(JOB)
    other["metadata"]["annotations"]["gpu-tenant/code-sha256"] = "c" * 64
    with pytest.raises(TenantFailure, match="other code of the run") as caught:
        bring(cluster, "present", job=other)
    assert caught.value.safe == "it was left at work"


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize(("kind", "name"), [("Job", "digits"), ("PersistentVolumeClaim", "digits-ckpt")])
def test_what_is_not_ours_is_untouchable(cluster: SmallCluster, state: str, kind: str, name: str) -> None:
    cluster.put(kind, name)
    with pytest.raises(TenantFailure, match="is not ours"):
        bring(cluster, state)
    assert cluster.writes() == []


def test_a_job_goes_and_its_claim_stays(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    gone = bring(cluster, "absent")
    assert (gone["changed"], gone["verdict"], gone["gate"]) == (True, "gone", [])
    assert list(cluster.objects) == [("PersistentVolumeClaim", "digits-ckpt")]
    assert bring(cluster, "absent")["changed"] is False
    assert bring(cluster, "present")["changed"] is True, "and can be made again beside it"


def test_law_2_a_claim_goes_by_consent_to_the_loss_only(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    for check in (True, False):
        with pytest.raises(TenantFailure) as caught:
            bring(cluster, "absent", check=check, claim="absent")
        assert caught.value.kind == "gate_refused"
        assert "gpu-tenant approve delete digits-ckpt --volume" in str(caught.value)
    assert len(cluster.objects) == 2, "judged before anything is touched"
    consent(cluster)
    gone = bring(cluster, "absent", claim="absent")
    assert [one["claim"] for one in gone["gate"]] == ["digits-ckpt"]
    assert cluster.objects == {}
    assert bring(cluster, "absent", claim="absent")["changed"] is False


def test_law_2_a_consent_is_spent_and_is_for_one_claim(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    consent(cluster)
    bring(cluster, "absent", claim="absent")
    bring(cluster, "present")
    with pytest.raises(TenantFailure) as caught:
        bring(cluster, "absent", claim="absent")
    assert caught.value.kind == "gate_refused"
    assert len(cluster.objects) == 2


def test_a_claim_that_another_pod_mounts_stays(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    consent(cluster)
    volumes = [{"name": "c", "persistentVolumeClaim": {"claimName": "digits-ckpt"}}]
    reader = cluster.put("Pod", "reader", spec={"volumes": volumes}, status={"phase": "Running"})
    with pytest.raises(TenantFailure, match="mounted by pod reader"):
        bring(cluster, "absent", claim="absent")
    reader["status"]["phase"] = "Succeeded"
    bring(cluster, "absent", claim="absent")
    assert list(cluster.objects) == [("Pod", "reader")]


def consent(cluster: SmallCluster) -> None:
    """As ``gpu-tenant approve delete digits-ckpt --volume`` gives it."""
    record = cluster.store.read_box("plain", record_name("digits-ckpt"), 1) or {}
    identity = volume_gate.BoxIdentity("plain", record_name("digits-ckpt"), 1, str(record["provider_id"]))
    binds = losses.of(volume_gate.evidence_of(cluster.store, identity)).as_binds()
    source = {"kind": "cli", "ref": "test"}
    approvals.give(cluster.store, identity, "delete", binds, "Ada", source, "it is on the bucket")


def test_a_delete_that_does_not_end_has_a_deadline(cluster: SmallCluster) -> None:
    bring(cluster, "present")
    cluster.finalizing.add("Job")
    with pytest.raises(TenantFailure, match="still there 120 s after"):
        bring(cluster, "absent")


def test_a_404_of_a_path_that_is_not_served_is_no_absence(cluster: SmallCluster) -> None:
    """A wrong address, or a proxy: nothing is concluded, and nothing is made."""
    cluster.faults = [(404, status(404, "NotFound", "the server could not find the requested resource"))]
    with pytest.raises(TenantFailure):
        bring(cluster, "absent")
    cluster.faults = [(200, {"kind": "Job", "metadata": {"name": "another"}})]
    with pytest.raises(TenantFailure, match="about something else"):
        bring(cluster, "absent")


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], "there is no Job"),
        ([JOB, JOB], "one Job"),
        (["text"], "where one Job"),
        ([{"kind": "Secret"}], "'Secret' where one Job"),
        ([{**JOB, "apiVersion": "batch/v2"}], "apiVersion"),
        ([{**JOB, "metadata": {"name": "digits"}}], "lacks the label"),
        ([{**JOB, "metadata": {**JOB["metadata"], "namespace": "kube-system"}}], "named by an option"),
    ],
)
def test_manifests_that_are_none(documents: list[Any], said: str) -> None:
    with pytest.raises(TenantFailure, match=said):
        read_manifests(documents)


def test_who_asks(tmp_path: Path) -> None:
    with pytest.raises(TenantFailure, match="kubectl proxy"):
        KubernetesClient("", "")
    with pytest.raises(TenantFailure, match="no API key"):
        KubernetesClient("", "https://cluster.example")
    with pytest.raises(TenantFailure, match="neither https"):
        KubernetesClient("token", "http://cluster.example")
    with pytest.raises(TenantFailure, match="is no name"):
        KubernetesClient("token", "https://cluster.example", "../kube-system")
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(TenantFailure, match="correct ca_file"):
        KubernetesClient("token", "https://cluster.example", ca_file=str(tmp_path / "ca"))
    assert KubernetesClient("", "http://127.0.0.1:8001").authorization() == {}


def test_the_verdict_of_a_job_that_is_there(cluster: SmallCluster) -> None:
    cluster.put("Job", "digits", spec={"suspend": True})
    assert jobs.observe(cluster.client(), "digits").verdict == "stopped"
    assert jobs.observe(cluster.client(), "nothing").verdict == "gone"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a Job and its pods say to our verdicts: the whole table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes import verdicts
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.verdicts import judge

JOB: dict[str, Any] = {"metadata": {"name": "run"}, "spec": {}, "status": {}}


def pod(phase: str, name: str = "run-a", made: str = "2026-11-22T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": made}, "status": {"phase": phase, **status}}


def waits(reason: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": "so says the kubelet"}}, **more}]


def ended(reason: str, code: int, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "trainer", "state": {"terminated": {"reason": reason, "exitCode": code, **more}}}]


def job(kind: str, reason: str = "", **status: Any) -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "reason": reason, "message": f"so says the controller: {reason}"}
    return {**JOB, "status": {"conditions": [condition], **status}}


def no_node(said: str, reason: str = "Unschedulable") -> list[dict[str, Any]]:
    return [{"type": "PodScheduled", "status": "False", "reason": reason, "message": said}]


def target(reason: str) -> list[dict[str, Any]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason}]


@pytest.mark.parametrize(
    ("found", "pods", "verdict", "reason"),
    [
        (None, [], "gone", "NotFound"),
        (job("Complete", succeeded=2), [], "finished", "Complete"),
        *((job("Failed", reason), [pod("Failed")], "failed", reason) for reason in verdicts.JOB_FAILED),
        (job("Failed", "A new word"), [], "failed", "A new word"),
        ({**JOB, "metadata": {"name": "run", "deletionTimestamp": "now"}}, [pod("Running")], "stopped", "Deleting"),
        ({**JOB, "spec": {"suspend": True}}, [], "stopped", "Suspended"),
        (JOB, [], "scheduling", "NoPods"),
        (JOB, [pod("Succeeded")], "scheduling", "NoPods"),
        (JOB, [pod("Pending")], "loading", "Pending"),
        (JOB, [pod("Pending", containerStatuses=waits("ContainerCreating"))], "loading", "Pending"),
        (JOB, [pod("Pending", conditions=no_node("gated", "SchedulingGated"))], "scheduling", "SchedulingGated"),
        (JOB, [pod("Pending", conditions=no_node("Insufficient nvidia.com/gpu"))], "scheduling-stuck", "Unschedulable"),
        *(
            (JOB, [pod("Pending", containerStatuses=waits(reason))], verdict, reason)
            for reason, (verdict, _next) in verdicts.WAITING.items()
        ),
        (JOB, [pod("Pending", containerStatuses=waits("ANewWord"))], "loading-stuck", "ANewWord"),
        (JOB, [pod("Pending", initContainerStatuses=waits("ImagePullBackOff"))], "loading-stuck", "ImagePullBackOff"),
        (JOB, [pod("Running")], "running", "Running"),
        *(
            (JOB, [pod("Failed", containerStatuses=ended(reason, 1))], verdict, reason)
            for reason, (verdict, _next) in verdicts.TERMINATED.items()
        ),
        (JOB, [pod("Failed", containerStatuses=ended("ANewWord", 3))], "failed", "ANewWord"),
        (JOB, [pod("Failed")], "failed", "Failed"),
        *(
            (JOB, [pod("Failed", reason=reason)], verdict, reason)
            for reason, (verdict, _next) in verdicts.DISRUPTED.items()
        ),
        *(
            (JOB, [pod("Failed", conditions=target(reason), containerStatuses=ended("Error", 143))], verdict, reason)
            for reason, (verdict, _next) in verdicts.DISRUPTED.items()
        ),
        (JOB, [pod("Failed", conditions=target("ANewWord"))], "exited", "ANewWord"),
        (JOB, [pod("Unknown")], "unreachable", "Unknown"),
        (JOB, [{}], "scheduling", "Unknown"),
    ],
)
def test_the_table(found: Any, pods: list[dict[str, Any]], verdict: str, reason: str) -> None:
    judged = judge(found, pods)
    assert (judged.verdict, judged.reason) == (verdict, reason)
    assert judged.evidence
    assert judged.next


def test_every_verdict_is_a_word_that_the_runner_knows() -> None:
    known = {"running", "finished", "failed", "outbid", "stopped", "loading-stuck", "scheduling-stuck", "exited"}
    known |= {"zero-gpu", "host-offline", "unreachable", "gone"}
    tables = (verdicts.WAITING, verdicts.TERMINATED, verdicts.DISRUPTED)
    assert {verdict for table in tables for verdict, _next in table.values()} <= known


def test_a_pod_at_work_counts_before_those_that_wait_or_ended() -> None:
    """The first pod was evicted, the next is at work: nothing is to be done."""
    old = pod("Failed", "run-a", "2026-11-22T00:00:00Z", reason="Evicted")
    stuck = pod("Pending", "run-c", "2026-11-22T02:00:00Z", containerStatuses=waits("ImagePullBackOff"))
    assert judge(JOB, [old, stuck, pod("Running", "run-b", "2026-11-22T01:00:00Z")]).pod == "run-b"
    assert judge(JOB, [old, stuck]).pod == "run-c"
    newer = pod("Failed", "run-d", "2026-11-22T03:00:00Z", containerStatuses=ended("OOMKilled", 137))
    assert judge(JOB, [old, newer]).pod == "run-d"


def test_a_failed_job_names_why_its_last_pod_failed() -> None:
    first = pod("Failed", "run-a", "2026-11-22T00:00:00Z", containerStatuses=ended("Error", 1))
    last = pod("Failed", "run-b", "2026-11-22T01:00:00Z", containerStatuses=ended("OOMKilled", 137, signal=9))
    found = judge(job("Failed", "BackoffLimitExceeded"), [last, first])
    assert "OOMKilled (exit code 137, signal 9)" in found.evidence
    assert "raise the limit" in found.next
    assert found.pod == "run-b"


def test_a_crash_loop_tells_how_the_last_try_ended() -> None:
    last = {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    found = judge(JOB, [pod("Running", containerStatuses=waits("CrashLoopBackOff", **last))])
    assert "after OOMKilled (exit code 137)" in found.evidence


def test_what_the_cluster_says_is_one_short_line() -> None:
    found = judge(JOB, [pod("Pending", conditions=no_node("0/3 nodes:\n" + "x" * 5000))])
    assert "\n" not in found.evidence
    assert len(found.evidence) < 400


@pytest.mark.parametrize("odd", [{"status": None}, {"status": {"conditions": "x", "containerStatuses": [1, None]}}])
def test_odd_shapes_are_no_traceback(odd: dict[str, Any]) -> None:
    assert judge({**JOB, **odd}, [odd]).verdict

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a Job and its pods say, in our words: one verdict, the sentence that proves it, and what to do. Pure.

A Job in one of its ends is judged by its condition alone; a live one by its pods, the one at work before those that
wait, and those that wait before those that ended. Texts of the cluster are quoted, cut short, and never followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

MOST_WORDS = 240
_FROM_THE_CLAIM = "it goes on from the newest checkpoint on the claim"
_RETRIES = f"nothing: the Job starts the next pod by itself, and {_FROM_THE_CLAIM}"
_AGAIN = f"mend it, then delete the Job and apply it again: {_FROM_THE_CLAIM}"


@dataclass(frozen=True)
class Verdict:
    """:param verdict: a word of the runner's.
    :param reason: the cluster's own word.
    :param pod: whose word decided; empty for the Job's.
    """

    verdict: str
    reason: str
    evidence: str
    next: str
    pod: str = ""

    def as_result(self) -> dict[str, str]:
        return {
            "verdict": self.verdict, "reason": self.reason, "evidence": self.evidence, "next": self.next,
            "pod": self.pod,
        }  # fmt: skip


# Why a Job failed: its condition's reason.
JOB_FAILED: Mapping[str, str] = {
    "DeadlineExceeded": f"raise deadline_s of the run spec: it counts waiting for a GPU too. {_AGAIN}",
    "BackoffLimitExceeded": f"every try of the run failed (retries); see the last pod. {_AGAIN}",
    "FailedIndexes": f"some cells failed for good, the others ran; see their pods. {_AGAIN}",
    "MaxFailedIndexesExceeded": f"too many cells failed; see their pods. {_AGAIN}",
    "PodFailurePolicy": f"an exit code ended it at once; see the last pod. {_AGAIN}",
}
# Why a container waits. ContainerCreating and PodInitializing are no reason: that is a start.
WAITING: Mapping[str, tuple[str, str]] = {
    "ImagePullBackOff": ("loading-stuck", "see the name, the digest and the pull secret of the image"),
    "ErrImagePull": ("loading-stuck", "see the name, the digest and the pull secret of the image"),
    "ErrImageNeverPull": ("loading-stuck", "the node lacks the image, and may not pull it: see imagePullPolicy"),
    "InvalidImageName": ("loading-stuck", "correct --image, export the run again, and replace the Job"),
    "CreateContainerConfigError": ("loading-stuck", "make the Secret that the manifest names, with every key"),
    "CreateContainerError": ("loading-stuck", "see the events of the pod: kubectl describe pod"),
    "RunContainerError": ("loading-stuck", "see the events of the pod: kubectl describe pod"),
    "CrashLoopBackOff": ("failed", f"see the log of its last try: kubectl logs --previous. {_AGAIN}"),
}
# Why a container ended.
TERMINATED: Mapping[str, tuple[str, str]] = {
    "OOMKilled": ("failed", "it needs more memory than its limit: raise the limit, or lower the batch or the workers"),
    "DeadlineExceeded": ("failed", "the pod's own deadline is over: raise deadline_s"),
    "ContainerCannotRun": ("failed", "the image has no /bin/sh, or not what the command names"),
    "StartError": ("failed", "the image has no /bin/sh, or not what the command names"),
    "Error": ("failed", "see its log: kubectl logs"),
}
# Why a pod was taken away: its own reason, or the one of its condition DisruptionTarget.
DISRUPTED: Mapping[str, tuple[str, str]] = {
    "PreemptionByScheduler": ("outbid", f"a pod of a higher priority took its place. {_RETRIES}"),
    "Preempted": ("outbid", f"a pod of a higher priority took its place. {_RETRIES}"),
    "Preempting": ("outbid", f"a pod of a higher priority took its place. {_RETRIES}"),
    "DeletionByTaintManager": ("host-offline", f"its node is tainted, or does not answer. {_RETRIES}"),
    "DeletionByPodGC": ("host-offline", f"its node is gone. {_RETRIES}"),
    "NodeLost": ("host-offline", f"its node does not answer. {_RETRIES}"),
    "EvictionByEvictionAPI": ("stopped", f"somebody drains its node. {_RETRIES}"),
    "TerminationByKubelet": ("exited", f"its node needed the room, or shut down. {_RETRIES}"),
    "Evicted": ("exited", f"its node ran short; what is written beside the claim counts too. {_RETRIES}"),
    "Shutdown": ("exited", f"its node shut down. {_RETRIES}"),
    "UnexpectedAdmissionError": ("zero-gpu", f"its node had no healthy GPU for it: see the device plugin. {_RETRIES}"),
}
_STARTING = ("ContainerCreating", "PodInitializing", "")
_UNSCHEDULABLE = (
    "see kubectl describe nodes: the device plugin makes nvidia.com/gpu, taints need tolerations, and a volume for one "
    "node binds the pod to its zone"
)


def judge(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on one Job, from its JSON and its pods'. None: the API says that there is no such Job."""
    if job is None:
        return Verdict("gone", "NotFound", "the API has no such Job", "apply it, or look at its claim for what it left")
    ended = _ended(job, pods)
    if ended is not None:
        return ended
    if _fields(job, "metadata").get("deletionTimestamp"):
        return Verdict("stopped", "Deleting", "the Job is being deleted", "wait until it is gone; its claim stays")
    if _fields(job, "spec").get("suspend") is True:
        return Verdict(
            "stopped", "Suspended", "the Job is suspended", f"resume it (spec.suspend: false): {_FROM_THE_CLAIM}"
        )
    judged = [found for pod in _newest_first(pods) if (found := _of_pod(pod)) is not None]
    if judged:
        return min(judged, key=lambda one: _RANK.get(one.verdict, _LAST))
    return Verdict(
        "scheduling", "NoPods", "the Job has made no pod yet", "wait; if it lasts, see quotas: kubectl describe job"
    )


# Of the pods of one Job, whose word counts first: what works, what comes up, what needs somebody, what has ended.
_RANK = {"running": 0, "loading": 1, "scheduling": 2, "loading-stuck": 3, "scheduling-stuck": 3, "unreachable": 4}
_LAST = 5


def _ended(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Verdict | None:
    for condition in _rows(_fields(job, "status").get("conditions")):
        if condition.get("status") != "True":
            continue
        reason, said = _text(condition.get("reason")), _text(condition.get("message"))
        if condition.get("type") == "Complete":
            done = _fields(job, "status").get("succeeded")
            return Verdict("finished", reason or "Complete", f"the Job is complete, {done} pods succeeded", _HARVEST)
        if condition.get("type") == "Failed":
            last = next(
                (one for pod in _newest_first(pods) if (one := _of_pod(pod)) and one.verdict != "finished"), None
            )
            proof = f"; the last pod: {last.evidence}" if last else ""
            next_step = JOB_FAILED.get(reason, _AGAIN)
            step = f"{next_step} {last.next}" if last and last.reason in TERMINATED else next_step
            return Verdict(
                "failed", reason or "Failed", f"the Job failed: {said or reason}{proof}", step, last.pod if last else ""
            )
    return None


_HARVEST = "bring home what the claim holds by a pod that mounts it, then delete the Job"


def _of_pod(pod: Mapping[str, Any]) -> Verdict | None:
    """The verdict on one pod; None for one that succeeded: the Job counts those itself."""
    name, status = _text(_fields(pod, "metadata").get("name")), _fields(pod, "status")
    phase, reason = _text(status.get("phase")), _text(status.get("reason"))
    disrupted = _disruption(status) or (reason if reason in DISRUPTED else "")
    said = _text(status.get("message"))
    if phase == "Succeeded":
        return None
    if disrupted and phase != "Running":
        verdict, step = DISRUPTED.get(disrupted, ("exited", f"the cluster took the pod away. {_RETRIES}"))
        return Verdict(verdict, disrupted, f"pod {name} was taken away: {disrupted} {said}".strip(), step, name)
    if phase == "Unknown":
        return Verdict(
            "unreachable",
            reason or "Unknown",
            f"the node of pod {name} does not answer",
            "wait: absence of an answer is no end",
            name,
        )
    for container in _rows(status.get("containerStatuses")) + _rows(status.get("initContainerStatuses")):
        found = _of_container(name, container)
        if found is not None:
            return found
    if phase == "Pending":
        return _pending(name, status)
    if phase == "Failed":
        return Verdict(
            "failed",
            reason or "Failed",
            f"pod {name} failed: {reason} {said}".strip(),
            "see its log: kubectl logs",
            name,
        )
    if phase == "Running":
        if _fields(pod, "metadata").get("deletionTimestamp"):
            return Verdict("stopped", "Terminating", f"pod {name} is told to end, and saves once more", _RETRIES, name)
        return Verdict("running", "Running", f"pod {name} runs", "nothing", name)
    return Verdict("scheduling", phase or "Unknown", f"pod {name} is {phase or 'of no phase'}", "wait", name)


def _of_container(pod: str, container: Mapping[str, Any]) -> Verdict | None:
    """What a container that does not run says; None where it does not decide."""
    state = _fields(container, "state")
    waiting, ended = _fields(state, "waiting"), _fields(state, "terminated")
    reason, said = _text(waiting.get("reason")), _text(waiting.get("message"))
    if reason not in _STARTING:
        verdict, step = WAITING.get(reason, ("loading-stuck", "see the events of the pod: kubectl describe pod"))
        before = _fields(_fields(container, "lastState"), "terminated")
        last = f", after {_end(before)}" if before else ""
        return Verdict(verdict, reason, f"a container of pod {pod} waits: {reason}{last} {said}".strip(), step, pod)
    code = ended.get("exitCode")
    if ended and code != 0:
        told = _text(ended.get("reason")) or "Error"
        verdict, step = TERMINATED.get(told, TERMINATED["Error"])
        return Verdict(verdict, told, f"pod {pod} ended: {_end(ended)}", step, pod)
    return None


def _pending(name: str, status: Mapping[str, Any]) -> Verdict:
    for condition in _rows(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason, said = _text(condition.get("reason")), _text(condition.get("message"))
            verdict = "scheduling-stuck" if reason == "Unschedulable" else "scheduling"
            step = _UNSCHEDULABLE if verdict == "scheduling-stuck" else "wait: something holds its scheduling back"
            return Verdict(verdict, reason, f"pod {name} has no node: {said or reason}", step, name)
    return Verdict("loading", "Pending", f"pod {name} is being started", "wait for the image and the volume", name)


def _disruption(status: Mapping[str, Any]) -> str:
    for condition in _rows(status.get("conditions")):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _text(condition.get("reason")) or "DisruptionTarget"
    return ""


def _end(ended: Mapping[str, Any]) -> str:
    signal = f", signal {ended['signal']}" if ended.get("signal") else ""
    return f"{_text(ended.get('reason')) or 'Error'} (exit code {ended.get('exitCode')}{signal})"


def _newest_first(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Kubernetes writes its times so that they sort as text."""
    return sorted(pods, key=lambda pod: _text(_fields(pod, "metadata").get("creationTimestamp")), reverse=True)


def _fields(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    """One line of what the cluster says."""
    return " ".join(value.split())[:MOST_WORDS] if isinstance(value, str) else ""

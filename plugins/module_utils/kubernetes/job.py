# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run as a Job beside its volume claim: applied, judged, and taken away again. ``kubernetes_job`` but its options.

The manifests are those of ``gpu-tenant export --to kubernetes``; nothing else is applied. A Job can be made again, so
deleting one asks nobody; its claim holds the checkpoints, so deleting that goes through the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .. import approvals, danger_clocks, volume_gate
from ..box import records
from ..box.names import UnsafeName, check_name
from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..journal import Journal
from ..rental_waiters import DeadlinePassed, wait_for
from ..rest_client import RestError
from ..state_store import BoxIdentity, StateStore
from ..volume_stamp import record_name
from .api import CLAIMS, JOBS, KubernetesClient
from .verdicts import Verdict, judge

PRESENT, ABSENT = "present", "absent"
STATES = (PRESENT, ABSENT)
KEPT = "kept"
MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "gpu-tenant"
RUN, SPEC, CODE = "gpu-tenant/run", "gpu-tenant/spec-sha256", "gpu-tenant/code-sha256"
_KINDS = {"Job": ("batch/v1", JOBS), "PersistentVolumeClaim": ("v1", CLAIMS)}
_POD_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Manifests:
    """The Job, and the claim that it brings along; None where the run uses one that was there before."""

    job: Mapping[str, Any]
    claim: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def claim_name(self) -> str:
        return str(self.claim["metadata"]["name"]) if self.claim else ""


@dataclass(frozen=True)
class Desire:
    """:param claim: with state absent: ``kept``, or ``absent``, which passes the gate."""

    project: str
    state: str
    manifests: Manifests
    claim: str = KEPT
    wait_s: float = 120.0


@dataclass
class Result:
    verdict: Verdict
    difference: DifferenceTracker
    gate: list[dict[str, Any]] = field(default_factory=list)
    clocks: list[dict[str, Any]] = field(default_factory=list)

    def as_result(self, desire: Desire) -> dict[str, Any]:
        names = {"job": desire.manifests.name, "claim": desire.manifests.claim_name}
        told = {"gate": self.gate, "clocks": self.clocks}
        return {**self.difference.as_result(), **names, **self.verdict.as_result(), **told}


def deadlines_of(job: Mapping[str, Any]) -> dict[str, float | None]:
    """By the ``starts_at`` of the profile's clocks, when the Job is ended by its own deadline, and when it is deleted
    with the logs of its pods, by the server's clock. None: it will be, and nobody knows when; absent: it will not be.
    """
    spec, status = job.get("spec") or {}, job.get("status") or {}
    ended = ended_at(job)
    found: dict[str, float | None] = {}
    limit, kept = spec.get("activeDeadlineSeconds"), spec.get("ttlSecondsAfterFinished")
    if records.is_count(limit) and limit and ended is None:
        started = _epoch(status.get("startTime"))
        found["job_deadline"] = None if started is None else started + limit
    if records.is_count(kept):
        since = _epoch(ended)
        found["released"] = None if since is None else since + kept
    return found


def ended_at(job: Mapping[str, Any]) -> str | None:
    """When the Job came to one of its ends, in the server's words; None while it has not."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            return str(condition.get("lastTransitionTime") or "")
    return None


def clocks_of(job: Mapping[str, Any], provider_now: float | None) -> list[dict[str, Any]]:
    """When the Job is ended by its own deadline, by the server's clock; unknown before the server started it."""
    seconds, deadlines = (job.get("spec") or {}).get("activeDeadlineSeconds"), deadlines_of(job)
    if "job_deadline" not in deadlines:
        return []
    told = {"job_deadline": deadlines["job_deadline"]}
    effect = "activeDeadlineSeconds ends the Job, the time that it waited for a GPU included"
    clock = {"after": f"{seconds}s", "effect": effect, "starts_at": "job_deadline", "alarm": "1h"}
    counted = danger_clocks.countdown([clock], "started", now=provider_now, deadlines=told)
    return [{name: one[name] for name in ("effect", "text", "at", "left_s", "left", "is_alarm")} for one in counted]


def _epoch(moment: Any) -> float | None:
    try:
        return records.parse_utc(moment or "").timestamp()
    except (TypeError, ValueError):
        return None


def read_manifests(documents: Sequence[Any]) -> Manifests:
    """What ``gpu-tenant export`` rendered. TenantFailure for anything else."""
    found: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        kind = document.get("kind") if isinstance(document, dict) else None
        if not isinstance(document, dict) or kind not in _KINDS or kind in found:
            raise _bad(f"a {ascii(kind)[:60]} where one Job, and at most one PersistentVolumeClaim, is expected")
        about = document.get("metadata")
        if document.get("apiVersion") != _KINDS[kind][0] or not isinstance(about, dict) or not about.get("name"):
            raise _bad(f"the {kind} has no name, or an apiVersion that is not {_KINDS[kind][0]}")
        if not _is_ours(document):
            raise _bad(f"the {kind} lacks the label {MANAGED_BY}: {OURS} or the annotation {RUN}")
        if about.get("namespace"):
            raise _bad("the namespace is named by an option, and not in a manifest")
        found[str(kind)] = document
    if "Job" not in found:
        raise _bad("there is no Job")
    return Manifests(found["Job"], found.get("PersistentVolumeClaim"))


def converge(client: KubernetesClient, store: StateStore, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the run to the desired state; what ``kubernetes_job`` returns."""
    step = _present if desire.state == PRESENT else _absent
    return step(client, store, desire, check_mode).as_result(desire)


def observe(client: KubernetesClient, name: str) -> Verdict:
    """The verdict on the Job of this name; it may be anybody's."""
    return look(client, name)[1]


def look(client: KubernetesClient, name: str) -> tuple[dict[str, Any] | None, Verdict]:
    """The Job of this name, and the verdict on it."""
    job = client.get(JOBS, name)
    pods = client.pods(f"batch.kubernetes.io/job-name={name}") if job is not None else []
    return job, judge(job, pods)


# -- present -------------------------------------------------------------------------------------------------------


def _present(client: KubernetesClient, store: StateStore, desire: Desire, check_mode: bool) -> Result:
    wanted = desire.manifests
    job, claim = client.get(JOBS, wanted.name), _claim(client, wanted)
    _refuse_foreign("Job", job)
    _refuse_foreign("PersistentVolumeClaim", claim)
    if job is not None:
        _refuse_another_run(wanted.job, job)
    difference = DifferenceTracker()
    difference.compare("claim", _state(claim), PRESENT if wanted.claim else _state(claim))
    difference.compare("job", _state(job), PRESENT)
    if wanted.claim is not None and claim is None:
        _make(client, CLAIMS, wanted.claim, check_mode)
        claim = _claim(client, wanted)
    if claim is not None and not check_mode:
        volume_gate.remember(store, _identity(desire, claim), platform=client.PLATFORM, stamp="")
    if job is None:
        _make(client, JOBS, wanted.job, check_mode)
    verdict = observe(client, wanted.name)
    return Result(verdict, difference, clocks=clocks_of(job or wanted.job, client.provider_now()))


def _make(client: KubernetesClient, kind: str, manifest: Mapping[str, Any], check_mode: bool) -> None:
    """In check mode the server checks it, and makes nothing. Two who apply the same make one."""
    try:
        client.create(kind, manifest, dry_run=check_mode)
    except RestError as refusal:
        if refusal.code == "AlreadyExists":
            return
        refusal.safe = refusal.safe or "nothing runs, and nothing was deleted"
        refusal.fix = refusal.fix or "correct what it names, export the run again, and apply it"
        raise


def _refuse_another_run(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """What a Job runs cannot be changed, and what is there may be at work."""
    for annotation, what in ((RUN, "another run"), (SPEC, "another spec of the run"), (CODE, "other code of the run")):
        if _annotation(wanted, annotation) != _annotation(there, annotation):
            name = str(there["metadata"]["name"])
            raise TenantFailure(
                "config",
                f"Job {name} is there with {what}",
                box=name,
                safe="it was left at work",
                fix="delete it first (state: absent), which keeps its claim; the new one goes on from its checkpoints",
            )


# -- absent --------------------------------------------------------------------------------------------------------


def _absent(client: KubernetesClient, store: StateStore, desire: Desire, check_mode: bool) -> Result:
    """Delete the Job, and the claim where that is wanted and the gate lets it; judged before anything is touched."""
    wanted = desire.manifests
    job, claim = client.get(JOBS, wanted.name), _claim(client, wanted)
    _refuse_foreign("Job", job)
    _refuse_foreign("PersistentVolumeClaim", claim)
    ends_claim = claim is not None and desire.claim == ABSENT
    difference = DifferenceTracker()
    difference.compare("job", _state(job), ABSENT)
    difference.compare("claim", _state(claim), ABSENT if ends_claim else _state(claim))
    result = Result(observe(client, wanted.name), difference)
    if ends_claim and claim is not None:
        _refuse_used(client, desire, claim)
        volume_gate.remember(store, _identity(desire, claim), platform=client.PLATFORM, stamp="")
        result.gate.append(_passed(store, desire, claim))
    if check_mode:
        return result
    if job is not None:
        client.delete(JOBS, wanted.name, _uid(job))
        _await_gone(client, JOBS, wanted.name, desire.wait_s)
    if ends_claim and claim is not None:
        _delete_claim(client, store, desire, claim)
    result.verdict = observe(client, wanted.name)
    return result


def _passed(store: StateStore, desire: Desire, claim: Mapping[str, Any]) -> dict[str, Any]:
    name = desire.manifests.claim_name
    decision = volume_gate.consent(store, _identity(desire, claim), name, f"volume claim {name}")
    return {"claim": name, "rule": decision.rule, "approval_id": decision.approval_id}


def _delete_claim(client: KubernetesClient, store: StateStore, desire: Desire, claim: Mapping[str, Any]) -> None:
    """Asks the gate once more, on records read now: the Job may have taken its time to end."""
    name, identity = desire.manifests.claim_name, _identity(desire, claim)
    _refuse_used(client, desire, claim, but="")
    passed = _passed(store, desire, claim)
    about = {"rule": passed["rule"], "approval_id": passed["approval_id"], **identity.as_dict()}
    journalled = Journal(store).effect(volume_gate.DELETE, platform=client.PLATFORM, **about)
    with journalled as effect, approvals.spending(store, str(passed["approval_id"])):
        effect.details["was_there"] = client.delete(CLAIMS, name, _uid(claim))
    _await_gone(client, CLAIMS, name, desire.wait_s)
    store.update_box(identity.project, identity.box, identity.generation, destroyed_at=records.utc_now())


def _refuse_used(client: KubernetesClient, desire: Desire, claim: Mapping[str, Any], but: str | None = None) -> None:
    """TenantFailure while a pod that has not ended mounts the claim, but for those of the Job ``but``."""
    spared = desire.manifests.name if but is None else but
    name = desire.manifests.claim_name
    users = [str(pod["metadata"]["name"]) for pod in client.pods() if _mounts(pod, name) and _job_of(pod) != spared]
    if users:
        raise TenantFailure(
            "gate_refused",
            f"volume claim {name} ({_uid(claim)}) is mounted by pod {', '.join(users)}",
            box=name,
            safe="the claim and what it holds are untouched",
            fix="end those pods first",
        )


def _mounts(pod: Mapping[str, Any], claim: str) -> bool:
    if (pod.get("status") or {}).get("phase") in _POD_ENDED:
        return False
    volumes = (pod.get("spec") or {}).get("volumes") or []
    return any((one.get("persistentVolumeClaim") or {}).get("claimName") == claim for one in volumes)


def _job_of(pod: Mapping[str, Any]) -> str:
    labels = (pod.get("metadata") or {}).get("labels") or {}
    return str(labels.get("batch.kubernetes.io/job-name") or "")


def _await_gone(client: KubernetesClient, kind: str, name: str, wait_s: float) -> None:
    readings = [0]

    def twice() -> bool | None:
        readings[0] = 0 if client.get(kind, name) is not None else readings[0] + 1
        return True if readings[0] >= 2 else None

    try:
        wait_for(client, twice, wait_s)
    except DeadlinePassed:
        raise TenantFailure(
            "provider",
            f"{kind}/{name} is still there {wait_s:.0f} s after it was deleted",
            box=name,
            safe="nothing else was deleted",
            fix="see its finalizers and its pods (kubectl describe); running again is safe",
        ) from None


# -- what is there -------------------------------------------------------------------------------------------------


def _claim(client: KubernetesClient, wanted: Manifests) -> dict[str, Any] | None:
    return client.get(CLAIMS, wanted.claim_name) if wanted.claim else None


def _identity(desire: Desire, claim: Mapping[str, Any]) -> BoxIdentity:
    """What the gate's records know the claim by. One that is made anew has another uid, and needs another consent."""
    try:
        name = check_name("box", desire.manifests.claim_name)
    except UnsafeName as error:
        raise TenantFailure("config", str(error), safe="nothing was changed", fix="export the run again") from None
    return BoxIdentity(desire.project, record_name(name), 1, f"pvc.{_uid(claim)}")


def _uid(row: Mapping[str, Any]) -> str:
    return str((row.get("metadata") or {}).get("uid") or "")


def _state(row: Mapping[str, Any] | None) -> str:
    return ABSENT if row is None else PRESENT


def _annotation(row: Mapping[str, Any], name: str) -> str:
    return str(((row.get("metadata") or {}).get("annotations") or {}).get(name) or "")


def _is_ours(row: Mapping[str, Any]) -> bool:
    labels = (row.get("metadata") or {}).get("labels") or {}
    return labels.get(MANAGED_BY) == OURS and bool(_annotation(row, RUN))


def _refuse_foreign(kind: str, row: Mapping[str, Any] | None) -> None:
    if row is not None and not _is_ours(row):
        name = str((row.get("metadata") or {}).get("name"))
        raise TenantFailure(
            "config", f"{kind} {name} is there and is not ours", box=name, safe="it was not touched",
            fix="use another namespace, or another name for the run",
        )  # fmt: skip


def _bad(what: str) -> TenantFailure:
    fix = "give the file that `gpu-tenant export RUN --to kubernetes` wrote"
    return TenantFailure("config", f"these are not the manifests of a run: {what}", safe="nothing was asked", fix=fix)

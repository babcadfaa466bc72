# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An inventory host of a platform without boxes: a run there is a Job of a cluster. What has become of it, and what
would be applied.

Its cluster and its manifests are named by the host's variables ``kubernetes_*``; nothing here changes anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes import job as jobs
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.api import KubernetesClient
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.manifest_file import documents_in
from ansible_collections.tenant.gpu.plugins.module_utils.rental_key import api_key_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.export import cells
from gpu_tenant.hosts import BoxHost
from gpu_tenant.job_view import NOT_ASKED, JobView

MANIFESTS, URL = "kubernetes_manifests", "kubernetes_api_url"
_API_TIMEOUT_S = 20.0
# The states of a platform's clocks in which a Job is, by its verdict; in any other its pods work, or will.
_RESTS = ("finished", "failed", "stopped", "gone")
_EXPORT = "gpu-tenant export RUN --to kubernetes --image IMAGE --output FILE"


def client_of(host: BoxHost) -> KubernetesClient:
    """TenantFailure (``config``) where the server or the token cannot be used."""
    token = api_key_of(
        {"api_key_file": host.text("kubernetes_api_key_file")}, KubernetesClient.KEY_VARIABLE, "kubernetes_api_key_file"
    )
    limits = {"timeout_s": _API_TIMEOUT_S, "retry_for_s": _API_TIMEOUT_S}
    namespace, ca_file = host.text("kubernetes_namespace", "default"), host.text("kubernetes_ca_file")
    return KubernetesClient(token, _url(host), namespace, os.path.expanduser(ca_file), **limits)


def look(host: BoxHost) -> JobView:
    """What has become of the run of this host. TenantFailure where the cluster does not tell."""
    if not host.text(MANIFESTS) or not _url(host):
        missing = " and ".join(
            name for name, told in ((MANIFESTS, host.text(MANIFESTS)), (URL, _url(host))) if not told
        )
        why = (
            f"which Job it is, and where, nobody says: set {missing} in the inventory, or ask tenant.gpu.kubernetes_job"
        )
        return JobView("", NOT_ASKED, "", why)
    name, client = _manifests(host).name, client_of(host)
    found, verdict = jobs.look(client, name)
    state = "stopped" if verdict.verdict in _RESTS else "started"
    deadlines = jobs.deadlines_of(found) if found is not None else {}
    why = f"{verdict.evidence}; next: {verdict.next}"
    return JobView(name, verdict.verdict, verdict.reason, why, state, deadlines, client.provider_now())


def plan(host: BoxHost, spec: Mapping[str, Any]) -> list[str]:
    """What would be applied, under which caps; the cluster itself checks it where it can be asked.

    :param spec: the run spec, empty where none is named.
    :raises TenantFailure: it cannot be applied, or the cluster does not tell.
    """
    if not host.text(MANIFESTS):
        wanted = [f"would be a Job: {_caps_of_spec(spec)}"] if spec else []
        return [*wanted, f"nothing is rendered yet: `{_EXPORT}`, and name that FILE as {MANIFESTS} in the inventory"]
    manifests = _manifests(host)
    with _readable(host, host.text(MANIFESTS)):
        told = [f"would apply Job {manifests.name}: {_caps_of(manifests)}"]
    if not _url(host):
        return [*told, f"{URL} is not set, so that the cluster was not asked"]
    store = StateStore(host.required("tenant_state_dir"))
    desire = jobs.Desire(host.required("tenant_project"), jobs.PRESENT, manifests)
    found = jobs.converge(client_of(host), store, desire, check_mode=True)
    if not found["changed"]:
        return [
            *told,
            f"nothing to change: it is there, {found['verdict']}: {found['evidence']}; next: {found['next']}",
        ]
    made = " and ".join(name for name in ("claim", "job") if found["diff"]["after"].get(name) == jobs.PRESENT)
    return [*told, f"the API server checked it and would make: {made}"]


def say_first(host: BoxHost) -> list[str]:
    """What happens by itself on the platform, and what saves work, as the role provision says it of boxes."""
    platform = host.text("platform_name")
    with _readable(host, "platform_clocks or platform_conveniences of its inventory"):
        clocks = danger_clocks.countdown(host.variables.get("platform_clocks") or [])
        kept = host.variables.get("platform_conveniences") or []
        return [f"danger clock of {platform}: {clock['text']}" for clock in clocks] + [
            f"{platform} saves work: {one}" for one in kept
        ]


@contextlib.contextmanager
def _readable(host: BoxHost, what: str) -> Iterator[None]:
    """People write these by hand. :raises TenantFailure: one has not the form that it should have."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TenantFailure(
            "config",
            f"{what} cannot be read: {error}",
            box=host.name,
            safe="nothing was applied",
            fix="correct it, or render it again",
        ) from error


def _url(host: BoxHost) -> str:
    return host.text(URL) or os.environ.get(KubernetesClient.URL_VARIABLE, "")


def _manifests(host: BoxHost) -> jobs.Manifests:
    return jobs.read_manifests(documents_in(os.path.expanduser(host.text(MANIFESTS))))


def _caps_of(manifests: jobs.Manifests) -> str:
    spec = manifests.job["spec"]
    (container, *_others) = spec["template"]["spec"]["containers"]
    limits = (container.get("resources") or {}).get("limits") or {}
    claim = (
        f"claim {manifests.claim_name} of {_storage(manifests.claim)}" if manifests.claim else "a claim that is there"
    )
    tries = spec.get("backoffLimitPerIndex", spec.get("backoffLimit"))
    return _caps(
        spec.get("completions", 1), limits.get("nvidia.com/gpu", 0), spec.get("activeDeadlineSeconds"), tries, claim
    )


def _caps_of_spec(spec: Mapping[str, Any]) -> str:
    needs, count = cells.demands(spec), len(spec["cells"])
    return _caps(count, needs.gpus, needs.deadline_s, needs.retries, f"a claim of {needs.disk_gb * count}Gi")


def _caps(count: Any, gpus: Any, deadline_s: Any, tries: Any, claim: str) -> str:
    end = "no deadline" if deadline_s is None else f"ended after {duration(deadline_s)}, waiting for a GPU included"
    again = "as often as the cluster likes" if tries is None else f"at most {tries} more times"
    return f"{count} cells, {gpus} GPUs each; {end}; a cell that fails is tried {again}; {claim}"


def _storage(claim: Mapping[str, Any]) -> str:
    wanted = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return str(wanted.get("storage") or "unknown size")

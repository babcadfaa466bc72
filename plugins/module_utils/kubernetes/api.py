# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client of a Kubernetes API server: Jobs, pods and volume claims of one namespace, and how its errors read.

Everything is made under a name of its own, so that a create which is sent again makes no second one: the server answers
``AlreadyExists``. A delete names the uid of what was judged, so that it never hits what came after it.
"""

from __future__ import annotations

import re
import ssl
import urllib.parse
import urllib.request
from typing import Any, Mapping

from ..failures import TenantFailure
from ..rest_client import IDEMPOTENT, SAFE, NoRedirect, Reply, RestClient, is_private

JOBS, CLAIMS, PODS = "jobs", "persistentvolumeclaims", "pods"
_GROUPS = {JOBS: "/apis/batch/v1", CLAIMS: "/api/v1", PODS: "/api/v1"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
# `kubectl proxy` proves who asks; there is nothing to send.
_PROXIED = "kubectl-proxy"


class KubernetesReply(Reply):
    """One answer: an object, a list of them, or a ``Status`` with ``reason`` and ``message``."""

    @property
    def code(self) -> str:
        return str(self.fields.get("reason") or "") if self.fields.get("kind") == "Status" else ""

    @property
    def is_missing(self) -> bool:
        """The server's word on one object; a 404 of a path that it does not serve has another reason."""
        return self.status == 404 and self.code == "NotFound" and bool(self._details.get("name"))

    @property
    def _details(self) -> Mapping[str, Any]:
        found = self.fields.get("details")
        return found if isinstance(found, dict) else {}


class KubernetesClient(RestClient[KubernetesReply]):
    """One namespace of one cluster.

    :param ca_file: what the server's certificate is signed with; the system's authorities when empty.
    """

    PLATFORM = "kubernetes"
    KEY_VARIABLE = "KUBERNETES_TOKEN"
    URL_VARIABLE = "KUBERNETES_API_URL"
    REPLY = KubernetesReply

    def __init__(
        self, token: str, base_url: str, namespace: str = "default", ca_file: str = "", **settings: Any
    ) -> None:
        if not base_url:
            raise TenantFailure(
                "config",
                "no API server is named",
                safe="nothing was asked",
                fix="run `kubectl proxy` and set api_url: http://127.0.0.1:8001, or name a server, a token and its CA",
            )
        parts = urllib.parse.urlsplit(base_url)
        proxied = parts.scheme == "http" and is_private(parts.hostname or "")
        if ca_file:
            settings.setdefault("opener", _trusting(ca_file))
        super().__init__(token or (_PROXIED if proxied else ""), base_url, **settings)
        self.namespace = _checked(namespace)

    def authorization(self) -> dict[str, str]:
        return {} if self.key == _PROXIED else super().authorization()

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None when the server says that there is none."""
        reply = self.request("GET", self._path(kind, name), SAFE, missing_ok=True)
        if reply.status == 404:
            return None
        if _metadata(reply.fields).get("name") != name:
            raise self.malformed(f"the answer about {name} is about something else")
        return reply.fields

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """The pods of the namespace, or those that a label selector names."""
        query = {"labelSelector": selector} if selector else None
        rows = self.request("GET", self._path(PODS), SAFE, query=query).fields.get("items")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.malformed("the list of pods is no list")
        return rows

    def create(self, kind: str, manifest: Mapping[str, Any], dry_run: bool = False) -> None:
        """RestError with the code ``AlreadyExists`` where there is one of that name.

        :param dry_run: the server checks it, quotas and admission included, and makes nothing.
        """
        query = {"dryRun": "All"} if dry_run else {}
        strict = {**query, "fieldValidation": "Strict"}
        self.request("POST", self._path(kind), IDEMPOTENT, query=strict, body=manifest)

    def delete(self, kind: str, name: str, uid: str) -> bool:
        """Delete what has this uid; False when it was gone already."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        return self.request("DELETE", self._path(kind, name), IDEMPOTENT, body=body, missing_ok=True).status < 400

    def _path(self, kind: str, name: str = "") -> str:
        return f"{_GROUPS[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{_checked(name)}" if name else "")


def _metadata(row: Mapping[str, Any]) -> Mapping[str, Any]:
    found = row.get("metadata")
    return found if isinstance(found, dict) else {}


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise TenantFailure("config", f"{ascii(name)[:60]} is no name that Kubernetes takes", safe="nothing was asked")
    return name


def _trusting(ca_file: str) -> Any:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        what = f"cannot read the certificates in {ca_file}: {getattr(error, 'strerror', '') or 'they are none'}"
        raise TenantFailure("config", what, safe="nothing was asked", fix="correct ca_file") from None
    return urllib.request.build_opener(NoRedirect, urllib.request.HTTPSHandler(context=context))

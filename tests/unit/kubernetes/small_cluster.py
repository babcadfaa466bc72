# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A little Kubernetes API server in this process: the paths, the words and the checks of the real one that a client of
Jobs, pods and claims meets. It runs nothing; tests write what the controllers would."""

from __future__ import annotations

import email.message
import io
import json
import urllib.error
import urllib.parse
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.api import KubernetesClient
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

URL, TOKEN, SPACE = "https://cluster.example", "a-token-of-the-team", "ml"
_SERVED = {
    ("apis", "batch", "v1", "jobs"): "Job",
    ("api", "v1", "persistentvolumeclaims"): "PersistentVolumeClaim",
    ("api", "v1", "pods"): "Pod",
}


class SmallCluster:
    """An opener for RestClient.

    :ivar faults: answers that come before any other, as ``(status, body)`` or an exception; each once.
    :ivar finalizing: kinds whose deletes take until the test lets them end.
    """

    def __init__(self, folder: Path) -> None:
        self.store = StateStore(str(folder / "state"))
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.sent: list[tuple[str, str]] = []
        self.faults: list[Any] = []
        self.finalizing: set[str] = set()
        self.now = 0.0
        self._made = 0

    def client(self, **changes: Any) -> KubernetesClient:
        settings = {"opener": self, "clock": lambda: self.now, "sleep": self.sleep, "jitter": lambda: 1.0}
        return KubernetesClient(TOKEN, URL, SPACE, **{**settings, **changes})

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def put(self, kind: str, name: str, **about: Any) -> dict[str, Any]:
        """An object as a controller makes it."""
        self._made += 1
        row = {"kind": kind, "metadata": {"name": name, "uid": f"uid-{self._made}"}, "status": {}, **about}
        row["metadata"] = {"name": name, "uid": f"uid-{self._made}", **about.get("metadata", {})}
        self.objects[kind, name] = row
        return row

    def writes(self) -> list[tuple[str, str]]:
        return [one for one in self.sent if one[0] != "GET"]

    def open(self, request: Any, timeout: float) -> Any:
        url = urllib.parse.urlsplit(request.full_url)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.sent.append((request.method, url.path))
        assert request.get_header("Authorization") == f"Bearer {TOKEN}"
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return self._answer(request, *fault)
        body = json.loads(request.data) if request.data else {}
        return self._answer(request, *self._serve(request.method, url.path.strip("/").split("/"), query, body))

    def _serve(self, method: str, path: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        at = path.index("namespaces")
        assert path[at + 1] == SPACE
        kind, name = _SERVED.get((*path[:at], path[at + 2])), (path[at + 3] if len(path) > at + 3 else "")
        if kind is None:
            return 404, status(404, "NotFound", "the server could not find the requested resource")
        if method == "GET" and not name:
            return 200, {"kind": f"{kind}List", "items": [row for row in self._of(kind) if _selected(row, query)]}
        if method == "POST":
            return self._create(kind, query, body)
        row = self.objects.get((kind, name))
        if row is None:
            return 404, {**status(404, "NotFound", f'{path[at + 2]} "{name}" not found'), "details": {"name": name}}
        return (200, row) if method == "GET" else self._delete(kind, name, row, body)

    def _create(self, kind: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        assert query.get("fieldValidation") == "Strict"
        name = body["metadata"]["name"]
        if (kind, name) in self.objects:
            return 409, status(409, "AlreadyExists", f'"{name}" already exists')
        if kind == "Job" and body["spec"]["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
            return 422, status(422, "Invalid", 'restartPolicy: Unsupported value: "Always"')
        if query.get("dryRun") == "All":
            return 201, body
        return 201, self.put(kind, name, **{key: value for key, value in body.items() if key != "kind"})

    def _delete(self, kind: str, name: str, row: dict[str, Any], body: Any) -> tuple[int, Any]:
        if body["preconditions"]["uid"] != row["metadata"]["uid"]:
            return 409, status(409, "Conflict", "the UID in the precondition does not match")
        row["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
        if kind not in self.finalizing:
            del self.objects[kind, name]
            for pod in [one for one in self._of("Pod") if kind == "Job" and job_name(one) == name]:
                del self.objects["Pod", pod["metadata"]["name"]]
        return 200, row

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [row for (its, _name), row in self.objects.items() if its == kind]

    def _answer(self, request: Any, code: int, body: Any) -> Any:
        headers = email.message.Message()
        data = io.BytesIO(body.encode() if isinstance(body, str) else json.dumps(body).encode())
        if code >= 300:
            raise urllib.error.HTTPError(request.full_url, code, "", headers, data)
        return _Answer(code, headers, data)


class _Answer:
    def __init__(self, code: int, headers: Any, data: io.BytesIO) -> None:
        self.status, self.headers, self.read = code, headers, data.read

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_args: Any) -> None:
        return None


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def job_name(row: dict[str, Any]) -> str:
    return str(row["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name", ""))


def _selected(row: dict[str, Any], query: dict[str, str]) -> bool:
    key, _equals, value = query.get("labelSelector", "").partition("=")
    return not key or row["metadata"].get("labels", {}).get(key) == value

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""As much of AWX's API as describing templates needs, in memory, with every change recorded. No AWX ever ran here."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "planted-awx-token"


class Awx:
    """:ivar changes: (method, path, body) of everything that changed something, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, dict[str, Any]]] = []
        self.things: dict[str, dict[int, dict[str, Any]]] = {}
        self.url = ""
        self._last = 0
        self.add("organizations", {"name": "Default"})

    def add(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        known = self.things.setdefault(kind, {})
        self._last += 1
        number = self._last
        related = {name: f"/api/v2/{kind}/{number}/{name}/" for name in ("credentials", "workflow_nodes", "labels")}
        known[number] = {**body, "id": number, "url": f"/api/v2/{kind}/{number}/", "type": kind.rstrip("s")}
        known[number] |= {"related": related, "summary_fields": {}}
        return known[number]

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        parts = path.removeprefix("/api/v2/").strip("/").split("/")
        if path == "/api/":
            return 200, {"current_version": "/api/v2/", "available_versions": {"v2": "/api/v2/"}}
        if parts[0] in ("ping", "config"):
            return 200, {"version": "24.6.1"}
        if method in ("POST", "PATCH", "DELETE"):
            self.changes.append((method, path, body))
        if len(parts) == 1:
            return (201, self.add(parts[0], body)) if method == "POST" else (200, self._listed(parts[0], query))
        kind, number = parts[0], int(parts[1])
        if method == "DELETE":
            del self.things[kind][number]
            return 204, {}
        if len(parts) == 2:
            self.things[kind][number].update(body if method == "PATCH" else {})
            return 200, self.things[kind][number]
        return self._below(method, kind, number, parts[2], query, body)

    def _below(
        self, method: str, kind: str, number: int, name: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, Any]:
        if name == "create_approval_template":
            made = self.add("workflow_approval_templates", body)
            self.things[kind][number]["unified_job_template"] = made["id"]
            return 201, made
        if name == "workflow_nodes" and method == "POST":
            return 201, self.add("workflow_job_template_nodes", {**body, "workflow_job_template": number})
        if method == "POST":
            self.things[kind][number].setdefault(name, []).append(body.get("id"))
            return 204, {}
        if name == "workflow_nodes":
            nodes = self._listed("workflow_job_template_nodes", {"workflow_job_template": str(number), **query})
            return 200, nodes
        return 200, {"count": 0, "next": None, "results": []}

    def _listed(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        wanted = {name: value for name, value in query.items() if name not in ("page_size", "or__id", "or__name")}
        kinds = ["job_templates", "workflow_approval_templates"] if kind == "unified_job_templates" else [kind]
        found = [
            thing
            for each in kinds
            for thing in self.things.get(each, {}).values()
            if all(str(thing.get(name)) == value for name, value in wanted.items())
        ]
        return {"count": len(found), "next": None, "results": found}


@contextlib.contextmanager
def running_awx() -> Iterator[Awx]:
    awx = Awx()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            place = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[0] for name, values in parse_qs(place.query).items()}
            if TOKEN not in self.headers.get("Authorization", "") and place.path not in ("/api/", "/api/v2/ping/"):
                code, told = 401, {"detail": "no token"}
            else:
                code, told = awx.answer(self.command, place.path, query, json.loads(data) if data else {})
            text = b"" if code == 204 else json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *unused: Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        awx.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield awx
        server.shutdown()
        thread.join(timeout=600)

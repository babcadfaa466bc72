# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""As much of a wandb server as its own command line needs to send a run: GraphQL, the file stream, uploads."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WandbServer:
    """``runs``: names of the runs that were begun; ``history``: their lines; ``silent``: runs that get no answer."""

    url: str = ""
    runs: list[str] = field(default_factory=list)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/graphql":
            return {"data": self._query(json.loads(body))}
        if path.endswith("/file_stream"):
            run = path.split("/")[-2]
            for line in json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
                self.history.setdefault(run, []).append(json.loads(line))
        return {}

    def _query(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, variables = asked["query"], asked.get("variables") or {}
        if "upsertBucket" in query:
            name = str(variables.get("name"))
            if name in self.silent:
                self.over.wait(600)
            self.runs.append(name)
            project = {"id": "p", "name": variables.get("project") or "p", "entity": {"id": "e", "name": "team"}}
            bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "historyLineCount": 0}
            return {"upsertBucket": {"bucket": dict(bucket, project=project), "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables.get("files", [])]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {"viewer": {"id": "u", "username": "ada", "entity": "team"}}


class _Handler(BaseHTTPRequestHandler):
    served: WandbServer

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.served.keys.add(self.headers.get("Authorization") or "")
        answer = json.dumps(self.served.answer(self.path, body)).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _serve


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    served = WandbServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served}))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        thread.join(timeout=600)
        server.server_close()

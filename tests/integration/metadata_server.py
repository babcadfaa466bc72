# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The providers' metadata services on loopback: their paths, headers, status codes and waits."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "AQAEAL-session-token"


@dataclass
class Metadata:
    """What the services say now. Setting a field is what the provider does; ``asked`` is every request line."""

    url: str = ""
    aws_action: dict[str, str] | None = None
    aws_rebalance: dict[str, str] | None = None
    aws_tokens_refused: int = 0
    gcp_preempted: bool = False
    gcp_maintenance: str = "NONE"
    # Of what only advises, where it is broken.
    advice_status: int = 0
    azure_name: str = "box-1"
    azure_events: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    asked: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def preempt_gcp(self) -> None:
        with self.changed:
            self.gcp_preempted = True
            self.changed.notify_all()


def handler_for(state: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: Any) -> None:
            pass

        def answer(self, status: int, text: str = "", **headers: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            state.asked.append(f"PUT {self.path}")
            lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            # Instance metadata refuses a token to anything that came through a proxy.
            good = self.path == "/latest/api/token" and lifetime.isdigit() and "X-Forwarded-For" not in self.headers
            self.answer(200, TOKEN) if good and 1 <= int(lifetime) <= 21600 else self.answer(400)

        def do_GET(self) -> None:
            state.asked.append(f"GET {self.path}")
            if state.down:
                self.answer(503)
                return
            parts = urlsplit(self.path)
            if parts.path.startswith("/latest/"):
                self.aws(parts.path)
            elif parts.path.startswith("/computeMetadata/"):
                self.gcp(parts.path, parse_qs(parts.query))
            elif parts.path.startswith("/metadata/"):
                self.azure(parts.path, parse_qs(parts.query))
            else:
                self.answer(404)

        def aws(self, path: str) -> None:
            if state.aws_tokens_refused or self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                state.aws_tokens_refused = max(0, state.aws_tokens_refused - 1)
                self.answer(401)
                return
            if self.is_advice_broken(path):
                return
            documents = {
                "/latest/meta-data/spot/instance-action": state.aws_action,
                "/latest/meta-data/events/recommendations/rebalance": state.aws_rebalance,
            }
            found = documents.get(path)
            self.answer(200, json.dumps(found)) if found is not None else self.answer(404)

        def is_advice_broken(self, path: str) -> bool:
            if state.advice_status and path.endswith(("/rebalance", "/maintenance-event")):
                self.answer(state.advice_status)
                return True
            return False

        def gcp(self, path: str, query: dict[str, list[str]]) -> None:
            if self.headers.get("Metadata-Flavor") != "Google":
                self.answer(403)
                return
            if self.is_advice_broken(path):
                return
            if path.endswith("/maintenance-event"):
                self.answer(200, state.gcp_maintenance, ETag="m1")
                return
            with state.changed:
                if query.get("last_etag") == ["false"]:
                    within = float(query["timeout_sec"][0])
                    state.changed.wait_for(lambda: state.gcp_preempted or state.down, within)
                value = state.gcp_preempted
            self.answer(200, str(value).upper(), ETag=str(value).lower())

        def azure(self, path: str, query: dict[str, list[str]]) -> None:
            if self.headers.get("Metadata") != "true":
                self.answer(400, '{"error": "Bad request"}')
            elif path == "/metadata/instance/compute/name":
                self.answer(200, state.azure_name)
            elif query.get("api-version") == ["2020-07-01"]:
                self.answer(200, json.dumps({"DocumentIncarnation": 1, "Events": state.azure_events}))
            else:
                self.answer(400)

    return Handler


@contextlib.contextmanager
def metadata_service() -> Iterator[Metadata]:
    state = Metadata()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(state))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.down = True
        with state.changed:
            state.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()


def azure_event(kind: str, *machines: str, in_s: float = 600.0) -> dict[str, Any]:
    moment = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + in_s))
    return {
        "EventId": f"C7061BAC-{kind}",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(machines),
        "EventStatus": "Scheduled",
        "NotBefore": moment,
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }

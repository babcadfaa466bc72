# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A provider that speaks vast.ai's wire as far as a list of instances goes, and says what a test wants it to say."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k3y-that-must-never-be-seen"
NONCE = "0123456789abcdef"


class Provider(ThreadingHTTPServer):
    """Lists the rows that it is given, and counts how often it is asked.

    ``only_listed`` are ids that its list still shows and that their own item knows no more.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.rows: list[dict[str, Any]] = []
        self.only_listed: set[int] = set()
        self.asked = 0
        self.status = 200
        self.rewrite: Callable[[dict[str, Any]], Any] = lambda body: body

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, generation: int = 1, project: str = "demo", **changes: Any) -> dict[str, Any]:
        row = {
            "id": 5000 + len(self.rows),
            "label": f"gt1/{project}/{name}/g{generation}/{NONCE}",
            "actual_status": "running",
            "intended_status": "running",
            "cur_state": "running",
            "status_msg": "",
            "public_ipaddr": "192.0.2.10",
            "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(40000 + len(self.rows))}]},
            "ssh_host": "ssh5.vast.ai",
            "ssh_port": 20001,
            "machine_id": 77,
            "dph_total": 0.25,
            "start_date": 1.0,
            "extra_env": [["SECRET", "s3cret"]],
            "image_runtype": "ssh ssh_direc ssh_proxy",
        }
        row.update(changes)
        self.rows.append(row)
        return row


class Answer(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.asked += 1
        known = self.headers["Authorization"] == f"Bearer {KEY}"
        status = self.server.status if known else 401
        rows = self.server.rows
        body = {"success": True, "instances": rows, "total_instances": len(rows), "next_token": None}
        one = re.match(r"/api/v0/instances/([0-9]+)/", self.path)
        if one is not None:
            there = [row for row in rows if row["id"] == int(one.group(1)) and row["id"] not in self.server.only_listed]
            body = {"instances": there[0] if there else None}
        said = self.server.rewrite(body) if status == 200 else {"error": "auth_error", "msg": "bad key"}
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Provider]:
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

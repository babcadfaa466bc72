# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A little Kubernetes API server on the loopback, as ``kubectl proxy`` is one. Nothing runs in it: who wants a pod puts
one there, as the controllers would.

``kubernetes_server.py FILE`` serves until it is ended, and writes its address to FILE once it answers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/kubernetes"))
from small_cluster import SPACE, SmallCluster  # it lies beside the tests of the module's logic

__all__ = ["SPACE", "Server", "kubernetes_server"]


class Server(ThreadingHTTPServer):
    cluster: SmallCluster

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _any(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        query = dict(urllib.parse.parse_qsl(url.query))
        code, answer = self.server.cluster._serve(self.command, url.path.strip("/").split("/"), query, body)
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _any

    def log_message(self, *_args: Any) -> None:
        return


@contextlib.contextmanager
def kubernetes_server(folder: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as served:
        served.cluster = SmallCluster(folder)
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.shutdown()
            thread.join(timeout=600)


def main() -> None:
    told = Path(sys.argv[1])
    with kubernetes_server(told.parent) as served:
        new = told.with_suffix(".new")
        new.write_text(served.url)
        os.replace(new, told)
        threading.Event().wait()


if __name__ == "__main__":
    main()

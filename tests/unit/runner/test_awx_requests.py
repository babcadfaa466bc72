# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""AWX's token goes to AWX and to nobody else, and whatever answers there is no traceback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.alerts import Alerts
from gpu_tenant.awx import Controller, Question

TOKEN = "planted-awx-token"
QUESTION = Question("box-1", ["teardown"])


@contextlib.contextmanager
def served(status: int, body: bytes, location: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """An address where each GET is answered so, and what stood in the Authorization of each."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def babbling(answer: bytes) -> Iterator[str]:
    """An address where something answers that is no HTTP server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_one() -> None:
            connection, _peer = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def failure_at(url: str, token: str = TOKEN) -> TenantFailure:
    with pytest.raises(TenantFailure) as caught:
        Controller(url, token).approved(7, QUESTION)
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_follows_no_redirect(status: int) -> None:
    with contextlib.ExitStack() as servers:
        elsewhere, seen = servers.enter_context(served(200, b"{}"))
        awx, asked = servers.enter_context(served(status, b"", elsewhere))
        failure = failure_at(awx)
    assert (asked, seen) == ([f"Bearer {TOKEN}"], [])
    assert (failure.kind, str(status) in failure.what) == ("config", True)
    assert "CONTROLLER_HOST" in failure.fix


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000, b"null"])
def test_an_answer_that_is_none_of_awx_s_is_a_failure(body: bytes) -> None:
    with served(200, body) as (awx, _asked):
        assert failure_at(awx).kind == "config"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_neither_is_what_is_no_http(answer: bytes) -> None:
    with babbling(answer) as address:
        assert failure_at(address).kind == "config"


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://a b", TOKEN),
        ("http://127.0.0.1:port", TOKEN),
        ("http://[", TOKEN),
        ("http://127.0.0.1:9", f"{TOKEN}\n"),
    ],
)
def test_an_address_or_token_that_cannot_be_sent_is_told_without_the_token(url: str, token: str) -> None:
    assert failure_at(url, token).kind == "config"


def test_a_webhook_that_is_no_http_ends_no_watch() -> None:
    heard: list[str] = []
    with babbling(b"SSH-2.0-OpenSSH_9.2\r\n") as address:
        assert not Alerts(address, lambda _box, text: heard.append(text)).tell("alert", "box-1", "lost")
    assert not Alerts("http://127.0.0.1:port", lambda _box, text: heard.append(text)).tell("alert", "box-1", "lost")
    assert len(heard) == 2

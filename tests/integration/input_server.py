# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Servers on loopback ports that give files as a test wants them given: cut, changed, redirected, compressed, slow."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Page:
    """What lies at one path. ``challenge``: how to ask for the token, told to whoever lacks it; ``cuts``: after how
    many bytes each of the first answers ends; ``statuses``: what the first requests are answered instead; ``before`` is
    called with the number of each request before it is answered."""

    data: bytes
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    length: bool = True
    encoding: str = ""
    redirect: str = ""
    token: str = ""
    token_header: str = "authorization"
    challenge: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None
    release: threading.Event | None = None
    type: str = "application/octet-stream"
    link: str = ""
    asked: int = 0


@dataclass
class InputServer:
    """``requests``: (method, path with query, headers in lower case) of everything that was asked."""

    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    posts: list[bytes] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def put(self, path: str, data: bytes, **options: Any) -> str:
        """Serve ``data`` at ``path``; its URL."""
        self.pages[path] = Page(data, **options)
        return self.url + path

    def ranges_asked(self, path: str) -> list[str]:
        return [headers.get("range", "") for _method, asked, headers in self.requests if asked == path]

    def put_repository(
        self, repo: str, revision: str, files: dict[str, bytes], large: set[str], **options: Any
    ) -> None:
        """A Hugging Face repository of models, with two pages of files as soon as there are two files."""
        self.put(f"/api/models/{repo}/revision/{revision}", json.dumps({"sha": revision}).encode(), **options)
        entries = [hub_entry(path, data, path in large) for path, data in sorted(files.items())]
        entries.insert(0, {"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0})
        tree = f"/api/models/{repo}/tree/{revision}?recursive=true"
        half = len(entries) // 2
        # The real Hub names itself in the link, which a mirror passes on.
        following = f'<https://huggingface.example{tree}&cursor=two>; rel="next"'
        self.put(tree, json.dumps(entries[:half]).encode(), link=following, **options)
        self.put(f"{tree}&cursor=two", json.dumps(entries[half:]).encode(), **options)
        for path, data in files.items():
            self.put(
                f"/{repo}/resolve/{revision}/{path}", data, etag=f'"{hashlib.sha256(data).hexdigest()}"', **options
            )


def hub_entry(path: str, data: bytes, large: bool) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 # what git names a file by
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if large:
        entry["oid"] = "f" * 40
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: InputServer

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.served.posts.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = self.path if self.path.startswith("/") else _target(self.path)
        self.served.requests.append((self.command, target, headers))
        page = self.served.pages.get(target) or self.served.pages.get(urlsplit(target).path)
        if page is None:
            self._plain(404, {})
            return
        page.asked += 1
        page.before(page.asked)
        if page.statuses:
            self._plain(*page.statuses.pop(0))
        elif page.token and headers.get(page.token_header) != page.token:
            self._plain(401, {"WWW-Authenticate": page.challenge} if page.challenge else {})
        elif page.redirect:
            self._plain(302, {"Location": page.redirect})
        else:
            self._give(page, headers, body)

    def _plain(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _give(self, page: Page, headers: dict[str, str], body: bool) -> None:
        data = gzip.compress(page.data, mtime=0) if page.encoding == "gzip" else page.data
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        condition = headers.get("if-range", "")
        fresh = not condition or condition in (page.etag, page.modified)
        start = int(found.group(1)) if found and page.ranges and fresh else 0
        if start and start >= len(data):
            self._plain(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        # The end counts too, where one is named behind the beginning.
        end = min(int(found.group(2)) + 1, len(data)) if start and found and found.group(2) else len(data)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        for name, value in (("ETag", page.etag), ("Last-Modified", page.modified), ("Content-Encoding", page.encoding)):
            if value:
                self.send_header(name, value)
        if page.link:
            self.send_header("Link", page.link)
        if page.length:
            self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", page.type)
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            self._send(page, data[start:end])
        self.close_connection = True

    def _send(self, page: Page, data: bytes) -> None:
        cut = page.cuts.pop(0) if page.cuts else None
        with contextlib.suppress(OSError):
            self.wfile.write(data if cut is None else data[:cut])
            self.wfile.flush()
            if page.release is not None and cut is not None:
                # Holds the connection open without a word, until the test is over or wants it to go on.
                page.release.wait(600)
                self.wfile.write(data[cut:])


def _target(url: str) -> str:
    """What a proxy is asked for."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def query_of(target: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(target).query)


@contextlib.contextmanager
def input_server(host: str = "127.0.0.1") -> Iterator[InputServer]:
    served = InputServer()
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    served.port = server.server_port
    served.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        for page in served.pages.values():
            if page.release is not None:
                page.release.set()
        server.shutdown()
        thread.join(timeout=600)
        server.server_close()

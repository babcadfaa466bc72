# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A moto server on a loopback port that also checks what S3 checks and moto does not, and that can be made to fail."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

ACCESS_KEY = "AKIAOBJECTSTORETESTS"
SECRET_KEY = "kept-on-the-controller/0123456789abcdef"
BUCKET = "results"
_BAD_DIGEST = b"<?xml version='1.0'?><Error><Code>BadDigest</Code><Message>The SHA256 differs</Message></Error>"

Body = bytes
Fault = Callable[[dict[str, Any], Body], Body | None]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        return


@dataclass
class ObjectServer:
    """``checks``: refuse bodies whose signed SHA-256 differs, as S3 does. ``fault`` may alter a body, or end in None:
    the connection is then cut before an answer."""

    checks: bool = True
    fault: Fault | None = None
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    url: str = ""
    _app: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        with self._lock:
            self.requests.append((environ["REQUEST_METHOD"], _target(environ), length))
        changed = self.fault(environ, body) if self.fault else body
        if len(body) < length:
            changed = None  # S3 takes no request without its end; moto would
        if changed is None:
            with contextlib.suppress(OSError):
                environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError("cut by the test")
        promised = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
        if self.checks and promised and promised != base64.b64encode(hashlib.sha256(changed).digest()).decode():
            start_response("400 Bad Request", [("Content-Length", str(len(_BAD_DIGEST)))])
            return [_BAD_DIGEST]
        environ["wsgi.input"] = io.BytesIO(changed)
        return self._app(environ, start_response)

    @functools.cached_property
    def client(self) -> Any:
        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url)

    def listing(self, prefix: str = "") -> list[str]:
        return sorted(
            entry["Key"] for entry in self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        )

    def puts(self) -> list[tuple[str, int]]:
        """(path and query without signature, bytes) of every body that was sent."""
        return [(target, length) for method, target, length in self.requests if method == "PUT"]

    def demand_keys(self) -> None:
        """From the next request on only keys that moto knows are accepted; it knows none."""
        self._moto("reset-auth", b"0")

    def reset(self) -> None:
        self.checks, self.fault = True, None
        self._moto("reset")
        self._moto("reset-auth", b"inf")
        self.client.create_bucket(Bucket=BUCKET)
        self.requests.clear()

    def _moto(self, verb: str, data: bytes = b"") -> None:
        headers = {"Content-Type": "text/plain"}
        with urlopen(Request(f"{self.url}/moto-api/{verb}", data, headers, method="POST"), timeout=600):
            pass


def _target(environ: dict[str, Any]) -> str:
    query = "&".join(part for part in environ["QUERY_STRING"].split("&") if not re.match(r"X-Amz-", part))
    return environ["PATH_INFO"] + (f"?{query}" if query else "")


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    served = ObjectServer()
    served._app = DomainDispatcherApplication(create_backend_app)
    server: BaseWSGIServer = make_server("127.0.0.1", 0, served, threaded=True, request_handler=_Quiet)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join(timeout=600)
        server.server_close()

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A moto server that plays EC2 on a loopback port, with what EC2 does and moto does not: client tokens, instances that
are reached (all at 127.0.0.1), types that are sold out, and answers that get lost.

``ec2_server.py FILE`` serves until it is ended, and writes what an inventory needs to FILE once it answers."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

ACCESS_KEY = "AKIASPOTTESTS"
SECRET_KEY = "never-on-a-box/0123456789abcdef"
REGION = "us-east-1"
_ERROR = (
    "<?xml version='1.0'?><Response><Errors><Error><Code>{code}</Code><Message>{said}</Message></Error></Errors>"
    "<RequestID>test</RequestID></Response>"
)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        return


@dataclass
class Ec2Server:
    """:param refused: what EC2 says instead, by action or by instance type.
    :param lost: how many answers of an action never arrive, although it was done.
    """

    refused: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""
    _app: Any = None
    _tokens: dict[str, tuple[str, list[tuple[str, str]], bytes]] = field(default_factory=dict)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        words = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        action, token = words.get("Action", ""), words.get("ClientToken", "")
        self.asked[action] += 1
        code = self.refused.get(action) or self.refused.get(words.get("LaunchSpecification.InstanceType", ""))
        if code:
            answer = _ERROR.format(code=code, said=f"{action} is refused by the test").encode()
            start_response("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
            return [answer]
        status, headers, text = self._tokens.get(token) or self._answer(environ)
        if token:
            self._tokens[token] = (status, headers, text)
        if self.lost[action] > 0:
            self.lost[action] -= 1
            with contextlib.suppress(OSError):
                environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError("cut by the test")
        if action == "DescribeInstances":
            text = re.sub(rb"<ipAddress>[^<]*</ipAddress>", b"<ipAddress>127.0.0.1</ipAddress>", text)
        start_response(status, [(name, value) for name, value in headers if name != "Content-Length"])
        return [text]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        told: list[Any] = []
        text = b"".join(self._app(environ, lambda status, headers, _error=None: told.extend((status, list(headers)))))
        return told[0], told[1], text

    @functools.cached_property
    def client(self) -> Any:
        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        return session.client("ec2", endpoint_url=self.url)

    def instances(self) -> list[dict[str, Any]]:
        """Those that are not terminated."""
        pages = self.client.describe_instances()["Reservations"]
        found = [one for page in pages for one in page["Instances"]]
        return [one for one in found if one["State"]["Name"] != "terminated"]

    def image(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.describe_images()["Images"][0]
        return found

    def group(self) -> str:
        """The id of a security group."""
        found: dict[str, Any] = self.client.describe_security_groups()["SecurityGroups"][0]
        return str(found["GroupId"])

    def environment(self) -> dict[str, str]:
        """What AWS's own tools read."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reset(self) -> None:
        self.refused, self.lost, self._tokens = {}, Counter(), {}
        with urlopen(Request(f"{self.url}/moto-api/reset", b"", method="POST"), timeout=600):
            self.asked.clear()


@contextlib.contextmanager
def ec2_server() -> Iterator[Ec2Server]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    served = Ec2Server()
    served._app = DomainDispatcherApplication(create_backend_app)
    server: BaseWSGIServer = make_server("127.0.0.1", 0, served, threaded=True, request_handler=_Quiet)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        served.reset()
        yield served
    finally:
        server.shutdown()
        thread.join(timeout=600)


def main() -> None:
    with ec2_server() as served:
        told = {"url": served.url, "region": REGION, "image": served.image()["ImageId"], "group": served.group()}
        new = f"{sys.argv[1]}.new"
        with open(new, "w", encoding="utf-8") as stream:
            json.dump(told, stream)
        os.replace(new, sys.argv[1])
        threading.Event().wait()


if __name__ == "__main__":
    main()

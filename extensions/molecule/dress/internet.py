# SPDX-License-Identifier: MIT
"""What dressed boxes call: a mirror that answers by itself, and two proxies, before which hosts of other names lie.

One proxy lets every host through, the other the domains of ``--listed`` only. Each port is written to ``FOLDER/NAME``
once its server answers.
"""

from __future__ import annotations

import argparse
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Origin(BaseHTTPRequestHandler):
    """Gives every path the same bytes."""

    data: bytes
    listed: tuple[str, ...] | None = None
    is_proxy = False

    def do_GET(self) -> None:
        host = urlsplit(self.path).hostname
        # An address with a host is asked of a proxy only.
        if self.is_proxy is not (host is not None) or (host and not self._lets_through(host)):
            self.send_error(403, "not on the list")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data)

    def _lets_through(self, host: str) -> bool:
        return self.listed is None or any(host == one or host.endswith(f".{one}") for one in self.listed)

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{type(self).__name__} {format % args}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("known", type=Path, help="the file that every host has")
    parser.add_argument("--listed", nargs="+", default=[])
    order = parser.parse_args()
    data = order.known.read_bytes()
    kinds: dict[str, dict[str, object]] = {
        "mirror": {"is_proxy": False},
        "turbo": {"is_proxy": True},
        "listed": {"is_proxy": True, "listed": tuple(order.listed)},
    }
    for name, more in kinds.items():
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(name, (Origin,), {"data": data, **more}))
        threading.Thread(target=server.serve_forever).start()
        (order.folder / name).write_text(str(server.server_address[1]))


if __name__ == "__main__":
    main()

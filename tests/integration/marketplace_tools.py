# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A tenant of a test's marketplace: rents over REST, logs in with a real ssh."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tenant.marketplace.testing import Handle

DEADLINE_S = 600


@dataclass(frozen=True)
class Tenant:
    market: Handle
    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    def make_key(self) -> str:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        return self.key.with_suffix(".pub").read_text().strip()

    def register_key(self) -> None:
        self.market.request("POST", "/api/v0/ssh/", {"ssh_key": self.make_key()})

    def offers(self, **filters: object) -> list[dict[str, Any]]:
        body = {"type": "bid", "order": [["dph_total", "asc"]], "rentable": {"eq": True}, **filters}
        found: list[dict[str, Any]] = self.market.request("POST", "/api/v0/bundles/", body)["offers"]
        return found

    def rent(self, offer: dict[str, Any], **parts: object) -> int:
        """The id of a box that runs, rented at the lowest bid that wins."""
        body = {"image": "debian:12", "disk": 10, "price": offer["min_bid"], "runtype": "ssh_direc ssh_proxy", **parts}
        number: int = self.market.request("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"]
        self.market.wait_until_running(number)
        return number

    def change(self, number: int, **state: str) -> None:
        self.market.request("PUT", f"/api/v0/instances/{number}/", state)

    def port(self, number: int) -> int:
        row = self.market.row(number)
        assert row is not None
        return int(row["ssh_port"])

    def ssh_options(self, number: int) -> list[str]:
        return self.ssh_options_of(self.port(number))

    def ssh_options_of(self, port: int) -> list[str]:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        words = ["-F", "none", "-i", str(self.key), "-o", f"Port={port}", "-o", "IdentitiesOnly=yes"]
        return words + [word for option in options for word in ("-o", option)]

    @property
    def address(self) -> str:
        return f"{self.market.login}@127.0.0.1"

    def ssh(
        self, number: int, command: str, *options: str, stdin: str = "", timeout_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        words = ["ssh", *self.ssh_options(number), *options, self.address]
        return subprocess.run(
            [*words, command] if command else words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(self, number: int, command: str, *options: str, stdin: str = "") -> str:
        """What a command prints that succeeds."""
        done = self.ssh(number, command, *options, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


def wait_until(condition: Callable[[], bool], timeout_s: float = 600.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)

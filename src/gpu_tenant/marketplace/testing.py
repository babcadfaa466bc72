# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A marketplace for the length of a ``with`` block: a server process of its own, its state and its handle."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The podman engine's first start builds its image.
READY_DEADLINES_S = {"process": 300.0, "podman": 1500.0, "none": 300.0}
END_DEADLINE_S = 120.0
POLL_S = 0.05


class MarketplaceFailed(Exception):
    """The marketplace did not start, or refused a request."""


@dataclass
class Handle:
    """A running marketplace, from outside."""

    url: str
    api_key: str
    state_dir: Path
    engine: dict[str, Any]
    process: subprocess.Popen[str]

    @property
    def login(self) -> str:
        """The name that boxes are logged into with."""
        return str(self.engine["login"])

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach this market instead of the real one."""
        return {"VAST_URL": self.url, "VAST_API_KEY": self.api_key}

    def preempt(self, instance_id: int) -> dict[str, Any]:
        """Another tenant outbids the instance; its processes are dead on return."""
        answer: dict[str, Any] = self.request("POST", "/control/preempt", {"instance": instance_id})
        return answer

    def release(self, instance_id: int) -> dict[str, Any]:
        """The market's price falls again; the instance comes back by itself."""
        answer: dict[str, Any] = self.request("POST", "/control/release", {"instance": instance_id})
        return answer

    def inject(self, **fault: Any) -> int:
        """Add a fault, with the keys of docs/marketplace-faults.md; the id by which it is cleared."""
        number: int = self.request("POST", "/control/faults", {"faults": [fault]})["ids"][0]
        return number

    def clear_faults(self, number: int | None = None) -> None:
        """End one fault, or all, and the states that they hold instances in."""
        self.request("DELETE", "/control/faults" if number is None else f"/control/faults/{number}")

    def faults(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.request("GET", "/control/faults")["faults"]
        return listed

    def bill(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.request("GET", "/control/bill")
        return answer

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.request("GET", "/control/state")
        return answer

    def row(self, instance_id: int) -> dict[str, Any] | None:
        """The instance as the provider shows it, None when it is gone."""
        found: dict[str, Any] | None = self.request("GET", f"/api/v0/instances/{instance_id}/")["instances"]
        return found

    def wait_for(
        self, instance_id: int, condition: Callable[[dict[str, Any] | None], bool], timeout_s: float = 300.0
    ) -> dict[str, Any] | None:
        """The instance's row once it meets the condition. TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while True:
            row = self.row(instance_id)
            if condition(row):
                return row
            if time.monotonic() > deadline:
                status = None if row is None else (row["actual_status"], row["status_msg"])
                raise TimeoutError(f"instance {instance_id} after {timeout_s:.0f} s: {status}")
            time.sleep(POLL_S)

    def wait_until_running(self, instance_id: int, timeout_s: float = 300.0) -> dict[str, Any]:
        row = self.wait_for(instance_id, lambda one: one is not None and one["actual_status"] == "running", timeout_s)
        assert row is not None
        return row

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """MarketplaceFailed for any answer that is not 200."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310 - own loopback server
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310 - own loopback server
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            raise MarketplaceFailed(f"{method} {path}: {refusal.code} {refusal.read().decode()}") from refusal

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.process.kill()
        self.process.wait(END_DEADLINE_S)


@contextlib.contextmanager
def running_marketplace(
    engine: str = "process",
    *,
    seed: int = 0,
    speed: float = 1.0,
    state_dir: Path | None = None,
    api_key: str = "",
    port: int = 0,
    options: tuple[str, ...] = (),
) -> Iterator[Handle]:
    """Serve a market until the block ends; then no process of it or of its boxes is left.

    :param state_dir: kept when given, else a temporary one that goes with the block.
    :param options: further words of ``gpu-tenant marketplace serve``.
    :raises MarketplaceFailed: with the server's own words when it does not start.
    """
    with contextlib.ExitStack() as stack:
        if state_dir is None:
            state_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marketplace-")))
        key = api_key or secrets.token_hex(16)
        words = ["serve", "--port", str(port), "--engine", engine, "--seed", str(seed), "--speed", str(speed)]
        log = stack.enter_context(tempfile.TemporaryFile(mode="w+", encoding="utf-8"))
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_tenant.marketplace", *words, "--state", str(state_dir), "--json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "GPU_TENANT_MARKETPLACE_KEY": key},
            start_new_session=True,
        )
        stack.callback(_end, process)
        announced = _announcement(process, READY_DEADLINES_S[engine])
        if announced is None:
            log.seek(0)
            raise MarketplaceFailed(f"the marketplace did not start: {log.read().strip()[-2000:]}")
        yield Handle(announced["url"], key, Path(state_dir), announced["engine"], process)


def _announcement(process: subprocess.Popen[str], deadline_s: float) -> dict[str, Any] | None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], deadline_s)[0]:
        return None
    line = process.stdout.readline()
    announced: dict[str, Any] | None = json.loads(line) if line else None
    return announced


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_DEADLINE_S)
    if process.stdout is not None:
        process.stdout.close()

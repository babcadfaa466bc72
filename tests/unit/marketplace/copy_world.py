# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A market in this process whose boxes are plain folders, for what moves files between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from gpu_tenant.marketplace.api import Api
from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.engines.base import BoxSpec, EngineError
from gpu_tenant.marketplace.engines.none import NoEngine
from gpu_tenant.marketplace.market import Market
from gpu_tenant.marketplace.server import build_application
from gpu_tenant.marketplace.state import StateDirectory

KEY = "unit-test-key"
COPY = "/api/v0/commands/copy_direct/"
CLOUD = "/api/v0/commands/rclone/"


class DiskEngine(NoEngine):
    """Boxes that are a disk and nothing else."""

    def create(self, spec: BoxSpec) -> None:
        (spec.directory / "workspace").mkdir(parents=True)

    @contextlib.contextmanager
    def disk(self, spec: BoxSpec) -> Iterator[Path]:
        if not spec.directory.is_dir():
            raise EngineError(f"instance {spec.box_id} has no disk yet")
        yield spec.directory


class World:
    def __init__(self, folder: Path, **settings: Any) -> None:
        values: dict[str, Any] = {"boot_s": 0.0, "destroy_lag_s": 0.0, "speed": 300.0, **settings}
        self.directory = StateDirectory(folder)
        self.directory.acquire()
        config = MarketplaceConfig(port=0, api_key=KEY, state=folder, **values)
        self.market = Market(config, DiskEngine(), self.directory)
        self.market.open()
        self.application = build_application(Api(self.market, KEY, config.rate_limits), self.market)

    def close(self) -> None:
        self.market.close()
        self.directory.release()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return asyncio.run(self._call(method, path, body))

    async def _call(self, method: str, path: str, body: object) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
            answer = await client.request(method, path, json=body)
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json() if is_json else answer.text

    def rent(self, stopped: bool = False) -> int:
        body = {"order": [["dph_total", "asc"]], "rentable": {"eq": True}}
        offer = self.call("POST", "/api/v0/bundles/", body)[1]["offers"][0]
        parts = {"image": "debian:12", "disk": 10, "target_state": "stopped" if stopped else "running"}
        number: int = self.call("PUT", f"/api/v0/asks/{offer['id']}/", parts)[1]["new_contract"]
        if not stopped:
            self.await_(lambda: self.row(number)["actual_status"] == "running")
        return number

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self.call("GET", f"/api/v0/instances/{number}/")[1]["instances"]
        return row

    def disk(self, number: int) -> Path:
        return self.directory.boxes / str(number)

    def copy(self, source: object, source_path: str, dest: object, dest_path: str) -> tuple[int, Any]:
        body = {"client_id": "me", "src_id": source, "dst_id": dest, "src_path": source_path, "dst_path": dest_path}
        return self.call("PUT", COPY, body)

    def said(self, number: int, word: str) -> str:
        self.await_(lambda: word in str(self.row(number)["status_msg"]))
        return str(self.row(number)["status_msg"])

    @staticmethod
    def await_(condition: Callable[[], bool], within_s: float = 120.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.01)

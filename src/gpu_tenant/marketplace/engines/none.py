# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""No boxes: rows, prices and a bill only. For tests of the API that never log in."""

from __future__ import annotations

from typing import Any

from .base import BoxSpec, Engine


class NoEngine(Engine):
    name = "none"
    mounts_volumes = True

    def __init__(self) -> None:
        self._running: set[int] = set()

    def check(self) -> None:
        return

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "login": "root", "isolation": "no box: nothing answers on the port of an instance"}

    def create(self, spec: BoxSpec) -> None:
        return

    def start(self, spec: BoxSpec) -> None:
        self._running.add(spec.box_id)

    def stop(self, box_id: int) -> None:
        self._running.discard(box_id)

    def destroy(self, spec: BoxSpec) -> None:
        self._running.discard(spec.box_id)

    def alive(self, box_id: int) -> bool:
        return box_id in self._running

    def log(self, spec: BoxSpec) -> str:
        return ""

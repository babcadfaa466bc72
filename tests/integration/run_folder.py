# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run's folder on a box that is a folder here, for the routes through an object store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import object_upload, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.plugin_utils import object_transfer

MIB = 1024 * 1024
PART = 5 * MIB
BIG_BYTES = PART + MIB + 1234
BIG = "c0/a1/out/model.pt"
SMALL = "c0/a1/metrics é.json"


class RunFolder:
    """Subclasses give ``order``. ``orders`` are what the box was told; ``tamper`` may change what it is told."""

    def __init__(self, folder: Path, big: bool = False) -> None:
        self.folder = folder
        self.orders: list[dict[str, Any]] = []
        self.tamper: Callable[[dict[str, Any]], None] = lambda order: None
        self.created_at = records.utc_now()
        self.write(BIG, os.urandom(BIG_BYTES if big else 2000))
        self.write(SMALL, b'{"loss": 0.1}')
        self.write("c0/a1/empty.log", b"")

    def order(self, **changes: Any) -> object_transfer.Order:
        raise NotImplementedError

    def write(self, path: str, data: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)

    def record(self, **changes: Any) -> dict[str, Any]:
        files = [
            {"path": str(path.relative_to(self.folder)), "bytes": path.stat().st_size, "role": "other"}
            | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "loader": "none"}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]
        record = {"schema": records.schema("manifest"), "project": "demo", "run_id": "r1", "box": "box1"}
        record |= {"generation": 1, "created_at": self.created_at, "files": files, **changes}
        return dict(record, digest=roster.manifest_digest(record))

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        sent = json.loads(json.dumps(order))
        self.orders.append(sent)
        self.tamper(sent)
        return object_upload.carry_out(dataclasses.replace(object_upload.parse_order(sent), tries=2))

    def store(self, **changes: Any) -> dict[str, Any]:
        return object_transfer.store(self.order(**changes), self.ask)

    def fetch(self, dest: Path, **changes: Any) -> dict[str, Any]:
        order = self.order(folder=str(dest), manifest=None, extra="quarantine")
        return object_transfer.fetch(dataclasses.replace(order, **changes))


def same_tree(one: Path, other: Path) -> bool:
    def tree(root: Path) -> dict[str, bytes]:
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return {path: data for path, data in found.items() if path != "manifest.json"}

    return tree(one) == tree(other)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box for mirror_select: a folder with homes of its own for what it writes, and an order that a test changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import task
from input_server import InputServer

WHEEL = hashlib.sha256(b"wheel").digest() * 3000
NAME = "known-1.0-py3-none-any.whl"
STALL_S, WITHIN_S = 4.0, 120.0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def index_probe(data: bytes = WHEEL) -> dict[str, str]:
    return {"way": "index", "project": "known", "file": NAME, "sha256": sha256(data)}


def put_index(server: InputServer, below: str, data: bytes = WHEEL, **options: Any) -> str:
    """An index of packages with one project, whose file lies elsewhere, as they do; its address."""
    link = f'<a href="../../files/{NAME}#sha256={sha256(data)}">{NAME}</a>'
    server.put(f"{below}/simple/known/", f"<html>{link}</html>".encode())
    server.put(f"{below}/files/{NAME}", data, **options)
    return f"{server.url}{below}/simple"


def mirror(name: str, url: str, kind: str = "pip", **more: str) -> dict[str, str]:
    return {"class": kind, "name": name, "url": url, **more}


class MirrorBox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "data" / "gpu-tenant"
        self.pip_conf = folder / "home" / "pip" / "pip.conf"
        self.apt = folder / "apt"
        self.env_file = self.root / "mirrors.env"

    def params(self, direct: str, *candidates: dict[str, str], **changes: Any) -> dict[str, Any]:
        known = {
            "tenant_root": str(self.root),
            "state": "present",
            "classes": {"pip": {"direct": direct, "probe": index_probe()}} if direct else {},
            "candidates": list(candidates),
            "proxy_hook": "",
            "no_proxy": [],
            "valid_s": 86400.0,
            "remeasure": False,
            "margin": 1.5,
            "stall_s": STALL_S,
            "within_s": WITHIN_S,
            "pip_conf": str(self.pip_conf),
            "conda_file": str(self.folder / "home" / "conda.yml"),
            "apt_dir": str(self.apt),
            "docker_config": str(self.folder / "docker" / "daemon.json"),
        }
        return {**known, **changes}

    def select(self, direct: str, *candidates: dict[str, str], check: bool = False, **changes: Any) -> dict[str, Any]:
        return task.act(self.params(direct, *candidates, **changes), check)

    def variables(self) -> dict[str, str]:
        lines = [line.partition("=") for line in self.env_file.read_text().splitlines() if not line.startswith("#")]
        return {name: text for name, _equals, text in lines}


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["outcome"] for each in result["mirrors"]["samples"]}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run's folder on a loopback box, pulled and pushed as the action plugin ``checked_sync`` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_manifest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, delivery, roster, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, transfer_order
from loopback_sshd import LoopbackBox

SYNC = "tenant.gpu.checked_sync"
BIG = 6 * 1024 * 1024


class Run:
    """A run's folder on the box, and where its results go here."""

    def __init__(self, box: LoopbackBox, name: str, tmp_path: Path) -> None:
        self.box = box
        self.link = box.link()
        # A hostile box says that it has everything, whatever it has.
        self.lies = False
        self.folder = box.home / "runs" / name
        self.results = tmp_path / "results"
        self.dest = self.results / "demo" / "r 1" / "box1" / "g1"
        for path, data in {"c0/a1/out/model.bin": os.urandom(70_000), "c0/a1/done it's.json": b"{}"}.items():
            self.write(path, data)

    def write(self, path: str, data: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def manifest(self, **changes: Any) -> dict[str, Any]:
        return folder_manifest.of_folder(self.folder, **changes)

    def pull_arguments(self, **changes: Any) -> dict[str, Any]:
        return {
            "direction": "pull",
            "src": str(self.folder),
            "dest": str(self.dest),
            "dest_root": str(self.results),
            "manifest": self.manifest(),
            "first_wait_s": 0.05,
            "reserve_bytes": 0,
            **changes,
        }

    def pull_by_ansible(self, *flags: str, **changes: Any) -> dict[str, Any]:
        return self.box.ad_hoc(SYNC, self.pull_arguments(**changes), *flags)

    def pull(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        """What the action plugin does, less a second of Ansible: ssh, sshd, rsync and files are the real ones."""
        arguments = self.pull_arguments(**changes)
        manifest = roster.parse_manifest(arguments["manifest"])
        return self.carry(True, arguments, manifest.files, check_mode, manifest=manifest)

    def push(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        dest = str(self.box.home / "code" / self.folder.name)
        arguments = {"src": str(self.folder), "dest": dest, "dest_root": str(self.box.home), **changes}
        files = delivery.scan_tree(arguments["src"], ["__pycache__"])
        return self.carry(False, arguments, files, check_mode)

    def carry(self, pull: bool, arguments: dict[str, Any], files: Any, check_mode: bool, **more: Any) -> dict[str, Any]:
        order = transfer_order.Order(
            pull=pull,
            src=arguments["src"],
            dest=arguments["dest"],
            files=files,
            dest_root=arguments["dest_root"],
            extra=arguments.get("extra", "quarantine" if pull else "report"),
            transport=arguments.get("transport", "auto"),
            reserve_bytes=arguments.get("reserve_bytes", 0),
            proxy_limit_bytes=arguments.get("proxy_limit_bytes", BIG),
            deadline_s=120,
            wishes=transfer.RsyncWishes(60, arguments.get("limit_kib", 0)),
            patience=carrier.Patience(retries=arguments.get("retries", 5), first_wait_s=0.05),
            check_mode=check_mode,
            **more,
        )
        far = transfer_order.Far("box1", self.link, self._ask(check_mode), arguments.get("proxy", ""))
        try:
            return checked_transfer.run(order, far)
        except TenantFailure as failure:
            return dict(failure.as_result(), failed=True)

    def _ask(self, check_mode: bool) -> Callable[..., dict[str, Any]]:
        """The box is this machine, so it can be asked here; arguments and answer go through JSON."""

        def ask(op: str, wanted: Any, **options: Any) -> dict[str, Any]:
            parameters = {"within": "", "aside": [], **options, "op": op, "files": wanted}
            try:
                answer = delivery.answer(json.loads(json.dumps(parameters)), check_mode)
            except TenantFailure as failure:
                raise TenantFailure("config", f"the box refused: {failure.what}") from failure
            found: dict[str, Any] = json.loads(json.dumps(answer))
            return dict(found, mismatches=[]) if self.lies else found

        return ask

    def at_home(self) -> list[str]:
        return sorted(str(path.relative_to(self.dest)) for path in self.dest.rglob("*") if not path.is_dir())

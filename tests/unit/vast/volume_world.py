# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A market in this process that also lets volumes, and a store, for tests to rent, spoil and delete in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, losses, volume_gate
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.volumes import Wish
from wire_market import WireMarket

CAP = 1.0


def fail(error: Exception) -> NoReturn:
    raise error


class World:
    """A market that also lets volumes, and a store."""

    def __init__(self, folder: Path) -> None:
        self.market = WireMarket()
        self.store = StateStore(str(folder))
        self.volumes: list[dict[str, Any]] = []
        self.offers: list[dict[str, Any]] = [self.offer(900, 0.2), self.offer(901, 0.1, machine_id=5)]
        self.spoil: Callable[[dict[str, Any]], tuple[int, Any] | Exception | None] = lambda _body: None
        self.lost = False
        self._serve = self.market._serve
        self.market._serve = self._served  # type: ignore[method-assign]  # the volumes stand before the market

    @staticmethod
    def offer(number: int, per_month: float | None, **changes: Any) -> dict[str, Any]:
        row = {"id": number, "storage_cost": per_month, "machine_id": 4, "disk_space": 500.0, "reliability": 0.99}
        return {**row, "geolocation": "Sweden, SE", **changes}

    def add(self, name: str | None, **changes: Any) -> dict[str, Any]:
        row = {
            "id": 700 + len(self.volumes), "label": name, "disk_space": 20.0, "machine_id": 4, "status": "created",
            "storage_total_cost": 0.004, "instances": [], "start_date": 1.0,
        }  # fmt: skip
        row.update(changes)
        self.volumes.append(row)
        return row

    def _served(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if not path.startswith("/api/v0/volumes"):
            return self._serve(method, path, query, body)
        if path.endswith("/search/"):
            return 200, {"offers": [row for row in self.offers if row["disk_space"] >= body["disk_space"]["gte"]]}
        if method == "GET":
            return 200, {"volumes": self.volumes}
        if method == "DELETE":
            kept = [row for row in self.volumes if row["id"] != int(query["id"])]
            if len(kept) == len(self.volumes):
                return 404, {"success": False, "error": "no_such_volume", "msg": "Volume not found."}
            self.volumes[:] = kept
            return 200, {"success": True}
        spoilt = self.spoil(body)
        if isinstance(spoilt, tuple):
            return spoilt
        row = self.add(body["name"], disk_space=float(body["size"]))
        if isinstance(spoilt, Exception):
            fail(spoilt)
        return 200, {"success": True, "volume_name": f"V.{row['id']}"}

    @property
    def account(self) -> Account:
        return Account(self.market.client(), self.store)

    def do(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        options = {"project": "vision", "name": "data-1", "size_gb": 20, "price_cap": CAP, **changes}
        account = self.account
        account.read_only = check_mode
        return volumes.converge(account, Wish(**options), check_mode)

    def refused(self, **changes: Any) -> TenantFailure:
        with pytest.raises(TenantFailure) as caught:
            self.do(**changes)
        return caught.value

    def approve(self, **changes: Any) -> None:
        """Consent to just what deleting would lose now."""
        volume = volumes.locate(self.account, "vision", "data-1").current
        assert volume is not None
        binds = losses.of(volume_gate.evidence_of(self.account.store, volume.identity)).as_binds()
        source = {"kind": "cli", "ref": "test"}
        given = {"verb": "delete", "binds": binds, "approver": "ada", "source": source, "reason": "done", **changes}
        approvals.give(self.store, volume.identity, **given)

    def created(self) -> list[Any]:
        return self.market.sent("PUT", r"/api/v0/volumes/$")

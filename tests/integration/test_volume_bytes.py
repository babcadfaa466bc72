# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The bytes of a volume outlive the box that wrote them, on both engines that have boxes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import Tenant

from gpu_tenant.marketplace.engines.process import refusal_of_namespaces
from gpu_tenant.marketplace.testing import MarketplaceFailed, running_marketplace

pytestmark = pytest.mark.integration

NO_PODMAN = os.geteuid() != 0 or shutil.which("podman") is None
ENGINES = [
    pytest.param(
        "process",
        marks=pytest.mark.skipif(refusal_of_namespaces() is not None, reason="this kernel refuses user namespaces"),
    ),
    pytest.param(
        "podman", marks=[pytest.mark.podman, pytest.mark.skipif(NO_PODMAN, reason="podman as root is missing")]
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_volume_outlives_its_box_and_the_next_one_sees_it(engine: str, tmp_path: Path) -> None:
    with running_marketplace(engine) as market:
        tenant = Tenant(market, tmp_path)
        tenant.register_key()
        offer = tenant.offers()[0]
        number = volume(tenant, offer["machine_id"])
        mounted = {f"-v V.{number}:/data/sets": "1"}
        first = tenant.rent(offer, env=mounted)
        tenant.run(first, "echo kept >/data/sets/file; echo lost >/data/beside; echo lost >/workspace/file")
        tenant.change(first, state="stopped")
        tenant.change(first, state="running")
        market.wait_until_running(first)
        assert tenant.run(first, "cat /data/sets/file") == "kept\n"
        with pytest.raises(MarketplaceFailed, match="in use by instance"):
            market.request("DELETE", f"/api/v0/volumes/?id={number}", {})
        market.request("DELETE", f"/api/v0/instances/{first}/", {})
        market.wait_for(first, lambda row: row is None)

        again = next(one for one in tenant.offers() if one["machine_id"] == offer["machine_id"])
        second = tenant.rent(again, env=mounted)
        assert tenant.run(second, "cat /data/sets/file; ls /data /workspace").split() == [
            "kept", "/data:", "sets", "/workspace:"
        ]  # fmt: skip
        market.request("DELETE", f"/api/v0/instances/{second}/", {})
        market.wait_for(second, lambda row: row is None)
        bytes_of = market.state_dir / "volumes" / str(number)
        assert (bytes_of / "file").is_file()
        market.request("DELETE", f"/api/v0/volumes/?id={number}", {})
        assert not bytes_of.exists()


def volume(tenant: Tenant, machine_id: int) -> int:
    wanted: dict[str, Any] = {"allocated_storage": 5, "machine_id": {"eq": machine_id}}
    (space,) = tenant.market.request("POST", "/api/v0/volumes/search/", wanted)["offers"]
    made = tenant.market.request("PUT", "/api/v0/volumes/", {"id": space["id"], "size": 5, "name": "sets"})
    return int(made["volume_name"].removeprefix("V."))

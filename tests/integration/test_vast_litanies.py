# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Litanies of the modules that make nothing new of their own: copies, superseded boxes, looks; check mode included."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from marketplace_tools import Tenant, wait_until
from test_vast_modules import Play

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration
CHECK: dict[str, Any] = {"check_mode": True}


@pytest.fixture
def market() -> Iterator[Handle]:
    with running_marketplace("none", options=("--boot-s", "0")) as handle:
        yield handle


def changes(results: list[dict[str, Any]]) -> list[bool]:
    failed = [result["msg"] for result in results if result.get("failed")]
    assert failed == []
    return [result["changed"] for result in results]


# -- copies with a cloud connection --------------------------------------------------------------------------------


class Cloud:
    """Two boxes of the process engine, rented by the module, and a bucket that is a folder."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.bucket = folder / "bucket"
        self.tenant = Tenant(market, folder)
        self.tenant.register_key()
        self.play = Play(folder, market)
        offers = [row["id"] for row in self.tenant.offers(num_gpus={"eq": 1})[:2]]
        rented = self.play.run(
            *(self.play.instance("started", name=name, offers=[offer], price_cap=20.0, onstart="true")
              for name, offer in zip(("vast-a", "vast-b"), offers, strict=True))
        )  # fmt: skip
        assert changes(rented) == [True, True]
        self.numbers = [int(one["instance"]["provider_id"]) for one in rented]

    def write(self, size: int) -> str:
        """A file of this size on the first box; its digest."""
        command = f"mkdir -p /workspace/data && head -c {size} /dev/urandom >/workspace/data/part && "
        return self.tenant.run(self.numbers[0], f"{command} sha256sum </workspace/data/part").split()[0]

    def up(self, **options: Any) -> dict[str, Any]:
        return self._copy({"source": "vast-a", "source_path": "/workspace/data/", "dest_path": "kept"}, options)

    def down(self, **options: Any) -> dict[str, Any]:
        return self._copy({"dest": "vast-b", "dest_path": "/workspace/back", "source_path": "kept/"}, options)

    def _copy(self, ends: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
        known = {"project": "digits", "state_dir": str(self.play.state), "connection": "backups", "wait_s": 600}
        return {"tenant.gpu.vast_copy": {**known, **ends}, **options}

    def kept(self) -> str:
        return hashlib.sha256((self.bucket / "kept" / "part").read_bytes()).hexdigest()

    def back(self) -> str:
        return self.tenant.run(self.numbers[1], "sha256sum </workspace/back/part").split()[0]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    (tmp_path / "bucket").mkdir()
    options = ("--connection", f"backups={tmp_path / 'bucket'}")
    with running_marketplace("process", speed=60.0, options=options) as market:
        yield Cloud(tmp_path, market)


def test_copies_to_a_cloud_and_back(cloud: Cloud) -> None:
    first = cloud.write(50_000)
    results = cloud.play.run(cloud.up(**CHECK), cloud.up(), cloud.up(), cloud.down(), arguments=("--diff",))
    assert changes(results) == [True, True, False, True]
    predicted, made, _again, down = results
    assert (predicted["outcome"], made["outcome"], down["outcome"]) == ("planned", "finished", "finished")
    assert predicted["diff"] == made["diff"]
    assert (made["source"]["name"], made["dest"]["provider_id"]) == ("vast-a", "")
    assert (cloud.kept(), cloud.back()) == (first, first)

    second = cloud.write(70_000)
    assert second != first
    results = cloud.play.run(cloud.up(), cloud.up(), cloud.down(**CHECK), cloud.down())
    assert changes(results) == [True, False, True, True]
    assert (cloud.kept(), cloud.back()) == (second, second)


# -- superseded boxes ----------------------------------------------------------------------------------------------


def test_superseded_boxes(tmp_path: Path, market: Handle) -> None:
    """The box of generation 1 was never worked on, and was replaced long ago: it is stopped, then ended."""
    play, tenant = Play(tmp_path, market), Tenant(market, tmp_path)
    offers = tenant.offers(num_gpus={"eq": 1})
    (made,) = play.run(play.instance("started", offers=[offers[0]["id"]], price_cap=20.0))
    old, stamp = int(made["instance"]["provider_id"]), str(new_stamp("digits", "vast-a", 2))
    current = tenant.rent(offers[1], label=stamp, env={"TENANT_STAMP": stamp})

    def settle(state: str, **options: Any) -> dict[str, Any]:
        known = {"project": "digits", "name": "vast-a", "state_dir": str(play.state), "state": state}
        return {"tenant.gpu.vast_superseded": known, **options}

    def phases() -> dict[int, str]:
        return {one["id"]: one["phase"] for one in market.state()["instances"]}

    (unadmitted,) = play.run(settle("absent"))
    assert not unadmitted["changed"]
    assert "has not been admitted yet" in unadmitted["boxes"][0]["kept_because"]
    facts = {"provider_id": str(current), "stamp": stamp, "admitted_at": "2026-01-01T00:00:00Z"}
    play.store.update_box("digits", "vast-a", 2, **facts)
    (would_park,) = play.run(settle("parked"), check=True, arguments=("--diff",))
    assert would_park["changed"]
    assert phases() == {old: "running", current: "running"}
    parked, again, would_end = play.run(settle("parked"), settle("parked"), settle("absent", **CHECK))
    assert changes([parked, again, would_end]) == [True, False, True]
    assert would_park["diff"] == parked["diff"] or would_park["boxes"] == parked["boxes"]
    assert would_end["boxes"][0]["state"] == "absent"
    assert phases() == {old: "stopped", current: "running"}
    ended, still = play.run(settle("absent"), settle("absent"))
    assert changes([ended, still]) == [True, False]
    assert still["boxes"] == []
    wait_until(lambda: old not in phases())
    assert phases() == {current: "running"}


# -- looks, and keys -----------------------------------------------------------------------------------------------


def test_looks_change_nothing_and_check_mode_sees_the_same(tmp_path: Path, market: Handle) -> None:
    play = Play(tmp_path, market)
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6rbsmnrkvZbpbXG0sSZ9SDYqz1Q5mXG2yYC0l3mYwq ada"
    tenant, stamp = Tenant(market, tmp_path), str(new_stamp("digits", "vast-a", 1))
    number = tenant.rent(tenant.offers(num_gpus={"eq": 1})[0], label=stamp)
    search = {"tenant.gpu.vast_offer_info": {"gpu_name": "RTX 4090", "limit": 3, "direct_ports": 0}}
    boxes = {"tenant.gpu.vast_instance_info": {"project": "digits"}}
    key = {"tenant.gpu.vast_ssh_key": {"public_key": public}}
    no_key = {"tenant.gpu.vast_ssh_key": {"public_key": public, "state": "absent"}}
    results = play.run(
        {**search, **CHECK}, search, {**boxes, **CHECK}, boxes,
        {**key, **CHECK}, key, {**no_key, **CHECK}, no_key, {**no_key, **CHECK},
    )  # fmt: skip
    assert changes(results) == [*[False] * 4, True, True, True, True, False]
    checked_search, searched, checked_boxes, found, *_keys = results
    assert [one["id"] for one in checked_search["offers"]] == [one["id"] for one in searched["offers"]]
    assert len(searched["offers"]) == 3
    for look in (checked_boxes, found):
        assert [one["provider_id"] for one in look["instances"]] == [str(number)]
    assert market.request("GET", "/api/v0/ssh/") == []

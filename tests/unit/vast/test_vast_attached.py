# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes rented with volumes: on the machine where they lie or not at all, found again, and kept by a destroy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.attached import Mount, attach, machine_of, mounts_in
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from faulty_market import ORDER, FaultyMarket
from volume_world import World

DATA = Mount("imagenet", "/data")


class Kept(FaultyMarket):
    def volume(self, name: str, machine_id: int) -> dict[str, Any]:
        wish = volumes.Wish(ORDER.project, name, size_gb=10, price_cap=1.0, machine_id=machine_id, verified=False)
        made: dict[str, Any] = volumes.converge(Account(self.client(), self.store), wish)["volume"]
        return made

    def machine_of_offer(self, place: int) -> int:
        return self.market.books.machine_of_offer(self.offers()[place]).machine_id


@pytest.fixture
def market(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_only_the_machine_of_the_volume_is_rented_and_the_box_has_it(market: Kept) -> None:
    machine = market.machine_of_offer(2)
    made = market.volume("imagenet", machine)
    rented = market.converge("started", offers=5, mounts=[DATA])
    assert rented["instance"]["machine_id"] == machine
    row = market.rows()[int(rented["instance"]["provider_id"])]
    assert row["volume_info"] == [{"id": made["id"], "mount_path": "/data"}]
    again = market.converge("started", offers=5, mounts=[Mount(str(made["id"]), "/data")])
    assert (again["changed"], again["differs"]) == (False, [])


def _outbid(world: World, rented: dict[str, Any]) -> str:
    """Another bid took the GPU of a box, and its host has a second one to let."""
    lost = str(rented["instance"]["provider_id"])
    row = next(row for row in world.market.instances.values() if str(row["id"]) == lost)
    row.update(
        actual_status="exited", intended_status="stopped", cur_state="stopped", next_state="stopped", min_bid=9.0
    )
    world.market.offer(2, machine_id=rented["instance"]["machine_id"])
    world.market.offer(3, machine_id=78)
    return lost


def _rent(world: World, check: bool = False, replaces: str = "", mounts: tuple[Mount, ...] = (DATA,)) -> dict[str, Any]:
    account = world.account
    account.read_only = check
    order = replace(ORDER, project="vision", replaces=replaces)
    return converge(account, Desire("started", order, [1, 3, 2], mounts=mounts), check)


def test_a_box_that_lost_its_gpu_is_replaced_on_the_machine_of_its_volume(tmp_path: Path) -> None:
    world = World(tmp_path / "state")
    made = world.add(str(volumes.new_stamp("vision", "imagenet", 1)), machine_id=4)
    world.market.offer(1, machine_id=4)
    lost = _outbid(world, _rent(world))
    told = _rent(world, check=True, replaces=lost)
    assert told["would"]["offer"]["id"] == 2
    done = _rent(world, replaces=lost)
    assert (done["generation"], done["instance"]["machine_id"]) == (2, 4)
    assert [old["provider_id"] for old in done["superseded"]] == [lost]
    flags = [set(body["env"]) for body in world.market.sent("PUT", r"/api/v0/asks/")]
    assert [f"-v V.{made['id']}:/data" in each for each in flags] == [True, True]
    assert (world.store.read_box("vision", ORDER.name, 1) or {})["parked_at"], (
        "it cannot come back beside its successor"
    )
    assert not world.market.sent("DELETE", "instances"), "its disk may hold what is not home"


def test_a_box_without_a_volume_is_never_replaced_on_its_own_machine(tmp_path: Path) -> None:
    world = World(tmp_path / "state")
    world.market.offer(1, machine_id=4)
    lost = _outbid(world, _rent(world, mounts=()))
    assert _rent(world, replaces=lost, mounts=())["instance"]["machine_id"] == 78


def test_offers_of_other_machines_are_refused_with_the_reason(market: Kept) -> None:
    market.volume("imagenet", market.machine_of_offer(4))
    with pytest.raises(TenantFailure, match="the volumes are on machine") as caught:
        market.converge("started", offers=2, mounts=[DATA])
    assert caught.value.kind == "no_offer"
    assert not market.rows()


def test_a_search_shows_the_machine_of_the_volume_only(market: Kept) -> None:
    machine = market.machine_of_offer(1)
    market.volume("imagenet", machine)
    attached = attach(market.client(), ORDER.project, [DATA])
    wanted = Constraints(min_disk_gb=20.0, only_machine=machine_of(attached), verified=False)
    found = search(market.client(), wanted, Work(), 10)
    assert [offer["machine_id"] for offer in found] == [machine]
    elsewhere = Constraints(min_disk_gb=20.0, only_machine=1, verified=False)
    with pytest.raises(TenantFailure, match=r"volumes \(they lie on machine 1\) excludes"):
        search(market.client(), elsewhere, Work(), 10)


def test_volumes_of_two_machines_and_of_none_are_errors(market: Kept) -> None:
    market.volume("one", market.machine_of_offer(0))
    market.volume("two", market.machine_of_offer(1))
    with pytest.raises(TenantFailure, match="different machines"):
        market.converge("started", mounts=[Mount("one", "/one"), Mount("two", "/two")])
    with pytest.raises(TenantFailure, match="there is no volume three") as caught:
        market.converge("started", mounts=[Mount("three", "/three")])
    assert "vast_volume" in caught.value.fix
    assert not market.rows()


def test_a_box_without_the_declared_volume_is_told(market: Kept) -> None:
    market.converge("started", offers=1)
    machine = next(iter(market.rows().values()))["machine_id"]
    made = market.volume("imagenet", machine)
    told = market.converge("started", mounts=[DATA])
    assert told["differs"] == [{"name": "volumes", "is": "none", "declared": f"V.{made['id']} at /data"}]
    assert not told["changed"]


@pytest.mark.parametrize(
    "given",
    [
        [{"volume": "a", "path": "data"}],
        [{"volume": "a", "path": "/"}],
        [{"volume": "a", "path": "/usr/share"}],
        [{"volume": "a", "path": "/data/../etc"}],
        [{"volume": "a", "path": "/da ta"}],
        [{"volume": "", "path": "/data"}],
        [{"volume": "a", "path": "/data"}, {"volume": "b", "path": "/data"}],
        [{"volume": "a", "path": "/data"}, {"volume": "a", "path": "/more"}],
    ],
)
def test_what_no_box_can_have(given: list[dict[str, str]]) -> None:
    with pytest.raises(TenantFailure) as caught:
        mounts_in(given)
    assert caught.value.kind == "config"


def test_an_id_may_be_written_as_a_reference() -> None:
    assert mounts_in([{"volume": "V.31000007", "path": "/data"}]) == (Mount("31000007", "/data"),)

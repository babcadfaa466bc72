# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reboot and recycle: the first keeps the disk, the second wipes it and passes the gate or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from faulty_market import FaultyMarket
from test_vast_instance_logic import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


def identity_of(made: dict[str, Any]) -> BoxIdentity:
    return BoxIdentity("digits", "vast-a", made["generation"], made["instance"]["provider_id"])


def approve(world: World, made: dict[str, Any], verb: str) -> str:
    who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "begin anew"}
    given = approvals.give(world.store, identity_of(made), verb, {"kind": "complete_receipt"}, **who)
    return str(given["id"])


def restarts(world: World) -> list[Any]:
    return world.market.sent("PUT", r"instances/(reboot|recycle)/")


def test_a_used_box_is_rebooted_without_evidence_since_its_disk_is_kept(world: World) -> None:
    made = world.rented()
    world.deployed()
    predicted = world.converge("rebooted", check=True)
    assert (predicted["changed"], restarts(world)) == (True, [])
    done = world.converge("rebooted")
    assert (done["changed"], done["instance"]["state"]) == (True, "running")
    assert done["instance"]["provider_id"] == made["instance"]["provider_id"]
    assert world.converge("rebooted")["changed"], "each call reboots"
    assert len(restarts(world)) == 2
    assert world.verbs().count(("effect", "reboot")) == 2


def test_a_used_box_is_not_recycled_before_its_results_are_home(world: World) -> None:
    world.rented()
    world.deployed()
    for check in (True, False):
        with pytest.raises(TenantFailure) as caught:
            world.converge("recycled", check=check)
        assert caught.value.kind == "gate_refused"
        assert "recycle" in caught.value.what
    assert restarts(world) == []


def test_an_approval_to_destroy_does_not_open_a_recycle(world: World) -> None:
    made = world.rented()
    world.sealed(made["instance"])
    with pytest.raises(TenantFailure, match="approved recycle"):
        world.converge("recycled")
    assert restarts(world) == []
    approval = approve(world, made, "recycle")
    done = world.converge("recycled")
    assert done["gate"][0]["approval_id"] == approval
    assert len(restarts(world)) == 1


def test_a_consent_to_recycle_is_used_up_by_it(world: World) -> None:
    made = world.rented()
    world.sealed(made["instance"])
    approve(world, made, "recycle")
    world.converge("recycled")
    with pytest.raises(TenantFailure) as caught:
        world.converge("recycled")
    assert caught.value.kind == "gate_refused"
    assert len(restarts(world)) == 1


def test_a_virgin_box_may_be_recycled(world: World) -> None:
    world.rented()
    assert world.converge("recycled")["gate"][0]["rule"] == "virgin"


@pytest.mark.parametrize("state", ["rebooted", "recycled"])
def test_a_box_that_rests_or_is_not_there_is_refused(world: World, state: str) -> None:
    with pytest.raises(TenantFailure, match="there is none"):
        world.converge(state)
    world.rented()
    world.converge("stopped")
    with pytest.raises(TenantFailure, match="it is stopped") as caught:
        world.converge(state)
    assert "state: started" in caught.value.fix
    assert restarts(world) == []


def test_a_lost_answer_is_not_asked_again(world: World) -> None:
    world.rented()
    world.market.fault("PUT", "reboot", raises=lambda: ConnectionResetError("reset"), effect_first=True)
    with pytest.raises(TenantFailure, match="no answer") as caught:
        world.converge("rebooted")
    assert "may have had its effect" in caught.value.safe
    assert len(restarts(world)) == 1


def test_on_the_market_both_end_in_a_box_that_runs(tmp_path: Path) -> None:
    market = FaultyMarket(tmp_path)
    made = market.converge("started")["instance"]
    number = int(made["provider_id"])
    for state in ("rebooted", "recycled"):
        boots = market.market.books.instance(number).boot
        done = market.converge(state)
        assert (done["instance"]["state"], done["instance"]["provider_id"]) == ("running", made["provider_id"])
        assert market.market.books.instance(number).boot == boots + 1

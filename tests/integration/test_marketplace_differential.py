# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One script of operations, through our modules on one market and through the released client on its twin.

Both markets come from one seed, so that they must be in the same state after every act.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import Tenant
from test_marketplace_cli import VASTAI, OfficialClient
from test_vast_modules import Play

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]
IMAGE, DISK_GB, ONSTART = "python:3.12", 20, "echo said by onstart"
# What time and chance put into a state, not the operations.
CHANCE = ("ports",)
ROW = ("id", "label", "image_uuid", "image_runtype", "disk_space", "dph_base", "dph_total", "is_bid", "min_bid",
       "extra_env", "onstart", "actual_status", "intended_status", "cur_state", "next_state", "status_msg")  # fmt: skip


def settled(market: Handle) -> dict[str, Any]:
    """The market's control state and what a client sees of it, once nothing is on its way any more."""
    for one in market.state()["instances"]:
        if one["phase"] in ("provisioning", "loading", "rebooting"):
            market.wait_until_running(one["id"])
        elif one["phase"] == "unloaded":
            market.wait_for(one["id"], lambda row: row is None)
    state = market.state()
    rows = market.request("GET", "/api/v1/instances/")["instances"]
    return {
        "instances": [{name: one[name] for name in one if name not in CHANCE} for one in state["instances"]],
        "rows": [{name: row[name] for name in ROW} for row in rows],
        "raised_prices": state["raised_prices"],
        "keys": state["keys"],
        "held": state["held"],
        "volumes": [
            {name: row[name] for name in ("id", "machine_id", "disk_space", "label")}
            for row in market.request("GET", "/api/v0/volumes?owner=me&type=all_volume")["volumes"]
        ],
        "charged": sorted(
            (line["label"] or "", item["type"], item["rate"])
            for line in market.bill()["instances"]
            for item in line["items"]
            if item["metered"]
        ),
    }


@pytest.fixture
def twins() -> Iterator[tuple[Handle, Handle]]:
    options = ("--boot-s", "0")
    with (
        running_marketplace("none", seed=5, options=options) as ours,
        running_marketplace("none", seed=5, options=options) as theirs,
    ):
        yield ours, theirs


def box(play: Play, name: str, state: str, **options: Any) -> dict[str, Any]:
    return play.instance(state, name=name, onstart=ONSTART, **options)


def test_the_same_script_leaves_the_same_market(twins: tuple[Handle, Handle], tmp_path: Path) -> None:
    ours, theirs = twins
    play, vastai = Play(tmp_path, ours), OfficialClient(Tenant(theirs, tmp_path / "client"))
    vastai.tenant.directory.mkdir()
    key = vastai.tenant.make_key()
    first, second = (row["id"] for row in vastai.tenant.offers(num_gpus={"eq": 1})[:2])
    assert [row["id"] for row in Tenant(ours, tmp_path).offers(num_gpus={"eq": 1})[:2]] == [first, second]

    def same(what: str) -> dict[str, Any]:
        left, right = settled(ours), settled(theirs)
        assert left == right, what
        return left

    def rent(offer: int, made: dict[str, Any], *price: str) -> int:
        words = ["--image", IMAGE, "--disk", str(DISK_GB), "--ssh", "--direct", "--label", made["stamp"]]
        words += ["--env", f"-e TENANT_STAMP={made['stamp']}", "--onstart-cmd", ONSTART, *price]
        return int(vastai.raw("create", "instance", str(offer), *words)["new_contract"])

    empty = same("nothing was done yet")
    registered, bidding, demanded, stopped = play.run(
        {"tenant.gpu.vast_ssh_key": {"public_key": key}},
        box(play, "bidding", "started", offers=[first]),
        box(play, "demanded", "started", offers=[second], market="on-demand"),
        box(play, "bidding", "stopped"),
    )
    assert all(one["changed"] for one in (registered, bidding, demanded, stopped)), play.output[-2000:]
    vastai("create", "ssh-key", key, "-y")
    one = rent(first, bidding, "--bid_price", str(bidding["instance"]["bid"]))
    settled(theirs)
    other = rent(second, demanded)
    settled(theirs)
    vastai("stop", "instance", str(one))
    known = same("a key, a bid, a box on demand, a stop")
    assert [row["cur_state"] for row in known["rows"]] == ["stopped", "running"]
    assert known["keys"] == 1

    for market in twins:
        market.preempt(one)
    assert {row["id"]: row["actual_status"] for row in same("outbid")["rows"]}[one] == "exited"
    (raised,) = play.run(box(play, "bidding", "started", price_cap=20))
    assert raised["changed"], raised.get("msg")
    vastai("change", "bid", str(one), "--price", str(raised["instance"]["bid"]))
    vastai("start", "instance", str(one))
    assert [row["actual_status"] for row in same("a higher bid and a start")["rows"]] == ["running", "running"]

    absent, volume, removed = play.run(
        box(play, "demanded", "absent"),
        {
            "tenant.gpu.vast_volume": {
                "project": "digits", "name": "data", "state": "present", "state_dir": str(play.state),
                "size_gb": 15, "price_cap": 1.0,
            }
        },
        {"tenant.gpu.vast_ssh_key": {"public_key": key, "state": "absent"}},
    )  # fmt: skip
    assert all(done["changed"] for done in (absent, volume, removed)), json.dumps([absent, volume, removed])[:2000]
    vastai("destroy", "instance", str(other), "-y")
    made = ours.request("GET", "/api/v0/volumes?owner=me&type=all_volume")["volumes"][0]
    offers = vastai.raw("search", "volumes", f"machine_id={made['machine_id']} disk_space>=15")
    vastai("create", "volume", str(offers[0]["id"]), "-s", "15", "-n", str(made["label"]))
    vastai("delete", "ssh-key", str(vastai.raw("show", "ssh-keys")[0]["id"]))
    left = same("a destroy, a volume, no key any more")
    assert [row["id"] for row in left["rows"]] == [one]
    assert left["keys"] == 0
    assert len(left["volumes"]) == 1

    (gone,) = play.run(box(play, "bidding", "absent"))
    assert gone["changed"]
    vastai("destroy", "instance", str(one), "-y")
    assert same("all boxes are gone")["instances"] == empty["instances"] == []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes on a market that forgets and outbids: never twice, never lost, never above the cap, never past the gate."""

from __future__ import annotations

import contextlib
import datetime
import random
import string
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, gate, power_record, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp, parse_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.inventory import list_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order
from every_dialect import CONTRARY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_market import KEY, WireMarket

from gpu_tenant.marketplace.dialects import USUAL, Dialect

ROLES = Path(__file__).parents[3] / "roles"
WANTED = Constraints(min_disk_gb=20.0, price_cap=0.5)
ORDER = Order("digits", "vast-a", "python:3.12", 20.0, WANTED, {"A": "1"}, "echo hi", wait_s=300.0)


class World:
    def __init__(self, root: Path, dialect: Dialect = USUAL) -> None:
        self.market = WireMarket(dialect=dialect)
        self.store = StateStore(str(root))

    def converge(self, state: str, offers: Any = (), check: bool = False, **changes: Any) -> dict[str, Any]:
        keeps = changes.pop("keeps", {})
        provider_id = changes.pop("provider_id", "")
        wanted = replace(WANTED, **{name: changes.pop(name) for name in list(changes) if hasattr(WANTED, name)})
        work, rank_offers = changes.pop("work", Work()), changes.pop("rank_offers", False)
        order = replace(ORDER, wanted=wanted, **changes)
        account = Account(self.market.client(), self.store, keeps_of(keeps))
        return converge(account, Desire(state, order, offers, provider_id, work, rank_offers), check)

    def rented(self, **offer: Any) -> dict[str, Any]:
        self.market.offer(1, **offer)
        return self.converge("present", [1])

    def record(self, generation: int = 1) -> dict[str, Any]:
        found = self.store.read_box("digits", "vast-a", generation)
        assert found is not None
        return found

    def deployed(self, generation: int = 1) -> None:
        self.store.update_box("digits", "vast-a", generation, deploy_started_at="2026-11-21T04:00:00Z")

    def approve_loss(self, box: dict[str, Any]) -> str:
        identity = BoxIdentity("digits", "vast-a", box["generation"], box["provider_id"])
        given = approvals.give(
            self.store,
            identity,
            "destroy",
            {
                "kind": "loss",
                "loss": "the run",
                "cells": {},
                "unknown": ["which runs it holds: no look at it is recorded"],
            },
            "ada",
            {"kind": "cli", "ref": ""},
            "test",
        )
        return str(given["id"])

    def sealed(self, box: dict[str, Any]) -> None:
        """Its seal was read a moment ago, when nothing ran on it, and a standing approval was given."""
        identity = BoxIdentity("digits", "vast-a", box["generation"], box["provider_id"])
        self.deployed()
        promises = {
            name: dict(identity.as_dict(), schema=records.schema(name), epoch=1, runs=[]) for name in ("seal", "index")
        }
        answer = dict(promises, live_cells=[], unlisted_runs=[], checkpoints={}, durable=[], boot_id="b", problems=[])
        read_at = records.utc_text(records.parse_utc(records.utc_now()) - datetime.timedelta(seconds=5))
        seal_reading.save(self.store, identity, seal_reading.as_record(identity, read_at, answer))
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it may not bill till morning"}
        approvals.give(self.store, identity, "destroy", {"kind": "complete_receipt"}, **who)

    def is_kept(self, *words: str) -> None:
        """The gate keeps the box, and says these words."""
        with pytest.raises(TenantFailure) as caught:
            self.converge("absent")
        assert caught.value.kind == "gate_refused"
        for word in words:
            assert word in caught.value.what
        assert not self.market.sent("DELETE", "instances")

    def verbs(self) -> list[tuple[str, str]]:
        return [(line["kind"], line["verb"]) for line in Journal(self.store).lines()]


@pytest.fixture(params=[USUAL, CONTRARY], ids=["usual", "contrary"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    return World(tmp_path / "state", request.param)


def test_the_litany(world: World) -> None:
    market = world.market
    market.offer(1)
    predicted = world.converge("present", [1], check=True)
    assert predicted["changed"]
    assert predicted["would"]["offer"]["id"] == 1
    assert predicted["would"]["price_per_hour"] == pytest.approx(0.225)
    assert predicted["would"]["price_cap"] == 0.5
    assert predicted["would"]["clocks"]["stopped_per_hour"] == pytest.approx(0.005)
    assert not market.instances
    assert not Path(world.store.root).exists(), "check mode writes nothing, not even our own records"

    made = world.converge("present", [1])
    assert made["changed"]
    assert made["diff"]["before"]["state"] == "absent"
    assert made["diff"]["after"]["state"] == predicted["diff"]["after"]["state"] == "started"
    assert made["instance"]["state"] == "running"
    assert made["generation"] == 1
    assert made["superseded"] == []
    body = market.sent("PUT", "asks")[0]
    assert body["label"] == body["env"]["TENANT_STAMP"] == made["stamp"]
    assert body["price"] == pytest.approx(0.22)
    assert world.record()["provider_id"] == made["instance"]["provider_id"]
    assert world.record()["deploy_started_at"] is None

    again = world.converge("present", [1])
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})

    assert world.converge("stopped", check=True)["changed"]
    stopped = world.converge("stopped")
    assert stopped["changed"]
    assert stopped["instance"]["state"] == "stopped"
    assert stopped["gate"][0]["rule"] == "keeps_disk"
    assert not world.converge("stopped")["changed"]
    assert not world.converge("present")["changed"], "present leaves a stopped box stopped"

    assert world.converge("started", check=True)["diff"]["after"] == {"state": "started"}
    started = world.converge("started")
    assert started["changed"]
    assert started["instance"]["state"] == "running"
    assert not world.converge("started")["changed"]

    gone = world.converge("absent", check=True)
    assert gone["changed"]
    assert len(market.instances) == 1
    gone = world.converge("absent")
    assert gone["changed"]
    assert gone["instance"] is None
    assert gone["gate"][0]["rule"] == "virgin"
    assert not market.instances
    assert world.record()["destroyed_at"]
    assert not world.converge("absent")["changed"]
    market.offer(2)
    assert world.converge("present", [2])["generation"] == 2
    assert ("intent", "rent") in world.verbs()
    assert ("effect", "destroy") in world.verbs()


# -- never rent twice ----------------------------------------------------------------------------------------------

SILENCES: list[dict[str, Any]] = [
    {"raises": lambda: TimeoutError("t"), "effect_first": True},
    {"raises": lambda: ConnectionResetError(104, "r"), "effect_first": True},
    {"answer": (502, b"bad gateway", {}), "effect_first": True},
    {"answer": (500, {"success": False, "error": "oops"}, {}), "effect_first": True},
    {"answer": (200, b'{"succ', {}), "effect_first": True},
    {"answer": (200, {"success": True}, {}), "effect_first": True},
]


@pytest.mark.parametrize("silence", SILENCES)
def test_a_lost_create_is_found_by_its_stamp(world: World, silence: dict[str, Any]) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.fault("PUT", "asks", **silence)
    made = world.converge("present", [1, 2])
    assert len(world.market.sent("PUT", "asks")) == 1
    assert len(world.market.instances) == 1
    assert made["stamp"] in world.market.stamps()
    assert world.record()["provider_id"] == made["instance"]["provider_id"]


@pytest.mark.parametrize("silence", SILENCES)
def test_a_lost_create_is_found_when_it_was_the_only_offer(world: World, silence: dict[str, Any]) -> None:
    world.market.offer(1)
    world.market.fault("PUT", "asks", **silence)
    assert world.converge("present", [1])["generation"] == 1


def test_a_lost_create_that_the_list_shows_late_is_not_repeated(world: World) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.fault("PUT", "asks", raises=lambda: TimeoutError("t"), effect_first=True)
    hidden = {"instances": [], "total_instances": 0}
    world.market.fault("GET", "v1/instances", skip=3, times=5, rewrite=lambda page: {**page, **hidden})
    made = world.converge("present", [1, 2])
    assert len(world.market.sent("PUT", "asks")) == 1
    assert list(world.market.instances) == [int(made["instance"]["provider_id"])]


def test_a_create_that_never_arrived_is_settled_before_the_next_offer(world: World) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.fault("PUT", "asks", raises=lambda: TimeoutError("t"))
    before = world.market.clock.now
    made = world.converge("present", [1, 2])
    assert made["generation"] == 2, "the first generation might still surface, so it is not used again"
    assert world.market.clock.now - before >= 15
    assert len(world.market.instances) == 1


def test_a_create_that_surfaces_late_is_superseded_and_virgin(world: World) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.fault("PUT", "asks", raises=lambda: TimeoutError("t"))
    world.converge("present", [1, 2])
    late = world.market.add(world.record(1)["stamp"])
    seen = world.converge("present")
    assert not seen["changed"]
    assert [box["provider_id"] for box in seen["superseded"]] == [str(late["id"])]
    gone = world.converge("absent", provider_id=str(late["id"]))
    assert gone["gate"][0]["rule"] == "virgin"
    assert gone["instance"]["generation"] == 2
    assert late["id"] not in world.market.instances


def test_an_uncertain_create_ends_the_call(world: World) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.fault("PUT", "asks", raises=lambda: TimeoutError("t"), effect_first=True)
    # Two lists before it (nothing there, twice), two under the lock; then the API is down.
    world.market.fault("GET", "v1/instances", skip=4, times=10_000, answer=(503, b"down", {}))
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1, 2])
    assert "may exist" in caught.value.safe
    assert len(world.market.sent("PUT", "asks")) == 1
    world.market.faults.clear()
    world.market.clock.now += 60
    found = world.converge("present", [2])
    assert not found["changed"], "the next run finds it by its stamp"
    assert world.record()["provider_id"] == found["instance"]["provider_id"]
    assert world.converge("absent")["gate"][0]["rule"] == "virgin"


def test_an_empty_list_does_not_rent_a_second_box_while_the_item_is_there(world: World) -> None:
    world.rented()
    world.market.offer(2)
    world.market.fault(
        "GET", "v1/instances", times=2, rewrite=lambda page: {**page, "instances": [], "total_instances": 0}
    )
    with pytest.raises(TenantFailure, match="lacks"):
        world.converge("present", [2])
    assert len(world.market.instances) == 1
    world.market.fault("GET", "v1/instances", rewrite=lambda page: {**page, "instances": [], "total_instances": 0})
    assert not world.converge("present", [2])["changed"], "one empty reading is asked again"


def test_an_empty_disk_on_our_side_finds_the_box_and_does_not_take_it_for_virgin(world: World, tmp_path: Path) -> None:
    made = world.rented()
    other = World(tmp_path / "elsewhere")
    other.market = world.market
    assert not other.converge("present")["changed"]
    assert other.record()["provider_id"] == made["instance"]["provider_id"]
    with pytest.raises(TenantFailure) as caught:
        other.converge("absent")
    assert caught.value.kind == "gate_refused"
    assert other.store.last_generation("digits", "vast-a") == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(range(len(SILENCES))), st.booleans()), max_size=4))
def test_whatever_is_lost_there_is_one_box_in_the_end(tmp_path_factory: Any, faults: list[Any]) -> None:
    world = World(tmp_path_factory.mktemp("state"))
    for skip, which, effect in faults:
        world.market.fault("PUT", "asks", skip=skip, **{**SILENCES[which], "effect_first": effect})
    for number in range(1, 10):
        world.market.offer(number)
    for _attempt in range(6):
        with contextlib.suppress(TenantFailure):
            made = world.converge("started", sorted(world.market.offers))
            break
    assert list(world.market.instances) == [int(made["instance"]["provider_id"])]
    stamps = [parse_stamp(body["label"]) for body in world.market.sent("PUT", "asks")]
    assert len({str(stamp) for stamp in stamps}) == len(stamps), "no create is ever sent again"


def test_creates_of_one_account_happen_one_at_a_time(world: World) -> None:
    holder = Account(world.market.client(), world.store)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with holder.lock():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    try:
        with pytest.raises(TenantFailure) as caught:
            world.rented()
    finally:
        leave.set()
        thread.join()
    assert caught.value.kind == "lease_held"
    assert not world.market.sent("PUT", "asks")
    assert world.converge("present", [1])["changed"]


def test_the_other_process_won_while_we_waited_for_the_lock(world: World) -> None:
    world.market.offer(1)
    stamp = new_stamp("digits", "vast-a", 1)
    # The lists before the lock are empty; the one under it is not.
    world.market.fault("POST", "bundles", rewrite=lambda found: (world.market.add(str(stamp)), found)[1])
    made = world.converge("present", [1])
    assert not world.market.sent("PUT", "asks")
    assert made["stamp"] == str(stamp)


# -- money ---------------------------------------------------------------------------------------------------------


def test_a_gone_offer_leads_to_the_next(world: World) -> None:
    world.market.offer(2)
    stale = {"id": 1}
    world.market.fault("POST", "bundles", rewrite=lambda found: {"offers": [*found["offers"], world.market.offer(1)]})
    world.market.fault(
        "PUT", "asks/1/", answer=(404, {"error": "invalid_args", "msg": "error 404/3603: no_such_ask"}, {})
    )
    made = world.converge("present", [stale, 2])
    assert made["generation"] == 1, "a generation that certainly never was is used again"
    assert made["diff"]["after"]["offer_id"] == 2


def test_offers_are_tried_as_given_or_by_what_a_useful_hour_costs(world: World) -> None:
    world.market.offer(1, inet_down_cost=0.05)
    world.market.offer(2, min_bid=0.23)
    work = Work(hours=4, download_gb=50)
    given = world.converge("present", [1, 2], check=True, work=work)["would"]["offer"]
    best = world.converge("present", [1, 2], check=True, work=work, rank_offers=True)["would"]["offer"]
    assert (given["id"], best["id"]) == (1, 2)
    assert given["cost_per_useful_hour"] > best["cost_per_useful_hour"]
    assert "$2.503 once for 50 GB down and 1 GB up" in given["why"]
    made = world.converge("present", [1, 2], work=work, rank_offers=True)["offer"]
    assert (made["id"], made["why"], made["cost_parts"]) == (2, best["why"], best["cost_parts"])
    assert "offer" not in world.converge("present", [1, 2], work=work), "nothing was rented this time"


def test_a_machine_that_failed_here_is_tried_last(world: World) -> None:
    pair = [(1, {"machine_id": 11, "min_bid": 0.220}), (2, {"machine_id": 12, "min_bid": 0.2201})]
    for offer_id, fields in pair:
        world.market.offer(offer_id, **fields)
    world.market.on_boot = lambda row: row.update(dph_total=9.0) if row["machine_id"] == 11 else None
    assert world.converge("present", [1, 2], rank_offers=True)["offer"]["id"] == 2
    for offer_id, fields in pair:
        world.market.offer(offer_id, **fields)
    again = world.converge("present", [1, 2], check=True, rank_offers=True, name="vast-b")["would"]["offer"]
    assert again["id"] == 2
    plain = world.converge("present", [1, 2], check=True, name="vast-b")["would"]["offer"]
    assert plain["why"].endswith("of 1 boots here 1 boots failed")


def test_nothing_above_the_cap_is_rented(world: World) -> None:
    world.market.offer(1, min_bid=0.6)
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1])
    assert caught.value.kind == "no_offer"
    assert "0.6050" in caught.value.what
    assert caught.value.box == "vast-a"
    assert not world.market.sent("PUT", "asks")


def test_the_bid_ends_at_the_cap(world: World) -> None:
    world.market.offer(1, min_bid=0.2)
    world.converge("present", [1], bid=5.0)
    assert world.market.sent("PUT", "asks")[0]["price"] == pytest.approx(0.495)


def test_on_demand_sends_no_price(world: World) -> None:
    world.market.offer(1, dph_base=0.4)
    world.converge("present", [1], market="on-demand")
    body = world.market.sent("PUT", "asks")[0]
    assert body["price"] is None
    assert body["cancel_unavail"] is True


def test_the_leftover_of_a_bid_too_low_is_destroyed(world: World) -> None:
    offer = world.market.offer(1)
    world.market.offer(2, min_bid=0.25)
    # The price rises between the search and the create.
    world.market.fault("POST", "bundles", rewrite=lambda found: _copied(found, lambda: offer.update(min_bid=0.4)))
    made = world.converge("present", [1, 2])
    assert made["diff"]["after"]["offer_id"] == 2
    assert len(world.market.instances) == 1
    assert made["rejected"][0]["reason"].endswith("bid too low")
    assert world.record(1)["destroyed_at"]
    assert world.record(1)["rejected"]


def test_law_5_a_leftover_that_one_look_misses_is_destroyed_all_the_same(world: World) -> None:
    offer = world.market.offer(1)
    world.market.offer(2, min_bid=0.25)
    world.market.fault("POST", "bundles", rewrite=lambda found: _copied(found, lambda: offer.update(min_bid=0.4)))
    missing = (404, {"success": False, "error": "not_found", "msg": "no such instance"}, {})
    world.market.fault("GET", r"v0/instances/[0-9]+/$", answer=missing)
    made = world.converge("present", [1, 2])
    assert [str(number) for number in world.market.instances] == [made["instance"]["provider_id"]]
    assert len(made["rejected"]) == 1


def _copied(found: dict[str, Any], then: Any) -> dict[str, Any]:
    rows = {"offers": [dict(row) for row in found["offers"]]}
    then()
    return rows


def test_a_price_that_changes_with_boot_is_not_paid(world: World) -> None:
    world.market.offer(1)
    world.market.price_drift = 0.4
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1])
    assert "above the price_cap" in caught.value.what
    assert not world.market.instances
    assert world.record()["rejected"]["reason"].startswith("it costs $0.6250")


def test_the_rate_limiter_does_not_cost_an_offer(world: World) -> None:
    world.market.offer(1)
    world.market.fault("PUT", "asks", times=2, answer=(429, b"API requests too frequent", {"Retry-After": "4"}))
    assert world.converge("present", [1])["generation"] == 1
    assert world.market.clock.slept.count(4.0) == 2


def test_a_refused_key_rents_nothing_and_leaves_no_record(world: World) -> None:
    world.market.offer(1)
    world.market.fault(
        "PUT", "asks", answer=(404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, {})
    )
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1])
    assert caught.value.kind == "config"
    assert world.store.last_generation("digits", "vast-a") == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"image": ""},
        {"onstart": f"echo {KEY}"},
        {"env": {"K": KEY}},
        {"env": {"TENANT_STAMP": "x"}},
        {"onstart": "".join(random.Random(0).choices(string.printable, k=9000))},
    ],
)
def test_bad_orders_are_refused_before_the_market_is_asked_for_offers(world: World, changes: dict[str, Any]) -> None:
    world.market.offer(1)
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1], check=True, **changes)
    assert caught.value.kind == "config"
    assert KEY not in str(caught.value)
    assert not world.market.sent("POST", "bundles")


# -- stuck ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"actual_status": "loading", "boots_at": None}, "still loading"),
        ({"actual_status": "exited", "boots_at": None}, "exited"),
        ({"actual_status": "offline", "boots_at": None}, "offline"),
        ({"actual_status": "unknown", "boots_at": None}, "heartbeat"),
        ({"actual_status": "exited", "cur_state": "stopped", "boots_at": None}, "scheduling"),
        ({"intended_status": "stopped", "cur_state": "stopped", "min_bid": 9.0}, "outbid"),
        ({"actual_status": "created", "status_msg": "OCI runtime create failed: x", "boots_at": None}, "OCI runtime"),
        ({"public_ipaddr": "-oProxyCommand=id"}, "cannot be one"),
    ],
)
def test_a_new_box_that_sticks_is_given_back_with_its_reason(world: World, fields: dict[str, Any], word: str) -> None:
    world.market.offer(1)
    world.market.offer(2)
    world.market.on_boot = lambda row: row.update(fields) if row["machine_id"] == 1 else None
    made = world.converge("present", [1, 2])
    assert word in made["rejected"][0]["reason"]
    assert made["rejected"][0]["machine_id"] == 1
    assert made["generation"] == 2
    assert len(world.market.instances) == 1


def test_three_stuck_boxes_end_the_search_and_nothing_is_left(world: World) -> None:
    for number in range(1, 7):
        world.market.offer(number)
    world.market.on_boot = lambda row: row.update(actual_status="exited")
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1, 2, 3, 4, 5, 6])
    assert len(world.market.sent("PUT", "asks")) == 3
    assert "exclude_machines: [1, 2, 3]" in caught.value.fix
    assert not world.market.instances


def test_a_stuck_box_that_was_there_before_is_kept(world: World) -> None:
    world.rented()
    world.deployed()
    world.converge("stopped")
    world.market.fault("PUT", r"instances/[0-9]+/$", effect_first=True, answer=(200, {"success": True}, {}))
    world.market.on_boot = lambda row: row.update(actual_status="exited")
    with pytest.raises(TenantFailure, match="exited") as caught:
        world.converge("started")
    assert "kept" in caught.value.safe
    assert len(world.market.instances) == 1


def test_an_api_that_dies_during_boot_keeps_the_box(world: World) -> None:
    world.market.offer(1)
    world.market.fault("GET", r"v0/instances/[0-9]", skip=2, times=10_000, answer=(503, b"down", {}))
    with pytest.raises(TenantFailure) as caught:
        world.converge("present", [1])
    assert "rented, recorded and kept" in caught.value.safe
    assert len(world.market.instances) == 1


# -- outbid --------------------------------------------------------------------------------------------------------


def _outbid(world: World, min_bid: float) -> dict[str, Any]:
    row = next(iter(world.market.instances.values()))
    row.update(actual_status="exited", intended_status="stopped", cur_state="stopped", min_bid=min_bid)
    return row


def test_an_outbid_box_is_started_with_a_higher_bid_within_the_cap(world: World) -> None:
    world.rented()
    _outbid(world, 0.3)
    predicted = world.converge("started", check=True)
    started = world.converge("started")
    assert started["changed"]
    assert world.market.sent("PUT", "bid_price") == [{"client_id": "me", "price": pytest.approx(0.33)}]
    assert started["instance"]["bid"] == pytest.approx(0.33)
    assert predicted["diff"]["after"] == started["diff"]["after"]


def test_the_bid_is_raised_to_the_cap_and_not_beyond(world: World) -> None:
    world.rented()
    _outbid(world, 0.47)
    assert world.converge("started")["instance"]["price_per_hour"] == pytest.approx(0.5)


def test_above_the_cap_an_outbid_box_stays_where_it_is(world: World) -> None:
    world.rented()
    _outbid(world, 0.6)
    with pytest.raises(TenantFailure) as caught:
        world.converge("started")
    assert caught.value.kind == "no_offer"
    assert "raise price_cap to at least 0.6050" in caught.value.fix
    assert not world.market.sent("PUT", "bid_price")
    assert len(world.market.instances) == 1


def _lost(world: World) -> dict[str, Any]:
    """A box that worked, was outbid, and whose bid cannot win any more; another machine is to let."""
    box: dict[str, Any] = world.rented(machine_id=77)["instance"]
    world.deployed()
    _outbid(world, 9.0)
    world.market.offer(2, machine_id=78)
    world.market.offer(3, machine_id=77)
    return box


def test_a_lost_box_is_replaced_on_another_machine_and_kept(world: World) -> None:
    box = _lost(world)
    done = world.converge("started", [3, 2], replaces=box["provider_id"])
    assert done["changed"]
    assert (done["generation"], done["instance"]["machine_id"]) == (2, 78)
    assert [old["provider_id"] for old in done["superseded"]] == [box["provider_id"]]
    assert not world.market.sent("DELETE", "instances"), "its disk may hold what is not home"
    assert world.record(1)["parked_at"], "it cannot come back beside its successor"
    stop = world.verbs().index(("effect", "stop"))
    assert stop < len(world.verbs()) - 1 - world.verbs()[::-1].index(("intent", "rent")), "told before, not after"

    again = world.converge("started", [2, 3], replaces=box["provider_id"])
    assert (again["changed"], again["generation"]) == (False, 2), "the same call, repeated, rents nothing"


def test_without_an_offer_a_lost_box_is_left_as_it_is(world: World) -> None:
    box = _lost(world)
    with pytest.raises(TenantFailure) as caught:
        world.converge("started", [3], replaces=box["provider_id"])
    assert caught.value.kind == "no_offer"
    assert ("effect", "stop") not in world.verbs(), "it may still win its GPU back"


def test_check_mode_says_what_would_replace_a_lost_box(world: World) -> None:
    box = _lost(world)
    told = world.converge("started", [2], replaces=box["provider_id"], check=True)
    assert (told["changed"], told["would"]["offer"]["machine_id"]) == (True, 78)
    assert len(world.market.instances) == 1


def test_an_outbid_box_is_told_to_stay_stopped_once(world: World) -> None:
    world.rented()
    _outbid(world, 0.6)
    assert world.converge("stopped", check=True)["changed"]
    assert world.converge("stopped")["changed"]
    assert not world.converge("stopped")["changed"]
    assert len(world.market.sent("PUT", r"instances/[0-9]+/$")) == 1


# -- the gate ------------------------------------------------------------------------------------------------------


def test_a_used_box_is_not_destroyed_without_evidence(world: World) -> None:
    box = world.rented()["instance"]
    world.deployed()
    for check in (True, False):
        with pytest.raises(TenantFailure) as caught:
            world.converge("absent", check=check)
        assert caught.value.kind == "gate_refused"
        assert box["provider_id"] in caught.value.what
        assert "gpu-tenant approve teardown vast-a" in caught.value.fix
    assert len(world.market.instances) == 1
    assert not world.market.sent("DELETE", "instances")


@pytest.mark.parametrize(
    "keeps",
    [
        {"destroy": ["disk"]},
        {"full_stop": [{"verb": "destroy", "keeps": ["disk", "volume"]}]},
        {"destroy": ["disk"], "stop": []},
    ],
)
def test_no_variable_opens_the_gate(world: World, keeps: dict[str, Any]) -> None:
    world.rented()
    world.deployed()
    with pytest.raises(TenantFailure) as caught:
        world.converge("absent", keeps=keeps)
    assert caught.value.kind == "gate_refused"
    assert len(world.market.instances) == 1


def test_a_profile_can_make_a_stop_irreversible(world: World) -> None:
    world.rented()
    world.deployed()
    with pytest.raises(TenantFailure) as caught:
        world.converge("stopped", keeps={"park": [{"verb": "stop", "keeps": []}]})
    assert caught.value.kind == "gate_refused"
    assert not world.market.sent("PUT", r"instances/[0-9]+/$")


def test_an_approval_opens_it_once_and_is_named(world: World) -> None:
    box = world.rented()["instance"]
    world.deployed()
    approval = world.approve_loss(dict(box, generation=1))
    gone = world.converge("absent")
    assert gone["gate"] == [
        {"provider_id": box["provider_id"], "generation": 1, "rule": "loss", "approval_id": approval, "approver": "ada"}
    ]
    assert gone["diff"]["after"]["destroyed"] == [box["provider_id"]]
    assert not approvals.find(world.store, BoxIdentity("digits", "vast-a", 1, box["provider_id"]), "destroy")


def test_a_delete_that_fails_does_not_cost_the_approval(world: World) -> None:
    box = world.rented()["instance"]
    world.deployed()
    world.approve_loss(dict(box, generation=1))
    world.market.fault("DELETE", "instances", times=10_000, answer=(503, b"down", {}))
    with pytest.raises(TenantFailure):
        world.converge("absent")
    world.market.faults.clear()
    assert world.converge("absent")["changed"]


def test_a_box_that_starts_while_the_evidence_is_read_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    box = world.rented()["instance"]
    world.deployed()
    world.converge("stopped")
    world.approve_loss(dict(box, generation=1))
    row = next(iter(world.market.instances.values()))
    gather = gate.gather

    def slow(*args: Any, **keywords: Any) -> Any:
        row.update(actual_status="running", intended_status="running", cur_state="running")
        return gather(*args, **keywords)

    monkeypatch.setattr(gate, "gather", slow)
    with pytest.raises(TenantFailure, match="turned from stopped to running"):
        world.converge("absent")
    assert row["id"] in world.market.instances
    assert not world.market.sent("DELETE", "instances")


def _slow_gather(world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, meanwhile: Any = None) -> None:
    """Reading every copy takes this long on every clock: the controller's and the market's."""
    gather, utc_now = gate.gather, records.utc_now

    def slow(*args: Any, **keywords: Any) -> Any:
        found = gather(*args, **keywords)
        world.market.clock.sleep(seconds)
        late = records.utc_text(records.parse_utc(utc_now()) + datetime.timedelta(seconds=seconds))
        monkeypatch.setattr(records, "utc_now", lambda: late)
        if meanwhile:
            meanwhile()
        return found

    monkeypatch.setattr(gate, "gather", slow)


def test_law_2_a_seal_that_grew_old_while_the_copies_were_read_does_not_hold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sealed(world.rented()["instance"])
    _slow_gather(world, monkeypatch, 3600)
    world.is_kept("seal was read 36", "park it first")


def test_law_2_a_parked_box_may_take_hours_to_judge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sealed(world.rented()["instance"])
    world.converge("stopped")
    _slow_gather(world, monkeypatch, 3600)
    assert world.converge("absent")["changed"]


def test_law_2_an_approval_that_expired_while_the_copies_were_read_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sealed(world.rented()["instance"])
    world.converge("stopped")
    _slow_gather(world, monkeypatch, 400 * 24 * 3600)
    world.is_kept("expired")


def test_law_2_a_box_that_was_restarted_while_the_copies_were_read_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as it ran before; only its time up tells."""
    box = world.rented()["instance"]
    world.sealed(box)
    row = next(iter(world.market.instances.values()))
    row["uptime_mins"] = 60
    _slow_gather(world, monkeypatch, 200, lambda: row.update(uptime_mins=1))
    world.is_kept("was started again while the evidence was read")


def test_law_2_a_box_that_was_started_and_outbid_is_not_destroyed_on_the_seal_of_before(world: World) -> None:
    """A second run, unsealed, ended with the higher bid; the approval stands and the old seal lists nothing to miss."""
    box = world.rented()["instance"]
    world.sealed(box)
    world.converge("stopped")
    world.converge("started")
    _outbid(world, 0.6)
    world.is_kept("was started at", "start it (provision playbook)", "harvest_via", "--loss")
    assert world.converge("stopped")["changed"]
    # That it rests by our word now says nothing of before.
    world.is_kept("was started at")


def test_law_2_a_harvested_parked_box_goes(world: World) -> None:
    world.sealed(world.rented()["instance"])
    world.converge("stopped")
    assert world.converge("absent")["gate"][0]["rule"] == "standing_approval"
    assert not world.market.instances


def test_law_2_a_box_that_its_provider_stopped_may_have_come_back_meanwhile(world: World) -> None:
    world.sealed(world.rented()["instance"])
    _outbid(world, 0.6)
    world.is_kept("not because we stopped it", "harvest_via")


def test_law_2_a_crash_while_a_box_is_started_leaves_it_started(world: World) -> None:
    world.sealed(world.rented()["instance"])
    world.converge("stopped")

    class Killed(BaseException):
        pass

    world.market.fault("PUT", r"instances/[0-9]+/$", raises=Killed, effect_first=True)
    with pytest.raises(Killed):
        world.converge("started")
    _outbid(world, 0.6)
    world.is_kept("was started at")


def test_law_2_a_parked_box_that_is_seen_at_work_was_started_by_somebody(world: World) -> None:
    """In the provider's console, say; and stopped there again."""
    world.sealed(world.rented()["instance"])
    world.converge("stopped")
    row = next(iter(world.market.instances.values()))
    resting = dict(row)
    world.store.update_box(
        "digits",
        "vast-a",
        1,
        parked_at=records.utc_text(records.parse_utc(records.utc_now()) - datetime.timedelta(seconds=3)),
    )
    row.update(actual_status="running", intended_status="running", cur_state="running", next_state="running")
    world.converge("present", check=True)
    assert world.record()["parked_at"], "check mode writes nothing"
    world.converge("present")
    row.update(resting)
    world.is_kept("was started at")
    assert ("effect", power_record.SEEN_STARTED) in world.verbs()
    world.converge("stopped")
    world.is_kept("was started at")


def test_a_box_that_is_on_its_way_to_rest_was_not_started(world: World) -> None:
    world.sealed(world.rented()["instance"])
    world.converge("stopped")
    row = next(iter(world.market.instances.values()))
    identity = BoxIdentity("digits", "vast-a", 1, str(row["id"]))
    power_record.note_seen(world.store, identity, "running", "stopped", "2099-01-01T00:00:00Z")
    power_record.note_seen(world.store, identity, "running", "running", "2026-01-01T00:00:00Z")
    power_record.note_seen(
        world.store, replace(identity, provider_id="1"), "running", "running", "2099-01-01T00:00:00Z"
    )
    assert world.converge("absent")["changed"]


def test_absent_waits_until_the_provider_says_gone_twice(world: World) -> None:
    world.rented()
    world.market.linger_s = 30.0
    world.converge("absent")
    looks = [path for method, path, _body in world.market.requests if method == "GET" and "v0/instances" in path]
    assert not world.market.instances
    assert len(looks) >= 4


def test_absent_of_a_box_that_is_leaving_asks_for_no_second_consent(world: World) -> None:
    """A process that destroyed it and died before it saw it gone has used the approval."""
    box = world.rented()["instance"]
    world.deployed()
    world.market.linger_s = 30.0
    world.market.client().destroy_instance(box["provider_id"])
    world.market.instances[int(box["provider_id"])].update(cur_state="unloaded", intended_status="stopped")
    world.converge("absent")
    assert not world.market.instances
    assert len(world.market.sent("DELETE", "instances")) == 1
    assert world.record()["destroyed_at"]


def test_one_reading_without_the_box_is_not_gone(world: World) -> None:
    world.rented()
    world.market.linger_s = 30.0
    # The look, the look after the evidence and that before the verb, then the first poll after it.
    world.market.fault("GET", "v0/instances", skip=3, rewrite=lambda _found: {"instances": None})
    world.converge("absent")
    assert not world.market.instances


def test_absent_that_never_ends_says_that_it_may_bill(world: World) -> None:
    world.rented()
    world.market.linger_s = 1e9
    with pytest.raises(TenantFailure) as caught:
        world.converge("absent", wait_s=60.0)
    assert "may still bill" in caught.value.fix
    assert not world.record()["destroyed_at"]


def test_all_boxes_of_a_name_are_judged_before_the_first_is_touched(world: World) -> None:
    world.rented()
    used = world.market.add(str(new_stamp("digits", "vast-a", 7)))
    with pytest.raises(TenantFailure) as caught:
        world.converge("absent")
    assert caught.value.kind == "gate_refused"
    assert str(used["id"]) in caught.value.what
    assert len(world.market.instances) == 2


def test_a_virgin_box_that_is_named_goes_beside_an_older_used_one(world: World) -> None:
    """As provision bails out of it; judged together with the used one it would be kept, and bill."""
    used = world.market.add(str(new_stamp("digits", "vast-a", 1)))
    world.store.update_box("digits", "vast-a", 1, provider_id=str(used["id"]))
    world.deployed()
    fresh = world.market.add(str(new_stamp("digits", "vast-a", 2)))
    now = records.utc_now()
    world.store.update_box("digits", "vast-a", 2, provider_id=str(fresh["id"]), created_at=now, deploy_started_at=None)
    world.is_kept(str(used["id"]))
    gone = world.converge("absent", provider_id=str(fresh["id"]))
    assert [passed["rule"] for passed in gone["gate"]] == ["virgin"]
    assert list(world.market.instances) == [used["id"]]


def test_provision_bails_out_of_the_very_box_that_it_refused() -> None:
    tasks = yaml.safe_load((ROLES / "provision/tasks/vast/bail.yml").read_text())
    bail = [task for task in tasks if "tenant.gpu.vast_instance" in task]
    assert [step["tenant.gpu.vast_instance"]["state"] for step in bail] == ["absent"]
    assert bail[0]["tenant.gpu.vast_instance"]["provider_id"] == "{{ ansible_facts['box_endpoint']['provider_id'] }}"


def test_what_is_not_ours_is_untouchable(world: World) -> None:
    world.rented()
    strangers = [
        world.market.add(None),
        world.market.add("vast-a"),
        world.market.add(str(new_stamp("digits", "vast-b", 1))),
        world.market.add(str(new_stamp("other", "vast-a", 9))),
        world.market.add("gt1/digits/vast-a/g9/tooshort"),
    ]
    assert world.converge("present")["superseded"] == []
    for stranger in strangers:
        assert not world.converge("absent", provider_id=str(stranger["id"]))["changed"]
    world.converge("absent")
    assert sorted(world.market.instances) == sorted(row["id"] for row in strangers)


def test_an_instance_whose_stamp_changed_is_not_destroyed(world: World) -> None:
    box = world.rented()["instance"]
    row = world.market.instances[int(box["provider_id"])]
    world.market.fault(
        "GET", "v1/instances", rewrite=lambda page: _copied_list(page, lambda: row.update(label="mine", extra_env=[]))
    )
    with pytest.raises(TenantFailure, match="no longer carries the stamp"):
        world.converge("absent")
    assert row["id"] in world.market.instances


def _copied_list(page: dict[str, Any], then: Any) -> dict[str, Any]:
    rows = {**page, "instances": [dict(row) for row in page["instances"]]}
    then()
    return rows


def test_the_journal_is_not_evidence(world: World) -> None:
    box = world.rented()["instance"]
    world.deployed()
    Path(world.store.journal_path).unlink()
    with pytest.raises(TenantFailure):
        world.converge("absent")
    world.approve_loss(dict(box, generation=1))
    Path(world.store.journal_path).unlink()
    assert world.converge("absent")["changed"]


def test_the_key_is_nowhere_on_disk(world: World) -> None:
    world.rented()
    world.converge("absent")
    files = [path for path in Path(world.store.root).rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY not in path.name
        assert KEY.encode() not in path.read_bytes()
        assert b"s3cret-of-the-box" not in path.read_bytes()


# -- information ---------------------------------------------------------------------------------------------------


def test_the_info_lists_ours_with_what_they_billed(world: World) -> None:
    box = world.rented()["instance"]
    world.market.add(str(new_stamp("digits", "vast-a", 1)))
    world.market.add(None)
    world.market.charges.append({"source": f"instance-{box['provider_id']}", "amount": 0.125})
    found = list_boxes(world.market.client(), "digits", None, True)
    assert [(row["name"], row["is_current"]) for row in found["instances"]] == [("vast-a", True), ("vast-a", False)]
    assert [row["billed"] for row in found["instances"]] == [{"total": 0.125}, None]
    assert (found["unstamped"], found["credit"]) == (1, 12.5)
    assert found["instances"][0]["clocks"]["stopped_per_hour"] == pytest.approx(0.005)
    known = list_boxes(world.market.client(), "digits", None, False, world.store)["instances"]
    assert [bool(row["record"]) for row in known] == [True, False], "a duplicate has no record of its own"
    assert list_boxes(world.market.client(), "digits", "vast-z", False)["instances"] == []


@pytest.mark.parametrize("state", ["present", "started"])
@pytest.mark.parametrize("check", [False, True])
def test_a_box_that_became_dearer_than_the_cap_is_told_and_left_alone(world: World, state: str, check: bool) -> None:
    provider_id = world.rented()["instance"]["provider_id"]
    world.market.instances[int(provider_id)]["dph_total"] = 0.51234
    writes = len([method for method, _path, _body in world.market.requests if method != "GET"])
    with pytest.raises(TenantFailure) as caught:
        world.converge(state, [], check)
    assert (caught.value.kind, caught.value.box) == ("budget", "vast-a")
    assert "price_cap of at least 0.5124" in caught.value.fix
    assert len([method for method, _path, _body in world.market.requests if method != "GET"]) == writes
    assert world.converge(state, [], check, price_cap=0.5124)["changed"] is False


def test_a_dear_box_may_rest(world: World) -> None:
    provider_id = world.rented()["instance"]["provider_id"]
    world.market.instances[int(provider_id)]["dph_total"] = 9.0
    assert world.converge("stopped")["changed"] is True
    assert world.converge("present", [])["changed"] is False

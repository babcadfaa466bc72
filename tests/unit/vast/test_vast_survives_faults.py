# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Our client against every fault of the marketplace: nothing twice, nothing lost, nothing touched on a bad list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import listed_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.inventory import list_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.logs import Wish, read_log
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import account_info
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import RATE_LIMIT_WAIT_S
from ansible_collections.tenant.gpu.plugins.module_utils.vast.shown import SHOWN
from ansible_collections.tenant.gpu.plugins.module_utils.vast.waiters import SCHEDULING_GRACE_S
from every_dialect import CONTRARY
from faulty_market import FaultyMarket

from gpu_tenant.marketplace.dialects import USUAL

ALWAYS: dict[str, Any] = {"times": None}


@pytest.fixture(params=[USUAL, CONTRARY], ids=["usual", "contrary"])
def market(tmp_path: Path, request: pytest.FixtureRequest) -> FaultyMarket:
    """A market that words things as most sources say, and one that words nothing so."""
    return FaultyMarket(tmp_path / "market", machines=16, forgetful=True, dialect=request.param)


def struck(market: FaultyMarket) -> list[int]:
    return [fault["struck"] for fault in market.faults()]


# -- renting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost_answer"},
        {"kind": "garbled"},
        {"kind": "server_error", "status": 500, "done": True},
        {"kind": "server_error", "status": 502, "done": True},
        {"kind": "server_error", "status": 504, "done": True},
        {"kind": "slow", "seconds": 3600},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
def test_a_create_whose_answer_is_lost_is_found_by_its_stamp(market: FaultyMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    made = market.converge("present")
    assert struck(market) == [1]
    assert market.count("PUT", "asks") == 1
    assert [row["label"] for row in market.rows().values()] == [made["stamp"]]
    assert made["generation"] == 1
    assert not market.converge("present")["changed"]


@pytest.mark.parametrize("kind", ["partial_list", "empty_list", "malformed_list"])
def test_a_lost_create_is_looked_up_through_a_bad_list(market: FaultyMarket, kind: str) -> None:
    market.inject("lost_answer", "create")
    # Two lists before the create and two under its lock are good; then the look-up begins.
    market.inject(kind, "list", after=4, times=2)
    made = market.converge("present")
    assert struck(market) == [1, 2]
    assert market.count("PUT", "asks") == 1
    assert list(market.rows()) == [int(made["instance"]["provider_id"])]


def test_a_create_that_never_arrived_is_settled_before_the_next_offer(market: FaultyMarket) -> None:
    market.inject("lost_request", "create")
    before = market.clock()
    made = market.converge("present")
    assert market.clock() - before >= 15
    assert market.count("PUT", "asks") == 2
    assert list(market.rows()) == [int(made["instance"]["provider_id"])]
    assert made["generation"] == 2, "the first might still surface"


def test_a_create_turned_away_by_the_rate_limiter_waits_as_long_as_it_asks(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=4.5, times=2)
    made = market.converge("present")
    assert market.clock.slept.count(4.5) == 2
    assert made["generation"] == 1
    assert len(market.rows()) == 1


def test_a_rate_limiter_that_never_lets_a_create_through_leaves_nothing_and_says_so(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=4.5, **ALWAYS)
    with pytest.raises(TenantFailure) as caught:
        market.converge("present")
    assert (caught.value.kind, caught.value.safe) == ("provider", "nothing was rented")
    assert "wait a minute" in caught.value.fix
    assert market.rows() == {}
    assert market.store.last_generation("digits", "vast-a") == 0


@pytest.mark.parametrize("seconds", [RATE_LIMIT_WAIT_S + 1, 3600, 999_999])
def test_a_rate_limiter_that_asks_for_too_long_is_not_waited_for(market: FaultyMarket, seconds: float) -> None:
    market.inject("rate_limited", "create", retry_after_s=seconds)
    before = market.clock()
    with pytest.raises(TenantFailure, match=r"come back at 2") as caught:
        market.converge("present")
    assert market.clock() - before < 60, "the account's lock is not held for it"
    assert caught.value.safe == "nothing was rented"
    assert market.count("PUT", "asks") == 1
    assert market.store.last_generation("digits", "vast-a") == 0


def test_waits_for_the_rate_limiter_count_together(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=50, **ALWAYS)
    with pytest.raises(TenantFailure, match=r"come back at 2"):
        market.converge("present")
    assert market.clock.slept.count(50) == 2


def test_a_lease_that_was_lost_while_the_rate_limiter_was_waited_for_stops_the_create(
    market: FaultyMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.inject("rate_limited", "create", retry_after_s=30)
    check = Account.check_lease

    def taken_away(account: Account, project: str, name: str) -> None:
        if 30 in market.clock.slept:
            raise TenantFailure("lease_held", "ada has it now", fix="ask her")
        check(account, project, name)

    monkeypatch.setattr(Account, "check_lease", taken_away)
    with pytest.raises(TenantFailure, match="ada has it now") as caught:
        market.converge("present")
    assert (caught.value.kind, caught.value.safe) == ("lease_held", "nothing was rented")
    assert (market.count("PUT", "asks"), market.rows()) == (1, {})
    assert market.store.last_generation("digits", "vast-a") == 0


def test_a_box_that_came_up_while_the_rate_limiter_was_waited_for_is_not_rented_beside(market: FaultyMarket) -> None:
    market.inject("rate_limited", "create", retry_after_s=30)
    waiting = market.sleep

    def beside(seconds: float) -> None:
        if seconds == 30:
            body = {"image": "debian:12", "disk": 20, "label": "gt1/digits/vast-a/g1/0123456789abcdef"}
            assert market.request("PUT", f"/api/v0/asks/{market.offers()[-1]}/", body).status == 200
        waiting(seconds)

    market.sleep = beside  # type: ignore[method-assign]
    with pytest.raises(TenantFailure, match="of this name came up while"):
        market.converge("present")
    assert market.count("PUT", "asks") == 1
    assert len(market.rows()) == 1
    assert not market.converge("present")["changed"]


@pytest.mark.parametrize("call", ["list", "search", "show"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rate_limited", "retry_after_s": 7},
        {"kind": "rate_limited"},
        {"kind": "server_error", "status": 500},
        {"kind": "server_error", "status": 503, "done": True},
        {"kind": "lost_answer"},
        {"kind": "lost_request"},
        {"kind": "garbled"},
        {"kind": "slow", "seconds": 31},
    ],
    ids=lambda fault: f"{fault['kind']}{'-done' if fault.get('done') else ''}-{fault.get('retry_after_s', '')}",
)
def test_a_question_is_asked_again(market: FaultyMarket, call: str, fault: dict[str, Any]) -> None:
    market.inject(call=call, **{**fault, "times": 2})
    made = market.converge("present")
    assert struck(market) == [2]
    assert market.clock.slept.count(7) == (2 if fault.get("retry_after_s") else 0)
    assert list(market.rows()) == [int(made["instance"]["provider_id"])]


def test_an_answer_that_is_only_slow_is_waited_for(market: FaultyMarket) -> None:
    market.inject("slow", "any", seconds=20, **ALWAYS)
    before = market.clock()
    assert market.converge("present")["generation"] == 1
    assert market.count("PUT", "asks") == 1
    assert market.clock() - before >= 20 * struck(market)[0]


# -- lists ---------------------------------------------------------------------------------------------------------

BAD_LISTS: list[dict[str, Any]] = [
    {"kind": "partial_list"},
    {"kind": "partial_list", "admitted": False},
    {"kind": "partial_list", "admitted": False, "rows": 2},
    {"kind": "empty_list"},
    {"kind": "malformed_list", "shape": "no_list"},
    {"kind": "malformed_list", "shape": "no_ids"},
    {"kind": "malformed_list", "shape": "no_key"},
    {"kind": "garbled"},
]


@pytest.mark.parametrize("state", ["present", "started", "stopped", "absent"])
@pytest.mark.parametrize("fault", BAD_LISTS, ids=lambda fault: "-".join(str(part) for part in fault.values()))
def test_a_bad_list_is_an_error_and_nothing_happens(market: FaultyMarket, fault: dict[str, Any], state: str) -> None:
    market.rent_for_another()
    market.converge("present")
    before, rented = market.rows(), market.count("PUT", "asks")
    market.inject(call="list", **fault, **ALWAYS)
    with pytest.raises(TenantFailure) as caught:
        market.converge(state)
    assert caught.value.kind == "provider"
    assert caught.value.box == "vast-a"
    assert "nothing" in caught.value.safe
    assert market.count("PUT", "asks") == rented
    assert market.count("DELETE", "instances") == 0
    assert {number: row["cur_state"] for number, row in market.rows().items()} == {
        number: row["cur_state"] for number, row in before.items()
    }
    market.clear()
    assert not market.converge("present")["changed"]


@pytest.mark.parametrize("fault", BAD_LISTS, ids=lambda fault: "-".join(str(part) for part in fault.values()))
def test_one_bad_list_is_asked_for_again(market: FaultyMarket, fault: dict[str, Any]) -> None:
    market.rent_for_another()
    made = market.converge("present")
    market.inject(call="list", **fault)
    seen = market.converge("present")
    assert struck(market) == [1]
    assert not seen["changed"]
    assert seen["stamp"] == made["stamp"]


@pytest.mark.parametrize("fault", [one for one in BAD_LISTS if one.get("admitted", True)])
def test_the_inventory_concludes_nothing_from_a_bad_list(market: FaultyMarket, fault: dict[str, Any]) -> None:
    market.converge("present")
    market.inject(call="list", **fault, **ALWAYS)
    with pytest.raises(TenantFailure) as caught:
        listed_boxes.ask(market.client(), SHOWN)
    assert caught.value.kind == "provider"


# -- states --------------------------------------------------------------------------------------------------------

STUCK: list[tuple[dict[str, Any], str]] = [
    ({"kind": "stuck_loading"}, "still loading after 300 s"),
    ({"kind": "stuck_scheduling"}, "stuck in scheduling"),
    ({"kind": "host_offline"}, "its host is offline"),
    ({"kind": "host_offline", "shows": "unknown"}, "its host has sent no heartbeat"),
    ({"kind": "outbid"}, "it was outbid before it ran"),
]


@pytest.mark.parametrize(("fault", "said"), STUCK, ids=[said for _fault, said in STUCK])
def test_a_box_that_never_runs_is_told_apart_given_back_and_replaced(
    market: FaultyMarket, fault: dict[str, Any], said: str
) -> None:
    market.inject(call="create", **fault)
    made = market.converge("present")
    assert said in made["rejected"][0]["reason"]
    assert made["generation"] == 2
    assert list(market.rows()) == [int(made["instance"]["provider_id"])]
    assert made["instance"]["machine_id"] != made["rejected"][0]["machine_id"]


def test_when_no_box_ever_runs_all_are_given_back(market: FaultyMarket) -> None:
    market.inject("stuck_loading", "create", **ALWAYS)
    with pytest.raises(TenantFailure) as caught:
        market.converge("present")
    assert caught.value.kind == "no_offer"
    assert market.rows() == {}
    assert market.count("PUT", "asks") == 3


@pytest.mark.parametrize(("fault", "said"), STUCK[:4], ids=[said for _fault, said in STUCK[:4]])
def test_a_used_box_that_does_not_come_back_is_kept(market: FaultyMarket, fault: dict[str, Any], said: str) -> None:
    market.converge("present")
    market.store.update_box("digits", "vast-a", 1, deploy_started_at="2026-11-21T04:00:00Z")
    market.converge("stopped")
    market.inject(call="change", **fault)
    with pytest.raises(TenantFailure, match=said):
        market.converge("started")
    assert len(market.rows()) == 1
    assert market.count("DELETE", "instances") == 0
    market.clear()
    assert market.converge("started")["instance"]["state"] == "running"


def test_a_card_that_comes_free_in_time_is_waited_for(market: FaultyMarket) -> None:
    market.converge("present")
    market.converge("stopped")
    market.inject("stuck_scheduling", "change", seconds=SCHEDULING_GRACE_S / 2)
    assert market.converge("started")["instance"]["state"] == "running"


def test_a_host_that_is_back_in_time_is_waited_for(market: FaultyMarket) -> None:
    market.inject("host_offline", "show", after=1, seconds=30)
    made = market.converge("present")
    assert made["rejected"] == []
    assert made["instance"]["state"] == "running"


def test_a_running_box_whose_host_is_lost_is_neither_started_nor_replaced(market: FaultyMarket) -> None:
    market.converge("present")
    market.inject("host_offline", "list")
    with pytest.raises(TenantFailure, match=r"its host on machine [0-9]+ is offline"):
        market.converge("started")
    assert market.count("PUT", "asks") == 1
    assert len(market.rows()) == 1


def test_an_outbid_box_is_started_by_a_higher_bid(market: FaultyMarket) -> None:
    made = market.converge("present")
    market.inject("outbid", "list")
    seen = market.converge("present")
    assert seen["instance"]["state"] == "outbid"
    assert not seen["changed"]
    started = market.converge("started")
    assert started["instance"]["state"] == "running"
    assert started["instance"]["bid"] > made["instance"]["bid"]
    assert started["stamp"] == made["stamp"]


def test_a_stopped_box_that_comes_back_by_itself_is_stopped_again(market: FaultyMarket) -> None:
    market.converge("present")
    market.converge("stopped")
    market.inject("revival", "list")
    again = market.converge("stopped")
    assert struck(market) == [1]
    assert again["changed"]
    assert again["instance"]["state"] == "stopped"
    assert [row["cur_state"] for row in market.rows().values()] == ["stopped"]


def test_a_port_that_changes_is_read_again(market: FaultyMarket) -> None:
    made = market.converge("present")
    market.inject("port_change", "list")
    seen = market.converge("present")
    assert not seen["changed"]
    assert seen["stamp"] == made["stamp"]
    assert seen["instance"]["port"] != made["instance"]["port"]
    assert [row["ssh_port"] for row in market.rows().values()] == [seen["instance"]["port"]]


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_destroyed_box_that_stays_listed_is_waited_for(market: FaultyMarket) -> None:
    market.converge("present")
    market.inject("slow_destroy", "destroy", seconds=90)
    before = market.clock()
    gone = market.converge("absent")
    assert gone["changed"]
    assert market.clock() - before >= 90
    assert market.rows() == {}
    assert market.count("DELETE", "instances") == 1
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    assert record["destroyed_at"]


@pytest.mark.parametrize("state", ["present", "started"])
def test_a_box_that_only_a_lagging_list_still_shows_is_no_box(market: FaultyMarket, state: str) -> None:
    first = market.converge("present")
    market.inject("slow_destroy", "destroy", seconds=3600, lingers="list")
    assert market.converge("absent")["changed"]
    assert list(market.rows()) == [int(first["instance"]["provider_id"])], "the list still shows it"
    assert not market.converge("absent")["changed"]
    made = market.converge(state)
    assert made["changed"]
    assert made["generation"] == 2
    assert made["instance"]["state"] == "running"
    assert made["superseded"] == []
    assert not market.converge(state)["changed"]


def test_a_box_that_only_a_lagging_list_still_shows_is_neither_in_the_inventory_nor_told_of(
    market: FaultyMarket,
) -> None:
    other = str(market.rent_for_another())
    ghost = market.converge("present")["instance"]["provider_id"]
    market.inject("slow_destroy", "destroy", seconds=3600, lingers="list")
    market.converge("absent")
    told = [row["provider_id"] for row in listed_boxes.ask(market.client(), SHOWN)["boxes"]]
    assert told == [other, ghost], "without our records a list is all that is known"
    known = listed_boxes.ask(market.client(), SHOWN, store=market.store)["boxes"]
    assert [row["provider_id"] for row in known] == [other]
    assert list_boxes(market.client(), None, None, False, market.store)["instances"] == []
    made = market.converge("present")["instance"]["provider_id"]
    after = listed_boxes.ask(market.client(), SHOWN, store=market.store)["boxes"]
    assert [row["provider_id"] for row in after] == [other, made]


def test_a_box_that_only_a_lagging_list_still_shows_has_no_log_and_costs_nothing(market: FaultyMarket) -> None:
    market.converge("present")
    market.inject("slow_destroy", "destroy", seconds=3600, lingers="list")
    market.converge("absent")
    wish = Wish("digits", "vast-a")
    with pytest.raises(TenantFailure, match="lists no box of this name"):
        read_log(market.client(), wish, market.store)
    assert market.count("PUT", "request_logs") == 0
    assert account_info(market.client())["burn_per_hour"] > 0, "without our records a list is all that is known"
    told = account_info(market.client(), market.store)
    assert (told["instances"], told["burn_per_hour"], told["clocks"]) == (0, 0.0, [])


def test_a_destroy_that_is_not_seen_to_end_is_not_called_done(market: FaultyMarket) -> None:
    market.converge("present")
    market.inject("slow_destroy", "destroy", seconds=100_000)
    with pytest.raises(TenantFailure, match="still lists it"):
        market.converge("absent")
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    assert not record["destroyed_at"]
    market.clear()
    assert not market.converge("absent")["changed"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lost_answer"},
        {"kind": "lost_request"},
        {"kind": "server_error", "status": 502, "done": True},
        {"kind": "rate_limited", "retry_after_s": 3},
        {"kind": "garbled"},
        {"kind": "slow", "seconds": 40},
    ],
    ids=lambda fault: fault["kind"],
)
@pytest.mark.parametrize(("call", "state"), [("destroy", "absent"), ("change", "stopped")])
def test_a_verb_that_can_be_repeated_is(market: FaultyMarket, call: str, state: str, fault: dict[str, Any]) -> None:
    market.converge("present")
    market.inject(call=call, **fault)
    assert market.converge(state)["changed"]
    assert struck(market) == [1]
    assert [row["cur_state"] for row in market.rows().values()] == ([] if state == "absent" else ["stopped"])


# -- one word of the provider's ------------------------------------------------------------------------------------


def test_law_5_one_answer_that_a_box_is_not_there_does_not_close_its_record(market: FaultyMarket) -> None:
    made = market.converge("started")
    market.hidden = 1
    gone = market.converge("absent")
    assert [passed["rule"] for passed in gone["gate"]] == ["virgin"], "it is there, so it goes through the gate"
    assert market.count("DELETE", "instances") == 1
    assert market.rows() == {}
    assert gone["diff"]["after"]["destroyed"] == [made["instance"]["provider_id"]]


def test_law_5_a_new_box_is_not_given_up_for_one_look_that_missed_it(market: FaultyMarket) -> None:
    market.inject("stuck_loading", "create", seconds=20.0)
    waiting = market.sleep

    def hide_once(seconds: float) -> None:
        if market.rows() and not hidden:
            hidden.append(True)
            market.hidden = 1
        waiting(seconds)

    hidden: list[bool] = []
    market.sleep = hide_once  # type: ignore[method-assign]
    made = market.converge("started")
    assert hidden
    assert (made["generation"], made["rejected"], len(market.rows())) == (1, [], 1)


def test_a_box_that_two_answers_say_is_not_there_is_gone(market: FaultyMarket) -> None:
    market.converge("started")
    account = Account(market.client(), market.store)
    box = account.locate("digits", "vast-a").current
    assert box is not None
    market.request("DELETE", f"/api/v0/instances/{box.provider_id}/", {})
    begun = len(market.sent)
    assert account.destroy(box) is None
    assert [method for method, _path in market.sent[begun:]] == ["GET", "GET"]
    record = market.store.read_box("digits", "vast-a", 1)
    assert record is not None
    assert record["destroyed_at"]

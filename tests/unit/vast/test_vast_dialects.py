# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Our client under every dialect of the marketplace: where sources contradict each other, it stands each reading.

Each switch is turned by itself, and all of them at once; their product would be thousands.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import listed_boxes
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient, VastError
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import search
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.ranking import Work
from ansible_collections.tenant.gpu.plugins.module_utils.vast.shown import SHOWN
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from every_dialect import CONTRARY, SINGLE
from fault_sequence import LEAST_STRUCK, MACHINES, Sequence
from faulty_market import URL, FaultyMarket

from gpu_tenant.marketplace.dialects import USUAL, Dialect, dialect_in, meanings, switches

DIALECTS = [USUAL, *SINGLE, CONTRARY]
# Enough that each kind of fault comes up; each dialect plays others.
SEEDS_EACH = 3


@pytest.fixture(params=DIALECTS, ids=["usual", *map(str, SINGLE), "contrary"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    chosen: Dialect = request.param
    return chosen


def market_of(folder: Path, dialect: Dialect, rate_limits: bool = False) -> FaultyMarket:
    return FaultyMarket(folder, machines=MACHINES, forgetful=True, dialect=dialect, rate_limits=rate_limits)


@pytest.fixture
def market(tmp_path: Path, dialect: Dialect) -> FaultyMarket:
    return market_of(tmp_path / "market", dialect)


def the_row(market: FaultyMarket) -> dict[str, Any]:
    (row,) = market.rows().values()
    return row


def walks_the_litany(market: FaultyMarket) -> None:
    """From nothing to a box that runs, rests, runs again and is gone; each state once, and once more."""
    made = market.converge("present")
    assert made["changed"]
    assert (the_row(market)["label"], the_row(market)["actual_status"]) == (made["stamp"], "running")
    for state, resting in (("present", False), ("stopped", True), ("started", False)):
        reached = market.converge(state)
        assert reached["changed"] is (state != "present")
        assert reached["instance"]["state"] == ("stopped" if resting else "running")
        assert the_row(market)["cur_state"] == ("stopped" if resting else "running")
        again = market.converge(state)
        assert not again["changed"]
        assert again["instance"]["bid"] == pytest.approx(made["instance"]["bid"])
    gone = market.converge("absent")
    assert gone["changed"]
    assert market.rows() == {}
    assert not market.converge("absent")["changed"]


def test_the_litany(market: FaultyMarket) -> None:
    walks_the_litany(market)
    anew = market.converge("present")
    assert (anew["generation"], the_row(market)["label"]) == (2, anew["stamp"])


@pytest.mark.parametrize("spoken", [USUAL, CONTRARY], ids=["usual", "contrary"])
def test_the_litany_where_the_least_intervals_are_enforced(tmp_path: Path, spoken: Dialect) -> None:
    market = market_of(tmp_path / "market", spoken, rate_limits=True)
    walks_the_litany(market)
    assert market.clock.slept, "nothing was turned away"


def test_a_lost_create_is_found_by_its_stamp(market: FaultyMarket) -> None:
    market.inject("lost_answer", "create")
    made = market.converge("present")
    assert market.count("PUT", "asks") == 1
    assert the_row(market)["label"] == made["stamp"]


def test_a_bid_that_is_too_low_leaves_nothing(market: FaultyMarket) -> None:
    """The market moves between the search and the create, and leaves a stopped box behind."""
    market.inject("outbid", "create")
    made = market.converge("present")
    assert made["rejected"]
    assert list(market.rows()) == [int(made["instance"]["provider_id"])]


def test_an_outbid_box_is_told_from_a_stopped_one_and_started_by_a_higher_bid(market: FaultyMarket) -> None:
    made = market.converge("present")
    market.inject("outbid", "list")
    seen = market.converge("present")
    assert (seen["changed"], seen["instance"]["state"]) == (False, "outbid")
    assert seen["instance"]["bid"] == pytest.approx(made["instance"]["bid"])
    started = market.converge("started")
    assert started["instance"]["state"] == "running"
    assert started["instance"]["bid"] > made["instance"]["bid"]


def test_a_card_that_is_anothers_is_told_and_the_box_kept(market: FaultyMarket) -> None:
    market.converge("present")
    market.store.update_box("digits", "vast-a", 1, deploy_started_at="2026-11-21T04:00:00Z")
    market.converge("stopped")
    market.inject("stuck_scheduling", "change")
    with pytest.raises(TenantFailure, match="stuck in scheduling"):
        market.converge("started")
    assert listed_boxes.ask(market.client(), SHOWN)["boxes"][0]["state"] == "scheduling"
    assert market.count("DELETE", "instances") == 0
    market.clear()
    assert market.converge("started")["instance"]["state"] == "running"


def test_what_is_not_there_is_told_from_a_key_that_is_wrong(market: FaultyMarket) -> None:
    assert market.client().get_instance("999999") is None
    wrong = VastClient("an0ther-key", URL, opener=market, sleep=market.sleep, clock=market.clock)
    for ask in (wrong.list_instances, lambda: wrong.get_instance("999999"), wrong.list_ssh_keys):
        with pytest.raises(VastError) as caught:
            ask()
        assert (caught.value.kind, caught.value.code) == ("config", "auth_error")


def test_every_offer_is_seen(tmp_path: Path, dialect: Dialect) -> None:
    """Whatever a search without a limit would show."""
    market = FaultyMarket(tmp_path / "market", forgetful=True, dialect=dialect)
    wanted = Constraints(min_disk_gb=20.0)
    rows = market.market.listing.offer_rows(interruptible=True, allocated_gb=20.0)
    fit = {row["id"] for row in rows if row["num_gpus"] == 1 and row["verification"] == "verified"}
    assert len(fit) > int(CONTRARY.search_limit)
    assert {one["id"] for one in search(market.client(), wanted, Work(), 500)} == fit


def test_a_box_without_a_mapped_port_is_reached_through_the_proxy(market: FaultyMarket) -> None:
    row = market.client().get_instance(str(market.rent_for_another()))
    assert row is not None
    assert row["ports"] == (None if market.market.config.dialect.ports == "null" else {})
    box = to_box(row)
    assert (box.proxy, box.port, box.endpoint_problem) == (True, row["ssh_port"], "")


@pytest.mark.parametrize("seed", range(SEEDS_EACH))
def test_a_sequence_of_operations_and_faults(tmp_path: Path, dialect: Dialect, seed: int) -> None:
    begun = 100_000 + SEEDS_EACH * DIALECTS.index(dialect)
    sequence = Sequence(tmp_path / "market", begun + seed, dialect)
    sequence.play()
    assert sequence.struck_in_all >= LEAST_STRUCK
    shutil.rmtree(tmp_path / "market", ignore_errors=True)


@pytest.mark.parametrize("seed", range(SEEDS_EACH))
def test_a_sequence_where_the_least_intervals_are_enforced(tmp_path: Path, seed: int) -> None:
    Sequence(tmp_path / "market", 200_000 + seed, rate_limits=True).play()


# -- the switches --------------------------------------------------------------------------------------------------


def test_the_contrary_dialect_turns_every_switch() -> None:
    assert all(getattr(CONTRARY, name) != getattr(USUAL, name) for name in switches())
    assert {str(one) for one in SINGLE} == {
        *(f"{name}={value}" for name, values in switches().items() for value in values[1:])
    }  # fmt: skip


def test_a_dialect_is_read_from_words() -> None:
    assert dialect_in([]) == USUAL
    assert dialect_in(["ports=null", "bad_key=401"]) == Dialect(ports="null", bad_key="401")
    assert str(Dialect(ports="null", bad_key="401")) == "ports=null,bad_key=401"
    with pytest.raises(ValueError, match="no dialect 'port'"):
        dialect_in(["port=null"])
    with pytest.raises(ValueError, match="ports is one of empty, null, not 'none'"):
        dialect_in(["ports=none"])


def test_the_page_tells_every_switch_and_value() -> None:
    page = (Path(__file__).parents[3] / "docs" / "marketplace.md").read_text(encoding="utf-8")
    for name, values in switches().items():
        assert f"| `{name}` | {meanings()[name]} | {', '.join(f'`{value}`' for value in values)} |" in page

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Network volumes, in both versions of RunPod's REST: made once, billed always, deleted by consent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, losses, volume_gate
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.volumes import (
    Wish,
    converge,
    list_volumes,
    price_of,
    reader,
)
from ansible_collections.tenant.gpu.plugins.module_utils.volume_states import located
from pod_market import PodMarket

from gpu_tenant.marketplace.runpod.pods import DATA_CENTERS, GPU_TYPES

WISH = Wish("digits", "data", size_gb=100, data_center="EU-SE-1", price_cap=0.05)


@pytest.fixture(params=["/v1", "/v2"])
def market(tmp_path: Path, request: pytest.FixtureRequest) -> PodMarket:
    return PodMarket(tmp_path, version=request.param)


def bring(market: PodMarket, state: str = "present", check: bool = False, **changes: Any) -> dict[str, Any]:
    begun = len(market.sent)
    account = replace(market.account(), read_only=check)
    result = converge(account, replace(WISH, state=state, **changes), check)
    if check:
        assert {verb for verb, _path in market.sent[begun:]} <= {"GET"}
    return result


def approve(market: PodMarket) -> None:
    """Consent to the loss, as ``gpu-tenant approve delete data --volume`` writes it."""
    account = market.account()
    volume = located(account, reader(account.client), "digits", "data").current
    assert volume is not None
    binds = losses.of(volume_gate.evidence_of(account.store, volume.identity)).as_binds()
    who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "the set is public"}
    approvals.give(market.store, volume.identity, volume_gate.DELETE, binds, **who)


def creates(market: PodMarket) -> int:
    return market.count("POST", "^/v[12]/network-?volumes$")


def test_the_litany(market: PodMarket) -> None:
    predicted = bring(market, check=True)
    assert predicted["would"] == {"size_gb": 100, "data_center": "EU-SE-1", "price_per_hour": price_of(100)}
    made = bring(market)
    volume = made["volume"]
    assert (made["changed"], volume["size_gb"], volume["data_center"], volume["pods"]) == (True, 100, "EU-SE-1", [])
    assert made["diff"]["before"]["state"] == "absent"
    assert made["diff"]["after"] == {"state": "present", "id": volume["id"], "size_gb": 100, "data_center": "EU-SE-1"}
    assert not bring(market)["changed"]
    assert creates(market) == 1
    listed = list_volumes(market.pod_client(), "digits", None)
    assert ([one["id"] for one in listed["volumes"]], listed["unstamped"]) == ([volume["id"]], 0)
    with pytest.raises(TenantFailure, match="It would lose") as failure:
        bring(market, "absent")
    assert failure.value.kind == "gate_refused"
    approve(market)
    assert bring(market, "absent", check=True)["changed"]
    gone = bring(market, "absent")
    assert (gone["volume"], gone["gate"][0]["id"], gone["diff"]["after"]["deleted"]) == (
        None,
        volume["id"],
        [volume["id"]],
    )
    assert not bring(market, "absent")["changed"]
    verbs = [line["verb"] for line in Journal(market.store).lines() if line["kind"] == "intent"]
    assert verbs == ["rent-volume", "delete"]
    assert bring(market)["volume"]["generation"] == 2


def test_it_bills_with_a_pod_or_without(market: PodMarket) -> None:
    bring(market)
    before = market.market.money.bill()["total"]
    market.clock.now += 3600.0 * 720
    assert market.market.money.bill()["total"] - before == pytest.approx(price_of(100) * 720, rel=1e-4)


@pytest.mark.parametrize(("size", "dollars"), [(10, 0.7), (1000, 70.0), (2000, 120.0)])
def test_what_it_costs_is_what_the_market_asks(size: int, dollars: float) -> None:
    assert price_of(size) * 720 == pytest.approx(dollars, rel=1e-5)
    assert price_of(100, "HIGH_PERFORMANCE") == pytest.approx(2 * price_of(100))


def test_a_volume_that_a_pod_mounts_is_not_deleted(market: PodMarket) -> None:
    places = [DATA_CENTERS[one.geolocation] for one in market.market.books.machines if one.hosting_type == 0]
    volume = bring(market, data_center=places[0])["volume"]["id"]
    cards = tuple(GPU_TYPES.values())
    pod = market.bring("started", network_volume=volume, gpu_types=cards, price_cap=20.0)["pod"]
    assert (pod["network_volume"], pod["data_center"], pod["volume_gb"]) == (volume, places[0], 0)
    approve(market)
    for state in ("started", "stopped"):
        market.bring(state, price_cap=20.0)
        with pytest.raises(TenantFailure, match=f"is used by pod {pod['provider_id']}") as failure:
            bring(market, "absent", data_center=places[0])
        assert failure.value.kind == "gate_refused"
    market.bring("absent")
    assert bring(market, data_center=places[0])["volume"]["pods"] == []
    assert bring(market, "absent", data_center=places[0])["changed"]


@pytest.mark.parametrize("fault", ["lost_answer", "garbled"])
def test_a_create_whose_answer_is_lost_is_found_by_its_stamp(market: PodMarket, fault: str) -> None:
    market.inject(fault, "volumes", after=3)
    made = bring(market)
    assert creates(market) == 1
    assert len(list_volumes(market.pod_client(), None, None)["volumes"]) == 1
    assert made["volume"]["generation"] == 1


def test_a_create_that_never_arrived_is_not_repeated(market: PodMarket) -> None:
    market.inject("lost_request", "volumes", after=3)
    with pytest.raises(TenantFailure, match="no volume with its stamp came of it"):
        bring(market)
    assert creates(market) == 1
    assert bring(market)["volume"]["data_center"] == "EU-SE-1"


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"size_gb": 9}, "config", "10 to 4000"),
        ({"size_gb": 4001}, "config", "10 to 4000"),
        ({"data_center": ""}, "config", "data_center"),
        ({"price_cap": None}, "config", "price_cap"),
        ({"price_cap": 0.001}, "budget", "above the price_cap"),
        ({"name": "../x"}, "config", "name"),
        ({"data_center": "XX-9"}, "provider", "data center is one of"),
    ],
)
def test_bad_input_makes_nothing(market: PodMarket, changes: dict[str, Any], kind: str, word: str) -> None:
    with pytest.raises((TenantFailure, ValueError), match=word) as failure:
        bring(market, **changes)
    assert getattr(failure.value, "kind", kind) == kind
    assert market.market.books.state.volumes == {}


@pytest.mark.parametrize(
    ("changes", "word"), [({"data_center": "US-TX-3"}, "not US-TX-3"), ({"size_gb": 101}, "101 GB are wanted")]
)
def test_one_that_is_not_as_wanted_is_left_as_it_is(market: PodMarket, changes: dict[str, Any], word: str) -> None:
    bring(market)
    with pytest.raises(TenantFailure, match=word) as failure:
        bring(market, **changes)
    assert (failure.value.box, failure.value.safe) == ("data", "nothing was changed")
    assert creates(market) == 1


def test_a_stranger_s_volume_is_counted_and_never_touched(market: PodMarket) -> None:
    market.ask("POST", "/v1/networkvolumes", {"name": "data", "size": 20, "dataCenterId": "EU-SE-1"})
    assert not bring(market, "absent")["changed"]
    assert list_volumes(market.pod_client(), None, None) == {"changed": False, "volumes": [], "unstamped": 1}


@pytest.mark.parametrize("shape", ["no_list", "no_key", "no_ids"])
def test_a_malformed_list_is_an_error(market: PodMarket, shape: str) -> None:
    bring(market)
    market.inject("malformed_list", "volumes", times=None, shape=shape)
    with pytest.raises(TenantFailure, match="nothing was concluded"):
        bring(market)


def test_the_audit_shows_what_bills_beside_pods_and_whose_it_is(market: PodMarket) -> None:
    ours = bring(market)["volume"]["id"]
    body = {"name": "somebody's", "size": 20, "dataCenterId": "EU-SE-1"}
    stranger = market.ask("POST", "/v1/networkvolumes", body)[1]["id"]
    left = {one.id: one for one in market.account().leftovers()}
    assert {name: (one.project, one.state) for name, one in left.items()} == {
        ours: ("digits", "EU-SE-1"),
        stranger: ("", "EU-SE-1"),
    }
    assert "no pod uses it" in left[ours].note
    assert left[ours].per_hour == price_of(100)
    assert left[stranger].per_hour == pytest.approx(price_of(20))

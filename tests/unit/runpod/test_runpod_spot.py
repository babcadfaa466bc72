# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Spot pods, where the API has them: rented when asked for, taken by the market, started again; refused elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.transformations import to_pod
from pod_market import PodMarket

from gpu_tenant.marketplace.runpod.terms import number_of

SPOT: dict[str, Any] = {"market": "interruptible"}


@pytest.fixture
def market(tmp_path: Path) -> PodMarket:
    return PodMarket(tmp_path)


@pytest.mark.parametrize("version", ["/v1", "/v2"])
def test_a_pod_is_rented_on_demand_unless_told(tmp_path: Path, version: str) -> None:
    market = PodMarket(tmp_path, version=version)
    pod = market.bring("started")["pod"]
    assert pod["market"] == "on-demand"
    assert market.show(pod["provider_id"])["interruptible"] is False


def test_the_life_of_a_spot_pod(market: PodMarket) -> None:
    predicted = market.bring("started", check=True, **SPOT)
    assert predicted["would"]["market"] == "interruptible"
    dear = market.make()["costPerHr"]
    pod = market.bring("started", **SPOT)["pod"]
    assert (pod["market"], pod["state"]) == ("interruptible", "running")
    row = market.show(pod["provider_id"])
    assert row["interruptible"] is True
    assert row["costPerHr"] < dear
    assert market.bring("started", **SPOT)["changed"] is False

    taken = market.market.auction.preempt(number_of(pod["provider_id"]))
    assert taken > row["costPerHr"]
    resting = market.bring("present", **SPOT)["pod"]
    assert (resting["state"], resting["host"]) == ("outbid", "")
    with pytest.raises(TenantFailure, match="not enough free GPUs") as refused:
        market.bring("started", **SPOT)
    assert "rests as before" in refused.value.safe
    assert market.bring("present", **SPOT)["pod"]["state"] == "outbid"

    market.market.auction.release(number_of(pod["provider_id"]))
    assert market.bring("present", **SPOT)["pod"]["state"] == "outbid", "a pod of RunPod's does not come back by itself"
    again = market.bring("started", **SPOT)
    assert (again["changed"], again["pod"]["state"], again["generation"]) == (True, "running", 1)
    assert market.bring("stopped", **SPOT)["pod"]["state"] == "stopped", "what we stopped nobody took"
    assert market.bring("absent", **SPOT)["pod"] is None


def test_the_volume_of_a_pod_that_was_taken_is_there_after_a_start(market: PodMarket) -> None:
    pod = market.bring("started", **SPOT)["pod"]
    number = number_of(pod["provider_id"])
    kept = market.market.books.directory.volumes / f"pod-{number}" / "results"
    kept.write_text("seven")
    market.market.auction.preempt(number)
    market.market.auction.release(number)
    market.bring("started", **SPOT)
    assert kept.read_text() == "seven"


@pytest.mark.parametrize(
    ("version", "order", "words"),
    [
        ("/v2", SPOT, "has no spot pods"),
        ("", SPOT, "has no spot pods"),
        ("/v1", {**SPOT, "stop_after_s": 7200}, "for pods on demand only"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_where_there_is_no_spot_nothing_is_rented_in_its_place(
    tmp_path: Path, version: str, order: dict[str, Any], words: str, check: bool
) -> None:
    market = PodMarket(tmp_path, version=version)
    with pytest.raises(TenantFailure, match=words) as refused:
        market.bring("started", check=check, **order)
    assert (refused.value.kind, refused.value.box, refused.value.safe) == ("config", "pod-a", "nothing was rented")
    assert "on-demand" in refused.value.fix
    assert market.pods() == []
    assert not [one for one in market.sent if one[0] != "GET"]


@pytest.mark.parametrize(
    ("interruptible", "said", "state"),
    [
        (True, "Exited by Runpod: Sun Nov 22 2026", "outbid"),
        (True, "Exited by user: Sun Nov 22 2026", "stopped"),
        (True, "Exited by User: Sun Nov 22 2026", "stopped"),
        # Nobody says who ended it, so nothing is concluded.
        (True, None, "stopped"),
        (False, "Exited by Runpod: Sun Nov 22 2026", "stopped"),
    ],
)
def test_who_ended_a_pod_is_its_provider_s_word(interruptible: bool, said: Any, state: str) -> None:
    row = {"id": "p1", "desiredStatus": "EXITED", "interruptible": interruptible, "lastStatusChange": said}
    assert to_pod(row).state == state

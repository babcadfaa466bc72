# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where the stamp is the box's own name: a launch whose sender was killed is the only one, and one list proves none."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.rental import VmRental
from late_create import keep_time, kill_in_the_create
from vm_market import ORDER, VmMarket


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmMarket:
    made = VmMarket(tmp_path / "market", forgetful=True)
    keep_time(made, monkeypatch)
    return made


def killed(market: VmMarket, late_s: float | None = None) -> None:
    kill_in_the_create(market, "/instance-operations/launch", lambda: market.bring("started"), late_s)


@pytest.mark.parametrize("late_s", [1.0, 30.0])
def test_a_launch_that_arrives_after_its_sender_was_killed_is_the_only_one(market: VmMarket, late_s: float) -> None:
    killed(market, late_s)
    made = market.bring("started")
    assert (made["generation"], made["superseded"]) == (1, [])
    assert (len(market.vms()), market.launches()) == (1, 1)


def test_a_launch_that_never_arrived_is_followed_by_another(market: VmMarket) -> None:
    killed(market)
    assert market.bring("started")["generation"] == 2
    assert len(market.vms()) == 1


@pytest.mark.parametrize("bad_lists", [1, 2])
def test_empty_lists_under_the_lock_are_not_believed(market: VmMarket, bad_lists: int) -> None:
    ours = market.used()
    # As for a process that found none before the lock, because this one was rented after that.
    rental = VmRental(market.account(), ORDER)
    rental.find_place([])
    market.inject("empty_list", "list", times=bad_lists)
    if bad_lists == 1:
        assert rental.created()[0].provider_id == ours
    else:
        with pytest.raises(TenantFailure, match="which the provider still has"):
            rental.created()
    assert (len(market.vms()), market.launches()) == (1, 1)

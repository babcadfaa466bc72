# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where the market tells no price before: what a killed process rented is compared with the cap by who finds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, rental_account, spent
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.creation import Creation
from ansible_collections.tenant.gpu.plugins.module_utils.dollar_budgets import Budgets
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import RentalAccount
from late_create import keep_time, kill_in_the_create
from pod_market import PodMarket

LONG_AGO = "2020-01-01T00:00:00Z"
TOO_LITTLE = 0.05


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PodMarket:
    made = PodMarket(tmp_path / "market", forgetful=True)
    keep_time(made, monkeypatch)
    return made


def killed(market: PodMarket, **order: Any) -> None:
    """The create arrives while the next process waits for it."""
    kill_in_the_create(market, "/pods", lambda: market.bring("started", **order), 20.0)


def test_one_that_is_above_the_cap_is_given_back(market: PodMarket) -> None:
    killed(market, price_cap=TOO_LITTLE)
    with pytest.raises(TenantFailure, match=r"given back: it costs .* above the price_cap") as failure:
        market.bring("started", price_cap=TOO_LITTLE)
    assert (failure.value.kind, failure.value.safe) == ("no_offer", "nothing of it is left")
    assert market.pods() == []
    record = market.store.read_box("digits", "pod-a", 1) or {}
    assert "price_cap" in record["rejected"]["reason"]
    machines = accrual.acts_by_machine(Journal(market.store).lines()).values()
    assert [accrual.intervals(acts, records.utc_now())[1] for acts in machines] == [accrual.ENDED]


def test_one_within_the_cap_is_checked_noted_and_paid_by_its_run(market: PodMarket) -> None:
    order = {"budgets": Budgets(run="mnist", run_usd=50.0)}
    killed(market, **order)
    made = market.bring("started", gpus=1, **order)
    assert (made["generation"], len(market.pods())) == (1, 1)
    record = market.store.read_box("digits", "pod-a", 1) or {}
    assert record["price_per_hour"] == made["pod"]["price_per_hour"] > 0
    lines = Journal(market.store).lines()
    assert [line["price_per_hour"] for line in lines if line["verb"] == accrual.PRICED] == [record["price_per_hour"]]
    assert (spent.of_run(lines, "digits", "mnist", "2100-01-01T00:00:00Z") or 0) > 0


def test_one_that_is_not_what_was_asked_for_is_given_back(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(market)
    shown = RentalAccount.await_running

    def without_its_gpu(self: Any, box: Any, wait_s: float) -> Any:
        return replace(shown(self, box, wait_s), num_gpus=0)

    monkeypatch.setattr(RentalAccount, "await_running", without_its_gpu)
    with pytest.raises(TenantFailure, match="given back"):
        market.bring("started")
    assert market.pods() == []


def test_one_that_another_process_rents_is_not_ours_to_give_back(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    rented: list[str] = []
    lock = rental_account.RentalAccount.lock

    @contextlib.contextmanager
    def after_the_other(account: Any) -> Iterator[None]:
        if not rented:
            rented.append("")
            rented[0] = str(market.bring("started")["pod"]["provider_id"])
        with lock(account):
            yield

    monkeypatch.setattr(rental_account.RentalAccount, "lock", after_the_other)
    with pytest.raises(TenantFailure, match="above the price_cap of") as failure:
        market.bring("started", price_cap=TOO_LITTLE)
    assert (failure.value.kind, failure.value.safe) == ("budget", "it was left as it is")
    assert market.show(rented[0])["desiredStatus"] == "RUNNING"


def test_a_create_may_surface_from_when_it_is_sent_on(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its intent may be on disk long before: the journal is locked while another process writes."""
    intend, told = Creation.intend, []

    def long_before(self: Any, **known: Any) -> None:
        intend(self, **known)
        self.note(sent_at=LONG_AGO)

    def sends(request: Any, timeout: float) -> Any:
        if request.get_method() == "POST" and not told:
            told.append((market.store.read_box("digits", "pod-a", 1) or {})["sent_at"])
        return opened(request, timeout)

    opened = market.open
    monkeypatch.setattr(Creation, "intend", long_before)
    market.open = sends  # type: ignore[method-assign, assignment]
    market.bring("started")
    assert told
    assert told[0] > LONG_AGO

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant.marketplace.billing import Account, Segment, Traffic, bill_as_dict, charge, charges, total

TIMES = st.floats(0, 1e6)
RATES = st.floats(0, 100)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    moments = sorted(draw(st.lists(TIMES, min_size=2, max_size=9, unique=True)))
    created, *rest = moments
    segments = [Segment(start, end, draw(RATES)) for start, end in zip(rest[::2], rest[1::2], strict=False)]
    runs_on = draw(st.booleans())
    destroyed = None if runs_on else moments[-1]
    if runs_on and len(rest) % 2:
        segments.append(Segment(rest[-1], None, draw(RATES)))
    disk = draw(st.floats(8, 1000))
    return Account(1, "", created, destroyed, disk, draw(st.floats(0, 1)), tuple(segments))


@given(accounts(), st.floats(0, 2e6), st.floats(0, 2e6), st.floats(0, 2e6))
def test_a_period_costs_the_sum_of_its_parts(account: Account, one: float, two: float, three: float) -> None:
    first, middle, last = sorted((one, two, three))
    parts = charge(account, middle, first).amount + charge(account, last, middle).amount
    assert charge(account, last, first).amount == pytest.approx(parts, abs=1e-6)


@given(accounts(), st.floats(0, 2e6), st.floats(0, 1e6))
def test_a_bill_never_shrinks(account: Account, until: float, later: float) -> None:
    assert charge(account, until + later).amount >= charge(account, until).amount - 1e-9


@given(accounts())
def test_nothing_bills_before_creation_or_after_destruction(account: Account) -> None:
    assert charge(account, account.created_at).amount == 0
    if account.destroyed_at is not None:
        assert charge(account, account.destroyed_at + 1e6, account.destroyed_at).amount == pytest.approx(0)


@given(accounts(), st.floats(0, 2e6))
def test_the_disk_bills_in_every_state(account: Account, until: float) -> None:
    end = until if account.destroyed_at is None else min(until, account.destroyed_at)
    hours = max(0.0, end - account.created_at) / 3600
    disk = [item for item in charge(account, until).items if item.kind == "disk"]
    assert sum(item.amount for item in disk) == pytest.approx(hours * account.storage_cost * account.disk_gb / 720)


def test_compute_bills_only_while_it_runs_and_at_the_price_of_then() -> None:
    account = Account(7, "", 0, None, 10, 0.0, (Segment(0, 3600, 0.2), Segment(7200, None, 0.4)))
    assert charge(account, 9000).amount == pytest.approx(0.2 + 0.4 * 0.5)


def test_traffic_bills_both_ways_when_it_moved_and_whatever_ran() -> None:
    traffic = (Traffic(10, "bwd", 5, 0.02), Traffic(20, "bwd", 1, 0.02), Traffic(20, "bwu", 2, 0.03))
    account = Account(7, "", 0, 3600, 10, 0.0, (), traffic)
    lines = {item.kind: item for item in charge(account, 7200).items}
    assert (lines["bwd"].quantity, lines["bwd"].amount, lines["bwd"].metered) == (6, pytest.approx(0.12), True)
    assert lines["bwu"].amount == pytest.approx(0.06)
    assert charge(account, 15).amount == pytest.approx(0.1)
    assert charge(account, 7200, since=15).amount == pytest.approx(0.08)
    bill = bill_as_dict([charge(account, 7200)], 7200)
    assert bill["not_metered"] == []
    assert bill["total"] == pytest.approx(0.18)


def test_bandwidth_is_zero_and_says_that_it_is_not_metered() -> None:
    bill = bill_as_dict(charges([Account(7, "", 0, None, 10, 0.1, ())], 3600), 3600)
    lines = {item["type"]: item for item in bill["instances"][0]["items"]}
    assert bill["not_metered"] == ["bwd", "bwu"]
    assert lines["bwd"]["amount"] == 0
    assert lines["bwd"]["metered"] is False
    assert lines["disk"]["metered"] is True


@given(st.lists(accounts(), max_size=4), st.floats(0, 2e6))
def test_the_total_is_the_sum_of_the_lines(several: list[Account], now: float) -> None:
    lines = charges(several, now)
    bill = bill_as_dict(lines, now)
    assert bill["total"] == pytest.approx(sum(item["amount"] for one in bill["instances"] for item in one["items"]))
    assert total(lines) == bill["total"]

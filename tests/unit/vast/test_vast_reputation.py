# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reputation: what the journal tells of machines, weighed against the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offer_search import reputation_of
from ansible_collections.tenant.gpu.plugins.module_utils.vast.reputation import (
    NO_EXPERIENCE,
    Experience,
    Reputation,
    from_journal,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-21T12:00:00Z"


def line(verb: str, hour: int, provider_id: str = "500", **fields: Any) -> dict[str, Any]:
    at = f"2026-11-20T{hour:02d}:00:00Z"
    return {"kind": "effect", "verb": verb, "at": at, "provider_id": provider_id, **fields}


def rented(hour: int, provider_id: str = "500", **fields: Any) -> dict[str, Any]:
    return line("rent", hour, provider_id, **{"machine_id": 7, "market": "interruptible", **fields})


def test_a_machine_that_runs_and_is_outbid_is_counted_by_the_hour() -> None:
    lines = [rented(1), line("admitted", 1), line("start", 4, bid=0.3), line("destroy", 11, why="")]
    assert from_journal(lines, NOW).machines == {7: Experience(boots=1, hours=10, outbids=1)}


def test_what_we_stopped_ourselves_is_neither_outbid_nor_hours() -> None:
    lines = [rented(1), line("stop", 3), line("start", 8, bid=0.3), line("destroy", 11)]
    assert from_journal(lines, NOW).machines == {7: Experience(boots=1, hours=5)}
    assert from_journal(lines[:2], NOW).machines == {7: Experience(boots=1, hours=2)}


@pytest.mark.parametrize("end", [line("rejected", 2), line("destroy", 2, why="it stayed loading for 900 s")])
def test_a_box_that_was_given_back_is_a_failed_boot(end: dict[str, Any]) -> None:
    assert from_journal([rented(1), end], NOW).machines == {7: Experience(boots=1, failed_boots=1)}


def test_a_box_that_vanished_does_not_count_as_running_ever_since() -> None:
    assert from_journal([rented(1), line("receipt", 3)], NOW).machines == {7: Experience(boots=1, hours=2)}


def test_an_on_demand_box_says_nothing_of_bids() -> None:
    lines = [rented(1, market="on-demand"), line("start", 4, bid=0.3), line("destroy", 9)]
    assert from_journal(lines, NOW).machines == {7: Experience(boots=1)}


def test_what_is_no_rental_is_passed_over() -> None:
    lines = [
        {**rented(1), "kind": "intent"},
        {**rented(1), "provider_id": ""},
        rented(1, machine_id=None),
        {**rented(1), "at": "yesterday"},
        {"kind": "effect"},
        line("destroy", 3, "never rented here"),
    ]
    assert from_journal(lines, NOW).machines == {}


def test_old_experience_is_forgotten() -> None:
    assert from_journal([rented(1)], "2026-12-19T00:00:00Z").machines
    assert not from_journal([rented(1)], "2026-12-21T12:00:00Z").machines


def test_without_experience_the_default_holds() -> None:
    for machine in (None, 7):
        assert NO_EXPERIENCE.boot_failure(machine, 0.2) == pytest.approx(0.2)
        assert NO_EXPERIENCE.outbid_rate(machine, 0.1) == pytest.approx(0.1)
        assert NO_EXPERIENCE.words(machine) == ""


def test_others_move_the_default_and_a_machine_moves_its_own() -> None:
    known = Reputation({7: Experience(4, 4, 24.0, 6), 8: Experience(20, 0, 240.0, 0)})
    others = 0.2 * 4 / (1 + 4)
    assert known.boot_failure(99, 0.2) == pytest.approx((1 + 0.2 * 4) / 6), "each of the two machines counts once"
    assert known.boot_failure(7, 0.2) == pytest.approx((4 + others * 4) / 8)
    assert known.outbid_rate(99, 1 / 12) == pytest.approx((6 * 4 / 24 + 24 / 12) / (4 + 4 + 24))
    assert known.boot_failure(8, 0.2) < known.boot_failure(99, 0.2) < known.boot_failure(7, 0.2)
    assert known.outbid_rate(8, 1 / 12) < known.outbid_rate(99, 1 / 12) < known.outbid_rate(7, 1 / 12)
    assert known.words(7) == "of 4 boots here 4 boots failed and 6 outbids in 24.0 h"


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=40), st.floats(0.0, 0.99))
def test_odds_stay_odds(boots: list[tuple[int, bool]], default: float) -> None:
    machines: dict[int, Experience] = {}
    for machine, failed in boots:
        machines[machine] = machines.get(machine, Experience()).plus(Experience(1, int(failed)))
    for machine in range(10):
        assert 0 <= Reputation(machines).boot_failure(machine, default) < 1


def test_no_journal_is_no_experience(tmp_path: Path) -> None:
    assert reputation_of(None) == NO_EXPERIENCE
    assert reputation_of(str(tmp_path / "none")) == NO_EXPERIENCE
    assert not (tmp_path / "none").exists()

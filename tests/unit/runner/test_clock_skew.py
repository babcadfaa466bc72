# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A controller whose clock is wrong, or is set while it works: nothing is concluded from that, and it is told."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, danger_clocks, power_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import clock_skew, risk, verdicts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.observe import Observer
from gpu_tenant.sight import Sight
from gpu_tenant.steady_clock import SteadyClock
from gpu_tenant.watched import Watched

HOUR = 3600.0
START = 1_700_000_000.0
NAME = "digits-1"
RENTED = verdicts.LedgerWord(rented=True)


@dataclass
class Machine:
    """A controller: the clock that people and NTP set, and the one that nobody sets."""

    wall: float = START
    up: float = 5000.0
    boot_id: str = "boot-1"

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds

    def reboot(self, seconds: float) -> None:
        self.wall += seconds
        self.up, self.boot_id = 10.0, "boot-2"

    def process(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.up, self.boot_id)


def loading(sight: Sight) -> verdicts.Verdict:
    sight.take(Observation(NAME, "now", "loading"))
    return verdicts.verdict(sight.provider, sight.box, RENTED)


@pytest.mark.parametrize("step", [HOUR, 400 * 24 * HOUR, -HOUR, -400 * 24 * HOUR])
def test_a_clock_that_is_set_does_not_make_a_box_stuck_nor_keeps_it_from_being(step: float) -> None:
    machine = Machine()
    sight = Sight(machine.process(), brought_up=True)
    assert loading(sight).name == verdicts.STARTING
    machine.wall += step
    machine.pass_(60.0)
    assert verdicts.verdict(sight.provider, sight.box, RENTED).name == verdicts.STARTING, "the word is not too old"
    assert loading(sight).name == verdicts.STARTING
    machine.pass_(verdicts.STUCK_S)
    assert loading(sight).name == verdicts.LOADING_STUCK


def test_by_the_clock_that_people_set_it_would() -> None:
    """So what it is counted by is what holds it up."""
    machine = Machine()
    sight = Sight(lambda: machine.wall, brought_up=True)
    loading(sight)
    machine.wall += HOUR
    assert loading(sight).name == verdicts.LOADING_STUCK


@pytest.mark.parametrize("step", [HOUR, 400 * 24 * HOUR, -HOUR, -400 * 24 * HOUR])
def test_nor_where_it_is_set_between_two_watches(step: float) -> None:
    machine = Machine()
    first = Sight(machine.process(), brought_up=True)
    loading(first)
    known = json.loads(json.dumps(first.as_dict()))
    machine.wall += step
    machine.pass_(60.0)
    second = Sight(machine.process(), brought_up=True)
    second.remember(known)
    assert loading(second).name == verdicts.STARTING
    assert second.provider.unchanged_s == pytest.approx(60.0)
    machine.pass_(verdicts.STUCK_S)
    assert loading(second).name == verdicts.LOADING_STUCK


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_that_a_pull_brought_nothing_is_known_to_the_next_watch_although_it_is_set(tmp_path: Path, step: float) -> None:
    machine = Machine()
    host = BoxHost(NAME, {"tenant_project": "demo", "tenant_state_dir": str(tmp_path)})
    first = Watched([host], "", machine.process())
    assert first.as_dict()["nothing_came_at"] is None, "JSON has no infinity"
    first.nothing_came_at = first.clock()
    known = json.loads(json.dumps(first.as_dict()))
    machine.wall += step
    machine.pass_(60.0)
    second = Watched([host], "", machine.process())
    second.remember(known)
    assert second.clock() - second.nothing_came_at == pytest.approx(60.0)
    second.remember({**known, "nothing_came_at": "soon"})
    assert second.nothing_came_at == -math.inf


def test_after_a_reboot_it_is_counted_by_what_people_set_and_never_from_the_future() -> None:
    machine = Machine()
    first = Sight(machine.process(), brought_up=True)
    first.take(Observation(NAME, "now", "absent"))
    known = first.as_dict()
    machine.reboot(300.0)
    second = Sight(machine.process(), brought_up=True)
    second.remember(known)
    assert second.absences == 1
    assert second.provider.unchanged_s == pytest.approx(300.0)
    machine.wall = START - HOUR
    third = Sight(machine.process(), brought_up=True)
    third.remember(known)
    assert (third.absences, third.provider.unchanged_s) == (0, 0.0), "it costs a second look"


@pytest.mark.parametrize("mark", [None, 7, {}, {"boot_id": "boot-1"}, {"boot_id": "boot-1", "base": "x", "passed": 1}])
def test_a_mark_that_makes_no_sense_moves_nothing(mark: Any) -> None:
    assert Machine().process().moved_since(mark) is None


# --- told -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "said"),
    [(0.0, ""), (29.0, ""), (-29.0, ""), (3 * HOUR, "3 h 0 min ahead of its provider's"), (-90.0, "1 min 30 s behind")],
)
def test_a_clock_that_its_provider_does_not_agree_with_is_told(ahead: float, said: str) -> None:
    told = clock_skew.words(START, START + ahead)
    assert bool(told) == bool(said)
    assert said in told
    assert not clock_skew.words(None, START)


def test_it_is_told_once_for_each_account() -> None:
    class Client:
        def __init__(self, account: str, now: float) -> None:
            self.account, self._now = account, now

        def provider_now(self) -> float:
            return self._now

    heard: list[str] = []
    observer = Observer([], "")
    observer.on_skew = heard.append
    wrong = [(Client("a", START), []), (Client("b", START), [])]
    observer.listings = wrong  # type: ignore[assignment]  # play the clients
    for _look in range(3):
        observer._compare_clocks()
    assert len(heard) == 2


# --- money ----------------------------------------------------------------------------------------------------------

NOW = datetime.datetime(2026, 11, 21, 20, tzinfo=datetime.UTC)
RATES = {"price_per_hour": 0.5, "stopped_per_hour": 0.1}


def text(hours_ago: float) -> str:
    return records.utc_text(NOW - datetime.timedelta(hours=hours_ago))


def accrued(verbs: list[str], hours_ago: list[float]) -> tuple[float | None, str]:
    lines = [
        {"kind": "effect", "verb": verb, "at": text(hours), "project": "p", "box": NAME, "provider_id": "7", **RATES}
        for verb, hours in zip(verbs, hours_ago, strict=True)
    ]
    machines = list(accrual.acts_by_machine(lines).values())
    assert len(machines) == 1
    held, state = accrual.intervals(machines[0], records.utc_text(NOW))
    assert all(interval.hours >= 0 for interval in held)
    return accrual.total(held), state


SKEW = 24.0


@given(
    st.lists(st.floats(0.0, 100.0), min_size=2, max_size=2),
    st.lists(st.floats(-SKEW, SKEW), min_size=3, max_size=3),
)
def test_what_it_cost_is_off_by_no_more_than_the_clocks_and_the_state_not_at_all(
    spans: list[float], skews: list[float]
) -> None:
    verbs = ["rent", "stop", "seen-started"]
    true = [sum(spans), spans[1], 0.0]
    honest, _state = accrued(verbs, true)
    told, state = accrued(verbs, [moment - skew for moment, skew in zip(true, skews, strict=True)])
    assert state == accrual.RUNNING
    assert honest is not None
    assert told is not None
    assert told >= 0.0
    seconds_of_rounding = 0.01
    assert abs(told - honest) <= 3 * 2 * SKEW * RATES["price_per_hour"] + seconds_of_rounding


def test_a_stop_by_a_clock_that_was_set_back_ends_the_rental_of_before() -> None:
    """By time alone the rental would come last, and the machine would cost for ever."""
    told, state = accrued(["rent", "stop"], [1.0, 5.0])
    assert state == accrual.STOPPED
    assert told == pytest.approx(1.0 * 0.1)


def test_a_pull_that_is_still_to_come_protects_nothing(vast_item: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    host = BoxHost(NAME, {"platform_durable_kind": "pull"})
    raw = {"cells": [{"cell": "main", "state": "running", "running_s": 5000.0}]}
    seen = Observation(NAME, "now", "running", vast_item, contact="answered", run=RunView("running", raw=raw))
    monkeypatch.setattr(records, "utc_now", lambda: text(0.0))
    assert risk.at_risk_s(host, seen, text(0.1), None) == pytest.approx(360.0)
    assert risk.at_risk_s(host, seen, text(-24.0), None) == 5000.0
    assert risk.at_risk_s(host, seen, text(-0.002), None) == 0.0, "clocks of controllers differ by some seconds"


def test_a_stop_that_is_still_to_come_leaves_no_more_time_than_the_platform_gives() -> None:
    clock = {"after": "15d", "effect": "the box is released", "starts_at": "stopped"}
    (told,) = danger_clocks.countdown([clock], "stopped", text(-48.0), NOW)
    assert told["left_s"] == 15 * 24 * HOUR


# --- the gate's records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_h", "is_believed"), [(24.0, False), (0.002, True)])
def test_law_2_a_start_is_seen_although_the_stop_is_noted_for_tomorrow(
    tmp_path: Path, ahead_h: float, is_believed: bool
) -> None:
    """Else a seal of before the stop would be believed of a box that has worked since."""
    store, identity = StateStore(str(tmp_path)), BoxIdentity("demo", NAME, 1, "7")
    now = datetime.datetime.now(datetime.UTC)
    later = records.utc_text(now + datetime.timedelta(hours=ahead_h))
    stopping = {"since": later, "until": later}
    store.update_box("demo", NAME, 1, provider_id="7", parked_at=later, stopping=stopping)
    power_record.note_seen(store, identity, "running", "running", records.utc_text(now))
    record = power_record.read(store, identity)
    assert record is not None
    assert (record["parked_at"] is not None, record["stopping"] is not None) == (is_believed, is_believed)

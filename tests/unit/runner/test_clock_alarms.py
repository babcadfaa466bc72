# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A danger clock that passes its alarm is said once for its box, whoever watches, and again after it was reset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.danger_clocks import ALARM_S

from gpu_tenant import metrics
from gpu_tenant.alerts import Alerts
from gpu_tenant.clock_alarms import Changes, ClockAlarms, changes

RELEASE, MONEY = ("a", "is released"), ("account 1", "is unpaid")


def clock(left_s: int | None, effect: str = "is released") -> dict[str, Any]:
    left = "unknown" if left_s is None else f"{left_s} s"
    return {"effect": effect, "left_s": left_s, "left": left, "alarm": left_s is not None and left_s < ALARM_S}


SOON, LATE, UNKNOWN = clock(60), clock(10 * ALARM_S), clock(None)


@pytest.mark.parametrize(
    ("said", "told", "new", "over", "standing"),
    [
        ((), {"a": [LATE]}, (), (), ()),
        ((), {"a": [SOON]}, (RELEASE,), (), (RELEASE,)),
        ((), {"a": [UNKNOWN]}, (), (), ()),
        ((), {"a": None}, (), (), ()),
        ((), {"a": [clock(-5)]}, (RELEASE,), (), (RELEASE,)),
        ((), {"a": [SOON, LATE]}, (RELEASE,), (), (RELEASE,)),
        ((RELEASE,), {"a": [SOON]}, (), (), (RELEASE,)),
        ((RELEASE,), {"a": [LATE]}, (), (RELEASE,), ()),
        ((RELEASE,), {"a": []}, (), (RELEASE,), ()),
        ((RELEASE,), {"a": [UNKNOWN]}, (), (), (RELEASE,)),
        ((RELEASE,), {"a": None}, (), (), (RELEASE,)),
        ((RELEASE,), {"b": [SOON]}, (("b", "is released"),), (), (("b", "is released"),)),
        ((RELEASE,), {"a": [clock(60, "its rental ends")]}, (("a", "its rental ends"),), (RELEASE,), None),
        ((RELEASE, MONEY), {"a": [SOON], "account 1": [clock(None, "is unpaid")]}, (), (), (RELEASE, MONEY)),
    ],
)
def test_what_a_look_changes(said: Any, told: Any, new: Any, over: Any, standing: Any) -> None:
    found = changes(said, told)
    assert tuple(found.new) == new
    assert found.over == over
    assert found.standing == frozenset(new if standing is None else standing)


class Person:
    """What somebody hears; a webhook that is down takes nothing."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.alerts = Alerts("", lambda box, text: self.heard.append((box, text)))
        self.is_reached = True
        tell = self.alerts.tell

        def told(*words: Any, **facts: Any) -> bool:
            return tell(*words, **facts) and self.is_reached

        self.alerts.tell = told  # type: ignore[method-assign]  # a webhook that can be down


def test_every_watch_of_a_cron_job_together_says_it_once(tmp_path: Path) -> None:
    person, memory = Person(), tmp_path / "vision.clocks.json"
    for _start in range(3):
        watch = ClockAlarms(person.alerts, memory)
        watch.take({"a": [SOON]})
        assert watch.standing == {RELEASE}, "the exit code tells of it as long as it lasts"
    assert [box for box, _text in person.heard] == ["a"]
    assert "is released in 60 s; nothing was changed" in person.heard[0][1]
    ClockAlarms(person.alerts, memory).take({"a": [LATE]})
    ClockAlarms(person.alerts, memory).take({"a": [clock(-1)]})
    assert "is released is overdue" in person.heard[1][1]


def test_an_alarm_that_nobody_got_is_said_again(tmp_path: Path) -> None:
    person, memory = Person(), tmp_path / "clocks.json"
    watch = ClockAlarms(person.alerts, memory)
    person.is_reached = False
    watch.take({"a": [SOON]})
    assert not memory.exists()
    person.is_reached = True
    watch.take({"a": [SOON]})
    watch.take({"a": [SOON]})
    assert len(person.heard) == 2


def test_two_watches_of_one_project_do_not_undo_each_others_word(tmp_path: Path) -> None:
    person, memory = Person(), tmp_path / "clocks.json"
    one, other = ClockAlarms(person.alerts, memory), ClockAlarms(person.alerts, memory)
    for _round in range(2):
        one.take({"a": [SOON]})
        other.take({"b": [SOON]})
    assert [box for box, _text in person.heard] == ["a", "b"]
    assert (one.standing, other.standing) == ({RELEASE}, {("b", "is released")})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '[["a"]]'])
def test_a_damaged_memory_says_everything_once_more(tmp_path: Path, text: str) -> None:
    person, memory = Person(), tmp_path / "clocks.json"
    memory.write_text(text)
    ClockAlarms(person.alerts, memory).take({"a": [SOON]})
    assert len(person.heard) == 1
    assert json.loads(memory.read_text()) == [list(RELEASE)]


def test_nothing_new_is_nothing() -> None:
    assert changes([], {}) == Changes({}, (), frozenset())


def test_the_textfile_has_one_series_for_each_clock() -> None:
    row = {"project": "p", "box": "a", "run": "r", "verdict": "stopped", "countdowns": [SOON, LATE, UNKNOWN]}
    lines = metrics.text_of([row], 1.0, {"account 1": clock(7, "is unpaid")}).splitlines()
    found = [line for line in lines if line.startswith("gpu_tenant_clock_left_seconds")]
    assert found == [
        'gpu_tenant_clock_left_seconds{project="p",box="a",run="r",clock="is released"} 60',
        'gpu_tenant_clock_left_seconds{account="account 1",clock="is unpaid"} 7',
    ]

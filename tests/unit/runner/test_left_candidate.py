# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a run leaves behind on the candidate that it was taken from, as ``watch`` looks after it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from watch_scene import AWAY, Account, Scene

from gpu_tenant import exit_codes, watched

HOUR_S = 3600.0
RESTS = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped"}


def ago(hours: float) -> str:
    return records.utc_text(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours))


def replaced(scene: Scene, name: str, hours: float) -> str:
    """The machine of a box comes to rest, and another one took its place so long ago; its provider id."""
    old = scene.accounts[name].rows.pop(name)
    old.update(RESTS)
    scene.rent(name)
    scene.accounts[name].rows[f"{name}-old"] = old
    scene.store.update_box("demo", name, scene.store.last_generation("demo", name), admitted_at=ago(hours))
    return str(old["id"])


@pytest.fixture
def taken(make: Callable[..., Scene]) -> Scene:
    """A run that works on b2 and was on b1, whose machine rests; an account each."""
    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True)
    scene.rent("b1", run="")
    scene.set_state("b1", **RESTS)
    scene.rent("b2")
    return scene


def test_what_rests_there_has_a_row_and_nothing_is_done_to_it(taken: Scene) -> None:
    watching = taken.begin()
    rows = taken.rounds(watching, 3)
    assert set(rows) == {"b1", "b2"}
    assert (rows["b2"]["verdict"], rows["b1"]["verdict"]) == ("running", "stopped")
    assert taken.played == []
    assert watching._kinds == {}
    assert any("run digits is on b2" in text for _kind, box, text in taken.said.texts if box == "b1")


def test_one_round_by_cron_sees_it_too(taken: Scene) -> None:
    assert set(taken.rounds(taken.begin(once=True))) == {"b1", "b2"}


def test_where_nothing_is_rented_there_is_no_row(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True)
    scene.rent("b2")
    assert set(scene.rounds(scene.begin(), 3)) == {"b2"}


def test_a_machine_that_was_replaced_there_is_dealt_with_at_its_deadline(taken: Scene) -> None:
    replaced(taken, "b1", hours=23)
    taken.set_state("b1", **RESTS)
    taken.boxes.runs["b1"] = ""
    taken.rounds(taken.begin(), 3)
    assert taken.played == [], "there is time"
    taken.store.update_box("demo", "b1", 2, admitted_at=ago(24.1))
    watching = taken.begin()
    taken.rounds(watching, 3)
    assert taken.played == [("harvest", "b1")]
    assert watching._kinds == {}
    taken.now += watched.SETTLE_AGAIN_S
    taken.rounds(watching, 1)
    assert taken.played == [("harvest", "b1")] * 2


def test_people_are_told_of_one_that_the_gate_keeps(taken: Scene) -> None:
    instance = replaced(taken, "b1", hours=25.1)
    taken.set_state("b1", **RESTS)
    taken.boxes.runs["b1"] = ""
    watching = taken.begin(once=True)
    assert watching.run() == exit_codes.of_kind("gate_refused")
    told = [text for kind, box, text in taken.said.texts if kind == "warning" and box == "b1"]
    assert (
        len([text for text in told if f"instance {instance} was replaced" in text and "--generation 1 --loss" in text])
        == 1
    )
    del taken.accounts["b1"].rows["b1-old"]
    watching = taken.begin()
    taken.rounds(watching, 2)
    assert watching._kinds == {}


def test_one_that_the_box_at_work_replaced_is_told_as_well(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    instance = replaced(scene, "b1", hours=25.1)
    watching = scene.begin()
    scene.rounds(watching, 2)
    assert watching._kinds == {"b1": "gate_refused"}
    assert any(f"instance {instance} was replaced" in text for _kind, _box, text in scene.said.texts)


def test_its_silence_says_nothing_of_the_run(taken: Scene) -> None:
    watching = taken.begin()
    taken.rounds(watching)
    taken.accounts["b1"].trouble = AWAY
    rows = taken.rounds(watching, 3)
    assert rows["b2"]["verdict"] == "running"
    assert rows["b1"]["action"] == "wait"
    assert taken.played == []


def test_a_run_that_goes_back_there_is_watched_once(taken: Scene) -> None:
    watching = taken.begin()
    taken.rounds(watching)
    (one,) = watching._watched
    one.next_candidate()
    rows = taken.rounds(watching, 2)
    assert sorted(rows) == ["b1", "b2"]
    assert rows["b1"]["run"] == "digits"
    assert set(json.loads((taken.workspace.root / "watch" / "demo.json").read_bytes())) == {"b1"}

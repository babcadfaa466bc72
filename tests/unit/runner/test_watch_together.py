# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rounds of ``watch`` over boxes that train as one: losing one replaces one, and all start together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from watch_scene import AWAY, Account, Scene

from gpu_tenant import recoveries, watch
from gpu_tenant.playbooks import BoxFailure

ALL = "b1,b2,b3"


@pytest.fixture
def team(make: Callable[..., Scene]) -> Scene:
    """Three boxes at work."""
    scene = make([Account(letter * 64) for letter in "abc"], together=True)
    for name in ALL.split(","):
        scene.rent(name)
    return scene


def rungs(scene: Scene) -> list[tuple[str, str]]:
    """Boxes that something was tried for, and what."""
    return [(line["box"], line["rung"]) for line in Journal(scene.store).lines() if line["verb"] == recoveries.RECOVER]


def test_a_run_that_is_not_there_is_rented_and_started_at_once(make: Callable[..., Scene]) -> None:
    scene = make([Account(letter * 64) for letter in "abc"], together=True)
    rows = scene.rounds(scene.begin(), 2)
    assert scene.played == [("train", ALL)]
    assert {row["verdict"] for row in rows.values()} == {"running"}


def test_losing_one_box_replaces_that_one_and_starts_all(team: Scene) -> None:
    before = {name: team.accounts[name].rows[name]["id"] for name in ALL.split(",")}
    team.set_state("b2", actual_status="offline", machine_id=77)
    watching = team.begin()
    team.rounds(watching, 20)
    assert team.played == [("provision", "b2"), ("train", ALL)]
    assert rungs(team) == [("b2", "next_offer")]
    now = {name: team.accounts[name].rows[name]["id"] for name in ALL.split(",")}
    assert [name for name in now if now[name] != before[name]] == ["b2"]
    history = team.workspace.history("demo", "wide").lines()
    assert [line["box"] for line in history if line["kind"] == "interruption"] == ["b2"]


def test_what_is_only_started_again_takes_one_playbook(team: Scene) -> None:
    team.set_state("b3", actual_status="exited")
    team.rounds(team.begin(), 2)
    assert team.played == [("train", ALL)]
    assert rungs(team) == [("b3", "restart")]


def test_nothing_is_started_while_another_box_is_silent(team: Scene) -> None:
    team.set_state("b2", actual_status="exited")
    team.boxes.deaf.add("b3")
    watching = team.begin()
    rows = team.rounds(watching, 4)
    assert team.played == []
    assert rows["b2"]["action"] == "wait"
    said = [text for _kind, box, text in team.said.texts if box == "b2"]
    assert any("b3 cannot: the provider says that it runs" in text for text in said)
    team.boxes.deaf.clear()
    team.rounds(watching, 2)
    assert team.played == [("train", ALL)]


def test_a_box_of_the_run_outside_of_the_limit_is_told_and_nothing_is_rented(team: Scene) -> None:
    team.accounts["b2"].rows.clear()
    team.hosts = team.hosts[:2]
    watching = team.begin()
    rows = team.rounds(watching, 3)
    assert team.played == []
    assert rows["b2"]["action"] == "give_up"
    assert any("the run also needs b3" in text for _kind, _box, text in team.said.texts)
    assert watching._kinds["b2"] == "config"


def test_boxes_that_waited_in_vain_start_again_with_the_one_that_was_lost(team: Scene) -> None:
    team.boxes.runs.update(b1="failed by peers_absent", b3="failed by peers_absent")
    team.accounts["b2"].rows.clear()
    rows = team.rounds(team.begin(), 3)
    assert team.played[-1] == ("train", ALL)
    assert ("harvest", "b1") not in team.played
    assert sorted(rungs(team)) == [("b1", "restart"), ("b2", "next_offer"), ("b3", "restart")]
    assert {row["verdict"] for row in rows.values()} == {"running"}


def test_the_failure_of_one_ends_the_run_of_all(team: Scene) -> None:
    team.boxes.runs.update(b1="failed by code", b3="failed by peers_absent")
    team.accounts["b2"].rows.clear()
    rows = team.rounds(team.begin(), 3)
    assert ("train", ALL) not in team.played
    assert {("harvest", "b1"), ("harvest", "b3")} <= set(team.played)
    assert rows["b2"]["action"] == "give_up"


def test_what_is_done_is_harvested_by_one_playbook(team: Scene) -> None:
    team.boxes.runs.update(dict.fromkeys(ALL.split(","), "done"))
    team.rounds(team.begin(), 1)
    assert team.played == [("harvest", ALL)]


def test_nothing_else_is_done_to_a_box_while_the_others_start(team: Scene) -> None:
    team.accounts["b2"].rows.clear()
    watching = team.begin()
    team.rounds(watching, 1)  # gone is believed at the second word
    watching.round()
    held = set(watching._acting)
    watching.settle()
    assert held == set(ALL.split(","))


def test_a_start_that_does_not_succeed_is_tried_again_later(team: Scene) -> None:
    team.refuse[f"train {ALL}"] = BoxFailure("b1", "probe_refused", "run wide starts on no box")
    team.set_state("b2", actual_status="exited")
    watching = team.begin()
    watching.round()
    watching.settle()
    watching.round()
    watching.settle()
    assert team.played == [("train", ALL)], "not again before its time"
    said = [text for kind, box, text in team.said.texts if (kind, box) == ("warning", "b2")]
    assert said == ["restart did not succeed: run wide starts on no box; again in 15 s at the soonest"]
    team.refuse.clear()
    team.now += watch.RETRY_MOST_S
    rows = team.rounds(watching, 2)
    assert team.played == [("train", ALL)] * 2
    assert rows["b2"]["verdict"] == "running"


def test_an_outage_of_the_provider_starts_nobody_again(team: Scene) -> None:
    watching = team.begin()
    team.rounds(watching, 1)
    for account in team.accounts.values():
        account.trouble = AWAY
    team.rounds(watching, 5)
    assert team.played == []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A ``watch`` over boxes of one project that has a budget: what people hear of it, once, and what is done by it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from watch_scene import Account, Scene

from gpu_tenant import decide, recoveries

SPENT_H = 8


@pytest.fixture
def scene(make: Callable[..., Scene], request: pytest.FixtureRequest) -> Scene:
    """Two runs at work, in a project that spent $8 on a box that is gone."""
    made = make([Account("a" * 64), Account("b" * 64)], tenant_budget_usd=request.param)
    for name in ("b1", "b2"):
        made.rent(name)
    earlier = {"project": "demo", "box": "earlier", "generation": 1, "provider_id": "17"}
    journal = Journal(made.store)
    journal.append("effect", "rent", **earlier, price_per_hour=1.0)
    journal.append("effect", "destroy", **earlier)
    since = records.utc_text(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=SPENT_H))
    rent, destroy = journal.lines()
    lines = [{**rent, "at": since}, destroy]
    Path(made.store.journal_path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def told(scene: Scene) -> list[str]:
    return [text for kind, _box, text in scene.said.texts if kind == "warning" and "project demo" in text]


@pytest.mark.parametrize(
    ("scene", "says", "code"),
    [(50.0, "", 0), (9.5, "soon no other box is rented for it", 23), (8.4, "no other box is rented for it", 23)],
    indirect=["scene"],
)
def test_people_hear_in_one_round_how_far_the_project_is_through_its_budget(scene: Scene, says: str, code: int) -> None:
    assert scene.begin(once=True).run() == code
    # Boxes are all judged before the first of them is told of, so that each of them may say it in that round.
    found = told(scene)
    assert len(set(found)) == bool(says), found
    for _start in range(2):
        # By cron: each time another process.
        assert scene.begin(once=True).run() == code
    assert told(scene) == found, "it was said, and is not said again"
    assert all("project demo has spent $8.00 of its budget of" in text for text in found)
    assert all(says in text for text in found)
    assert scene.played == [], "it is told, and the runs go on"


@pytest.mark.parametrize("scene", [8.0], indirect=True)
def test_all_of_the_project_is_pulled_and_parked_once_its_money_is_gone(scene: Scene) -> None:
    assert scene.begin(once=True).run() == 23
    assert sorted(scene.played) == [("harvest", "b1"), ("harvest", "b2"), ("provision", "b1"), ("provision", "b2")]
    states = {name: account.rows[name]["actual_status"] for name, account in scene.accounts.items()}
    assert states == {"b1": "exited", "b2": "exited"}
    scene.rounds(scene.begin(), 3)
    assert len(scene.played) == 4, "what is parked stays parked"


@pytest.mark.parametrize("scene", [8.0], indirect=True)
@pytest.mark.parametrize("sick", ["bare", "preempted", "silent", "outbid", "exited", "loading"])
def test_a_box_that_is_not_at_work_is_parked_as_well_once_the_money_is_gone(scene: Scene, sick: str) -> None:
    """What it bills does not hang on whether it does anything."""
    scene.boxes.runs["b1"] = {"bare": "", "preempted": "preempted"}.get(sick, "running")
    scene.boxes.deaf |= {"b1"} if sick == "silent" else set()
    if sick == "outbid":
        scene.set_state("b1", actual_status="exited", cur_state="stopped")
    elif sick in ("exited", "loading"):
        scene.set_state("b1", actual_status=sick)
    scene.rounds(scene.begin(), 3)
    assert scene.played.count(("provision", "b1")) == 1
    row = scene.accounts["b1"].rows["b1"]
    assert (row["actual_status"], row["intended_status"]) == ("exited", "stopped")


@pytest.mark.parametrize("scene", [50.0], indirect=True)
def test_people_hear_that_a_box_that_was_given_up_bills_on(scene: Scene) -> None:
    """It is theirs to stop: somebody may be at work on it to see what is the matter."""
    scene.boxes.runs["b1"] = ""
    record = scene.store.rented_box("demo", "b1")
    for _try in range(decide.Limits().restart):
        identity = BoxIdentity("demo", "b1", record["generation"], record["provider_id"])
        again = decide.Action(decide.RESTART, "it needs a start")
        recoveries.begin(Journal(scene.store), identity, again, "run-b1", "running", None)
    row = scene.rounds(scene.begin(), 2)["b1"]
    assert (row["action"], scene.played) == (decide.GIVE_UP, [])
    (alert,) = [text for _kind, box, text in scene.said.texts if box == "b1" and "starts did not help; nothing" in text]
    assert "it bills until it is stopped (gpu-tenant provision -l b1 -e tenant_state=parked)" in alert


@pytest.mark.parametrize("scene", [8.4], indirect=True)
def test_nothing_is_rented_for_a_run_whose_project_has_no_room(scene: Scene) -> None:
    del scene.accounts["b1"].rows["b1"]
    scene.rounds(scene.begin(), 4)
    assert scene.played == []
    assert any(
        "the budget of its project has no room for another box" in text for _kind, _box, text in scene.said.texts
    )

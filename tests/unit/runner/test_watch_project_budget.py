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
from watch_scene import Account, Scene

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


@pytest.mark.parametrize("scene", [8.4], indirect=True)
def test_nothing_is_rented_for_a_run_whose_project_has_no_room(scene: Scene) -> None:
    del scene.accounts["b1"].rows["b1"]
    scene.rounds(scene.begin(), 4)
    assert scene.played == []
    assert any(
        "the budget of its project has no room for another box" in text for _kind, _box, text in scene.said.texts
    )

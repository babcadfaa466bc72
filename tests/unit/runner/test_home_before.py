# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run whose spec was edited while it trained, or after it came home: on its sealed box nothing begins by itself, and
what a person began on purpose is recovered like any other."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from watch_scene import Account, Scene

from gpu_tenant import exit_codes, watch

ALL = "b1,b2,b3"


def _sha(scene: Scene) -> str:
    return str(run_spec.load_run_spec(scene.hosts[0].variables["tenant_run"])["spec_sha256"])


def _edit(scene: Scene, before: str = "train.py", after: str = "train.py\n- --lr=0.1") -> None:
    path = Path(scene.hosts[0].variables["tenant_run"])
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def _came_home(scene: Scene, spec_sha256: str, name: str = "b1", generation: int = 1, **facts: Any) -> None:
    run_id = Path(scene.hosts[0].variables["tenant_run"]).parent.name
    told = {"box": name, "generation": generation, "spec_sha256": spec_sha256, "complete": True}
    path = scene.store.receipt_path("demo", run_id, name, generation)
    records.write_record(path, "receipt", {**told, "verified_at": records.utc_now(), **facts})


def _park(scene: Scene, name: str = "b1") -> None:
    scene.set_state(name, actual_status="exited", intended_status="stopped", cur_state="stopped")
    scene.store.update_box("demo", name, 1, parked_at=records.utc_now())


def _warnings(scene: Scene) -> list[str]:
    return [text for kind, _box, text in scene.said.texts if kind == "warning"]


@pytest.fixture
def edited(make: Callable[..., Scene]) -> Scene:
    """A run whose spec was edited while it trained, for the next experiment. Its harvest brings home what trained."""
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    before = scene.boxes.specs["b1"] = _sha(scene)
    scene.rounds(scene.begin(), 2)
    _edit(scene)

    def come_home() -> None:
        _came_home(scene, before)
        _park(scene)

    scene.on_play["harvest b1"] = come_home
    return scene


def test_an_edit_while_the_run_trains_begins_nothing_once_it_is_home(edited: Scene) -> None:
    watching = edited.begin()
    assert edited.rounds(watching)["b1"]["action"] == "wait"
    edited.boxes.runs["b1"] = "done"
    row = edited.rounds(watching, 12)["b1"]
    assert (edited.played, row["action"], row["generation"]) == ([("harvest", "b1")], "wait", 1)
    (told,) = _warnings(edited)
    assert "its spec or code is another since, so nothing is started for it" in told
    assert "give it another run id, or run gpu-tenant train with -e deploy_unseal=true by hand" in told
    _edit(edited, "\n- --lr=0.1", "\n- --lr=0.2")
    assert edited.rounds(watching, 2)["b1"]["action"] == "wait"
    _edit(edited, "\n- --lr=0.2", "")
    assert edited.rounds(watching, 2)["b1"]["action"] == "finish", "what the spec says is home"
    assert (watching._kinds, len(_warnings(edited)), len(edited.played)) == ({}, 1, 1)


def test_nor_does_it_by_cron(edited: Scene) -> None:
    edited.boxes.runs["b1"] = "done"
    assert edited.begin(once=True).run() == 0
    assert {edited.begin(once=True).run() for _tick in range(6)} == {exit_codes.of_kind("config")}
    assert edited.played == [("harvest", "b1")]


def test_a_box_that_rests_at_home_is_not_started_for_an_edit_by_a_watch_that_begins(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1", run="done")
    _came_home(scene, _sha(scene))
    _park(scene)
    _edit(scene)
    assert scene.rounds(scene.begin(), 3)["b1"]["action"] == "wait"
    assert (scene.played, len(_warnings(scene))) == ([], 1)


@pytest.mark.parametrize("candidates", [False, True])
def test_no_box_is_rented_for_an_edit_once_the_one_of_the_run_was_given_back(
    make: Callable[..., Scene], candidates: bool
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)], candidates=["b2", "b1"] if candidates else ())
    scene.hosts = scene.hosts if candidates else scene.hosts[:1]
    scene.store.update_box("demo", "b1", 1, provider_id="7", destroyed_at="2026-01-01T00:00:00Z")
    _came_home(scene, _sha(scene))
    _edit(scene)
    scene.rounds(scene.begin(), 3)
    assert (scene.played, len(_warnings(scene))) == ([], 1)


@pytest.mark.parametrize("parks", [True, False])
def test_a_harvest_that_did_not_stop_the_box_is_repeated_only_for_the_stop(edited: Scene, parks: bool) -> None:
    edited.hosts[0].variables["harvest_park"] = str(parks).lower()  # type: ignore[index]  # it is a plain dict
    edited.store.update_box("demo", "b1", 1, created_at="2026-01-01T00:00:00Z")
    edited.boxes.runs["b1"] = "done"
    come_home = edited.on_play["harvest b1"]
    before = edited.boxes.specs["b1"]
    edited.on_play["harvest b1"] = lambda: _came_home(edited, before)
    watching = edited.begin()
    edited.rounds(watching)
    edited.on_play["harvest b1"] = come_home
    assert edited.rounds(watching, 4)["b1"]["action"] == "wait"
    assert len(edited.played) == 1 + parks


@pytest.mark.parametrize("by_cron", [False, True])
def test_an_edit_that_a_person_trains_on_the_same_box_is_recovered(make: Callable[..., Scene], by_cron: bool) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    earlier = records.utc_text(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))
    _came_home(scene, _sha(scene), verified_at=earlier)
    _edit(scene)
    scene.boxes.specs["b1"] = _sha(scene)

    def a_round(watching: watch.Watch) -> Any:
        watching = scene.begin() if by_cron else watching
        return scene.rounds(watching)["b1"]["action"]

    watching = scene.begin()
    assert a_round(watching) == "wait"
    scene.set_state("b1", actual_status="exited")
    assert a_round(watching) == "restart"
    assert scene.played == [("train", "b1")]


def test_an_edit_that_goes_on_on_a_newer_machine_is_recovered(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    _came_home(scene, _sha(scene))
    _edit(scene)
    scene.rent("b1")
    scene.set_state("b1", actual_status="exited")
    assert scene.rounds(scene.begin())["b1"]["action"] == "restart"
    assert scene.played == [("train", "b1")]


def test_a_share_of_an_earlier_spec_holds_back_no_other_box_of_the_run(make: Callable[..., Scene]) -> None:
    scene = make([Account(letter * 64) for letter in "abc"], together=True)
    for name in ALL.split(","):
        scene.rent(name)
    _came_home(scene, _sha(scene), name="b1")
    _edit(scene)
    scene.set_state("b2", actual_status="exited")
    scene.rounds(scene.begin(), 2)
    assert scene.played == [("train", ALL)]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``go`` and ``watch`` on an empty state store: what is finished at home is not rented for, and a box of ours that
trains is adopted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from finished_run import MODEL, bring_home
from go_world import SPEC, Said, World
from watch_scene import Account, Scene

from gpu_tenant import account, decide, exit_codes, fleet, status
from gpu_tenant.hosts import BoxHost
from gpu_tenant.workspace import History

# --- go -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(world: World, tmp_path: Path) -> Path:
    world.variables = {"tenant_results_dir": str(tmp_path / "results")}
    return tmp_path / "results"


@pytest.mark.parametrize("names", [("b1",), ("b2", "b1")])
def test_go_rents_nothing_for_a_run_that_is_home(
    world: World, said: Said, drive: Callable[..., Any], results: Path, names: tuple[str, ...]
) -> None:
    root = bring_home(results, "digits", SPEC["spec_sha256"])
    for _time in range(2):
        result = drive(names)
        assert world.played == []
        assert result.box == "b1"
        assert result.receipt["copies"][0]["uri"] == root.as_uri()
        assert result.receipt["rebuilt"]["from"] == str(root / "manifest.json")
    assert any("receipt is lost" in event.text for event in said.events)


def test_its_account_reads_everything_again_and_says_that_there_is_no_receipt(
    world: World, drive: Callable[..., Any], results: Path, tmp_path: Path
) -> None:
    root = bring_home(results, "digits", SPEC["spec_sha256"])
    drive()
    spec = {**SPEC, "artifacts": [{"glob": "*.json", "role": "checkpoint", "loader": "json"}], "evaluate": []}
    history = History(tmp_path / "history" / "demo.digits.jsonl")
    drawn = account.draw_up(world.store, "demo", spec, history, None)
    assert drawn.verified, drawn.unverified
    assert (drawn.files_verified, drawn.where) == (2, str(root))
    assert any(line.startswith("no receipt: its receipt was lost") for line in account._tell_evidence(drawn))
    (root / MODEL).write_bytes(b"wEights")
    assert "model.bin" in str(account.draw_up(world.store, "demo", spec, history, None).unverified)


def test_go_does_not_rent_where_what_lies_at_home_cannot_be_proven(
    world: World, drive: Callable[..., Any], results: Path
) -> None:
    root = bring_home(results, "digits", SPEC["spec_sha256"])
    (root / MODEL).unlink()
    with pytest.raises(TenantFailure, match=r"model\.bin") as caught:
        drive()
    assert caught.value.kind == "evidence_missing"
    assert world.played == []
    root.rename(root.with_name("g1.old"))
    drive()
    assert world.names == ["train", "harvest"]


def test_go_rents_as_before_where_nothing_of_it_lies_at_home(
    world: World, drive: Callable[..., Any], results: Path
) -> None:
    bring_home(results, "digits", "0" * 64)
    drive()
    assert world.names == ["train", "harvest"]
    assert not Path(world.store.root, "results-at-home").exists()


def test_go_harvests_a_finished_box_that_is_there_and_so_gets_a_receipt(
    world: World, drive: Callable[..., Any], results: Path
) -> None:
    bring_home(results, "digits", SPEC["spec_sha256"])
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    assert "rebuilt" not in drive().receipt
    assert world.names == ["harvest"]


# --- watch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(make: Callable[..., Scene], tmp_path: Path) -> Scene:
    return make([Account("a" * 64)], tenant_results_dir=str(tmp_path / "results"))


def test_watch_rents_nothing_for_a_run_that_is_home(scene: Scene, tmp_path: Path) -> None:
    watching = scene.begin()
    spec = watching._watched[0].spec
    bring_home(tmp_path / "results", spec["id"], spec["spec_sha256"])
    scene.rounds(watching, 3)
    scene.rounds(scene.begin(), 3)
    assert scene.played == []


def test_watch_says_what_it_cannot_prove_and_rents_nothing(scene: Scene, tmp_path: Path) -> None:
    watching = scene.begin()
    spec = watching._watched[0].spec
    root = bring_home(tmp_path / "results", spec["id"], spec["spec_sha256"])
    (root / MODEL).unlink()
    rows = scene.rounds(watching, 3)
    assert scene.played == []
    assert "model.bin" in rows["b1"]["why"]
    assert watching._kinds == {"b1": "evidence_missing"}


@pytest.mark.parametrize(("run", "verdict"), [("running", "running"), ("queued", "starting")])
def test_watch_once_with_an_empty_store_adopts_the_box_that_trains(scene: Scene, run: str, verdict: str) -> None:
    scene.rent("b1", run)
    shutil.rmtree(scene.store.root)
    for _time in range(2):
        watching = scene.begin(once=True)
        assert watching.run() == exit_codes.DONE
        assert scene.played == []
    rows = scene.rounds(scene.begin())
    assert rows["b1"]["verdict"] == verdict
    assert len(scene.accounts["b1"].rows) == 1


def test_watch_once_with_an_empty_store_harvests_the_box_that_has_finished(scene: Scene, tmp_path: Path) -> None:
    scene.rent("b1", "done")
    shutil.rmtree(scene.store.root)
    watching = scene.begin(once=True)
    spec = watching._watched[0].spec
    bring_home(tmp_path / "results", spec["id"], spec["spec_sha256"])
    watching.run()
    assert scene.played == [("harvest", "b1")], "it is there, so a receipt can be had from it"


def test_watch_with_an_empty_store_starts_a_stopped_box_of_ours_and_rents_none(scene: Scene) -> None:
    scene.rent("b1")
    scene.set_state("b1", **dict.fromkeys(("actual_status", "intended_status", "cur_state"), "stopped"))
    shutil.rmtree(scene.store.root)
    watching = scene.begin()
    watching.round()
    watching.settle()
    action = watching._watched[0].action
    assert action is not None
    assert action.kind in (decide.START, decide.RESTART)


class Dated(Account):
    def provider_now(self) -> float:
        return time.time()


@pytest.mark.parametrize(("generation", "spent"), [(1, pytest.approx(3.0, rel=0.01)), (2, None)])
def test_two_boxes_are_found_by_their_stamps_with_their_numbers_and_what_they_cost(
    make: Callable[..., Scene], generation: int, spent: float | None
) -> None:
    scene = make([Dated("a" * 64), Dated("b" * 64)])
    for _machine in range(generation):
        scene.rent("b1")
    scene.set_state("b1", start_date=time.time() - 36000, uptime_mins=600.0)
    scene.rent("b2")
    scene.set_state("b2", **dict.fromkeys(("actual_status", "intended_status", "cur_state"), "stopped"))
    scene.hosts[1] = BoxHost("b2", {**scene.hosts[1].variables, "tenant_state": "parked"})
    ids = {name: str(scene.accounts[name].rows[name]["id"]) for name in ("b1", "b2")}
    shutil.rmtree(scene.store.root)

    def told() -> dict[str, dict[str, Any]]:
        """As ``status`` tells it: nothing is written by it."""
        looked, known = scene.boxes.observe(each_alone=True), fleet.read(scene.hosts, "demo")[scene.store.root]
        return {host.name: status.row(host, looked[host.name], known) for host in scene.hosts}

    rows = told()
    assert {name: (row["provider"], row["provider_id"]) for name, row in rows.items()} == {
        "b1": ("running", ids["b1"]),
        "b2": ("stopped", ids["b2"]),
    }
    assert rows["b1"]["generation"] == generation
    assert [row["spent_usd"] for row in rows.values()] == [None, None], "unknown is not 0"
    assert not Path(scene.store.root).exists()

    watching = scene.begin(once=True)
    scene.boxes.remembers = True
    assert watching.run() == exit_codes.DONE
    assert scene.played == []
    assert scene.store.last_generation("demo", "b1") == generation
    for name, number in (("b1", generation), ("b2", 1)):
        assert (scene.store.read_box("demo", name, number) or {})["provider_id"] == ids[name]
    # By the ledger that is begun anew; an earlier machine's cost is in the provider's bill alone.
    assert told()["b1"]["spent_usd"] == spent
    watched = {row["box"]: row for row in scene.rounds(scene.begin()).values()}
    assert watched["b1"]["spent_usd"] == spent
    assert watched["b1"]["verdict"] == "running"


def test_a_damaged_record_is_no_lost_one(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    path = Path(scene.store.box_record_path("demo", "b1", 1))
    path.write_text("{")
    scene.boxes.remembers = True
    scene.boxes.observe(each_alone=True)
    assert path.read_text() == "{"

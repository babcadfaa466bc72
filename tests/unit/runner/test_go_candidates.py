# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""On which of several boxes ``go`` works, and how it leaves one for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from go_world import SPEC, Said, World

from gpu_tenant import candidates, decide, go, recoveries, recovering
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import BoxFailure
from gpu_tenant.sight import Sight


def test_nothing_to_rent_tries_the_next_candidate(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.trouble = [BoxFailure("", "no_offer", "nothing fits")]
    assert drive(("b1", "b2")).box == "b2"
    assert [(playbook, box) for playbook, box, _extra in world.played] == [
        ("train", "b1"), ("train", "b2"), ("harvest", "b2"),
    ]  # fmt: skip


def test_a_candidate_that_is_at_work_goes_first(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.provider["b2"], world.run_state["b2"] = "running", "running"
    assert drive(("b1", "b2")).box == "b2"
    assert world.names == ["harvest"]


@pytest.mark.parametrize("dark", [("b1", "b2"), ("b1",), ("b2",)])
def test_nothing_is_chosen_while_a_candidate_is_not_seen(
    world: World, drive: Callable[..., go.GoResult], dark: tuple[str, ...]
) -> None:
    looks = 0

    def come_back(name: str) -> None:
        nonlocal looks
        looks += 1
        world.dark = set(dark) if looks < 12 else set()

    world.provider["b2"], world.run_state["b2"], world.steps_per_look = "running", "running", 1
    world.on_look = come_back
    assert drive(("b1", "b2")).box == "b2"
    assert [(playbook, box) for playbook, box, _extra in world.played] == [("harvest", "b2")]
    assert looks > 12


def test_a_candidate_that_is_never_seen_ends_it_at_the_deadline_and_rents_nothing(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.dark = {"b2"}
    with pytest.raises(TenantFailure, match="b2 could not be looked at") as caught:
        drive(("b1", "b2"), deadline_s=600)
    assert (caught.value.exit_code, world.played) == (13, [])


def test_the_candidate_that_the_run_is_on_goes_before_one_that_is_rented_and_rests(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.provider["b1"] = "stopped"
    world.provider["b2"], world.run_state["b2"] = "running", "running"
    assert drive(("b1", "b2")).box == "b2"
    assert world.names == ["harvest"]


@pytest.mark.parametrize("state", [{}, {"destroyed_at": "2026-11-21T00:00:00Z", "lost": True}], ids=["open", "lost"])
def test_a_candidate_that_is_on_record_is_not_passed_over(
    world: World, drive: Callable[..., go.GoResult], state: dict[str, Any]
) -> None:
    world.store.update_box("demo", "b2", 1, provider_id="42", **state)
    drive(("b1", "b2"))
    assert world.played[0][:2] == ("train", "b2")


def _lost(world: World, run_id: str) -> None:
    """b2 is gone, and run ``run_id`` began to recover it."""
    world.store.update_box("demo", "b2", 1, provider_id="42")
    seen = Observation("b2", "now", "absent", denied=world.identity("b2"))
    recovering.begin(decide.Action(decide.NEXT_OFFER, "it is gone"), seen, world.store, "demo", run_id)
    assert gone_record.missed_box(world.store, "demo", "b2")


def _chosen_for_another_run(world: World, drive: Callable[..., go.GoResult]) -> str:
    world.played.clear()
    world.provider.clear()
    world.run_state.clear()
    world.step, world.trouble = 0, [BoxFailure("", "config", "stop here")]
    with pytest.raises(TenantFailure, match="stop here"):
        drive(("b1", "b2"), spec={**SPEC, "id": "other", "spec_sha256": "ef" * 32})
    return world.played[0][1]


def test_a_lost_box_whose_run_went_on_elsewhere_is_not_preferred_to_the_first_of_the_spec(
    world: World, drive: Callable[..., go.GoResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    _lost(world, "digits")
    world.trouble = [BoxFailure("", "no_offer", "nothing fits")]
    assert drive(("b2", "b1")).box == "b1"
    monkeypatch.setattr(recoveries, "WINDOW_S", 0.0)  # another day
    assert _chosen_for_another_run(world, drive) == "b1"
    assert gone_record.lost_box(world.store, "demo", "b2"), "if it is seen again it bills"


def test_a_box_is_left_as_its_run_is_taken_to_the_next_candidate(world: World) -> None:
    _lost(world, "digits")
    moved, seen = decide.Action(decide.NEXT_CANDIDATE, "it is gone"), Observation("b2", "now", "absent")
    recovering.begin(moved, seen, world.store, "demo", "digits")
    assert not gone_record.missed_box(world.store, "demo", "b2")
    assert not recovering.was_rented(world.store, "demo", "b2", Sight(lambda: 0.0))
    # It is there all the same.
    world.provider["b2"] = "running"
    gone_record.note_there(world.store, world.item("b2"), "2099-01-01T00:00:00Z")
    record = world.store.read_box("demo", "b2", 1) or {}
    assert (record["destroyed_at"], record["lost"]) == (None, None)


@pytest.mark.parametrize(("run_id", "left"), [("digits", True), ("another", False)])
def test_a_box_is_no_longer_recovered_once_the_run_is_home(
    world: World, drive: Callable[..., go.GoResult], run_id: str, left: bool
) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    _lost(world, run_id)
    drive(("b1", "b2"))
    assert (not gone_record.missed_box(world.store, "demo", "b2")) is left
    assert (_chosen_for_another_run(world, drive) == "b1") is left


def test_where_the_run_was_taken_from_goes_last(world: World, drive: Callable[..., go.GoResult]) -> None:
    moved = decide.Action(decide.NEXT_CANDIDATE, "its host is gone")
    recoveries.begin(Journal(world.store), world.identity("b1"), moved, "digits", "offline", 7)
    world.provider["b1"] = "stopped"
    drive(("b1", "b2"))
    assert world.played[0][:2] == ("train", "b2")


def _lost_for_good(world: World) -> None:
    """The box was outbid, and every rung but the next candidate was tried."""
    limits = decide.Limits()
    for rung, times in ((decide.RAISE_BID, limits.raise_bid), (decide.NEXT_OFFER, limits.next_offer)):
        for _try in range(times):
            action = decide.Action(rung, "a higher bid took its GPU")
            recoveries.begin(Journal(world.store), world.identity("b1"), action, "digits", "outbid", 7)
    world.provider["b1"], world.step = "outbid", 50


def test_a_lost_box_is_told_to_stop_before_the_next_one_is_rented_and_named_at_the_end(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    _lost_for_good(world)
    world.trouble = [BoxFailure("", "provider", "the API is slow")] * 2
    result = drive(("b1", "b2"))
    assert [(playbook, box) for playbook, box, _extra in world.played] == [
        ("provision", "b1"), ("provision", "b1"), ("provision", "b1"), ("train", "b2"), ("harvest", "b2"),
    ]  # fmt: skip
    assert (result.box, result.left_behind) == ("b2", ["b1"])
    assert any(step.startswith("gpu-tenant teardown -l b1") for step in result.next_steps)
    assert any("instance 42 was told to stop" in event.text for event in said.events)


@pytest.mark.parametrize(("kind", "tries"), [("provider", go.MAX_FAILURES), ("gate_refused", 1)])
def test_while_a_lost_box_is_not_stopped_no_other_is_rented(
    world: World, drive: Callable[..., go.GoResult], kind: str, tries: int
) -> None:
    _lost_for_good(world)
    world.trouble = [BoxFailure("", kind, "it was not stopped, and that is why")] * 100
    with pytest.raises(TenantFailure, match="that is why") as caught:
        drive(("b1", "b2"))
    assert (caught.value.kind, caught.value.box) == (kind, "b1")
    assert "may go on billing" in caught.value.safe
    assert world.names == ["provision"] * tries
    moved = [line for line in Journal(world.store).lines() if line.get("rung") == decide.NEXT_CANDIDATE]
    assert moved == [], "the next start does not take it for moved"


def test_a_box_that_its_probe_refused_is_stopped_before_the_next_is_tried(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.provider["b1"] = "running"
    world.trouble = [BoxFailure("", "probe_refused", "its disk is slow")]
    assert drive(("b1", "b2")).box == "b2"
    assert [(playbook, box) for playbook, box, _extra in world.played] == [
        ("train", "b1"), ("provision", "b1"), ("train", "b2"), ("harvest", "b2"),
    ]  # fmt: skip
    assert world.provider["b1"] == "stopped"


# --- names of the run spec ------------------------------------------------------------------------------------------

TEAM = [
    BoxHost("slow", {}, groups=("all", "ungrouped")),
    BoxHost("vast-b", {}, groups=("all", "vast")),
    BoxHost("pod-a", {}, groups=("all", "runpod", "spot")),
    BoxHost("vast-a", {}, groups=("all", "spot", "vast")),
]
ELSEWHERE = ("azure-a", "azure_spot", "paperspace")


def named(*wanted: str) -> list[str]:
    spec = {"id": "digits", "source": "/run.yml", "candidates": list(wanted)}
    return [box.name for box in candidates.in_spec_order(TEAM, spec, ELSEWHERE)]


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ((), ["slow", "vast-b", "pod-a", "vast-a"]),
        (("vast-a",), ["vast-a", "slow", "vast-b", "pod-a"]),
        (("runpod", "vast"), ["pod-a", "vast-b", "vast-a", "slow"]),
        (("vast-a", "vast"), ["vast-a", "vast-b", "slow", "pod-a"]),
        (("vast", "vast-a"), ["vast-b", "vast-a", "slow", "pod-a"]),
        (("spot", "vast"), ["pod-a", "vast-a", "vast-b", "slow"]),
        (("all",), ["slow", "vast-b", "pod-a", "vast-a"]),
        (("azure_spot", "azure-a", "pod-a"), ["pod-a", "slow", "vast-b", "vast-a"]),
    ],
)
def test_boxes_come_in_the_order_in_which_they_or_their_groups_are_named(
    wanted: tuple[str, ...], order: list[str]
) -> None:
    assert named(*wanted) == order


@pytest.mark.parametrize(
    ("wanted", "what", "fix"),
    [
        (("vats",), "'vats'", "near are vast"),
        (("vast-a", "pod-b", "paperspaces"), "'pod-b', 'paperspaces'", "near are pod-a, runpod, paperspace"),
        (("42",), "'42'", "known are all, azure-a, azure_spot, paperspace, pod-a, runpod, slow, spot, …"),
        (("vast:!spot",), "'vast:!spot'", "near are "),
    ],
)
def test_a_name_that_the_inventory_lacks_is_refused_with_the_nearest(
    wanted: tuple[str, ...], what: str, fix: str
) -> None:
    with pytest.raises(TenantFailure) as caught:
        named(*wanted)
    assert caught.value.what.endswith(f": {what}")
    assert "run digits" in caught.value.what
    assert fix in caught.value.fix
    assert "/run.yml" in caught.value.fix
    assert (caught.value.kind, caught.value.safe) == ("config", "nothing was rented")


def test_go_rents_nothing_for_a_candidate_that_nobody_knows(world: World, drive: Callable[..., go.GoResult]) -> None:
    with pytest.raises(TenantFailure, match="'nope'") as caught:
        drive(("b1", "b2"), spec={**SPEC, "candidates": ["b2", "nope"]})
    assert (caught.value.exit_code, world.played) == (10, [])


def test_go_begins_with_the_group_that_is_named_first(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.groups, world.declared = {"b1": ("vast",), "b2": ("runpod",)}, ("aws_spot",)
    assert drive(("b1", "b2"), spec={**SPEC, "candidates": ["aws_spot", "runpod", "vast"]}).box == "b2"


# --- boxes that cannot rest (Lambda) --------------------------------------------------------------------------------

LAMBDA = {"platform_driver": "lambda", "platform_verbs": {"park": []}}


def test_a_run_is_not_taken_from_a_box_that_would_bill_beside_the_next(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    """In Alert it may be at work, and nothing but its end stops it: a person decides."""
    world.variables = LAMBDA
    world.provider["b1"], world.step = "offline", 50
    with pytest.raises(TenantFailure, match="bills on, for nothing but its end stops it") as caught:
        drive(("b1", "b2"))
    assert (caught.value.box, world.played) == ("b1", [])


def test_a_refused_box_that_is_still_there_is_no_reason_to_rent_the_next(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.variables = LAMBDA
    world.provider["b1"] = "running"
    world.trouble = [BoxFailure("", "probe_refused", "its disk is slow")]
    with pytest.raises(TenantFailure, match="nothing but its end stops it") as caught:
        drive(("b1", "b2"))
    assert "gpu-tenant approve destroy b1, then gpu-tenant teardown -l b1" in caught.value.fix
    assert world.names == ["train"], "nothing is asked to park it"


def test_nothing_free_on_it_tries_the_next_candidate(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.variables = LAMBDA
    world.trouble = [BoxFailure("", "no_offer", "no gpu_1x_a10 is free now; asked for 1800 s")]
    assert drive(("b1", "b2")).box == "b2"


def test_one_that_is_gone_is_rented_anew_under_its_name(world: World, drive: Callable[..., go.GoResult]) -> None:
    def lose(name: str) -> None:
        if world.step >= 50 and world.generation == 1:
            world.provider.pop(name, None)
            world.generation = 2

    world.variables, world.on_look = LAMBDA, lose
    assert drive(("b1", "b2")).box == "b1"
    assert [(playbook, box) for playbook, box, _extra in world.played] == [
        ("train", "b1"), ("train", "b1"), ("harvest", "b1"),
    ]  # fmt: skip
    assert "provision_replace" not in world.played[1][2]

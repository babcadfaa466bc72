# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``go`` against a world in memory: from nothing to home, over what happens to boxes on the way."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, gone_record, power_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from go_world import ROW, SPEC, Said, World, receipt_result, story

from gpu_tenant import decide, go, recoveries, recovering
from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import BoxFailure, TaskResult


def test_from_nothing_to_home(world: World, drive: Callable[..., go.GoResult]) -> None:
    result = drive()
    assert world.names == ["train", "harvest"]
    assert result.receipt["complete"] is True
    assert not result.destroyed
    assert world.provider["b1"] == "stopped"
    assert "approve destroy b1" in result.next_steps[0]


def test_a_run_that_is_home_is_never_started_again(world: World, drive: Callable[..., go.GoResult]) -> None:
    drive()
    world.played.clear()
    assert drive().receipt["complete"] is True
    assert world.played == []


def test_a_training_run_is_adopted(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.provider["b1"], world.run_state["b1"], world.step = "running", "running", 50
    drive()
    assert world.names == ["harvest"]


def test_a_done_run_is_only_harvested(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    drive()
    assert world.names == ["harvest"]


def test_an_outbid_box_is_brought_up_again(world: World, drive: Callable[..., go.GoResult], tmp_path: Path) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"

    world.on_look = outbid_at_half
    drive()
    assert world.names == ["train", "train", "harvest"]
    assert [(line["provider"], line["step"]) for line in story(tmp_path, "interruption")] == [("outbid", 50)]
    assert [line["step"] for line in story(tmp_path, "resumed")] == [50]


def test_a_box_that_is_gone_is_replaced_only_after_two_readings(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    readings: list[str] = []

    def vanish(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "absent"
        readings.append(world.provider.get(name, "absent"))

    world.on_look = vanish
    drive()
    assert world.names == ["train", "train", "harvest"]
    assert "absent" in readings[-20:]
    assert readings.count("absent") >= 3  # one before the first start, two before the replacement


def test_a_box_on_record_that_a_fresh_go_does_not_find_is_gone_after_two_readings(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.store.update_box("demo", "b1", 1, provider_id="41", deploy_started_at="2026-11-21T00:00:00Z")
    world.generation = 2
    looks: list[int] = []
    world.on_look = lambda name: looks.append(len(world.played))
    drive()
    assert looks.count(0) >= 2
    journal = Journal(world.store).lines()
    assert [line["rung"] for line in journal if line["verb"] == recoveries.RECOVER] == [decide.NEXT_OFFER]
    assert [line["provider_id"] for line in journal if line["verb"] == accrual.SEEN_GONE] == ["41"]
    assert (world.store.read_box("demo", "b1", 1) or {})["destroyed_at"]


def test_a_machine_that_counted_as_lost_and_is_there_costs_on(world: World, drive: Callable[..., go.GoResult]) -> None:
    """And one that it replaced as well: both bill, whatever was concluded before."""
    for generation, provider_id in ((1, "41"), (2, "42")):
        known = {"provider_id": provider_id, "stamp": f"gt1/demo/b1/g{generation}/0123456789abcdef"}
        world.store.update_box("demo", "b1", generation, **known)
        gone_record.note_gone(world.store, BoxIdentity("demo", "b1", generation, provider_id), is_lost=True)
        world.store.update_box("demo", "b1", generation, destroyed_at="2026-01-01T00:00:00Z")
    _replaced(world, hours_ago=1)
    drive()
    for generation in (1, 2):
        record = world.store.read_box("demo", "b1", generation) or {}
        assert (record["destroyed_at"], record["lost"]) == (None, None)
    told = {line["provider_id"]: line["verb"] for line in Journal(world.store).lines() if "seen-" in line["verb"]}
    assert told == {"41": power_record.SEEN_STOPPED, "42": power_record.SEEN_STARTED}


def test_a_stop_that_nobody_lived_to_note_is_noted_by_the_next_look(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    """Else the gate would hold it for a box that somebody else stopped."""
    world.provider["b1"] = "stopped"
    world.store.update_box("demo", "b1", 1, provider_id="42")
    power_record.note_stopping(world.store, world.identity("b1"), 60.0)
    parked: list[object] = []
    world.on_look = lambda name: parked.append((world.store.read_box("demo", "b1", 1) or {}).get("parked_at"))
    drive()
    assert any(parked), parked


def test_only_the_machine_that_was_denied_is_gone(world: World) -> None:
    """Another controller has rented g2 since this one looked: it lives, and its bill goes on."""
    world.store.update_box("demo", "b1", 1, provider_id="42")
    seen = Observation("b1", "now", "absent", denied=world.identity("b1"))
    world.store.update_box("demo", "b1", 2, provider_id="43")
    recovering.begin(decide.Action(decide.NEXT_OFFER, "it is gone"), seen, world.store, "demo", "digits")
    assert [line["provider_id"] for line in Journal(world.store).lines() if line["verb"] == accrual.SEEN_GONE] == ["42"]
    assert (world.store.read_box("demo", "b1", 1) or {})["lost"]
    assert not (world.store.read_box("demo", "b1", 2) or {}).get("destroyed_at")


def test_a_recovery_that_was_cut_off_goes_on_where_it_was(world: World, drive: Callable[..., go.GoResult]) -> None:
    """Its record is closed as the first rung begins, and yet it is no box that was never rented."""
    world.store.update_box("demo", "b1", 1, provider_id="42")
    gone = Observation("b1", "now", "absent", denied=world.identity("b1"))
    for _try in range(decide.Limits().next_offer):
        recovering.begin(decide.Action(decide.NEXT_OFFER, "it is gone"), gone, world.store, "demo", "digits")
    with pytest.raises(TenantFailure, match="every way to recover it was tried"):
        drive()
    assert world.played == []


def test_a_drill_comes_before_the_training_and_not_after_an_interruption(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"

    world.on_look = outbid_at_half
    drive(drill=True)
    assert [(name, extra.get("train_drill")) for name, _box, extra in world.played] == [
        ("train", True),
        ("train", None),
        ("harvest", None),
    ]


def test_a_failed_drill_ends_it_with_20_and_a_parked_box(world: World, drive: Callable[..., go.GoResult]) -> None:
    def started(_name: str) -> None:
        world.provider["b1"] = "running" if world.names == ["train"] else "stopped"

    world.on_look = started
    said = "run digits does not survive a kill: it began with step 1"
    world.results = [TaskResult("b1", "train", "Drill", "tenant.gpu.resume_drill", "failed", {})]
    world.trouble = [BoxFailure("b1", "training_failed", said, "s", "save")]
    with pytest.raises(TenantFailure, match="does not survive a kill") as caught:
        drive(("b1", "b2"), drill=True)
    assert caught.value.exit_code == 20
    assert "the box is parked" in caught.value.safe
    assert world.names == ["train", "provision"]


@pytest.mark.parametrize("witness", ["reachable", "api_up"])
def test_silence_is_waited_out(world: World, drive: Callable[..., go.GoResult], witness: str) -> None:
    silent_looks = 0

    def fall_silent(name: str) -> None:
        nonlocal silent_looks
        if world.step >= 50 and silent_looks < 60:
            silent_looks += 1
            setattr(world, witness, silent_looks == 60)

    world.on_look = fall_silent
    drive()
    assert silent_looks == 60
    assert world.names == ["train", "harvest"]


def test_nothing_to_rent_ends_at_once_at_the_start(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.trouble = [BoxFailure("", "no_offer", "nothing fits")]
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 11
    assert world.names == ["train"]


def test_a_passing_failure_while_recovering_is_waited_out(world: World, drive: Callable[..., go.GoResult]) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"
            world.trouble = [BoxFailure("", "no_offer", "too dear")] * 3

    world.on_look = outbid_at_half
    drive()
    assert world.names == ["train"] * 5 + ["harvest"]


def test_failures_that_do_not_pass_end_it(world: World, drive: Callable[..., go.GoResult]) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"
            world.trouble = [BoxFailure("", "no_offer", "too dear")] * 100

    world.on_look = outbid_at_half
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 11
    limits = decide.Limits()
    assert world.names.count("train") == 1 + limits.raise_bid + limits.next_offer
    assert world.provider["b1"] == "outbid", "nothing ends a box"


def test_a_higher_bid_that_does_not_help_leads_to_another_machine(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"
            world.trouble = [BoxFailure("", "no_offer", "too dear")] * 2

    world.on_look = outbid_at_half
    drive()
    told = [extra.get("provision_replace") for playbook, _box, extra in world.played if playbook == "train"]
    assert told == [None, None, None, "42"]


def test_a_box_with_a_volume_gets_its_successor_on_the_same_machine(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    def outbid_at_half(name: str) -> None:
        if world.step == 50 and world.names == ["train"]:
            world.provider["b1"] = "outbid"
            world.trouble = [BoxFailure("", "no_offer", "too dear")] * 2

    world.on_look = outbid_at_half
    world.variables = {"provision_volumes": [{"volume": "sets", "path": "/data"}]}
    drive()
    told = [extra for playbook, _box, extra in world.played if playbook == "train"]
    assert told[-1]["provision_replace"] == "42"
    assert not any("provision_exclude_machines" in extra for extra in told), "its machine is the one to rent"


def test_what_was_tried_before_a_kill_counts(world: World, drive: Callable[..., go.GoResult]) -> None:
    journal = Journal(world.store)
    for _try in range(decide.Limits().raise_bid):
        raised = decide.Action(decide.RAISE_BID, "a higher bid took its GPU")
        recoveries.begin(journal, world.identity("b1"), raised, "digits", "outbid", 7)

    world.provider["b1"] = "outbid"
    drive()
    assert world.played[0][2]["provision_replace"] == "42"
    verbs = [line["verb"] for line in journal.lines()]
    assert verbs.count(recoveries.RECOVERED) == 1, "it trained again, so its next loss begins at the first rung"


def test_a_configuration_error_is_not_repeated(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.trouble = [BoxFailure("", "config", "no price cap")]
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 10
    assert world.names == ["train"]


def test_checkpoints_come_home_while_it_trains(world: World, drive: Callable[..., go.GoResult], tmp_path: Path) -> None:
    world.steps_per_look = 1
    drive(pull_every_s=20.0)
    pulls = [extra for playbook, _box, extra in world.played if playbook == "harvest"]
    assert len(pulls) > 3
    assert [pull.get("harvest_snapshot") for pull in pulls] == [True] * (len(pulls) - 1) + [None]
    assert len(story(tmp_path, "pull")) == len(pulls) - 1


def test_a_failed_pull_does_not_end_the_run(world: World, said: Said, drive: Callable[..., go.GoResult]) -> None:
    def break_the_pull(name: str) -> None:
        if world.step == 30:
            world.trouble = [BoxFailure("", "unreachable", "no route")]

    world.steps_per_look = 1
    world.on_look = break_the_pull
    drive(pull_every_s=20.0)
    assert any("periodic pull failed" in event.text for event in said.events)


def test_a_pull_that_brings_nothing_home_leaves_as_much_at_risk(
    world: World, said: Said, drive: Callable[..., go.GoResult], tmp_path: Path
) -> None:
    world.steps_per_look, world.empty = 1, True
    drive(pull_every_s=20.0)
    assert any("the periodic pull brought nothing home" in event.text for event in said.events)
    assert story(tmp_path, "pull") == []
    at_risk = [event.data["at_risk_s"] for event in said.events if event.kind == "training"]
    assert at_risk == sorted(at_risk)


def test_the_work_at_risk_is_shown(world: World, said: Said, drive: Callable[..., go.GoResult]) -> None:
    drive()
    training = [event for event in said.events if event.kind == "training"]
    assert training
    assert all("at_risk_s" in event.data for event in training)


def test_a_receipt_that_never_becomes_complete_ends_the_loop(
    world: World, drive: Callable[..., go.GoResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = {"run_state": "done", "complete": False, "incomplete_because": ["the files were not loaded"]}
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    world.results = [TaskResult("b1", "harvest", "Load", "tenant.gpu.receipt", "ok", {"receipt": receipt})]
    monkeypatch.setattr(world, "_harvest", lambda name, extra: None)
    with pytest.raises(TenantFailure, match="the files were not loaded") as caught:
        drive()
    assert caught.value.kind == "evidence_missing"
    assert world.names == ["harvest", "harvest", "provision"], "nobody looks after the box, so it is stopped"
    assert "the box is parked" in caught.value.safe


def test_a_complete_receipt_of_another_spec_ends_the_loop(
    world: World, drive: Callable[..., go.GoResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = {"run_state": "done", "complete": True, "spec_sha256": "ef" * 32}
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    world.results = [TaskResult("b1", "harvest", "Load", "tenant.gpu.receipt", "ok", {"receipt": receipt})]
    monkeypatch.setattr(world, "_harvest", lambda name, extra: world.provider.update({name: "stopped"}))
    with pytest.raises(TenantFailure, match=r"of the spec efefefefefef, not of abababababab") as caught:
        drive()
    assert (caught.value.kind, caught.value.box) == ("evidence_missing", "b1")
    assert "deploy_unseal" in caught.value.fix
    assert world.names == ["harvest"], "a box that is sealed under another spec is not started again"


def test_a_run_over_several_boxes_is_left_to_the_playbooks(world: World, drive: Callable[..., go.GoResult]) -> None:
    with pytest.raises(TenantFailure, match="several boxes at once") as caught:
        drive(("b1", "b2"), spec={**SPEC, "parts": ["b1", "b2"]})
    assert "-l b1,b2" in caught.value.fix
    assert world.played == []


# --- superseded boxes ---


def _replaced(world: World, hours_ago: float) -> None:
    """The box at work is generation 2, admitted so long ago; the one that it replaced is still rented."""
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours_ago)
    world.generation, world.provider["b1"], world.run_state["b1"] = 2, "running", "running"
    world.store.update_box("demo", "b1", 2, provider_id="42", admitted_at=records.utc_text(moment))
    label = "gt1/demo/b1/g1/0123456789abcdef"
    world.superseded = (
        to_box({**ROW, "id": 41, "label": label, "intended_status": "stopped", "cur_state": "stopped"}),
    )


def test_a_superseded_box_is_named_once_with_its_deadline(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    _replaced(world, hours_ago=1)
    result = drive()
    told = [event.text for event in said.events if "instance 41" in event.text and "by 20" in event.text]
    assert len(told) == 1
    assert world.names == ["harvest"], "before the deadline nothing is done for it alone"
    assert any("--generation 1" in step for step in result.next_steps)


def test_an_overdue_superseded_box_is_harvested_while_the_next_one_works(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    _replaced(world, hours_ago=25)
    drive()
    assert world.played[0] == ("harvest", "b1", {"tenant_run": "/run.yml", "harvest_snapshot": True})
    assert world.names == ["harvest", "harvest"], "once, however often it is looked at"
    assert sum("overdue: instance 41" in event.text for event in said.events) == 1


def test_what_came_home_of_a_superseded_box_is_no_pull_of_the_one_at_work(
    world: World, said: Said, drive: Callable[..., go.GoResult], tmp_path: Path
) -> None:
    _replaced(world, hours_ago=25)
    world.results = [receipt_result("b1", generation=1)]
    drive()
    assert story(tmp_path, "pull") == []
    assert any("the periodic pull brought nothing home" in event.text for event in said.events)


def test_a_superseded_box_that_works_again_is_told_to_stop_at_once(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    """It would bill for a card and train beside the one that counts until its deadline, a day later."""
    _replaced(world, hours_ago=1)
    (rests,) = world.superseded
    works = dataclasses.replace(rests, state="running", intended="running")

    def come_back_twice(_name: str) -> None:
        world.superseded = (works,) if world.step in (30, 40, 70) else (rests,)

    world.on_look = come_back_twice
    drive()
    assert [extra.get("harvest_snapshot", False) for _playbook, _box, extra in world.played] == [True, True, False]
    told = [event.text for event in said.events if "works again" in event.text]
    assert told == ["instance 41 was replaced and works again, beside the one that counts: it is told to stop"] * 2


def test_one_that_does_not_stop_is_told_again_later(world: World, drive: Callable[..., go.GoResult]) -> None:
    _replaced(world, hours_ago=1)
    (rests,) = world.superseded
    world.superseded, world.steps_per_look = (dataclasses.replace(rests, state="running", intended="running"),), 1
    world.takes_s = {"harvest": 1.0}
    drive(poll_s=20.0, poll_most_s=20.0)
    assert world.names.count("harvest") == 5, "after 0, 10, 20 and 30 minutes, and in the end"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""How ``go`` ends: at home and with consent, at its deadline, without money, with a failed run, on request."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from go_world import DIGEST, SPEC, Said, World

from gpu_tenant import closing, decide, go, hosts, play_deadlines, recoveries
from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import BoxFailure, Outcome
from gpu_tenant.progress import Progress

ROLES = Path(__file__).parents[3] / "roles"


def test_silence_does_not_last_longer_than_the_deadline(world: World, drive: Callable[..., go.GoResult]) -> None:
    def fall_silent(name: str) -> None:
        world.reachable = world.step < 50

    world.on_look = fall_silent
    with pytest.raises(TenantFailure) as caught:
        drive(deadline_s=3600)
    assert caught.value.exit_code == 23
    assert world.names == ["train", "provision"]
    assert world.provider["b1"] == "stopped"


def _past_deadline(world: World, drive: Callable[..., go.GoResult]) -> TenantFailure:
    """How it ends when training does not get on and the time is over."""
    world.provider["b1"], world.run_state["b1"], world.steps_per_look = "running", "running", 0
    with pytest.raises(TenantFailure, match="the deadline of 10 min has passed") as caught:
        drive(deadline_s=600)
    assert caught.value.exit_code == 23
    return caught.value


def test_the_last_pull_and_the_stop_have_time_of_their_own(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.takes_s = {"harvest": 3 * 3600.0, "provision": 800.0}
    told = _past_deadline(world, drive).safe
    assert told == "its newest checkpoints were pulled; the box is parked: its disk is kept and bills"
    assert (world.names, world.provider["b1"]) == (["harvest", "provision"], "stopped")


def test_what_did_not_succeed_at_the_deadline_is_not_claimed(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.trouble = [BoxFailure("", "unreachable", "no route"), BoxFailure("", "provider", "the API is away")]
    told = _past_deadline(world, drive).safe
    assert "could not be pulled (no route): they are on the box alone" in told
    assert "could not be parked (the API is away) and goes on billing" in told


def test_at_the_deadline_of_a_box_that_does_not_answer_nothing_is_said_to_be_pulled(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    world.reachable = False
    assert "nothing was pulled now" in _past_deadline(world, drive).safe
    assert world.names == ["provision"]


def test_a_box_that_cannot_rest_is_told_to_bill_on(world: World, drive: Callable[..., go.GoResult]) -> None:
    """Lambda has no stop: no playbook is asked to, and the one verb that ends the bill is named."""
    world.variables = {"platform_driver": "lambda", "platform_verbs": {"park": []}}
    told = _past_deadline(world, drive).safe
    assert "its newest checkpoints were pulled; the box bills on, for nothing but its end stops it" in told
    assert "gpu-tenant approve destroy b1, then gpu-tenant teardown -l b1" in told
    assert (world.names, world.provider["b1"]) == (["harvest"], "running")


@pytest.mark.parametrize("stumbles", [0, 2])
def test_a_run_that_is_done_comes_home_although_its_deadline_passes_meanwhile(
    world: World, drive: Callable[..., go.GoResult], stumbles: int
) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    world.takes_s = {"harvest": 3000.0, "teardown": 300.0}
    world.trouble = [BoxFailure("", "unreachable", "the link is slow")] * stumbles
    result = drive(deadline_s=600, approver="Ada")
    assert (result.receipt["complete"], result.destroyed) == (True, True)
    assert world.names == ["harvest"] * (stumbles + 1) + ["teardown"]


def test_a_done_run_that_never_comes_home_ends_all_the_same(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    world.takes_s = {"harvest": 3000.0}
    world.trouble = [BoxFailure("", "unreachable", "the link is slow")] * 100
    with pytest.raises(TenantFailure, match="the link is slow"):
        drive(deadline_s=600)
    assert world.names.count("harvest") <= go.MAX_FAILURES + 1
    assert world.names[-1] == "provision", "it would compute for nobody"


@pytest.mark.parametrize(
    ("kind", "tries", "parked"),
    [("unreachable", go.MAX_FAILURES, True), ("evidence_missing", 1, True), ("lease_held", go.MAX_FAILURES, False)],
)
def test_a_box_whose_run_cannot_be_brought_home_is_stopped(
    world: World, drive: Callable[..., go.GoResult], kind: str, tries: int, parked: bool
) -> None:
    """Unless another controller holds its lease, and looks after it."""
    world.provider["b1"], world.run_state["b1"] = "running", "done"
    world.trouble = [BoxFailure("", kind, "it is not to be had")] * tries
    with pytest.raises(TenantFailure, match="it is not to be had") as caught:
        drive()
    assert caught.value.kind == kind
    assert world.names == ["harvest"] * tries + ["harvest", "provision"] * parked
    assert world.provider["b1"] == ("stopped" if parked else "running")
    assert ("the box is parked" in caught.value.safe) is parked


def test_closing_steps_wait_as_long_as_their_roles() -> None:
    silent = hosts.BoxHost("b1", {})
    for role, variable in play_deadlines.WAITS.items():
        defaults = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text())
        assert play_deadlines.allowance_s(role, silent) == defaults[variable] + play_deadlines.AROUND_S
    told = hosts.BoxHost("b1", {"harvest_deadline_s": 60, "provision_wait_s": "soon"})
    assert play_deadlines.allowance_s("harvest", told) == 60 + play_deadlines.AROUND_S
    assert play_deadlines.allowance_s("provision", told) == 900 + play_deadlines.AROUND_S
    assert play_deadlines.for_all_s("harvest", [told, told]) == 2 * (60 + play_deadlines.AROUND_S)
    assert play_deadlines.for_all_s("train", [told]) == play_deadlines.OTHER_S
    rare = hosts.BoxHost("b1", {"platform_driver": "lambda", "provision_capacity_wait_s": 7200})
    for renting in ("provision", "train", "site"):
        assert play_deadlines.allowance_s(renting, rare) == 7200 + play_deadlines.allowance_s(renting, told)
    assert play_deadlines.allowance_s("teardown", rare) == play_deadlines.OTHER_S
    defaults = yaml.safe_load((ROLES / "provision/defaults/main.yml").read_text())
    for driver, variable in play_deadlines.CAPACITY_WAITS.items():
        box = hosts.BoxHost("b1", {"platform_driver": driver})
        assert play_deadlines.allowance_s("train", box) == play_deadlines.OTHER_S + defaults[variable]


def test_a_deploy_waits_as_long_as_its_role_for_the_inputs_of_the_run() -> None:
    silent, told = hosts.BoxHost("b1", {}), hosts.BoxHost("b1", {"deploy_inputs_deadline_s": 60})
    inputs_s = yaml.safe_load((ROLES / "deploy/defaults/main.yml").read_text())["deploy_inputs_deadline_s"]
    spec = {**SPEC, "inputs": [{"dest": "data.bin"}]}
    for deploying in ("deploy", "train", "site"):
        assert play_deadlines.step_s(deploying, silent, spec) == play_deadlines.OTHER_S + inputs_s
        assert play_deadlines.for_all_s(deploying, [told], spec) == play_deadlines.OTHER_S + 60
        assert play_deadlines.step_s(deploying, silent, SPEC) == play_deadlines.OTHER_S
    assert play_deadlines.step_s("teardown", silent, spec) == play_deadlines.OTHER_S


def test_a_failed_run_comes_home_is_parked_and_says_so(world: World, drive: Callable[..., go.GoResult]) -> None:
    def fail(name: str) -> None:
        if world.step >= 50:
            world.run_state["b1"] = "failed"

    world.on_look = fail
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 20
    assert world.names == ["train", "harvest", "provision"]
    assert "parked" in caught.value.safe


@pytest.mark.parametrize("failure", ["timed_out", "code"])
def test_a_cell_whose_time_was_over_is_given_more_and_no_other(
    world: World, drive: Callable[..., go.GoResult], failure: str
) -> None:
    """More time mends no code; and a box that is not parked is still failed when the same command looks at it."""
    world.provider["b1"], world.run_state["b1"], world.failure = "running", "failed", failure
    with pytest.raises(TenantFailure) as caught:
        drive()
    told = [word in caught.value.fix for word in ("cell_timeout_s", "-e train_retry_failed=true")]
    assert told == [failure == "timed_out"] * 2
    assert "the same command again with -e deploy_unseal=true" in caught.value.fix, "its harvest has sealed the box"


def _costs(world: World, hours: float) -> None:
    """The run has been on b1 for so long, at $0.30 an hour."""
    world.provider["b1"], world.run_state["b1"] = "running", "running"
    hours_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
    identity = world.identity("b1").as_dict()
    lines = [
        {"kind": "intent", "verb": "recover", "run_id": "digits", "rung": "rent", **identity},
        {"kind": "effect", "verb": "rent", "price_per_hour": 0.3, **identity},
    ]
    stamped = [json.dumps({**line, "at": records.utc_text(hours_ago)}) for line in lines]
    Path(world.store.root).mkdir()
    Path(world.store.journal_path).write_text("\n".join(stamped) + "\n")


def test_a_run_over_its_budget_is_parked_and_kept(world: World, drive: Callable[..., go.GoResult]) -> None:
    _costs(world, hours=5)
    with pytest.raises(TenantFailure, match="budget is spent") as caught:
        drive(spec={**SPEC, "budget": {"usd": 1.0}})
    assert caught.value.exit_code == 23
    assert world.names == ["harvest", "provision"]
    assert world.provider["b1"] == "stopped"


def test_a_box_that_is_not_at_work_is_parked_as_well_once_all_is_spent(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    _costs(world, hours=5)
    world.reachable = False
    with pytest.raises(TenantFailure, match="budget is spent") as caught:
        drive(spec={**SPEC, "budget": {"usd": 1.0}})
    assert (caught.value.exit_code, world.names, world.provider["b1"]) == (23, ["harvest", "provision"], "stopped")


def test_a_harvest_that_brought_nothing_is_not_called_a_pull(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.empty = True
    assert _past_deadline(world, drive).safe.startswith("nothing was pulled now; what was pulled before is at home; ")


@pytest.mark.parametrize("provider", ["outbid", "exited", "loading"])
def test_a_box_that_does_not_run_is_not_said_to_be_pulled_when_all_is_spent(world: World, provider: str) -> None:
    def play(playbook: str, extra: Mapping[str, Any], seconds: float) -> Outcome:
        return world.run(playbook, ["b1"], extra, deadline_s=seconds)

    world.provider["b1"], world.run_state["b1"] = "stopped", "running"
    box = hosts.BoxHost("b1", {"platform_driver": "lambda"})
    spent = decide.Action(decide.BILLS_ON, "its budget is spent", failure="budget")
    with pytest.raises(TenantFailure) as caught:
        closing.Closing(box, "digits", Progress(Said()), play).over_budget(spent, Observation("b1", "now", provider))
    assert caught.value.safe.startswith(
        f"it is {provider}, so nothing was pulled now; what was pulled before is at home;"
    )
    assert world.names == ["provision"]


@pytest.mark.parametrize(
    ("empty", "left"), [(False, "what it left is in /results"), (True, "its logs are still there")]
)
def test_what_a_failed_run_left_is_said_to_be_home_only_where_it_came(
    world: World, drive: Callable[..., go.GoResult], empty: bool, left: str
) -> None:
    world.provider["b1"], world.run_state["b1"], world.empty = "running", "failed", empty
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert left in caught.value.safe


def _needs_another_start(world: World) -> None:
    """As often as it may be tried, it was."""
    world.provider["b1"], world.run_state["b1"] = "running", "preempted"
    for _try in range(decide.Limits().restart):
        again = decide.Action(decide.RESTART, "it needs a start")
        recoveries.begin(Journal(world.store), world.identity("b1"), again, "digits", "running", None)


def test_a_box_that_computes_is_parked_as_it_is_given_up(world: World, drive: Callable[..., go.GoResult]) -> None:
    """Nobody looks after it from here on."""
    _needs_another_start(world)
    with pytest.raises(TenantFailure, match="2 starts did not help") as caught:
        drive()
    assert (world.names, world.provider["b1"]) == (["harvest", "provision"], "stopped")
    assert "its newest checkpoints were pulled; the box is parked: its disk is kept and bills" in caught.value.safe


def test_an_outbid_box_is_told_to_stop_as_it_is_given_up(world: World, drive: Callable[..., go.GoResult]) -> None:
    """It would come back by itself, and compute for nobody."""
    world.provider["b1"] = "outbid"
    for rung in (decide.RAISE_BID, decide.NEXT_OFFER):
        for _try in range(decide.Limits().of(rung)):
            action = decide.Action(rung, "a higher bid took its GPU")
            recoveries.begin(Journal(world.store), world.identity("b1"), action, "digits", "outbid", 7)
    with pytest.raises(TenantFailure, match="every way to recover it was tried") as caught:
        drive()
    assert world.played[-1][:2] == ("provision", "b1")
    assert world.names == ["provision"], "it does not answer, so nothing is pulled"
    assert "the box is parked" in caught.value.safe


def test_one_that_cannot_rest_is_told_to_bill_on_as_it_is_given_up(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    _needs_another_start(world)
    world.variables = {"platform_driver": "lambda", "platform_verbs": {"park": []}}
    with pytest.raises(TenantFailure, match="2 starts did not help") as caught:
        drive()
    assert "the box bills on, for nothing but its end stops it: gpu-tenant approve destroy b1" in caught.value.safe


def _fails_at(world: World, start: int, kind: str) -> None:
    """The run's start of this number comes to nothing and leaves the box on; it is stopped before the second."""

    def look(_name: str) -> None:
        if len(world.names) == start == 1 or world.names == ["train", "train"]:
            world.provider["b1"], world.run_state["b1"] = "running", "failed"
        elif world.names == ["train"] and world.step == 50:
            world.provider["b1"] = "stopped"
            world.trouble = [BoxFailure("b1", kind, "it ended at once", safe="no result was deleted")]

    world.on_look = look
    if start == 1:
        world.trouble = [BoxFailure("b1", kind, "it ended at once", safe="no result was deleted")]


@pytest.mark.parametrize(("kind", "code"), [("training_failed", 20), ("config", 10), ("gate_refused", 22), ("", 1)])
def test_a_box_that_does_not_get_to_work_again_is_parked(
    world: World, drive: Callable[..., go.GoResult], kind: str, code: int
) -> None:
    """It was stopped in the night, and nobody sits beside it."""
    _fails_at(world, 2, kind)
    with pytest.raises(TenantFailure, match="it ended at once") as caught:
        drive()
    assert (world.names, world.provider["b1"]) == (["train", "train", "harvest", "provision"], "stopped")
    assert "no result was deleted; its newest checkpoints were pulled; the box is parked" in caught.value.safe
    assert caught.value.exit_code == code


def test_a_run_that_fails_as_it_begins_leaves_nothing_on(world: World, drive: Callable[..., go.GoResult]) -> None:
    _fails_at(world, 1, "training_failed")
    with pytest.raises(TenantFailure, match="it ended at once") as caught:
        drive()
    assert (world.names, world.provider["b1"]) == (["train", "harvest", "provision"], "stopped")
    assert (caught.value.exit_code, "the box is parked" in caught.value.safe) == (20, True)


@pytest.mark.parametrize(
    ("verbs", "stop"),
    [
        ({"park": ["stop"]}, "until it is stopped: gpu-tenant provision -l b1 -e tenant_state=parked"),
        ({"park": []}, "until its end: gpu-tenant approve destroy b1"),
    ],
)
def test_a_first_start_that_is_refused_says_that_the_box_bills(
    world: World, drive: Callable[..., go.GoResult], verbs: dict[str, Any], stop: str
) -> None:
    """What is to be mended may take a minute, so the box stays up for it."""
    world.variables = {"platform_verbs": verbs}
    _fails_at(world, 1, "config")
    with pytest.raises(TenantFailure, match="it ended at once") as caught:
        drive()
    assert (world.names, world.provider["b1"]) == (["train"], "running")
    assert f"no result was deleted; the box is on and bills {stop}" in caught.value.safe


@pytest.mark.parametrize("drill", [False, True])
@pytest.mark.parametrize("rented", ["running", "stopped"])
def test_what_fails_before_the_run_begins_stops_no_box(
    world: World, drive: Callable[..., go.GoResult], drill: bool, rented: str
) -> None:
    """As a smoke command here does: on the box another run may be at work."""
    world.provider["b1"] = rented
    world.trouble = [BoxFailure("b1", "training_failed", "the smoke command failed", safe="nothing was rented")]
    with pytest.raises(TenantFailure, match="the smoke command failed") as caught:
        drive(drill=drill)
    assert (caught.value.exit_code, world.names, world.provider["b1"]) == (20, ["train"], rented)
    assert ("the box is on and bills" in caught.value.safe) is (rented == "running")
    assert "the box is parked" not in caught.value.safe


def test_a_first_start_that_the_deadline_ends_leaves_nothing_on(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    """Its box was rented and was fetching still: nobody waits beside it for another try."""

    def rented(_name: str) -> None:
        world.provider["b1"] = "running" if world.names == ["train"] else world.provider.get("b1", "absent")

    world.on_look, world.takes_s = rented, {"train": 5000.0}
    with pytest.raises(TenantFailure, match="the deadline of 1 h 0 min has passed") as caught:
        drive(deadline_s=3600)
    assert (caught.value.exit_code, world.names, world.provider["b1"]) == (23, ["train", "provision"], "stopped")
    assert caught.value.safe.startswith("the run had not begun there, so nothing was pulled now")
    assert "train was killed" in [event.text for event in said.events]


@pytest.mark.parametrize("inputs", [[], [{"dest": "data.bin"}]])
def test_a_first_start_has_as_long_as_the_inputs_of_the_run_may_take(
    world: World, drive: Callable[..., go.GoResult], inputs: list[dict[str, str]]
) -> None:
    world.takes_s = {"train": 4 * 3600.0}
    if inputs:
        assert drive(spec={**SPEC, "inputs": inputs}).box == "b1"
        return
    with pytest.raises(TenantFailure, match="train was killed"):
        drive(spec={**SPEC, "inputs": inputs})


@pytest.mark.parametrize("kind", ["lease_held", "interrupted"])
def test_a_first_start_that_another_ends_is_left_to_them(
    world: World, drive: Callable[..., go.GoResult], kind: str
) -> None:
    _fails_at(world, 1, kind)
    with pytest.raises(TenantFailure, match="it ended at once") as caught:
        drive()
    assert (world.names, caught.value.safe) == (["train"], "no result was deleted")


def test_a_run_whose_project_has_spent_its_budget_is_parked_and_kept(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    _costs(world, hours=5)
    world.variables["tenant_budget_usd"] = 1.0
    with pytest.raises(TenantFailure, match="the budget of its project is spent") as caught:
        drive(spec={**SPEC, "budget": {"usd": 100.0}})
    assert (caught.value.exit_code, world.names, world.provider["b1"]) == (23, ["harvest", "provision"], "stopped")
    assert "tenant_budget_usd" in caught.value.fix
    warned = [event.text.split(":")[0] for event in said.events if event.kind == "warning"]
    assert warned == ["project demo has spent $1.50 of its budget of $1.00"]


def test_a_run_near_its_budget_is_warned_of_once_and_goes_on(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    _costs(world, hours=5)
    assert drive(spec={**SPEC, "budget": {"usd": 1.8}}).box == "b1"
    warned = [event.text for event in said.events if event.kind == "warning"]
    assert [text.split(":")[0] for text in warned] == ["run digits has spent $1.50 of its budget of $1.80"]
    assert world.names == ["harvest"]


def test_with_an_approver_the_box_goes_once_the_results_are_home(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    result = drive(approver="Ada", reason="nightly")
    assert result.destroyed
    assert world.names == ["train", "harvest", "teardown"]
    given = records.read_record(world.store.approvals()[0], "approval")
    assert (given["approver"], given["binds"]) == ("Ada", {"kind": "digest", "digests": {"digits": DIGEST}})


def test_a_standing_approval_is_written_before_the_results_are_home(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    seen: list[int] = []
    world.on_look = lambda name: seen.append(len(world.store.approvals()))
    assert drive(approver="Ada", standing=True).destroyed
    assert seen[:4] == [0, 0, 0, 1]  # both candidates, the first look, then after it was brought up
    assert len(world.store.approvals()) == 1
    assert records.read_record(world.store.approvals()[0], "approval")["binds"] == {"kind": "complete_receipt"}


def test_an_approval_given_elsewhere_is_used(world: World, drive: Callable[..., go.GoResult]) -> None:
    drive()
    binds = {"kind": "digest", "digests": {"digits": DIGEST}}
    approvals.give(world.store, world.identity("b1"), "destroy", binds, "Bo", {"kind": "cli", "ref": "x"}, "ok")
    assert drive().destroyed
    assert world.names[-1] == "teardown"


def test_after_the_end_the_same_command_says_so(world: World, drive: Callable[..., go.GoResult]) -> None:
    drive(approver="Ada")
    world.played.clear()
    assert drive(approver="Ada").destroyed
    assert world.played == []


@pytest.mark.parametrize("other", ["generation", "provider_id"])
def test_consent_is_for_the_machine_that_the_results_came_from(
    world: World, said: Said, drive: Callable[..., go.GoResult], other: str
) -> None:
    drive()
    world.played.clear()
    setattr(world, other, getattr(world, other) + 1)
    world.provider["b1"], world.run_state = "running", {"b1": "running"}
    result = drive(approver="Ada")
    assert (world.played, world.store.approvals(), result.destroyed) == ([], [], False)
    assert "instance 42 of generation 1" in said.events[-1].text
    assert result.next_steps


def test_a_run_that_came_home_from_a_box_that_is_not_named_ends_no_other(
    world: World, said: Said, drive: Callable[..., go.GoResult]
) -> None:
    drive(("b2",))
    world.played.clear()
    world.provider["b1"], world.run_state["b1"] = "running", "running"
    result = drive(("b1",), approver="Ada")
    assert (world.played, world.store.approvals(), result.destroyed) == ([], [], False)
    told = [event.text for event in said.events]
    assert any("box b2, which they came from, is not among those named here" in text for text in told)
    assert told[-1] == "instance 42 is rented as well and running: it bills"
    assert [step.partition("  #")[0] for step in result.next_steps[1:]] == [
        "gpu-tenant teardown -l b2",
        "gpu-tenant teardown -l b1",
    ]


def test_of_two_named_boxes_the_one_that_the_results_came_from_goes(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    drive(("b2",))
    world.provider["b1"], world.run_state["b1"] = "running", "running"
    assert drive(("b1", "b2"), approver="Ada").box == "b2"
    assert world.provider == {"b1": "running", "b2": "absent"}


def test_a_request_to_stop_ends_it_with_its_own_code(world: World, drive: Callable[..., go.GoResult]) -> None:
    def stop(name: str) -> None:
        world.requested = world.step >= 50

    world.on_look = stop
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 30
    assert world.provider["b1"] == "running"

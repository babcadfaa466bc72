# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``go`` against a world in memory: provider, box and playbooks that do what the real ones do, on a virtual clock."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

from gpu_tenant import closing, decide, go, hosts, recoveries
from gpu_tenant.observe import Observation, RunView
from gpu_tenant.playbooks import BoxFailure, Outcome, TaskResult
from gpu_tenant.progress import Progress
from gpu_tenant.workspace import History

SPEC = {"id": "digits", "spec_sha256": "ab" * 32, "source": "/run.yml"}
DIGEST = "cd" * 32
ROLES = Path(__file__).parents[3] / "roles"
ROW = {"id": 42, "actual_status": "running", "intended_status": "running", "cur_state": "running", "dph_total": 0.3}


class World:
    """One account, boxes by name, and what the playbooks do to them. Every look is one second apart or more."""

    def __init__(self, root: Path) -> None:
        self.store = StateStore(str(root / "state"))
        self.now = 0.0
        self.count = 0
        self.requested = False
        self.provider: dict[str, str] = {}
        self.run_state: dict[str, str] = {}
        self.step = 0
        self.reachable = True
        self.api_up = True
        self.dark: set[str] = set()
        # How long a playbook takes; ansible-runner kills it at its deadline.
        self.takes_s: dict[str, float] = {}
        self.played: list[tuple[str, str, dict[str, Any]]] = []
        self.trouble: list[BoxFailure] = []
        self.results: list[TaskResult] = []
        self.on_look: Callable[[str], None] = lambda name: None
        self.steps_per_look = 10
        self.resumed_from: int | None = None
        self.generation = 1
        self.provider_id = 42
        self.superseded: tuple[Box, ...] = ()

    # what Interrupts does
    def check(self) -> None:
        if self.requested:
            raise TenantFailure("interrupted", "stopped on request")

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 0.1)
        self.count += 1
        assert self.count < 5000, "the loop does not end"
        self.check()

    def clock(self) -> float:
        return self.now

    # what Observer does
    def observe(self, run_id: str = "", names: Sequence[str] = (), each_alone: bool = False) -> dict[str, Observation]:
        return {name: self._look(name, run_id) for name in names or ("b1", "b2")}

    def _look(self, name: str, run_id: str) -> Observation:
        if run_id:
            self.on_look(name)
            if self.provider.get(name) == "running" and self.run_state.get(name) == "running":
                self.step += self.steps_per_look
                if self.step >= 100:
                    self.run_state[name] = "done"
        state = self.provider.get(name, "absent") if self.api_up and name not in self.dark else "unreachable"
        if state in ("absent", "unreachable"):
            return Observation(name, "now", state)
        seen = Observation(name, "now", state, self.item(name), self.superseded)
        if state != "running" or not self.reachable:
            return replace(seen, contact="unreachable" if state == "running" else "not_tried")
        run = RunView(self.run_state.get(name, ""), self.step, 100, 0.5, resumed_from=self.resumed_from)
        return replace(seen, contact="answered", run=run if name in self.run_state else None)

    def item(self, name: str) -> Box:
        label = f"gt1/demo/{name}/g{self.generation}/0123456789abcdef"
        rests = dict.fromkeys(("intended_status", "cur_state"), "stopped") if self.provider[name] == "stopped" else {}
        return to_box({**ROW, "id": self.provider_id, "label": label, **rests})

    def machine(self, name: str) -> Box | None:
        if not self.api_up or name in self.dark:
            raise TenantFailure("provider", "the market is away")
        return None if self.provider.get(name, "absent") == "absent" else self.item(name)

    # what PlaybookRunner does
    def run(self, playbook: str, boxes: Sequence[str], extra: Mapping[str, Any], **options: Any) -> Outcome:
        name = boxes[0]
        self.played.append((playbook, name, dict(extra)))
        outcome = Outcome(playbook, "successful", 0, Path(), tuple(boxes))
        took_s = self.takes_s.get(playbook, 0.0)
        self.now += min(took_s, options["deadline_s"])
        if took_s > options["deadline_s"]:
            outcome.rc, outcome.failures = 2, [BoxFailure("", "provider", f"{playbook} was killed")]
            return outcome
        if self.trouble:
            outcome.failures, outcome.rc = [replace(self.trouble.pop(0), box=name)], 2
            return outcome
        getattr(self, f"_{playbook}")(name, extra)
        outcome.results = list(self.results)
        return outcome

    def _train(self, name: str, extra: Mapping[str, Any]) -> None:
        assert self.provider.get(name) != "running" or self.run_state.get(name) not in ("done", "running")
        self.resumed_from = self.step if self.provider.get(name) else None
        self.provider[name], self.run_state[name] = "running", "running"

    def _harvest(self, name: str, extra: Mapping[str, Any]) -> None:
        if extra.get("harvest_snapshot") or self.run_state[name] != "done":
            return
        receipt = {
            **self.identity(name).as_dict(), "run_id": "digits", "complete": True, "manifest_digest": DIGEST,
            "spec_sha256": SPEC["spec_sha256"], "verified_at": "2026-11-21T00:00:00Z",
        }  # fmt: skip
        records.write_record(self.store.receipt_path("demo", "digits", name, self.generation), "receipt", receipt)
        self.provider[name] = "stopped"

    def _provision(self, name: str, extra: Mapping[str, Any]) -> None:
        assert extra["tenant_state"] == "parked"
        self.provider[name] = "stopped"

    def _teardown(self, name: str, extra: Mapping[str, Any]) -> None:
        assert approvals.find(self.store, self.identity(name), "destroy"), "the gate would refuse"
        self.provider[name] = "absent"

    def identity(self, name: str) -> BoxIdentity:
        return BoxIdentity("demo", name, self.generation, str(self.provider_id))

    @property
    def names(self) -> list[str]:
        return [playbook for playbook, _box, _extra in self.played]


class Said:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def show(self, event: Any) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def drive(world: World, said: Said, tmp_path: Path) -> Callable[..., go.GoResult]:
    def start(names: Sequence[str] = ("b1",), spec: Mapping[str, Any] | None = None, **options: Any) -> go.GoResult:
        variables = {
            "tenant_project": "demo", "tenant_state_dir": world.store.root, "tenant_results_dir": "/results",
            "platform_driver": "vast",
        }  # fmt: skip
        boxes = tuple(hosts.BoxHost(name, variables) for name in names)

        class Runner:
            inventory = hosts.Inventory(boxes, "", (), ())
            interrupts = world
            run = staticmethod(world.run)

        settings = go.GoOptions(**{"pull_every_s": 0.0, **options})
        history = History(tmp_path / "history" / "demo.digits.jsonl")
        driver = go.Go(Runner(), world, spec or SPEC, settings, Progress(said), history, world.clock)  # type: ignore[arg-type]  # the world plays all parts
        return driver.run()

    return start


def story(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    return History(tmp_path / "history" / "demo.digits.jsonl").lines(kind)


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
    world.provider["b1"] = "stopped"
    world.trouble = [
        BoxFailure("b1", "training_failed", "run digits does not survive a kill: it began with step 1", "s", "save")
    ]
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
    assert len(world.played) <= go.MAX_FAILURES


def test_closing_steps_wait_as_long_as_their_roles() -> None:
    for role, (variable, default_s) in closing.WAITS.items():
        defaults = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text())
        assert defaults[variable] == default_s
    told = hosts.BoxHost("b1", {"harvest_deadline_s": 60, "provision_wait_s": "soon"})
    assert closing.allowance_s("harvest", told) == 60 + closing.AROUND_S
    assert closing.allowance_s("provision", told) == 900 + closing.AROUND_S


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


def test_nothing_to_rent_ends_at_once_at_the_start(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.trouble = [BoxFailure("", "no_offer", "nothing fits")]
    with pytest.raises(TenantFailure) as caught:
        drive()
    assert caught.value.exit_code == 11
    assert world.names == ["train"]


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


def test_a_candidate_that_is_on_record_is_not_passed_over(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.store.update_box("demo", "b2", 1, provider_id="42")
    drive(("b1", "b2"))
    assert world.played[0][:2] == ("train", "b2")


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


def test_a_run_over_its_budget_is_parked_and_kept(world: World, drive: Callable[..., go.GoResult]) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "running"
    hours_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=5)
    identity = world.identity("b1").as_dict()
    lines = [
        {"kind": "intent", "verb": "recover", "run_id": "digits", "rung": "rent", **identity},
        {"kind": "effect", "verb": "rent", "price_per_hour": 0.3, **identity},
    ]
    stamped = [json.dumps({**line, "at": records.utc_text(hours_ago)}) for line in lines]
    Path(world.store.root).mkdir()
    Path(world.store.journal_path).write_text("\n".join(stamped) + "\n")
    with pytest.raises(TenantFailure, match="budget is spent") as caught:
        drive(spec={**SPEC, "budget": {"usd": 1.0}})
    assert caught.value.exit_code == 23
    assert world.names == ["harvest", "provision"]
    assert world.provider["b1"] == "stopped"


def test_a_budget_in_words_is_refused_before_anything_is_rented(
    world: World, drive: Callable[..., go.GoResult]
) -> None:
    with pytest.raises(TenantFailure, match=r"budget\.usd of run digits is 'plenty'"):
        drive(spec={**SPEC, "budget": {"usd": "plenty"}})
    assert world.played == []


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


def test_the_work_at_risk_is_shown(world: World, said: Said, drive: Callable[..., go.GoResult]) -> None:
    drive()
    training = [event for event in said.events if event.kind == "training"]
    assert training
    assert all("at_risk_s" in event.data for event in training)


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
    assert world.names == ["harvest"]


def test_a_run_over_several_boxes_is_left_to_the_playbooks(world: World, drive: Callable[..., go.GoResult]) -> None:
    with pytest.raises(TenantFailure, match="several boxes at once") as caught:
        drive(("b1", "b2"), spec={**SPEC, "parts": ["b1", "b2"]})
    assert "-l b1,b2" in caught.value.fix
    assert world.played == []


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


def test_how_boxes_were_left(world: World) -> None:
    world.provider["b1"], world.run_state["b1"] = "running", "running"
    told = go.left_as(["b1", "b2"], world, "digits")  # type: ignore[arg-type]  # the world plays the observer
    assert told == [
        "b1 is running at $0.3000 an hour; run digits is running there and goes on by itself",
        "b2 is absent",
    ]


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

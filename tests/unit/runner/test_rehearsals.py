# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rehearsal scripts: what they may say, when their steps come up, and what the table in the end holds against a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

from gpu_tenant import rehearsal_script, rehearse
from gpu_tenant.account import Account, BoxStory
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.progress import Progress
from gpu_tenant.rehearsal_script import Script
from gpu_tenant.workspace import History

ITEM: Box = to_box({"id": 7, "actual_status": "running", "intended_status": "running", "cur_state": "running"})


def training(step: int, checkpoint: int | None = None) -> Observation:
    last = None if checkpoint is None else {"step": checkpoint}
    run = RunView("running", step, 100, raw={"cells": [{"cell": "a", "state": "running", "last_checkpoint": last}]})
    return Observation("b1", "now", "running", ITEM, contact="answered", run=run)


@dataclass
class Market:
    done: list[Any] = field(default_factory=list)

    def preempt(self, number: int) -> None:
        self.done.append(("preempt", number))

    def release(self, number: int) -> None:
        self.done.append(("release", number))

    def clear_faults(self) -> None:
        self.done.append(("clear",))

    def inject(self, **fault: Any) -> None:
        self.done.append(("inject", fault))


class Quiet:
    def show(self, event: Any) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing to end."""


@pytest.mark.parametrize("name", rehearsal_script.shipped())
def test_a_shipped_script_is_whole(name: str) -> None:
    script = rehearsal_script.read(name)
    assert script.what != name
    assert script.expect


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "must be a mapping"),
        ("what: nothing", "nothing would be rehearsed"),
        ("steps: [{when: {training: true}, do: {}}]", "does 0 things"),
        ("steps: [{when: {moon: full}, do: {preempt: true}}]", "unknown keys moon"),
        ("steps: [{when: {step: soon}, do: {preempt: true}}]", "a whole number is wanted"),
        ("steps: [{do: {explode: true}}]", "unknown keys explode"),
        ("pull_every_s: -1\nfaults: [{kind: lost_answer, call: create}]", "pull_every_s must be"),
        ("steps: [{do: {pass_s: soon}}]", "a number of seconds is wanted"),
        ("steps: [{do: {pass_s: 0}}]", "a number of seconds is wanted"),
        ("faults: [{kind: meteor, call: create}]", "fault 1"),
        ("steps: [{do: {inject: {kind: outbid, call: nothing}}}]", "fault 1"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_script_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "own.yml"
    path.write_text(text)
    with pytest.raises(TenantFailure, match=why) as caught:
        rehearsal_script.read(str(path))
    assert caught.value.exit_code == 10


def test_a_script_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(TenantFailure, match="no rehearsal moonfall") as caught:
        rehearsal_script.read("moonfall")
    assert "preempted" in caught.value.fix


def test_steps_come_up_in_their_order_when_their_conditions_hold(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text(
        "steps:\n"
        "  - {when: {checkpoint: true, step: 20}, do: {preempt: true}}\n"
        "  - {when: {lost: true, looks: 2}, do: {release: true}}\n"
        "  - {when: {pulled: true}, do: {inject: {kind: host_offline, call: list}}}\n"
    )
    market, history, clock = Market(), History(tmp_path / "history.jsonl"), rehearse.Clock()
    director = rehearse.Director(rehearsal_script.read(str(path)), market, Progress(Quiet()), history, clock)  # type: ignore[arg-type]  # stands for the handle
    lost = Observation("b1", "now", "outbid", ITEM)
    for seen in (lost, training(30), training(10, 10)):
        director.look(seen)
    assert market.done == []
    director.look(training(20, 10))
    assert market.done == [("preempt", 7)]
    director.look(lost)
    assert len(market.done) == 1, "one look is not two"
    director.look(lost)
    assert market.done[1:] == [("release", 7)]
    director.look(training(30, 20))
    history.append("pull", box="b1")
    director.look(training(31, 20))
    assert market.done[2:] == [("inject", {"instance": 7, "kind": "host_offline", "call": "list"})]
    assert director.is_over


def test_a_pull_counts_once_it_began_after_a_checkpoint_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text("steps: [{when: {pulled: true}, do: {clear: true}}]")
    market, history, clock = Market(), History(tmp_path / "history.jsonl"), rehearse.Clock()
    director = rehearse.Director(rehearsal_script.read(str(path)), market, Progress(Quiet()), history, clock)  # type: ignore[arg-type]  # stands for the handle
    director.look(training(1))
    history.append("pull", box="b1")
    for seen in (training(2), training(3, 3)):
        director.look(seen)
    assert not director.is_over, "when it began there was nothing to bring home"
    history.append("pull", box="b1")
    director.look(training(4, 3))
    assert director.is_over


def test_time_that_passes_is_seen_by_the_deadlines_of_the_decision_and_not_taken_from_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text("steps: [{when: {lost: true}, do: {pass_s: 900}}, {when: {lost: true}, do: {pass_s: 0.5}}]")
    script, clock, history = rehearsal_script.read(str(path)), rehearse.Clock(), History(tmp_path / "history.jsonl")
    director = rehearse.Director(script, Market(), Progress(Quiet()), history, clock)  # type: ignore[arg-type]  # stands for the handle
    before = clock()
    director.look(Observation("b1", "now", "offline", ITEM))
    assert clock() - before >= 900
    assert script.passes_s == 900.5


class Client:
    def __init__(self, *ids: int) -> None:
        self._ids = ids

    def list_instances(self) -> list[dict[str, Any]]:
        return [{"id": number} for number in self._ids]


def good() -> Account:
    drawn = Account("demo", "digits", "ab" * 32)
    drawn.boxes = [BoxStory("b1", 1, "7", machine_id=1), BoxStory("b1", 2, "8", machine_id=2)]
    drawn.interruptions = [{"box": "b1"}]
    drawn.resumed_from = {"a": 40}
    return drawn


EXPECT = {"interruptions": 1, "resumed": True, "most_boxes": 2, "least_machines": 2}
SCRIPT = Script("own", "what", expect=EXPECT)


def failed(drawn: Account, *billing: int) -> list[str]:
    return [one.what for one in rehearse.findings(SCRIPT, drawn, Client(*billing)) if not one.held]


def test_a_good_rehearsal_holds_everything() -> None:
    assert failed(good(), 7, 8) == []


def test_each_shortcoming_is_found() -> None:
    drawn = good()
    drawn.unverified = ["a copy is gone"]
    drawn.interruptions = []
    drawn.resumed_from = {}
    drawn.boxes += [BoxStory("b1", 3, "9", machine_id=2, destroyed_at="2026-11-21T00:00:00Z", rule="approval")]
    drawn.boxes[0].machine_id = 2
    assert failed(drawn, 7, 66) == [
        "results are home and verified",
        "every box that bills is on record",
        "nothing was destroyed without consent",
        "1 interruptions",
        "training went on from a checkpoint",
        "at most 2 boxes were rented",
        "at least 2 machines were used",
    ]


def test_a_virgin_box_may_go_back() -> None:
    drawn = good()
    drawn.boxes[0].destroyed_at, drawn.boxes[0].rule = "2026-11-21T00:00:00Z", "virgin"
    assert failed(drawn, 8) == []


def test_a_step_that_never_came_up_is_not_held() -> None:
    script, history = rehearsal_script.read("preempted"), History(Path("/nonexistent"))
    director = rehearse.Director(script, Market(), Progress(Quiet()), history, rehearse.Clock())  # type: ignore[arg-type]  # stands for the handle
    (finding,) = rehearse._steps(script, director)
    assert not finding.held
    assert "never came up" in finding.seen

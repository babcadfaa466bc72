# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rounds of ``watch`` with the real observer: accounts answer from memory, boxes answer without ssh, and playbooks do
to both what the real ones do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import decide, exit_codes, recoveries, watch
from gpu_tenant.alerts import Alerts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.observe import Endpoint, Observation, Observer, RunView
from gpu_tenant.playbooks import BoxFailure, Outcome
from gpu_tenant.progress import Progress
from gpu_tenant.workspace import Workspace

NONCE = "0123456789abcdef"
REFUSED = TenantFailure("config", "RunPod refused the key", safe="nothing was changed", fix="give a good key")
AWAY = TenantFailure("provider", "the market is away", safe="it was only a question", fix="again in a minute")


@dataclass
class Account:
    """A vast account: what it lists, or the failure to."""

    account: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: TenantFailure | None = None

    def list_instances(self) -> list[dict[str, Any]]:
        if self.trouble is not None:
            raise self.trouble
        return list(self.rows.values())

    def get_instance(self, instance_id: str) -> dict[str, Any] | None:
        if self.trouble is not None:
            raise self.trouble
        return next((row for row in self.rows.values() if str(row["id"]) == instance_id), None)

    def user(self) -> dict[str, Any]:
        return {"credit": 100.0, "balance": 0.0}

    def list_volumes(self) -> list[dict[str, Any]]:
        return []

    def provider_now(self) -> float | None:
        return None


class AccountWithoutCredit(Account):
    """Like RunPod's and Lambda's, which have no such question."""

    user = property()  # type: ignore[assignment]  # hasattr() says no


class Boxes(Observer):
    """The real observer. ``runs`` is what a box would answer over ssh; one that is not in it holds nothing, and one of
    ``deaf`` does not answer."""

    def __init__(self, hosts: Sequence[BoxHost], accounts: Mapping[str, Account]) -> None:
        super().__init__(hosts, "")
        self.accounts = accounts
        self.runs: dict[str, str] = {}
        self.deaf: set[str] = set()

    def client(self, box: str) -> Any:
        made = self.accounts[box]
        return self._clients.setdefault(("vast", made.account), made)

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, run_id: str) -> Observation:
        if host.name in self.deaf:
            return replace(seen, contact="unreachable", problem="no answer")
        state = self.runs.get(host.name, "")
        if not state:
            return replace(seen, contact="no_supervisor")
        raw = {"run_id": run_id, "cells": [{"cell": "main", "state": state, "running_s": 60.0}]}
        return replace(seen, contact="answered", run=RunView(state, 10, 100, raw=raw))


class Said:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str, str]] = []

    def show(self, event: Any) -> None:
        self.texts.append((event.kind, event.box, event.text))

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class Scene:
    """Boxes by name, each with its account; playbooks change what the account lists."""

    workspace: Workspace
    store: StateStore
    said: Said
    accounts: dict[str, Account] = field(default_factory=dict)
    hosts: list[BoxHost] = field(default_factory=list)
    boxes: Boxes = field(init=False)
    played: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, BoxFailure] = field(default_factory=dict)
    on_refusal: dict[str, Callable[[], BoxFailure]] = field(default_factory=dict)
    deadlines_s: dict[str, float] = field(default_factory=dict)
    now: float = 1000.0

    def begin(self, **options: Any) -> watch.Watch:
        """A new process: nothing is handed over but what is on disk."""
        before = getattr(self, "boxes", None)
        self.boxes = Boxes(self.hosts, self.accounts)
        self.boxes.runs, self.boxes.deaf = (before.runs, before.deaf) if before else ({}, set())
        runner = Playbooks(self)
        settings = watch.WatchOptions(**options)
        clock: Callable[[], float] = lambda: self.now  # noqa: E731 - it reads the scene
        group = watch.group(self.hosts, clock)
        return watch.Watch(runner, self.boxes, group, settings, Progress(self.said), clock)  # type: ignore[arg-type]  # stands for the runner

    def rounds(self, watching: watch.Watch, count: int = 1) -> dict[str, dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _each in range(count):
            rows = watching.round()
            watching.settle()
            self.now += 60.0
        return {row["box"]: row for row in rows}

    def rent(self, name: str, run: str = "running", state: str = "running", recorded: bool = True) -> None:
        generation = self.store.last_generation("demo", name) + 1
        number = 100 + len(self.accounts) * generation + [host.name for host in self.hosts].index(name)
        stamp = f"gt1/demo/{name}/g{generation}/{NONCE}"
        self.accounts[name].rows[name] = {
            "id": number, "label": stamp, "actual_status": state, "intended_status": state, "cur_state": state,
            "public_ipaddr": "127.0.0.1", "ports": {"22/tcp": [{"HostPort": "2222"}]}, "dph_total": 0.3,
        }  # fmt: skip
        if recorded:
            known = {"provider_id": str(number), "stamp": stamp, "deploy_started_at": records.utc_now()}
            self.store.update_box("demo", name, generation, **known)
        self.boxes.runs[name] = run

    def set_state(self, name: str, **words: Any) -> None:
        self.accounts[name].rows[name].update(words)


@dataclass
class Playbooks:
    scene: Scene
    project: str = "demo"
    interrupts: Interrupts = field(default_factory=Interrupts)
    watch: Any = None

    @property
    def workspace(self) -> Workspace:
        return self.scene.workspace

    def run(self, playbook: str, boxes: Sequence[str], extra: Mapping[str, Any], **options: Any) -> Outcome:
        (name,) = boxes
        self.scene.played.append((playbook, name))
        self.scene.deadlines_s[playbook] = options["deadline_s"]
        outcome = Outcome(playbook, "successful", 0, Path(), (name,))
        on_refusal = self.scene.on_refusal.get(f"{playbook} {name}")
        trouble = on_refusal() if on_refusal else self.scene.refuse.get(f"{playbook} {name}")
        if trouble is not None:
            outcome.rc, outcome.failures = 2, [trouble]
        elif playbook == "train":
            self.scene.rent(name)
        elif playbook == "provision":
            assert extra["tenant_state"] == "parked"
            self.scene.set_state(name, actual_status="exited", intended_status="stopped", cur_state="stopped")
        return outcome


def spec(folder: Path, run_id: str, **more: Any) -> str:
    code = folder / "jobs" / run_id
    code.mkdir(parents=True)
    (code / "train.py").write_text("print('training')\n")
    artifacts = [{"glob": "*.pt", "role": "checkpoint"}]
    told = {"id": run_id, "command": ["python", "train.py"], "artifacts": artifacts, **more}
    (code / "run.yml").write_text(yaml.safe_dump(told))
    return str(code / "run.yml")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Scene]:
    """Boxes b1, b2 …: each with a run and an account of its own, or all candidates of one run, as it names them."""

    def build(
        accounts: Sequence[Account], one_run: bool = False, candidates: Sequence[str] = (), **variables: Any
    ) -> Scene:
        names = [f"b{number + 1}" for number in range(len(accounts))]
        scene = Scene(Workspace(tmp_path / "runner"), StateStore(str(tmp_path / "state")), Said())
        shared = spec(tmp_path, "digits", candidates=list(candidates) or names) if one_run or candidates else ""
        for name, account in zip(names, accounts, strict=True):
            known = {
                "tenant_project": "demo", "tenant_state_dir": scene.store.root, "tenant_rpo_s": "0",
                "tenant_run": shared or spec(tmp_path, f"run-{name}"), "platform_driver": "vast",
                "platform_data_dir": "/workspace", "provision_price_cap": "0.6",
            }  # fmt: skip
            scene.hosts.append(BoxHost(name, {**known, **variables}))
            scene.accounts[name] = account
        scene.boxes = Boxes(scene.hosts, scene.accounts)
        return scene

    return build


# --- the next candidate ---------------------------------------------------------------------------------------------


@pytest.fixture
def lost(make: Callable[..., Scene]) -> Scene:
    """A run on b1, whose container ended and that no rung brings back; b2 could do the work."""
    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True)
    scene.rent("b1")
    limits = decide.Limits()
    for rung, times in ((decide.RESTART, limits.restart), (decide.NEXT_OFFER, limits.next_offer)):
        for _try in range(times):
            identity = BoxIdentity("demo", "b1", 1, str(scene.accounts["b1"].rows["b1"]["id"]))
            action = decide.Action(rung, "its container ended")
            recoveries.begin(Journal(scene.store), identity, action, "digits", "exited", 7)
    scene.set_state("b1", actual_status="exited")
    return scene


def test_a_lost_box_is_told_to_stop_before_the_next_candidate_is_rented(lost: Scene) -> None:
    lost.refuse["provision b1"] = BoxFailure("b1", "provider", "it does not come to rest")
    watching = lost.begin()
    for _each in range(4):
        lost.rounds(watching)
        lost.now += watch.RETRY_MOST_S
    assert set(lost.played) == {("provision", "b1")}, "nothing is rented while it may go on billing"
    assert watching._kinds == {"b1": "provider"}
    lost.refuse.clear()
    lost.played.clear()
    rows = lost.rounds(watching, 3)
    assert lost.played == [("provision", "b1"), ("train", "b2")]
    assert rows["b2"]["verdict"] == "running"
    assert watching._kinds == {}
    assert any("it is left behind: instance" in text for _kind, box, text in lost.said.texts if box == "b1")


def test_a_stop_that_was_taken_is_enough_though_the_box_never_comes_to_rest(lost: Scene) -> None:
    def taken() -> BoxFailure:
        lost.set_state("b1", actual_status="exited", intended_status="stopped")
        lost.store.update_box("demo", "b1", 1, parked_at=records.utc_now())
        return BoxFailure("b1", "provider", "it did not come to rest within 900 s")

    lost.on_refusal["provision b1"] = taken
    lost.rounds(lost.begin(), 3)
    assert lost.played == [("provision", "b1"), ("train", "b2")]


def test_an_outbid_box_is_told_to_stop_although_its_provider_has_stopped_it(lost: Scene) -> None:
    words = dict.fromkeys(("actual_status", "intended_status", "cur_state"), "stopped")
    lost.set_state("b1", **words, is_bid=True, dph_base=0.3, min_bid=0.5)
    limits = decide.Limits()
    for _try in range(limits.raise_bid):
        raised = decide.Action(decide.RAISE_BID, "a higher bid took its GPU")
        identity = BoxIdentity("demo", "b1", 1, str(lost.accounts["b1"].rows["b1"]["id"]))
        recoveries.begin(Journal(lost.store), identity, raised, "digits", "outbid", 7)
    lost.rounds(lost.begin(), 1)
    assert Journal(lost.store).lines()[-1]["verdict"] == "outbid"
    assert lost.played == [("provision", "b1")]


def test_watch_begins_with_the_group_that_the_run_names_first(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)], candidates=["aws_spot", "runpod", "vast"])
    groups = {"b1": ("vast",), "b2": ("runpod",)}
    scene.hosts = [BoxHost(host.name, host.variables, groups=groups[host.name]) for host in scene.hosts]
    (one,) = watch.group(scene.hosts, declared=("aws_spot",))
    assert [box.name for box in one.boxes] == ["b2", "b1"]


def test_watch_does_not_begin_with_a_candidate_that_nobody_knows(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)], candidates=["b1", "b9"])
    with pytest.raises(TenantFailure, match="'b9'") as caught:
        scene.begin()
    assert (caught.value.kind, caught.value.safe) == ("config", "nothing was rented")


# --- one box or account does not end the watch of the others --------------------------------------------------------


def test_an_account_that_tells_no_credit_is_watched_beside_one_that_does(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), AccountWithoutCredit("b" * 64)])
    scene.rent("b1")
    scene.rent("b2")
    watching = scene.begin()
    rows = scene.rounds(watching, 2)
    assert {row["verdict"] for row in rows.values()} == {"running"}
    assert list(watching._accounts) == ["account aaaaaaaa"]


@pytest.mark.parametrize("from_the_start", [True, False])
def test_an_account_that_refuses_the_key_is_told_and_the_others_are_looked_after(
    make: Callable[..., Scene], from_the_start: bool
) -> None:
    theirs = Account("b" * 64)
    scene = make([Account("a" * 64), theirs, theirs])
    for name in ("b1", "b2", "b3"):
        scene.rent(name)
    watching = scene.begin()
    if not from_the_start:
        scene.rounds(watching, 1)
    theirs.trouble = REFUSED
    rows = scene.rounds(watching, 1)
    assert [rows[name]["verdict"] for name in ("b1", "b2", "b3")] == ["running", "unreachable", "unreachable"]
    assert "RunPod refused the key" in rows["b2"]["why"]
    told = [(box, text) for kind, box, text in scene.said.texts if kind == "warning"]
    assert [box for box, _text in told] == ["b2", "b3"], told
    # Two of three boxes are not seen, and yet that is no outage: they were answered, if with a refusal.
    scene.set_state("b1", actual_status="exited", intended_status="stopped", cur_state="stopped")
    scene.rounds(watching, 1)
    assert ("train", "b1") in scene.played
    assert {box for _playbook, box in scene.played} == {"b1"}


@pytest.mark.parametrize("away", [("b1", "b2"), ("b1",), ("b2",)])
@pytest.mark.parametrize("by_cron", [True, False])
def test_an_outage_at_the_first_look_rents_no_second_box(
    make: Callable[..., Scene], away: tuple[str, ...], by_cron: bool
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True)
    scene.rent("b2")
    for name in away:
        scene.accounts[name].trouble = AWAY
    watching = scene.begin()
    for _each in range(3):
        (row,) = scene.rounds(watching).values()
        assert row["verdict"] == "unreachable"
        assert "could not be looked at (the market is away" in row["why"]
        watching = scene.begin() if by_cron else watching
    for name in away:
        scene.accounts[name].trouble = None
    rows = scene.rounds(watching, 2)
    assert {box: row["verdict"] for box, row in rows.items()} == {"b2": "running"}
    assert scene.played == []
    if not by_cron:
        assert watching._kinds == {}, "the trouble of the box that was not chosen is over"


def test_the_exit_code_of_one_round_tells_of_a_refused_key(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), Account("b" * 64, trouble=REFUSED)])
    scene.rent("b1")
    scene.rent("b2")
    assert scene.begin(once=True).run() == exit_codes.of_kind("config")


def _silent(scene: Scene, name: str) -> None:
    scene.rent(name)
    scene.boxes.deaf.add(name)


def _failed(scene: Scene, name: str) -> None:
    scene.rent(name, run="failed")


def _too_dear(scene: Scene, name: str) -> None:
    path = Path(scene.hosts[[host.name for host in scene.hosts].index(name)].variables["tenant_run"])
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "budget": {"usd": 0.01}}))


def _spent(scene: Scene, name: str) -> None:
    _too_dear(scene, name)
    scene.rent(name)
    identity = BoxIdentity("demo", name, 1, str(scene.accounts[name].rows[name]["id"]))
    written = Journal(scene.store)
    recoveries.begin(written, identity, decide.Action(decide.RENT, "it is not rented"), f"run-{name}", "absent", 0)
    written.append("effect", "rent", **identity.as_dict(), price_per_hour=0.3, platform="vast")
    lines = [{**line, "at": "2026-11-01T00:00:00Z"} for line in written.lines()]
    Path(scene.store.journal_path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _well(scene: Scene, name: str) -> None:
    scene.rent(name)


@pytest.mark.parametrize(
    ("troubles", "kind"),
    [
        ([_well, _well], None),
        ([_silent, _well, _well], "unreachable"),
        ([_failed, _well], "training_failed"),
        ([_too_dear, _well], "budget"),
        ([_spent, _well], "budget"),
        ([_failed, _silent, _well, _well], "training_failed"),
        ([_silent, _failed, _well, _well], "training_failed"),
        ([_too_dear, _failed, _silent, _well, _well], "budget"),
        ([_silent, _failed, _too_dear, _well, _well], "budget"),
    ],
)
def test_the_exit_code_of_one_round_tells_of_the_worst(
    make: Callable[..., Scene], troubles: Sequence[Callable[[Scene, str], None]], kind: str | None
) -> None:
    scene = make([Account(letter * 64) for letter in "abcdef"[: len(troubles)]])
    for number, begin in enumerate(troubles):
        begin(scene, f"b{number + 1}")
    code = scene.begin(once=True).run()
    assert code == (exit_codes.DONE if kind is None else exit_codes.of_kind(kind)), scene.said.texts


def test_the_exit_codes_are_those_that_are_documented() -> None:
    told = {kind: exit_codes.of_kind(kind) for kind in ("unreachable", "training_failed", "budget")}
    assert told == {"unreachable": 13, "training_failed": 20, "budget": 23}


def test_a_watch_to_which_no_account_answers_does_not_begin(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64, trouble=REFUSED), Account("b" * 64, trouble=REFUSED)])
    with pytest.raises(TenantFailure, match="refused the key"):
        scene.begin().run()


@pytest.mark.parametrize("which", ["receipt", "box record", "pull interval"])
def test_a_record_of_one_box_that_cannot_be_read_ends_nobodys_watch(make: Callable[..., Scene], which: str) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    scene.rent("b2")
    paths = {
        "receipt": scene.store.receipt_path("demo", "run-b2", "b2", 1),
        "box record": scene.store.box_record_path("demo", "b2", 1),
    }
    if which in paths:
        Path(paths[which]).parent.mkdir(parents=True, exist_ok=True)
        Path(paths[which]).write_text("{ torn")
    else:
        told = {"tenant_rpo_s": "ten minutes", "platform_durable_kind": "pull"}
        scene.hosts[1] = BoxHost("b2", {**scene.hosts[1].variables, **told})
    watching = scene.begin()
    rows = scene.rounds(watching, 2)
    assert [rows[name]["verdict"] for name in ("b1", "b2")] == ["running", "unreachable"]
    assert sum(box == "b2" and kind == "warning" for kind, box, _text in scene.said.texts) == 1, scene.said.texts
    assert scene.played == [], "nothing is done with a box whose records cannot be read"


# --- time and money -------------------------------------------------------------------------------------------------


def test_a_harvest_of_the_watch_may_take_as_long_as_its_role_waits(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)], harvest_deadline_s="30000")
    scene.rent("b1", run="done")
    scene.rounds(scene.begin())
    assert ("harvest", "b1") in scene.played
    assert scene.deadlines_s["harvest"] > 30000


@pytest.mark.parametrize(
    "trouble",
    [None, BoxFailure("b1", "unreachable", "the link is down"), BoxFailure("b1", "config", "no space here")],
)
def test_a_spent_budget_ends_the_meter_also_where_nothing_can_be_pulled(
    make: Callable[..., Scene], trouble: BoxFailure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    if trouble is not None:
        scene.refuse["harvest b1"] = trouble
    spent = decide.Action(decide.PARK, "its budget is spent", failure="budget")
    monkeypatch.setattr(decide, "decide", lambda situation: spent)
    scene.rounds(scene.begin())
    assert scene.played == [("harvest", "b1"), ("provision", "b1")]
    assert scene.accounts["b1"].rows["b1"]["actual_status"] == "exited"
    told = [text for kind, _box, text in scene.said.texts if kind == "warning" and "could not be pulled" in text]
    assert bool(told) is (trouble is not None)


def _budgeted(scene: Scene, folder: Path, spent_h: float, **budget: float) -> None:
    """A run with a budget on b1, which has computed for so many hours at $1 an hour."""
    path = spec(folder, "digits-with-budget", budget=budget)
    scene.hosts[0] = BoxHost("b1", {**scene.hosts[0].variables, "tenant_run": path})
    scene.rent("b1")
    identity = BoxIdentity("demo", "b1", 1, str(scene.accounts["b1"].rows["b1"]["id"]))
    journal = Journal(scene.store)
    recoveries.begin(journal, identity, decide.Action(decide.RENT, "first"), "digits-with-budget", "absent", 7)
    journal.append("effect", "rent", **identity.as_dict(), price_per_hour=1.0)
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=spent_h)
    moved = [{**line, "at": since.strftime("%Y-%m-%dT%H:%M:%SZ")} for line in journal.lines()]
    Path(scene.store.journal_path).write_text("".join(json.dumps(line) + "\n" for line in moved))


@pytest.mark.parametrize(
    ("spent_h", "budget", "reason", "code"),
    [
        (1.0, {"usd": 9.0}, "", 0),
        (8.0, {"usd": 9.0}, "budget-warning", 23),
        (5.0, {"usd": 9.0, "warn_at": 0.5}, "budget-warning", 23),
        (8.7, {"usd": 9.0}, "no-new-boxes", 23),
        (0.5, {"usd": 1.0}, "no-new-boxes", 0),
    ],
)
def test_people_hear_once_how_far_a_run_is_through_its_budget(
    make: Callable[..., Scene], tmp_path: Path, spent_h: float, budget: dict[str, float], reason: str, code: int
) -> None:
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, spent_h, **budget)
    for _start in range(3):
        # By cron: each time another process.
        assert scene.begin(once=True).run() == code
    told = [text for kind, box, text in scene.said.texts if (kind, box) == ("warning", "b1")]
    assert len(told) == bool(reason), told
    row = scene.rounds(scene.begin())["b1"]
    assert (row["budget_usd"], row["budget_rung"]) == (budget["usd"], reason)
    assert scene.played == [], "it is told, and the run goes on"


def test_a_box_that_is_declared_parked_is_no_trouble_near_its_budget(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make([Account("a" * 64)], tenant_state="parked")
    _budgeted(scene, tmp_path, 8.0, usd=9.0)
    assert scene.begin(once=True).run() == 0


def test_an_alert_of_the_budget_that_nobody_got_is_raised_again(
    make: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, 8.0, usd=9.0)
    posted: list[dict[str, Any]] = []
    answers = iter([False, True])

    def post(self: Alerts, message: dict[str, Any]) -> bool:
        posted.append(message)
        return next(answers)

    monkeypatch.setattr(Alerts, "_post", post)
    scene.rounds(scene.begin(), 3)
    assert [(one["event"], one["reason"], one["run"]) for one in posted] == [
        ("alert", "budget-warning", "digits-with-budget")
    ] * 2


def test_an_end_for_want_of_money_is_one_alert(make: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, 10.0, usd=9.0)
    scene.rounds(scene.begin())
    told = [text for kind, _box, text in scene.said.texts if kind == "warning"]
    assert [("its budget is spent" in text) for text in told] == [True], told
    assert [line["rung"] for line in Journal(scene.store).lines() if line["verb"] == "budget"] == ["budget-spent"]

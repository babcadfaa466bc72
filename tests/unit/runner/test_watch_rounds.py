# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Rounds of ``watch``: one box or account after the other, and what ends or does not end the watch of all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import gone_record, run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account as VastAccount
from watch_scene import AWAY, REFUSED, Account, AccountWithoutCredit, Boxes, Scene, spec

from gpu_tenant import decide, exit_codes, recoveries, watch
from gpu_tenant.alerts import Alerts
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.playbooks import BoxFailure
from gpu_tenant.pulls import PULL_SHARE
from gpu_tenant.watched import Watched

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


def test_a_pull_that_failed_because_the_box_was_lost_holds_up_no_recovery(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)], tenant_rpo_s="1", platform_durable_kind="pull")
    scene.rent("b1")
    scene.refuse["harvest b1"] = BoxFailure("b1", "unreachable", "ssh could not connect")
    watching = scene.begin()
    scene.rounds(watching, 1)
    assert scene.played == [("harvest", "b1")]
    scene.now -= 59.0
    scene.rounds(watching, 1)
    assert scene.played == [("harvest", "b1")], "what failed is tried again later"
    scene.now -= 59.0
    scene.set_state("b1", actual_status="exited", intended_status="running", cur_state="running")
    rows = scene.rounds(watching, 1)
    assert rows["b1"]["action"] == "restart"
    assert scene.played == [("harvest", "b1"), ("train", "b1")]
    assert watching._kinds == {}


def test_a_machine_whose_run_came_home_from_the_one_that_it_replaced_is_stopped(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    scene.rent("b1")
    scene.store.update_box("demo", "b1", 2, created_at="2026-01-01T00:00:00Z")
    watching = scene.begin()
    (one,) = watching._watched
    path = scene.store.receipt_path("demo", one.run_id, "b1", 1)
    told = {"box": "b1", "generation": 1, "spec_sha256": one.spec["spec_sha256"], "verified_at": records.utc_now()}
    records.write_record(path, "receipt", {**told, "complete": True})
    rows = scene.rounds(watching, 1)
    assert rows["b1"]["action"] == "park"
    assert scene.played == [("harvest", "b1"), ("provision", "b1")]
    scene.store.update_box("demo", "b1", 2, parked_at=records.utc_now())
    assert scene.rounds(watching, 3)["b1"]["action"] == "finish"
    assert len(scene.played) == 2
    assert watching._kinds == {}, "nothing is the matter"
    # A person who starts it again to look at it is left alone.
    scene.set_state("b1", actual_status="running", intended_status="running", cur_state="running")
    scene.store.update_box(
        "demo",
        "b1",
        2,
        parked_at=None,
        started_at=records.utc_text(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)),
    )
    scene.rounds(watching, 2)
    assert len(scene.played) == 2


def test_a_candidate_is_no_longer_recovered_once_the_run_is_home(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True, harvest_park="false")
    scene.rent("b1", run="done")
    scene.store.update_box("demo", "b2", 1, provider_id="9", destroyed_at="2026-01-01T00:00:00Z", lost=True)
    watching = scene.begin()
    (one,) = watching._watched
    told = {"box": "b1", "generation": 1, "spec_sha256": one.spec["spec_sha256"], "verified_at": records.utc_now()}
    path = scene.store.receipt_path("demo", one.run_id, "b1", 1)
    records.write_record(path, "receipt", {**told, "complete": True})
    assert scene.rounds(watching)["b1"]["action"] == "finish"
    assert not gone_record.missed_box(scene.store, "demo", "b2")


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


def test_an_error_that_nobody_expected_at_one_box_ends_nobodys_watch(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    scene.rent("b2")
    judged = Watched._judged

    def judge(one: Watched, outage: str) -> Any:
        if one.box.name == "b2":
            raise KeyError("a field\x1b[2J that is not there")
        return judged(one, outage)

    monkeypatch.setattr(Watched, "_judged", judge)
    watching = scene.begin()
    rows = scene.rounds(watching, 2)
    assert rows["b1"]["verdict"] == "running"
    told = [text for kind, box, text in scene.said.texts if (kind, box) == ("warning", "b2")]
    assert len(told) == 1, scene.said.texts
    assert "nobody expected (KeyError" in told[0]
    assert "\x1b" not in told[0]


def _b2_is_brought_up_again(scene: Scene, rounds: int = 3) -> list[str]:
    """And the watch goes on, whatever is the matter with b1; what was said of that."""
    scene.rent("b2")
    watching = scene.begin()
    scene.rounds(watching)
    scene.set_state("b2", actual_status="exited", intended_status="stopped", cur_state="stopped")
    rows = scene.rounds(watching, rounds)
    assert ("train", "b2") in scene.played
    assert {box for _playbook, box in scene.played} == {"b2"}
    assert rows["b1"]["verdict"] == "unreachable"
    return [text for kind, box, text in scene.said.texts if (kind, box) == ("warning", "b1")]


def test_a_store_that_cannot_be_read_ends_nobodys_watch(make: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    broken = tmp_path / "elsewhere"
    scene.hosts[0] = BoxHost("b1", {**scene.hosts[0].variables, "tenant_state_dir": str(broken)})
    (broken / "journal.jsonl").mkdir(parents=True)
    scene.rent("b1", recorded=False)
    told = _b2_is_brought_up_again(scene)
    assert sum("the records of b1 cannot be read" in text for text in told) == 1, told


def test_an_account_whose_answer_makes_no_sense_ends_nobodys_watch(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    read = VastAccount.to_box

    def to_box(account: VastAccount, row: Mapping[str, Any]) -> Box:
        if "/b1/" in row["label"]:
            raise TypeError("a list where there was a number")
        return read(account, row)

    monkeypatch.setattr(VastAccount, "to_box", to_box)
    told = _b2_is_brought_up_again(scene)
    assert len(told) == 1, told
    assert "TypeError" in told[0]


def test_a_look_that_goes_wrong_at_one_box_ends_nobodys_watch(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    asked = Boxes._ask

    def ask(boxes: Boxes, host: BoxHost, *more: Any) -> Observation:
        if host.name == "b1":
            raise ZeroDivisionError("a box without a clock")
        return asked(boxes, host, *more)

    monkeypatch.setattr(Boxes, "_ask", ask)
    assert "ZeroDivisionError" in _b2_is_brought_up_again(scene)[0]


@pytest.mark.parametrize("noting", ["gpu_tenant.look_notes.note", "gpu_tenant.candidates.in_order"])
def test_notes_and_choices_that_go_wrong_end_nobodys_watch(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, noting: str
) -> None:
    def fails(*_unused: Any) -> None:
        raise AttributeError("no such thing")

    scene = make([Account("a" * 64), Account("b" * 64)], one_run=True)
    scene.rent("b1")
    monkeypatch.setattr(noting, fails)
    (row,) = scene.rounds(scene.begin(), 2).values()
    assert row["verdict"] == "unreachable"
    assert "AttributeError" in row["why"]
    assert scene.played == []


def test_what_cannot_be_written_or_told_ends_nobodys_watch(
    make: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    scene.rent("b2")
    (scene.workspace.root / "watch").write_text("not a folder")
    priced = Watched.risk
    monkeypatch.setattr(Watched, "risk", lambda one: priced(one) if one.box.name == "b2" else 1 / 0)
    watching = scene.begin(metrics_file=str(tmp_path))
    assert set(scene.rounds(watching, 3)) == {"b2"}
    told = [text for kind, _box, text in scene.said.texts if kind == "warning"]
    for what in ("the metrics cannot be written", "what was counted cannot be kept", "cannot be told, or begun"):
        assert sum(what in text for text in told) == 1, told


@pytest.mark.parametrize("typo", ["note: 2026-13-45", "note: 0x_", "note: " + "[" * 5000])
def test_a_typo_in_one_spec_ends_nobodys_watch(make: Callable[..., Scene], typo: str) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    watching = scene.begin()
    one = next(one for one in watching._watched if one.box.name == "b2")
    path = Path(one.spec_path)
    path.write_text(path.read_text() + typo + "\n")
    rows = scene.rounds(watching, 2)
    assert rows["b1"]["verdict"] == "running"
    assert any("run spec" in text for kind, box, text in scene.said.texts if box == "b2"), scene.said.texts


# --- time and money -------------------------------------------------------------------------------------------------


def test_a_harvest_of_the_watch_may_take_as_long_as_its_role_waits(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64)], harvest_deadline_s="30000")
    scene.rent("b1", run="done")
    scene.rounds(scene.begin())
    assert ("harvest", "b1") in scene.played
    assert scene.deadlines_s["harvest"] > 30000


def _pulls(scene: Scene) -> list[Any]:
    return [line for line in Journal(scene.store).lines() if line.get("verb") == "pull"]


@pytest.mark.parametrize("by_cron", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_only_a_pull_that_brought_something_home_is_noted_as_one(
    make: Callable[..., Scene], empty: bool, by_cron: bool
) -> None:
    scene = make([Account("a" * 64)], tenant_rpo_s="50", platform_durable_kind="pull")
    scene.rent("b1")
    scene.empty = {"b1"} if empty else set()
    watching = scene.begin()
    for _look in range(3):
        watching = scene.begin() if by_cron else watching
        scene.rounds(watching)
        watching._keep_count()
        scene.now -= 59.0
        # What was not pulled is as much at risk as before, and yet the box is not asked at every look.
        assert scene.played == [("harvest", "b1")]
        assert bool(_pulls(scene)) is not empty
    scene.now += 60.0
    scene.rounds(scene.begin() if by_cron else watching)
    assert scene.played.count(("harvest", "b1")) == (2 if empty else 1)
    warned = [text for kind, _box, text in scene.said.texts if kind == "warning" and "brought nothing home" in text]
    assert bool(warned) is empty


@pytest.mark.parametrize("by_cron", [False, True])
def test_a_long_pull_that_brought_nothing_is_repeated_as_seldom_as_its_length_asks(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, by_cron: bool
) -> None:
    monkeypatch.setattr("gpu_tenant.watched.at_risk_s", lambda *_looked: 7200.0)
    scene = make([Account("a" * 64)], tenant_rpo_s="50", platform_durable_kind="pull")
    scene.rent("b1")
    scene.empty = {"b1"}
    took_s = 1200.0

    def take() -> None:
        scene.now += took_s

    scene.on_play["harvest b1"] = take
    watching, pulls = scene.begin(), []
    for pause_s in (700.0, PULL_SHARE * took_s, 0.0):
        scene.rounds(watching)
        watching._keep_count()
        pulls.append(len(scene.played))
        watching = scene.begin() if by_cron else watching
        scene.now += pause_s
    assert pulls == [1, 1, 2]


def test_what_was_not_pulled_before_a_stop_is_not_noted_as_pulled(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    scene.empty = {"b1"}
    spent = decide.Action(decide.PARK, "its budget is spent", failure="budget")
    monkeypatch.setattr(decide, "decide", lambda situation: spent)
    scene.rounds(scene.begin())
    assert (scene.played, _pulls(scene)) == ([("harvest", "b1"), ("provision", "b1")], [])
    assert any("nothing was pulled before it is stopped" in text for _kind, _box, text in scene.said.texts)


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


@pytest.mark.parametrize("by_cron", [True, False])
@pytest.mark.parametrize("run", ["done", "failed"])
def test_what_no_harvest_brings_home_is_parked_once_its_budget_is_spent(
    make: Callable[..., Scene], tmp_path: Path, run: str, by_cron: bool
) -> None:
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, 10.0, usd=9.0)
    scene.boxes.runs["b1"] = run
    scene.refuse["harvest b1"] = BoxFailure("b1", "config", "no space here")
    watching = None
    for _each in range(decide.HARVESTS + 2):
        if by_cron:
            scene.begin(once=True).run()
        else:
            watching = watching or scene.begin()
            scene.rounds(watching)
        scene.now += watch.RETRY_MOST_S
    # The last one is what is pulled before a box is parked.
    assert scene.played == [("harvest", "b1")] * (decide.HARVESTS + 1) + [("provision", "b1")]
    assert scene.accounts["b1"].rows["b1"]["intended_status"] == "stopped"


def test_a_harvest_that_brings_nothing_home_counts_as_one_that_failed(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    """Its receipt is not complete, and will not be."""
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, 10.0, usd=9.0)
    scene.boxes.runs["b1"] = "done"
    scene.rounds(scene.begin(), decide.HARVESTS + 2)
    assert scene.played[-1] == ("provision", "b1")


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


def test_a_budget_that_is_raised_in_the_run_spec_is_heard_of_by_a_watch_that_gave_up(
    make: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make([Account("a" * 64)])
    _budgeted(scene, tmp_path, 10.0, usd=9.0)
    scene.set_state("b1", actual_status="exited", intended_status="stopped", cur_state="stopped")
    watching = scene.begin()
    assert scene.rounds(watching, 2)["b1"]["action"] == "give_up"
    path = Path(scene.hosts[0].variables["tenant_run"])
    path.write_text(path.read_text().replace("usd: 9.0", "usd: 900.0"))
    assert scene.rounds(watching)["b1"]["action"] == "restart"
    assert scene.played == [("train", "b1")]


def test_a_run_spec_is_read_again_only_when_it_was_edited(
    make: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes every byte of the code with it."""
    scene = make([Account("a" * 64)])
    scene.rent("b1")
    watching = scene.begin()
    read: list[str] = []
    load = run_spec.load_run_spec
    monkeypatch.setattr("gpu_tenant.followed_spec.load_run_spec", lambda path: read.append(path) or load(path))
    scene.rounds(watching, 3)
    assert read == []
    path = Path(scene.hosts[0].variables["tenant_run"])
    path.write_text(path.read_text() + "# looked at\n")
    scene.rounds(watching, 3)
    assert read == [str(path)]


def test_nothing_is_done_by_a_run_spec_that_cannot_be_read_since_it_was_edited(make: Callable[..., Scene]) -> None:
    scene = make([Account("a" * 64), Account("b" * 64)])
    scene.rent("b1")
    scene.rent("b2")
    watching = scene.begin()
    scene.rounds(watching)
    path = Path(scene.hosts[0].variables["tenant_run"])
    before = path.read_text()
    scene.set_state("b1", actual_status="exited")
    for broken in (before + "budget: {usd: lots}\n", None):
        path.unlink() if broken is None else path.write_text(broken)
        rows = scene.rounds(watching)
        assert [rows[name]["verdict"] for name in ("b1", "b2")] == ["unreachable", "running"]
        assert str(path) in rows["b1"]["why"]
    assert scene.played == []
    path.write_text(before)
    assert scene.rounds(watching)["b1"]["action"] == "restart"
    assert scene.played == [("train", "b1")]


@pytest.fixture
def parked_at_home(make: Callable[..., Scene], tmp_path: Path) -> Scene:
    """A run whose results are home, and whose box rests since."""
    scene = make([Account("a" * 64)])
    # A spec that is part of its code is other code with each edit.
    path = spec(tmp_path, "kept", budget={"usd": 9.0}, code={"exclude": ["run.yml"]})
    scene.hosts[0] = BoxHost("b1", {**scene.hosts[0].variables, "tenant_run": path})
    scene.rent("b1", run="done")
    _came_home(scene)
    scene.set_state("b1", actual_status="exited", intended_status="stopped", cur_state="stopped")
    scene.store.update_box("demo", "b1", 1, parked_at=records.utc_now())
    return scene


def _came_home(scene: Scene) -> None:
    (host,) = scene.hosts
    read = run_spec.load_run_spec(host.variables["tenant_run"])
    told = {"box": "b1", "generation": 1, "spec_sha256": read["spec_sha256"], "verified_at": records.utc_now()}
    path = scene.store.receipt_path("demo", read["id"], "b1", 1)
    records.write_record(path, "receipt", {**told, "complete": True})


def _edited(scene: Scene, before: str, after: str) -> None:
    path = Path(scene.hosts[0].variables["tenant_run"])
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def _warnings(scene: Scene) -> list[str]:
    return [text for kind, _box, text in scene.said.texts if kind == "warning"]


def test_to_edit_the_spec_of_a_run_that_is_home_starts_nothing(parked_at_home: Scene) -> None:
    watching = parked_at_home.begin()
    parked_at_home.rounds(watching, 2)
    _edited(parked_at_home, "train.py", "train.py\n- --lr=0.1")
    assert parked_at_home.rounds(watching, 3)["b1"]["action"] == "finish"
    (told,) = _warnings(parked_at_home)
    assert "run kept is home, and its spec or code is another since, so nothing is started for it" in told
    _edited(parked_at_home, "\n- --lr=0.1", "")
    parked_at_home.rounds(watching, 2)
    _edited(parked_at_home, "train.py", "train.py\n- --lr=0.2")
    parked_at_home.rounds(watching, 2)
    assert (len(_warnings(parked_at_home)), parked_at_home.played) == (2, [])


def test_one_that_came_home_since_it_was_judged_is_left_as_well(make: Callable[..., Scene]) -> None:
    """Its spec is edited while its harvest is at work."""
    scene = make([Account("a" * 64)])
    scene.rent("b1", run="done")
    watching = scene.begin()

    def come_home() -> None:
        _came_home(scene)
        _edited(scene, "train.py", "train.py\n- --lr=0.1")
        scene.set_state("b1", actual_status="exited", intended_status="stopped", cur_state="stopped")

    scene.on_play["harvest b1"] = come_home
    assert scene.rounds(watching, 4)["b1"]["action"] == "finish"
    assert (scene.played, len(_warnings(scene))) == ([("harvest", "b1")], 1)


def test_a_home_runs_budget_is_edited_without_a_word(parked_at_home: Scene) -> None:
    watching = parked_at_home.begin()
    parked_at_home.rounds(watching, 2)
    _edited(parked_at_home, "usd: 9.0", "usd: 90.0")
    row = parked_at_home.rounds(watching, 2)["b1"]
    assert (row["action"], row["budget_usd"], _warnings(parked_at_home)) == ("finish", 90.0, [])


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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant status``: what it concludes from one look, how clocks count down, and that it fits any terminal."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from click.testing import CliRunner
from rich.console import Console

from gpu_tenant import (
    fleet,
    hosts,
    interrupts,
    job,
    observe,
    outlet,
    status,
    status_command,
    status_looks,
    status_view,
    supervisor_answer,
)
from gpu_tenant.cli import cli
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

PLATFORM_CLOCKS = [
    {"after": "0s", "effect": "the disk bills", "starts_at": "stopped"},
    {"after": "1d", "effect": "the disk is released", "starts_at": "stopped"},
    {"after": "", "effect": "the rental ends", "starts_at": "rental_end"},
]
RUN = {"run_id": "mnist", "state": "running", "cells": [{"cell": "a", "state": "running", "step": 7, "running_s": 420}]}
HEALTH = {
    "disk": {"free_bytes": 12_000_000_000, "free_inodes": 9, "full_in_s": 7200},
    "gpu": {"cards": [{"name": "RTX\x1b[31m 4090", "used_mib": 2048, "memory_mib": 24576}] * 2},
}


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


@pytest.fixture
def host(store: StateStore) -> BoxHost:
    variables = {"tenant_project": "demo", "tenant_state_dir": store.root, "platform_driver": "vast"}
    return BoxHost("digits-1", {**variables, "platform_name": "vast", "platform_clocks": PLATFORM_CLOCKS})


def rented(store: StateStore, hours_ago: float, *verbs: str) -> fleet.Known:
    """Our records of a machine that was rented, and what was done to it so many hours ago."""
    identity = BoxIdentity("demo", "digits-1", 2, "4242")
    # Of a process that was killed before it sent the create.
    store.update_box("demo", "digits-1", 1, provider_id="", platform="vast")
    store.update_box("demo", "digits-1", 2, provider_id="4242", platform="vast", created_at="2026-11-21T10:00:00Z")
    for verb in ("rent", *verbs):
        Journal(store).append("effect", verb, **identity.as_dict(), price_per_hour=0.36, stopped_per_hour=0.036)
    lines = Path(store.journal_path).read_text().splitlines()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours_ago * 3600))
    moved = [json.dumps({**json.loads(line), "at": at}) for line in lines]
    Path(store.journal_path).write_text("".join(line + "\n" for line in moved))
    host = BoxHost("digits-1", {"tenant_state_dir": store.root})
    return fleet.read([host], "demo")[store.root]


def training(item: Box) -> Observation:
    view = supervisor_answer.run_view({"runs": [RUN]}, "")
    return Observation("digits-1", records.utc_now(), "running", item, contact="answered", run=view, health=HEALTH)


def drawn(rows: list[dict[str, Any]], width: int, accounts: Any = (), **options: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(status_view.StatusView(rows, accounts))
    return stream.getvalue()


def test_a_box_at_work_tells_what_it_does_costs_and_risks(host: BoxHost, store: StateStore, vast_item: Box) -> None:
    row = status.row(host, training(vast_item), rented(store, 10.0))
    assert (row["verdict"], row["step"], row["run"]) == ("running", 7, "mnist")
    assert row["gpu"] == {"name": "RTX 4090", "count": 2, "used_mib": 4096, "memory_mib": 49152}
    assert row["spent_usd"] == pytest.approx(3.6, abs=0.01)
    Path(store.box_record_path("demo", "digits-1", 1)).unlink()
    lacking = fleet.read([host], "demo")[store.root]
    assert status.row(host, training(vast_item), lacking)["spent_usd"] is None, "nobody knows what the first one cost"
    assert (row["at_risk_s"], row["at_risk_usd"]) == (420, pytest.approx(420 / 3600 * 0.31))
    assert json.loads(json.dumps(row)) == row
    text = drawn([row], 240)
    for words in ("2 x RTX 4090, 4.0 of 48.0 GiB", "12.0 GB, full in 2 h 0 min", "0.3100", "3.60", "7 min, $0.04 (RPO"):
        assert words in text


@pytest.mark.parametrize(
    ("variables", "rpo_s", "told"),
    [
        ({}, 600.0, "(RPO 10 min)"),
        ({"tenant_rpo_s": "1800"}, 1800.0, "(RPO 30 min)"),
        ({"tenant_rpo_s": "0"}, None, ""),
        ({"tenant_rpo_s": "soon"}, None, ""),
        ({"tenant_rpo_s": "nan"}, None, ""),
        ({"tenant_rpo_s": "inf"}, None, ""),
        ({"platform_durable_kind": "mount"}, None, ""),
    ],
)
def test_how_much_work_may_be_at_risk_is_said_beside_how_much_is(
    host: BoxHost, vast_item: Box, variables: dict[str, str], rpo_s: float | None, told: str
) -> None:
    row = status.row(BoxHost(host.name, {**host.variables, **variables}), training(vast_item))
    assert row["rpo_s"] == rpo_s
    text = status_view.risk_text(row)
    assert told in text if told else "RPO" not in text


def test_a_run_at_work_that_nears_its_budget_says_so(host: BoxHost, store: StateStore, vast_item: Box) -> None:
    known = rented(store, 10.0)
    assert status.row(host, training(vast_item), known)["budget"] is None
    told = {"rung": "budget-warning", "spent_usd": 4.1, "budget_usd": 5.0, "run_id": "mnist"}
    Journal(store).append("effect", "budget", project="demo", box="digits-1", generation=2, **told)
    known = fleet.read([host], "demo")[store.root]
    row = status.row(host, training(vast_item), known)
    assert row["budget"].startswith("run mnist has spent $4.10 of its budget of $5.00: ")
    assert "run mnist has spent $4.10 of its budget of $5.00" in " ".join(drawn([row], 110).split())
    told = {"runs": [{**RUN, "state": "done", "cells": []}]}
    done = replace(training(vast_item), run=supervisor_answer.run_view(told, ""))
    finished = status.row(host, done, known)
    assert (finished["verdict"], finished["budget"]) == ("finished", None)


def test_a_pull_of_this_box_is_what_the_risk_counts_from(host: BoxHost, store: StateStore, vast_item: Box) -> None:
    for box, minutes in (("digits-1", 2), ("another", 0)):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60 * minutes))
        place = {"project": "demo", "box": box, "run_id": "mnist"}
        Journal(store).append("effect", "pull", **place, began_at=at)
    known = fleet.read([host], "demo")[store.root]
    assert status.row(host, training(vast_item), known)["at_risk_s"] == pytest.approx(120, abs=10)


@pytest.mark.parametrize(("hours_ago", "left_s", "alarm"), [(2, 22 * 3600, True), (30, -6 * 3600, True)])
def test_a_stopped_boxs_clock_counts_from_when_we_stopped_it(
    host: BoxHost, store: StateStore, vast_item: Box, hours_ago: float, left_s: int, alarm: bool
) -> None:
    seen = Observation("digits-1", records.utc_now(), "stopped", vast_item)
    clock, ends = status.row(host, seen, rented(store, hours_ago, "stop"))["countdowns"]
    assert ends["left_s"] is None, "the market does not say when the rental ends"
    assert clock["left_s"] == pytest.approx(left_s, abs=60)
    assert clock["alarm"] is alarm
    assert "ALARM digits-1" in drawn([status.row(host, seen, rented(store, hours_ago, "stop"))], 200)


def test_a_clock_that_began_nobody_knows_when_is_unknown_and_no_alarm(host: BoxHost, vast_item: Box) -> None:
    row = status.row(host, Observation("digits-1", records.utc_now(), "outbid", vast_item))
    assert [(clock["left_s"], clock["alarm"]) for clock in row["countdowns"]] == [(None, False), (None, False)]
    assert "nobody says when" in drawn([row], 200)
    assert "ALARM" not in drawn([row], 200)


@pytest.mark.parametrize(
    ("state", "ticking"),
    [
        ("running", ["it runs out (after 9h)", "traffic bills"]),
        ("stopped", ["its disk bills", "traffic bills"]),
        ("outbid", ["its disk bills", "traffic bills"]),
        *[(state, ["traffic bills"]) for state in ("loading", "scheduling", "exited", "offline", "unknown")],
        ("absent", []),
        ("unreachable", []),
    ],
)
def test_what_ticks_in_every_state_of_a_provider(host: BoxHost, vast_item: Box, state: str, ticking: list[str]) -> None:
    listed = [("0s", "traffic bills", "always"), ("0s", "its disk bills", "stopped"), ("9h", "it runs out", "started")]
    clocks = [dict(zip(("after", "effect", "starts_at"), each, strict=True)) for each in listed]
    clocked = replace(host, variables={**host.variables, "platform_clocks": clocks})
    seen = Observation("digits-1", records.utc_now(), state, vast_item)
    assert sorted(status.row(clocked, seen)["clocks"]) == ticking


def test_the_end_of_the_rental_is_counted_by_the_providers_clock(host: BoxHost, vast_item: Box) -> None:
    seen = training(replace(vast_item, end_date=1_000_000.0))
    [clock] = status.row(host, seen, provider_now=1_000_000.0 - 48 * 3600)["countdowns"]
    assert (clock["left_s"], clock["left"], clock["alarm"]) == (48 * 3600, "2 d 0 h", False)
    assert status.row(host, seen, provider_now=999_000.0)["countdowns"][0]["alarm"] is True
    assert status.row(host, training(vast_item))["countdowns"][0]["left_s"] is None


def test_what_a_watch_counted_makes_a_verdict_that_one_look_cannot(host: BoxHost, vast_item: Box) -> None:
    seen = Observation("digits-1", records.utc_now(), "loading", vast_item)
    assert status.row(host, seen)["verdict"] == "starting"
    before = {"words": ["loading", "not_tried", ""], "absences": 0}
    before |= {"provider_since": time.time() - 3600, "box_since": time.time() - 3600}
    assert status.row(host, seen, sight=before)["verdict"] == "loading-stuck"
    assert status.row(host, seen, sight={"words": "nonsense"})["verdict"] == "starting"


def test_a_box_that_is_lost_is_not_one_that_was_never_rented(host: BoxHost) -> None:
    closed = {"provider_id": "7", "destroyed_at": "2026-11-21T00:00:00Z"}
    seen, twice = Observation("digits-1", records.utc_now(), "absent"), {"words": ["absent", "", ""], "absences": 2}
    twice |= {"provider_since": 0.0, "box_since": 0.0}
    for lost, word in ((None, "not-rented"), (True, "gone")):
        known = fleet.Known(records={host.name: {**closed, "lost": lost}})
        assert status.row(host, seen, known, sight=twice)["verdict"] == word


def test_results_at_home_are_the_verdict_unless_the_box_works_on(
    host: BoxHost, store: StateStore, vast_item: Box
) -> None:
    path = store.receipt_path("demo", "mnist", "digits-1", 2)
    records.write_record(path, "receipt", {"run_id": "mnist", "complete": True})
    assert status.row(host, Observation("digits-1", "t", "stopped", vast_item))["verdict"] == "finished"
    assert status.row(host, training(vast_item))["verdict"] == "running"


@pytest.mark.parametrize("width", [20, 40, 79, 119, 120, 200])
def test_it_fits_every_terminal(host: BoxHost, store: StateStore, vast_item: Box, width: int) -> None:
    rows = [status.row(host, training(vast_item), rented(store, 1.0))] * 2
    text = drawn(rows, width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = "".join(text.split())
    assert flat.count("digits-1") == 2
    assert "running" in flat


def test_nothing_is_told_by_colour_alone_and_no_color_is_obeyed(
    host: BoxHost, vast_item: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"credit": 1.5, "burn_per_hour": 0.5, "left": "3 h 0 min", "alarm": True, "unknown": [], "effect": "end"}
    row = status.row(host, training(replace(vast_item, end_date=1.0)), provider_now=0.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = drawn([row], 130, [account], force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn([row], 130, [account], force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" in coloured
    assert "31m" not in plain
    assert "ALARM account: credit $1.50" in plain
    assert "RTX 4090" in plain


class Account:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def user(self) -> dict[str, Any]:
        if isinstance(self.answer, TenantFailure):
            raise self.answer
        return {"credit": self.answer}

    def list_volumes(self) -> list[dict[str, Any]]:
        return []

    def provider_now(self) -> float | None:
        return None


def test_the_accounts_money_counts_down_and_unknown_is_no_zero(vast_item: Box) -> None:
    [clock] = fleet.account_clocks([(Account(3.1), [vast_item])])  # type: ignore[list-item]
    assert (clock["left_s"], clock["alarm"], clock["credit"]) == (36000, True, 3.1)
    [clock] = fleet.account_clocks([(Account(3.1), [])])  # type: ignore[list-item]
    assert (clock["left_s"], clock["left"]) == (None, "nothing uses it")
    [clock] = fleet.account_clocks([(Account(TenantFailure("provider", "away")), [vast_item])])  # type: ignore[list-item]
    assert (clock["left_s"], clock["alarm"], clock["credit"]) == (None, False, None)
    assert "credit unknown" in drawn([], 200, [clock])
    assert "away" in drawn([], 200, [clock])


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(host: BoxHost, vast_item: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Observation]:
    """The looks that the command takes, one after the other; Ctrl-C comes after the last."""
    told = [training(vast_item), replace(training(vast_item), contact="unreachable", run=None, problem="no answer")]
    left = list(told)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((host,), "", (), ()))
    monkeypatch.setattr(observe.Observer, "observe", lambda self, each_alone, ready: {"digits-1": left.pop(0)})

    def wait(self: interrupts.Interrupts, seconds: float) -> None:
        if not left:
            self.request()
        self.check()

    monkeypatch.setattr(interrupts.Interrupts, "wait", wait)
    return told


def test_status_tells_a_row_per_box_in_json(looks: list[Observation]) -> None:
    done = CliRunner().invoke(cli, ["status", "-l", "all", "--json"])
    assert done.exit_code == 0, done.output
    [told] = map(json.loads, done.stdout.splitlines())
    assert (told["event"], told["verdict"], told["disk_free_bytes"]) == ("status", "running", 12_000_000_000)


def newer_journal(store: StateStore) -> None:
    line = {"schema": "gpu-tenant/journal/v2", "kind": "effect", "verb": "rent", "box": "digits-1"}
    with open(store.journal_path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def test_status_reads_what_it_knows_of_a_newer_journal_and_says_so(looks: list[Observation], store: StateStore) -> None:
    rented(store, 2.0)
    newer_journal(store)
    told = json.loads(CliRunner().invoke(cli, ["status", "-l", "all", "--json"]).stdout)
    assert (told["verdict"], told["spent_usd"]) == ("running", None)
    assert any("newer gpu-tenant" in warning for warning in told["warnings"])


def test_who_acts_is_refused_by_a_newer_journal_and_who_looks_is_told(
    looks: list[Observation], store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.update_box("demo", "digits-1", 1, provider_id="1")
    newer_journal(store)
    monkeypatch.setattr(job, "require_programs", lambda: None)
    before = Path(store.journal_path).read_bytes()
    for command in (["watch", "--once"], ["train"], ["plan"]):
        done = CliRunner().invoke(cli, [*command, "-l", "all", "--json"])
        told = json.loads(done.stdout.splitlines()[-1])
        assert (done.exit_code, told["exit_code"]) == (10, 10)
        assert "newer gpu-tenant" in told["msg"]
        assert "nothing was begun" in told["msg"]
    assert Path(store.journal_path).read_bytes() == before
    said = io.StringIO()
    with job.opened(job.JobOptions("all"), locked=False, stream=said):
        assert "newer gpu-tenant" in said.getvalue()


def test_live_looks_again_until_somebody_stops_it(looks: list[Observation]) -> None:
    done = CliRunner().invoke(cli, ["status", "-l", "all", "--json", "--live", "--every", "2"])
    told = [json.loads(line)["verdict"] for line in done.stdout.splitlines()]
    assert told == ["running", "unreachable"]
    assert done.exit_code == 13


def test_live_draws_one_picture_on_a_terminal(looks: list[Observation], monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(status_looks.sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    assert status_command.status.main(["-l", "all", "--live"], standalone_mode=False) == 13
    assert "digits-1" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_live_ends_when_nobody_is_left_to_read_it(looks: list[Observation], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    with open(ours, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(status_looks.sys, "stdout", outlet.lasting(stream))
        ended = status_command.status.main(["-l", "all", "--live", "--json"], standalone_mode=False)
    assert ended == 0, "the second look, which is never taken, would find the box unreachable"


def test_live_does_not_hammer_the_provider() -> None:
    assert CliRunner().invoke(cli, ["status", "-l", "all", "--live", "--every", "0.1"]).exit_code == 2


REFUSED = TenantFailure("config", "RunPod refused the key", safe="nothing was changed", fix="give a good key")


def test_an_account_that_refuses_the_key_hides_no_other_box(
    host: BoxHost, vast_item: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dark = hosts.BoxHost("digits-2", host.variables)
    refused = Observation("digits-2", "2026-11-01T00:00:00Z", "unreachable", problem=str(REFUSED), refused=REFUSED)
    told = {"digits-1": training(vast_item), "digits-2": refused}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((host, dark), "", (), ()))
    monkeypatch.setattr(observe.Observer, "observe", lambda self, each_alone, ready: told)
    done = CliRunner().invoke(cli, ["status", "-l", "all", "--json"])
    rows = {row["box"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["digits-1"]["verdict"] == "running"
    assert "refused the key" in rows["digits-2"]["problem"]
    assert done.exit_code == 10


def test_where_no_box_can_be_looked_at_the_reason_is_the_answer(
    host: BoxHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = Observation(host.name, "2026-11-01T00:00:00Z", "unreachable", problem=str(REFUSED), refused=REFUSED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((host,), "", (), ()))
    monkeypatch.setattr(observe.Observer, "observe", lambda self, each_alone, ready: {host.name: refused})
    done = CliRunner().invoke(cli, ["status", "-l", "all"])
    assert done.exit_code == 10
    assert "give a good key" in done.output

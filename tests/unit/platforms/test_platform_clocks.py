# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Every danger clock of every platform that is shipped is in ``gpu-tenant plan`` and ``gpu-tenant status``: with what
is left where somebody knows it, as an alarm at its threshold, and as unknown where nobody does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import danger_clocks
from ansible_collections.tenant.gpu.plugins.module_utils.danger_clocks import ALARM_S, span_s
from ansible_collections.tenant.gpu.plugins.module_utils.profile_schema import CLOCK_DEADLINES
from ansible_collections.tenant.gpu.plugins.module_utils.vast.money import UNPAID
from click.testing import CliRunner
from jinja2.nativetypes import NativeEnvironment
from platform_worlds import SHIPPED, World, profile_of, world_of

from gpu_tenant import cluster_jobs, hosts, job, observe, progress
from gpu_tenant.cli import cli
from gpu_tenant.playbooks import Outcome, PlaybookRunner, TaskResult

BEFORE = Path(__file__).parents[3] / "roles/provision/tasks/before.yml"
SAYING = "Before | Say first what happens by itself there, and what saves work"
STARTS = [
    pytest.param(platform, starts_at, id=f"{platform}-{starts_at}")
    for platform in SHIPPED
    for starts_at in sorted({clock["starts_at"] for clock in profile_of(platform)["platform_clocks"]})
]
# Those that only our own records know the beginning of, on a market that goes on without them.
RECORDED = [
    start
    for start in STARTS
    if profile_of(str(start.values[0]))["platform_driver"] and start.values[1] in ("started", "stopped")
]
# Told for all boxes of an account together, not for each.
OF_THE_ACCOUNT = {("vast", "unpaid")}


class Terminal:
    """The commands, as a person at this inventory calls them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self._folder = folder

    def at(self, world: World) -> Terminal:
        self._patch.chdir(self._folder)
        # Narrow enough for lines in place of a table, which folds words in columns.
        self._patch.setattr(progress, "UNWATCHED_WIDTH", 110)
        self._patch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((world.host,), "", (), ()))
        for module in (job, observe):
            self._patch.setattr(module, "Observer", world.observer)
        self._patch.setattr(cluster_jobs, "client_of", lambda _host: world.client())
        self._patch.setattr(job, "require_programs", lambda: None)
        self._patch.setattr(PlaybookRunner, "run", lambda runner, *unused, **more: played(runner, world))
        return self

    def status(self) -> tuple[dict[str, Any], str]:
        """The box's row, and the picture."""
        told = self._events("status")
        (row,) = [line for line in told if line["event"] == "status"]
        return {**row, "accounts": [line for line in told if line["event"] == "account_clock"]}, self._run("status")

    def plan(self) -> list[dict[str, Any]]:
        return self._events("plan")

    def _events(self, command: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._run(command, "--json").splitlines()]

    def _run(self, command: str, *words: str) -> str:
        done = CliRunner().invoke(cli, [command, "-l", "all", *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done.stdout


def played(runner: PlaybookRunner, world: World) -> Outcome:
    """What the check run of the playbook says first: the very expressions of the role, told as any other task."""
    assert world.profile["platform_kind"] != "kubernetes", "no playbook has anything to do where there are no boxes"
    (task,) = [each for each in yaml.safe_load(BEFORE.read_text()) if each["name"] == SAYING]
    assert task["when"] == "ansible_check_mode"
    environment = NativeEnvironment()
    environment.filters["tenant.gpu.danger_clocks"] = danger_clocks.countdown
    environment.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text, count=1)
    facts = dict(world.host.variables)
    facts |= {name: environment.from_string(text.strip()).render(facts) for name, text in task["vars"].items()}
    message = environment.from_string(task["ansible.builtin.debug"]["msg"]).render(facts)
    assert runner.watch is not None
    runner.watch(TaskResult(world.name, "provision", task["name"], "ansible.builtin.debug", "ok", {"msg": message}))
    return Outcome("site", "successful", 0, world.folder, (world.name,))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    return Terminal(monkeypatch, tmp_path)


def clocks_of(world: World, starts_at: str) -> list[dict[str, Any]]:
    return [clock for clock in world.profile["platform_clocks"] if clock["starts_at"] == starts_at]


def flat(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("platform", SHIPPED)
def test_a_plan_names_every_clock_before_anything_is_rented(platform: str, tmp_path: Path, terminal: Terminal) -> None:
    world = world_of(platform, tmp_path)
    assert world.profile["platform_clocks"], "a platform where nothing happens by itself would be the first"
    said = [event["text"] for event in terminal.at(world).plan()]
    for clock in world.profile["platform_clocks"]:
        span = f" (after {clock['after']})" if clock["after"] not in ("", "0s") else ""
        assert f"danger clock of {platform}: {clock['effect']}{span}" in said


@pytest.mark.parametrize(("platform", "starts_at"), STARTS)
def test_a_clock_that_runs_is_shown_with_what_is_left(
    platform: str, starts_at: str, tmp_path: Path, terminal: Terminal
) -> None:
    world = world_of(platform, tmp_path)
    world.rent()
    world.begin(starts_at)
    for clock in clocks_of(world, starts_at):
        span = span_s(clock["after"])
        if starts_at in CLOCK_DEADLINES:
            shown_as_deadline(world, terminal, clock)
        elif span == 0:
            shown_as_fact(world, terminal, clock)
        elif span is None:
            shown(world, terminal, clock, None)
        else:
            counts_down(world, terminal, clock, span)


@pytest.mark.parametrize(("platform", "starts_at"), RECORDED)
def test_a_start_that_nobody_knows_is_unknown_and_no_alarm(
    platform: str, starts_at: str, tmp_path: Path, terminal: Terminal
) -> None:
    world = world_of(platform, tmp_path)
    world.rent()
    world.begin(starts_at)
    world.forget()
    for clock in clocks_of(world, starts_at):
        if span_s(clock["after"]) != 0:
            shown(world, terminal, clock, None)


def counts_down(world: World, terminal: Terminal, clock: dict[str, Any], span: int) -> None:
    """From the start that our records know: before the alarm, past it, and past the end."""
    threshold = span_s(clock.get("alarm")) if "alarm" in clock else ALARM_S
    for ago in (60, span - threshold + 600, span + 7200):
        world.age_to(max(ago, 60))
        shown(world, terminal, clock, span - max(ago, 60), threshold)


def shown_as_deadline(world: World, terminal: Terminal, clock: dict[str, Any]) -> None:
    """As far off as somebody says; unknown where nobody does."""
    threshold = span_s(clock.get("alarm")) if "alarm" in clock else ALARM_S
    if (world.platform, clock["starts_at"]) in OF_THE_ACCOUNT:
        row, picture = terminal.at(world).status()
        (account,) = row["accounts"]
        if account["left"] not in picture:
            (account,) = terminal.status()[0]["accounts"]
        assert (account["effect"], account["left_s"] > 0, account["left"] in picture) == (UNPAID, True, True)
        assert any(event.get("clock") == UNPAID and event["left_s"] for event in terminal.plan())
        return
    for left in (threshold + 7200, max(threshold - 600, 900)):
        if not world.tell(clock["starts_at"], left):
            shown(world, terminal, clock, None)
            return
        shown(world, terminal, clock, left, threshold)


def shown(
    world: World, terminal: Terminal, clock: dict[str, Any], left_s: float | None, threshold: int = ALARM_S
) -> None:
    row, picture = terminal.at(world).status()
    told = countdown_of(row, clock)
    assert told["text"] in row["clocks"]
    if left_s is None:
        assert (told["left_s"], told["alarm"]) == (None, False)
        assert flat(f"{told['text']}: nobody says when") in flat(picture)
    else:
        assert told["left_s"] == pytest.approx(left_s, abs=300)
        assert told["alarm"] is (left_s < threshold)
        left = told["left"]
        if flat(f"{left}: {clock['effect']}") not in flat(picture):
            # Between the row and the picture time went on, so the picture shows what the next row says.
            left = countdown_of(terminal.status()[0], clock)["left"]
        assert flat(f"{left}: {clock['effect']}") in flat(picture)
        assert (f"ALARM {world.name}: {left}" in picture) is told["alarm"]
    (planned,) = [event for event in terminal.plan() if event.get("clock") == clock["effect"]]
    assert planned["box"] == world.name
    assert (planned["left_s"] is None) == (left_s is None)
    assert planned["text"].startswith("danger clock: ")
    assert planned["event"] == ("warning" if told["alarm"] else "note")


def countdown_of(row: dict[str, Any], clock: dict[str, Any]) -> dict[str, Any]:
    (told,) = [one for one in row["countdowns"] if one["effect"] == clock["effect"]]
    return dict(told)


def shown_as_fact(world: World, terminal: Terminal, clock: dict[str, Any]) -> None:
    """What is so at once is no countdown, and is told all the same."""
    row, picture = terminal.at(world).status()
    assert clock["effect"] in row["clocks"]
    assert clock["effect"] not in [one["effect"] for one in row["countdowns"]]
    assert flat(clock["effect"]) in flat(picture)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Bad input: one clear line, its own exit code, no traceback, also as JSON."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from click.testing import CliRunner

from gpu_tenant import exit_codes, hosts, job, left_behind, playbooks, role_commands, scaffold, watch, workspace
from gpu_tenant.cli import cli

BOX = hosts.BoxHost("b1", {"tenant_project": "demo", "tenant_state_dir": "state"})


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((BOX,), "", (), ()))
    return CliRunner()


def test_exit_codes_are_stable() -> None:
    expected = {
        "config": 10, "no_offer": 11, "provider": 12, "unreachable": 13, "probe_refused": 14, "training_failed": 20,
        "evidence_missing": 21, "gate_refused": 22, "budget": 23, "lease_held": 24, "interrupted": 30,
    }  # fmt: skip
    assert expected == EXIT_CODES
    assert (exit_codes.DONE, exit_codes.USAGE, exit_codes.INTERRUPTED) == (0, 2, 30)


def test_several_boxes_give_one_exit_code() -> None:
    assert exit_codes.of_kinds([]) == 0
    assert exit_codes.of_kinds(["no_offer", "gate_refused", "unreachable"]) == 22
    assert exit_codes.of_kinds(["something new"]) == 1


@pytest.mark.parametrize("verb", ["provision", "mirrors", "deploy", "train", "harvest", "teardown", "plan", "status"])
def test_a_verb_without_a_limit_is_a_usage_error(verb: str) -> None:
    done = CliRunner().invoke(cli, [verb])
    assert done.exit_code == 2
    assert "--limit" in done.output


def test_an_unknown_verb_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["destroy-everything"]).exit_code == 2


def test_a_standing_approval_needs_a_name(command_line: CliRunner) -> None:
    done = command_line.invoke(cli, ["go", "run.yml", "-l", "b1", "--standing-approval"])
    assert done.exit_code == 2


def test_an_unreadable_spec(command_line: CliRunner) -> None:
    done = command_line.invoke(cli, ["go", "absent.yml", "-l", "b1"])
    assert done.exit_code == 10
    assert "absent.yml" in done.output
    assert "Traceback" not in done.output


def test_a_wrong_spec_is_named_with_its_line(command_line: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text("id: a\ncommand: [python]\nartifacts: [{glob: x}]\nlearningrate: 3\n")
    done = command_line.invoke(cli, ["go", "run.yml", "-l", "b1", "--json"])
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, told["exit_code"], told["failure"]["kind"]) == (10, 10, "config")
    assert "line 4" in told["msg"]


def test_missing_programs_are_named(command_line: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.shutil, "which", lambda name: None if name == "rsync" else f"/bin/{name}")
    done = command_line.invoke(cli, ["train", "-l", "b1"])
    assert done.exit_code == 10
    assert "not installed here: rsync" in done.output


def test_boxes_of_two_projects_are_refused(command_line: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    other = hosts.BoxHost("b2", {"tenant_project": "other"})
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((BOX, other), "", (), ()))
    done = command_line.invoke(cli, ["status", "-l", "all"])
    assert done.exit_code == 10
    assert "several projects" in done.output


def test_a_missing_project_is_named_with_its_box(command_line: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = hosts.BoxHost("b9", {}, {"tenant_project": "'project_name' is undefined"})
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((bare,), "", (), ()))
    done = command_line.invoke(cli, ["status", "-l", "all"])
    assert done.exit_code == 10
    assert "b9: tenant_project is needed: 'project_name' is undefined" in done.output


@pytest.mark.parametrize("by_inventory", [True, False])
def test_plan_says_the_order_of_candidates_or_which_of_them_nobody_knows(tmp_path: Path, by_inventory: bool) -> None:
    path = tmp_path / "run.yml"
    variables = {"tenant_run": str(path)} if by_inventory else {}
    boxes = tuple(hosts.BoxHost(name, variables, groups=("vast",)) for name in ("b1", "b2"))
    told: list[tuple[str, str]] = []

    class Work:
        inventory = hosts.Inventory(boxes, "", (), (), ("azure_spot",))
        spec: Mapping[str, Any] = {}
        progress = SimpleNamespace(emit=lambda kind, text, box="", /, **facts: told.append((kind, text)))

    def said(*candidates: str) -> list[str]:
        lines = f"id: mnist\ncommand: [python]\nartifacts: [{{glob: x}}]\ncandidates: {json.dumps(candidates)}\n"
        path.write_text(lines)
        Work.spec = {} if by_inventory else load_run_spec(str(path))
        told.clear()
        return role_commands.say_candidates(Work())  # type: ignore[arg-type]  # stands for the job

    assert (said(), told) == ([], [])
    assert said("azure_spot", "b2", "vast") == []
    assert told == [("note", "run mnist would be tried in this order: b2, b1")]
    assert said("b2", "lambda") == ["config"]
    assert [(kind, "'lambda'" in text) for kind, text in told] == [("failure", True)]


def test_init_writes_an_inventory_once(tmp_path: Path) -> None:
    words = ["init", str(tmp_path / "team"), "--project", "vision"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "team/inventory/profiles.yml").read_text() == "plugin: tenant.gpu.profiles\n"
    again = CliRunner().invoke(cli, words)
    assert again.exit_code == 10
    assert "already there" in again.output


@pytest.mark.parametrize(
    "words", [["--project", "a/b"], ["--project", "ok", "--box", "-x"], ["--project", "ok", "--platform", "nowhere"]]
)
def test_init_refuses_bad_names_before_writing(tmp_path: Path, words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "team"), *words])
    assert done.exit_code == 10
    assert not (tmp_path / "team").exists()


def test_init_offers_the_platforms_that_have_a_profile() -> None:
    assert {"vast", "autodl", "ssh"} <= set(scaffold.platforms())


@pytest.mark.parametrize("words", [["harvest", "-l", "b1"], ["status", "-l", "b1"], ["account", "run.yml", "-l", "b1"]])
def test_stopped_before_anything_is_at_work(
    command_line: CliRunner, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def stopped(*unused: object) -> hosts.Inventory:
        raise KeyboardInterrupt

    monkeypatch.setattr(hosts, "resolve", stopped)
    done = command_line.invoke(cli, words)
    assert (done.exit_code, done.exception.__class__) == (30, SystemExit)
    assert "stopped on request" in done.output
    told = json.loads(command_line.invoke(cli, [*words, "--json"]).output.splitlines()[-1])
    assert (told["exit_code"], told["failure"]["kind"]) == (30, "interrupted")


def test_a_verb_that_was_told_to_stop_begins_nothing_and_says_how_the_box_stands(
    command_line: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*unused: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    def run(*unused: object, **options: object) -> None:
        raise AssertionError("a playbook was begun")

    monkeypatch.setattr(workspace.Workspace, "end_orphans", held)
    monkeypatch.setattr(playbooks.PlaybookRunner, "run", run)
    monkeypatch.setattr(left_behind, "told", lambda boxes, observer, run_id: [(box.name, "it bills") for box in boxes])
    done = command_line.invoke(cli, ["harvest", "-l", "b1", "--json"])
    assert done.exit_code == 30, done.output
    told = [json.loads(line) for line in done.output.splitlines()]
    assert [(line["box"], line["text"]) for line in told if line["event"] == "result"] == [("b1", "it bills")]
    assert told[-1]["failure"]["kind"] == "interrupted"


def test_one_round_of_a_watch_that_was_told_to_stop_is_not_told_as_done(
    command_line: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(self: watch.Watch) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(watch.Watch, "run", cut_short)
    done = command_line.invoke(cli, ["watch", "-l", "b1", "--once", "--json"])
    assert done.exit_code == 30, done.output
    assert "nobody recovers it now" in done.output


@pytest.mark.parametrize(
    "words",
    [
        [*command, option, value]
        for command, options in (
            (["watch", "-l", "all", "--once"], ("--poll-s", "--rpo-s")),
            (["go", "run.yml", "-l", "all"], ("--poll-s", "--pull-every-s")),
            (["status", "-l", "all"], ("--every",)),
        )
        for option in options
        for value in ("nan", "inf", "-1", *(["0"] if option in ("--poll-s", "--every") else []))
    ],
    ids=" ".join,
)
def test_a_wait_that_never_comes_or_never_rests_is_bad_usage(command_line: CliRunner, words: list[str]) -> None:
    done = command_line.invoke(cli, words)
    assert (done.exit_code, words[-2] in done.output) == (exit_codes.USAGE, True), done.output


def test_what_is_no_run_spec_at_all_is_a_failure_with_words(command_line: CliRunner) -> None:
    done = command_line.invoke(cli, ["go", "/dev/zero", "-l", "b1"])
    assert (done.exit_code, "no regular file" in done.output) == (10, True), done.output

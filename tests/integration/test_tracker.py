# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Trackers with their real packages: wandb's own command sends what it kept, the real TensorBoard shows the run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import tracker
from ports import free_port
from supervised_box import SupervisedBox, supervised_box, wait_for
from tenant_plays import CORES, ROOT, Plays
from tracker_programs import KEY, LOG_TO_TENSORBOARD, LOG_TO_WANDB, python_with, tensorboard
from wandb_server import WandbServer, wandb_server

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as served:
        yield served


def ask(box: SupervisedBox, verb: str, order: dict[str, Any], *words: str) -> dict[str, Any]:
    return box.verb(*words, verb, "--order-file", "-", stdin=json.dumps(order))


def run_to_the_end(box: SupervisedBox, code: str, cells: list[str], **changes: Any) -> None:
    box.register(
        command=["python", "-c", code], cells=[{"id": name, "args": [name]} for name in cells], artifacts=[], **changes
    )
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()


def wandb_box(box: SupervisedBox, server: WandbServer, cells: list[str]) -> dict[str, Any]:
    """A box whose cells logged to wandb offline; the order to recover them."""
    secrets = box.root / "secrets.env"
    ask(box, "secrets", {"path": str(secrets), "values": {"WANDB_API_KEY": KEY}})
    wanted = {"name": "wandb", "mode": "offline", "project": "vision"}
    env = {"WANDB_BASE_URL": server.url, "WANDB_SILENT": "true"}
    run_to_the_end(box, LOG_TO_WANDB, cells, tracker=wanted, env_file=str(secrets), env=env)
    return {"run_id": "digits", "timeout_s": 600}


def states(answer: dict[str, Any]) -> list[str]:
    return [each["state"] for each in answer["runs"]]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_offline_runs_are_sent_each_once_and_no_result_changes(server: WandbServer, tmp_path: Path) -> None:
    with supervised_box(tmp_path, python_with("wandb")) as box:
        order = wandb_box(box, server, ["one", "two"])
        # wandb links its own log into each run, and after a restart of the container that log is gone.
        runs = list((box.root / "runs").glob("*/*/a1/out/tracker/wandb/offline-run-*"))
        assert len(runs) == 2
        for run in runs:
            (run / "logs" / "gone.log").symlink_to(tmp_path / "gone")
        before = tree(box.root / "runs")
        assert server.runs == []
        foretold = ask(box, "recover-tracker", order, "--check")
        assert (foretold["changed"], states(foretold)) == (True, ["unsent", "unsent"])
        made = ask(box, "recover-tracker", order)
        assert (made["changed"], states(made)) == (True, ["synced", "synced"]), made
        assert sorted(set(server.runs)) == ["one", "two"]
        assert [line["loss"] for line in server.history["two"]] == [1.0, 0.5, 1 / 3]
        sent = len(server.runs)
        again = ask(box, "recover-tracker", order)
        assert (again["changed"], states(again)) == (False, ["synced", "synced"])
        assert len(server.runs) == sent
        assert tree(box.root / "runs") == before
        assert not list((box.root / "trackers/sending").rglob("*.wandb"))
        assert not Path("/wandb").exists()
        assert KEY not in json.dumps(made)


def test_a_run_that_does_not_go_through_keeps_nobody_else_waiting(server: WandbServer, tmp_path: Path) -> None:
    with supervised_box(tmp_path, python_with("wandb")) as box:
        begun = time.monotonic()
        order = wandb_box(box, server, ["one", "two"])
        # The one that is never answered takes all of its time, and the other one must have enough: as much as both
        # took to train, which is twice to start wandb on a machine as busy as this one is now.
        patience_s = max(30.0, time.monotonic() - begun)
        server.silent.add("one")
        made = ask(box, "recover-tracker", dict(order, timeout_s=patience_s))
        assert {each["path"].split("/")[2]: each["state"] for each in made["runs"]} == {
            "one": "timeout",
            "two": "synced",
        }
        server.silent.clear()
        server.over.set()
        later = ask(box, "recover-tracker", order)
        assert (later["changed"], states(later)) == (True, ["synced", "synced"])


def test_the_real_tensorboard_shows_the_run_through_the_link(tmp_path: Path) -> None:
    python, logdir, port = python_with("tensorboard"), tmp_path / "tf-logs", free_port()
    with supervised_box(tmp_path, python) as box:
        wanted = {"name": "tensorboard"}
        order = {"run": box.run_record(tracker=wanted), "logdir": str(logdir)}
        foretold = ask(box, "check-tracker", order, "--check")
        assert foretold["changed"]
        assert not logdir.exists()
        made = ask(box, "check-tracker", order)
        assert (made["changed"], made["package"]) == (True, "tensorboard")
        assert not ask(box, "check-tracker", order)["changed"]
        run_to_the_end(box, LOG_TO_TENSORBOARD, ["c1"], tracker=wanted)
        with tensorboard(python, logdir, port):
            name = "vision-digits"
            seen = wait_for(
                "TensorBoard to list the run",
                lambda: _if_listed(tracker.look_at_panel(str(logdir), name, (free_port(), port))),
            )
            assert seen["runs"] == [f"{name}/c1/a1/out/tracker"]
            assert (seen["shown"], seen["why"]) == (True, "")
            other = tracker.look_at_panel(str(tmp_path / "elsewhere"), name, (port,))
            assert not other["shown"]
            assert str(logdir) in other["why"]


def _if_listed(panel: dict[str, Any]) -> dict[str, Any] | None:
    return panel if panel["runs"] else None


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


def test_what_a_tracker_lacks_is_said_before_the_launch(box: SupervisedBox, tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    # Without its site packages an interpreter has no tracker, whoever installed some.
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    for name in ("wandb", "tensorboard", "trackio"):
        order = {"run": box.run_record(python=str(bare), tracker={"name": name})}
        code, refused = box.ask("check-tracker", "--order-file", "-", stdin=json.dumps(order))
        assert (code, refused["kind"]) == (11, "environment")
        assert f"no package {name}" in refused["error"]
        assert "requirements" in refused["fix"]
    assert ask(box, "check-tracker", {"run": box.run_record()})["tracker"] == "none"


def test_wandb_without_a_key_and_a_link_that_is_not_ours(box: SupervisedBox, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    for name in ("wandb", "tensorboard"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text("")
    env = {"PYTHONPATH": str(packages)}
    keyless = {"run": box.run_record(tracker={"name": "wandb"}, env=env)}
    code, refused = box.ask("check-tracker", "--order-file", "-", stdin=json.dumps(keyless))
    assert code == 11
    assert "no key" in refused["error"]
    offline = {"run": box.run_record(tracker={"name": "wandb", "mode": "offline"}, env=env)}
    assert ask(box, "check-tracker", offline)["package"] == "wandb"
    logdir = tmp_path / "tf-logs"
    (logdir / "vision-digits").mkdir(parents=True)
    order = {"run": box.run_record(tracker={"name": "tensorboard"}, env=env), "logdir": str(logdir)}
    code, refused = box.ask("check-tracker", "--order-file", "-", stdin=json.dumps(order))
    assert code == 11
    assert "not ours" in refused["error"]


def test_the_module_checks_links_once_and_says_what_is_missing(box: SupervisedBox, tmp_path: Path) -> None:
    packages, logdir = tmp_path / "packages/tensorboard", tmp_path / "tf-logs"
    packages.mkdir(parents=True)
    (packages / "__init__.py").write_text("")
    (tmp_path / "plays").mkdir()
    plays = Plays(ROOT / CORES[-1] / "bin", tmp_path / "plays")
    host = {"ansible_connection": "local", "ansible_python_interpreter": box.python}
    plays.write_inventory({"all": {"hosts": {"b1": host}}})
    env = {"PYTHONPATH": str(packages.parent)}
    run = box.run_record(tracker={"name": "tensorboard"}, env=env)
    common = {"tenant_root": str(box.root), "pyz": str(box.program)}
    ready = {"tenant.gpu.tracker": dict(common, state="ready", run=run, logdir=str(logdir))}
    bare = {"tenant.gpu.tracker": dict(common, state="ready", run=dict(run, tracker={"name": "trackio"}))}
    early = {"tenant.gpu.tracker": dict(common, pyz="/nowhere", state="recovered", run_id="digits")}
    tasks = [dict(ready, check_mode=True), ready, ready, dict(bare, ignore_errors=True), early]
    answers, _done = plays.play([dict(task, name=f"task {number}") for number, task in enumerate(tasks)])
    foretold, made, again, refused, nothing = [answers[f"task {number}"] for number in range(len(tasks))]
    assert (foretold["changed"], made["changed"], again["changed"]) == (True, True, False)
    assert foretold["diff"] == made["diff"]
    assert os.readlink(logdir / "vision-digits") == box.layout.run_dir("digits")
    assert refused["failure"]["kind"] == "config"
    assert "no package trackio" in refused["msg"]
    assert (nothing["changed"], nothing["runs"]) == (False, [])


@pytest.mark.parametrize(
    ("name", "mode", "variable"),
    [
        ("wandb", "offline", "WANDB_DIR"),
        ("trackio", "online", "TRACKIO_DIR"),
        ("tensorboard", "online", "TENANT_TENSORBOARD_DIR"),
    ],
)
def test_the_folder_of_a_tracker_is_there_before_its_trainer(
    box: SupervisedBox, name: str, mode: str, variable: str
) -> None:
    """wandb before 0.19.10 takes the system's temporary folder instead of one that is missing: nobody looks there."""
    code = f"import os, sys; sys.exit(not os.access(os.environ['{variable}'], os.W_OK))"
    run_to_the_end(box, code, ["a"], tracker={"name": name, "mode": mode})


def test_no_tracker_is_told_to_the_trainer_and_its_own_wish_wins(box: SupervisedBox) -> None:
    code = "import os; open('mode.txt', 'a').write(os.environ.get('WANDB_MODE', '') + ' ')"
    run_to_the_end(box, code, ["c1"])
    run_to_the_end(box, code, ["c2"], spec_sha256="c" * 64, env={"WANDB_MODE": "dryrun"})
    assert (box.workdir / "mode.txt").read_text().split() == ["disabled", "dryrun"]

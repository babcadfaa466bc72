# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The modules supervisor and manifest in real plays: check mode, diff, second run, failures that speak."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from supervised_box import SupervisedBox, python38, supervised_box
from tenant_plays import CORES, ROOT, Plays

pytestmark = pytest.mark.integration


def task(module: str, check: bool = False, ok: bool = True, **options: Any) -> dict[str, Any]:
    return {f"tenant.gpu.{module}": options, "check_mode": check, "diff": True, "ignore_errors": not ok}


class BoxPlays:
    """Plays whose one host is this machine with the tenant root of a supervised box."""

    def __init__(self, box: SupervisedBox, folder: Path, core: str) -> None:
        self.box = box
        self.plays = Plays(ROOT / core / "bin", folder)
        host = {"ansible_connection": "local", "ansible_python_interpreter": box.python}
        self.plays.write_inventory({"all": {"hosts": {"b1": host}}})

    def do(self, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        """What each task returned. One play for all of them, because starting one takes longer than what it does."""
        named = [dict(task, name=f"task {number}") for number, task in enumerate(tasks)]
        answers, _done = self.plays.play(named)
        found = [answers[task["name"]] for task in named]
        for task, answer in zip(named, found, strict=True):
            assert answer.get("failed", False) is bool(task.get("ignore_errors")), answer
        return found

    def supervisor(self, check: bool = False, ok: bool = True, **options: Any) -> dict[str, Any]:
        """A task with the supervisor module. ``ok=False``: it must fail."""
        return task("supervisor", check, ok, tenant_root=str(self.box.root), **options)

    def deploy(self) -> None:
        """What the deploy role does: the program under its content-addressed name."""
        folder = self.box.root / "bin"
        folder.mkdir(parents=True)
        (folder / "supervisor-0123456789ab.pyz").write_bytes(self.box.program.read_bytes())


def box_plays(folder: Path, python: str, core: str) -> Iterator[BoxPlays]:
    (folder / "plays").mkdir()
    with supervised_box(folder, python) as box:
        yield BoxPlays(box, folder / "plays", core)


@pytest.fixture(params=["newest", "oldest"])
def plays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BoxPlays]:
    """The newest ansible-core, and the oldest one with the oldest Python that it can drive."""
    newest = request.param == "newest"
    yield from box_plays(tmp_path, sys.executable if newest else python38(), CORES[-1] if newest else CORES[0])


@pytest.fixture
def new_plays(tmp_path: Path) -> Iterator[BoxPlays]:
    yield from box_plays(tmp_path, sys.executable, CORES[-1])


def held(box: SupervisedBox) -> dict[str, Any]:
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate)]
    return box.run_record(command=command)


def test_the_life_of_a_run(plays: BoxPlays) -> None:
    box, run, ask = plays.box, held(plays.box), plays.supervisor
    # Before deploy: nothing to see; a rehearsal knows that deploy will bring the program.
    seen, predicted, refused = plays.do(
        ask(), ask(check=True, state="started", run=run), ask(ok=False, state="started", run=run)
    )
    assert seen["supervisor"]["runs"] == []
    assert predicted["changed"]
    assert "deploy playbook" in refused["msg"]
    assert not box.root.exists()

    plays.deploy()
    registering, starting, sealing = (
        [
            ask(check=True, state="registered", run=run),
            ask(),
            ask(state="registered", run=run),
            ask(state="registered", run=run),
        ],
        [
            ask(check=True, state="started", run_id="digits"),
            ask(),
            ask(state="started", run_id="digits", epoch=3),
            ask(state="started", run_id="digits", run=run),
            ask(check=True, state="started", run_id="digits", run=run),
            ask(ok=False, state="held", epoch=2),
            ask(ok=False, state="sealed"),
            ask(check=True, state="sealed", stop_live=True),
            ask(),
        ],
        [
            ask(state="sealed", stop_live=True),
            ask(state="sealed"),
            ask(ok=False, state="started", run_id="digits"),
            ask(state="reconciled"),
            ask(state="unsealed"),
            ask(state="started", run_id="digits"),
        ],
    )
    answers = iter(plays.do(*registering, *starting, *sealing))
    predicted, seen, made, again = itertools.islice(answers, len(registering))
    assert seen["supervisor"]["runs"] == []
    assert (predicted["changed"], predicted["diff"]) == (made["changed"], made["diff"])
    assert list(made["diff"]["after"]["runs"]) == ["digits"]
    assert not again["changed"]

    predicted, seen, made, again, checked, fenced, refused, foretold, unsealed = itertools.islice(
        answers, len(starting)
    )
    assert seen["supervisor"]["runs"][0]["state"] == "queued"
    assert (predicted["changed"], predicted["diff"]) == (made["changed"], made["diff"])
    assert made["supervisor"]["runs"][0]["cells"][0]["liveness"] == "alive"
    for unchanged in (again, checked):
        assert not unchanged["changed"]
        assert unchanged["diff"] == {"before": {}, "after": {}}
    assert fenced["failure"]["kind"] == "lease_held"
    assert (refused["failure"]["kind"], refused["failure"]["box"]) == ("gate_refused", "b1")
    assert foretold["changed"]
    assert unsealed["supervisor"]["sealed"] is False

    made, again, refused, idle, lifted, _started = answers
    assert made["seal"]["runs"][0]["state"] == "preempted"
    assert not again["changed"]
    assert box.layout.seal in refused["msg"]
    assert idle["reason"] == "the box is sealed"
    assert lifted["changed"]

    box.await_state("done")
    box.await_no_daemon()
    for unchanged in plays.do(ask(state="started", run_id="digits"), ask(state="stopped")):
        assert not unchanged["changed"]
    assert box.layout.attempt_numbers("digits", "c1") == [1, 2]


def test_a_run_that_fails_at_once_fails_the_task_with_its_log(new_plays: BoxPlays) -> None:
    new_plays.deploy()
    run = new_plays.box.run_record(command=["python", "train.py", "--steps", "0", "--exit-code", "7"])
    ask = new_plays.supervisor
    first, _second = new_plays.do(
        ask(ok=False, state="started", run=run), ask(ok=False, state="started", run_id="digits")
    )
    assert first["failure"]["kind"] == "training_failed"
    assert "exit code 7" in first["msg"]
    assert any("KeyError" in line for line in first["log_tail"])
    # The box tries again only for somebody who says so.
    assert new_plays.box.layout.attempt_numbers("digits", "c1") == [1]
    new_plays.do(ask(ok=False, state="started", run_id="digits", retry_failed=True))
    assert new_plays.box.layout.attempt_numbers("digits", "c1") == [1, 2]


def test_manifests_of_runs_and_folders(new_plays: BoxPlays) -> None:
    box = new_plays.box
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    dest = box.folder / "manifest.json"
    of_run: dict[str, Any] = {"tenant_root": str(box.root), "run_id": "digits", "dest": str(dest)}
    # The same files where they lie, listed as a folder.
    folder: dict[str, Any] = {"path": box.layout.run_dir("digits"), "globs": [{"glob": "c1/**"}]}
    known = box.verb("manifest", "--run", "digits")

    predicted, made, again, looked = new_plays.do(
        task("manifest", check=True, **of_run),
        task("manifest", **of_run),
        task("manifest", **of_run),
        task("manifest", compare=known, **folder),
    )
    assert (predicted["changed"], predicted["diff"]) == (made["changed"], made["diff"])
    assert made["diff"] == {"before": {"digest": None}, "after": {"digest": known["digest"]}}
    assert records.read_record(str(dest), "manifest")["digest"] == known["digest"]
    assert (made["manifest"]["state"], made["manifest"]["snapshot"]) == ("done", False)
    assert not again["changed"]
    assert (looked["comparison"]["missing"], looked["comparison"]["different"]) == ([], [])

    with open(os.path.join(box.paths().output, "model.pt"), "ab") as stream:
        stream.write(b"x")
    looked, failed, unknown = new_plays.do(
        task("manifest", compare=known, **folder),
        task("manifest", ok=False, **of_run),
        task("manifest", ok=False, tenant_root=str(box.root), run_id="x"),
    )
    assert looked["comparison"]["different"] == ["c1/a1/out/model.pt"]
    assert failed["failure"]["kind"] == "evidence_missing"
    assert unknown["failure"]["kind"] == "config"

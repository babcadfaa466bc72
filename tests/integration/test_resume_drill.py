# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The resume drill on a real box: a trainer that resumes passes, one that only looks like it is caught, in time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, control, drill_moment, records
from ansible_collections.tenant.gpu.plugins.module_utils.box import drill as resume_drill
from ssh_team import SshTeam, ssh_team
from supervised_box import SupervisedBox, supervised_box, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
HELPER = ROOT / "roles" / "deploy" / "files"
TRAINER = Path(__file__).with_name("drilled_trainer.py")
CALLBACKS = Path(__file__).with_name("callback_trainer.py")
# Three interpreters start in it before the first step, on a machine that may have more to do.
SOON_S = 24


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        shutil.copy(TRAINER, made.workdir / "train.py")
        yield made


def register(box: SupervisedBox, *arguments: str, **changes: Any) -> None:
    box.register(**{"command": ["python", "train.py", *arguments], "env": {"PYTHONPATH": str(HELPER)}, **changes})


def drill(box: SupervisedBox, *words: str, deadline_s: int = 900) -> dict[str, Any]:
    answer = box.verb("drill", "--run", "digits", "--deadline-s", str(deadline_s), *words)
    kept = records.read_record(str(box.root / "drills" / "digits" / "verdict.json"), "drill")
    assert kept == answer["drill"]
    return answer


def assert_nothing_touched(box: SupervisedBox) -> None:
    """The real run has no attempt, the code folder is as it was, and nobody of the drill lives."""
    assert box.layout.attempt_numbers("digits", "c1") == []
    assert sorted(path.name for path in box.workdir.iterdir()) == ["train.py"]
    assert [run["run_id"] for run in box.verb("status")["runs"]] == ["digits"]
    assert box.processes() == []


def test_a_run_that_resumes_passes_bit_for_bit_and_leaves_only_its_verdict(box: SupervisedBox) -> None:
    register(box, "--deterministic")
    answer = drill(box)
    verdict = answer["drill"]
    assert (answer["changed"], verdict["passed"], verdict["reason"]) == (True, True, "passed"), verdict
    assert verdict["saved_step"] < verdict["resumed_at_step"] <= verdict["killed_at_step"]
    assert verdict["resumed_at_step"] == verdict["saved_step"] + 1
    assert verdict["compared"] >= 1
    assert (verdict["deterministic"], verdict["tolerance"], verdict["worst_difference"]) == (True, 0.0, 0.0)
    assert (verdict["run_id"], verdict["box"], verdict["generation"], verdict["kept"]) == ("digits", "b1", 1, "")
    left = sorted(path.name for path in (box.root / "drills" / "digits").iterdir())
    assert left == ["drill.lock", "verdict.json"]
    assert_nothing_touched(box)
    assert box.verb("status")["desired"] == "run"

    again = drill(box)
    assert (again["changed"], again["drill"]) == (False, verdict)
    # Another spec is another run: it has to prove itself.
    register(box, spec_sha256="c" * 64)
    assert box.verb("--check", "drill", "--run", "digits") == {"changed": True, "drill": None}
    assert drill(box)["drill"]["started_at"] >= verdict["ended_at"]


@pytest.mark.parametrize(
    ("broken", "reason", "said"),
    [
        ("zero", "started_again", "began with step 1"),
        ("weights", "loss_differs", "the tolerance is 0.05 of the larger"),
        ("skips", "steps_skipped", "the next to come was"),
        ("crash", "trainer_failed", "the relaunched command failed"),
    ],
)
def test_a_run_that_does_not_resume_is_caught(box: SupervisedBox, broken: str, reason: str, said: str) -> None:
    register(box, "--broken", broken)
    verdict = drill(box)["drill"]
    assert (verdict["passed"], verdict["reason"]) == (False, reason), verdict
    assert said in verdict["why"]
    # It is kept for a look, and the next drill begins afresh.
    assert (Path(verdict["kept"]) / "box" / "runs" / "digits-drill" / "c1" / "a2" / "metrics.jsonl").exists()
    if broken == "crash":
        assert any("KeyError" in line for line in verdict["log_tail"])
    assert_nothing_touched(box)
    # Started again, the box does not begin by itself what would not survive.
    assert box.verb("resume-all") == {"changed": False, "reason": "the box is on hold"}
    register(box, spec_sha256="c" * 64)
    mended = drill(box)["drill"]
    assert (mended["passed"], mended["deterministic"], mended["tolerance"]) == (True, False, 0.05)
    assert not os.path.exists(os.path.join(verdict["kept"], "box"))


def test_one_that_does_not_save_in_time_is_caught_by_the_deadline(box: SupervisedBox) -> None:
    register(box, "--broken", "unsaved")
    verdict = drill(box, deadline_s=SOON_S)["drill"]
    assert (verdict["passed"], verdict["reason"]) == (False, "no_checkpoint")
    assert f"no whole checkpoint was saved within {SOON_S} s" in verdict["why"]
    assert "steps are in the metrics" in verdict["why"]
    assert_nothing_touched(box)
    register(box, "--broken", "silent", spec_sha256="c" * 64)
    verdict = drill(box, deadline_s=SOON_S)["drill"]
    assert (verdict["reason"], "nothing shows the steps" in verdict["why"]) == ("no_metrics", True)
    assert "no step is in the metrics" in verdict["why"]


def test_one_that_saves_at_every_step_is_judged_too(box: SupervisedBox) -> None:
    register(box, "--save-every", "1")
    verdict = drill(box)["drill"]
    assert verdict["passed"], verdict
    assert verdict["resumed_at_step"] == verdict["saved_step"] + 1


def test_slow_steps_are_waited_for(box: SupervisedBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with the one loss that it had told in the usual time, nothing could be compared."""
    monkeypatch.setattr(drill_moment, "PATIENCE_S", 0.05)
    register(box, "--save-every", "1", "--work", "300000")
    caller = control.Caller((box.python, "-I", str(box.program)))
    verdict = resume_drill.drill(box.layout, caller, resume_drill.Options("digits"))["drill"]
    assert verdict["passed"], verdict
    assert verdict["killed_at_step"] > drill_moment.OVERLAP
    assert verdict["resumed_at_step"] == verdict["saved_step"] + 1


def test_one_that_ends_before_it_can_be_killed_is_told_apart(box: SupervisedBox) -> None:
    script = box.workdir / "short.py"
    script.write_text("print('done already')\n")
    register(box, command=["python", "short.py"])
    verdict = drill(box)["drill"]
    assert (verdict["reason"], verdict["log_tail"]) == ("ended_early", ["done already"])
    script.write_text("raise SystemExit('no data')\n")
    register(box, command=["python", "short.py"], spec_sha256="c" * 64)
    verdict = drill(box)["drill"]
    assert (verdict["reason"], verdict["log_tail"]) == ("trainer_failed", ["no data"])
    register(box, command=["no-such-program"], spec_sha256="d" * 64)
    assert "cannot be started" in drill(box)["drill"]["why"]


def test_the_example_passes(box: SupervisedBox) -> None:
    for path in (ROOT / "examples" / "digits").iterdir():
        if path.name != "__pycache__":
            (shutil.copytree if path.is_dir() else shutil.copy)(path, box.workdir / path.name)
    before = sorted(path.name for path in box.workdir.rglob("*"))
    register(box, command=["python", "train.py", "--epochs", "2000"])
    verdict = drill(box)["drill"]
    assert (verdict["reason"], verdict["deterministic"], verdict["mid_epoch"]) == ("passed", True, True), verdict
    assert verdict["compared"] >= 3
    assert sorted(path.name for path in box.workdir.rglob("*")) == before


REGEX = {"source": "regex", "pattern": r"step (?P<step>\d+)(?: loss=(?P<loss>\S+))?"}
EVENTS = {"source": "tensorboard", "logdir": "tb"}


@pytest.mark.parametrize(
    ("tell", "broken", "progress", "reason"),
    [
        ("events", "", EVENTS, "passed"),
        ("log", "", REGEX, "passed"),
        ("log", "weights", REGEX, "loss_differs"),
        ("steps", "", REGEX, "no_losses"),
    ],
)
def test_a_run_that_writes_no_metrics_is_drilled_by_its_source_of_progress(
    box: SupervisedBox, tell: str, broken: str, progress: dict[str, Any], reason: str
) -> None:
    register(box, "--tell", tell, "--broken", broken, progress=progress)
    verdict = drill(box)["drill"]
    assert (verdict["reason"], verdict["steps_from"]) == (reason, progress["source"]), verdict
    assert verdict["resumed_at_step"] == verdict["saved_step"] + 1
    assert (verdict["compared"] >= 1) == (tell != "steps")
    assert ("only steps were compared" in verdict["why"]) == (tell == "steps")


@pytest.mark.parametrize("package", ["transformers", "lightning"])
def test_a_run_of_somebody_elses_loop_passes(box: SupervisedBox, package: str) -> None:
    """All that such a script says of its progress comes from the callback."""
    shutil.copy(CALLBACKS, box.workdir / "train.py")
    register(box, package)
    verdict = drill(box)["drill"]
    assert (verdict["reason"], verdict["deterministic"], verdict["mid_epoch"]) == ("passed", True, True), verdict
    assert verdict["compared"] >= 3


def test_a_box_at_work_is_not_drilled(box: SupervisedBox) -> None:
    register(box)
    box.verb("start")
    box.await_trainer()
    code, answer = box.ask("drill", "--run", "digits")
    assert (code, answer["kind"]) == (17, "live")
    assert "digits/c1" in answer["error"]
    code, answer = box.ask("drill", "--run", "other")
    assert (code, answer["kind"]) == (10, "usage")


def test_what_an_interrupted_drill_left_is_ended_by_the_next(box: SupervisedBox) -> None:
    """The drill itself is killed in its middle: its trainer lives on under a supervisor of its own."""
    register(box)
    metrics = box.root / "drills/digits/box/runs/digits-drill/c1/a1/metrics.jsonl"
    words = box.argv("drill", "--run", "digits")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for("the drill to train", lambda: metrics.exists() and metrics.stat().st_size)
        process.kill()
        process.wait()
    assert box.processes(), "its supervisor, shim and trainer live on"
    assert drill(box)["drill"]["passed"]
    assert_nothing_touched(box)


# --- by playbook ------------------------------------------------------------------------------------------------


def spec(*arguments: str) -> dict[str, Any]:
    return {
        "id": "drilled",
        "command": ["python", "train.py", *arguments],
        "artifacts": [{"glob": "model.pt", "role": "checkpoint", "loader": "torch"}],
        "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
    }


@pytest.fixture
def team(tmp_path: Path) -> Iterator[SshTeam]:
    with ssh_team(tmp_path, spec("--broken", "zero"), TRAINER) as made:
        yield made


def test_the_train_role_refuses_to_start_a_run_that_does_not_resume(team: SshTeam) -> None:
    box = team.rent("b1")
    words = ("-e", "train_drill=true")
    shown = " ".join(team.play("train", "b1", *words, ok=False).split())
    assert "run drilled does not survive a kill" in shown
    assert '"kind": "training_failed"' in shown
    path = team.state_dir / "drills" / "vision" / "drilled" / "b1.g1.json"
    verdict = records.read_record(str(path), "drill")
    assert (verdict["passed"], verdict["reason"]) == (False, "started_again")
    assert box.layout.attempt_numbers("drilled", "main") == []
    assert os.path.isdir(verdict["kept"])

    team.write_spec(spec())
    team.play("train", "b1", *words)
    assert records.read_record(str(path), "drill")["passed"]
    # Only now, and from its own first step: nothing of the drill was found.
    paths = box.layout.attempt("drilled", "main", 1)
    assert attempt.is_alive(paths)
    # It lives, which it may do for a while before it has made a step.
    wait_for("its first step", lambda: os.path.exists(paths.metrics) and os.path.getsize(paths.metrics))
    first = json.loads(Path(paths.metrics).read_text().splitlines()[0])
    assert (first["step"], "resumed_from" in first) == (1, False)
    journal = [json.loads(line) for line in (team.state_dir / "journal.jsonl").read_text().splitlines()]
    assert [line["passed"] for line in journal if line["verb"] == "resume-drill"] == [False, True]

    # The playbook of its own, beside a live run: refused, and the run goes on.
    shown = " ".join(team.play("drill", "b1", "-e", "train_drill_again=true", ok=False).split())
    assert "a drill would take its GPU and memory" in shown
    assert attempt.is_alive(paths)
    assert "changed=0" in team.play("drill", "b1").replace(" ", "")

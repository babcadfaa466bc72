# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The digits example: it learns, it resumes bit-exactly wherever it is killed, and its results are honest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "digits"))
import digits
import evaluate
from checkpoint_runs import HELPER, Attempt, Crasher, assert_same_training, crasher, load, same

pytestmark = pytest.mark.integration

EXAMPLE = Path(digits.__file__).parent
EPOCHS = ("--epochs", "3")
STEPS = 69
MU_S = 0.2  # saves cost milliseconds: Young and Daly then want one at every few steps


@pytest.fixture(scope="module")
def machine() -> Iterator[Crasher]:
    with crasher() as running:
        yield running


@pytest.fixture(scope="module")
def calm(machine: Crasher, tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    """The training that nobody disturbed."""
    attempt = Attempt(tmp_path_factory.mktemp("calm"), 1)
    assert machine.run(attempt, "digits", *EPOCHS, mu_s=MU_S) == {"signal": 0, "exit": 0}
    assert len(attempt.losses()) == STEPS
    return attempt


def assert_ended_as(calm: Attempt, attempts: list[Attempt]) -> None:
    assert_same_training(calm, attempts)
    one, other = load(calm.out / "model.pt"), load(attempts[-1].out / "model.pt")
    assert same(one, other), "the model differs"


def python(*arguments: str, environ: dict[str, str] | None = None, cwd: Path = EXAMPLE) -> Any:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HELPER), "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Any, limit_s: float = 120) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("event", "count"),
    [
        ("open", 4),  # nothing of the save is on the disk
        ("half-write", 900),  # in the middle of the file
        ("fsync", 8),  # written, not synced
        ("replace", 4),  # synced, without its name
        ("open-folder", 6),  # has its name, the folder is not synced
        ("unlink", 2),  # saved, the old one not yet removed
        ("line", 40),  # between saves, in mid-epoch
        ("half-line", 31),  # in the middle of a line of metrics
    ],
)
def test_killed_anywhere_it_ends_with_the_same_weights_and_losses(
    machine: Crasher, calm: Attempt, tmp_path: Path, event: str, count: int
) -> None:
    first, second = Attempt(tmp_path, 1), Attempt(tmp_path, 2)
    assert machine.run(first, "digits", *EPOCHS, kill=[event, count], mu_s=MU_S)["signal"] == signal.SIGKILL
    assert machine.run(second, "digits", *EPOCHS, mu_s=MU_S) == {"signal": 0, "exit": 0}
    assert 0 < first.saved_steps()[-1] <= second.resumed_from() < STEPS
    assert_ended_as(calm, [first, second])


@pytest.mark.parametrize("damage", ["cut short", "one bit"])
def test_a_damaged_newest_checkpoint_is_quarantined_and_the_one_before_it_used(
    machine: Crasher, calm: Attempt, tmp_path: Path, damage: str
) -> None:
    first, second = Attempt(tmp_path, 1), Attempt(tmp_path, 2)
    assert machine.run(first, "digits", *EPOCHS, kill=["line", 40], mu_s=MU_S)["signal"] == signal.SIGKILL
    before, newest = first.on_disk()[-2:]
    content = bytearray(newest.read_bytes())
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0x10
    newest.write_bytes(content)

    assert machine.run(second, "digits", *EPOCHS, mu_s=MU_S) == {"signal": 0, "exit": 0}
    assert (first.checkpoints / "quarantine" / newest.name).read_bytes() == content
    assert second.resumed_from() == int(before.stem[5:])
    assert_ended_as(calm, [first, second])


def steps_from(fifo: Path, process: Any, step: int) -> None:
    """Wait until the training says that it has done ``step``."""
    with fifo.open() as lines:
        for line in lines:
            if json.loads(line).get("step", 0) >= step:
                return
    pytest.fail(f"the training ended before step {step}: {finish(process)}")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_itself_killed_or_stopped_in_mid_epoch(calm: Attempt, tmp_path: Path, sent: signal.Signals) -> None:
    """No harness: the command as the supervisor starts it. SIGTERM ends it with a saved state and its own exit code."""
    first, second = Attempt(tmp_path, 1), Attempt(tmp_path, 2)
    fifo = first.folder / "metrics.jsonl"
    os.mkfifo(fifo)
    process = python("train.py", *EPOCHS, environ=first.environ(MU_S))
    steps_from(fifo, process, 30)
    process.send_signal(sent)
    exit_code, out, _err = finish(process)
    fifo.unlink()
    stopped_at = int(first.newest().stem[5:])
    if sent == signal.SIGTERM:
        assert exit_code == 30
        assert f"asked to stop: saved at step {stopped_at}" in out
    else:
        assert exit_code == -signal.SIGKILL

    exit_code, out, err = finish(python("train.py", *EPOCHS, environ=second.environ(MU_S)))
    assert exit_code == 0, err
    assert f"going on from step {stopped_at}" in out
    expected = dict(calm.losses())
    assert second.losses() == [(step, expected[step]) for step in range(stopped_at + 1, STEPS + 1)]
    assert same(load(calm.newest())["objects"], load(second.newest())["objects"])
    assert same(load(calm.out / "model.pt"), load(second.out / "model.pt"))


def test_the_finished_command_again_trains_nothing(machine: Crasher, calm: Attempt, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, 1)
    assert machine.run(attempt, "digits", *EPOCHS, mu_s=MU_S)["exit"] == 0
    model = (attempt.out / "model.pt").read_bytes()
    checkpoints = sorted(attempt.checkpoints.iterdir())
    assert machine.run(attempt, "digits", *EPOCHS, mu_s=MU_S)["exit"] == 0
    assert len(attempt.losses()) == STEPS
    assert (attempt.out / "model.pt").read_bytes() == model
    assert sorted(attempt.checkpoints.iterdir()) == checkpoints


def test_smoke_passes_quickly_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {"TENANT_OUTPUT_DIR": str(tmp_path / "out"), "TENANT_METRICS": str(tmp_path / "metrics.jsonl")}
    exit_code, out, err = finish(python(str(EXAMPLE / "train.py"), "--smoke", environ=environ, cwd=tmp_path), 60)
    assert exit_code == 0, err
    assert "going on from step 2" in out
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_in_the_same_folder_is_refused_in_one_line(machine: Crasher, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, 1)
    assert machine.run(attempt, "digits", "--epochs", "1")["exit"] == 0
    kept = attempt.newest().read_bytes()
    exit_code, _out, err = finish(python("train.py", "--epochs", "1", "--seed", "7", environ=attempt.environ(MU_S)))
    assert exit_code == 1
    assert "is of another run: seed was 0, is 7" in err
    assert "Traceback" not in err
    assert attempt.newest().read_bytes() == kept


def test_the_accuracy_that_a_run_tells_is_measured_again_from_its_file(calm: Attempt) -> None:
    """That the run as it is shipped reaches 97 percent is the demo's proof (test_runner_demo)."""
    metrics = json.loads((calm.out / "metrics.json").read_text())
    exit_code, out, err = finish(python("evaluate.py", str(calm.out / "model.pt")))
    assert exit_code == 0, err
    measured = json.loads(out)
    assert measured["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-9)
    assert (measured["step"], measured["held_out"], measured["finite"]) == (metrics["steps"], 360, True)


def test_no_digit_is_in_both_splits() -> None:
    training, held_out = digits.load_digits()
    pictures = [{image.numpy().tobytes() for image in split.images} for split in (training, held_out)]
    assert (len(training.labels), len(held_out.labels)) == (1437, 360)
    assert pictures[0] & pictures[1] == set()


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a model", "other shapes"])
def test_evaluate_refuses_what_is_no_model_in_one_line(
    calm: Attempt, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "model.pt"
    if damage == "truncated":
        path.write_bytes((calm.out / "model.pt").read_bytes()[:5000])
    elif damage == "not a model":
        path.write_text("import os")
    elif damage == "other shapes":
        torch.save({"state_dict": {"layers.0.weight": torch.zeros(1)}, "meta": {"step": 1, "accuracy": 1.0}}, path)
    assert evaluate.main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"evaluate.py: {path} is not a usable model")

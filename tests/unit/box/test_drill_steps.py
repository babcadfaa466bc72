# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The steps of a drilled attempt, from wherever the run tells them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.drill_steps import Steps
from ansible_collections.tenant.gpu.plugins.module_utils.box.drill_verdict import judge
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress_source import check
from test_tfevents import event, record

METRICS = check({})
TENSORBOARD = check({"source": "tensorboard"})
REGEX = check({"source": "regex", "pattern": r"step (?P<step>\d+)|epoch (?P<epoch>\d+)|loss (?P<loss>\S+)"})


def attempt(folder: Path, number: int = 1) -> AttemptPaths:
    paths = Layout(str(folder)).attempt("digits-drill", "c1", number)
    os.makedirs(paths.output, exist_ok=True)
    return paths


def append(path: str | Path, data: bytes | str) -> None:
    with open(path, "ab") as stream:
        stream.write(data if isinstance(data, bytes) else data.encode())


def events(paths: AttemptPaths, first: int, last: int, tag: str = "train/loss", name: str = "1") -> None:
    scalars = [record(event(step, tag, 10.0 / step)) for step in range(first, last + 1)]
    append(Path(paths.output, f"events.out.tfevents.{name}.host"), b"".join(scalars))


def losses(lines: list[dict[str, Any]]) -> dict[int, float | None]:
    return {line["step"]: line.get("loss") for line in lines if "step" in line}


def test_metrics_lines_come_first_whatever_the_source(tmp_path: Path) -> None:
    paths = attempt(tmp_path)
    steps = Steps(paths, REGEX)
    append(paths.log, "step 4\nloss 0.5\n")
    assert (losses(steps.lines()), steps.source) == ({4: 0.5}, "regex")
    append(paths.metrics, '{"resumed_from": 4}\n{"step": 5, "loss": 0.25}\n{"step": 6')
    assert (steps.lines(), steps.source) == ([{"resumed_from": 4}, {"step": 5, "loss": 0.25}], "metrics")
    append(paths.metrics, "}\n")
    assert losses(steps.lines()) == {5: 0.25, 6: None}


def test_every_line_of_the_log_is_a_step_of_its_own(tmp_path: Path) -> None:
    paths = attempt(tmp_path)
    steps = Steps(paths, REGEX)
    assert (steps.lines(), steps.places, steps.problem) == ([], ["metrics", "regex"], "")
    append(paths.log, "loss 9.0\nstep 1\nloss 3.0\nstep 2\nepoch 1\n")
    append(paths.metrics, '{"resumed_from": 4, "deterministic": true}\n')
    told = [{"step": 1, "loss": 3.0}, {"step": 2, "epoch": 1}]
    assert steps.lines() == [{"resumed_from": 4, "deterministic": True}, *told]
    # The same step again, as a progress bar draws it: the last loss counts. A torn line waits.
    append(paths.log, "loss 2.5\nstep 2\nloss 2.0\nstep 3")
    assert losses(steps.lines()) == {1: 3.0, 2: 2.0}
    append(paths.log, "\n")
    assert losses(steps.lines()) == {1: 3.0, 2: 2.0, 3: None}


def test_every_scalar_of_the_event_files_is_a_step_and_new_files_are_found_at_once(tmp_path: Path) -> None:
    paths = attempt(tmp_path)
    steps = Steps(paths, TENSORBOARD)
    assert (steps.lines(), steps.source) == ([], "tensorboard")
    events(paths, 1, 500)
    assert list(losses(steps.lines())) == list(range(1, 501))
    events(paths, 501, 502, name="2")
    append(Path(paths.output, "events.out.tfevents.2.host"), record(event(503, "lr", 0.1)))
    assert list(losses(steps.lines()))[-2:] == [501, 502]


def test_the_second_try_is_read_as_the_first_was(tmp_path: Path) -> None:
    first, second = attempt(tmp_path, 1), attempt(tmp_path, 2)
    events(first, 1, 30, tag="aux_loss")
    events(first, 1, 30)
    before = Steps(first, TENSORBOARD)
    known = before.lines()
    after = Steps(second, TENSORBOARD, before)
    events(second, 21, 40, tag="aux_loss")
    assert after.lines() == [], "its loss has not been written yet"
    events(second, 21, 40)
    verdict = judge(known, after.lines(), 20)
    assert (verdict.reason, verdict.compared) == ("passed", 10)


@pytest.mark.parametrize("said", ["Resuming from step 20\n", "step 0 of 100\r", "step 0 of 100\nresumed at step 20\n"])
def test_a_log_may_say_where_it_resumes(tmp_path: Path, said: str) -> None:
    pattern = check({"source": "regex", "pattern": r"step (?P<step>\d+)(?: loss=(?P<loss>\S+))?"})
    first, second = attempt(tmp_path, 1), attempt(tmp_path, 2)
    append(first.log, "".join(f"step {step} loss={10 / step}\n" for step in range(1, 25)))
    before = Steps(first, pattern)
    known = before.lines()
    append(second.log, said + "".join(f"step {step} loss={10 / step}\n" for step in range(21, 25)))
    after = Steps(second, pattern, before).lines()
    assert judge(known, after, 20, announces=True).passed
    assert judge(known, known, 20, announces=True).reason == "started_again"


def test_steps_of_the_metrics_are_compared_with_such_alone(tmp_path: Path) -> None:
    first, second = attempt(tmp_path, 1), attempt(tmp_path, 2)
    append(first.metrics, json.dumps({"step": 5, "loss": 0.5}) + "\n")
    before = Steps(first, REGEX)
    assert losses(before.lines()) == {5: 0.5}
    after = Steps(second, REGEX, before)
    append(second.log, "step 5 is where it goes on\n")
    assert after.lines() == []
    append(second.metrics, json.dumps({"step": 6, "loss": 0.4}) + "\n")
    assert losses(after.lines()) == {6: 0.4}


def test_event_files_without_a_loss_tell_their_steps(tmp_path: Path) -> None:
    paths = attempt(tmp_path)
    events(paths, 1, 5, tag="accuracy")
    lines = Steps(paths, TENSORBOARD).lines()
    assert lines == [{"step": step} for step in range(1, 6)]
    assert judge(lines, [{"step": 4}, {"step": 5}], 3).reason == "no_losses"

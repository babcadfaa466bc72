# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The launch on the box: without it nothing of a run of several boxes starts, and a stop takes it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    control,
    launch,
    refusal,
    run_record,
    supervision,
    survey,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

CALLER = control.Caller(("python", "supervisor.pyz"))
RUN: dict[str, Any] = {
    "project": "vision",
    "box": "node-a",
    "generation": 1,
    "provider_id": "1",
    "run_id": "wide",
    "spec_sha256": "a" * 64,
    "code_sha256": "b" * 64,
    "python": "/opt/py/bin/python",
    "workdir": "/w",
    "command": ["python", "train.py"],
    "cells": [{"id": "main", "args": ["--seed", "1"]}],
    "parts": ["node-a", "node-b"],
    "nodes": {"count": 2, "wait_s": 60},
    "limits": {"min_free_bytes": 0, "min_free_inodes": 0},
}
LAUNCH: dict[str, Any] = {
    "run_id": "wide",
    "spec_sha256": "a" * 64,
    "argv": ["python", "-m", "torch.distributed.run", "train.py"],
    "env": {"PET_LOCAL_ADDR": "10.0.0.1"},
    "leader": False,
    "members": [{"box": "node-a", "address": "10.0.0.1"}],
    "wait_s": 60,
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "gpu-tenant"))
    control.register(layout, CALLER, RUN)
    return layout


def started(layout: Layout, caller: control.Caller = CALLER, **options: Any) -> dict[str, Any]:
    # Nothing is spawned by the method `none`; what would be is in the answer.
    return control.start(layout, caller, control.StartOptions(means=supervision.Means("none"), **options))


def run_of(layout: Layout) -> dict[str, Any]:
    return run_record.read_run(layout, "wide")


def test_without_a_launch_nobody_starts_it(layout: Layout) -> None:
    with pytest.raises(Refused, match="works on several boxes and was not launched") as caught:
        started(layout, run_id="wide")
    assert "on all boxes" in caught.value.fix
    started(layout)
    assert survey.survey(layout).next_step().kind == "nothing"
    with pytest.raises(Refused, match="was not launched"):
        launch.trainer_argv(layout, run_of(layout), RUN["cells"][0])


def test_a_launch_lets_it_start_with_its_command_and_environment(layout: Layout) -> None:
    answer = started(layout, run_id="wide", launch=LAUNCH)
    assert answer["changed"] is True
    assert list(answer["after"]["launched"]) == ["wide"]
    assert survey.survey(layout).next_step().kind == "run"
    argv, environment = launch.trainer_argv(layout, run_of(layout), run_record.cell_of(run_of(layout), "main"))
    assert argv == ["/opt/py/bin/python", "-m", "torch.distributed.run", "train.py", "--seed", "1"]
    assert environment == {"PET_LOCAL_ADDR": "10.0.0.1"}
    assert started(layout, run_id="wide", launch=LAUNCH)["changed"] is False
    assert launch.may_lack_artifacts(layout, run_of(layout))


def test_in_check_mode_a_launch_is_only_foretold(layout: Layout) -> None:
    foretold = control.Caller(CALLER.program, check=True)
    assert started(layout, foretold, run_id="wide", launch=LAUNCH)["changed"] is True
    assert launch.read(layout, run_of(layout)) is None


def test_a_stop_takes_the_launch_back_and_a_hold_does_not(layout: Layout) -> None:
    started(layout, run_id="wide", launch=LAUNCH)
    control.hold(layout, CALLER, stop_live=False, grace_s=None)
    assert launch.read(layout, run_of(layout)) is not None
    foretold = control.stop(layout, control.Caller(CALLER.program, check=True), "wide", None)
    assert foretold["after"]["launched"] == {}
    assert launch.read(layout, run_of(layout)) is not None
    assert control.stop(layout, CALLER, "wide", None)["after"]["launched"] == {}
    assert launch.read(layout, run_of(layout)) is None
    started(layout)
    assert survey.survey(layout).next_step().kind == "nothing"
    # Who was to write what is known still, for an attempt that ends just now.
    assert launch.may_lack_artifacts(layout, run_of(layout))
    assert control.stop(layout, CALLER, "wide", None)["changed"] is False


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"run_id": "other"}, refusal.MISMATCH),
        ({"spec_sha256": "f" * 64}, refusal.MISMATCH),
        ({"argv": []}, refusal.USAGE),
        ({"argv": "torchrun"}, refusal.USAGE),
        ({"env": {"LD_PRELOAD=x": "1"}}, refusal.USAGE),
        ({"wait_s": -1}, refusal.USAGE),
    ],
)
def test_a_launch_of_something_else_is_refused(layout: Layout, changes: dict[str, Any], code: int) -> None:
    with pytest.raises(Refused) as caught:
        started(layout, run_id="wide", launch={**LAUNCH, **changes})
    assert caught.value.code == code
    assert launch.read(layout, run_of(layout)) is None


@pytest.mark.parametrize("missing", list(LAUNCH))
def test_a_launch_that_lacks_a_key_is_refused(layout: Layout, missing: str) -> None:
    with pytest.raises(Refused, match="lacks a key"):
        started(layout, run_id="wide", launch={key: value for key, value in LAUNCH.items() if key != missing})


def test_a_damaged_launch_is_none(layout: Layout) -> None:
    started(layout, run_id="wide", launch=LAUNCH)
    Path(launch.path(layout, "wide")).write_text("{")
    assert survey.survey(layout).next_step().kind == "nothing"


def test_what_lives_under_one_launch_is_not_given_another() -> None:
    launch.refuse_while_live(LAUNCH, LAUNCH, live=True)
    launch.refuse_while_live(LAUNCH, dict(LAUNCH, wait_s=61), live=False)
    with pytest.raises(Refused) as caught:
        launch.refuse_while_live(LAUNCH, dict(LAUNCH, wait_s=61), live=True)
    assert caught.value.code == refusal.LIVE


def test_a_run_of_one_box_needs_none(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "alone"))
    control.register(layout, CALLER, {**RUN, "nodes": {}, "parts": []})
    with pytest.raises(Refused, match="needs no launch"):
        started(layout, run_id="wide", launch=LAUNCH)
    assert launch.trainer_argv(layout, run_of(layout), RUN["cells"][0])[1] == {}
    assert not launch.may_lack_artifacts(layout, run_of(layout))
    assert "launched" not in started(layout)["after"]


@pytest.mark.parametrize("nodes", [{"count": 1}, {"count": 3}, {"count": True}, {"wait_s": 5}])
def test_a_run_record_whose_nodes_are_not_its_parts_is_refused(tmp_path: Path, nodes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="nodes"):
        control.register(Layout(str(tmp_path / "bad")), CALLER, {**RUN, "nodes": nodes})

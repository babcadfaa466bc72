# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a drill kills the first try, and what it notes of that moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import control, drill, drill_verdict
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress_source import check
from test_artifacts import torch_zip

CELL = {"id": "c1", "args": [], "seed": 5}
RUN: dict[str, Any] = {
    "project": "vision",
    "box": "b1",
    "generation": 1,
    "provider_id": "77",
    "run_id": "digits",
    "spec_sha256": "a" * 64,
    "code_sha256": "b" * 64,
    "command": ["python", "train.py"],
    "workdir": "/code",
    "env": {},
    "cells": [CELL],
    "preemption": {},
    "retries": {"max": 1},
    "progress": check({}),
    "artifacts": [{"glob": "*.pt", "role": "checkpoint", "loader": "torch"}],
}


def losses(first: int, last: int, every: int = 1) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 10.0 / step} for step in range(first, last + 1, every)]


@pytest.mark.parametrize(
    ("name", "saved", "reason"),
    [
        ("epoch_2.pt", None, "started_again"),
        ("last.pt", None, "started_again"),
        ("epoch=2-step=200.pt", 200, "started_again"),
        ("iter_200.pt", 200, "started_again"),
        # Whatever it counts, a start from zero does not pass.
        ("ckpt_2.pt", 2, "unclear"),
    ],
)
def test_a_start_from_zero_is_seen_however_the_checkpoint_is_named(
    tmp_path: Path, name: str, saved: int | None, reason: str
) -> None:
    drilled = drill._Drill(Layout(str(tmp_path)), control.Caller(()), RUN, CELL, drill.Options("digits"))
    paths = drilled._paths(1)
    Path(paths.output).mkdir(parents=True)
    Path(paths.output, name).write_bytes(torch_zip())
    before = losses(10, 250, every=10)
    drilled._note_kill(paths, before)
    assert (drilled._facts["checkpoint"], drilled._facts["saved_step"]) == (name, saved)
    assert drill_verdict.judge(before, before, drilled._facts["saved_step"]).reason == reason
    gone_on = drill_verdict.judge(before, losses(210, 260, every=10), drilled._facts["saved_step"])
    assert gone_on.passed == (name != "ckpt_2.pt"), gone_on

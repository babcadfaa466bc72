# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which step the path of a checkpoint names."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.step_name import step_in, training_step_in


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoints/step-0000000042.pt", 42),
        ("checkpoint-500", 500),
        ("epoch_3/model.pt", 3),
        ("ckpts/iter_0000500/mp_rank_00/model.pt", 500),
        ("iteration=7.pt", 7),
        ("arbiter_5.pt", None),
        ("best.pt", None),
        ("sidestep9.pt", None),
    ],
)
def test_steps_in_names(path: str, step: int | None) -> None:
    assert step_in(path) == step


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoints/step-0000000042.pt", 42),
        ("checkpoint-500", 500),
        ("ckpts/iter_0000500", 500),
        ("iteration=7.pt", 7),
        ("epoch_3/model.pt", None),
        ("epoch=3-step=1200.ckpt", 1200),
        ("step=1200-epoch=3.ckpt", 1200),
        ("best.pt", None),
    ],
)
def test_an_epoch_in_a_name_is_no_step_of_the_training(path: str, step: int | None) -> None:
    assert training_step_in(path) == step

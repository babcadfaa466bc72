# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which step the path of a checkpoint names."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.step_name import step_in


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoints/step-0000000042.pt", 42),
        ("checkpoint-500", 500),
        ("epoch_3/model.pt", 3),
        ("best.pt", None),
        ("sidestep9.pt", None),
    ],
)
def test_steps_in_names(path: str, step: int | None) -> None:
    assert step_in(path) == step

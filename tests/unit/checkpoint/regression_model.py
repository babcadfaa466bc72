# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A model that the Trainer of transformers can train in milliseconds."""

from __future__ import annotations

from typing import Any

import torch


class Regression(torch.nn.Module):
    """Four numbers to one, from the same weights each time; what it gives back is as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner = torch.nn.Linear(4, 1)

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        return {"loss": (self.inner(x).squeeze(-1) - labels).square().mean()}

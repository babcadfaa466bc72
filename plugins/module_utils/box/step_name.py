# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The step that the path of a checkpoint names."""

from __future__ import annotations

import re

_STEP = re.compile(r"(?:^|[^0-9A-Za-z])(?:step|epoch|checkpoint|ckpt)[-_=]?(\d+)", re.IGNORECASE)


def step_in(path: str) -> int | None:
    """The last number behind such a word, None when there is none."""
    found = _STEP.findall(path)
    return int(found[-1]) if found else None

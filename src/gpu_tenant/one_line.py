# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a stranger says, as one line that steers no terminal."""

from __future__ import annotations

import re


def one_line(text: str, length: int = 400) -> str:
    """Text fit for one line of a terminal: no control characters, shortened."""
    clean = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    clean = "".join(character for character in clean if character.isprintable())
    return clean if len(clean) <= length else clean[: length - 3] + "..."

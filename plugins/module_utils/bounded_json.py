# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The JSON of a stranger, read only where it has no more values than an answer of ours can have.

What it costs to read is not what it is long: eight megabytes of ``[],`` are three million lists, which is a third of a
gigabyte and ten seconds of this machine, at each look.
"""

from __future__ import annotations

import json
from typing import Any

# The status of ten thousand cells. A sign within a text counts as well, of which a status has few.
MOST_VALUES = 300_000


def read_json(text: str | bytes, most_values: int = MOST_VALUES) -> Any:
    """What ``json.loads`` makes of it.

    :raises ValueError: it is no JSON, or more values than ``most_values``.
    :raises RecursionError: it is too deep.
    """
    if values_in(text) > most_values:
        raise ValueError(f"it has more than {most_values} values, and no answer of ours has so many")
    return json.loads(text)


def values_in(text: str | bytes) -> int:
    """How many values it has at most, or one less."""
    # Each but the first stands behind one of these.
    return sum(map(text.count, "[{,")) if isinstance(text, str) else sum(map(text.count, (b"[", b"{", b",")))

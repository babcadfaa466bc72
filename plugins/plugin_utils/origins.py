# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which file and on which line a variable of the inventory was given its value.

ansible-core 2.19 and newer carry that with a value, for messages only, which is all that it is used for here. The tag
is private to ansible-core, so that where it is not found the place is simply not told; nor is it of true, false and
null, which carry no tag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def place_of(variables: Mapping[str, Any], key: str) -> str:
    """``file:line`` of a dotted key such as ``platform_verbs.park[0].keeps``, or of what is nearest around it that
    carries its place; empty where nothing does."""
    told, value = "", variables
    for index, name in _STEP.findall(key):
        value = _step(value, int(index) if index else name)
        told = _place(value) or told
    return told


def _step(value: Any, step: int | str) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, Mapping) else None
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return value[step] if is_list and step < len(value) else None


def _place(value: Any) -> str:
    origin = Origin.get_tag(value) if Origin is not None else None
    path, line = getattr(origin, "path", None), getattr(origin, "line_num", None)
    if not path:
        return ""
    return f"{path}:{line}" if line else str(path)

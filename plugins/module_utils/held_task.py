# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the task ``held_files`` does on the box: let go of what a snapshot held."""

from __future__ import annotations

import os
from typing import Any, Mapping

from .box import held_files
from .box.layout import Layout


def let_go(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """:returns: ``changed``: whether anything was held."""
    layout = Layout(params["tenant_root"])
    found = os.path.isdir(layout.held(params["run_id"]))
    if found and not check_mode:
        held_files.release(layout, params["run_id"])
    return {"changed": found}

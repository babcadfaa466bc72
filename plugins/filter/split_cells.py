# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.module_utils.box import cell_split as arithmetic


def split_cells(cells: Any, boxes: Any, weights: Any = None) -> dict[str, list[Any]]:
    """The cells of each box."""
    try:
        return arithmetic.split_cells(cells, boxes, weights)
    except ValueError as error:
        raise AnsibleFilterError(f"split_cells: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"split_cells": split_cells}

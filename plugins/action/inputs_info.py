# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import input_sizes
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "inputs": {"type": "list", "elements": "dict", "required": True},
        "secrets": {"type": "list", "elements": "dict", "default": []},
        "object_store": {"type": "dict", "default": {}},
        "hub_endpoint": {"type": "str", "default": ""},
        "price_per_gb": {"type": "float"},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        found = input_sizes.sizes(params["inputs"], params["secrets"], params["object_store"], params["hub_endpoint"])
        total = input_sizes.total(found, params["price_per_gb"])
        lines = [_line(each) for each in found]
        return {"changed": False, "inputs": found, "total": total, "lines": [total["text"], *lines]}


def _line(each: dict[str, Any]) -> str:
    size = f"unknown size ({each['why']})" if each["bytes"] is None else f"{each['bytes']} bytes"
    return f"{each['dest']}: {size}, from {each['source']}"

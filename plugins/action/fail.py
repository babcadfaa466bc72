# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES, TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "kind": {"type": "str", "required": True, "choices": sorted(EXIT_CODES)},
        "what": {"type": "str", "required": True},
        "safe": {"type": "str", "required": True},
        "fix": {"type": "str", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        raise TenantFailure(box=str(task_vars["inventory_hostname"]), **params)

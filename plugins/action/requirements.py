# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed


class ActionModule(ControllerAction):
    """Has ``ansible.builtin.pip`` install on the box, and believes no fact of it."""

    ARGUMENT_SPEC = {
        "path": {"type": "path", "required": True},
        "pip": {"type": "path", "required": True},
        "pip_args": {"type": "str", "default": ""},
        "break_system_packages": {"type": "bool", "default": False},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        arguments = {
            "requirements": params["path"],
            "executable": params["pip"],
            "extra_args": params["pip_args"],
            "break_system_packages": params["break_system_packages"],
        }
        with self.answered_within(WORK_S):
            return believed(
                self._execute_module(module_name="ansible.builtin.pip", module_args=arguments, task_vars=task_vars)
            )

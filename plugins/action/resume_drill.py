# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import resume_drill
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed, form_is_checked


class ActionModule(ControllerAction):
    """The module drills on the box; here its verdict is kept, and one that failed becomes the task's failure."""

    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "tenant_root": {"type": "str", "required": True},
        "pyz": {"type": "str"},
        "run_id": {"type": "str", "required": True},
        "cell": {"type": "str"},
        "deadline_s": {"type": "float", "default": 900.0},
        "tolerance": {"type": "float", "default": 0.05},
        "again": {"type": "bool", "default": False},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None}
        with self.answered_within(params["deadline_s"] + WORK_S):
            answer = believed(
                self._execute_module(module_name="tenant.gpu.resume_drill", module_args=given, task_vars=task_vars)
            )
        verdict = answer.get("drill")
        if answer.get("failed") or answer.get("unreachable") or not isinstance(verdict, dict):
            return answer
        identity = box_identity_of(params)
        with form_is_checked(identity.box):
            # Before anything of it is kept: all of it must be fit for a record.
            records.digest(verdict)
            failure = resume_drill.failure_of(identity, params["run_id"], verdict)
        if not self.check_mode:
            resume_drill.keep(StateStore(params["state_dir"]), identity, params["run_id"], verdict)
        if failure is not None:
            return dict(answer, **failure.as_result(), failed=True)
        return answer

# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.readable import readable
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S, WORK_S, Silent
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import form_is_checked
from ansible_collections.tenant.gpu.plugins.plugin_utils.supervisor_task import STATES, Task

display = Display()
# They wait until cells have saved, and the last one for the hashes of all that was made.
LONG_VERBS = frozenset(("stop", "hold", "seal"))


class ActionModule(ControllerAction):
    """Speaks to the supervisor's program over the play's connection."""

    A_BOX_SPEAKS = True
    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path", "required": True},
        "pyz": {"type": "path"},
        "state": {"type": "str", "choices": list(STATES), "default": "status"},
        "run": {"type": "dict"},
        "run_id": {"type": "str"},
        "launch": {"type": "dict"},
        "epoch": {"type": "int"},
        "grace_s": {"type": "float"},
        "stop_live": {"type": "bool", "default": False},
        "retry_failed": {"type": "bool", "default": False},
        "live_within_s": {"type": "float", "default": 60},
        "detach": {
            "type": "str",
            "choices": ["setsid", "tmux", "onstart", "systemd", "sbatch", "none"],
            "default": "setsid",
        },
        "detach_options": {"type": "list", "elements": "str", "default": []},
        "batch": {"type": "dict", "default": {}},
        "gpus": {"type": "int", "default": 0},
        "nodes": {"type": "int", "default": 0},
    }
    VALIDATION = {"required_if": [("state", "registered", ["run"])]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        def run(argv: list[str], text: str) -> tuple[int, str, str]:
            within_s = WORK_S + (params["grace_s"] or 0) if LONG_VERBS.intersection(argv) else ANSWER_S
            return self.run_on_box(argv, text, within_s)

        task = Task(params, run, self.box_python(task_vars))
        try:
            with form_is_checked(str(task_vars.get("inventory_hostname", ""))):
                result = task.act(self.check_mode)
                waiting = waits(result) if params["state"] == "started" else []
        except Silent:
            # The log, which would explain, is on the box.
            raise
        except TenantFailure as failure:
            return dict(task.explain(failure), failed=True)
        for line in waiting:
            display.warning(line)
        return result


def waits(result: Mapping[str, Any]) -> list[str]:
    """What a run that was started has to wait for, so that nobody takes it for one at work."""
    runs = (result.get("supervisor") or {}).get("runs") or []
    told = [f"Run {run['run_id']} waits: {run['waits_for']}." for run in runs if run.get("waits_for")]
    return [" ".join(readable(line).split()) for line in told]

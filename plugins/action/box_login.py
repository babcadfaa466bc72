# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import secrets
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import Silent

# What the last try is given, however late it comes.
LEAST_S = 10.0


class ActionModule(ControllerAction):
    """One command of plain sh over the connection that the next tasks use: no Python, nothing is copied."""

    ARGUMENT_SPEC = {
        "within_s": {"type": "float", "default": 120.0},
        "pause_s": {"type": "float", "default": 1.0},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self.check_mode:
            return {"changed": False, "skipped": True, "tries": 0}
        deadline = time.monotonic() + params["within_s"]
        tries = 0
        while True:
            tries += 1
            why = self._try(max(deadline - time.monotonic(), LEAST_S))
            if not why:
                return {"changed": False, "tries": tries}
            left = deadline - time.monotonic()
            if left <= 0:
                raise TenantFailure(
                    "unreachable",
                    f"nobody could log in within {params['within_s']:g} s: {why}",
                    box=str(task_vars.get("inventory_hostname", "")),
                    safe="nothing was changed on it",
                    fix="see whether the box runs and whether it has your public key, then run the same command again",
                )
            time.sleep(min(params["pause_s"], left))
            # A shared connection to a server that was still starting may live on without being of use.
            self._connection.reset()

    def _try(self, within_s: float) -> str:
        """Why the box does not let us in; empty when it ran the command."""
        word = f"tenant-{secrets.token_hex(8)}"
        try:
            with self.answered_within(within_s):
                answer = self._low_level_execute_command(f"echo {word}", executable="/bin/sh")
        except AnsibleConnectionFailure as error:
            return " ".join(str(error).split())[:300]
        except Silent:
            return "it lets us in, or takes the connection, and then says nothing"
        if word in answer.get("stdout", ""):
            return ""
        return f"it runs no command (rc {answer.get('rc')})"

# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import time
from typing import Any

from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed

_CLOCK = re.compile(r"^tenant-now ([0-9]{9,11})(?:\.([0-9]{1,9}))?", re.MULTILINE)
READINGS = 3


class ActionModule(ControllerAction):
    """Compares the clock of the box with the controller's, then lets the module look around."""

    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path", "required": True},
        "run_id": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "interface": {"type": "str", "default": ""},
        "code_files": {"type": "list", "elements": "dict", "default": []},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        clock = self._clock()
        with self.answered_within(ANSWER_S):
            result = believed(
                self._execute_module(module_name="tenant.gpu.node_facts", module_args=params, task_vars=task_vars)
            )
        if isinstance(result.get("node"), dict):
            result["node"] = {**result["node"], **clock, "address": params["address"]}
        return result

    def _clock(self) -> dict[str, float | None]:
        """How far the box is ahead in seconds, and how wrong that may be: the quickest of some readings."""
        best: tuple[float, float] | None = None
        for _turn in range(READINGS):
            before = time.time()
            with self.answered_within(ANSWER_S):
                answer = self._low_level_execute_command("date '+tenant-now %s.%N'")
            after = time.time()
            found = _CLOCK.search(answer.get("stdout", ""))
            if found is None:
                continue
            # A `date` without nanoseconds cuts to whole seconds, so half a second is added.
            exact = bool(found.group(2))
            there = float(f"{found.group(1)}.{found.group(2)}") if exact else int(found.group(1)) + 0.5
            error = (after - before) / 2 + (0.0 if exact else 0.5)
            if best is None or error < best[1]:
                best = (there - (before + after) / 2, error)
        skew, error_s = best if best is not None else (None, None)
        return {
            "clock_skew_s": None if skew is None else round(skew, 3),
            "clock_uncertainty_s": None if error_s is None else round(error_s, 3),
        }

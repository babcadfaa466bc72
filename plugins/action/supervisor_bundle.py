# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.records import sha256_file, write_bytes
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {"state_dir": {"type": "path", "required": True}}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        data, sha256 = build()
        name = f"supervisor-{sha256[:12]}.pyz"
        path = StateStore(params["state_dir"]).path("cache", name)
        # A cache of what the installed collection already says: making it changes nothing of the user's.
        if not os.path.exists(path) or sha256_file(path) != sha256:
            write_bytes(path, data, mode=0o644)
        return {"changed": False, "bundle": {"name": name, "path": path, "sha256": sha256}}

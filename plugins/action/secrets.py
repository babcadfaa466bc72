# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shlex
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import run_secrets
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_client import parse
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import fields, form_is_checked

_NO_PROGRAM = 72
_SAFE = "nothing was started"
# What a secret's own service is given to say whether it works, and as much again.
_PROOF_S = 120.0


class ActionModule(ControllerAction):
    """Speaks to the supervisor's program over stdin: a module's arguments may pass through a file of the box."""

    A_BOX_SPEAKS = True
    ARGUMENT_SPEC = {
        "tenant_root": {"type": "path", "required": True},
        "pyz": {"type": "path", "required": True},
        "python": {"type": "path", "required": True},
        "path": {"type": "path", "required": True},
        "secrets": {"type": "list", "elements": "dict", "required": True},
        "shared": {"type": "list", "elements": "str", "default": []},
        "prove": {"type": "bool", "default": True},
        "env": {"type": "dict", "default": {}},
        "proxy_hook": {"type": "str", "default": ""},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        values = {secret["name"]: run_secrets.value_of(secret) for secret in params["secrets"]}
        order = {"path": params["path"], "values": values, "shared": params["shared"]}
        answer = self._ask(params, dict(order, prove=self._wanted_proof(params)))
        if answer is None:
            return {"changed": True, "secrets": [], "renewed": sorted(values)}
        told = fields(answer, self._box, {"changed": bool, "renewed": list, "secrets": list})
        diff = fields(answer, self._box, {"before": dict, "after": dict})
        with form_is_checked(self._box):
            self._refuse_unproven(told["secrets"])
        return {**told, "diff": diff}

    @staticmethod
    def _wanted_proof(params: dict[str, Any]) -> dict[str, Any] | None:
        if not params["prove"]:
            return None
        checks = [{"name": secret["name"], "check": secret["check"]} for secret in params["secrets"]]
        env = {str(name): str(value) for name, value in params["env"].items()}
        return {"checks": checks, "env": env, "proxy_hook": params["proxy_hook"]}

    def _refuse_unproven(self, found: list[dict[str, Any]]) -> None:
        for each in found:
            if each["state"] == "wrong":
                what = f"the secret {each['name']} does not work: {each['why']}"
                fix = "renew it where this command runs, then run the same command again"
                raise TenantFailure("config", what, self._box, safe=_SAFE, fix=fix)
            if each["state"] == "unreachable":
                what = f"whether the secret {each['name']} works cannot be learned from the box: {each['why']}"
                fix = "see the box's network and proxies, or write check: none for this secret in the run spec"
                raise TenantFailure("unreachable", what, self._box, safe=_SAFE, fix=fix)

    def _ask(self, params: dict[str, Any], order: dict[str, Any]) -> dict[str, Any] | None:
        """The program's answer; None when it is not there yet, which only a check may find."""
        words = [params["python"], "-I", params["pyz"], "--root", params["tenant_root"]]
        words += [*(["--check"] if self.check_mode else []), "secrets", "--order-file", "-"]
        command = f"test -f {shlex.quote(params['pyz'])} || exit {_NO_PROGRAM}; exec {shlex.join(words)}"
        within_s = ANSWER_S + _PROOF_S * len(params["secrets"])
        status, stdout, _stderr = self.without_terminal(command, json.dumps(order).encode(), within_s)
        if status == _NO_PROGRAM and self.check_mode:
            return None
        answer = parse(stdout)
        if answer is None:
            answer = {"error": f"the supervisor's verb secrets ended with exit code {status} and no answer"}
        if "error" in answer:
            raise TenantFailure("config", str(answer["error"]), self._box, safe=_SAFE, fix=str(answer.get("fix", "")))
        return answer

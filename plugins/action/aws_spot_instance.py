# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.actions import SpotAccount
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.api import Ec2Client
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.desired import STATES, Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.rental import SpotOrder
from ansible_collections.tenant.gpu.plugins.module_utils.aws_spot.transformations import LOGIN, SSH_PORT
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.module_utils.dollar_budgets import OPTIONS, Budgets
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction


class ActionModule(ControllerAction):
    """Decides, asks the gate and keeps the records; what changes anything on EC2 is a module of ``amazon.aws``."""

    ARGUMENT_SPEC = {
        "project": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": list(STATES), "default": "present"},
        "state_dir": {"type": "path", "required": True},
        "results_dir": {"type": "path", "default": ""},
        "region": {"type": "str", "default": ""},
        "profile": {"type": "str", "default": ""},
        "api_url": {"type": "str", "default": ""},
        "api_timeout_s": {"type": "int", "default": 30},
        "ssh_user": {"type": "str", "default": LOGIN},
        "ssh_port": {"type": "int", "default": SSH_PORT},
        "instance_types": {"type": "list", "elements": "str", "default": []},
        "image": {"type": "str", "default": ""},
        "public_key": {"type": "str", "default": "", "no_log": False},
        "security_groups": {"type": "list", "elements": "str", "default": []},
        "subnet": {"type": "str", "default": ""},
        "disk_gb": {"type": "int", "default": 100},
        "price_cap": {"type": "float"},
        "budget_per_hour": {"type": "float"},
        **OPTIONS,
        "capacity_wait_s": {"type": "int", "default": 120},
        "wait_s": {"type": "int", "default": 900},
        "verb_keeps": {"type": "dict", "default": {}},
        "provider_id": {"type": "str", "default": ""},
    }
    VALIDATION = {"required_if": [("state", "present", ["price_cap"]), ("state", "started", ["price_cap"])]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        def run_module(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            try:
                done = self._execute_module(module_name=name, module_args=dict(arguments), task_vars=task_vars)
            except AnsibleError as error:
                raise _not_run(name, error) from None
            return {**done, "traceback": _traceback_of(done)}

        desire = _desire_of(params)
        client = Ec2Client(
            params["region"],
            params["profile"],
            params["api_url"],
            run_module,
            timeout_s=float(params["api_timeout_s"]),
        )
        keeps, store = keeps_of(params["verb_keeps"]), StateStore(params["state_dir"])
        account = SpotAccount(client, store, keeps, results_dir=params["results_dir"])
        return converge(account, desire, self.check_mode)

    def _update_module_args(self, module_name: str, module_args: dict[str, Any], *words: Any, **more: Any) -> Any:
        """With tracebacks: some modules of amazon.aws say nowhere else what EC2 refused."""
        done = super()._update_module_args(module_name, module_args, *words, **more)
        module_args["_ansible_tracebacks_for"] = ["error"]
        return done

    def _parse_returned_data(self, res: dict[str, Any], *more: Any) -> Any:
        """Whole, unlike a box's answer: these modules run on the controller, and their tracebacks are read."""
        return ActionBase._parse_returned_data(self, res, *more)


def _traceback_of(result: Mapping[str, Any]) -> str:
    """The traceback in a module's result, which ansible-core holds in an object of its own."""
    told = result.get("exception")
    event = getattr(told, "event", None)
    return str(getattr(event, "formatted_traceback", None) or told or "")


def _desire_of(params: dict[str, Any]) -> Desire:
    """What the options ask for. UnsafeName for a name that cannot be one."""
    order = SpotOrder(
        project=check_name("project", params["project"]),
        name=check_name("box", params["name"]),
        instance_types=tuple(params["instance_types"]),
        image=params["image"],
        public_key=params["public_key"],
        ssh_user=params["ssh_user"],
        ssh_port=params["ssh_port"],
        security_groups=tuple(params["security_groups"]),
        subnet=params["subnet"],
        disk_gb=params["disk_gb"],
        price_cap=params["price_cap"],
        budget_per_hour=params["budget_per_hour"],
        budgets=Budgets.from_options(params),
        capacity_wait_s=float(params["capacity_wait_s"]),
        wait_s=float(params["wait_s"]),
    )
    return Desire(params["state"], order, params["provider_id"])


def _not_run(name: str, error: AnsibleError) -> TenantFailure:
    return TenantFailure(
        "config",
        f"the module {name} could not be run: {str(error)[:200]}",
        safe="it did nothing",
        fix="install the collection where Ansible runs: ansible-galaxy collection install amazon.aws",
    )

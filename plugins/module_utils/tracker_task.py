# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the module ``tracker`` does on the box, through the supervisor's program."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from .failures import TenantFailure
from .supervisor_client import SupervisorClient, find_program, program_argv


def act(params: Mapping[str, Any], run_command: Any, python: str, check: bool) -> dict[str, Any]:
    """The module's result. TenantFailure for what the tracker lacks."""
    program = params["pyz"] or find_program(params["tenant_root"])
    ready = params["state"] == "ready"
    if not program or not os.path.isfile(program):
        if check or not ready:
            return {"changed": ready, "runs": [], "panel": None}
        what = f"there is no supervisor in {params['tenant_root']}/bin"
        raise TenantFailure("config", what, safe="nothing was changed", fix="run the deploy playbook first")
    client = SupervisorClient(run_command, program_argv(python, program, params["tenant_root"]))
    if ready:
        return _ready(client, {"run": params["run"], "logdir": params["logdir"]}, check)
    keys = ("run_id", "timeout_s", "env", "proxy_hook", "logdir")
    answer = client.call(
        "recover-tracker", "--order-file", "-", check=check, stdin=json.dumps({key: params[key] for key in keys})
    )
    # A supervisor of an earlier deploy says nothing of the panel.
    return {"changed": answer["changed"], "runs": answer["runs"], "panel": answer.get("panel")}


def _ready(client: SupervisorClient, order: Mapping[str, Any], check: bool) -> dict[str, Any]:
    answer = client.call("check-tracker", "--order-file", "-", check=check, stdin=json.dumps(order))
    return {
        "changed": answer["changed"],
        "diff": {"before": answer["before"], "after": answer["after"]},
        "package": answer["package"],
        "panel": answer["panel"],
    }

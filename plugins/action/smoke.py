# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.kubernetes.api import KubernetesClient
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import resolve_argv
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import first_key
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

HELPER_DIR = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "deploy", "files")
TAIL_CHARACTERS = 2000


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        "run_spec": {"type": "dict", "required": True},
        "state_dir": {"type": "path", "required": True},
        "python": {"type": "path"},
        "timeout_s": {"type": "int", "default": 600},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        spec = params["run_spec"]
        marker = StateStore(params["state_dir"]).smoke_path(spec["spec_sha256"])
        if records.read_record_or_none(marker, "smoke") is not None:
            return {"changed": False, "passed": True}
        if not self.check_mode:
            tail = run_smoke(spec, params["python"] or sys.executable, params["timeout_s"])
            passed = {"run_id": spec["id"], "spec_sha256": spec["spec_sha256"], "passed_at": records.utc_now()}
            records.write_record(marker, "smoke", dict(passed, output_tail=tail))
        return {"changed": True, "passed": True}


def run_smoke(spec: dict[str, Any], python: str, timeout_s: int) -> str:
    """Run the smoke command in the code tree, on the CPU; the tail of its output. TenantFailure if it fails."""
    argv = resolve_argv(spec["smoke"], python)
    environment = {**without_accounts(os.environ), **spec["env"], "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (os.path.realpath(HELPER_DIR), environment.get("PYTHONPATH", "")) if path
    )
    try:
        done = subprocess.run(
            argv,
            cwd=os.path.join(spec["code_dir"], spec["workdir"]),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(spec, str(error)) from error
    tail = done.stdout.decode("utf-8", "replace")[-TAIL_CHARACTERS:]
    if done.returncode != 0:
        raise _failed(spec, f"it ended with {done.returncode}:\n{tail}")
    return tail


def without_accounts(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what rents, consents or logs in: the code of a job has no business with it."""
    ours = {market.CLIENT.KEY_VARIABLE for market in MARKETS.values()}
    ours |= {KubernetesClient.KEY_VARIABLE, "CONTROLLER_OAUTH_TOKEN", "CONTROLLER_PASSWORD"}
    passwords = first_key.variable_of("")
    return {name: value for name, value in environment.items() if name not in ours and not name.startswith(passwords)}


def _failed(spec: dict[str, Any], why: str) -> TenantFailure:
    return TenantFailure(
        "training_failed",
        f"the smoke command of run {spec['id']} failed on the controller: {why}",
        safe="nothing was rented",
        fix="make the smoke command pass here, then run the same command again",
    )

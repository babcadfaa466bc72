# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import secrets
import time
from typing import Any

from ansible.release import __version__ as core_version
from ansible_collections.tenant.gpu.plugins.module_utils import preflight_script, probe_report, shared_disks
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import ANSWER_S

FAR_END = "probe_gather.look"
# Options of the module that come from the profile when the task does not name them.
FROM_PROFILE = {
    "python": "platform_python",
    "data_dir": "platform_data_dir",
    "durable_kind": "platform_durable_kind",
    "durable_path": "platform_durable_path",
    "hf_home": "platform_hf_home",
}
OF_DURABLE = {
    "durable_shared": "platform_shared_fs",
    "durable_cap_gb": "platform_durable_cap_gb",
    "durable_inode_cap": "platform_inode_cap",
}
_OF_PROJECT = ("tenant_project", "tenant_state_dir", "platform_name")


class ActionModule(BoxCall):
    """Finds a Python by plain sh, has it look around by that, judges on the controller."""

    WORKS = (FAR_END,)

    ARGUMENT_SPEC = {
        "python": {"type": "str"},
        "data_dir": {"type": "str"},
        "durable_kind": {"type": "str", "choices": ["mount", "object", "pull", "none", ""]},
        "durable_path": {"type": "str"},
        "durable_shared": {"type": "bool"},
        "durable_cap_gb": {"type": "float"},
        "durable_inode_cap": {"type": "int"},
        "hf_home": {"type": "str"},
        "require": {
            "type": "dict",
            "default": {},
            "options": {
                "gpu_name": {"type": "str"},
                "num_gpus": {"type": "int"},
                "min_gpu_ram_gb": {"type": "float"},
                "cuda": {"type": "bool"},
                "min_free_gb": {"type": "float"},
                "min_free_inodes": {"type": "int"},
            },
        },
        "fail_on_refusal": {"type": "bool", "default": False},
        "torch": {"type": "bool", "default": True},
        "torch_timeout_s": {"type": "float", "default": 120.0},
        "nvidia_timeout_s": {"type": "float", "default": 20.0},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._box = str(task_vars.get("inventory_hostname", ""))
        for option, variable in FROM_PROFILE.items():
            if params[option] is None:
                params[option] = self._templar.template(task_vars.get(variable, "")) or ""
        for option, variable in OF_DURABLE.items():
            if params[option] is None:
                # Null in a profile: nobody knows.
                params[option] = self._templar.template(task_vars.get(variable)) or 0
        floor = module_floor(core_version)
        preflight, skew = self._preflight(params["python"], _endpoint(task_vars).get("proxy_instead"), floor)
        visit = {
            "login": {"user": preflight.user, "auto_tmux": preflight.auto_tmux, "noise": preflight.noise},
            "endpoint_kind": "proxy" if _endpoint(task_vars).get("proxy") else "direct",
            "sftp": preflight.sftp,
            **skew,
        }
        chosen = preflight_script.choose(preflight.pythons, floor)
        if chosen is None:
            return self._verdict(params, visit, [_no_python(preflight.pythons, floor)])
        found = self._visit(params, task_vars, chosen[0])
        probe = {**found, **visit}
        driver_cuda = probe.get("cuda", {}).get("driver_max") if isinstance(probe.get("cuda"), dict) else None
        probe["statement"] = probe_report.statement(probe.get("torch"), probe.get("training_python"), driver_cuda)
        result = self._verdict(params, probe, probe_report.refusals(probe, params["require"] or {}))
        return {**result, "shared_disk": self._shared_disk(task_vars, probe)}

    def _shared_disk(self, task_vars: dict[str, Any], probe: dict[str, Any]) -> dict[str, list[str]]:
        """Which other boxes of the project see the same shared disk, and which see another one."""
        told = {name: self._templar.template(task_vars.get(name)) for name in _OF_PROJECT}
        if not all(told.values()):
            return {"with": [], "apart": []}
        project, folder, platform = (str(told[name]) for name in _OF_PROJECT)
        return shared_disks.compared(StateStore(folder), project, self._box, platform, probe.get("durable"))

    def _preflight(
        self, python: str, direct: Any, floor: preflight_script.Version
    ) -> tuple[preflight_script.Preflight, dict[str, Any]]:
        """What plain sh says, and how far the box's clock is off (seconds, the box ahead is positive).

        :param direct: what to do for a direct connection, where the profile knows the proxy that this one goes through.
        """
        nonce = f"tenant-{secrets.token_hex(8)}"
        before = time.time()
        with self.answered_within(ANSWER_S, self._box):
            script = preflight_script.script(nonce, python, floor)
            answer = self._low_level_execute_command(script, executable="/bin/sh")
        after = time.time()
        try:
            preflight = preflight_script.parse(answer.get("stdout", ""), nonce)
        except preflight_script.NoAnswer as silence:
            said = silence.noise or probe_report.one_line(answer.get("stderr", "")) or "nothing"
            raise TenantFailure(
                "probe_refused",
                f"the endpoint opens a shell but runs no commands (rc {answer.get('rc')}); it said: {said}",
                box=self._box,
                safe="nothing was changed on it",
                fix=(
                    f"{direct or 'use the endpoint that is direct'}; "
                    "an auto-tmux login is switched off by a file ~/.no_auto_tmux"
                ),
            ) from None
        if preflight.box_now is None:
            return preflight, {"clock_skew_s": None, "clock_uncertainty_s": None}
        # `date` cuts to whole seconds, so half a second is added.
        skew = preflight.box_now + 0.5 - (before + after) / 2
        return preflight, {
            "clock_skew_s": round(skew, 1),
            "clock_uncertainty_s": round((after - before) / 2 + 0.5, 1),
        }

    def _visit(self, params: dict[str, Any], task_vars: dict[str, Any], python: str) -> dict[str, Any]:
        places = {name: params[name] or "" for name in FROM_PROFILE}
        durable = {name: params[name] for name in OF_DURABLE}
        limits = {"nvidia": params["nvidia_timeout_s"], "torch": params["torch_timeout_s"] if params["torch"] else 0}
        asked = {"limits": limits, **durable, **places}
        # It asks several programs of the driver, and several Pythons.
        within_s = ANSWER_S + 10 * sum(limits.values())
        return self.call_on_box(FAR_END, asked, task_vars, python, within_s=within_s)

    def _verdict(self, params: dict[str, Any], probe: dict[str, Any], refusals: list[str]) -> dict[str, Any]:
        result = {"changed": False, "probe": probe, "admitted": not refusals, "refusals": refusals}
        if refusals and params["fail_on_refusal"]:
            failure = TenantFailure(
                "probe_refused",
                "the box is not what was asked for: " + "; ".join(refusals),
                box=self._box,
                safe="nothing was changed on it",
                fix="rent another box, or ask for what this one has",
            )
            return dict(result, failed=True, **failure.as_result())
        return result


def module_floor(version: str) -> preflight_script.Version:
    """The oldest Python on a box that modules of this ansible-core still run on."""
    return (3, 8) if version.startswith("2.19.") else (3, 9)


def _no_python(pythons: list[tuple[str, preflight_script.Version]], floor: preflight_script.Version) -> str:
    seen = ", ".join(f"{path} {'.'.join(map(str, version))}" for path, version in pythons) or "none"
    return f"no Python {'.'.join(map(str, floor))} or newer was found on the box (seen: {seen})"


def _endpoint(task_vars: dict[str, Any]) -> dict[str, Any]:
    return task_vars.get("ansible_facts", {}).get("box_endpoint") or {}

# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import copy_reading, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import (
    BOX_IDENTITY_SPEC,
    ControllerAction,
    box_identity_of,
)
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import WORK_S
from ansible_collections.tenant.gpu.plugins.plugin_utils.strangers_answer import believed, fields, form_is_checked


class ActionModule(ControllerAction):
    ARGUMENT_SPEC = {
        **BOX_IDENTITY_SPEC,
        "uri": {"type": "str", "required": True},
        "root": {"type": "str", "required": True},
        "manifest": {"type": "path", "required": True},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        reader = box_identity_of(params)
        manifest = self._manifest(params)
        # Before the question: what is read cannot be older than this.
        read_at = records.utc_now()
        asked = {"root": params["root"], "files": [file.as_dict() for file in manifest.files]}
        with self.answered_within(WORK_S):
            answer = believed(
                self._execute_module(module_name="tenant.gpu.copy_info", module_args=asked, task_vars=task_vars)
            )
        if answer.get("failed") or answer.get("unreachable"):
            return answer
        fields(answer, reader.box, {}, {"boot_id": str, "device": int})
        with form_is_checked(reader.box):
            reading = copy_reading.as_record(params["uri"], manifest, reader, read_at, answer)
            records.digest(reading)
        whole = not reading["problems"]
        if not self.check_mode:
            copy_reading.save(StateStore(params["state_dir"]), reading)
        return {"changed": False, "reading": reading, "whole": whole}

    @staticmethod
    def _manifest(params: dict[str, Any]) -> roster.Manifest:
        fix = "Give the copy's URI as the receipt names it, and the manifest that was harvested"
        if not copy_reading.is_mount_uri(params["uri"]):
            what = f"{params['uri']!r} is not mount://<platform>.<tier>/<path>"
            raise TenantFailure("config", what, box=params["box"], safe="Nothing was read", fix=fix)
        try:
            record = records.read_record(params["manifest"], "manifest")
            manifest = roster.parse_manifest(record, params["manifest"])
        except (records.RecordError, roster.BadManifest) as error:
            raise TenantFailure("config", str(error), box=params["box"], safe="Nothing was read", fix=fix) from error
        if manifest.project != params["project"]:
            what = f"{params['manifest']} is of project {manifest.project}, not of {params['project']}"
            raise TenantFailure("config", what, box=params["box"], safe="Nothing was read", fix=fix)
        return manifest

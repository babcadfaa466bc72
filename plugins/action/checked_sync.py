# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import carrier, delivery, roster, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

PEER = "tenant.gpu.checked_sync_peer"
# What a code tree never needs on the box.
DEFAULT_EXCLUDES = [".git", "__pycache__", "*.pyc", ".venv*", ".tenant", ".ansible"]


class ActionModule(ControllerAction):
    TRANSFERS_FILES = True
    ARGUMENT_SPEC = {
        "direction": {"type": "str", "required": True, "choices": ["pull", "push"]},
        "src": {"type": "str", "required": True},
        "dest": {"type": "str", "required": True},
        "dest_root": {"type": "str", "default": ""},
        "manifest": {"type": "dict"},
        "exclude": {"type": "list", "elements": "str", "default": DEFAULT_EXCLUDES},
        "paths": {"type": "list", "elements": "str", "default": []},
        "extra": {"type": "str", "choices": ["report", "quarantine", "refuse"]},
        "transport": {"type": "str", "choices": ["auto", "rsync", "stream"], "default": "auto"},
        "endpoint": {"type": "str", "choices": ["auto", "direct", "proxy"], "default": "auto"},
        "proxy_limit_bytes": {"type": "int", "default": 64 * 1024 * 1024},
        "reserve_bytes": {"type": "int", "default": 64 * 1024 * 1024},
        "bandwidth_limit_kib": {"type": "int", "default": 0},
        "stall_timeout_s": {"type": "int", "default": 60},
        "deadline_s": {"type": "int", "default": 6 * 3600},
        "retries": {"type": "int", "default": 5},
        "resends": {"type": "int", "default": 2},
        "first_wait_s": {"type": "float", "default": 2.0},
    }
    VALIDATION = {"required_if": [("direction", "pull", ("manifest",))]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.box = str(task_vars.get("inventory_hostname", ""))
        order = self._order(params)
        proxied = self._is_proxied(params["endpoint"], task_vars)
        far = checked_transfer.Far(self.box, self._link(), self._asker(task_vars), proxied)
        return checked_transfer.run(order, far)

    # --- the order ------------------------------------------------------------------------------------------------

    def _order(self, params: dict[str, Any]) -> checked_transfer.Order:
        pull = params["direction"] == "pull"
        near = os.path.abspath(os.path.expanduser(params["dest" if pull else "src"]))
        far = params["src" if pull else "dest"]
        if not os.path.isabs(far) or "\0" in far or "\n" in far:
            raise self._refusal(f"{far!r} is not an absolute path on the box", "Give the full path")
        manifest = self._manifest(params["manifest"]) if pull else None
        return checked_transfer.Order(
            pull=pull,
            src=far if pull else near,
            dest=near if pull else far,
            files=manifest.files if manifest else self._tree(near, params["exclude"], params["paths"]),
            manifest=manifest,
            dest_root=os.path.expanduser(params["dest_root"]) if pull else params["dest_root"],
            extra=params["extra"] or ("quarantine" if pull else "report"),
            transport=params["transport"],
            reserve_bytes=params["reserve_bytes"],
            proxy_limit_bytes=params["proxy_limit_bytes"],
            deadline_s=params["deadline_s"],
            wishes=transfer.RsyncWishes(params["stall_timeout_s"], params["bandwidth_limit_kib"]),
            patience=carrier.Patience(params["retries"], params["resends"], params["first_wait_s"]),
            check_mode=self.check_mode,
        )

    def _manifest(self, record: dict[str, Any]) -> roster.Manifest:
        try:
            return roster.parse_manifest(record)
        except roster.BadManifest as error:
            raise self._refusal(str(error), "Make the manifest again with tenant.gpu.manifest") from error

    def _tree(self, root: str, excludes: list[str], paths: list[str]) -> tuple[roster.RosterFile, ...]:
        try:
            tree = delivery.scan_tree(root, excludes)
        except delivery.UnsafeTree as error:
            raise self._refusal(str(error), "Change the tree, or exclude the entry") from error
        missing = set(paths) - {file.path for file in tree}
        if missing:
            raise self._refusal(f"{root} has no {', '.join(sorted(missing))}", "Name files that are there")
        return tuple(file for file in tree if not paths or file.path in paths)

    def _refusal(self, what: str, fix: str) -> TenantFailure:
        return TenantFailure("config", what, box=self.box, safe="Nothing was transferred", fix=fix)

    @staticmethod
    def _is_proxied(endpoint: str, task_vars: dict[str, Any]) -> bool:
        if endpoint != "auto":
            return endpoint == "proxy"
        located = (task_vars.get("ansible_facts") or {}).get("box_endpoint") or {}
        return located.get("proxy") is True

    # --- the box --------------------------------------------------------------------------------------------------

    def _link(self) -> transfer.Link:
        """The play's own way to the box."""
        connection = self._connection
        if connection.transport == "local":
            return transfer.Link(become=self._become())
        if connection.transport != "ssh":
            raise self._refusal(
                f"the connection {connection.transport!r} cannot carry files", "Reach this box by the connection ssh"
            )
        arguments = [connection.get_option(name) for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
        return transfer.Link(
            host=transfer.check_host(str(connection.get_option("host"))),
            ssh=connection.get_option("ssh_executable"),
            options=transfer.play_options(
                connection.get_option("port"),
                connection.get_option("remote_user"),
                os.path.expanduser(connection.get_option("private_key_file") or ""),
                connection.get_option("timeout"),
                arguments,
            ),
            control_path=self._control_path(),
            become=self._become(),
        )

    def _control_path(self) -> str:
        """Where the play's connection listens; empty when it does not share one."""
        connection = self._connection
        texts = [connection.get_option(name) or "" for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")]
        if not any("ControlPersist" in text for text in texts) or any("ControlPath" in text for text in texts):
            return ""
        where = [connection.get_option(name) for name in ("host", "port", "remote_user")]
        path = connection.get_option("control_path") or connection._create_control_path(*where)
        folder = os.path.abspath(os.path.expanduser(connection.get_option("control_path_dir")))
        return str(path % {"directory": folder})

    def _become(self) -> tuple[str, ...]:
        become = self._connection.become
        if become is None:
            return ()
        if become.name.rsplit(".", 1)[-1] != "sudo":
            raise self._refusal(f"files cannot be carried with become by {become.name}", "Use sudo, or no become")
        return ("sudo", "-n", "-u", become.get_option("become_user") or "root")

    def _asker(self, task_vars: dict[str, Any]) -> Any:
        def ask(op: str, files: Any, **options: Any) -> dict[str, Any]:
            arguments = {"op": op, "files": [file.as_dict() for file in files], **options}
            answer = self._execute_module(module_name=PEER, module_args=arguments, task_vars=task_vars)
            if answer.get("failed"):
                raise TenantFailure(
                    "config",
                    f"the box refused: {answer.get('msg', 'no reason given')}",
                    box=self.box,
                    safe="Nothing was put in its place",
                    fix="See the path it names",
                )
            return dict(answer)

        return ask

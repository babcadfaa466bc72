# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    delivery,
    destination,
    roster,
    snapshots,
    ssh_proxies,
    stores,
    transfer,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, object_transfer, transfer_order
from ansible_collections.tenant.gpu.plugins.plugin_utils.box_call import BoxCall, NoAnswer, RefusedOnBox
from ansible_collections.tenant.gpu.plugins.plugin_utils.play_link import play_link
from ansible_collections.tenant.gpu.plugins.plugin_utils.silence import Silent

FAR_END = "delivery.answer"
# Where the runner says that it reads how far transfers are.
PROGRESS_FILE = "TENANT_PROGRESS_FILE"
UPLOADER = "object_upload.answer"
# What a code tree never needs on the box.
DEFAULT_EXCLUDES = [".git", "__pycache__", "*.pyc", ".venv*", ".tenant", ".ansible"]


class ActionModule(BoxCall):
    WORKS = (FAR_END, UPLOADER)
    ARGUMENT_SPEC = {
        "direction": {"type": "str", "required": True, "choices": ["pull", "push", "store", "fetch"]},
        "src": {"type": "str", "required": True},
        "dest": {"type": "str", "required": True},
        "dest_root": {"type": "str", "default": ""},
        "beside": {"type": "str", "default": ""},
        "manifest": {"type": "dict"},
        "exclude": {"type": "list", "elements": "str", "default": DEFAULT_EXCLUDES},
        "paths": {"type": "list", "elements": "str", "default": []},
        "send": {"type": "str", "choices": ["differing", "all"], "default": "differing"},
        "extra": {"type": "str", "choices": ["report", "quarantine", "refuse"]},
        "transport": {"type": "str", "choices": ["auto", "rsync", "stream"], "default": "auto"},
        "endpoint": {"type": "str", "choices": ["auto", "direct", "proxy"], "default": "auto"},
        "object_store": {
            "type": "dict",
            "apply_defaults": True,
            "options": {
                "endpoint_url": {"type": "str", "default": ""},
                "region": {"type": "str", "default": ""},
                "profile": {"type": "str", "default": ""},
                "addressing": {"type": "str", "choices": ["auto", "path", "virtual"], "default": "auto"},
                "verify": {"type": "str", "choices": ["reread", "provider_checksum"], "default": "reread"},
                "connections": {"type": "int", "default": 32},
            },
        },
        "via": {"type": "str", "default": ""},
        "proxy_limit_bytes": {"type": "int", "default": 64 * 1024 * 1024},
        "reserve_bytes": {"type": "int", "default": 64 * 1024 * 1024},
        "inode_cap": {"type": "int", "default": 0},
        "bandwidth_limit_kib": {"type": "int", "default": 0},
        "stall_timeout_s": {"type": "int", "default": 60},
        "deadline_s": {"type": "int", "default": 6 * 3600},
        "retries": {"type": "int", "default": 5},
        "resends": {"type": "int", "default": 2},
        "first_wait_s": {"type": "float", "default": 2.0},
    }
    VALIDATION = {"required_if": [("direction", "pull", ("manifest",)), ("direction", "store", ("manifest",))]}

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.box = str(task_vars.get("inventory_hostname", ""))
        if params["direction"] in ("store", "fetch"):
            return self._through_objects(params, task_vars)
        why = ""
        if params["direction"] == "pull":
            manifest = snapshots.standing_for(_here(params["dest"]), self._manifest(params["manifest"]))
            params = {**params, "manifest": dict(manifest.record)}
            why = snapshots.why_beside(_here(params["dest"]), manifest) if params["beside"] else ""
        if why:
            params = to_beside(params)
        return {**self._to_or_from_box(params, task_vars), "beside_because": why}

    def _to_or_from_box(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        proxy = self._proxy(params["endpoint"], task_vars)
        if params["via"] and params["direction"] == "pull" and proxy:
            order = self._object_order(params, params["via"])
            missing = object_transfer.missing_here(order)
            if destination.proxy_problem(missing, params["proxy_limit_bytes"]):
                source = self._on_box(params["src"])
                return object_transfer.through_store(order, source, self._sender(task_vars), self._report())
        order = self._order(params)
        far = transfer_order.Far(self.box, self._link(), self._asker(task_vars), proxy)
        return checked_transfer.run(order, far, self._report())

    # --- the order ------------------------------------------------------------------------------------------------

    def _order(self, params: dict[str, Any]) -> transfer_order.Order:
        pull = params["direction"] == "pull"
        near = _here(params["dest" if pull else "src"])
        far = params["src" if pull else "dest"]
        self._on_box(far)
        manifest = self._manifest(params["manifest"]) if pull else None
        return transfer_order.Order(
            pull=pull,
            src=far if pull else near,
            dest=near if pull else far,
            files=manifest.files if manifest else self._tree(near, params["exclude"], params["paths"]),
            manifest=manifest,
            dest_root=os.path.expanduser(params["dest_root"]) if pull else params["dest_root"],
            extra=params["extra"] or ("quarantine" if pull else "report"),
            transport=params["transport"],
            reserve_bytes=params["reserve_bytes"],
            inode_cap=params["inode_cap"],
            proxy_limit_bytes=params["proxy_limit_bytes"],
            deadline_s=params["deadline_s"],
            wishes=transfer.RsyncWishes(params["stall_timeout_s"], params["bandwidth_limit_kib"]),
            patience=carrier.Patience(params["retries"], params["resends"], params["first_wait_s"]),
            check_mode=self.check_mode,
            enclose=params["send"] == "all",
        )

    def _on_box(self, path: str) -> str:
        if not os.path.isabs(path) or "\0" in path or "\n" in path:
            raise self._refusal(f"{path!r} is not an absolute path on the box", "Give the full path")
        return path

    # --- an object store ------------------------------------------------------------------------------------------

    def _through_objects(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if params["direction"] == "fetch":
            return object_transfer.fetch(self._object_order(params, params["src"]), self._report())
        if params["extra"] == "quarantine":
            raise self._refusal("nothing is moved aside in an object store", "Set extra to report or to refuse")
        order = self._object_order(params, params["dest"])
        return object_transfer.store(order, self._sender(task_vars), self._report())

    def _object_order(self, params: dict[str, Any], uri: str) -> object_transfer.Order:
        """The order of any route through an object store; its folder is on the box with direction store."""
        store = params["direction"] == "store"
        settings = params["object_store"]
        if not 1 <= settings["connections"] <= 256:
            raise self._refusal("object_store.connections is not a number from 1 to 256", "Choose 32, or leave it out")
        here = "" if store else _here(params["dest"])
        return object_transfer.Order(
            location=stores.locate(uri, settings),
            folder=self._on_box(params["src"]) if store else here,
            manifest=self._manifest(params["manifest"]) if params["manifest"] else None,
            box=self.box,
            verify=settings["verify"],
            folder_root="" if store else os.path.expanduser(params["dest_root"]),
            extra=params["extra"] or ("report" if store else "quarantine"),
            reserve_bytes=params["reserve_bytes"],
            connections=settings["connections"],
            deadline_s=params["deadline_s"],
            stall_timeout_s=params["stall_timeout_s"],
            retries=params["retries"],
            resends=params["resends"],
            first_wait_s=params["first_wait_s"],
            check_mode=self.check_mode,
        )

    def _sender(self, task_vars: dict[str, Any]) -> Any:
        """Asks the box to hash and send. What it is asked holds presigned URLs, so nothing of it is shown."""

        def ask(order: dict[str, Any]) -> dict[str, Any]:
            within_s = order["deadline_s"] + checked_transfer.LAST_WORD_S
            try:
                return self.call_on_box(UPLOADER, order, task_vars, within_s=within_s)
            except (AnsibleConnectionFailure, Silent) as error:
                raise self._lost() from error
            except NoAnswer as error:
                if not error.lost:
                    raise
                raise self._lost() from error
            except RefusedOnBox as refused:
                what = f"the box could not send: {refused.what}"
                raise TenantFailure(
                    "config", what, box=self.box, safe="What arrived in the store is kept", fix="See what it names"
                ) from refused

        return ask

    def _lost(self) -> TenantFailure:
        what = "the connection to the box was lost"
        fix = "Run the same task again, it continues"
        return TenantFailure("unreachable", what, box=self.box, safe="What arrived in the store is kept", fix=fix)

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

    def _proxy(self, endpoint: str, task_vars: dict[str, Any]) -> str:
        """What to use in place of the proxy that this connection goes through; empty where it goes through none."""
        if endpoint == "direct":
            return ""
        located = (task_vars.get("ansible_facts") or {}).get("box_endpoint") or {}
        known = located.get("proxy_instead") or self._known_proxy(task_vars)
        return known or (ssh_proxies.DIRECT if endpoint == "proxy" or located.get("proxy") is True else "")

    def _known_proxy(self, task_vars: dict[str, Any]) -> str:
        """Also where nobody has located the box: the profile's word on the host that is connected to."""
        proxies = task_vars.get(ssh_proxies.PROFILE_KEY)
        if not proxies or self._connection.transport != "ssh":
            return ""
        return ssh_proxies.instead_of(self._templar.template(proxies), [self._connection.get_option("host")])

    def _report(self) -> Any:
        """Appends each report as a line to the file that the runner watches, where there is one."""
        path = os.environ.get(PROGRESS_FILE)
        if not path:
            return None

        def report(counts: dict[str, Any]) -> None:
            line = json.dumps({"box": self.box, **counts}) + "\n"
            with contextlib.suppress(OSError):  # nobody watching is no reason to stop
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    # One write for one line: several boxes append to one file.
                    os.write(descriptor, line.encode("utf-8"))
                finally:
                    os.close(descriptor)

        return report

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
        return play_link(connection, self._become())

    def _become(self) -> tuple[str, ...]:
        become = self._connection.become
        if become is None:
            return ()
        if become.name.rsplit(".", 1)[-1] != "sudo":
            raise self._refusal(f"files cannot be carried with become by {become.name}", "Use sudo, or no become")
        return ("sudo", "-n", "-u", become.get_option("become_user") or "root")

    def _asker(self, task_vars: dict[str, Any]) -> Any:
        def ask(op: str, files: list[Any], within_s: float, **options: Any) -> dict[str, Any]:
            try:
                arguments = {"op": op, "files": files, **options}
                return self.call_on_box(FAR_END, arguments, task_vars, within_s=within_s)
            except Silent as error:
                raise TenantFailure(
                    "unreachable",
                    f"the box did not answer within {within_s:.0f} s when it was asked about its files ({op})",
                    box=self.box,
                    safe="Nothing was removed at the source, and what arrived is kept",
                    fix="Run the same task again, it continues; where there is much to hash, with a longer deadline_s",
                ) from error

        return ask


def to_beside(params: dict[str, Any]) -> dict[str, Any]:
    """The same pull into the folder beside: a place of its own in ``via`` too, for a receipt may name what lies there.

    What one snapshot brought there makes way for the next: a run at work may be pulled so many times.
    """
    via = params["via"].rstrip("/")
    return {**params, "dest": params["beside"], "extra": "quarantine", "via": f"{via}-beside" if via else ""}


def _here(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))

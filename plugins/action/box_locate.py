# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import (
    box_endpoint,
    box_events,
    machine_mark,
    markets,
    platform_groups,
    power_record,
    profile_rules,
    ssh_proxies,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import check_name
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.fixed_endpoints import FixedEndpoints, this_run
from ansible_collections.tenant.gpu.plugins.module_utils.provider_list import Listing, ProviderList
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import RestClient
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.plugin_utils import origins
from ansible_collections.tenant.gpu.plugins.plugin_utils.controller_action import ControllerAction

display = Display()


class ActionModule(ControllerAction):
    """Says where the box is, without connecting to it."""

    ARGUMENT_SPEC = {
        "project": {"type": "str"},
        "name": {"type": "str"},
        "state_dir": {"type": "path"},
        "driver": {"type": "str"},
        "generation": {"type": "int"},
        "max_age_s": {"type": "float", "default": 5.0},
        "refresh": {"type": "bool", "default": False},
        "require": {"type": "bool", "default": False},
        "api_url": {"type": "str"},
        "api_key": {"type": "str", "no_log": True},
        "api_key_file": {"type": "path"},
        "api_timeout_s": {"type": "int", "default": 30},
    }

    def act(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._vars = task_vars
        box = check_name("box", params["name"] or task_vars["inventory_hostname"])
        project = check_name("project", params["project"] or self._needed("tenant_project", box))
        store = StateStore(params["state_dir"] or self._needed("tenant_state_dir", box))
        profile = self._checked_profile(box)
        if profile.get("platform_kind") == "kubernetes":
            raise _without_boxes(box)
        driver = params["driver"] if params["driver"] is not None else profile.get("platform_driver", "")
        markets.check_driver(driver, box)
        if driver:
            endpoint, listing = self._ask_provider(driver, params, store, project, box, profile)
        else:
            endpoint = self._believe_inventory(params, store, project, box, profile)
            listing = Listing([], time.time())
        self._refuse_shared_machine(store, project, box, endpoint, listing, fixed=driver == "")
        if params["require"]:
            box_endpoint.refuse_unlocated(box, endpoint)
        for warning in _warnings(box, endpoint):
            display.warning(warning)
        observed = records.utc_text(datetime.datetime.fromtimestamp(listing.observed_at, datetime.UTC))
        if driver and endpoint["provider_id"] and not self.check_mode:
            identity = BoxIdentity(project, box, endpoint["generation"], endpoint["provider_id"])
            power_record.note_seen(store, identity, endpoint["state"], endpoint["intended"], observed)
        noted = store.read_box(project, box, endpoint["generation"]) or {}
        record = box_events.summary(noted, endpoint["provider_id"])
        facts = {"box_endpoint": endpoint, "box_record": record}
        return {"changed": False, "ansible_facts": facts, "observed_at": observed}

    # -- what the inventory says ---------------------------------------------------------------------------------

    def _value(self, name: str) -> Any:
        """A variable of the box with its templates resolved; None when it is not set."""
        return self._templar.template(self._vars[name]) if name in self._vars else None

    def _needed(self, name: str, box: str) -> Any:
        value = self._value(name)
        if not value:
            raise _config(box, f"{name} is not set", f"set {name} in group_vars/all.yml of the inventory")
        return value

    def _checked_profile(self, box: str) -> dict[str, Any]:
        """The box's ``platform_*`` values after the merge; TenantFailure if they cannot be right."""
        platforms = self._value(platform_groups.PLATFORM_GROUPS_VARIABLE)
        profile = {name: self._value(name) for name in profile_rules.platform_values(self._vars)}
        if platforms is None:
            if "platform_name" in profile:
                return profile
            fix = "add a file profiles.yml with the line `plugin: tenant.gpu.profiles` to the inventory"
            raise _config(box, "it has no platform profile", fix)
        try:
            group = platform_groups.check_one_platform(list(self._vars.get("group_names", [])), platforms)
        except platform_groups.PlatformError as error:
            raise _config(box, error.what, error.fix) from None
        problems = profile_rules.problems_after_merge(profile, group)
        if problems:
            what = "; ".join(f"{self._where(problem.key)}: {problem.what}" for problem in problems)
            fixes = "; ".join(f"{problem.key}: {problem.fix}" for problem in problems)
            raise _config(box, f"its platform values are not usable: {what}", fixes)
        self._warn_of_stale_facts(group, profile)
        return profile

    def _where(self, key: str) -> str:
        """A key with the file and line that set it, where the inventory can tell."""
        place = origins.place_of(self._vars, key)
        return f"{place}: {key}" if place else key

    def _warn_of_stale_facts(self, group: str, profile: dict[str, Any]) -> None:
        told = (self._value(platform_groups.STALE_VARIABLE) or {}).get(group)
        # A team that has checked them says so in its own group_vars.
        today = datetime.datetime.now(datetime.UTC).date()
        if told and profile_rules.stale(profile["platform_verified"], today, ""):
            display.warning(told)

    # -- two names for one machine -------------------------------------------------------------------------------

    def _refuse_shared_machine(
        self, store: StateStore, project: str, box: str, endpoint: dict[str, Any], listing: Listing, fixed: bool
    ) -> None:
        if endpoint["host"] == box_endpoint.NOWHERE:
            return
        names = list(self._vars.get("ansible_play_hosts_all", []))
        table = FixedEndpoints(store, this_run(), names, lambda: self._fixed_endpoints(names))
        place = box_endpoint.place(endpoint["host"], self._value("platform_kind"), self._value("platform_data_dir"))
        sharing = table.sharing(box, place, endpoint["port"], fixed)
        sharing += box_endpoint.listed_at(listing.boxes, project, box, endpoint, names)
        box_endpoint.refuse_shared_machine(box, endpoint, sharing)

    def _fixed_endpoints(self, names: list[str]) -> Iterator[tuple[str, str, Any]]:
        """Name, host and port of the boxes that are where the inventory says."""
        every = self._vars.get("hostvars", {})
        for name, known in ((name, every[name]) for name in names if name in every):
            if known.get("platform_driver") == "":
                host, kind = known.get("ansible_host", name), known.get("platform_kind")
                place = box_endpoint.place(host, kind, known.get("platform_data_dir"))
                yield name, place, known.get("ansible_port", 22)

    # -- no API --------------------------------------------------------------------------------------------------

    def _believe_inventory(
        self, params: dict[str, Any], store: StateStore, project: str, box: str, profile: dict[str, Any]
    ) -> dict[str, Any]:
        host = self._value("ansible_host") or self._vars["inventory_hostname"]
        user = self._value("ansible_user") or ""
        settings = _ssh_settings(str(host))
        port = self._value("ansible_port") or settings.get("port", 22)
        wanted = params["generation"] if params["generation"] is not None else self._value("tenant_generation")
        generation = box_endpoint.generation_without_provider(
            store, project, box, None if wanted is None else int(wanted), str(self._value("tenant_results_dir") or "")
        )
        proxy = any(settings.get(name, "none") != "none" for name in ("proxyjump", "proxycommand"))
        known_as = ""
        if machine_mark.identity_wanted(profile.get("platform_instance_id")):
            known_as = machine_mark.lasting_id(store.read_box(project, box, generation) or {})
        endpoint = box_endpoint.from_inventory(
            box, host, port, user, profile.get("platform_python") or "", generation, proxy, known_as
        )
        # ssh's own configuration may know the proxy by another name.
        ssh_proxies.mark(endpoint, profile, [host, settings.get("hostname")])
        return endpoint

    # -- a market ------------------------------------------------------------------------------------------------

    def _ask_provider(
        self, driver: str, params: dict[str, Any], store: StateStore, project: str, box: str, profile: dict[str, Any]
    ) -> tuple[dict[str, Any], Listing]:
        client = self._client(driver, params)
        account = markets.MARKETS[driver](client, store, read_only=True)
        shared = ProviderList(store, driver, f"{client.base_url}\n{client.key}")

        def endpoint(listing: Listing) -> dict[str, Any]:
            python, user = profile.get("platform_python") or "", profile.get("platform_ssh_user") or "root"
            found = box_endpoint.from_provider(listing.boxes, project, box, python, user)
            ssh_proxies.mark(found, profile, [found["host"]])
            return found

        asked_at = time.time()
        listing = shared.get(account.listed, asked_at - (0.0 if params["refresh"] else params["max_age_s"]))
        found = endpoint(listing)
        if box_endpoint.differs_from_record(store, project, box, found):
            # Absence needs the provider's word twice, and a box made a moment ago may not be in a shared list yet.
            listing = shared.get(account.listed, time.time())
            found = endpoint(listing)
        return found, listing

    def _client(self, driver: str, params: dict[str, Any]) -> RestClient[Any]:
        def value(name: str) -> Any:
            return params.get(name.removeprefix(f"{driver}_")) or self._value(name)

        return markets.client_of(driver, value, timeout_s=float(params["api_timeout_s"]))


def _ssh_settings(host: str) -> dict[str, str]:
    """What the controller's ssh configuration says of ``host``; empty when it cannot be asked. Connects to nothing."""
    if host.startswith("-"):
        return {}
    try:
        done = subprocess.run(["ssh", "-G", "--", host], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = [line.split(" ", 1) for line in done.stdout.splitlines() if " " in line]
    return {pair[0]: pair[1] for pair in pairs} if done.returncode == 0 else {}


def _warnings(box: str, endpoint: dict[str, Any]) -> list[str]:
    found = []
    if endpoint["problem"]:
        found.append(f"{box}: {endpoint['problem']}; it is not connected to")
    if endpoint["superseded"]:
        ids = ", ".join(old["provider_id"] for old in endpoint["superseded"])
        found.append(f"{box}: superseded machines of it are still rented and bill: {ids}")
    if endpoint["proxy_instead"]:
        found.append(
            f"{box}: {endpoint['host']} is its platform's ssh proxy, through which no large file goes: "
            f"{endpoint['proxy_instead']}"
        )
    return found


def _config(box: str, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=box, safe="nothing was connected to or rented", fix=fix)


def _without_boxes(box: str) -> TenantFailure:
    return TenantFailure(
        "config",
        "its platform has no boxes: a run is a Job there",
        box=box,
        safe="nothing was connected to, and nothing was made",
        fix="render the run with `gpu-tenant export RUN --to kubernetes --image IMAGE --output FILE`, apply it, and "
        "see what has become of it with the module tenant.gpu.kubernetes_job",
    )

# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a rental market: its boxes, as their provider lists them. A plugin says which market it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.inventory.helpers import get_group_vars
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.display import Display
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, platform_groups
from ansible_collections.tenant.gpu.plugins.module_utils import listed_boxes as hosts
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rental_options import client_of
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import RestClient
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

UNDECLARED = "tenant_undeclared"
UNSTAMPED = "tenant_unstamped"
_OPTIONS = ("api_url", "api_key_file", "api_timeout_s", "api_retry_s")
display = Display()


class RentedInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """What the inventory plugins of rental markets share."""

    # The market's driver, and so its platform group and the end of a source's name; how people call it; the variable.
    DRIVER = ""
    MARKET = ""
    VARIABLE = ""
    CLIENT: type[RestClient[Any]]
    SHOWN: hosts.Shown

    def verify_file(self, path: str) -> bool:
        ends = (f"{self.DRIVER}.yml", f"{self.DRIVER}.yaml")
        return super().verify_file(path) and os.path.basename(path).endswith(ends)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self._platforms = _platform_groups(inventory)
        self.inventory = Guarded(inventory, self._platforms)
        self._group_names: dict[str, str] = {}
        self._safe_names: dict[str, str] = {}
        state_dir = self.get_option("state_dir")
        self._store = StateStore(state_dir) if state_dir else None
        try:
            options = {name: self.get_option(name) for name in _OPTIONS}
            answer = self._answer(client_of(self.CLIENT, options), path, cache)
        except TenantFailure as failure:
            raise AnsibleParserError(f"{path}: {failure}") from failure
        self._observed_at = answer["observed_at"]
        self._show(hosts.sort_out(answer["boxes"], self._declaring_hosts(answer["boxes"])))

    def _answer(self, client: RestClient[Any], path: str, cache: bool) -> dict[str, Any]:
        """What the provider said, now or within the cache's time."""
        keeps = self.get_option("cache")
        key = self.get_cache_key(path)
        if keeps and cache:
            try:
                known = self._cache[key]
            except KeyError:
                known = None
            if hosts.is_usable(known, client) and (known["boxes"] or self.get_option("allow_empty")):
                return known
        answer = hosts.ask(client, self.SHOWN, self.get_option("allow_empty"), self._store)
        if keeps:
            self._cache[key] = answer
        return answer

    # -- who declares what ---------------------------------------------------------------------------------------

    def _declaring_hosts(self, rows: Iterable[hosts.Row]) -> dict[str, str]:
        """The project of each known host that has a box's name and may be one of this market."""
        known = self.inventory.hosts
        if not known:
            display.warning(
                f"{self.NAME}: no source that was read before this one declares any host, so every box counts as "
                "undeclared; name this source after the one that declares the boxes"
            )
        named = sorted({row["name"] for row in rows if row.get("name") in known})
        groups: dict[frozenset[str], dict[str, Any]] = {}
        # One question for all: most teams have no host_vars, and a thousand questions cost a quarter of a second.
        have_files = bool(self._from_sources([known[name] for name in named]))
        found = {}
        for name in named:
            variables = self._variables(known[name], groups, have_files)
            if self._is_elsewhere(name, variables):
                display.warning(
                    f"{name}: a box on {self.MARKET} has this name, but the inventory has it on another platform"
                )
            else:
                found[name] = self.get_option("project") or self._project(name, variables)
        return found

    def _variables(self, host: Any, groups: dict[frozenset[str], dict[str, Any]], have_files: bool) -> dict[str, Any]:
        """The host's variables by the sources read so far; those of its groups are read once for all hosts alike.

        :param have_files: whether any host has variables beside the inventory sources, in host_vars.
        """
        members = frozenset(group.name for group in host.get_groups())
        if members not in groups:
            # Ansible makes every host a member of "all" only when the last source has been read.
            listed = [self.inventory.groups["all"], *host.get_groups()]
            groups[members] = combine_vars(get_group_vars(listed), self._from_sources(listed))
        own = combine_vars(host.get_vars(), self._from_sources([host])) if have_files else host.get_vars()
        return combine_vars(groups[members], own)

    def _from_sources(self, entities: list[Any]) -> dict[str, Any]:
        """What group_vars and host_vars beside the sources read so far say of these."""
        sources = list(self.inventory.processed_sources)
        return dict(get_vars_from_inventory_sources(self.loader, sources, entities, "all"))

    def _project(self, name: str, variables: dict[str, Any]) -> str:
        project = variables.get("tenant_project")
        if not _is_plain(project):
            self.templar.available_variables = variables
            project = self.templar.template(project)
        if not project:
            raise AnsibleParserError(
                f"{name} has the name of a box on {self.MARKET}, but no tenant_project to say whether it is that one. "
                "Fix: set tenant_project in group_vars/all.yml of a source that is read before this one, or project "
                "here."
            )
        return str(project)

    def _is_elsewhere(self, name: str, variables: dict[str, Any]) -> bool:
        driver = variables.get("platform_driver")
        if driver is not None:
            return bool(str(driver) != self.DRIVER)
        return bool(self._platforms.intersection(_groups_of(self.inventory.hosts[name])) - {self.DRIVER})

    # -- what the inventory shows --------------------------------------------------------------------------------

    def _show(self, found: hosts.Sorted) -> None:
        self.inventory.add_group(UNDECLARED)
        for name, row in found.declared.items():
            runs = self._runs(row)
            self._set(name, dict(row, declared=True, runs=runs))
            self._group(name, row, runs)
            self._construct(name)
        for row in found.undeclared:
            name = self._add(hosts.undeclared_name(row), UNDECLARED)
            for variable, value in hosts.connection_of(row, self._store).items():
                self.inventory.set_variable(name, variable, value)
            self._set(name, dict(row, declared=False, runs=self._runs(row)))
            self._construct(name)
        for row in found.strangers if self.get_option("unstamped") else []:
            name = self._add(hosts.stranger_name(row), UNSTAMPED)
            self.inventory.set_variable(name, "ansible_host", box_endpoint.NOWHERE)
            self._set(name, dict(row, declared=False, untouchable=True))
            self._construct(name)

    def _runs(self, row: hosts.Row) -> list[str]:
        return hosts.runs_on(self._store, row) if self._store else []

    def _add(self, name: str, group: str) -> str:
        self.inventory.add_group(group)
        self.inventory.add_host(name, group=group)
        return name

    def _set(self, name: str, values: dict[str, Any]) -> None:
        # To the host itself: the inventory's own set_variable copies and tags every leaf, a third of the time of a
        # large list, and these are plain JSON values that nobody changes later. Untagged text is no template.
        self.inventory.hosts[name].set_variable(self.VARIABLE, dict(values, observed_at=self._observed_at))

    def _group(self, name: str, row: hosts.Row, runs: Iterable[str]) -> None:
        parts = [("platform", self.DRIVER), ("state", row["state"]), ("project", row["project"])]
        for kind, value in [*parts, *(("run", run) for run in runs)]:
            wanted = f"tenant_{kind}_{value}"
            if wanted not in self._safe_names:
                self._safe_names[wanted] = self._sanitize_group_name(wanted)
            group = self._safe_names[wanted]
            if self._group_names.setdefault(group, wanted) != wanted:
                raise AnsibleParserError(
                    f"{wanted} and {self._group_names[group]} would be one group, {group}. Fix: rename one of the two."
                )
            self.inventory.add_group(group)
            self.inventory.add_child(group, name)

    def _construct(self, name: str) -> None:
        if not any(self.get_option(part) for part in ("compose", "groups", "keyed_groups")):
            return
        strict = self.get_option("strict")
        variables = self.inventory.hosts[name].get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), {}, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, name, strict=strict)


class Guarded:
    """The inventory, except that no host comes into a platform group: only the team's own sources say that."""

    def __init__(self, inventory: Any, platforms: set[str]) -> None:
        self._inventory = inventory
        self._platforms = platforms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inventory, name)

    def add_host(self, host: str, group: str | None = None, port: Any = None) -> Any:
        if group is not None and host in self._inventory.hosts:
            self._refuse_platform(group, [self._inventory.hosts[host]])
        elif group is not None:
            self._refuse_platform(group, [None])
        return self._inventory.add_host(host, group=group, port=port)

    def add_child(self, group: str, child: str) -> Any:
        members = self._inventory.groups[child].get_hosts() if child in self._inventory.groups else []
        self._refuse_platform(group, [self._inventory.hosts[child]] if child in self._inventory.hosts else members)
        return self._inventory.add_child(group, child)

    def _refuse_platform(self, group: str, members: Iterable[Any]) -> None:
        target = self._inventory.groups[group]
        if not target.parent_groups and group not in self._platforms:
            return
        platforms = self._platforms.intersection([group, *(ancestor.name for ancestor in target.get_ancestors())])
        if any(platforms - _groups_of(host) for host in members):
            raise AnsibleParserError(
                f"a host of this source would come into the platform group {', '.join(sorted(platforms))} by {group}, "
                "which only the team's own inventory may say. Fix: change groups and keyed_groups of this source."
            )


def _platform_groups(inventory: Any) -> set[str]:
    """The names of all platform groups, whether or not the source that declares them was read yet."""
    shipped = platform_groups.profile_files(platform_groups.shipped_profiles_dir(__file__))
    told = inventory.groups["all"].get_vars().get(platform_groups.PLATFORM_GROUPS_VARIABLE, [])
    return {platform_groups.group_name(file) for file in shipped} | {str(name) for name in told}


def _is_plain(value: Any) -> bool:
    """Whether this is text that no templating could change."""
    return isinstance(value, str) and "{" not in value


def _groups_of(host: Any) -> set[str]:
    return set() if host is None else {group.name for group in host.get_groups()}

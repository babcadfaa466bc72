# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402 - ansible-test wants the documentation before the imports
from __future__ import annotations

DOCUMENTATION = r"""
name: profiles
short_description: Platform profiles as inventory groups
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Declares one inventory group per platform profile (C(vast), C(autodl), C(ssh), ...) and gives it the profile's
    variables.
  - The variables are I(inventory source) group variables, the lowest precedence that Ansible has. Any C(group_vars/) or
    C(host_vars/) of a team wins over them, in whatever order the inventories are named, and so does a variable that
    another inventory source has already set on the same group.
  - Each profile is validated; an error names the file, the line, the key and what to write instead.
  - The list of platform groups is set on the group C(all) as C(tenant_platform_groups), so that a box in two of them is
    noticed.
notes:
  - Keep the source file out of the folder that holds this collection's own C(group_vars/). Ansible reads a
    C(group_vars/) folder beside an inventory source too, and with a higher precedence than a team's
    C(group_vars/all.yml). It belongs into the team's own inventory folder.
options:
  plugin:
    description: Token that ensures this is a source file for the plugin.
    required: true
    type: str
    choices: [tenant.gpu.profiles]
  path:
    description:
      - Folder with a team's own profiles, one YAML file per platform, relative to the source file.
      - A file with the name of a shipped profile replaces that profile as a whole.
    type: str
  shipped:
    description: Whether the profiles that come with the collection are declared.
    type: bool
    default: true
"""

EXAMPLES = r"""
# inventory/profiles.yml, all that a team needs
plugin: tenant.gpu.profiles

---
# the team's own platforms beside the shipped ones
plugin: tenant.gpu.profiles
path: platforms
"""

import datetime
import os
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.template import trust_as_template
from ansible.utils.display import Display
from ansible_collections.tenant.gpu.plugins.module_utils import platform_groups, profile_rules
from ansible_collections.tenant.gpu.plugins.module_utils.schema_check import is_template
from ansible_collections.tenant.gpu.plugins.module_utils.yaml_lines import Lines
from yaml import YAMLError

VERIFIED = "platform_verified"
PLATFORM_GROUPS = platform_groups.PLATFORM_GROUPS_VARIABLE
display = Display()


class InventoryModule(BaseInventoryPlugin):
    NAME = "tenant.gpu.profiles"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and os.path.basename(path).endswith(("profiles.yml", "profiles.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        files = self._profile_files(path)
        profiles = {group: self._load(file, group) for group, file in files.items()}
        for group, profile in profiles.items():
            self._declare(group, profile)
        self._remember_groups(sorted(profiles))
        self._remember_stale(files, profiles)
        self._refuse_two_platforms()

    def _profile_files(self, source: str) -> dict[str, str]:
        """Path of each profile by its group; a team's file stands in for a shipped one of the same name."""
        folders = []
        if self.get_option("shipped"):
            shipped = platform_groups.shipped_profiles_dir(__file__)
            _warn_when_read_twice(source, shipped)
            folders.append(shipped)
        if self.get_option("path"):
            own = os.path.expanduser(self.get_option("path"))
            folders.append(os.path.join(os.path.dirname(os.path.abspath(source)), own))
        files = {}
        for folder in folders:
            try:
                found = platform_groups.profile_files(folder)
            except OSError as error:
                raise AnsibleParserError(
                    f"cannot read the folder of platform profiles {folder}: {error.strerror}. "
                    f"Fix: correct `path` in {source}, it is relative to that file."
                ) from error
            files.update({platform_groups.group_name(file): file for file in found})
        if not files:
            raise AnsibleParserError(f"{source} declares no platform profile: set `path` or `shipped: true`.")
        return files

    def _load(self, file: str, group: str) -> dict[str, Any]:
        """The profile in ``file``; its strings stay templates because a person wrote them."""
        try:
            profile = self.loader.load_from_file(file, cache="none", unsafe=True, trusted_as_template=True)
        except Exception as error:
            raise AnsibleParserError(f"{file} is not readable as YAML: {error}") from error
        problems = profile_rules.problems_as_written(profile, group)
        if problems:
            places = _lines(file)
            raise AnsibleParserError("\n".join(one.sentence(_place(file, places, one.key)) for one in problems))
        return dict(profile)

    def _declare(self, group: str, profile: dict[str, Any]) -> None:
        self.inventory.add_group(group)
        known = self.inventory.groups[group].get_vars()
        for key, value in profile.items():
            # An earlier source has said it inline for this very group: that is the team speaking.
            if key not in known:
                self.inventory.set_variable(group, key, value)

    def _remember_groups(self, groups: list[str]) -> None:
        known = self.inventory.groups["all"].get_vars().get(PLATFORM_GROUPS, [])
        # The schema allows letters, digits and _ in these names, so trusting them is safe.
        names = [trust_as_template(str(group)) for group in sorted(set(known) | set(groups))]
        self.inventory.set_variable("all", PLATFORM_GROUPS, names)

    def _remember_stale(self, files: dict[str, str], profiles: dict[str, dict[str, Any]]) -> None:
        """For box_locate to warn of where a box is on such a platform: which are, only the other sources say."""
        today = datetime.datetime.now(datetime.UTC).date()
        told = {}
        for group, profile in profiles.items():
            verified = profile[VERIFIED]
            if not is_template(verified) and profile_rules.months_old(verified, today) > profile_rules.FRESH_MONTHS:
                told[group] = profile_rules.stale(verified, today, _place(files[group], _lines(files[group]), VERIFIED))
        self.inventory.set_variable("all", platform_groups.STALE_VARIABLE, told)

    def _refuse_two_platforms(self) -> None:
        """Hosts of the sources read so far; box_locate asks again when every source has been read."""
        platforms = self.inventory.groups["all"].get_vars()[PLATFORM_GROUPS]
        members: dict[str, list[str]] = {}
        for group in platforms:
            if group in self.inventory.groups:
                for host in self.inventory.groups[group].get_hosts():
                    members.setdefault(host.name, []).append(group)
        for host, groups in sorted(members.items()):
            try:
                platform_groups.check_one_platform(groups, platforms)
            except platform_groups.PlatformError as error:
                raise AnsibleParserError(f"{host}: {error.what}. Fix: {error.fix}.") from error


def _lines(file: str) -> Lines | None:
    """Where each key of a file stands, if it can be told."""
    try:
        with open(file, encoding="utf-8") as stream:
            return Lines(stream.read())
    except (OSError, ValueError, YAMLError):
        # An encrypted file, for one, is read by Ansible alone.
        return None


def _place(file: str, lines: Lines | None, key: str) -> str:
    return file if lines is None else f"{file}:{lines.line_of(key)}"


def _warn_when_read_twice(source: str, shipped: str) -> None:
    beside = os.path.join(os.path.dirname(os.path.abspath(source)), "group_vars")
    if os.path.realpath(beside) == os.path.realpath(shipped):
        display.warning(
            f"{source} lies beside the profiles themselves, so Ansible reads them a second time as group_vars, "
            "which beat a team's group_vars/all. Keep the two-line file in the folder of your own inventory."
        )

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which inventory groups are platforms, where their profiles lie, and the one platform that a box belongs to."""

from __future__ import annotations

import os

PLATFORM_GROUPS_VARIABLE = "tenant_platform_groups"
# What to tell of each platform whose facts nobody has checked for long.
STALE_VARIABLE = "tenant_stale_platforms"
EXTENSIONS = (".yml", ".yaml")


class PlatformError(ValueError):
    """A box belongs to no platform group or to several; ``fix`` says what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def check_one_platform(host_groups: list[str], platform_groups: list[str]) -> str:
    """The one platform group that a host is in; :class:`PlatformError` for none or several."""
    found = sorted(set(host_groups) & set(platform_groups))
    if len(found) == 1:
        return found[0]
    if found:
        raise PlatformError(
            f"the box is in {len(found)} platform groups: {', '.join(found)}",
            "a box is bound to one platform for ever: keep it in one of them and give the other machine its own name",
        )
    raise PlatformError(
        "the box is in no platform group",
        f"put it into one of: {', '.join(sorted(platform_groups)) or 'none (enable tenant.gpu.profiles)'}",
    )


def shipped_profiles_dir(plugin_file: str) -> str:
    """The collection's own profiles, seen from a file in ``plugins/<kind>/``."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(plugin_file))))
    return os.path.join(root, "inventories", "profiles", "group_vars")


def profile_files(folder: str) -> list[str]:
    """Paths of the profiles in a folder, sorted by name. OSError when it is not one."""
    names = [name for name in os.listdir(folder) if name.endswith(EXTENSIONS) and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names)]


def group_name(path: str) -> str:
    """The inventory group of a profile file: its stem."""
    return os.path.splitext(os.path.basename(path))[0]

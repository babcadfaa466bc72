# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant init``: a small inventory to start from. It never overwrites a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName, check_name
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.playbooks import collections_folder

_PROFILES = "plugin: tenant.gpu.profiles\n"

_HOSTS = """\
---
# One line per box; the group is the platform that it is rented from, for ever.
{platform}:
  hosts:
    {box}:
"""

_ALL = """\
---
# Goes into the label of every box, so that each is found again from the provider alone.
tenant_project: {project}
# Receipts, approvals, box records and the journal. Must outlive this machine if the results are to.
tenant_state_dir: ~/.local/state/gpu-tenant/{project}
# Where results come home.
tenant_results_dir: "{{{{ tenant_state_dir }}}}/results"
"""

_PLATFORM = """\
---
# The most that one box may cost, in USD per hour, disk included: your consent to rent.
provision_price_cap: 0.50
# The most that all boxes of the project may cost together, in USD per hour.
# provision_budget_per_hour: 2.00
# A file that holds the API key and nothing else; the environment variable VAST_API_KEY works too.
# vast_api_key_file: ~/.config/vastai/vast_api_key
# The key pair that opens the boxes.
provision_ssh_public_key_file: ~/.ssh/id_ed25519.pub
ansible_ssh_private_key_file: ~/.ssh/id_ed25519
"""

_CONFIG = """\
# Read by Ansible, and by gpu-tenant, when started in this folder.
[defaults]
inventory = inventory
forks = 25
gathering = explicit
inject_facts_as_vars = false
host_key_checking = true

[connection]
pipelining = true

[ssh_connection]
ssh_args = -C -o ControlMaster=auto -o ControlPersist=10m
"""


def files(project: str, platform: str, box: str) -> dict[str, str]:
    """The files of a new team folder by relative path. TenantFailure for a name that cannot be one."""
    try:
        names = {"project": check_name("project", project), "box": check_name("box", box)}
    except UnsafeName as error:
        raise TenantFailure("config", str(error), safe="nothing was written", fix="choose another name") from error
    if platform not in platforms():
        known = ", ".join(platforms())
        raise TenantFailure(
            "config", f"there is no platform {platform!r}", safe="nothing was written", fix=f"choose one of {known}"
        )
    return {
        "ansible.cfg": _CONFIG,
        "inventory/profiles.yml": _PROFILES,
        "inventory/hosts.yml": _HOSTS.format(platform=platform, **names),
        "inventory/group_vars/all.yml": _ALL.format(**names),
        f"inventory/group_vars/{platform}.yml": _PLATFORM,
    }


def platforms() -> list[str]:
    """The platforms that the collection has a profile of."""
    folder = Path(collections_folder(), "ansible_collections/tenant/gpu/inventories/profiles/group_vars")
    return sorted(path.stem for path in folder.glob("*.yml"))


def write(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write the files; refuse, before writing any, when one of them exists."""
    paths = {folder / name: text for name, text in contents.items()}
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise TenantFailure(
            "config",
            f"already there: {', '.join(existing)}",
            safe="nothing was written",
            fix="choose another folder, or move those files away",
        )
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    return list(paths)

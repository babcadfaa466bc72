# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant init``: an inventory and a run spec to start from. It never overwrites a file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName, check_name
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS

from gpu_tenant.decide import RUNG_SHARE
from gpu_tenant.detect import API_KEY_FILES, Detected
from gpu_tenant.playbooks import collections_folder

_PROFILES = "plugin: tenant.gpu.profiles\n"

_HOSTS = """\
---
# One line per box; the group is the platform that it is rented from, for ever.
{platform}:
  hosts:
    {box}:
{address}"""

# The collection cannot rent there: a person does, and says where the machine is.
_ADDRESS = """\
      # Where it is, as its provider says it; both are new whenever it is made anew.
      ansible_host: {box}.invalid
      ansible_port: 22
"""

_ALL = """\
---
# Goes into the label of every box, so that each is found again from the provider alone.
tenant_project: {project}
# Receipts, approvals, box records and the journal. Must outlive this machine if the results are to.
tenant_state_dir: ~/.local/state/gpu-tenant/{project}
# Where results come home.
tenant_results_dir: "{{{{ tenant_state_dir }}}}/results"
{run}"""

_RUN_LINE = """\
# What the boxes train, for watch and for commands without --run.
tenant_run: "{{{{ inventory_dir }}}}/../{path}"
"""

_RENTED = """\
---
# The most that one box may cost, in USD per hour, disk included: your consent to rent.
provision_price_cap: {price_cap}
# The most that all boxes of the project may cost together, in USD per hour.
# provision_budget_per_hour: 2.00
# And in all, in USD: nothing is rented beyond it, and go and watch warn before.
# tenant_budget_usd: 50.00
{account}
# The key pair that opens the boxes.
provision_ssh_public_key_file: {ssh_key}.pub
ansible_ssh_private_key_file: {ssh_key}
"""

_KEY = """\
# A file that holds the API key and nothing else; the environment variable {variable} works too.
{key}"""

_CHAIN = """\
# Where to rent. Credentials come by AWS's own chain: this profile of ~/.aws/config, the environment, or a role.
{driver}_region: us-east-1
{driver}_profile: ''"""

_BY_HAND = """\
---
# The key that opens the boxes; its public half has to be there already.
ansible_ssh_private_key_file: {ssh_key}
"""

_RUN = """\
---
# One training job. Relative paths are relative to this file; unknown keys are refused.
id: {name}
# What is copied to the box, relative to this file.
code:
  path: {code}
  exclude: [inventory, {runs}]
# A leading `python` stands for the box's own interpreter.
command: [python, {script}]
{requirements}# What must come home and be verified before a box may be destroyed: globs below TENANT_OUTPUT_DIR.
artifacts:
{artifacts}tracker: {tracker}
{secrets}# Cap on the money of this run; no box is rented that does not fit.
budget:
  usd: {budget}
  # From this share of it on you are warned, and so much may each rung of a recovery cost.
  # warn_at: 0.8
  # rung_usd: {rung_usd}
deadline_s: 86400
"""

_CHECKPOINTS = """\
  - glob: checkpoints/step-*.pt
    role: checkpoint
    loader: torch
"""
# The script does not say what it writes: all of it comes home, and its hashes are what is verified.
_EVERYTHING = """\
  - glob: "**"
    role: checkpoint
    loader: none
"""

RUNS = "runs"
_IGNORED = """\
# What the runner keeps here while it works.
.tenant/
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


@dataclass(frozen=True)
class Wanted:
    """What a person said; the rest is detected or a default."""

    project: str
    platform: str = "vast"
    box: str = "box-1"
    price_cap: float = 0.5


def files(folder: Path, wanted: Wanted, found: Detected) -> dict[str, str]:
    """The files of a new team folder by relative path. TenantFailure for a name that cannot be one."""
    try:
        names = {"project": check_name("project", wanted.project), "box": check_name("box", wanted.box)}
    except UnsafeName as error:
        raise TenantFailure("config", str(error), safe="nothing was written", fix="choose another name") from error
    driver = driver_of(wanted.platform)
    address = "" if driver else _ADDRESS.format(box=wanted.box)
    run = run_files(folder, found, wanted.price_cap)
    line = "".join(_RUN_LINE.format(path=path) for path in run)
    return {
        "ansible.cfg": _CONFIG,
        ".gitignore": _IGNORED,
        "inventory/profiles.yml": _PROFILES,
        "inventory/hosts.yml": _HOSTS.format(platform=wanted.platform, address=address, **names),
        "inventory/group_vars/all.yml": _ALL.format(run=line, **names),
        f"inventory/group_vars/{wanted.platform}.yml": _platform(wanted, found, driver),
        **run,
    }


def _platform(wanted: Wanted, found: Detected, driver: str) -> str:
    ssh_key = found.ssh_key or "~/.ssh/id_ed25519"
    if not driver:
        return _BY_HAND.format(ssh_key=ssh_key)
    return _RENTED.format(
        price_cap=f"{wanted.price_cap:.2f}", account=_account(driver, found.api_key_file), ssh_key=ssh_key
    )


def _account(driver: str, key_file: str) -> str:
    """The lines that name the account."""
    if not key_variable(driver):
        return _CHAIN.format(driver=driver)
    key = f"{driver}_api_key_file: {key_file or usual_key_file(driver)}"
    return _KEY.format(variable=key_variable(driver), key=key if key_file else f"# {key}")


def key_variable(driver: str) -> str:
    """The environment variable that a market's key may be in; empty where it is not one key."""
    return MARKETS[driver].CLIENT.KEY_VARIABLE


def usual_key_file(driver: str) -> str:
    """Where the market's own client keeps the key, else a place for it."""
    return next(iter(API_KEY_FILES.get(driver, ())), f"~/.config/{driver}/api_key")


def run_files(folder: Path, found: Detected, price_cap: float) -> dict[str, str]:
    """The run spec for the script that was found; none without one."""
    if found.script is None:
        return {}
    name = found.script.stem if found.script.stem not in ("main", "run") else found.script.resolve().parent.name
    try:
        name = check_name("run id", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
    except UnsafeName:
        name = "train"
    code = os.path.relpath(found.script.resolve().parent, (folder / RUNS).resolve())
    wandb = found.tracker == "wandb"
    tracker = "{name: wandb, mode: offline}" if wandb and not found.wandb_key else found.tracker
    return {
        f"{RUNS}/{name}.yml": _RUN.format(
            name=name,
            code=json.dumps(code),
            runs=RUNS,
            script=json.dumps(found.script.name),
            requirements="requirements: requirements.txt\n" if found.requirements else "",
            artifacts=_CHECKPOINTS if found.uses_helper else _EVERYTHING,
            tracker=tracker,
            secrets="secrets: [WANDB_API_KEY]\n" if wandb and found.wandb_key else "",
            # A day at the cap is more than most first runs need, and a limit in any case.
            budget=f"{24 * price_cap:.2f}",
            rung_usd=f"{RUNG_SHARE * 24 * price_cap:.2f}",
        )
    }


def platforms() -> list[str]:
    """The platforms that the collection has a profile of."""
    return sorted(_profiles())


def driver_of(platform: str) -> str:
    """The driver that rents on a platform; empty where a person does. TenantFailure for no platform of ours."""
    profiles = _profiles()
    if platform not in profiles:
        what, fix = f"there is no platform {platform!r}", f"choose one of {', '.join(sorted(profiles))}"
        raise TenantFailure("config", what, safe="nothing was written", fix=fix)
    return str(yaml.safe_load(profiles[platform].read_text(encoding="utf-8"))["platform_driver"])


def _profiles() -> dict[str, Path]:
    folder = Path(collections_folder(), "ansible_collections/tenant/gpu/inventories/profiles/group_vars")
    return {path.stem: path for path in folder.glob("*.yml")}


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

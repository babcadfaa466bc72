# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which boxes a limit names, and what the inventory says of them, templated by Ansible itself.

Ansible's loaders change the import system of the process they run in, so they run in a child:
``python -m gpu_tenant.hosts`` reads a request from stdin and answers with JSON. While nothing changes that the
answer came from, it is not asked again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_tenant.inventory_memory import Memory, TooMuch, digest

TIMEOUT_S = 120.0
UNDECLARED_GROUP = "tenant_undeclared"
_MARKETS = ("vast_", "runpod_", "lambda_", "paperspace_", "aws_spot_")
_PREFIXES = ("tenant_", "platform_", *_MARKETS, "kubernetes_", "provision_", "train_", "harvest_")
_SINGLE = (
    "ansible_connection",
    "ansible_host",
    "ansible_port",
    "ansible_ssh_common_args",
    "ansible_ssh_private_key_file",
    "ansible_user",
    "box_lease_from",
    "deploy_inputs_deadline_s",
)
# A box that has a driver is where its provider says, so nobody reads what Ansible would make of these.
_WITHOUT_DRIVER = ("ansible_host", "ansible_port", "ansible_ssh_common_args")
_MARK = "gpu-tenant-hosts:"


@dataclass(frozen=True)
class BoxHost:
    """One inventory host. ``undefined`` names variables that could not be templated, with Ansible's reason.

    :param groups: all that hold it, by whatever way.
    """

    name: str
    variables: Mapping[str, Any]
    undefined: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[str] = ()

    def text(self, name: str, default: str = "") -> str:
        """A variable as text; ``default`` when it is not set or empty."""
        value = self.variables.get(name)
        return default if value is None or value == "" else str(value)

    def required(self, name: str) -> str:
        """A variable that must be set. TenantFailure (``config``) naming it otherwise."""
        value = self.text(name)
        if not value:
            why = self.undefined.get(name, "it is not set")
            raise _failure(f"{name} is needed: {why}", box=self.name, fix=f"set {name} in the inventory's group_vars")
        return value


@dataclass(frozen=True)
class Inventory:
    """The boxes that a limit names, in inventory order. ``config_file`` is the ansible.cfg that Ansible found.

    :param declared: every box, and every group that holds one, whether or not the limit names it.
    """

    boxes: tuple[BoxHost, ...]
    config_file: str
    collection_paths: tuple[str, ...]
    warnings: tuple[str, ...]
    declared: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(box.name for box in self.boxes)

    @property
    def project(self) -> str:
        """The one project that all boxes belong to. TenantFailure (``config``) where there are several."""
        projects = sorted({box.required("tenant_project") for box in self.boxes})
        if len(projects) > 1:
            raise _failure(
                f"the limit names boxes of several projects: {', '.join(projects)}",
                fix="give a limit with boxes of one project",
            )
        return projects[0]


def resolve(
    limit: str,
    sources: Sequence[str] = (),
    extra_vars: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Inventory:
    """The boxes of ``limit``.

    :param sources: inventory sources as for ``ansible-playbook -i``; Ansible's configured ones when empty.
    :param extra_vars: as for ``ansible-playbook -e``.
    :raises TenantFailure: kind ``config``: nothing matches, or the inventory cannot be read.
    """
    for source in sources:
        if "," not in source and not os.path.exists(source):
            raise _failure(f"there is no inventory {source}", fix="give an existing file or folder with -i")
    request = {"limit": limit, "sources": list(sources), "extra_vars": list(extra_vars)}
    answer = _answered(request, dict(os.environ if environment is None else environment))
    if "error" in answer:
        raise _failure(str(answer["error"]), fix=str(answer.get("fix", "correct the inventory")))
    boxes = tuple(BoxHost(box["name"], box["variables"], box["undefined"], box["groups"]) for box in answer["boxes"])
    return Inventory(
        boxes,
        answer["config_file"] or "",
        tuple(answer["collection_paths"]),
        tuple(answer.get("warnings", ())),
        tuple(answer["declared"]),
    )


def _answered(request: Mapping[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    memory = Memory(request, environment)
    known = memory.answer()
    if known is not None:
        return known
    answer = _ask(json.dumps(request), environment)
    lasts = answer.pop("lasts", None)
    if lasts:
        memory.keep(answer, lasts["reads"], lasts["digest"])
    return answer


def _ask(request: str, environment: dict[str, str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gpu_tenant.hosts"],
            input=request,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        what = f"reading the inventory took more than {TIMEOUT_S:.0f} s"
        raise _failure(what, fix="look at its dynamic sources") from error
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            answer: dict[str, Any] = json.loads(line[len(_MARK) :])
            return answer
    tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
    what = f"Ansible could not read the inventory: {' '.join(tail) or done.returncode}"
    raise _failure(what, fix="see the message")


def _failure(what: str, box: str = "", fix: str = "") -> Exception:
    from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

    return TenantFailure("config", what, box=box, safe="nothing was changed", fix=fix)


# --- the child process: only from here on Ansible is imported ---


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from ansible import constants, context
    from ansible.errors import AnsibleError
    from ansible.module_utils.common.collections import ImmutableDict
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader

    context.CLIARGS = ImmutableDict(extra_vars=tuple(request["extra_vars"]), subset=None)
    init_plugin_loader()
    sources = list(request["sources"]) or list(constants.DEFAULT_HOST_LIST)
    try:
        loader = DataLoader()
        loader.set_vault_secrets(_vault_secrets(loader))
        source_files = _SourceFiles(sources, loader)
        boxes, declared, is_pure = _boxes(loader, sources, str(request["limit"]))
    except AnsibleError as error:
        return {"error": " ".join(str(error).split())}
    if not boxes:
        fix = "name a host or group of the inventory with -l; 'ansible-inventory --graph' shows them"
        return {"error": f"no box matches {request['limit']!r} in {', '.join(map(str, sources))}", "fix": fix}
    return {
        "boxes": boxes,
        "declared": declared,
        "config_file": constants.CONFIG_FILE,
        "collection_paths": [str(path) for path in constants.COLLECTIONS_PATHS],
        "lasts": source_files.unchanged() if is_pure else None,
    }


class _SourceFiles:
    """What is read, hashed before it is read."""

    def __init__(self, sources: Sequence[str], loader: Any) -> None:
        from gpu_tenant import inventory_purity

        self._reads = inventory_purity.reads(sources, os.path.abspath(loader.get_basedir()))
        self._before = self._digest()

    def unchanged(self) -> dict[str, Any] | None:
        """The paths and their hash, if it still is the one of before; None where that does not tell enough."""
        from gpu_tenant.inventory_purity import has_own_variables

        if not self._before or has_own_variables() or self._digest() != self._before:
            return None
        return {"reads": self._reads, "digest": self._before}

    def _digest(self) -> str:
        try:
            return digest(self._reads) if self._reads is not None else ""
        except TooMuch:
            return ""


def _vault_secrets(loader: Any) -> Any:
    from ansible import constants

    if not (constants.DEFAULT_VAULT_IDENTITY_LIST or constants.DEFAULT_VAULT_PASSWORD_FILE):
        # Ansible's command line takes long to load, and with nobody to ask it would find none either.
        return []
    from ansible.cli import CLI

    return CLI.setup_vault_secrets(loader, vault_ids=constants.DEFAULT_VAULT_IDENTITY_LIST, auto_prompt=False)


def _boxes(loader: Any, sources: list[str], limit: str) -> tuple[list[dict[str, Any]], list[str], bool]:
    """The boxes, all names that the inventory declares, and whether what is said of the boxes is pure and may be
    kept."""
    from ansible.inventory.manager import InventoryManager
    from ansible.vars.manager import VariableManager

    from gpu_tenant.inventory_purity import Purity, has_secret

    inventory = InventoryManager(loader=loader, sources=sources)
    manager = VariableManager(loader=loader, inventory=inventory)
    every = inventory.list_hosts(f"all:!{UNDECLARED_GROUP}")
    declared = sorted({name for host in every for name in (str(host.name), *_groups(host))})
    inventory.subset(limit or None)
    purity, is_pure, found = Purity(), True, []
    for host in inventory.list_hosts(f"all:!{UNDECLARED_GROUP}"):
        variables = manager.get_vars(host=host, include_hostvars=False)
        found.append({**_box(loader, variables, host.name), "groups": _groups(host)})
        is_pure = is_pure and purity.holds(variables) and not has_secret(found[-1]["variables"])
    return found, declared, is_pure


def _groups(host: Any) -> list[str]:
    return sorted(str(group.name) for group in host.get_groups())


def _box(loader: Any, variables: dict[str, Any], name: str) -> dict[str, Any]:
    from ansible.errors import AnsibleError
    from ansible.template import Templar

    templar = Templar(loader=loader, variables=variables)
    found: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    skipped = _WITHOUT_DRIVER if variables.get("platform_driver") else ()
    for key in sorted(set(variables).difference(skipped)):
        if key in _SINGLE or key.startswith(_PREFIXES):
            try:
                value = variables[key]
                found[key] = _plain(templar.template(value) if _may_be_template(value) else value)
            except AnsibleError as error:
                undefined[key] = " ".join(str(error).split())[:300]
    return {"name": name, "variables": found, "undefined": undefined}


def _may_be_template(value: Any) -> bool:
    """Whether Ansible could make something else of it. Most values are plain; asking Jinja for each takes seconds."""
    if isinstance(value, Mapping):
        return any(_may_be_template(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple)):
        return any(map(_may_be_template, value))
    if isinstance(value, str):
        return "{" in value
    return not (value is None or isinstance(value, (bool, int, float)))


def _plain(value: Any) -> Any:
    """``value`` without Ansible's tags, as JSON can carry it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _main() -> None:
    answer = _answer(json.loads(sys.stdin.read()))
    sys.stdout.write("\n" + _MARK + json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()

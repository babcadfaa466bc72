# SPDX-License-Identifier: MIT
"""Which role is run on a box of which platform, read from the scenarios themselves.

``matrix.py`` prints the table, ``write`` and ``check`` keep docs/molecule-matrix.md, and ``ran SCENARIO…`` compares
what the callback ``cells`` saw in the last run of these scenarios with what the table promises of them. ``names``
prints the scenarios that `make test` runs, ``names all`` those of `make molecule-all`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "molecule-matrix.md"
ROLES = ("provision", "mirrors", "deploy", "train", "harvest", "teardown")
COLLECTION = "tenant.gpu."
# The scenario that has every platform, and is no platform's own.
EVERY = "every"
SHARED = "default"
# What `make test` runs: the platforms of EVERY at once, and those whose scenarios are of another kind.
TESTED = (EVERY, "slurm", "kubernetes")

INTRODUCTION = """\
<!-- Rendered from extensions/molecule/ by `make molecule-matrix`. Edit the scenarios. -->

# Roles × platforms

Each role runs in [molecule](https://docs.ansible.com/projects/molecule/) on a container dressed as each platform, with
its users, paths, Pythons, disks, proxies and its own way to end; or, where a provider has an interface, on one that
was rented by that provider's own protocol: from the [marketplace](marketplace.md), or from a moto server that plays
EC2. The table is read from the scenarios, and each scenario fails when one of its cells did not run, or changed what it
must not.

`make molecule-all` runs all of it; `make test` runs every role on every platform once, and one platform thoroughly.
`molecule test -s NAME` in a checkout runs one.

A platform joins by a row in `inventory/hosts.yml`, what is true of its box in `inventory/group_vars/NAME.yml` and
`dress/NAME.sh` (the image is the same for all), and a folder `NAME/` with an empty `molecule.yml`. The platform
`closet` is a team's own: one YAML file in `inventory/platforms/`, which no code knows of.
"""
LEGEND = """\
- **repaired**: changed nothing when it was run again, put a damage right by exactly one change, and rested after that
- **again**: changed nothing when it was run again
- **once**: ran, and what it left was looked at
- **by a module**: the platform has no box, and each role refuses it and names `tenant.gpu.kubernetes_job`. That module
  was run instead, on a server that runs no container: it applied the Job and its claim, put a Job that was lost right,
  and deleted both, the claim through the gate. Nothing was trained or brought home there
"""


@dataclass(frozen=True)
class Visit:
    """One run of one role on one box. ``changes``: "any", "none" or "one"."""

    role: str
    host: str
    changes: str
    # No role: the platform has no box, and a module does the role's part.
    by_module: bool = False


@dataclass(frozen=True)
class Scenario:
    name: str
    # Group of each box, which is its platform.
    platforms: dict[str, str]
    visits: tuple[Visit, ...]


def settings_of(name: str) -> dict[str, Any]:
    """The configuration of a scenario, as molecule merges and interpolates it."""
    both: dict[str, Any] = {}
    for path in (HERE / "config.yml", HERE / name / "molecule.yml"):
        places = {
            "MOLECULE_SCENARIO_NAME": name,
            "MOLECULE_SCENARIO_DIRECTORY": str(HERE / name),
            "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        }
        text = string.Template(path.read_text(encoding="utf-8")).safe_substitute(places)
        both = _merged(both, yaml.safe_load(text) or {})
    return both


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in over.items():
        known = found.get(key)
        found[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return found


def names() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/molecule.yml") if path.parent.name != SHARED)


class Reader:
    """Reads the playbooks of scenarios as ansible-playbook does."""

    def __init__(self) -> None:
        os.environ.setdefault("ANSIBLE_INVENTORY_ENABLED", "tenant.gpu.profiles,ansible.builtin.yaml")
        os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "collections"))
        from ansible.parsing.dataloader import DataLoader
        from ansible.plugins.loader import init_plugin_loader

        init_plugin_loader([os.environ["ANSIBLE_COLLECTIONS_PATH"]])
        self._loader = DataLoader()
        self._inventories: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def scenario(self, name: str) -> Scenario:
        settings = settings_of(name)
        ansible = settings["ansible"]
        os.environ.update({key: str(value) for key, value in ansible["env"].items()})
        words = ansible["executor"]["args"]["ansible_playbook"]
        sources = tuple(word.removeprefix("--inventory=") for word in words if word.startswith("--inventory="))
        inventory, variables = self._inventory(sources)
        visits: list[Visit] = []
        for step in settings["scenario"]["test_sequence"]:
            again = step == "idempotence"
            book = ansible["playbooks"].get("converge" if again else step)
            if step != "check" and book:
                visits += self._visits(book, inventory, variables, "none" if again else "")
        platforms = {}
        for visit in visits:
            known = variables.get_vars(host=inventory.get_host(visit.host))
            platforms[visit.host] = str(known["platform_name"])
        return Scenario(name, platforms, tuple(visits))

    def _inventory(self, sources: tuple[str, ...]) -> tuple[Any, Any]:
        from ansible.inventory.manager import InventoryManager
        from ansible.vars.manager import VariableManager

        if sources not in self._inventories:
            inventory = InventoryManager(loader=self._loader, sources=list(sources))
            self._inventories[sources] = (inventory, VariableManager(loader=self._loader, inventory=inventory))
        return self._inventories[sources]

    def _visits(self, book: str, inventory: Any, variables: Any, changes: str) -> list[Visit]:
        from ansible.playbook import Playbook
        from ansible.template import Templar

        found = []
        for play in Playbook.load(book, variable_manager=variables, loader=self._loader).get_plays():
            templar = Templar(loader=self._loader, variables=variables.get_vars(play=play))
            wanted = changes or str(play.get_vars().get("matrix_changes", "any"))
            roles = [role.get_name().removeprefix(COLLECTION) for role in play.roles]
            part = play.get_vars().get("matrix_module", "")
            for host in inventory.get_hosts(templar.template(play.hosts)):
                found += [Visit(role, host.name, wanted) for role in roles if role in ROLES]
                found += [Visit(part, host.name, wanted, by_module=True)] if part else []
        return found


def problems(planned: Scenario, rows: list[dict[str, Any]]) -> list[str]:
    """What of a scenario's plan did not come true, in sentences."""
    found = []
    wanted: dict[tuple[str, str], list[str]] = {}
    for visit in planned.visits:
        wanted.setdefault((visit.role, visit.host), []).append(visit.changes)
    for (role, host), plans in wanted.items():
        seen = [row for row in rows if row["role"].removeprefix(COLLECTION) == role and row["host"] == host]
        cell = f"{role} on {planned.platforms[host]} ({host})"
        if len(seen) != len(plans):
            found.append(f"{cell} is listed {len(plans)} times and ran {len(seen)} times")
            continue
        for number, (changes, row) in enumerate(zip(plans, seen, strict=True), 1):
            at_most = {"none": 0, "one": 1}.get(changes)
            if at_most is not None and len(row["changed"]) != at_most:
                did = "; ".join(row["changed"]) or "nothing"
                found.append(f"run {number} of {cell} must change {changes} and changed: {did}")
    return found


def level(changes: list[str]) -> str:
    """What a cell shows, in the words of the legend."""
    for word, name in (("one", "**repaired**"), ("none", "again")):
        if word in changes:
            return name
    return "once" if changes else "-"


def cells(scenario: Scenario) -> dict[str, dict[str, str]]:
    """Level by role, of every platform of a scenario."""
    found: dict[str, dict[str, str]] = {}
    for platform in sorted(set(scenario.platforms.values())):
        ours = [visit for visit in scenario.visits if scenario.platforms[visit.host] == platform]
        found[platform] = {role: _cell([visit for visit in ours if visit.role == role]) for role in ROLES}
    return found


def _cell(visits: list[Visit]) -> str:
    said = level([visit.changes for visit in visits])
    return f"{said}, by a module" if any(visit.by_module for visit in visits) else said


def render(scenarios: list[Scenario]) -> str:
    own = [scenario for scenario in scenarios if scenario.name != EVERY]
    tested: dict[str, dict[str, str]] = {}
    for scenario in scenarios:
        tested.update(cells(scenario) if scenario.name in TESTED else {})
    lines = [INTRODUCTION, "| platform | " + " | ".join(ROLES) + " | in `make test` | box |"]
    lines.append("| --- |" + " --- |" * (len(ROLES) + 2))
    for scenario in own:
        for platform, roles in cells(scenario).items():
            ran = sum(cell != "-" for cell in tested.get(platform, {}).values())
            part = f"{ran} roles" if ran else "-"
            lines.append(
                f"| {platform} | " + " | ".join(roles.values()) + f" | {part} | {_box(scenario.name, platform)} |"
            )
    return "\n".join([*lines, "", LEGEND])


def _box(scenario: str, platform: str) -> str:
    """What the overlay of a platform, or else its own scenario, says of the box in its first comment."""
    for path in (HERE / "dress" / f"{platform}.sh", HERE / scenario / "molecule.yml"):
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        told = itertools.takewhile(lambda line: line.startswith(("#", "---")), lines)
        said = " ".join(line.lstrip("# ") for line in told if not line.startswith(("# shellcheck", "---")))
        if said:
            return (said.partition(": ")[2] or said).rstrip(".")
    return "rented from the marketplace"


def rows_of(scenario: str) -> list[dict[str, Any]]:
    path = Path(os.environ.get("MATRIX_RECORDS", str(ROOT / ".cache/molecule-ran"))) / f"{scenario}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def wrong_in(scenarios: list[str]) -> list[str]:
    """What did not come true in the last run of each scenario."""
    recorded = {name: rows_of(name) for name in scenarios}
    reader = Reader()
    return [f"{name}: {one}" for name, rows in recorded.items() for one in problems(reader.scenario(name), rows)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["show", "write", "check", "ran", "names"], default="show")
    parser.add_argument("scenarios", nargs="*")
    order = parser.parse_args(arguments)
    if order.what == "names":
        print(*([name for name in names() if name != EVERY] if order.scenarios == ["all"] else TESTED))
        return 0
    if order.what == "ran":
        wrong = wrong_in(order.scenarios)
        print("\n".join(wrong) or f"{' '.join(order.scenarios)}: every cell ran as promised")
        return 1 if wrong else 0
    reader = Reader()
    page = render([reader.scenario(name) for name in names()])
    if order.what == "show":
        print(page)
    elif order.what == "write":
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE} is out of date. Run: make molecule-matrix", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

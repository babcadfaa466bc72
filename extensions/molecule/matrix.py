# SPDX-License-Identifier: MIT
"""Which role is run on a box of which platform, read from the scenarios themselves.

``matrix.py`` prints the table, ``write`` and ``check`` keep docs/molecule-matrix.md, and ``ran SCENARIO`` compares what
the callback ``cells`` saw in that scenario's last run with what the table promises of it.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import sys
from collections import Counter
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

INTRODUCTION = """\
<!-- Rendered from extensions/molecule/ by `make molecule-matrix`. Edit the scenarios. -->

# Roles × platforms

Each role runs in [molecule](https://docs.ansible.com/projects/molecule/) on a container dressed as each platform, with
its users, paths, Pythons, disks, proxies and its own way to end; or, where a provider has an interface, on one that was
rented from the [marketplace](marketplace.md) by that provider's own protocol. The table is read from the scenarios, and
each scenario fails when one of its cells did not run, or changed what it must not.

`make molecule-all` runs all of it; `make test` runs every role on every platform once.
"""
LEGEND = """\
- **repaired**: changed nothing when it was run again, put a damage right by exactly one change, and rested after that
- **again**: changed nothing when it was run again
- **once**: ran, and what it left was looked at
"""


@dataclass(frozen=True)
class Visit:
    """One run of one role on one box. ``changes``: "any", "none" or "one"."""

    role: str
    host: str
    changes: str


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
    """Reads playbooks as ansible-playbook does, with one inventory for all of them."""

    def __init__(self) -> None:
        os.environ.setdefault("ANSIBLE_INVENTORY_ENABLED", "tenant.gpu.profiles,ansible.builtin.yaml")
        os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "collections"))
        from ansible.inventory.manager import InventoryManager
        from ansible.parsing.dataloader import DataLoader
        from ansible.plugins.loader import init_plugin_loader
        from ansible.vars.manager import VariableManager

        init_plugin_loader([os.environ["ANSIBLE_COLLECTIONS_PATH"]])
        self._loader = DataLoader()
        sources = [str(HERE / "inventory" / name) for name in ("profiles.yml", "hosts.yml")]
        self._inventory = InventoryManager(loader=self._loader, sources=sources)
        self._variables = VariableManager(loader=self._loader, inventory=self._inventory)

    def scenario(self, name: str) -> Scenario:
        settings = settings_of(name)["ansible"]
        os.environ.update({key: str(value) for key, value in settings["env"].items()})
        own, visits = settings["playbooks"], []
        for step in settings_of(name)["scenario"]["test_sequence"]:
            again = step == "idempotence"
            book = own.get("converge" if again else step)
            if step != "check" and book:
                visits += self._visits(book, "none" if again else "")
        platforms = {visit.host: self._platform(visit.host) for visit in visits}
        return Scenario(name, platforms, tuple(visits))

    def _visits(self, book: str, changes: str) -> list[Visit]:
        from ansible.playbook import Playbook
        from ansible.template import Templar

        found = []
        for play in Playbook.load(book, variable_manager=self._variables, loader=self._loader).get_plays():
            templar = Templar(loader=self._loader, variables=self._variables.get_vars(play=play))
            wanted = changes or str(play.get_vars().get("matrix_changes", "any"))
            roles = [role.get_name().removeprefix(COLLECTION) for role in play.roles]
            for host in self._inventory.get_hosts(templar.template(play.hosts)):
                found += [Visit(role, host.name, wanted) for role in roles if role in ROLES]
        return found

    def _platform(self, host: str) -> str:
        known = self._inventory.get_host(host)
        return str(self._variables.get_vars(host=known)["platform_name"])


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
        found[platform] = {role: level([visit.changes for visit in ours if visit.role == role]) for role in ROLES}
    return found


def render(scenarios: list[Scenario]) -> str:
    own = [scenario for scenario in scenarios if scenario.name != EVERY]
    every = next((cells(scenario) for scenario in scenarios if scenario.name == EVERY), {})
    lines = [INTRODUCTION, "| platform | " + " | ".join(ROLES) + " | in `make test` | box |"]
    lines.append("| --- |" + " --- |" * (len(ROLES) + 2))
    for scenario in own:
        for platform, roles in cells(scenario).items():
            counted = Counter(every.get(platform, {}).values())
            part = f"{counted.total() - counted['-']} roles" if platform in every else "-"
            lines.append(f"| {platform} | " + " | ".join(roles.values()) + f" | {part} | {_box(platform)} |")
    return "\n".join([*lines, "", LEGEND])


def _box(platform: str) -> str:
    """What the overlay of a platform says of itself in its first comment."""
    overlay = HERE / "dress" / f"{platform}.sh"
    if not overlay.exists():
        return "of the marketplace"
    said = []
    for line in overlay.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# shellcheck"):
            said.append(line.lstrip("# "))
    return " ".join(said).partition(": ")[2].rstrip(".")


def rows_of(scenario: str) -> list[dict[str, Any]]:
    path = Path(os.environ["MOLECULE_STATE"]) / scenario / "ran.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["show", "write", "check", "ran"], default="show")
    parser.add_argument("scenario", nargs="?", default="")
    order = parser.parse_args(arguments)
    if order.what == "ran":
        rows = rows_of(order.scenario)
        wrong = problems(Reader().scenario(order.scenario), rows)
        print("\n".join(wrong) if wrong else f"{order.scenario}: every cell ran as promised")
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

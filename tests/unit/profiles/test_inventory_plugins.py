# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where an ansible.cfg limits the inventory plugins, an inventory that our pages show must be read all the same."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from gpu_tenant import scaffold
from gpu_tenant.detect import Detected

ROOT = Path(__file__).resolve().parents[3]
OURS = sorted(path.stem for path in (ROOT / "plugins/inventory").glob("*.py"))


def enabled(text: str) -> list[str] | None:
    """The inventory plugins that a configuration names; None where it leaves Ansible's own choice."""
    found = configparser.ConfigParser()
    found.read_string(text)
    named = found.get("inventory", "enable_plugins", fallback=None)
    return None if named is None else [name.strip() for name in named.split(",")]


@pytest.mark.parametrize("name", OURS)
def test_a_checkout_reads_every_inventory_of_ours(name: str) -> None:
    assert f"tenant.gpu.{name}" in (enabled((ROOT / "ansible.cfg").read_text()) or [])


def test_a_team_folder_has_ansible_find_them() -> None:
    """Ansible's own choice has ``auto``, which finds a plugin by the name in the file."""
    assert enabled(scaffold.files(Path(), scaffold.Wanted("digits"), Detected())["ansible.cfg"]) is None

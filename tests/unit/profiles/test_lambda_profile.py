# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lambda's profile, and what nothing that runs on its boxes may do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import artifact_tiers, markets, profile_rules
from ansible_collections.tenant.gpu.plugins.module_utils.box import detach
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.actions import VmAccount
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import DESTROY, keeps_of

ROOT = Path(__file__).parents[3]
PROFILE: dict[str, Any] = yaml.safe_load((ROOT / "inventories/profiles/group_vars/lambda.yml").read_text())
# Where what runs on a box comes from.
ON_THE_BOX = ("roles", "plugins/module_utils/box", "playbooks")


def rendered(**variables: Any) -> dict[str, Any]:
    """The profile with its templates resolved, those of the address left out."""
    environment = jinja2.Environment()  # noqa: S701 - no page is made of it
    known = {**PROFILE, **variables}
    for key, value in known.items():
        if isinstance(value, str) and key.startswith("platform_"):
            known[key] = environment.from_string(value).render(known)
    return {key: value for key, value in known.items() if key.startswith("platform_")}


@pytest.mark.parametrize(
    ("file_systems", "kind", "path", "home"),
    [
        ([], "pull", "", "/home/ubuntu/.cache/huggingface"),
        (["results", "data"], "mount", "/lambda/nfs/results", "/lambda/nfs/results/.cache/huggingface"),
    ],
)
def test_the_first_file_system_is_the_durable_mount_and_none_means_pull(
    file_systems: list[str], kind: str, path: str, home: str
) -> None:
    profile = rendered(provision_file_systems=file_systems)
    assert profile_rules.problems_after_merge(profile, "lambda") == []
    assert [profile[f"platform_{name}"] for name in ("durable_kind", "durable_path", "hf_home")] == [kind, path, home]
    if path:
        assert artifact_tiers.tier_of(path, profile["platform_storage"]) == "file_system"


def test_it_promises_no_more_than_the_driver_knows_to_be_kept() -> None:
    verbs = PROFILE["platform_verbs"]
    assert verbs["park"] == []  # nothing stops an instance and brings it back
    by_hand = {step["verb"] for plan in verbs.values() for step in plan if step["transport"] == "console"}
    promised = keeps_of(verbs)
    assert set(promised) - by_hand == set(VmAccount.KEEPS)
    for verb, tiers in VmAccount.KEEPS.items():
        assert set(promised[verb]) <= set(tiers)
    assert "disk" not in promised[DESTROY]


def test_its_driver_is_there_and_takes_its_key_from_the_inventory(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-of-the-team\n")
    named = {"lambda_api_url": "http://127.0.0.1:1/lambda/api/v1", "lambda_api_key_file": str(key)}
    client = markets.client_of(PROFILE["platform_driver"], named.get)
    assert isinstance(client, markets.MARKETS["lambda"].CLIENT)
    assert (client.base_url, client.key) == (named["lambda_api_url"], "a-key-of-the-team")


def test_its_way_to_detach_is_one_of_ours() -> None:
    assert PROFILE["platform_detach"] in detach.METHODS


def _lines() -> list[tuple[str, str]]:
    found = []
    for folder in ON_THE_BOX:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".yml", ".j2", ".sh", ".py") and path.is_file():
                # A platform that is stopped from inside has files of its own.
                own = "autodl" not in path.name
                found += [(str(path), line) for line in path.read_text().splitlines() if own]
    return found


def test_nothing_shuts_a_box_down_from_inside() -> None:
    """LAM3: it would be in Alert, and bill on."""
    ends = re.compile(r"(?<![\w.-])(shutdown|poweroff|halt|init 0)(?![\w(-])|community\.general\.shutdown")
    lines = _lines()
    assert len(lines) > 10_000
    for command in ("sudo shutdown -h now", "  ansible.builtin.command: poweroff", "community.general.shutdown:"):
        assert ends.search(command)
    assert [(path, line) for path, line in lines if ends.search(line)] == []


def test_nothing_upgrades_the_system_of_a_box() -> None:
    """LAM11: the driver, CUDA and torch of Lambda Stack are packages."""
    upgrades = re.compile(r"(full|dist)-upgrade|apt(-get)? upgrade|^\s*upgrade:")
    assert upgrades.search("    upgrade: full")
    assert [(path, line) for path, line in _lines() if upgrades.search(line)] == []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paperspace's profile: four steps to a full stop, and a clock that the order sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import artifact_tiers, danger_clocks, markets, profile_rules
from ansible_collections.tenant.gpu.plugins.module_utils.box import detach
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.actions import MachineAccount
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.transformations import LAST_START, to_machine
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import DESTROY, STOP, keeps_of

ROOT = Path(__file__).parents[3]
PROFILE: dict[str, Any] = yaml.safe_load((ROOT / "inventories/profiles/group_vars/paperspace.yml").read_text())


def rendered(**variables: Any) -> dict[str, Any]:
    """The profile with its templates resolved, those of the address left out."""
    environment = jinja2.Environment()  # noqa: S701 - no page is made of it

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolve(one) for key, one in value.items()}
        if isinstance(value, list):
            return [resolve(one) for one in value]
        return environment.from_string(value).render(variables) if isinstance(value, str) else value

    found = {key: resolve(value) for key, value in PROFILE.items() if key.startswith("platform_")}
    found["platform_endpoint_stable"] = found["platform_endpoint_stable"] == "True"
    return found


def test_a_full_stop_has_four_steps_and_only_what_loses_data_is_gated() -> None:
    """PS1, PS9."""
    steps = PROFILE["platform_verbs"]["full_stop"]
    assert [step["verb"] for step in steps] == [
        "stop", "destroy", "release static IP", "delete snapshots and shared drives and templates",
    ]  # fmt: skip
    tiers = artifact_tiers.holding_artifacts(PROFILE["platform_storage"], [PROFILE["platform_data_dir"]])
    gated = [step["verb"] for step in steps if not artifact_tiers.keeps_every_artifact(step["keeps"], tiers)]
    assert gated == ["destroy"]
    assert [step["reversible"] for step in steps] == [True, False, False, False]
    assert steps[-1]["transport"] == "console"


def test_it_promises_no_more_than_the_driver_knows_to_be_kept() -> None:
    promised = keeps_of(PROFILE["platform_verbs"])
    for verb, tiers in MachineAccount.KEEPS.items():
        assert set(promised[verb]) <= set(tiers)
    assert "disk" not in promised[DESTROY]
    assert "disk" in promised[STOP]
    assert [step["verb"] for step in PROFILE["platform_verbs"]["park"]] == [STOP]


@pytest.mark.parametrize(("hours", "span"), [({}, "168h"), ({"provision_auto_shutdown_hours": 6}, "6h")])
def test_the_shutdown_clock_counts_from_the_start_of_the_machine(hours: dict[str, int], span: str) -> None:
    """PS2: plan says the span, status counts by what the provider tells, and an alarm goes off before it does."""
    profile = rendered(**hours)
    assert profile_rules.problems_after_merge(profile, "paperspace") == []
    clocks = profile["platform_clocks"]
    planned = [clock["text"] for clock in danger_clocks.countdown(clocks)]
    assert any(text.startswith("the provider shuts the machine down") and f"(after {span})" in text for text in planned)
    row = {"id": "m1", "state": "ready", "autoShutdownEnabled": True, "autoShutdownTimeout": int(span[:-1])}
    row[LAST_START] = since = "2026-11-21T00:00:00Z"
    now = "2026-11-21T00:10:00Z"
    counted = danger_clocks.countdown(clocks, "running", {}, now, to_machine(row).deadlines)
    (shutdown,) = [clock for clock in counted if clock["starts_at"] == "auto_shutdown"]
    assert shutdown["left_s"] == int(span[:-1]) * 3600 - 600
    off = to_machine({**row, "state": "off"}).deadlines
    resting = danger_clocks.countdown(clocks, "stopped", {"stopped": since}, now, off)
    assert [clock["left"] for clock in resting] == ["now", "now"]


def test_a_machine_that_is_never_shut_down_has_no_such_deadline() -> None:
    profile = rendered(provision_auto_shutdown_hours=0)
    assert profile_rules.problems_after_merge(profile, "paperspace") == []
    (shutdown, *_rest) = profile["platform_clocks"]
    assert danger_clocks.span_s(shutdown["after"]) is None


def test_a_static_address_is_a_stable_endpoint() -> None:
    """PS6."""
    assert rendered()["platform_endpoint_stable"] is False
    assert rendered(provision_public_ip_type="static")["platform_endpoint_stable"] is True


def test_its_driver_is_there_and_takes_its_key_from_the_inventory(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-of-the-team\n")
    named = {"paperspace_api_url": "http://127.0.0.1:1/paperspace/v1", "paperspace_api_key_file": str(key)}
    client = markets.client_of(PROFILE["platform_driver"], named.get)
    assert isinstance(client, markets.MARKETS["paperspace"].CLIENT)
    assert (client.base_url, client.key) == (named["paperspace_api_url"], "a-key-of-the-team")


def test_its_way_to_detach_is_one_of_ours() -> None:
    assert PROFILE["platform_detach"] in detach.METHODS

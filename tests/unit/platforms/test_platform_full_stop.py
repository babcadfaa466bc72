# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The full stop of every platform that is shipped is modelled: each step that may lose a result asks the gate, a driver
refuses it by itself, and what only a person can do is named in its order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import artifact_tiers, gate, hand_stop
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import DESTROY, STOP, keeps_of
from evidence_world import World as Evidence
from platform_worlds import RENTED, SHIPPED, profile_of, world_of

STEPS = [
    pytest.param(platform, number, id=f"{platform}-{number}-{step['verb'].replace(' ', '_')}")
    for platform in SHIPPED
    for number, step in enumerate(profile_of(platform)["platform_verbs"]["full_stop"])
]
# The playbooks refuse a host of Kubernetes. Its steps are kubernetes_job's, which gates the claim by itself:
# tests/unit/kubernetes/test_kubernetes_job.py.
BY_HAND = [
    name
    for name in SHIPPED
    if not profile_of(name)["platform_driver"] and profile_of(name)["platform_kind"] != "kubernetes"
]
# For ever, and no result is lost by it: a machine without its disk, an address, what the platform calls a leftover.
LOSES_NO_RESULT = {
    ("azure_spot", "az vm delete"),
    ("paperspace", "release static IP"),
    ("paperspace", "delete snapshots and shared drives and templates"),
}
# What a driver does for these verbs beside the two that every one has.
OF_THE_DRIVER = {("paperspace", "release static IP")}


@pytest.mark.parametrize("platform", SHIPPED)
def test_its_full_stop_ends_every_charge_and_what_is_for_ever_is_gated(platform: str) -> None:
    profile = profile_of(platform)
    steps = profile["platform_verbs"]["full_stop"]
    assert any(step["stops_compute"] for step in steps)
    assert any(step["stops_storage"] for step in steps)
    for step in steps:
        is_gated = not artifact_tiers.keeps_every_artifact(step["keeps"], tiers_of(profile))
        assert step["reversible"] or is_gated or (platform, step["verb"]) in LOSES_NO_RESULT, step["verb"]
    assert any(not artifact_tiers.keeps_every_artifact(step["keeps"], tiers_of(profile)) for step in steps)


@pytest.mark.parametrize(("platform", "number"), STEPS)
def test_a_step_that_loses_results_needs_receipts_and_a_named_approval(
    platform: str, number: int, tmp_path: Path
) -> None:
    profile = profile_of(platform)
    step = profile["platform_verbs"]["full_stop"][number]
    evidence = Evidence(tmp_path)
    evidence.give_receipt("r1")
    evidence.save_reading()

    def asked() -> gate.Decision:
        return evidence.decide(step["keeps"], verb=step["verb"], gated_tiers=tiers_of(profile))

    if artifact_tiers.keeps_every_artifact(step["keeps"], tiers_of(profile)):
        assert asked().rule == gate.RULE_KEEPS_DISK
        return
    assert (asked().allowed, any("approve" in missing for missing in asked().missing)) == (False, True)
    evidence.approve(verb="another verb")
    assert not asked().allowed
    evidence.approve(verb=step["verb"])
    assert (asked().allowed, asked().rule) == (True, gate.RULE_EVIDENCE_HOME)
    Path(evidence.store.receipt_path("demo", "r1", "box1", 2)).unlink()
    assert (asked().allowed, any("receipt" in missing for missing in asked().missing)) == (False, True)


@pytest.mark.parametrize("platform", RENTED)
def test_a_driver_refuses_the_end_of_a_box_by_itself(platform: str, tmp_path: Path) -> None:
    world = world_of(platform, tmp_path)
    world.rent()
    world.store.update_box("digits", world.name, 1, deploy_started_at=records.utc_now())
    with pytest.raises(TenantFailure, match="approve") as refused:
        world.begin("released")
    assert refused.value.kind == "gate_refused"
    seen = world.observer().observe(each_alone=True)[world.name]
    assert (seen.provider, seen.superseded) == ("running", ())


@pytest.mark.parametrize("platform", RENTED)
def test_every_step_of_an_interface_is_a_verb_of_its_driver(platform: str) -> None:
    profile = profile_of(platform)
    account = MARKETS[profile["platform_driver"]]
    promised = keeps_of(profile["platform_verbs"])
    for step in profile["platform_verbs"]["full_stop"]:
        if step["transport"] == "console" or (platform, step["verb"]) in OF_THE_DRIVER:
            continue
        assert step["verb"] in (STOP, DESTROY)
        assert set(promised[step["verb"]]) <= set(account.KEEPS[step["verb"]]), "promises more than is kept"
    assert step_named(profile, DESTROY)["transport"] == "api"


@pytest.mark.parametrize(
    "platform",
    [
        name
        for name in RENTED
        if any(s["transport"] == "console" for s in profile_of(name)["platform_verbs"]["full_stop"])
    ],
)
def test_what_a_person_has_to_end_beside_a_rented_box_is_listed_when_it_goes(platform: str, tmp_path: Path) -> None:
    world = world_of(platform, tmp_path)
    world.rent()
    told = world.bring("absent")
    assert "file_systems" in told or "leftovers" in told


@pytest.mark.parametrize("platform", BY_HAND)
def test_a_person_is_told_each_step_in_its_order(platform: str) -> None:
    profile = profile_of(platform)
    steps = profile["platform_verbs"]["full_stop"]
    lines = hand_stop.checklist(steps, profile["platform_storage"])
    assert len(lines) >= len(steps)
    for number, (step, line) in enumerate(zip(steps, lines, strict=False), 1):
        assert line.startswith(f"{number}. {step['verb']} ({hand_stop.BY[step['transport']]})")
        assert line.endswith("for ever") is not step["reversible"]
        for tier in step["keeps"]:
            assert tier in line


def tiers_of(profile: dict[str, Any]) -> tuple[str, ...]:
    """As the teardown playbook tells the gate."""
    folders = [profile["platform_data_dir"], profile["platform_durable_path"]]
    return artifact_tiers.holding_artifacts(profile["platform_storage"], folders)


def step_named(profile: dict[str, Any], verb: str) -> dict[str, Any]:
    (found,) = [step for step in profile["platform_verbs"]["full_stop"] if step["verb"] == verb]
    return dict(found)

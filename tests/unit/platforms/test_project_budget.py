# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One budget for all that a project rents, asked before each rent on every market, and by the same sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from platform_worlds import SHIPPED, Rented, profile_of, world_of

RENTED = [name for name in SHIPPED if profile_of(name)["platform_driver"]]
# What a box of the worlds may cost, at most.
DEAR, CHEAP = 100.0, 0.001


def rented_world(platform: str, folder: Path) -> Rented:
    world = world_of(platform, folder)
    assert isinstance(world, Rented)
    return world


def listed(world: Rented) -> int:
    return len(world.client().list_instances())


@pytest.mark.parametrize("platform", RENTED)
@pytest.mark.parametrize("check", [True, False])
def test_what_does_not_fit_is_refused_before_the_rent(platform: str, check: bool, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    with pytest.raises(TenantFailure, match="is above the budget_per_hour") as refused:
        world.bring("started", check=check, budget_per_hour=CHEAP)
    failure = refused.value
    assert (failure.kind, failure.box, listed(world)) == ("budget", world.name, 0)
    assert "destroy a box of the project, or raise budget_per_hour" in failure.fix
    assert world.bring("started", budget_per_hour=DEAR)["changed"]
    assert listed(world) == 1
    again = world.bring("started", budget_per_hour=CHEAP)
    assert not again["changed"], "it was counted when it was rented"


@pytest.mark.parametrize("platform", RENTED)
def test_what_another_market_let_to_the_project_counts(platform: str, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    elsewhere = next(name for name in RENTED if name != platform)
    facts = {"provider_id": "17", "stamp": "gt1/digits/there/g1/0123456789abcdef", "platform": elsewhere}
    world.store.update_box("digits", "there", 1, price_per_hour=DEAR, **facts)
    with pytest.raises(TenantFailure, match=rf"on top of the \${DEAR:.4f} of 1 box is above the budget_per_hour"):
        world.bring("started", budget_per_hour=DEAR + CHEAP)
    world.store.update_box("digits", "there", 1, price_per_hour=None)
    with pytest.raises(TenantFailure, match=f"what there .{elsewhere}. of the project costs is not known"):
        world.bring("started", budget_per_hour=10 * DEAR)
    assert listed(world) == 0


@pytest.mark.parametrize("platform", RENTED)
@pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_that_is_none_is_named(platform: str, budget: float, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    with pytest.raises(TenantFailure, match=r"budget_per_hour is .*, it must be above 0"):
        world.bring("started", budget_per_hour=budget)
    assert listed(world) == 0

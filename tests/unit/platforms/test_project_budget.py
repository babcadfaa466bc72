# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One budget for all that a project rents, asked before each rent on every market, and by the same sentence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.dollar_budgets import Budgets
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import RentalAccount
from platform_worlds import RENTED, Rented, world_of

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


# --- dollars of a run and of its project ---


def dollars(run: float | None = None, project: float | None = None, name: str = "digits-run") -> Budgets:
    return Budgets(name, run, project)


def cap_of(world: Rented) -> float:
    """What an hour at the cap of the world's order costs."""
    with pytest.raises(TenantFailure) as refused:
        world.bring("started", budgets=dollars(0.001))
    words = re.search(r"one more box at its price cap, \$([0-9.]+), does not fit", refused.value.what)
    assert words is not None, refused.value.what
    return float(words.group(1))


@pytest.mark.parametrize("platform", RENTED)
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("budgets", "owner", "fix"),
    [
        (
            dollars(run=0.001),
            "run digits-run has spent $0.00 of its budget of $0.00,",
            "raise budget.usd in the run spec",
        ),
        (dollars(project=0.001), "project digits has spent $0.00 of its budget", "raise tenant_budget_usd"),
    ],
)
def test_dollars_that_do_not_last_an_hour_rent_nothing(
    platform: str, check: bool, budgets: Budgets, owner: str, fix: str, tmp_path: Path
) -> None:
    world = rented_world(platform, tmp_path)
    with pytest.raises(TenantFailure) as refused:
        world.bring("started", check=check, budgets=budgets)
    failure = refused.value
    assert (failure.kind, failure.box, listed(world)) == ("budget", world.name, 0)
    assert failure.what.startswith(owner)
    assert failure.fix.startswith(fix)
    assert failure.safe == "nothing was rented; what is rented goes on as it is"


@pytest.mark.parametrize("platform", RENTED)
def test_what_was_spent_on_other_boxes_counts_and_starting_is_not_asked(platform: str, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    cap = cap_of(world)
    earlier = {"project": "digits", "box": "earlier", "generation": 1, "provider_id": "17"}
    Journal(world.store).append("effect", "rent", **earlier, price_per_hour=cap, run_id="digits-run")
    world.age_to(2 * 3600)
    with pytest.raises(TenantFailure, match="project digits has spent"):
        world.bring("started", budgets=dollars(project=2.5 * cap))
    with pytest.raises(TenantFailure, match="run digits-run has spent"):
        world.bring("started", budgets=dollars(2.5 * cap, 9 * cap))
    assert world.bring("started", budgets=dollars(2.5 * cap, 9 * cap, "another"))["changed"], "that run spent nothing"
    assert listed(world) == 1
    again = world.bring("started", budgets=dollars(project=cap))
    assert not again["changed"], "what is rented goes on as it is"


@pytest.mark.parametrize("platform", RENTED)
def test_what_another_process_rents_while_we_wait_for_the_lock_counts(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = rented_world(platform, tmp_path)
    cap, lock = cap_of(world), RentalAccount.lock
    another = {"project": "digits", "box": "another", "generation": 1, "provider_id": "17"}

    @contextlib.contextmanager
    def waited(account: RentalAccount[Any]) -> Iterator[None]:
        with lock(account):
            Journal(world.store).append("effect", "rent", **another, price_per_hour=cap)
            yield

    monkeypatch.setattr(RentalAccount, "lock", waited)
    with pytest.raises(TenantFailure, match="that boxes rented a moment ago have reserved"):
        world.bring("started", budgets=dollars(project=1.5 * cap))
    assert listed(world) == 0


@pytest.mark.parametrize("platform", RENTED)
def test_a_rental_and_a_box_that_is_there_count_for_the_run_from_then_on(platform: str, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    world.bring("started", budgets=Budgets("first", 1e6, None))
    for _again in range(2):
        world.bring("started", budgets=Budgets("second"))
    lines = [line for line in Journal(world.store).lines() if line.get("run_id") and line["kind"] == "effect"]
    assert [(line["verb"], line["run_id"]) for line in lines] == [("rent", "first"), ("serves", "second")]
    assert {line["box"] for line in lines} == {world.name}


@pytest.mark.parametrize("platform", RENTED)
@pytest.mark.parametrize("usd", [0.0, -1.0, float("inf"), float("nan")])
def test_dollars_that_are_no_budget_are_named(platform: str, usd: float, tmp_path: Path) -> None:
    world = rented_world(platform, tmp_path)
    for budgets, name in ((dollars(usd), "budget.usd"), (dollars(project=usd), "tenant_budget_usd")):
        with pytest.raises(TenantFailure, match=rf"{name} is .*, and dollars above 0 are wanted") as refused:
            world.bring("started", budgets=budgets)
        assert refused.value.kind == "config"
    assert listed(world) == 0

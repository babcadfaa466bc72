# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that a store does not know costs from when it is found on, whatever its state is and whoever dies, on every
market."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, rental_account, spent
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import RentalAccount
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from platform_worlds import RENTED, Killed, Rented, account_states, world_of

LATER = "2100-01-01T00:00:00Z"


@pytest.fixture(params=RENTED)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Rented:
    """A box that runs, and a store that knows nothing of it."""
    made = world_of(request.param, tmp_path)
    assert isinstance(made, Rented)
    made.bring("started")
    made.forget()
    return made


def found_by(world: Rented) -> Any:
    """The box as whoever looks for it finds it."""
    account: RentalAccount[Any] = MARKETS[world.profile["platform_driver"]](world.client(), world.store)
    box = account.locate("digits", world.name).current
    assert box is not None
    return box


def show_as(world: Rented, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    account = MARKETS[world.profile["platform_driver"]]
    shown = account.to_box
    monkeypatch.setattr(account, "to_box", lambda self, row: replace(shown(self, row), state=state))


@pytest.mark.parametrize("state", ["offline", "exited", "unknown"])
def test_one_whose_state_says_nothing_costs_from_then_on(
    world: Rented, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    with monkeypatch.context() as patch:
        show_as(world, patch, state)
        assert found_by(world).state == state
    box = found_by(world)
    assert account_states(world) == {box.provider_id: accrual.RUNNING}
    assert (spent.of_project(Journal(world.store).lines(), "digits", LATER) or 0) > 0


def test_who_dies_between_the_line_and_the_record_leaves_both_to_the_next(
    world: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StateStore.update_box

    def killed(self: StateStore, *place: Any, **facts: Any) -> Any:
        if facts.get("provider_id"):
            raise Killed
        return write(self, *place, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(StateStore, "update_box", killed)
        with pytest.raises(Killed):
            found_by(world)
    assert not world.record()
    box = found_by(world)
    assert world.record()["provider_id"] == box.provider_id
    assert account_states(world) == {box.provider_id: accrual.RUNNING}
    found_by(world)
    found = [line for line in Journal(world.store).lines() if line.get(rental_account.FOUND)]
    assert len(found) == 2, "a record says that its line is there"


def test_who_dies_before_the_line_leaves_no_record(world: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_unused: Any, **_line: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        with pytest.raises(Killed):
            found_by(world)
    provider_id = found_by(world).provider_id
    assert account_states(world) == {provider_id: accrual.RUNNING}

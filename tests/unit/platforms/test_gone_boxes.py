# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that ends without a destroy of ours that was answered costs nothing from then on, on every market."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import RestClient
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from platform_worlds import RENTED, Killed, Rented, account_states, world_of

from gpu_tenant import recovering
from gpu_tenant.decide import NEXT_CANDIDATE, Action
from gpu_tenant.observation import Observation


@pytest.fixture(params=RENTED)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Rented:
    made = world_of(request.param, tmp_path)
    assert isinstance(made, Rented)
    made.bring("started")
    return made


def record(world: Rented, generation: int = 1) -> dict[str, Any]:
    return world.store.read_box("digits", world.name, generation) or {}


def seen_gone(world: Rented) -> list[str]:
    return [str(line["provider_id"]) for line in Journal(world.store).lines() if line["verb"] == accrual.SEEN_GONE]


def denied(world: Rented) -> Observation:
    """A look in which its provider denies the machine that is on record."""
    identity = BoxIdentity("digits", world.name, 1, str(record(world)["provider_id"]))
    return Observation(world.name, "", "absent", denied=identity)


def delete_in_the_console(world: Rented) -> str:
    provider_id = str(record(world)["provider_id"])
    client = world.client()
    if world.platform == "paperspace":
        # It deletes only what is off.
        world.bring("stopped")
    client.destroy_instance(provider_id)
    for _each in range(200):
        if client.get_instance(provider_id) is None:
            return provider_id
        client.sleep(60.0)
    raise AssertionError("it does not end")


def test_a_kill_between_an_accepted_delete_and_its_effect(world: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    client: type[RestClient[Any]] = type(world.client())
    sent = client.destroy_instance  # type: ignore[attr-defined]  # every market's client has it

    def killed(self: Any, provider_id: str) -> bool:
        sent(self, provider_id)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(client, "destroy_instance", killed)
        with pytest.raises(Killed):
            world.bring("absent")
    provider_id = str(record(world)["provider_id"])
    world.bring("absent")
    world.bring("absent")
    assert account_states(world) == {provider_id: accrual.ENDED}
    assert seen_gone(world) == [provider_id]
    assert record(world)["destroyed_at"]


def test_a_destroy_that_was_answered_says_it_once(world: Rented) -> None:
    world.bring("absent")
    assert list(account_states(world).values()) == [accrual.ENDED]
    assert not seen_gone(world)


def test_deleted_in_the_console_then_absent(world: Rented) -> None:
    provider_id = delete_in_the_console(world)
    world.bring("absent")
    assert account_states(world) == {provider_id: accrual.ENDED}
    assert seen_gone(world) == [provider_id]
    assert record(world)["destroyed_at"]
    assert not gone_record.lost_box(world.store, "digits", world.name), "nobody wants it back"


def test_deleted_in_the_console_then_present(world: Rented) -> None:
    provider_id = delete_in_the_console(world)
    world.bring("started", check=True)
    assert not seen_gone(world), "check mode writes nothing"
    again = world.bring("started")
    assert again["generation"] == 2
    state = account_states(world)
    assert (state.pop(provider_id), list(state.values())) == (accrual.ENDED, [accrual.RUNNING])
    assert (bool(record(world)["destroyed_at"]), record(world, 2)["destroyed_at"]) == (True, None)


def test_a_kill_between_the_journal_and_the_record_says_it_once(world: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    provider_id = delete_in_the_console(world)

    def killed(*_unused: Any, **_changes: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(gone_record, "_note", killed)
        with pytest.raises(Killed):
            world.bring("started")
    assert (seen_gone(world), record(world)["destroyed_at"]) == ([provider_id], None)
    world.bring("started")
    assert seen_gone(world) == [provider_id]
    assert record(world)["destroyed_at"]


def test_another_machine_that_is_gone_ends_beside_one_that_is_there(world: Rented) -> None:
    known = str(record(world)["provider_id"])
    other = known[:-1] + ("1" if known.endswith("0") else "0")
    facts = {"platform": world.platform, "provider_id": other, "stamp": f"gt1/digits/{world.name}/g2/0123456789abcdef"}
    world.store.update_box("digits", world.name, 2, **facts)
    world.bring("started")
    assert seen_gone(world) == [other]
    assert (record(world)["destroyed_at"], bool(record(world, 2)["destroyed_at"])) == (None, True)


def test_one_market_says_nothing_of_the_machines_of_another(world: Rented) -> None:
    elsewhere = next(name for name in RENTED if name != world.platform)
    world.bring("absent")
    facts = {"platform": elsewhere, "provider_id": "999999", "destroyed_at": None, "price_per_hour": 0.1}
    world.store.update_box("digits", world.name, 2, **facts, stamp=f"gt1/digits/{world.name}/g2/0123456789abcdef")
    world.bring("absent")
    world.bring("started")
    assert not seen_gone(world)
    assert record(world, 2)["destroyed_at"] is None


def test_one_that_was_denied_and_is_there_all_the_same_costs_on(world: Rented, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new box that its provider does not show yet, or a provider that is wrong for a while."""
    provider_id = str(record(world)["provider_id"])
    monkeypatch.setattr(records, "utc_now", lambda: "2030-01-01T00:00:00Z")
    recovering.begin(Action(NEXT_CANDIDATE, "gone"), denied(world), world.store, "digits", "r")
    assert account_states(world) == {provider_id: accrual.ENDED}
    assert gone_record.lost_box(world.store, "digits", world.name)
    monkeypatch.setattr(records, "utc_now", lambda: "2030-01-01T01:00:00Z")
    world.bring("started")
    assert account_states(world) == {provider_id: accrual.RUNNING}
    assert record(world)["destroyed_at"] is None
    assert not gone_record.lost_box(world.store, "digits", world.name)


def test_one_that_was_denied_costs_on_though_a_clock_was_set_right_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was rented by a clock that was ahead, and then denied and seen by one that is not there yet."""
    world = world_of("vast", tmp_path)
    assert isinstance(world, Rented)

    def tell(moment: str) -> None:
        monkeypatch.setattr(records, "utc_now", lambda: moment)

    tell("2030-01-01T00:30:00Z")
    world.bring("started")
    provider_id = str(record(world)["provider_id"])
    tell("2030-01-01T00:10:00Z")
    recovering.begin(Action(NEXT_CANDIDATE, "gone"), denied(world), world.store, "digits", "r")
    assert account_states(world) == {provider_id: accrual.ENDED}
    tell("2030-01-01T00:11:00Z")
    world.bring("started")
    assert account_states(world) == {provider_id: accrual.RUNNING}
    acts = accrual.acts_by_machine(Journal(world.store).lines())["digits", world.name, provider_id]
    held, _state = accrual.intervals(acts, "2030-01-01T08:30:00Z")
    assert sum(interval.hours for interval in held) == 8.0


def test_one_that_was_denied_is_asked_for_before_another_is_rented(
    world: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4: its record is closed, and a list that lacks it may be partial all the same."""
    recovering.begin(Action(NEXT_CANDIDATE, "gone"), denied(world), world.store, "digits", "r")
    (seen,) = world.observer().observe().values()
    assert seen.provider != "absent"
    monkeypatch.setattr(type(world.client()), "list_instances", lambda self: [])
    (seen,) = world.observer().observe().values()
    assert seen.provider != "absent"
    with pytest.raises(TenantFailure, match="which the provider still has"):
        world.bring("started")


def test_a_market_on_which_a_box_is_gone_frees_the_budget_of_the_next(tmp_path: Path) -> None:
    world = world_of("vast", tmp_path)
    assert isinstance(world, Rented)
    facts = {"provider_id": "17", "stamp": "gt1/digits/there/g1/0123456789abcdef", "platform": "runpod"}
    world.store.update_box("digits", "there", 1, price_per_hour=100.0, **facts)
    with pytest.raises(TenantFailure, match="above the budget_per_hour"):
        world.bring("started", budget_per_hour=100.0)
    seen = Observation("there", "", "absent", denied=BoxIdentity("digits", "there", 1, "17"))
    recovering.begin(Action(NEXT_CANDIDATE, "gone"), seen, world.store, "digits", "r")
    assert world.bring("started", budget_per_hour=100.0)["changed"]

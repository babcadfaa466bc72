# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes: known by the stamp in their name, rented once, and never deleted without a person's consent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.volume_stamp import VolumeStamp, new_stamp, parse_stamp
from hypothesis import given
from hypothesis import strategies as st
from volume_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


# --- the stamp ------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True).filter(lambda name: ".." not in name)


@given(NAMES, NAMES, st.integers(1, 999))
def test_a_stamp_is_a_name_that_the_market_takes_and_reads_back(project: str, name: str, generation: int) -> None:
    stamp = VolumeStamp(project, name, generation, "0a1b2c3d")
    assert all(one.isalnum() or one == "_" for one in str(stamp))
    assert parse_stamp(str(stamp)) == stamp


@given(st.text(max_size=70))
def test_other_names_are_not_ours(text: str) -> None:
    found = parse_stamp(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize("text", [None, 5, "", "data", "gt1__a__b__g0__0a1b2c3d", "gt1__a_zz__b__g1__0a1b2c3d"])
def test_names_of_others(text: object) -> None:
    assert parse_stamp(text) is None


def test_a_name_for_which_there_is_no_room_is_refused() -> None:
    with pytest.raises(TenantFailure, match="at most 64 characters"):
        new_stamp("a" * 30, "b" * 30, 1)


# --- present --------------------------------------------------------------------------------------------------------


def test_the_cheapest_that_fits_is_rented_once(world: World) -> None:
    predicted = world.do(check_mode=True)
    assert (predicted["changed"], predicted["would"]["offer_id"], predicted["volume"]) == (True, 901, None)
    assert predicted["would"]["price_per_hour"] == pytest.approx(0.1 * 20 / 720)
    assert world.created() == []
    assert not Path(world.store.root).exists()
    made, again = world.do(), world.do()
    assert (made["changed"], again["changed"]) == (True, False)
    assert [body["id"] for body in world.created()] == [901]
    assert made["volume"]["size_gb"] == 20
    assert made["diff"]["before"]["state"] == "absent"
    assert again["volume"] == made["volume"]
    assert parse_stamp(made["volume"]["stamp"]) is not None


def test_a_lost_answer_is_looked_up_and_not_sent_again(world: World) -> None:
    world.spoil = lambda _body: ConnectionResetError("gone")
    made = world.do()
    assert made["changed"]
    assert len(world.created()) == len(world.volumes) == 1


def test_a_create_that_never_arrived_is_said_after_a_while(world: World) -> None:
    world.spoil = lambda _body: (502, b"<html>bad gateway</html>")
    failure = world.refused()
    assert "no volume with its stamp came of it" in failure.what
    assert len(world.created()) == 1
    assert world.volumes == []


def test_an_offer_that_is_gone_leads_to_the_next(world: World) -> None:
    gone = (404, {"success": False, "error": "invalid_args", "msg": "error 404/3603: no_such_ask 901 is gone"})
    world.spoil = lambda body: gone if body["id"] == 901 else None
    assert world.do()["changed"]
    assert [body["id"] for body in world.created()] == [901, 900]


def test_a_refused_key_ends_it(world: World) -> None:
    world.spoil = lambda _body: (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"})
    assert world.refused().kind == "config"
    assert len(world.created()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"price_cap": 0.0001}, "price_cap is $0.0001"),
        ({"size_gb": 5000}, "no volume of 5000 GB"),
        ({"offer_id": 4711}, "no volume of 20 GB"),
        ({"size_gb": 0}, "cannot be"),
        ({"name": "../etc"}, "not a usable name"),
    ],
)
def test_what_cannot_be_rented_is_a_sentence(world: World, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((TenantFailure, ValueError)) as caught:
        world.do(**changes)
    assert said in str(caught.value)
    assert world.created() == []


def test_an_offer_without_a_price_is_not_free(world: World) -> None:
    world.offers = [world.offer(900, None)]
    assert "with a price" in world.refused().what


@pytest.mark.parametrize(
    ("changes", "said"), [({"size_gb": 21}, "fixed at create"), ({"machine_id": 9}, "cannot move")]
)
def test_a_volume_neither_grows_nor_moves(world: World, changes: dict[str, Any], said: str) -> None:
    world.add(str(new_stamp("vision", "data-1", 1)))
    assert said in world.refused(**changes).what
    assert world.do(size_gb=10)["changed"] is False
    assert world.created() == []


def test_absence_needs_two_lists(world: World) -> None:
    world.add(str(new_stamp("vision", "data-1", 1)))
    real, asked = list(world.volumes), []

    def flicker(method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "GET" and path == "/api/v0/volumes":
            asked.append(path)
            return 200, {"volumes": [] if len(asked) == 1 else real}
        return World._served(world, method, path, query, body)

    world.market._serve = flicker  # type: ignore[method-assign]  # a list that lacks it once
    assert world.do()["changed"] is False
    assert world.created() == []


@pytest.mark.parametrize("body", [{}, {"volumes": None}, {"volumes": [{"label": "x"}]}, [], "text"])
def test_a_malformed_list_is_an_error_and_rents_nothing(world: World, body: Any) -> None:
    world.market.fault("GET", r"/api/v0/volumes$", times=99, answer=(200, body, {}))
    assert world.refused().kind == "provider"
    assert world.created() == []


# --- absent ---------------------------------------------------------------------------------------------------------


def test_deleting_needs_a_person(world: World) -> None:
    world.do()
    failure = world.refused(state="absent")
    assert failure.kind == "gate_refused"
    assert "all that it holds" in failure.what
    assert "nobody approved delete" in failure.what
    assert "--volume" in failure.fix
    assert len(world.volumes) == 1
    world.approve()
    assert world.do(state="absent", check_mode=True)["changed"]
    assert len(world.volumes) == 1
    gone, again = world.do(state="absent"), world.do(state="absent")
    assert [gone["changed"], again["changed"]] == [True, False]
    assert gone["gate"][0]["rule"] == "loss"
    assert world.volumes == []
    effects = [line for line in world.account.journal.lines() if line["kind"] == "effect"]
    assert [line["verb"] for line in effects] == ["rent-volume", "delete"]


@pytest.mark.parametrize(
    "changes",
    [
        {"verb": "destroy"},
        {"binds": {"kind": "complete_receipt"}},
        {"binds": {"kind": "loss", "loss": "nothing", "cells": {}, "unknown": []}},
        {"ttl_s": 1, "now": "2026-01-01T00:00:00Z"},
    ],
)
def test_consent_to_something_else_is_no_consent(world: World, changes: dict[str, Any]) -> None:
    world.do()
    world.approve(**changes)
    assert world.refused(state="absent").kind == "gate_refused"
    assert len(world.volumes) == 1


def test_an_approval_is_used_once_and_is_of_one_volume(world: World) -> None:
    world.do()
    world.approve()
    world.do(state="absent")
    world.do()
    assert world.volumes[0]["label"].count("__g2__") == 1
    assert world.refused(state="absent").kind == "gate_refused"


def test_no_record_of_our_own_makes_it_look_unused(world: World) -> None:
    """With an empty store, as after the loss of a controller, a volume that was just rented is no less gated."""
    world.do()
    identity = world.store.read_box("vision", "volume.data-1", 1)
    assert identity is not None
    Path(world.store.box_record_path("vision", "volume.data-1", 1)).unlink()
    assert world.refused(state="absent").kind == "gate_refused"
    record = json.loads(Path(world.store.box_record_path("vision", "volume.data-1", 1)).read_text())
    assert record["deploy_started_at"], "nobody knows whether it was used, so it counts as used"


@pytest.mark.parametrize("users", [[4711], [{"id": 4711}], ["what is this"], None, {"4711": {}}, "4711"])
def test_a_volume_in_use_is_not_deleted(world: World, users: list[Any]) -> None:
    world.do()
    world.approve()
    world.volumes[0]["instances"] = users
    assert "is used by instance" in world.refused(state="absent").what
    assert len(world.volumes) == 1


def test_a_volume_whose_users_are_not_told_may_be_in_use(world: World) -> None:
    world.do()
    world.approve()
    del world.volumes[0]["instances"]
    assert "number cannot be read" in world.refused(state="absent").what
    assert len(world.volumes) == 1


def test_volumes_of_others_are_untouched(world: World) -> None:
    world.add("their_data")
    world.add(None)
    world.add(str(new_stamp("other", "data-1", 1)))
    assert world.do(state="absent")["changed"] is False
    assert len(world.volumes) == 3

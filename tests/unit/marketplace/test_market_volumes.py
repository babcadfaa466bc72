# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes on the marketplace: rules, rows, bill, and what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_market_wire import Client

from gpu_tenant.marketplace.state import MarketState, state_as_dict, state_from_dict


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


def search(client: Client, **filters: Any) -> list[dict[str, Any]]:
    body = {"allocated_storage": 20, "order": [["storage_cost", "asc"]], **filters}
    found: list[dict[str, Any]] = client.call("POST", "/api/v0/volumes/search/", body)[1]["offers"]
    return found


def rent(client: Client, offer: dict[str, Any], **parts: Any) -> int:
    status, answer = client.call("PUT", "/api/v0/volumes/", {"id": offer["id"], "size": 20, **parts})
    assert status == 200, answer
    return int(answer["volume_name"].removeprefix("V."))


def listed(client: Client, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.call("GET", "/api/v0/volumes", owner="me", **query)[1]["volumes"]
    return found


def test_an_offer_yields_volumes_up_to_its_size(client: Client) -> None:
    offer = search(client)[0]
    assert not any("gpu" in name for name in offer)
    first = rent(client, offer, name="one_1")
    second = rent(client, offer)
    assert second > first
    (again,) = search(client, machine_id={"eq": offer["machine_id"]})
    assert again["disk_space"] == pytest.approx(offer["disk_space"] - 40)
    status, answer = client.call("PUT", "/api/v0/volumes/", {"id": offer["id"], "size": int(offer["disk_space"])})
    assert (status, answer["error"]) == (400, "invalid_args")
    rows = listed(client)
    assert [(row["id"], row["label"], row["disk_space"]) for row in rows] == [(first, "one_1", 20), (second, None, 20)]
    assert rows[0]["storage_total_cost"] == pytest.approx(offer["storage_cost"] * 20 / 720)
    assert isinstance(rows[0]["start_date"], float)
    assert listed(client, type="network_volume") == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"id": 1, "size": 10}, 404, "invalid_args"),
        ({"size": 10}, 404, "invalid_args"),
        ({"size": 0.5}, 400, "invalid_args"),
        ({"name": "a-b"}, 400, "invalid_args"),
        ({"name": "x" * 65}, 400, "invalid_args"),
    ],
)
def test_what_cannot_be_a_volume(client: Client, body: dict[str, Any], status: int, code: str) -> None:
    known = {} if "size" in body and len(body) < 2 and body["size"] == 10 else {"id": search(client)[0]["id"]}
    answer = client.call("PUT", "/api/v0/volumes/", {"size": 10, **known, **body})
    assert (answer[0], answer[1]["error"]) == (status, code)
    assert listed(client) == []


@pytest.mark.parametrize("where", ["query", "body"])
def test_a_volume_is_deleted_once(client: Client, where: str) -> None:
    number = rent(client, search(client)[0])

    def delete() -> Any:
        if where == "query":
            return client.call("DELETE", "/api/v0/volumes/", {}, id=str(number))
        return client.call("DELETE", "/api/v0/volumes/", {"id": number})

    assert delete() == (200, {"success": True})
    assert delete()[1]["error"] == "no_such_volume"
    assert listed(client) == []


def test_a_volume_in_use_stays_and_is_bound_to_its_machine(client: Client) -> None:
    here, there = client.offers()[:2]
    (space,) = search(client, machine_id={"eq": here["machine_id"]})
    number = rent(client, space)
    flag = {f"-v V.{number}:/data": "1"}
    assert client.rent(there, env=flag)[1]["error"] == "invalid_args"
    assert client.rent(here, env={"-v V.99:/data": "1"})[1]["error"] == "no_such_volume"
    box = client.running(here, volume_info={"volume_id": number, "mount_path": "/data"})
    assert listed(client)[0]["instances"] == [box]
    client.call("PUT", f"/api/v0/instances/{box}/", {"state": "stopped"})
    status, answer = client.call("DELETE", "/api/v0/volumes/", {}, id=str(number))
    assert (status, answer["error"]) == (400, "invalid_args")
    client.call("DELETE", f"/api/v0/instances/{box}/", {})
    assert client.call("DELETE", "/api/v0/volumes/", {}, id=str(number))[0] == 200


def test_a_box_may_bring_its_own_volume(client: Client) -> None:
    offer = client.offers()[0]
    (space,) = search(client, machine_id={"eq": offer["machine_id"]})
    made = {"create_new": True, "volume_id": space["id"], "size": 30, "name": "with_box", "mount_path": "/data"}
    box = client.running(offer, volume_info=made)
    (row,) = listed(client)
    assert (row["disk_space"], row["label"], row["instances"]) == (30, "with_box", [box])


def test_a_volume_bills_until_it_is_deleted(tmp_path: Path) -> None:
    fast = Client(tmp_path / "fast", speed=360_000.0)
    try:
        before = fast.call("GET", "/api/v0/users/current")[1]["credit"]
        number = rent(fast, search(fast)[0], name="kept")
        while fast.call("GET", "/control/bill")[1]["volumes"][0]["amount"] < 0.001:
            pass
        assert fast.call("DELETE", "/api/v0/volumes/", {}, id=str(number))[0] == 200
        bill = fast.call("GET", "/control/bill")[1]
        again = fast.call("GET", "/control/bill")[1]
        assert bill["volumes"] == again["volumes"], "it bills no more"
        amount = bill["volumes"][0]["amount"]
        assert bill["total"] == pytest.approx(amount)
        assert fast.call("GET", "/api/v0/users/current")[1]["credit"] == pytest.approx(before - amount, abs=1e-5)
        (charge,) = fast.call("GET", "/api/v0/charges/", select_filters='{"day": {"gte": 0}}')[1]["results"]
        assert (charge["source"], charge["amount"]) == (f"volume-{number}", pytest.approx(amount))
        assert [item["type"] for item in charge["items"]] == ["disk"]
    finally:
        fast.close()


def test_volumes_survive_a_restart_and_old_states_are_read(tmp_path: Path) -> None:
    first = Client(tmp_path)
    number = rent(first, search(first)[0], name="kept")
    first.close()
    second = Client(tmp_path)
    try:
        assert [row["id"] for row in listed(second)] == [number]
        assert rent(second, search(second)[0]) > number, "ids never repeat"
    finally:
        second.close()
    old = state_as_dict(MarketState())
    del old["volumes"]
    assert state_from_dict(old) == MarketState()


def test_the_daemons_log_tells_what_became_of_the_box(client: Client) -> None:
    box = client.running(client.offers()[0])
    client.call("PUT", f"/api/v0/instances/{box}/", {"state": "stopped"})
    url = client.call("PUT", f"/api/v0/instances/request_logs/{box}/", {"daemon_logs": "true"})[1]["result_url"]
    lines = client.http.get(url.removeprefix("http://testserver")).text.splitlines()
    assert f"contract {box} created" in lines[0]
    assert "runs at $" in lines[1]
    assert "phase stopped" in lines[-1]
    assert lines == sorted(lines, key=lambda line: line[:20])

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Lambda's REST on the marketplace: what it answers, what it costs, what survives."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from vm_market import BODY, PUBLIC_KEY, REGION, TYPE, VmMarket
from wire_market import KEY

from gpu_tenant.marketplace import instances
from gpu_tenant.marketplace.engines.base import BoxSpec
from gpu_tenant.marketplace.lambda_cloud.catalogue import REGION_OF, REGIONS
from gpu_tenant.marketplace.lambda_cloud.routes import BASE, TERMINATED_SHOWN_S
from gpu_tenant.marketplace.lambda_cloud.terms import FILE, INSTANCE, id_of, number_of
from gpu_tenant.marketplace.lambda_cloud.terms import KEY as KEY_ID
from gpu_tenant.marketplace.offers import GEOLOCATIONS
from gpu_tenant.marketplace.requests import token_in
from gpu_tenant.marketplace.server import build_application
from gpu_tenant.marketplace.state import StateDirectory, state_as_dict, state_from_dict

HOUR_S = 3600.0
GIB = 1024**3


@pytest.fixture
def market(tmp_path: Path) -> VmMarket:
    return VmMarket(tmp_path)


def test_an_instance_has_the_fields_of_the_schema_and_is_found_again(market: VmMarket) -> None:
    vm = market.launch(tags=[{"key": "team", "value": "a"}], hostname="node-1")
    row = market.show(vm)
    assert (row["id"], row["name"], row["status"], row["ip"]) == (vm, "a vm", "active", "127.0.0.1")
    assert row["region"] == {"name": REGION, "description": REGIONS[REGION]}
    assert row["instance_type"]["specs"]["gpus"] == 1
    assert (row["ssh_key_names"], row["file_system_names"], row["hostname"]) == (["laptop"], [], "node-1")
    assert "file_system_mounts" not in row  # as the schema has it where nothing is mounted
    assert row["tags"] == [{"key": "team", "value": "a"}]
    assert row["actions"]["terminate"] == {"available": True}
    assert market.listed() == [vm]
    assert market.ask("POST", f"/instances/{vm}", {"name": "another"})[1]["name"] == "another"
    assert market.ask("POST", f"/instances/{vm}", {"name": "n" * 65})[0] == 400


def test_it_is_no_instance_of_vast_and_no_pod(market: VmMarket) -> None:
    vm, rented = market.launch(), market.rent_for_another()
    assert list(market.rows()) == [rented]
    number = number_of(INSTANCE, vm)
    assert market.request("GET", f"/api/v0/instances/{number}/", {}).body == {"instances": None}
    assert market.request("GET", "/v1/pods", {}).body == []
    assert market.ask("GET", f"/instances/{id_of(INSTANCE, rented)}")[0] == 404
    assert market.listed() == [vm]


def test_capacity_is_what_nobody_has_rented(market: VmMarket) -> None:
    def regions() -> list[str]:
        found = market.ask("GET", "/instance-types")[1][TYPE]["regions_with_capacity_available"]
        return [one["name"] for one in found]

    before = set(market.offers())
    assert regions() == [REGION]
    first, second = market.launch(), market.launch()
    assert len(before - set(market.offers())) == 2  # nor can vast.ai's side let them
    assert regions() == []
    status, error = market.ask("POST", "/instance-operations/launch", BODY)
    assert (status, error["code"]) == (400, "instance-operations/launch/insufficient-capacity")
    assert market.operate("terminate", first)[0] == 200
    assert regions() == [REGION]
    assert market.listed() == [second]


def test_every_place_of_the_catalogue_is_in_a_region() -> None:
    assert set(GEOLOCATIONS) <= set(REGION_OF)
    assert set(REGION_OF.values()) == set(REGIONS)


INVALID = "global/invalid-parameters"
UNKNOWN = "global/object-does-not-exist"


@pytest.mark.parametrize(
    ("changes", "status", "code", "word"),
    [
        ({"region_name": "moon-1"}, 400, INVALID, "region_name"),
        ({"region_name": "us-east-1"}, 400, "instance-operations/launch/insufficient-capacity", "capacity"),
        ({"instance_type_name": "gpu_1x_abacus"}, 404, UNKNOWN, "instance type"),
        ({"ssh_key_names": []}, 400, INVALID, "exactly one"),
        ({"ssh_key_names": ["laptop", "laptop"]}, 400, INVALID, "exactly one"),
        ({"ssh_key_names": ["unknown"]}, 404, UNKNOWN, "SSH key"),
        ({"file_system_names": ["unknown"]}, 404, UNKNOWN, "unknown"),
        ({"file_system_mounts": [{"mount_point": "/etc", "file_system_id": "x"}]}, 400, INVALID, "mount_point"),
        ({"file_system_mounts": [{"mount_point": "/data", "file_system_id": "x"}]}, 404, UNKNOWN, "Filesystem"),
        ({"file_system_mounts": ["/data"]}, 400, INVALID, "file_system_mounts"),
        ({"name": "n" * 65}, 400, INVALID, "name"),
        ({"quantity": 2}, 400, INVALID, "quantity"),
        ({"user_data": "#!/bin/sh\n"}, 400, INVALID, "user_data"),
        ({"image": {"id": "43336648"}}, 400, INVALID, "image"),
        ({"image": {"family": "windows"}}, 404, UNKNOWN, "windows"),
        ({"hostname": "A_"}, 400, INVALID, "hostname"),
        ({"tags": [{"key": "lambda-ai-x", "value": ""}]}, 400, INVALID, "tags"),
    ],
)
def test_what_cannot_be_launched_is_refused_in_words(
    market: VmMarket, changes: dict[str, Any], status: int, code: str, word: str
) -> None:
    answered, error = market.ask("POST", "/instance-operations/launch", {**BODY, **changes})
    assert (answered, error["code"]) == (status, code)
    assert word in error["message"]
    assert market.vms() == []


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1]])
def test_another_key_is_a_401(market: VmMarket, key: str) -> None:
    for method, path in (("GET", "/instances"), ("POST", "/instance-operations/launch"), ("GET", "/file-systems")):
        reply = market.request(method, BASE + path, dict(BODY), key=key)
        assert (reply.status, reply.body["error"]["code"]) == (401, "global/invalid-api-key")
    assert market.vms() == []


def _spent(market: VmMarket, hours: float) -> float:
    before = market.market.money.bill()["total"]
    market.clock.now += hours * HOUR_S
    return float(market.market.money.bill()["total"]) - before


def test_it_bills_until_it_is_terminated_and_its_disk_nothing(market: VmMarket) -> None:
    vm = market.launch()
    cents = market.show(vm)["instance_type"]["price_cents_per_hour"]
    assert _spent(market, 10) == pytest.approx(10 * cents / 100)
    assert market.operate("terminate", vm)[1]["terminated_instances"][0]["status"] == "terminating"
    assert _spent(market, 10) == 0


def test_a_shutdown_from_inside_is_unhealthy_and_bills_on(market: VmMarket) -> None:
    """LAM3: the console says Alert."""
    vm = market.launch()
    books = market.market.books
    books.put(instances.exited(books.instance(number_of(INSTANCE, vm))))
    row = market.show(vm)
    assert row["status"] == "unhealthy"
    assert _spent(market, 10) == pytest.approx(10 * row["instance_type"]["price_cents_per_hour"] / 100)
    assert market.operate("restart", vm)[0] == 200
    assert market.show(vm)["status"] == "active"


def test_a_restart_keeps_the_disk(market: VmMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, wiped = market.market.boxes._engine, []
    monkeypatch.setattr(engine, "destroy", wiped.append)
    vm = market.launch()
    assert market.operate("restart", vm)[1]["restarted_instances"][0]["id"] == vm
    assert market.show(vm)["status"] == "active"
    assert wiped == []
    market.operate("terminate", vm)
    (spec,) = wiped
    assert isinstance(spec, BoxSpec)
    assert spec.environment == {}
    assert spec.keys == (PUBLIC_KEY,)


def test_only_the_named_key_is_let_in(market: VmMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[BoxSpec] = []
    monkeypatch.setattr(market.market.boxes._engine, "start", started.append)
    another = PUBLIC_KEY.replace("0000", "1111")
    assert market.ask("POST", "/ssh-keys", {"name": "ci", "public_key": another})[0] == 200
    assert market.ask("POST", "/ssh-keys", {"name": "ci", "public_key": another})[1]["code"] == "global/duplicate"
    assert market.ask("POST", "/ssh-keys", {"name": "new"})[0] == 400
    market.launch(ssh_key_names=["ci"])
    assert started[0].keys == (another,)
    keys = {row["name"]: row["id"] for row in market.ask("GET", "/ssh-keys")[1]}
    assert set(keys) == {"laptop", "ci"}
    assert market.ask("DELETE", f"/ssh-keys/{keys['ci']}") == (200, {})
    assert market.ask("DELETE", f"/ssh-keys/{keys['ci']}")[0] == 400


def test_all_or_none_are_terminated_and_a_terminated_one_is_known_for_a_while(market: VmMarket) -> None:
    first, second = market.launch(), market.launch()
    status, error = market.operate("terminate", first, id_of(INSTANCE, 7))
    assert (status, error["code"]) == (404, UNKNOWN)
    assert market.operate("terminate")[0] == 400
    assert market.listed() == [first, second]
    assert market.operate("terminate", first, second)[0] == 200
    assert market.listed() == []
    row = market.show(first)
    assert (row["status"], "ip" in row) == ("terminated", False)
    assert market.operate("terminate", first)[0] == 404
    market.clock.now += TERMINATED_SHOWN_S + 1
    assert market.ask("GET", f"/instances/{first}")[0] == 404


# --- file systems --------------------------------------------------------------------------------------------------


def test_a_file_system_outlives_its_instances_and_bills_what_lies_in_it(market: VmMarket) -> None:
    made = market.file_system()
    assert (made["mount_point"], made["is_in_use"], made["bytes_used"]) == ("/lambda/nfs/data", False, 0)
    assert _spent(market, 720) == 0
    vm = market.launch(file_system_names=["data"])
    row = market.show(vm)
    assert row["file_system_names"] == ["data"]
    assert row["file_system_mounts"] == [{"mount_point": "/lambda/nfs/data", "file_system_id": made["id"]}]
    status, error = market.ask("DELETE", f"/filesystems/{made['id']}")
    assert (status, error["code"]) == (400, "filesystems/filesystem-in-use")
    kept = market.put(made, "results", 10 * GIB)
    assert market.operate("terminate", vm)[0] == 200
    assert kept.exists()
    assert _spent(market, 720) == pytest.approx(10 * 0.20)  # for nobody's use of it
    (shown,) = market.ask("GET", "/file-systems")[1]
    assert (shown["bytes_used"], shown["is_in_use"]) == (10 * GIB, False)
    market.put(made, "results", 5 * GIB)
    market.sleep(HOUR_S)  # it is measured every hour
    assert _spent(market, 720) == pytest.approx(5 * 0.20)
    assert market.ask("DELETE", f"/filesystems/{made['id']}")[1] == {"deleted_ids": [made["id"]]}
    assert not kept.exists()
    assert _spent(market, 720) == 0
    assert market.ask("DELETE", f"/filesystems/{made['id']}")[0] == 404


def test_a_file_system_is_mounted_at_launch_in_its_own_region_only(
    market: VmMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[BoxSpec] = []
    monkeypatch.setattr(market.market.boxes._engine, "start", started.append)
    here, far = market.file_system("here"), market.file_system("far", "us-east-1")
    status, error = market.ask("POST", "/instance-operations/launch", {**BODY, "file_system_names": ["here", "far"]})
    assert (status, error["code"]) == (400, "instance-operations/launch/file-system-in-wrong-region")
    placed = [{"mount_point": "/data/sets", "file_system_id": here["id"]}]
    market.launch(file_system_names=["here"], file_system_mounts=placed)
    assert [path for _folder, path in started[0].volumes] == ["/data/sets"]
    in_use = {row["name"]: row["is_in_use"] for row in market.ask("GET", "/file-systems")[1]}
    assert in_use == {"here": True, "far": False}
    assert far["region"]["name"] == "us-east-1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "data", "region": REGION}, "global/duplicate"),
        ({"name": "2data", "region": REGION}, INVALID),
        ({"name": "d" * 61, "region": REGION}, INVALID),
        ({"name": "x", "region": "moon-1"}, INVALID),
    ],
)
def test_a_file_system_that_cannot_be_is_refused(market: VmMarket, body: dict[str, Any], code: str) -> None:
    market.file_system()
    status, error = market.ask("POST", "/filesystems", body)
    assert (status, error["code"]) == (400, code)


def test_an_account_has_24_file_systems(market: VmMarket) -> None:
    for number in range(24):
        market.file_system(f"data-{number}")
    assert market.ask("POST", "/filesystems", {"name": "more", "region": REGION})[1]["code"] == "global/quota-exceeded"


def test_file_systems_are_no_volumes_of_the_other_sides(market: VmMarket) -> None:
    made = market.file_system()
    assert market.request("GET", "/api/v0/volumes", {}, "type=all_volume").body["volumes"] == []
    assert market.request("GET", "/v1/networkvolumes", {}).body == []
    refused = market.request("DELETE", "/api/v0/volumes/", {}, f"id={number_of(FILE, made['id'])}")
    assert refused.status == 404


# --- names, keys, memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [INSTANCE, FILE, KEY_ID])
@pytest.mark.parametrize("number", [1, 31_000_001, 16**8])
def test_ids_can_be_read_back(kind: str, number: int) -> None:
    assert len(id_of(kind, number)) == 32
    assert number_of(kind, id_of(kind, number)) == number


@pytest.mark.parametrize("name", ["", INSTANCE, "x" * 32, INSTANCE + "é" * 24, INSTANCE + "A" * 24, None, 7])
def test_what_is_no_id_is_none(name: object) -> None:
    assert number_of(INSTANCE, name) == 0


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Bearer k", "k"),
        ("Basic " + base64.b64encode(b"k:").decode(), "k"),
        ("Basic " + base64.b64encode(b"k").decode(), "k"),
        ("Basic k:", ""),
        ("Basic /w==", ""),
        ("k", "k"),
    ],
)
def test_a_key_comes_as_a_bearer_or_as_the_user_of_curl(header: str, key: str) -> None:
    assert token_in(header) == key


def test_instances_and_file_systems_outlive_the_server(tmp_path: Path) -> None:
    market = VmMarket(tmp_path)
    made = market.file_system()
    vm = number_of(INSTANCE, market.launch(file_system_names=["data"], tags=[{"key": "team", "value": "a"}]))
    market.put(made, "results", GIB)
    market.market.file_systems.measure()
    before = state_as_dict(market.market.books.state)
    assert state_as_dict(state_from_dict(before)) == before
    market.market.books.flush()
    again = StateDirectory(tmp_path).load(0)
    assert again.instances[vm].vm == market.market.books.instance(vm).vm
    number = number_of(FILE, made["id"])
    assert again.volumes[number] == market.market.books.state.volumes[number]
    assert again.volumes[number].earlier


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "server_error", "garbled", "no_capacity"])
def test_faults_strike_a_launch_and_its_effect_is_as_written(tmp_path: Path, kind: str) -> None:
    market = VmMarket(tmp_path, {"kind": kind, "call": "create"})
    reply = market.request("POST", f"{BASE}/instance-operations/launch", dict(BODY))
    assert len(market.vms()) == (kind in ("lost_answer", "garbled"))
    assert reply.cut or reply.status in (400, 503) or isinstance(reply.body, bytes)
    if kind == "no_capacity":
        assert reply.body["error"]["code"] == "instance-operations/launch/insufficient-capacity"
        market.launch()


def test_a_fault_of_capacity_does_not_happen_where_no_create_says_it_so(tmp_path: Path) -> None:
    market = VmMarket(tmp_path, {"kind": "no_capacity", "call": "create"})
    assert market.rent_for_another()


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ({"kind": "empty_list"}, []),
        ({"kind": "partial_list"}, 1),
        ({"kind": "malformed_list", "shape": "no_list"}, None),
        ({"kind": "malformed_list", "shape": "no_ids"}, 2),
    ],
)
def test_faults_strike_lists(tmp_path: Path, fault: dict[str, Any], left: object) -> None:
    market = VmMarket(tmp_path, {"call": "list", **fault})
    market.launch()
    market.launch()
    body = market.request("GET", f"{BASE}/instances", {}).body
    assert (len(body["data"]) if isinstance(left, int) else body["data"]) == left
    if fault.get("shape") == "no_ids":
        assert [row["id"] for row in body["data"]] == [None, None]


def test_an_empty_search_is_a_market_without_capacity(tmp_path: Path) -> None:
    market = VmMarket(tmp_path, {"kind": "empty_list", "call": "search"})
    for left in (set(), {REGION}):
        types = market.ask("GET", "/instance-types")[1]
        assert {one["name"] for one in types[TYPE]["regions_with_capacity_available"]} == left


def test_a_fault_of_state_happens_to_the_instance_that_a_call_is_about(market: VmMarket) -> None:
    first, second = market.launch(), market.launch()
    market.inject("host_offline", "show", seconds=60.0)
    assert market.show(second)["status"] == "unhealthy"
    assert market.show(first)["status"] == "active"
    market.inject("slow_destroy", "destroy", seconds=30.0)
    market.operate("terminate", first)
    assert market.show(first)["status"] == "terminating"
    assert market.listed() == [first, second]
    market.sleep(31)
    assert market.listed() == [second]


def test_a_new_instance_that_does_not_come_up_is_booting(market: VmMarket) -> None:
    market.inject("stuck_loading", "create")
    assert market.show(market.launch())["status"] == "booting"


def test_launches_are_limited_to_one_in_12_seconds(tmp_path: Path) -> None:
    market = VmMarket(tmp_path, rate_limits=True)
    market.launch()
    market.clock.now += 11
    assert market.request("POST", f"{BASE}/instance-operations/launch", dict(BODY)).status == 429
    market.clock.now += 1
    market.launch()


def test_over_http_curl_s_user_is_the_key(market: VmMarket) -> None:
    vm = market.launch()
    application = build_application(market.api, market.market)

    async def ask(key: str) -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://market", auth=(key, "")) as client:
            return await client.get(f"{BASE}/instances")

    assert asyncio.run(ask(KEY)).json()["data"][0]["id"] == vm
    assert asyncio.run(ask("wrong")).status_code == 401

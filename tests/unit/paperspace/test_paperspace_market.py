# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paperspace's REST on the marketplace: what it answers, what it costs, what survives."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.paperspace.rental import key_script
from machine_market import BODY, PUBLIC_KEY, REGION, TYPE, MachineMarket
from wire_market import KEY

from gpu_tenant.marketplace import instances
from gpu_tenant.marketplace.engines.base import BoxSpec
from gpu_tenant.marketplace.offers import GEOLOCATIONS, generate
from gpu_tenant.marketplace.paperspace.catalogue import REGIONS, region_of
from gpu_tenant.marketplace.paperspace.routes import BASE
from gpu_tenant.marketplace.paperspace.terms import MACHINE, id_of, number_of
from gpu_tenant.marketplace.state import state_as_dict, state_from_dict

HOUR_S = 3600.0
DISK = 100 * 0.10 / 720


@pytest.fixture
def market(tmp_path: Path) -> MachineMarket:
    return MachineMarket(tmp_path)


def test_a_machine_has_the_fields_of_the_schema_and_is_found_again(market: MachineMarket) -> None:
    machine = market.make()
    row = market.show(machine)
    assert (row["id"], row["name"], row["state"], row["publicIp"]) == (machine, "a machine", "ready", "127.0.0.1")
    assert (row["region"], row["machineType"], row["accelerators"][0]["count"]) == (REGIONS[REGION], TYPE, 1)
    assert (row["usageRate"], row["storageRate"]) == (1.89, pytest.approx(DISK))
    assert row["dtDeleted"] is None
    assert market.listed() == [machine]
    assert [event["name"] for event in market.items("/machine-events")] == ["create"]


def test_it_is_no_instance_of_vast_no_pod_and_none_of_lambda_s(market: MachineMarket) -> None:
    machine, rented = market.make(), market.rent_for_another()
    assert list(market.rows()) == [rented]
    number = number_of(MACHINE, machine)
    assert market.request("GET", f"/api/v0/instances/{number}/", {}).body == {"instances": None}
    assert market.request("GET", "/v1/pods", {}).body == []
    assert market.request("GET", "/lambda/api/v1/instances", {}).body == {"data": []}
    assert market.request("GET", "/lambda/api/v1/file-systems", {}).body == {"data": []}
    assert market.ask("GET", f"/machines/{id_of(MACHINE, rented)}")[0] == 404


def test_every_place_of_the_catalogue_is_in_a_region() -> None:
    assert {region_of(one) for one in generate(0, 400)} == set(REGIONS)
    assert len(GEOLOCATIONS) == 14


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"region": "moon"}, 400, "region"),
        ({"machineType": "abacus"}, 400, "machineType"),
        ({"machineType": "H100"}, 400, "templateId"),
        ({"templateId": "t0000000"}, 404, "Template"),
        ({"templateId": ""}, 400, "templateId"),
        ({"diskSize": 5}, 400, "diskSize"),
        ({"diskSize": True}, 400, "diskSize"),
        ({"publicIpType": "both"}, 400, "publicIpType"),
        ({"autoShutdownEnabled": True}, 400, "autoShutdownTimeout"),
        ({"autoShutdownEnabled": True, "autoShutdownTimeout": 169}, 400, "autoShutdownTimeout"),
        ({"autoSnapshotEnabled": True}, 400, "autoSnapshotEnabled"),
        ({"startupScriptId": "sc0000000zzz"}, 404, "Startup script"),
        ({"name": ""}, 400, "name"),
        ({"gpus": 2}, 400, "gpus"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(
    market: MachineMarket, changes: dict[str, Any], status: int, word: str
) -> None:
    answered, error = market.ask("POST", "/machines", {**BODY, **changes})
    assert answered == status
    assert error["code"] == ("NOT_FOUND" if status == 404 else "BAD_REQUEST")
    assert word in error["message"]
    assert market.machines() == []


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1]])
def test_another_key_is_a_401(market: MachineMarket, key: str) -> None:
    for method, path in (("GET", "/machines"), ("POST", "/machines"), ("GET", "/public-ips")):
        reply = market.request(method, BASE + path, dict(BODY), key=key)
        assert (reply.status, reply.body["code"]) == (401, "UNAUTHORIZED")
    assert market.machines() == []


def test_a_type_is_sold_out_when_its_machines_are_taken(market: MachineMarket) -> None:
    """PS5."""
    first, _second = market.make(), market.make()
    status, error = market.ask("POST", "/machines", BODY)
    assert status == 400
    assert "out of capacity" in error["message"]
    market.do(first, "stop")
    assert market.do(first, "delete")[0] == 200
    market.make()


def _spent(market: MachineMarket, hours: float) -> float:
    before = market.market.money.bill()["total"]
    market.sleep(hours * HOUR_S)
    return float(market.market.money.bill()["total"]) - before


def test_a_machine_that_is_off_bills_its_disk_and_its_static_address(market: MachineMarket) -> None:
    """PS1."""
    machine = market.make(publicIpType="static")
    assert _spent(market, 10) == pytest.approx(10 * (1.89 + DISK + 0.0045))
    assert market.do(machine, "stop")[1]["data"]["state"] == "off"
    assert market.show(machine)["publicIp"] == "127.0.0.1"
    assert _spent(market, 10) == pytest.approx(10 * (DISK + 0.0045))
    assert market.do(machine, "delete")[0] == 200
    assert _spent(market, 10) == pytest.approx(10 * 0.0045)
    (address,) = market.items("/public-ips")
    assert "assignedMachineId" not in address
    assert market.ask("DELETE", f"/public-ips/{address['ip']}")[0] == 200
    assert _spent(market, 10) == 0


def test_only_what_is_off_can_be_deleted(market: MachineMarket) -> None:
    machine = market.make()
    status, error = market.do(machine, "delete")
    assert (status, "must be off" in error["message"]) == (400, True)
    market.do(machine, "stop")
    assert market.do(machine, "delete")[1]["event"]["name"] == "deactivate"
    assert market.do(machine, "start")[0] == 404


def test_an_address_in_use_is_not_released_and_a_dynamic_one_is_none(market: MachineMarket) -> None:
    """PS6."""
    machine = market.make(publicIpType="static")
    (address,) = market.items("/public-ips")
    assert market.ask("DELETE", f"/public-ips/{address['ip']}")[0] == 400
    dynamic = market.make()
    assert len(market.items("/public-ips")) == 1
    port = market.show(dynamic)["sshPort"]
    for verb in ("stop", "start"):
        assert market.do(dynamic, verb)[0] == market.do(machine, verb)[0] == 200
    assert market.show(dynamic)["sshPort"] != port


def test_snapshots_drives_and_templates_bill_until_they_are_deleted(market: MachineMarket) -> None:
    """PS9: a snapshot goes with its machine, as the provider says; what was made of it stays."""
    machine = market.make()
    assert market.ask("POST", "/snapshots", {"name": "s", "machineId": machine})[0] == 200
    assert market.ask("POST", "/custom-templates", {"name": "t", "machineId": machine})[0] == 200
    drive = {"name": "d", "networkId": "n1", "region": "ny2", "size": 250}
    assert market.ask("POST", "/shared-drives", drive)[0] == 200
    market.do(machine, "stop")
    assert _spent(market, 720) == pytest.approx(10 + (100 + 100 + 250) * 0.29)
    market.do(machine, "delete")
    assert market.items("/snapshots") == []
    assert _spent(market, 720) == pytest.approx((100 + 250) * 0.29)
    for path in ("/custom-templates", "/shared-drives"):
        (left,) = market.items(path)
        assert market.ask("DELETE", f"{path}/{left['id']}")[0] == 200
    assert _spent(market, 720) == 0


def test_the_shutdown_clock_is_of_the_wall_and_of_each_start(market: MachineMarket) -> None:
    """PS2."""
    machine = market.make(autoShutdownEnabled=True, autoShutdownTimeout=6)
    for _start in range(2):
        market.sleep(6 * HOUR_S - 60)
        assert market.show(machine)["state"] == "ready"
        market.sleep(120)
        assert market.show(machine)["state"] == "off"
        assert market.do(machine, "start")[0] == 200
    assert market.show(machine)["autoShutdownTimeout"] == 6


def test_a_shutdown_from_inside_is_off_and_bills_no_compute(market: MachineMarket) -> None:
    machine = market.make()
    books = market.market.books
    books.put(instances.exited(books.instance(market.number(machine))))
    market.market.tick()
    assert market.show(machine)["state"] == "off"
    assert _spent(market, 10) == pytest.approx(10 * DISK)


def test_a_restarted_market_knows_its_machines_scripts_and_addresses(market: MachineMarket) -> None:
    script = market.ask("POST", "/startup-scripts", {"name": "s", "script": "true", "isRunOnce": True})[1]["id"]
    market.make(startupScriptId=script, publicIpType="static", autoShutdownEnabled=True, autoShutdownTimeout=6)
    state = market.market.books.state
    assert state_from_dict(state_as_dict(state)).instances == state.instances
    assert state_from_dict(state_as_dict(state)).scripts == state.scripts
    assert state_from_dict(state_as_dict(state)).volumes == state.volumes


# --- startup scripts --------------------------------------------------------------------------------------------------


def _spec(market: MachineMarket, machine: str) -> BoxSpec:
    return market.market.boxes._spec(market.market.books.instance(market.number(machine)))


def test_the_keys_of_a_startup_script_are_let_in_and_it_runs_once(market: MachineMarket) -> None:
    body = {"name": "key", "script": key_script(PUBLIC_KEY), "isRunOnce": True}
    script = market.ask("POST", "/startup-scripts", body)[1]
    assert "script" not in script
    machine = market.make(startupScriptId=script["id"])
    spec = _spec(market, machine)
    assert spec.keys == (PUBLIC_KEY.rpartition(" ")[0],)
    assert spec.onstart == ""  # it ran, on the first boot
    assert market.ask("DELETE", f"/startup-scripts/{script['id']}")[0] == 200
    assert _spec(market, machine).keys == spec.keys
    other = market.ask("POST", "/startup-scripts", {"name": "each", "script": "date"})[1]["id"]
    assert _spec(market, market.make(startupScriptId=other)).onstart == "date"


def test_the_script_lets_the_key_in_where_nobody_is_called_paperspace(tmp_path: Path) -> None:
    """PS3: nothing else of the box is touched."""
    done = subprocess.run(
        ["sh", "-c", key_script(PUBLIC_KEY)],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys = tmp_path / ".ssh/authorized_keys"
    assert keys.read_text() == PUBLIC_KEY + "\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_follow_each_other(market: MachineMarket) -> None:
    for number in range(5):
        market.ask("POST", "/startup-scripts", {"name": f"s{number}", "script": "true"})
    names: list[str] = []
    query = "limit=2"
    for _page in range(3):
        page = market.ask("GET", "/startup-scripts", query=query)[1]
        names += [row["name"] for row in page["items"]]
        query = f"limit=2&after={page.get('nextPage')}"
    assert (names, page["hasMore"]) == ([f"s{number}" for number in range(5)], False)
    assert market.ask("GET", "/startup-scripts", query="limit=0")[0] == 400
    assert market.ask("GET", "/startup-scripts", query="after=nowhere")[0] == 400

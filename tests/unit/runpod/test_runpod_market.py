# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's REST on the marketplace: what it answers, what it costs, what survives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_market import FaultyMarket
from pod_market import BODY, GPU, PodMarket
from wire_market import KEY

from gpu_tenant.marketplace.engines.base import BoxSpec
from gpu_tenant.marketplace.instances import Phase
from gpu_tenant.marketplace.runpod.pods import DATA_CENTERS
from gpu_tenant.marketplace.runpod.terms import network_volume_rate, number_of, pod_id, volume_id
from gpu_tenant.marketplace.server import build_application
from gpu_tenant.marketplace.state import StateDirectory, state_as_dict, state_from_dict

HOUR_S = 3600.0


@pytest.fixture
def market(tmp_path: Path) -> PodMarket:
    return PodMarket(tmp_path)


def test_a_pod_has_the_fields_of_the_schema_and_is_found_again(market: PodMarket) -> None:
    made = market.make(env={"A": "1"})
    assert (made["desiredStatus"], made["gpu"]["id"], made["gpu"]["count"]) == ("RUNNING", GPU, 1)
    shown = market.show(made["id"])
    assert shown["publicIp"] == "127.0.0.1"
    assert set(shown["portMappings"]) == {"22", "8000"}  # a port is of HTTP or of TCP
    assert (shown["containerDiskInGb"], shown["volumeInGb"], shown["volumeMountPath"]) == (30, 50, "/workspace")
    assert shown["env"] == {"A": "1"}
    assert "machine" not in shown
    _status, whole = market.ask("GET", f"/v1/pods/{made['id']}", query="includeMachine=true")
    assert whole["machine"]["gpuTypeId"] == GPU
    assert [row["id"] for row in market.ask("GET", "/v1/pods")[1]] == [made["id"]]
    assert market.ask("GET", "/v1/pods", query="name=another")[1] == []


def test_a_pod_is_no_instance_of_vast_and_an_instance_no_pod(market: PodMarket) -> None:
    made = market.make()
    rented = market.rent_for_another()
    assert list(market.rows()) == [rented]
    number = number_of(made["id"])
    assert market.request("GET", f"/api/v0/instances/{number}/", {}).body == {"instances": None}
    assert market.ask("GET", f"/v1/pods/{pod_id(rented)}")[0] == 404
    assert [row["id"] for row in market.ask("GET", "/v1/pods")[1]] == [made["id"]]


def test_its_machine_is_let_to_nobody_else(market: PodMarket) -> None:
    before = set(market.offers())
    made = market.make()
    machine = market.market.books.machine_of(number_of(made["id"]))
    assert set(market.offers()) == before - {machine.offer_id}


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"gpuTypeIds": ["NVIDIA B200"]}, 500, "no longer any instances"),
        ({"gpuCount": 0}, 400, "gpuCount"),
        ({"gpuCount": True}, 400, "gpuCount"),
        ({"interruptible": "yes"}, 400, "interruptible"),
        ({"templateId": "30zmvf89kd"}, 400, "templateId"),
        ({"ports": ["22/udp"]}, 400, "ports"),
        ({"ports": ["80/tcp", "80/http"]}, 400, "ports"),
        ({"env": {"-v V.1:/x": "1"}}, 400, "env"),
        ({"volumeMountPath": "/etc"}, 400, "volumeMountPath"),
        ({"networkVolumeId": "nv00000001"}, 404, "network volume"),
        ({"networkVolumeId": "../../x"}, 400, "networkVolumeId"),
        ({"imageName": ""}, 400, "imageName"),
        ({"name": "n" * 192}, 400, "name"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(
    market: PodMarket, changes: dict[str, Any], status: int, word: str
) -> None:
    answered, body = market.ask("POST", "/v1/pods", {**BODY, **changes})
    assert answered == status
    assert body["status"] == status
    assert word in body["error"]
    assert market.pods() == []


@pytest.mark.parametrize("key", ["", "wrong", "k3y-that-must-never-be-see"])
def test_another_key_is_a_401(market: PodMarket, key: str) -> None:
    for method, path in (("GET", "/v1/pods"), ("POST", "/v1/pods"), ("DELETE", "/v1/networkvolumes/nv00000001")):
        assert market.request(method, path, dict(BODY), key=key).status == 401
    assert market.pods() == []


def test_a_stop_keeps_the_volume_and_a_start_moves_the_ports(market: PodMarket) -> None:
    made = market.make()
    folder = market.market.books.directory.volumes / f"pod-{number_of(made['id'])}"
    (folder / "results").write_text("seven")
    before = market.show(made["id"])["portMappings"]
    assert market.ask("POST", f"/v1/pods/{made['id']}/stop")[1]["desiredStatus"] == "EXITED"
    resting = market.show(made["id"])
    assert (resting["publicIp"], resting["portMappings"]) == ("", {})
    market.clock.now += 60
    assert market.ask("POST", f"/v1/pods/{made['id']}/start")[0] == 200
    after = market.show(made["id"])
    assert after["desiredStatus"] == "RUNNING"
    assert not set(after["portMappings"].values()) & set(before.values())
    assert after["lastStartedAt"] > made["lastStartedAt"]
    assert (folder / "results").read_text() == "seven"
    assert market.ask("DELETE", f"/v1/pods/{made['id']}") == (204, "")
    assert not folder.exists()
    assert market.ask("GET", f"/v1/pods/{made['id']}")[0] == 404


def test_every_start_wipes_the_container_disk_but_the_first(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, wiped = market.market.boxes._engine, []
    monkeypatch.setattr(engine, "destroy", wiped.append)
    made = market.make()
    assert wiped == []
    market.ask("POST", f"/v1/pods/{made['id']}/stop")
    market.ask("POST", f"/v1/pods/{made['id']}/start")
    (spec,) = wiped
    assert isinstance(spec, BoxSpec)
    assert [path for _folder, path in spec.volumes] == ["/workspace"]
    assert spec.environment["RUNPOD_POD_ID"] == made["id"]
    assert not any(name.startswith("VAST") for name in spec.environment)


def _spent(market: PodMarket, hours: float) -> float:
    before = market.market.money.bill()["total"]
    market.clock.now += hours * HOUR_S
    return float(market.market.money.bill()["total"]) - before


def test_a_stopped_volume_disk_bills_double_and_a_container_disk_nothing(market: PodMarket) -> None:
    made = market.make(containerDiskInGb=72, volumeInGb=144)
    running = _spent(market, 10)
    assert running == pytest.approx(10 * (made["costPerHr"] + (72 + 144) * 0.10 / 720))
    market.ask("POST", f"/v1/pods/{made['id']}/stop")
    assert _spent(market, 10) == pytest.approx(10 * 144 * 0.20 / 720)
    market.ask("POST", f"/v1/pods/{made['id']}/start")
    assert _spent(market, 10) == pytest.approx(running)
    market.ask("DELETE", f"/v1/pods/{made['id']}")
    assert _spent(market, 10) == 0


def test_a_resume_may_come_back_without_a_gpu(market: PodMarket) -> None:
    made = market.make()
    market.ask("POST", f"/v1/pods/{made['id']}/stop")
    market.inject("zero_gpu", "change", seconds=600.0)
    started = market.ask("POST", f"/v1/pods/{made['id']}/start")[1]
    assert (started["desiredStatus"], started["gpu"]["count"], started["costPerHr"]) == ("RUNNING", 0, 0)
    market.ask("POST", f"/v1/pods/{made['id']}/stop")
    market.sleep(601)
    again = market.ask("POST", f"/v1/pods/{made['id']}/start")[1]
    assert (again["gpu"]["count"], again["costPerHr"]) == (1, made["costPerHr"])


def test_a_resume_is_refused_while_the_machine_is_anothers(market: PodMarket) -> None:
    made = market.make()
    books = market.market.books
    market.ask("POST", f"/v1/pods/{made['id']}/stop")
    rival = {"image": "debian:12", "disk": 10, "label": "a rival"}
    offer = books.machine_of(number_of(made["id"])).offer_id
    refused = market.request("PUT", f"/api/v0/asks/{offer}/", rival)
    assert refused.status == 404  # the stopped pod still is a tenant of its machine
    instance = books.instance(number_of(made["id"]))
    books.put(replace(instance, id=31_999_999, pod=None, phase=Phase.RUNNING, wants_card=True))
    status, body = market.ask("POST", f"/v1/pods/{made['id']}/start")
    assert (status, "not enough free GPUs" in body["error"]) == (500, True)
    assert market.show(made["id"])["desiredStatus"] == "EXITED"


def test_a_network_volume_outlives_the_pods_and_keeps_them_to_its_data_center(market: PodMarket) -> None:
    center = _place_of_two(market)
    market.make(gpuTypeIds=[], dataCenterIds=[center])
    volume = market.ask("POST", "/v1/networkvolumes", {"name": "data", "size": 100, "dataCenterId": center})[1]
    assert set(volume) == {"id", "name", "size", "dataCenterId"}
    refused = market.ask("POST", "/v1/networkvolumes", {"name": "data", "size": 4001, "dataCenterId": center})
    assert refused[0] == 400
    assert market.ask("POST", "/v1/networkvolumes", {"name": "x", "size": 1, "dataCenterId": "XX"})[0] == 400
    status, body = market.ask("POST", "/v1/pods", {**BODY, "gpuTypeIds": [], "networkVolumeId": volume["id"]})
    assert status == 201, body
    pod = body["id"]
    assert body["volumeInGb"] == 0
    whole = market.ask("GET", f"/v1/pods/{pod}", query="includeNetworkVolume=true&includeMachine=true")[1]
    assert whole["networkVolume"] == volume
    assert whole["machine"]["dataCenterId"] == center
    assert market.ask("DELETE", f"/v1/networkvolumes/{volume['id']}")[0] == 400
    market.ask("DELETE", f"/v1/pods/{pod}")
    assert market.ask("GET", "/v1/networkvolumes")[1] == [volume]
    assert market.ask("DELETE", f"/v1/networkvolumes/{volume['id']}")[0] == 204
    assert market.ask("GET", "/v1/networkvolumes")[1] == []


def _place_of_two(market: PodMarket) -> str:
    """A data center with two machines at least."""
    places = [DATA_CENTERS[one.geolocation] for one in market.market.books.machines if one.hosting_type == 0]
    return next(place for place in places if places.count(place) >= 2)


def test_volumes_of_the_two_sides_do_not_mix(market: PodMarket) -> None:
    made = market.ask("POST", "/v1/networkvolumes", {"name": "data", "size": 100, "dataCenterId": "EU-SE-1"})[1]
    assert market.request("GET", "/api/v0/volumes", {}, "type=all_volume").body["volumes"] == []
    refused = market.request("DELETE", "/api/v0/volumes/", {}, f"id={number_of(made['id'])}")
    assert refused.status == 404
    assert market.ask("GET", f"/v1/networkvolumes/{made['id']}") == (200, made)
    assert _spent(market, 720) == pytest.approx(100 * 0.07)


@pytest.mark.parametrize(("size", "dollars"), [(1, 0.07), (1000, 70.0), (1001, 70.05), (4000, 220.0)])
def test_a_network_volume_costs_less_above_a_terabyte(size: int, dollars: float) -> None:
    assert network_volume_rate(size) * size == pytest.approx(dollars)


def test_without_a_public_address_there_is_no_port(market: PodMarket) -> None:
    made = market.make(supportPublicIp=False)
    shown = market.show(made["id"])
    assert (shown["publicIp"], shown["portMappings"]) == ("", {})


@pytest.mark.parametrize("number", [1, 31_000_001, 36**7])
def test_ids_can_be_read_back(number: int) -> None:
    assert number_of(pod_id(number)) == number
    assert len(pod_id(number)) == 14
    assert number_of(volume_id(number)) == number


@pytest.mark.parametrize("text", ["", "pod", "pod00000000000000", "nv-0000001", "POD0000000000A", "pod0000000000é"])
def test_what_is_no_id_is_none(text: str) -> None:
    assert number_of(text) == 0


def test_pods_outlive_the_server(tmp_path: Path) -> None:
    market = PodMarket(tmp_path)
    made = market.make()
    before = state_as_dict(market.market.books.state)
    assert state_as_dict(state_from_dict(before)) == before
    market.market.books.flush()
    again = StateDirectory(tmp_path).load(0)
    assert again.instances[number_of(made["id"])].pod == market.market.books.instance(number_of(made["id"])).pod


@pytest.mark.parametrize("kind", ["lost_answer", "lost_request", "server_error", "garbled"])
def test_faults_strike_a_create_and_its_effect_is_as_written(tmp_path: Path, kind: str) -> None:
    market = PodMarket(tmp_path, {"kind": kind, "call": "create"})
    reply = market.request("POST", "/v1/pods", dict(BODY))
    assert len(market.pods()) == (kind in ("lost_answer", "garbled"))
    assert reply.cut or reply.status == 503 or isinstance(reply.body, bytes)


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ({"kind": "empty_list"}, []),
        ({"kind": "partial_list"}, 1),
        ({"kind": "malformed_list", "shape": "no_list"}, None),
        ({"kind": "malformed_list", "shape": "no_key"}, {}),
        ({"kind": "malformed_list", "shape": "no_ids"}, 2),
    ],
)
def test_faults_strike_bare_lists(tmp_path: Path, fault: dict[str, Any], left: object) -> None:
    market = PodMarket(tmp_path, {"call": "list", **fault})
    market.make()
    market.make(gpuTypeIds=[])
    status, rows = market.ask("GET", "/v1/pods")
    assert status == 200
    assert (len(rows) if isinstance(left, int) else rows) == left
    if fault.get("shape") == "no_ids":
        assert [row["id"] for row in rows] == [None, None]


def test_a_fault_of_state_happens_to_the_pod_that_a_call_is_about(market: FaultyMarket) -> None:
    assert isinstance(market, PodMarket)
    first, second = market.make(), market.make(gpuTypeIds=[])
    market.inject("host_offline", "show", seconds=60.0)
    assert market.show(second["id"])["publicIp"] == ""
    assert market.show(first["id"])["publicIp"] == "127.0.0.1"


def test_over_http_a_termination_has_no_body(market: PodMarket) -> None:
    made = market.make()
    application = build_application(market.api, market.market)

    async def ask(method: str, path: str) -> httpx.Response:
        transport, headers = httpx.ASGITransport(application), {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://market", headers=headers) as client:
            return await client.request(method, path)

    assert asyncio.run(ask("GET", "/v1/pods")).json()[0]["id"] == made["id"]
    gone = asyncio.run(ask("DELETE", f"/v1/pods/{made['id']}"))
    assert (gone.status_code, gone.content) == (204, b"")
    assert asyncio.run(ask("GET", f"/v1/pods/{made['id']}")).status_code == 404

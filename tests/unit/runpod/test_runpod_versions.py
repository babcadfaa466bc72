# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which version of RunPod's REST is spoken, and what one alone does. All else is in test_runpod_pod.py, twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import RestError
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.api import RunpodClient
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.generations import GENERATIONS, pod_as_first
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.transformations import to_pod
from pod_market import GPU, PodMarket
from wire_market import KEY

from gpu_tenant.marketplace.replies import Reply
from gpu_tenant.marketplace.runpod.terms import pod_id

SECOND = {
    "name": "a pod", "image": "debian:12", "gpu": {"id": GPU, "count": 1}, "disk": 20, "cloud": "COMMUNITY",
    "ports": ["22/tcp"], "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
}  # fmt: skip


@pytest.fixture
def market(tmp_path: Path) -> PodMarket:
    return PodMarket(tmp_path, version="")


# --- the probe -----------------------------------------------------------------------------------------------------


def test_the_newer_version_is_spoken_where_it_is(market: PodMarket) -> None:
    client = market.pod_client()
    assert client.list_instances() == client.list_volumes() == []
    assert [path for _verb, path in market.sent] == ["/v2/pods", "/v2/pods", "/v2/network-volumes"]


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_the_older_one_where_the_newer_is_not(market: PodMarket, status: int) -> None:
    market.not_served["/v2"] = status
    made = market.bring("started")
    assert made["pod"]["state"] == "running"
    assert {path.split("/")[1] for verb, path in market.sent if verb != "GET"} == {"v1"}


def test_a_retired_older_one_is_nobody_s_concern(market: PodMarket) -> None:
    market.not_served["/v1"] = 410
    assert market.bring("started")["pod"]["state"] == "running"


def test_a_server_that_is_ill_is_not_taken_for_an_old_one(market: PodMarket) -> None:
    market.inject("server_error", "list", times=None, status=503)
    with pytest.raises(RestError) as failure:
        market.pod_client().list_instances()
    assert failure.value.status == 503
    assert market.count("GET", "^/v1") == 0


def test_another_key_is_said_at_once(market: PodMarket) -> None:
    client = RunpodClient("another", "http://127.0.0.1:1", opener=market, sleep=market.sleep, clock=market.clock)
    with pytest.raises(TenantFailure, match="refused the key"):
        client.list_instances()
    assert market.count("GET", "^/v1") == 0


def test_where_neither_is_it_says_so(market: PodMarket) -> None:
    market.not_served.update({"/v1": 404, "/v2": 404})
    with pytest.raises(TenantFailure, match="neither version of RunPod's REST") as failure:
        market.pod_client().list_instances()
    assert failure.value.kind == "config"


def test_creates_of_one_account_wait_for_each_other_by_whichever_version() -> None:
    places = ("https://api.runpod.io", "https://api.runpod.io/v2", "https://rest.runpod.io/v1")
    assert len({RunpodClient(KEY, place).account for place in places}) == 1
    assert RunpodClient(KEY, "http://127.0.0.1:1").account != RunpodClient(KEY).account


# --- what version 2 alone does -------------------------------------------------------------------------------------


def test_one_card_a_create_and_the_next_only_after_a_certain_refusal(market: PodMarket) -> None:
    made = market.bring("started", gpu_types=("NVIDIA B200", GPU))
    assert made["pod"]["gpu_type"] == GPU
    assert market.count("POST", "^/v2/pods$") == 2
    assert len(market.pods()) == 1


@pytest.mark.parametrize("fault", [{"kind": "lost_answer"}, {"kind": "server_error", "status": 500, "done": True}])
def test_a_lost_create_is_not_followed_by_one_of_another_card(market: PodMarket, fault: dict[str, Any]) -> None:
    market.inject(call="create", **fault)
    market.bring("started", gpu_types=(GPU, "NVIDIA RTX A6000"))
    assert market.count("POST", "^/v2/pods$") == 1
    assert len(market.pods()) == 1


def test_the_words_of_a_command_come_through_one_text(market: PodMarket) -> None:
    words = ("bash", "-lc", "echo 'a b' \"$HOME\"; sleep 1")
    made = market.bring("started", start_command=words)["pod"]["provider_id"]
    first = market.request("GET", f"/v2/pods/{made}", {}).body["args"]
    assert market.bring("absent")["changed"]
    market.version = "/v1"
    again = market.bring("started", start_command=words)["pod"]["provider_id"]
    assert market.request("GET", f"/v2/pods/{again}", {}).body["args"] == first


def test_a_pod_elsewhere_than_asked_is_given_back(market: PodMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """RP7: version 2 takes data centers for a wish."""
    sent = market.request

    def careless(method: str, path: str, body: dict[str, Any], *rest: Any, **more: Any) -> Any:
        wish = {name: value for name, value in body.items() if name != "dataCenterIds"}
        return sent(method, path, wish, *rest, **more)

    monkeypatch.setattr(market, "request", careless)
    with pytest.raises(TenantFailure, match="was asked for") as failure:
        market.bring("started", data_centers=("XX-1",))
    assert failure.value.safe == "nothing of it is left"
    assert market.pods() == []


def test_a_volume_disk_below_the_least_is_refused_before_anything_is_sent(market: PodMarket) -> None:
    with pytest.raises(TenantFailure, match="10 GB at least"):
        market.bring("started", volume_gb=9)
    assert market.count("POST", ".") == 0


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"imageName": "x"}, 422, "imageName"),
        ({"name": ""}, 422, "name"),
        ({"image": None}, 400, "image"),
        ({"gpu": {"id": GPU, "gpuCount": 1}}, 422, "gpuCount"),
        ({"gpu": [GPU]}, 422, "gpu"),
        ({"gpu": {"id": "NVIDIA B200"}}, 400, "no longer any instances"),
        (
            {"mounts": {"persistent": {"size": 20, "path": "/w"}, "network": [{"volumeId": "v", "path": "/w"}]}},
            400,
            "excl",
        ),
        ({"mounts": {"persistent": {"size": 9, "path": "/w"}}}, 422, "size"),
        ({"mounts": {"network": [{"volumeId": "v"}]}}, 422, "path"),
        ({"mounts": {"network": [1, 2]}}, 422, "network"),
        ({"args": "bash -c 'x"}, 400, "args"),
        ({"templateId": "t"}, 400, "templateId"),
    ],
)
def test_what_cannot_be_made_is_a_problem_with_a_detail(
    market: PodMarket, changes: dict[str, Any], status: int, word: str
) -> None:
    answered, body = market.ask("POST", "/v2/pods", {**SECOND, **changes})
    assert (answered, body["status"]) == (status, status)
    assert set(body) - {"errors"} == {"title", "status", "detail"}
    assert word in " ".join([body["detail"], *body.get("errors", [])])
    assert market.pods() == []


def test_transitions_that_are_not_open_are_a_409(market: PodMarket) -> None:
    pod = market.ask("POST", "/v2/pods", dict(SECOND))[1]["id"]
    act = f"/v2/pods/{pod}/action"
    assert market.ask("GET", f"/v2/pods/{pod}")[1]["actions"] == ["stop", "restart", "terminate"]
    assert market.ask("POST", act, {"action": "start"})[0] == 409
    assert market.ask("POST", act, {"action": "reset"})[0] == 422
    assert market.ask("POST", act, {"action": "stop"})[1]["status"] == "EXITED"
    assert market.ask("GET", f"/v2/pods/{pod}")[1]["cost"] == 0.0
    assert market.ask("POST", act, {"action": "stop"})[0] == 409
    assert market.ask("POST", act, {"action": "terminate"}) == (204, "")
    assert market.ask("POST", f"/v2/pods/{pod_id(7)}/action", {"action": "stop"})[0] == 404


def test_without_mounts_there_is_no_storage(market: PodMarket) -> None:
    made = market.ask("POST", "/v2/pods", {name: value for name, value in SECOND.items() if name != "mounts"})[1]
    assert made["mounts"] == {}
    assert to_pod(pod_as_first(made)).volume_gb == 0


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_pod_reads_the_same_in_both(market: PodMarket) -> None:
    made = market.make(env={"A": "1"})["id"]
    first, second = (RunpodClient(KEY, f"http://127.0.0.1:1/{one}", opener=market) for one in ("v1", "v2"))
    one, two = (to_pod(client.get_instance(made) or {}) for client in (first, second))
    # The machine and the name of the card are not told by version 2, and its states are its own.
    apart = {"machine": "", "gpu_name": "", "status_msg": ""}
    assert replace(one, **apart) == replace(two, **apart)
    assert [pod["id"] for pod in second.list_instances()] == [made]


@pytest.mark.parametrize(
    ("row", "gpus"),
    [
        ({"gpu": {"id": GPU, "count": 2}, "runtime": {"gpus": [{"util": 0}]}}, 1),
        ({"gpu": {"id": GPU, "count": 2}, "runtime": {"gpus": []}}, 2),  # late, perhaps
        ({"gpu": {"id": GPU, "count": 2}, "runtime": None}, 2),
        ({"gpu": {"id": GPU}}, 1),
        ({}, 0),
        ({"gpu": None}, None),
    ],
)
def test_how_many_gpus_a_pod_has(row: dict[str, Any], gpus: int | None) -> None:
    assert to_pod(pod_as_first({"id": "x", "status": "RUNNING", **row})).num_gpus == gpus


@pytest.mark.parametrize("junk", [None, 7, "x", [], {"status": 1, "gpu": [], "mounts": 3, "ssh": "y", "runtime": []}])
@pytest.mark.parametrize("version", GENERATIONS)
def test_rows_that_are_none_are_not_taken_for_one(version: Any, junk: Any) -> None:
    version.row(junk)
    version.rows(junk, "/pods")
    if isinstance(junk, dict):
        assert to_pod({**pod_as_first(junk), "id": "x"}).state == "unknown"


def test_a_pod_in_an_error_is_said_to_be(market: PodMarket) -> None:
    pod = to_pod(pod_as_first({"id": "x", "status": "ERROR", "ports": ["22/tcp"]}))
    assert "error" in market.account().watch(pod)(pod)


def test_a_network_volume_that_is_not_there_rents_nothing(market: PodMarket) -> None:
    with pytest.raises(TenantFailure, match="no network volume"):
        market.bring("started", network_volume="nv00000001")
    assert market.count("POST", ".") == 0


def test_a_network_volume_elsewhere_rents_nothing(market: PodMarket) -> None:
    body = {"name": "data", "size": 20, "dataCenter": "EU-SE-1"}
    volume = market.ask("POST", "/v2/network-volumes", body)[1]["id"]
    with pytest.raises(TenantFailure, match="never leaves") as failure:
        market.bring("started", network_volume=volume, data_centers=("US-TX-3",))
    assert failure.value.kind == "config"
    assert market.count("POST", ".") == 0


# --- the stop that RunPod does by itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["/v1", "/v2", ""])
def test_a_dead_man_s_stop_is_said_at_the_create_and_comes(tmp_path: Path, version: str) -> None:
    pytest.importorskip("graphql", reason="the marketplace answers GraphQL by it")
    market = PodMarket(tmp_path, version=version)
    predicted = market.bring("started", check=True, stop_after_s=3600)
    assert predicted["would"]["clocks"]["stops_by_itself_after_s"] == 3600
    made = market.bring(
        "started", gpu_types=("NVIDIA B200", GPU), stop_after_s=3600, start_command=("bash", "-c", "a b")
    )
    assert (market.count("POST", "^/graphql$"), market.count("POST", "pods$"), len(market.pods())) == (2, 0, 1)
    assert market.show(made["pod"]["provider_id"])["env"]["TENANT_STAMP"] == made["stamp"]
    assert "RunPod itself stops pod" in made["warnings"][0]
    again = market.bring("started")
    assert (again["changed"], "in 1.0 hours" in again["warnings"][0]) == (False, True)
    market.sleep(3700)
    stopped = market.bring("present")
    assert (stopped["pod"]["state"], stopped.get("warnings", [])) == ("stopped", [])
    started = market.bring("started")
    assert (started["pod"]["state"], started.get("warnings", [])) == ("running", [])


@pytest.mark.parametrize("fault", [{"kind": "lost_answer"}, {"kind": "server_error", "status": 500, "done": True}])
def test_a_lost_create_with_a_dead_man_s_stop_is_found_and_known(market: PodMarket, fault: dict[str, Any]) -> None:
    pytest.importorskip("graphql", reason="the marketplace answers GraphQL by it")
    market.inject(call="create", **fault)
    made = market.bring("started", stop_after_s=3600)
    assert (market.count("POST", "^/graphql$"), len(market.pods())) == (1, 1)
    assert "RunPod itself stops pod" in made["warnings"][0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stop_after_s": 599}, "within 600 s"),
        ({"stop_after_s": -1}, "within 600 s"),
        ({"stop_after_s": 3600, "mount_path": "/data"}, "would wipe the results"),
    ],
)
def test_a_stop_that_would_lose_results_or_comes_at_once_is_refused(
    market: PodMarket, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(TenantFailure, match=word) as failure:
        market.bring("started", **changes)
    assert failure.value.kind == "config"
    assert market.count("POST", ".") == 0


def test_graphql_that_refuses_for_another_reason_is_searched_for_its_stamp(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = market.request

    def refusing(method: str, path: str, *rest: Any, **more: Any) -> Any:
        if path == "/graphql":
            return Reply(
                200, {"errors": [{"message": "Something went wrong"}], "data": {"podFindAndDeployOnDemand": None}}
            )
        return sent(method, path, *rest, **more)

    monkeypatch.setattr(market, "request", refusing)
    with pytest.raises(TenantFailure, match="Something went wrong; no pod with its stamp came of it"):
        market.bring("started", gpu_types=(GPU, "NVIDIA L40S"), stop_after_s=3600)
    assert market.count("POST", "^/graphql$") == 1

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's GraphQL on the marketplace: what its Python SDK sends, as it sends it, and what else is asked there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pod_market import GPU, PodMarket

from gpu_tenant.marketplace.runpod.terms import number_of

pytest.importorskip("graphql", reason="graphql-core is a dependency of the marketplace")
# Recorded from the released SDK by tests/integration/runpod_sdk_tenant.py, with POD and VOLUME in the place of ids.
SENT: list[str] = json.loads(Path(__file__).with_name("sdk_requests.json").read_text())["queries"]
DEPLOY = "mutation($input: PodFindAndDeployOnDemandInput) { podFindAndDeployOnDemand(input: $input) { id } }"
INPUT = {
    "name": "a pod", "imageName": "runpod/pytorch:2.8.0", "gpuTypeId": GPU, "cloudType": "ALL", "volumeInGb": 20,
    "containerDiskInGb": 20, "ports": "22/tcp",
}  # fmt: skip


@pytest.fixture
def market(tmp_path: Path) -> PodMarket:
    return PodMarket(tmp_path)


def ask(market: PodMarket, query: str, **variables: Any) -> Any:
    """The data of an answer that has no errors."""
    reply = market.request("POST", "/graphql", {"query": query, "variables": variables})
    assert (reply.status, reply.body.get("errors")) == (200, None)
    return json.loads(json.dumps(reply.body["data"]))


def refusal(market: PodMarket, query: str, **variables: Any) -> tuple[int, str]:
    reply = market.request("POST", "/graphql", {"query": query, "variables": variables})
    (error,) = reply.body["errors"]
    return reply.status, f"{error['extensions']['code']}: {error['message']}"


def deploy(market: PodMarket, **changes: Any) -> str:
    made: str = ask(market, DEPLOY, input={**INPUT, **changes})["podFindAndDeployOnDemand"]["id"]
    return made


def phase_of(market: PodMarket, pod: str) -> str:
    return next((one["phase"] for one in market.pods() if one["id"] == number_of(pod)), "gone")


def test_what_the_released_sdk_sends_is_answered_as_it_expects(market: PodMarket) -> None:
    """In the SDK's own order: the account, the catalogue, the life of a pod, a volume that is attached."""
    body = {"name": "data", "size": 20, "dataCenterId": "EU-SE-1"}
    volume = market.ask("POST", "/v1/networkvolumes", body)[1]["id"]
    pod, told = "", []
    for query in SENT:
        reply = market.request("POST", "/graphql", {"query": query.replace("POD", pod).replace("VOLUME", volume)})
        (name, value), *others = (reply.body.get("data") or {"errors": None}).items()
        assert others == []
        if name == "podFindAndDeployOnDemand":
            pod = value["id"]
        told.append((name, value, [one["message"] for one in reply.body.get("errors", [])]))

    names = [name for name, _value, _errors in told]
    deploys = [value for name, value, _errors in told if name == "podFindAndDeployOnDemand"]
    assert set(deploys[0]) == {"id", "imageName", "env", "machineId", "machine"}
    assert deploys[0]["env"] == ["GIVEN=yes"]
    before, listed, _afterwards = [
        value["pods"] for name, value, _errors in told if name == "myself" and "pods" in value
    ]
    assert (before, [one["id"] for one in listed]) == ([], [deploys[0]["id"]])
    assert (listed[0]["gpuCount"], listed[0]["ports"], listed[0]["podType"]) == (1, "8888/http,22/tcp", "RESERVED")
    shown, resting, gone = [value for name, value, _errors in told if name == "pod"]
    assert shown["runtime"]["ports"][0]["privatePort"] == 22
    assert (resting["desiredStatus"], resting["runtime"]) == ("EXITED", None)
    assert gone is None or gone["desiredStatus"] == "TERMINATED"
    assert names.count("podTerminate") == 2
    refused = [errors for _name, value, errors in told if value is None and errors]
    assert [one[0].split(":")[0] for one in refused] == ["gpuCount", "deployCpuPod"]
    assert market.pods() == []


def test_a_pod_is_the_same_by_graphql_and_by_rest(market: PodMarket) -> None:
    pod = deploy(market, env=[{"key": "A", "value": "1"}], dockerArgs="bash -c 'sleep 1'")
    row = market.show(pod)
    assert (row["env"], row["name"], row["desiredStatus"]) == ({"A": "1"}, "a pod", "RUNNING")
    ask(market, "mutation($pod: String!) { podStop(input: {podId: $pod}) { id } }", pod=pod)
    assert market.show(pod)["desiredStatus"] == "EXITED"
    made = market.make(gpuTypeIds=["NVIDIA GeForce RTX 3090"])
    seen = ask(market, "{ myself { pods { id name } } }")["myself"]["pods"]
    assert sorted(one["id"] for one in seen) == sorted([pod, made["id"]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpuTypeId": "NVIDIA B200"}, "RUNPOD: There are no longer any instances"),
        ({"gpuTypeId": None}, "gpuTypeId"),
        ({"ports": "22/udp"}, "ports"),
        ({"templateId": "runpod-ubuntu"}, "templateId: not simulated"),
        ({"networkVolumeId": "nv00000001"}, "network volume not found"),
        ({"dockerArgs": "bash -c 'x"}, "dockerArgs"),
        ({"stopAfter": "tomorrow"}, "stopAfter"),
        ({"imageName": ""}, "imageName"),
    ],
)
def test_refusals_stand_in_errors_with_a_200(market: PodMarket, changes: dict[str, Any], words: str) -> None:
    status, said = refusal(market, DEPLOY, input={**INPUT, **changes})
    assert status == 200
    assert words in said
    assert market.pods() == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ myself { id ", "GRAPHQL_PARSE_FAILED"),
        ("{ myself { nothing } }", "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { podStop(input: {}) { id } }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
def test_what_is_no_request_of_the_schema_is_a_400(market: PodMarket, query: str, code: str) -> None:
    status, said = refusal(market, query)
    assert (status, said.partition(":")[0]) == (400, code)


@pytest.mark.parametrize("body", [{}, {"query": 7}, {"query": "{ myself { id } }", "variables": []}])
def test_a_body_without_a_query_is_a_400(market: PodMarket, body: dict[str, Any]) -> None:
    status = market.request("POST", "/graphql", body).status
    assert status == (200 if body.get("variables") == [] else 400)  # no variables, however they are written


def test_another_key_is_a_401(market: PodMarket) -> None:
    reply = market.request("POST", "/graphql", {"query": SENT[0]}, key="another")
    assert (reply.status, reply.body["errors"][0]["message"][:12]) == (401, "Unauthorized")


def test_the_account_s_keys_are_set_and_read(market: PodMarket) -> None:
    key = "ssh-ed25519 AAAA sdk"
    query = "mutation($key: String) { updateUserSettings(input: {pubKey: $key}) { id pubKey } }"
    assert ask(market, query, key=f"{key}\n\nssh-rsa BBBB two\n")["updateUserSettings"]["pubKey"].count("\n") == 1
    ask(market, query, key=key)
    assert ask(market, "{ myself { pubKey clientBalance } }")["myself"]["pubKey"] == key


def test_a_missing_pod_is_null_to_a_question_and_an_error_to_a_verb(market: PodMarket) -> None:
    assert ask(market, '{ pod(input: {podId: "nothing"}) { id } }') == {"pod": None}
    status, said = refusal(market, 'mutation { podTerminate(input: {podId: "nothing"}) }')
    assert (status, said) == (200, "RUNPOD: pod not found")


@pytest.mark.parametrize(
    ("call", "query"),
    [
        ("list", "{ myself { pods { id } } }"),
        ("user", "{ myself { id } }"),
        ("search", "{ gpuTypes { id } }"),
        ("create", DEPLOY),
    ],
)
def test_faults_strike_by_what_is_asked(market: PodMarket, call: str, query: str) -> None:
    market.inject("rate_limited", call)
    for name in ("list", "user", "search", "create"):
        if name != call:
            market.inject("server_error", name, status=502)
    assert market.request("POST", "/graphql", {"query": query, "variables": {"input": INPUT}}).status == 429


def test_faults_of_state_happen_to_the_pod_that_is_named(market: PodMarket) -> None:
    pod, other = deploy(market), deploy(market)
    ask(market, "mutation($pod: String!) { podStop(input: {podId: $pod}) { id } }", pod=pod)
    market.inject("zero_gpu", "change", instance=number_of(pod), seconds=600.0)
    query = "mutation($pod: String!) { podResume(input: {podId: $pod, gpuCount: 1}) { gpuCount } }"
    assert ask(market, query, pod=pod)["podResume"]["gpuCount"] == 0
    assert ask(market, query, pod=other)["podResume"]["gpuCount"] == 1


def test_a_list_that_a_fault_empties_is_empty(market: PodMarket) -> None:
    deploy(market)
    market.inject("empty_list", "list")
    query = "{ myself { pods { id } } }"
    assert ask(market, query)["myself"]["pods"] == []
    assert len(ask(market, query)["myself"]["pods"]) == 1


def test_stop_after_stops_a_pod_once_and_terminate_after_ends_it(market: PodMarket) -> None:
    from datetime import UTC, datetime

    now = market.market.clock.now()
    first, last = (datetime.fromtimestamp(now + seconds, UTC).isoformat() for seconds in (600, 7200))
    pod = deploy(market, stopAfter=first, terminateAfter=last)
    market.sleep(590)
    assert phase_of(market, pod) == "running"
    market.sleep(20)
    assert phase_of(market, pod) == "stopped"
    market.ask("POST", f"/v1/pods/{pod}/start")
    market.sleep(60)
    assert phase_of(market, pod) == "running"
    market.sleep(7200)
    assert market.pods() == []
    assert not (market.market.books.directory.volumes / f"pod-{number_of(pod)}").exists()

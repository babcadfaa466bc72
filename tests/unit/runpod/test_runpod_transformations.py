# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From RunPod's rows to pods: tables, whatever a row may hold, and rows that mean harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import current_and_superseded
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.api import RunpodClient
from ansible_collections.tenant.gpu.plugins.module_utils.runpod.transformations import (
    endpoint_of,
    epoch_of,
    pod_result,
    to_pod,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_market import KEY

STAMP = "gt1/digits/pod-a/g1/0123456789abcdef"
ROW: dict[str, Any] = {
    "id": "xedezhzb9la3ye",
    "name": STAMP,
    "image": "runpod/pytorch:2.8.0",
    "env": {"TENANT_STAMP": STAMP},
    "desiredStatus": "RUNNING",
    "lastStartedAt": "2024-07-12T19:14:40.144Z",
    "costPerHr": 0.74,
    "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1, "displayName": "RTX 4090"},
    "machineId": "s194cr8pls2z",
    "containerDiskInGb": 72,
    "volumeInGb": 144,
    "volumeMountPath": "/workspace",
    "ports": ["8888/http", "22/tcp"],
    "publicIp": "100.65.0.119",
    "portMappings": {"22": 10341},
}

HOSTS = [
    "-oProxyCommand=touch /tmp/x", "-lroot", "a b", "a\nb", "$(id)", "`id`", "{{ lookup('pipe', 'id') }}", "a;id",
    "a|b", "user@host", "fe80::1%eth0", "host/../x", "é.example", "a" * 254, ["100.65.0.119"],
    {"ip": "1.2.3.4"}, 7, True,
]  # fmt: skip
PORTS = [0, -1, 65536, "22 -oProxyCommand=id", "0x16", "22\n", 22.0, True, [22], {"22": 1}, "٢٢"]


@pytest.mark.parametrize(
    ("changes", "state", "intended", "leaving"),
    [
        ({}, "running", "running", False),
        ({"publicIp": ""}, "loading", "running", False),
        ({"publicIp": None, "portMappings": None}, "loading", "running", False),
        ({"portMappings": {"8000": 10342}}, "loading", "running", False),
        ({"desiredStatus": "EXITED"}, "stopped", "stopped", False),
        ({"desiredStatus": "TERMINATED"}, "unknown", "", True),
        ({"desiredStatus": "RESTARTING"}, "unknown", "", False),
        ({"desiredStatus": None}, "unknown", "", False),
    ],
)
def test_states(changes: dict[str, Any], state: str, intended: str, leaving: bool) -> None:
    pod = to_pod({**ROW, **changes})
    assert (pod.state, pod.intended, pod.is_leaving) == (state, intended, leaving)
    assert bool(pod.host) is (state == "running")


def test_prices_hold_the_disks() -> None:
    pod = to_pod(ROW)
    assert pod.dph_total == pytest.approx(0.74 + (72 + 144) * 0.10 / 720)
    assert pod.storage_per_hour == pytest.approx(144 * 0.20 / 720)
    assert to_pod({**ROW, "costPerHr": "0.74"}).dph_total == pod.dph_total


@pytest.mark.parametrize("cost", [None, "free", "", -1, True, float("nan"), float("inf"), {}, "1e9"])
def test_an_unknown_price_is_not_0(cost: object) -> None:
    assert to_pod({**ROW, "costPerHr": cost}).dph_total is None


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, True),
        ({"volumeInGb": 0}, False),
        ({"volumeInGb": None}, False),
        ({"volumeInGb": "x"}, False),
        ({"volumeInGb": 0, "networkVolume": {"id": "agv6w2qcg7"}}, True),
        ({"volumeInGb": 0, "networkVolume": None}, False),
    ],
)
def test_only_a_volume_keeps_the_data_folder_over_a_stop(changes: dict[str, Any], keeps: bool) -> None:
    assert to_pod({**ROW, "volumeMountPath": "/workspace", **changes}).keeps("/workspace") is keeps


@pytest.mark.parametrize(
    ("mount", "folder", "keeps"),
    [
        ("/workspace", "/workspace", True),
        ("/workspace/", "/workspace/data", True),
        ("/data", "/workspace", False),
        ("/work", "/workspace", False),  # a name that begins so is another folder
        ("/workspace/data", "/workspace", False),
        ("/workspace", "/workspace/../root", False),
        ("/workspace", "workspace", False),
        ("/workspace", "", False),
        ("", "/workspace", False),
        (None, "/workspace", False),
        (7, "/workspace", False),
        ("/", "/workspace", False),  # what wipes the root is no volume of ours
        ("../workspace", "/workspace", False),
    ],
)
def test_a_stop_keeps_only_what_lies_below_the_mount_path(mount: object, folder: str, keeps: bool) -> None:
    assert to_pod({**ROW, "volumeMountPath": mount}).keeps(folder) is keeps


@pytest.mark.parametrize(("count", "gpus"), [(1, 1), (0, 0), ("2", 2), (None, None), ("x", None), (-1, None)])
def test_gpus_that_the_api_does_not_tell_are_not_0(count: object, gpus: int | None) -> None:
    assert to_pod({**ROW, "gpu": {"count": count}}).num_gpus == gpus


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2024-07-12T19:14:40.144Z", 1720811680.0),
        ("2024-07-12 19:14:40.144 +0000 UTC", 1720811680.0),
        ("2024-07-12T19:14:40+00:00", 1720811680.0),
        ("2024-13-12T19:14:40Z", None),
        ("2024-07-12T19:14:40+02:00", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_moments(text: object, epoch: float | None) -> None:
    assert epoch_of(text) == epoch


@pytest.mark.parametrize("host", HOSTS)
def test_law_8_a_host_that_is_none_never_becomes_one(host: object) -> None:
    row = {**ROW, "publicIp": host}
    with pytest.raises(TenantFailure, match="cannot be one"):
        endpoint_of(row)
    pod = to_pod(row)
    assert (pod.host, pod.port, pod.state) == ("", 0, "loading")
    assert pod.endpoint_problem


@pytest.mark.parametrize("port", PORTS)
def test_law_8_a_port_that_is_none_never_becomes_one(port: object) -> None:
    pod = to_pod({**ROW, "portMappings": {"22": port}})
    assert (pod.host, pod.port, pod.state) == ("", 0, "loading")
    assert pod.endpoint_problem or not port


WORDS = st.text("ab-=/ .{%\n\x00é", max_size=12)
ODD = st.sampled_from([None, True, -1, 0, 7, 2**70, 0.5, float("nan"), float("inf"), [], {}, ["22/tcp"], {"22": -1}])
NESTED = st.dictionaries(st.sampled_from(["22", "id", "count", "gpuTypeId"]), WORDS | ODD, max_size=3)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*ROW, "networkVolume", "machine", "interruptible"]), WORDS | ODD | NESTED))
def test_any_row_with_an_id_is_a_pod_that_can_be_shown(changes: dict[str, Any]) -> None:
    pod = to_pod({**ROW, **changes, "id": ROW["id"]})
    json.dumps(pod_result(pod, 1.8e9))
    assert pod.state in ("loading", "running", "stopped", "unknown")
    assert not pod.host.startswith("-")
    assert pod.dph_total is None or pod.dph_total >= 0


def test_the_stamp_in_the_name_wins_and_another_name_is_a_stranger() -> None:
    assert str(to_pod(ROW).stamp) == STAMP
    assert str(to_pod({**ROW, "name": "edited"}).stamp) == STAMP
    assert to_pod({**ROW, "name": "edited", "env": {"TENANT_STAMP": "gt1/../x/g1/0"}}).stamp is None
    assert to_pod({**ROW, "name": None, "env": None}).stamp is None


def test_the_highest_generation_counts_then_the_first_id() -> None:
    second = STAMP.replace("g1", "g2")
    pods = [to_pod({**ROW, "id": name, "name": stamp}) for name, stamp in (("a", STAMP), ("c", second), ("b", second))]
    current, others = current_and_superseded([*pods, to_pod({**ROW, "name": "x", "env": {}})], "digits", "pod-a")
    assert current is not None
    assert [current.provider_id, *(pod.provider_id for pod in others)] == ["b", "c", "a"]
    assert current_and_superseded(pods, "digits", "another") == (None, [])


@pytest.mark.parametrize("pod", ["", "../networkvolumes/x", "a/b", "a?x=1", "a b", "x" * 65, "é"])
def test_an_id_that_is_none_is_never_asked_for(pod: str) -> None:
    client = RunpodClient(KEY, "http://127.0.0.1:1/v1", opener=None)
    with pytest.raises(TenantFailure, match="is not the id of a pod"):
        client.destroy_instance(pod)


@pytest.mark.parametrize(
    "url", ["http://rest.runpod.io/v1", "ftp://127.0.0.1", "rest.runpod.io", "https://", "http://8.8.8.8"]
)
def test_the_key_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(TenantFailure, match="the key was not sent"):
        RunpodClient(KEY, url)


@pytest.mark.parametrize("key", ["", "  ", "a b", "a\nb", "é"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(TenantFailure) as failure:
        RunpodClient(key)
    assert failure.value.kind == "config"


def test_the_client_does_not_tell_its_key() -> None:
    client = RunpodClient(KEY)
    assert KEY not in repr(client) + client.account

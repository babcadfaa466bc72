# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From Lambda's rows to instances, types and file systems: tables, whatever a row may hold, and rows that mean harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.api import LambdaClient, LambdaReply
from ansible_collections.tenant.gpu.plugins.module_utils.lambda_cloud.transformations import (
    endpoint_of,
    to_file_system,
    to_types,
    to_vm,
    vm_result,
)
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import AmbiguousAnswer, RestError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_market import KEY, Answer

STAMP = "gt1/digits/box-a/g1/0123456789abcdef"
VM = "0920582c7ff041399e34823a0be62549"
TYPE = {
    "name": "gpu_8x_a100",
    "description": "8x A100 (40 GB SXM4)",
    "gpu_description": "A100 (40 GB SXM4)",
    "price_cents_per_hour": 1032,
    "specs": {"vcpus": 124, "memory_gib": 1800, "storage_gib": 6144, "gpus": 8},
}
# The example of the provider's own OpenAPI, 1.8.3.
ROW: dict[str, Any] = {
    "id": VM,
    "name": STAMP,
    "ip": "198.51.100.2",
    "private_ip": "10.0.2.100",
    "status": "active",
    "ssh_key_names": ["My SSH key"],
    "file_system_names": ["my-filesystem"],
    "file_system_mounts": [{"mount_point": "/lambda/nfs/my-filesystem", "file_system_id": "a098b0c7ff041399e34823"}],
    "region": {"name": "us-west-1", "description": "California, USA"},
    "instance_type": TYPE,
    "hostname": "198.51.100.2",
    "jupyter_token": "03b7d30d9d3e4d8fa41657bc0d478c1b",
    "jupyter_url": "https://jupyter-249e1ccff1894822af39ac822637f881.lambdaspaces.com/?token=03b7d30d9d3e4d8fa41657bc",
    "is_reserved": False,
    "actions": {"terminate": {"available": True}},
    "tags": [{"key": "key1", "value": "value1"}],
}
HOSTS = [
    "-oProxyCommand=touch /tmp/x", "-lroot", "a b", "a\nb", "$(id)", "`id`", "{{ lookup('pipe', 'id') }}", "a;id",
    "a|b", "user@host", "fe80::1%eth0", "host/../x", "é.example", "a" * 254, ["198.51.100.2"],
    {"ip": "1.2.3.4"}, 7, True,
]  # fmt: skip
PORTS = [0, -1, 65536, "22 -oProxyCommand=id", "0x16", "22\n", 22.0, True, [22], {"22": 1}, "٢٢", None]


@pytest.mark.parametrize(
    ("changes", "state", "intended", "leaving", "alert"),
    [
        ({}, "running", "running", False, False),
        ({"ip": None}, "loading", "running", False, False),
        ({"status": "booting"}, "loading", "running", False, False),
        ({"status": "unhealthy"}, "offline", "running", False, True),
        ({"status": "terminating"}, "unknown", "", True, False),
        ({"status": "terminated"}, "unknown", "", True, False),
        ({"status": "preempted"}, "unknown", "", False, False),
        ({"status": "resting"}, "unknown", "", False, False),
        ({"status": None}, "unknown", "", False, False),
    ],
)
def test_states(changes: dict[str, Any], state: str, intended: str, leaving: bool, alert: bool) -> None:
    vm = to_vm({**ROW, **changes})
    assert (vm.state, vm.intended, vm.is_leaving, vm.is_alert) == (state, intended, leaving, alert)
    assert bool(vm.host) is (vm.status in ("active", "unhealthy") and "ip" not in changes)


def test_the_provider_s_own_example() -> None:
    shown = vm_result(to_vm(ROW))
    assert (shown["host"], shown["port"], shown["user"], shown["price_per_hour"]) == (
        "198.51.100.2", 22, "ubuntu", 10.32,
    )  # fmt: skip
    assert (shown["num_gpus"], shown["disk_gb"], shown["region"]) == (8, 6144.0, "us-west-1")
    assert (shown["file_systems"], shown["mount_points"]) == (["my-filesystem"], ["/lambda/nfs/my-filesystem"])
    assert "03b7d30d9d3e4d8fa41657bc" not in json.dumps(shown)


@pytest.mark.parametrize(("cents", "price"), [(75, 0.75), ("75", 0.75), (0, 0.0)])
def test_prices(cents: object, price: float) -> None:
    assert to_vm({**ROW, "instance_type": {**TYPE, "price_cents_per_hour": cents}}).dph_total == price


@pytest.mark.parametrize("cents", [None, "free", "", -1, True, float("nan"), float("inf"), {}, "1e9", "٢٢"])
def test_an_unknown_price_is_not_0(cents: object) -> None:
    assert to_vm({**ROW, "instance_type": {"price_cents_per_hour": cents}}).dph_total is None


@pytest.mark.parametrize("host", HOSTS)
def test_law_8_a_host_that_is_none_never_becomes_one(host: object) -> None:
    row = {**ROW, "ip": host}
    with pytest.raises(TenantFailure, match="cannot be one"):
        endpoint_of(row)
    vm = to_vm(row)
    assert (vm.host, vm.port, vm.state) == ("", 0, "loading")
    assert vm.endpoint_problem


@pytest.mark.parametrize("port", PORTS)
def test_law_8_a_port_that_is_none_never_becomes_one(port: object) -> None:
    vm = to_vm({**ROW, "ssh_port": port})
    assert (vm.host, vm.port, bool(vm.endpoint_problem)) == ("", 0, True)


@pytest.mark.parametrize("user", ["-oProxyCommand=id", "a b", "", "$(id)", 7, None, ["root"], "x" * 40])
def test_law_8_a_login_that_is_none_never_becomes_one(user: object) -> None:
    vm = to_vm({**ROW, "ssh_user": user})
    assert (vm.host, vm.user, bool(vm.endpoint_problem)) == ("", "ubuntu", True)


def test_the_login_is_ubuntu_but_where_a_row_says_otherwise() -> None:
    assert (to_vm(ROW).user, to_vm(ROW).port) == ("ubuntu", 22)
    assert to_vm({**ROW, "ssh_user": "me", "ssh_port": 20022}).user == "me"


WORDS = st.text("ab-=/ .{%\n\x00é", max_size=12)
ODD = st.sampled_from([None, True, -1, 0, 7, 2**70, 0.5, float("nan"), float("inf"), [], {}, ["x"], [{"key": -1}]])
NESTED = st.dictionaries(st.sampled_from(["name", "specs", "gpus", "price_cents_per_hour", "key"]), WORDS | ODD)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*ROW, "ssh_port", "ssh_user"]), WORDS | ODD | NESTED))
def test_any_row_with_an_id_is_an_instance_that_can_be_shown(changes: dict[str, Any]) -> None:
    vm = to_vm({**ROW, **changes, "id": VM})
    json.dumps(vm_result(vm, 1.8e9))
    assert vm.state in ("loading", "running", "offline", "unknown")
    assert not vm.host.startswith("-")
    assert vm.dph_total is None or vm.dph_total >= 0


def test_the_stamp_in_the_name_wins_and_another_name_is_a_stranger() -> None:
    tagged = [{"key": "tenant-stamp", "value": STAMP.replace("box-a", "box-b")}]
    assert str(to_vm({**ROW, "tags": tagged}).stamp) == STAMP
    assert str(to_vm({**ROW, "name": "edited", "tags": tagged}).stamp) == tagged[0]["value"]
    assert to_vm({**ROW, "name": "edited"}).stamp is None
    assert to_vm({**ROW, "name": None, "tags": [{"key": "tenant-stamp", "value": "gt1/../x/g1/0"}]}).stamp is None


def test_types_and_their_regions() -> None:
    table = {
        "gpu_8x_a100": {"instance_type": TYPE, "regions_with_capacity_available": [{"name": "us-west-1"}, {}, "x"]},
        "odd": {"instance_type": None, "regions_with_capacity_available": None},
    }
    found = to_types(table)
    assert (found["gpu_8x_a100"].price, found["gpu_8x_a100"].regions) == (10.32, ("us-west-1",))
    assert (found["odd"].price, found["odd"].gpus, found["odd"].regions) == (None, None, ())


@pytest.mark.parametrize(("used", "gib"), [(2**30, 1.0), (0, 0.0), (None, None), (-1, None), ("1", None)])
def test_what_a_file_system_holds_is_not_0_where_nobody_says(used: object, gib: float | None) -> None:
    row = {"id": "f1", "name": "data", "region": {"name": "us-west-1"}, "bytes_used": used, "is_in_use": None}
    shown = to_file_system(row).as_result()
    assert (shown["gib"], shown["in_use"]) == (gib, None)
    assert (shown["price_per_hour"] is None) is (gib is None)


# --- the client ----------------------------------------------------------------------------------------------------


class Script:
    """An opener that gives these answers, one after the other."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def open(self, request: Any, timeout: float) -> Answer:
        assert timeout > 0
        assert request.get_header("Authorization") == f"Bearer {KEY}"
        self.asked.append(request.full_url)
        status, body = self.answers.pop(0)
        return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def client(*answers: tuple[int, Any]) -> tuple[LambdaClient, Script]:
    script = Script(*answers)
    return LambdaClient(KEY, "http://127.0.0.1:1/api/v1", opener=script, sleep=lambda _s: None), script


def refused(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "why", "suggestion": "how"}}


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    first, second = {**ROW, "id": "a"}, {**ROW, "id": "b", "status": "terminated"}
    found, script = client((200, {"data": [first], "page_token": "7"}), (200, {"data": [second], "page_token": ""}))
    assert [row["id"] for row in found.list_instances()] == ["a"]  # a terminated one is gone
    assert script.asked[1].endswith("/instances?page_token=7")


def test_a_list_without_an_end_is_an_error() -> None:
    found, _script = client(*[(200, {"data": [], "page_token": "7"})] * 100)
    with pytest.raises(RestError, match="has no end"):
        found.list_instances()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, refused("instance-operations/launch/insufficient-capacity"), "no_capacity"),
        (400, refused("global/quota-exceeded"), "global/quota-exceeded"),
        (404, refused("global/object-does-not-exist"), "global/object-does-not-exist"),
        (400, refused("instance-operations/launch/file-system-in-wrong-region"),
         "instance-operations/launch/file-system-in-wrong-region"),
        (401, refused("global/invalid-api-key"), "auth_error"),
        (403, refused("global/account-inactive"), "global/account-inactive"),
        (429, b"too many", "rate_limited"),
    ],
)  # fmt: skip
def test_a_launch_that_the_api_itself_refused_made_nothing(status: int, body: Any, code: str) -> None:
    found, _script = client((status, body))
    with pytest.raises(RestError) as failure:
        found.launch({})
    assert not isinstance(failure.value, AmbiguousAnswer)
    assert failure.value.code == code
    assert failure.value.kind == ("config" if status in (401, 403) else "provider")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, refused("global/internal-error")),
        (400, refused("provider/internal-unavailable")),
        (502, b"<html>"),
        (400, b"<html>"),
        (200, {"data": {}}),
        (200, {"data": {"instance_ids": []}}),
        (200, {"data": {"instance_ids": [VM, VM]}}),
        (200, {"data": {"instance_ids": ["../x"]}}),
        (200, []),
    ],
)
def test_any_other_answer_to_a_launch_may_have_made_one(status: int, body: Any) -> None:
    found, script = client((status, body))
    with pytest.raises(AmbiguousAnswer):
        found.launch({})
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "there"),
    [
        (200, {"data": ROW}, True),
        (200, {"data": {**ROW, "status": "terminated"}}, False),
        (404, refused("global/object-does-not-exist"), False),
    ],
)
def test_gone_is_what_the_api_says_is_gone(status: int, body: Any, there: bool) -> None:
    found, _script = client((status, body))
    assert (found.get_instance(VM) is not None) is there


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (404, {"detail": "no route"}), (200, {"data": {**ROW, "id": "x"}}), (200, {"data": None})],
)
def test_a_proxy_s_404_is_not_the_api_s_word(status: int, body: Any) -> None:
    found, _script = client((status, body))
    with pytest.raises(RestError):
        found.get_instance(VM)


@pytest.mark.parametrize("vm", ["", "../file-systems/x", "a/b", "a?x=1", "a b", "x" * 65, "é"])
def test_an_id_that_is_none_is_never_asked_for(vm: str) -> None:
    found, script = client()
    for ask in (found.get_instance, found.destroy_instance, found.restart_instance):
        with pytest.raises(TenantFailure, match="is not the id of an instance"):
            ask(vm)
    assert script.asked == []


def test_the_provider_is_asked_at_its_pace_and_a_marketplace_at_ours() -> None:
    assert LambdaClient(KEY)._intervals == {"launch": 12.0, "call": 1.0}
    assert LambdaClient(KEY, "http://127.0.0.1:1/lambda/api/v1")._intervals == {}
    assert LambdaClient(KEY).base_url == "https://cloud.lambda.ai/api/v1"


def test_words_of_an_error_are_the_api_s() -> None:
    reply = LambdaReply(400, {}, json.dumps(refused("global/quota-exceeded")).encode())
    assert (reply.code, reply.message) == ("global/quota-exceeded", "why")
    assert LambdaReply(400, {}, b'{"error": "text"}').code == ""

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Templates of the account: made, found, changed, deleted, and what a create takes from one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_market_wire import Client

from gpu_tenant.marketplace.templates import docker_options

TEMPLATES = "/api/v0/template/"
BODY = {
    "name": "digits", "image": "pytorch/pytorch", "tag": "2.9",
    "env": '-e A=1 -e "B=two words" -p 8080:8080 --ipc=host', "onstart": "echo template",
    "runtype": "ssh", "ssh_direct": True, "use_ssh": True, "recommended_disk_space": 33,
    "extra_filters": {"verified": {"eq": True}},
}  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


def add(client: Client, **changes: Any) -> dict[str, Any]:
    status, answer = client.call("POST", TEMPLATES, {**BODY, **changes})
    assert (status, answer["success"]) == (200, True), answer
    made: dict[str, Any] = answer["template"]
    return made


def find(client: Client, filters: str) -> list[dict[str, Any]]:
    query = {"select_cols": '["*"]', "select_filters": filters}
    found: list[dict[str, Any]] = client.call("GET", TEMPLATES, **query)[1]["templates"]
    return found


def rent(client: Client, **parts: Any) -> dict[str, Any]:
    offer = client.call("POST", "/api/v0/bundles/", {"num_gpus": {"eq": 1}})[1]["offers"][0]
    status, made = client.call("PUT", f"/api/v0/asks/{offer['id']}/", {"client_id": "me", **parts})
    assert status == 200, made
    row: dict[str, Any] = client.call("GET", f"/api/v0/instances/{made['new_contract']}/")[1]["instances"]
    return row


def test_a_template_is_made_found_changed_and_deleted(client: Client) -> None:
    made = add(client)
    assert find(client, f'{{"hash_id": {{"eq": "{made["hash_id"]}"}}}}') == [made]
    assert find(client, '{"name": {"eq": "other"}}') == []
    status, answer = client.call("PUT", "/api/v1/template/", {**BODY, "id": made["id"], "tag": "3.0"})
    assert (status, answer["template"]["id"]) == (200, made["id"])
    assert answer["template"]["hash_id"] != made["hash_id"], "an edit is a new version"
    assert client.call("DELETE", TEMPLATES, {"hash_id": made["hash_id"]})[0] == 404
    assert client.call("DELETE", TEMPLATES, {"template_id": made["id"]})[1]["success"] is True
    assert find(client, "{}") == []


def test_the_hash_is_of_the_content_and_not_of_what_is_written_about_it(client: Client) -> None:
    first, renamed, other = add(client), add(client, name="x", readme="y"), add(client, onstart="echo other")
    assert first["hash_id"] == renamed["hash_id"] != other["hash_id"]
    assert len({first["id"], renamed["id"], other["id"]}) == 3


def test_a_create_takes_from_the_template_what_it_does_not_say(client: Client) -> None:
    made = add(client)
    row = rent(client, template_hash_id=made["hash_id"], env={"C": "3"}, image=None, label="by a template")
    assert (row["image_uuid"], row["onstart"], row["disk_space"]) == ("pytorch/pytorch:2.9", "echo template", 33)
    assert row["image_runtype"] == "ssh ssh_direc ssh_proxy"
    assert dict(row["extra_env"]) == {"A": "1", "B": "two words", "-p 8080:8080": "1", "C": "3"}
    assert (row["template_id"], row["template_hash_id"]) == (made["id"], made["hash_id"])
    assert row["template_name"] == "digits"


def test_what_a_create_says_beats_its_template(client: Client) -> None:
    made = add(client)
    row = rent(
        client, template_id=made["id"], env={"A": "ours"}, image="debian:12", onstart="echo ours", disk=12,
        runtype="ssh_proxy",
    )  # fmt: skip
    assert (row["image_uuid"], row["onstart"], row["disk_space"]) == ("debian:12", "echo ours", 12)
    assert row["image_runtype"] == "ssh ssh_proxy"
    assert dict(row["extra_env"])["A"] == "ours"
    assert dict(row["extra_env"])["B"] == "two words"


def test_templates_outlive_a_restart_and_their_instances(tmp_path: Path) -> None:
    client = Client(tmp_path / "state")
    made = add(client)
    row = rent(client, template_hash_id=made["hash_id"])
    client.call("DELETE", TEMPLATES, {"hash_id": made["hash_id"]})
    kept = add(client, name="kept")
    client.close()
    again = Client(tmp_path / "state")
    try:
        assert find(again, "{}") == [kept]
        shown = again.row(row["id"])
        assert shown is not None
        assert shown["template_hash_id"] == made["hash_id"]
    finally:
        again.close()


@pytest.mark.parametrize(
    "changes",
    [{"image": None}, {"runtype": "vm"}, {"env": "-e A='1"}, {"extra_filters": [1]}, {"recommended_disk_space": -1},
     {"onstart": "x" * 20000}, {"name": 5}],
)  # fmt: skip
def test_templates_that_cannot_be(client: Client, changes: dict[str, Any]) -> None:
    status, answer = client.call("POST", TEMPLATES, {**BODY, **changes})
    assert (status, answer["error"]) == (400, "invalid_args")


def test_nothing_is_rented_by_a_template_that_is_not_there(client: Client) -> None:
    offer = client.call("POST", "/api/v0/bundles/", {"num_gpus": {"eq": 1}})[1]["offers"][0]
    status, answer = client.call("PUT", f"/api/v0/asks/{offer['id']}/", {"template_hash_id": "f" * 32, "image": "x"})
    assert (status, answer["error"]) == (404, "not_found")
    assert client.call("GET", "/api/v1/instances/")[1]["instances"] == []


def test_docker_options_are_read_as_the_official_client_writes_them() -> None:
    read = docker_options("-e A=1 -e EMPTY= -p 1:2/udp -v V.5:/data -n net -h host --shm-size=8g")
    assert read == {"A": "1", "EMPTY": "", "-p 1:2/udp": "1", "-v V.5:/data": "1", "-n net": "1", "-h": "host"}

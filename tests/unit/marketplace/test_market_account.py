# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The account's own routes: environment variables, profile, history; and the few commands that ``execute`` runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_market_wire import Client

from gpu_tenant.marketplace.command_routes import words_of
from gpu_tenant.marketplace.engines.base import BoxSpec
from gpu_tenant.marketplace.refusals import MarketError

SECRETS = "/api/v0/secrets/"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


def variables(client: Client) -> dict[str, str]:
    found: dict[str, str] = client.call("GET", SECRETS)[1]["secrets"]
    return found


def test_variables_come_and_go_and_are_never_shown(client: Client) -> None:
    assert variables(client) == {}
    status, made = client.call("POST", SECRETS, {"key": "hf_token", "value": "s3cret"})
    assert (status, made["success"]) == (200, True)
    assert variables(client) == {"HF_TOKEN": "********"}
    assert client.call("PUT", SECRETS, {"key": "HF_TOKEN", "value": "0ther"})[1]["success"] is True
    assert client.call("DELETE", SECRETS, {"key": "HF_TOKEN"})[1]["success"] is True
    assert variables(client) == {}
    told = [client.call("GET", path)[1] for path in ("/api/v0/audit_logs/", "/control/state", "/api/v0/users/current")]
    assert "s3cret" not in str(told)
    assert "0ther" not in str(told)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("POST", {"key": "2A", "value": "x"}, 400),
        ("POST", {"key": "A B", "value": "x"}, 400),
        ("POST", {"key": "A"}, 400),
        ("POST", {"key": "A", "value": ""}, 400),
        ("POST", {"key": "A", "value": "x" * 5000}, 400),
        ("POST", {"key": "HAVE", "value": "again"}, 400),
        ("PUT", {"key": "MISSING", "value": "x"}, 404),
        ("DELETE", {"key": "MISSING"}, 404),
    ],
)
def test_variables_that_cannot_be(client: Client, method: str, body: dict[str, Any], status: int) -> None:
    client.call("POST", SECRETS, {"key": "HAVE", "value": "x"})
    assert client.call(method, SECRETS, body)[0] == status
    assert variables(client) == {"HAVE": "********"}


def test_a_box_is_given_the_accounts_variables_and_its_own_come_first(client: Client, tmp_path: Path) -> None:
    given: list[dict[str, str]] = []
    start = client.engine.start

    def remembering(spec: BoxSpec) -> None:
        given.append(spec.environment)
        start(spec)

    client.engine.start = remembering  # type: ignore[method-assign]
    client.call("POST", SECRETS, {"key": "TOKEN", "value": "of the account"})
    client.call("POST", SECRETS, {"key": "WHERE", "value": "account"})
    number = client.rent(client.offers()[0], env={"WHERE": "box"})[1]["new_contract"]
    client.wait(number, actual_status="running")
    assert (given[0]["TOKEN"], given[0]["WHERE"]) == ("of the account", "box")
    assert client.call("GET", f"/api/v0/instances/{number}/")[1]["instances"]["extra_env"] == [["WHERE", "box"]]


def test_variables_and_profile_survive_a_restart(tmp_path: Path) -> None:
    first = Client(tmp_path / "state")
    first.call("POST", SECRETS, {"key": "KEPT", "value": "x"})
    assert first.call("PUT", "/api/v0/users/", {"fullname": "Ada", "password": "n0t kept"})[1]["fullname"] == "Ada"
    first.close()
    assert "n0t kept" not in "".join(path.read_text() for path in (tmp_path / "state").glob("market.*"))
    again = Client(tmp_path / "state")
    try:
        assert variables(again) == {"KEPT": "********"}
        assert again.call("GET", "/api/v0/users/current")[1]["fullname"] == "Ada"
    finally:
        again.close()


def test_nobody_sets_what_is_not_theirs(client: Client) -> None:
    for body in ({"credit": 1_000_000}, {"id": 7}, {"fullname": {"a": 1}}):
        assert client.call("PUT", "/api/v0/users/", body)[0] == 400
    assert client.call("GET", "/api/v0/users/current")[1]["id"] == 100001


def test_what_was_done_is_told_without_its_values(client: Client) -> None:
    client.call("GET", "/api/v1/instances/")
    client.call("POST", SECRETS, {"key": "A", "value": "s3cret"})
    client.call("PUT", "/api/v0/instances/1/", {"label": "x"})
    rows = client.call("GET", "/api/v0/audit_logs/")[1]
    assert [(row["api_route"], row["args"]) for row in rows] == [
        ("POST /api/v0/secrets/", "key, value"),
        ("PUT /api/v0/instances/1/", "label"),
    ]


def test_contracts_are_found_by_label_and_number(client: Client) -> None:
    first, second = (client.rent(offer, label=name)[1]["new_contract"] for offer, name in zip(
        client.offers()[:2], ("one", "two"), strict=True))  # fmt: skip

    def found(**body: object) -> list[int]:
        return [row["id"] for row in client.call("POST", "/api/v0/contracts/fetch/", body)[1]["contracts"]]

    assert found(label="one") == [first]
    assert found(contract_ids=[second, 999]) == [second]
    assert found(label="one", contract_ids=[second]) == []
    assert found() == [first, second]


# -- execute -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "  ", "cat /etc/passwd", "sh -c ls", "ls 'unclosed", "ls " + "x" * 600, 5])
def test_only_a_few_commands_are_run(command: object) -> None:
    with pytest.raises(MarketError) as caught:
        words_of(command)
    assert (caught.value.status, caught.value.code) == (400, "invalid_args")


def test_a_commands_words_reach_the_box_as_they_are(client: Client) -> None:
    run: list[list[str]] = []

    def execute(spec: BoxSpec, words: Sequence[str]) -> str:
        run.append(list(words))
        return f"said by {spec.box_id}\n"

    client.engine.execute = execute  # type: ignore[method-assign]
    number = client.running(client.offers()[0])
    path = f"/api/v0/instances/command/{number}/"
    answer = client.call("PUT", path, {"command": "ls '/a b' ; id $(reboot)"})[1]
    assert run == [["ls", "/a b", ";", "id", "$(reboot)"]]
    assert client.http.get(answer["result_url"].replace("http://testserver", "")).text == f"said by {number}\n"
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    assert client.call("PUT", path, {"command": "ls /"})[0] == 400
    assert len(run) == 1
    assert client.call("PUT", "/api/v0/instances/command/1/", {"command": "ls /"})[0] == 404


def test_an_engine_without_boxes_says_that_it_runs_nothing(client: Client) -> None:
    number = client.running(client.offers()[0])
    status, answer = client.call("PUT", f"/api/v0/instances/command/{number}/", {"command": "ls /"})
    assert (status, answer["error"]) == (400, "invalid_args")
    assert "runs no commands with the engine none" in answer["msg"]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the market answers on the wire, with an engine that has no boxes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gpu_tenant.marketplace.api import Api
from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.engines.none import NoEngine
from gpu_tenant.marketplace.market import Market
from gpu_tenant.marketplace.server import build_application
from gpu_tenant.marketplace.state import StateDirectory

KEY = "unit-test-key"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBcKRxJZtV0lyTmbGvm5iMpYrpJHuRL5bLUYJq9vdjUf someone@somewhere"
DEADLINE_S = 600


class Http:
    """Requests to an application in this process, with headers that a test may change."""

    def __init__(self, application: Starlette, headers: dict[str, str]) -> None:
        self._application = application
        self.headers = headers

    def request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return asyncio.run(self._request(method, path, **parts))

    def get(self, path: str, **parts: Any) -> httpx.Response:
        return self.request("GET", path, **parts)

    def post(self, path: str, **parts: Any) -> httpx.Response:
        return self.request("POST", path, **parts)

    async def _request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._application)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=self.headers) as client:
            return await client.request(method, path, **parts)


class Client:
    """A client of one in-process market, with its key."""

    def __init__(self, state: Path, **settings: Any) -> None:
        values = {"boot_s": 0.0, "destroy_lag_s": 0.0, **settings}
        config = MarketplaceConfig(port=0, api_key=KEY, engine="none", state=state, **values)
        self.directory = StateDirectory(state)
        self.directory.acquire()
        self.engine = NoEngine()
        self.market = Market(config, self.engine, self.directory)
        self.market.open()
        api = Api(self.market, KEY, config.rate_limits)
        self.http = Http(build_application(api, self.market), {"authorization": f"Bearer {KEY}"})

    def close(self) -> None:
        self.market.close()
        self.directory.release()

    def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        answer = self.http.request(method, path, json=body, params=query, follow_redirects=False)
        return answer.status_code, answer.json()

    def offers(self, **filters: object) -> list[dict[str, Any]]:
        body = {"order": [["dph_total", "asc"]], **filters}
        found: list[dict[str, Any]] = self.call("POST", "/api/v0/bundles/", body)[1]["offers"]
        return found

    def rent(self, offer: dict[str, Any], **parts: object) -> tuple[int, dict[str, Any]]:
        body = {"client_id": "me", "image": "debian:12", "disk": 10, "runtype": "ssh_direc ssh_proxy", **parts}
        status, answer = self.call("PUT", f"/api/v0/asks/{offer['id']}/", body)
        return status, answer

    def running(self, offer: dict[str, Any], **parts: object) -> int:
        number: int = self.rent(offer, **parts)[1]["new_contract"]
        self.wait(number, actual_status="running")
        return number

    def row(self, number: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.call("GET", f"/api/v0/instances/{number}/", owner="me")[1]["instances"]
        return found

    def wait(self, number: int, **wanted: object) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            row = self.row(number)
            if row is not None and all(row[name] == value for name, value in wanted.items()):
                return row
        raise AssertionError(f"{number} never had {wanted}: {self.row(number)}")

    def wait_until_gone(self, number: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self.row(number) is not None:
            assert time.monotonic() < deadline


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


def test_both_spellings_of_a_path_answer_and_none_redirects(client: Client) -> None:
    for path in ("/api/v0/users/current", "/api/v0/bundles", "/api/v1/instances", "/api/v0/gpu_names/unique"):
        method = "POST" if path.endswith("bundles") else "GET"
        statuses = {client.call(method, path + end, {} if method == "POST" else None)[0] for end in ("", "/")}
        assert statuses == {200}


def test_json_comes_as_bare_application_json(client: Client) -> None:
    for answer in (client.http.post("/api/v0/bundles/", json={}), client.http.get("/api/v0/instances/")):
        assert answer.headers["content-type"] == "application/json"


def test_the_date_header_is_the_markets_clock(tmp_path: Path) -> None:
    fast = Client(tmp_path / "fast", speed=86400.0)
    try:
        start = time.time()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            date = parsedate_to_datetime(fast.http.get("/api/v0/users/current").headers["date"]).timestamp()
            if date > start + 3600:
                break
            assert time.monotonic() < deadline
    finally:
        fast.close()


def test_no_header_is_403_and_a_wrong_key_404(client: Client) -> None:
    bare = client.http.get("/api/v1/instances/", headers={"Authorization": ""})
    wrong = client.http.get("/api/v1/instances/", headers={"Authorization": "Bearer nonsense"})
    assert (wrong.status_code, wrong.json()["error"], wrong.json()["msg"]) == (404, "auth_error", "Invalid user key")
    assert bare.json()["error"] == "auth_error"
    del client.http.headers["authorization"]
    missing = client.http.get("/api/v1/instances/")
    assert (missing.status_code, missing.json()["error"]) == (403, "auth_error")
    assert client.http.get("/api/v1/instances/", params={"api_key": KEY}).status_code == 200


def test_gpu_names_need_no_key(client: Client) -> None:
    del client.http.headers["authorization"]
    assert "RTX 4090" in client.http.get("/api/v0/gpu_names/unique/").json()["gpu_names"]


def test_control_needs_the_key_too(client: Client) -> None:
    del client.http.headers["authorization"]
    for method, path in (("POST", "/control/preempt"), ("GET", "/control/bill"), ("GET", "/control/state")):
        assert client.call(method, path)[0] == 403


def test_the_retired_list_says_where_to_go(client: Client) -> None:
    status, body = client.call("GET", "/api/v0/instances/", owner="me")
    assert (status, body["error"]) == (410, "deprecated_endpoint")
    assert "/api/v1/instances/" in body["msg"]


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_a_body_that_is_no_object_is_400(client: Client, text: str) -> None:
    answer = client.http.post("/api/v0/bundles/", content=text)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_args")


def test_an_unknown_path_is_a_json_404(client: Client) -> None:
    status, body = client.call("GET", "/api/v0/nothing/")
    assert (status, body["error"]) == (404, "not_found")


def test_a_search_filters_orders_and_limits(client: Client) -> None:
    found = client.offers(gpu_name={"eq": "RTX_4090"}, num_gpus={"eq": "1"}, type="bid", limit=3)
    assert len(found) == 3
    assert [row["dph_total"] for row in found] == sorted(row["dph_total"] for row in found)
    assert all(row["gpu_name"] == "RTX 4090" and row["is_bid"] for row in found)
    assert found[0]["dph_base"] == found[0]["min_bid"]


def test_the_new_search_answers_alike(client: Client) -> None:
    wanted = {"gpu_name": {"eq": "RTX 4090"}, "type": "on-demand", "order": [["id", "asc"]]}
    _unused, new = client.call("PUT", "/api/v0/search/asks/", {"select_cols": ["*"], "q": wanted})
    assert [row["id"] for row in new["offers"]] == [row["id"] for row in client.offers(**wanted)]


def test_allocated_storage_is_priced_and_must_fit(client: Client) -> None:
    small, large = client.offers(allocated_storage=10.0)[0], client.offers(allocated_storage=1000.0)
    assert small["dph_total"] == pytest.approx(small["dph_base"] + small["storage_cost"] * 10 / 720)
    assert all(row["disk_space"] >= 1000 for row in large)


def test_an_unknown_column_is_a_bad_request(client: Client) -> None:
    assert client.call("POST", "/api/v0/bundles/", {"colour": {"eq": "red"}})[1]["error"] == "invalid_request"


def test_a_create_shows_loading_then_running_with_its_port(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    status, answer = client.rent(
        offer, price=offer["min_bid"], label="mine", env={"A": "b", "-p 8080:8080": "1"}, onstart="true"
    )
    assert status == 200
    assert answer["success"] is True
    assert answer["instance_api_key"]
    row = client.wait(answer["new_contract"], actual_status="running")
    assert row["ports"]["22/tcp"][0]["HostPort"] == str(row["ssh_port"])
    assert row["extra_env"] == [["A", "b"], ["-p 8080:8080", "1"]]
    assert (row["label"], row["onstart"], row["is_bid"], row["dph_base"]) == ("mine", "true", True, offer["min_bid"])
    assert isinstance(row["start_date"], float)
    assert row["image_runtype"] == "ssh ssh_direc ssh_proxy"


def test_a_proxied_runtype_has_no_mapped_port(client: Client) -> None:
    row = client.row(client.running(client.offers()[0], runtype="ssh_proxy"))
    assert row is not None
    assert row["ports"] == {}
    assert row["ssh_host"] == "127.0.0.1"
    assert row["ssh_port"] > 0


def test_a_jupyter_box_answers_on_the_port_that_clients_compute(client: Client) -> None:
    number = client.running(client.offers()[0], runtype="jupyter_proxy ssh_proxy")
    row = client.row(number)
    ports = client.call("GET", "/control/state")[1]["instances"][0]["ports"]
    assert row is not None
    assert ports == [row["ssh_port"], row["ssh_port"] + 1]


def test_a_rented_offer_is_not_rentable_and_comes_back_after_destroy(client: Client) -> None:
    offer = client.offers()[0]
    number = client.running(offer)
    rentable = {row["id"]: row["rentable"] for row in client.offers()}
    assert rentable[offer["id"]] is False
    assert client.rent(offer)[1]["msg"].startswith("error 404/3603: no_such_ask")
    assert client.call("DELETE", f"/api/v0/instances/{number}/", {}) == (200, {"success": True})
    client.wait_until_gone(number)
    assert {row["id"]: row["rentable"] for row in client.offers()}[offer["id"]] is True


def test_an_unknown_offer_names_itself(client: Client) -> None:
    status, body = client.rent({"id": 5})
    assert (status, body["error"], body["ask_id"]) == (404, "invalid_args", 5)


def test_an_insufficient_bid_leaves_a_stopped_instance_and_names_it(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    status, body = client.rent(offer, price=offer["min_bid"] - 0.01)
    assert (status, body["success"], body["error"]) == (400, False, "invalid_price")
    row = client.row(body["new_contract"])
    assert row is not None
    assert (row["cur_state"], row["next_state"], row["intended_status"]) == ("stopped",) * 3
    assert client.call("GET", "/control/bill")[1]["instances"][0]["items"][0]["type"] == "disk"


def test_cancel_unavail_leaves_nothing(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    status, body = client.rent(offer, price=offer["min_bid"] - 0.01, cancel_unavail=True)
    assert (status, body["error"]) == (410, "no_such_ask")
    assert client.call("GET", "/api/v1/instances/")[1]["total_instances"] == 0


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"image": None}, "invalid_args"),
        ({"image": "x" * 1025}, "invalid_args"),
        ({"disk": 7}, "invalid_args"),
        ({"disk": "much"}, "invalid_args"),
        ({"disk": 10**6}, "invalid_args"),
        ({"onstart": "x" * 4097}, "invalid_args"),
        ({"label": "x" * 257}, "label_too_long"),
        ({"price": 0.0001}, "invalid_price"),
        ({"price": 129}, "invalid_price"),
        ({"price": "0.2"}, "invalid_price"),
        ({"env": {"A": "x" * 257}}, "invalid_args"),
        ({"env": ["A"]}, "invalid_args"),
    ],
)
def test_what_the_market_does_not_take(client: Client, parts: dict[str, object], error: str) -> None:
    status, body = client.rent(client.offers()[0], **parts)
    assert (status, body["error"]) == (400, error)
    assert client.call("GET", "/api/v1/instances/")[1]["total_instances"] == 0


def test_stop_and_start_keep_the_port(client: Client) -> None:
    number = client.running(client.offers()[0])
    before = client.row(number)
    assert before is not None
    assert client.call("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"}) == (200, {"success": True})
    stopped = client.wait(number, actual_status="exited", intended_status="stopped")
    assert stopped["ports"] == {}
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "running"})
    assert client.wait(number, actual_status="running")["ports"] == before["ports"]


def test_a_missing_instance_is_null_to_get_and_404_to_change(client: Client) -> None:
    assert client.call("GET", "/api/v0/instances/77/") == (200, {"instances": None})
    for method, path in (
        ("PUT", "77"), ("DELETE", "77"), ("PUT", "reboot/77"), ("PUT", "recycle/77"), ("PUT", "bid_price/77"),
        ("PUT", "request_logs/77"),
    ):  # fmt: skip
        status, body = client.call(method, f"/api/v0/instances/{path}/", {"state": "stopped", "price": 0.2})
        assert (status, body["error"], body["msg"]) == (404, "no_such_instance", "Instance 77 not found.")


def test_bulk_verbs_do_all_or_nothing(client: Client) -> None:
    first, second = (client.running(offer) for offer in client.offers()[:2])
    status, _unused = client.call("PUT", "/api/v0/instances/", {"state": "stopped", "ids": [first, 77]})
    row = client.row(first)
    assert status == 404
    assert row is not None
    assert row["actual_status"] == "running"
    assert client.call("PUT", "/api/v0/instances/", {"state": "stopped", "ids": [first, second]})[0] == 200
    client.wait(second, cur_state="stopped")
    assert client.call("DELETE", "/api/v0/instances/", {"instance_ids": [first, second]})[0] == 200
    client.wait_until_gone(first)
    client.wait_until_gone(second)


@pytest.mark.parametrize("verb", ["reboot", "recycle"])
def test_reboot_and_recycle_come_back(client: Client, verb: str) -> None:
    number = client.running(client.offers()[0])
    assert client.call("PUT", f"/api/v0/instances/{verb}/{number}/", {})[0] == 200
    client.wait(number, actual_status="running")
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    assert client.call("PUT", f"/api/v0/instances/{verb}/{number}/", {})[1]["error"] == "invalid_args"


def test_preempt_stops_and_release_brings_back(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    number = client.running(offer, price=offer["min_bid"])
    price = client.call("POST", "/control/preempt", {"instance": number})[1]["market_price"]
    row = client.row(number)
    assert row is not None
    assert (row["cur_state"], row["next_state"], row["intended_status"]) == ("stopped",) * 3
    assert row["min_bid"] == price > row["dph_base"]
    assert not client.engine.alive(number)
    client.call("POST", "/control/release", {"instance": number})
    client.wait(number, actual_status="running")


def test_a_higher_bid_brings_an_outbid_box_back_by_itself(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    number = client.running(offer, price=offer["min_bid"])
    price = client.call("POST", "/control/preempt", {"instance": number})[1]["market_price"]
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "running"})
    client.wait(number, intended_status="running", cur_state="stopped")
    client.call("PUT", f"/api/v0/instances/bid_price/{number}/", {"client_id": "me", "price": price - 0.001})
    client.wait(number, cur_state="stopped")
    client.call("PUT", f"/api/v0/instances/bid_price/{number}/", {"client_id": "me", "price": price})
    assert client.wait(number, actual_status="running")["dph_base"] == price


def test_no_price_means_a_winning_bid(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    number = client.running(offer, price=offer["min_bid"])
    price = client.call("POST", "/control/preempt", {"instance": number})[1]["market_price"]
    client.call("PUT", f"/api/v0/instances/bid_price/{number}/", {"client_id": "me", "price": None})
    assert client.wait(number, actual_status="running")["dph_base"] == price


def test_an_on_demand_box_cannot_be_outbid_or_bid_for(client: Client) -> None:
    number = client.running(client.offers()[0])
    assert client.call("POST", "/control/preempt", {"instance": number})[0] == 400
    assert client.call("PUT", f"/api/v0/instances/bid_price/{number}/", {"price": 0.5})[1]["error"] == "invalid_args"


def test_on_demand_takes_the_card_from_a_bid_and_gives_it_back(client: Client) -> None:
    offer = client.offers(type="bid")[0]
    bid = client.running(offer, price=offer["min_bid"])
    owner = client.running(offer)
    client.wait(bid, cur_state="stopped", intended_status="stopped")
    client.call("DELETE", f"/api/v0/instances/{owner}/", {})
    client.wait(bid, actual_status="running")


def test_a_box_that_dies_by_itself_shows_exited_and_starts_again(client: Client) -> None:
    number = client.running(client.offers()[0])
    client.engine.stop(number)
    client.wait(number, actual_status="exited", intended_status="running")
    client.call("PUT", f"/api/v0/instances/{number}/", {"state": "running"})
    client.wait(number, actual_status="running")


def test_the_list_pages_by_token_and_filters(client: Client) -> None:
    numbers = []
    for place, offer in enumerate(client.offers()[:7]):
        numbers.append(client.rent(offer, label="odd" if place % 2 else None)[1]["new_contract"])
    seen: list[int] = []
    token = ""
    while True:
        status, page = client.call("GET", "/api/v1/instances/", limit="3", after_token=token)
        assert status == 200
        assert page["instances_found"] == len(page["instances"]) <= 3
        assert (page["total_instances"], page["label_counts"]) == (7, {"odd": 3, "": 4})
        seen += [row["id"] for row in page["instances"]]
        token = page["next_token"]
        if token is None:
            break
    assert seen == numbers
    none = client.call("GET", "/api/v1/instances/", select_filters=json.dumps({"label": {"in": [None]}}))[1]
    assert {row["id"] for row in none["instances"]} == set(numbers[::2])
    down = client.call("GET", "/api/v1/instances/", order_by=json.dumps([{"col": "id", "dir": "desc"}]), limit="0")[1]
    assert [row["id"] for row in down["instances"]] == numbers[::-1][:5]
    some = client.call("GET", "/api/v1/instances/", select_cols=json.dumps(["id", "nonsense"]))[1]
    assert some["instances"][0] == {"id": numbers[0], "nonsense": None}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"after_token": "rubbish"}, "invalid_token"),
        ({"select_filters": '{"dph_total": {"lt": 1}}'}, "invalid_request"),
        ({"select_filters": '{"id": {"like": 1}}'}, "invalid_request"),
        ({"select_filters": "["}, "invalid_request"),
        ({"order_by": '[{"col": "dph_total"}]'}, "invalid_request"),
        ({"order_by": "[3]"}, "invalid_request"),
    ],
)
def test_a_bad_list_request_is_400(client: Client, query: dict[str, str], error: str) -> None:
    client.rent(client.offers()[0])
    status, body = client.call("GET", "/api/v1/instances/", **query)
    assert (status, body["error"]) == (400, error)


def test_filters_of_the_list(client: Client) -> None:
    offer = client.offers()[0]
    client.running(offer)
    expected = {"actual_status": "running", "gpu_name": offer["gpu_name"], "verification": offer["verification"]}
    assert client.call("GET", "/api/v0/instances/filters/")[1] == {"filters": [expected]}


def test_account_keys(client: Client) -> None:
    status, made = client.call("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC_KEY + "\n"})
    assert (status, made["key"]["public_key"]) == (200, PUBLIC_KEY)
    assert [key["id"] for key in client.call("GET", "/api/v0/ssh/")[1]] == [made["key"]["id"]]
    changed = client.call("PUT", f"/api/v0/ssh/{made['key']['id']}/", {"ssh_key": PUBLIC_KEY[:-5]})[1]
    assert changed["key"]["public_key"] == PUBLIC_KEY[:-5]
    assert client.call("DELETE", f"/api/v0/ssh/{made['key']['id']}/", {})[1] == {"success": True}
    status, body = client.call("DELETE", f"/api/v0/ssh/{made['key']['id']}/", {})
    assert (status, body["error"]) == (400, "no_ssh_key")


@pytest.mark.parametrize(
    "key", ["", "/home/me/.ssh/id_ed25519.pub", "ssh-ed25519", f"{PUBLIC_KEY}\n{PUBLIC_KEY}", None]
)
def test_what_is_no_public_key_is_refused(client: Client, key: object) -> None:
    assert client.call("POST", "/api/v0/ssh/", {"ssh_key": key})[0] == 400


def test_instance_keys_are_those_of_the_moment_of_renting(client: Client) -> None:
    client.call("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC_KEY})
    number = client.running(client.offers()[0])
    client.call("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC_KEY[:-5]})
    have = json.loads(client.call("GET", f"/api/v0/instances/{number}/ssh/")[1]["ssh_keys"])
    assert [key["public_key"] for key in have] == [PUBLIC_KEY]
    added = json.loads(client.call("POST", f"/api/v0/instances/{number}/ssh/", {"ssh_key": PUBLIC_KEY[:-5]})[1]["key"])
    assert client.call("DELETE", f"/api/v0/instances/{number}/ssh/{added['id']}/", {})[1]["success"] is True
    assert client.call("DELETE", f"/api/v0/instances/{number}/ssh/{added['id']}/", {})[1]["error"] == "no_such_ssh_key"


def test_logs_are_fetched_without_a_key(client: Client) -> None:
    number = client.running(client.offers()[0])
    answer = client.call("PUT", f"/api/v0/instances/request_logs/{number}/", {"tail": "5"})[1]
    del client.http.headers["authorization"]
    path = answer["result_url"].removeprefix("http://testserver")
    assert client.http.get(path).status_code == 200
    assert client.http.get("/logs/other.log").status_code == 404


def test_charges_and_the_bill_agree(tmp_path: Path) -> None:
    fast = Client(tmp_path / "fast", speed=36000.0)
    try:
        room = fast.call("POST", "/api/v0/volumes/search/", {})[1]["offers"][0]
        assert fast.call("PUT", "/api/v0/volumes/", {"id": room["id"], "size": 20, "name": "kept"})[0] == 200
        for offer in fast.offers(type="bid")[:3]:
            fast.running(offer, price=offer["min_bid"])
        for one in fast.call("GET", "/api/v1/instances/")[1]["instances"]:
            fast.call("DELETE", f"/api/v0/instances/{one['id']}/", {})
            fast.wait_until_gone(one["id"])
        (volume,) = fast.call("GET", "/api/v0/volumes", owner="me")[1]["volumes"]
        assert fast.call("DELETE", "/api/v0/volumes/", {"id": volume["id"]})[0] == 200
        bill = fast.call("GET", "/control/bill")[1]
        page = fast.call("GET", "/api/v0/charges/", select_filters=json.dumps({"day": {"gte": 0, "lte": time.time()}}))[
            1
        ]
        assert bill["total"] > 0
        assert sum(row["amount"] for row in page["results"]) == pytest.approx(bill["total"])
        sources = {f"instance-{one['id']}" for one in bill["instances"]} | {f"volume-{volume['id']}"}
        assert {row["source"] for row in page["results"]} == sources
        assert {item["type"] for row in page["results"] for item in row["items"]} == {"gpu", "disk", "bwd", "bwu"}
        credit = fast.call("GET", "/api/v0/users/current")[1]["credit"]
        assert credit == pytest.approx(100 - bill["total"], abs=1e-5)
        old = fast.call("GET", "/api/v0/users/me/invoices", inc_charges="true")[1]
        assert old["current"]["total"] == pytest.approx(bill["total"])
        assert sum(row["amount"] for row in old["invoices"]) == pytest.approx(bill["total"])
    finally:
        fast.close()


def test_charges_page(client: Client) -> None:
    for offer in client.offers()[:3]:
        client.rent(offer)
    first = client.call("GET", "/api/v0/charges/", limit="2")[1]
    rest = client.call("GET", "/api/v0/charges/", limit="2", after_token=first["next_token"])[1]
    assert (first["count"], first["total"], rest["count"], rest["next_token"]) == (2, 3, 1, None)
    assert client.call("GET", "/api/v1/invoices/")[1]["results"] == []


def test_rate_limits_are_a_switch(tmp_path: Path) -> None:
    strict = Client(tmp_path / "strict", rate_limits=True)
    try:
        assert strict.call("GET", "/api/v1/instances/")[0] == 200
        answer = strict.http.get("/api/v1/instances/")
        assert (answer.status_code, answer.text.split(":")[0]) == (429, "API requests too frequent")
        assert 0 < float(answer.headers["retry-after"]) <= 1
        assert [strict.call("GET", "/api/v0/users/current")[0] for _unused in range(3)] == [200] * 3
    finally:
        strict.close()


def test_a_market_taken_up_again_knows_its_boxes_and_never_reuses_an_id(tmp_path: Path) -> None:
    first = Client(tmp_path / "state")
    first.call("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC_KEY})
    offers = first.offers()
    kept, gone = first.running(offers[0], label="kept"), first.running(offers[1])
    ports = first.row(kept)
    first.call("DELETE", f"/api/v0/instances/{gone}/", {})
    first.wait_until_gone(gone)
    spent = first.call("GET", "/control/bill")[1]["total"]
    first.close()
    again = Client(tmp_path / "state")
    try:
        row = again.row(kept)
        assert row is not None
        assert ports is not None
        assert (row["label"], row["cur_state"], row["actual_status"]) == ("kept", "stopped", "exited")
        assert again.row(gone) is None
        assert again.call("GET", "/control/bill")[1]["total"] >= spent
        assert len(again.call("GET", "/api/v0/ssh/")[1]) == 1
        again.call("PUT", f"/api/v0/instances/{kept}/", {"state": "running"})
        assert again.wait(kept, actual_status="running")["ssh_port"] == ports["ssh_port"]
        assert again.running(again.offers()[5]) > gone
    finally:
        again.close()

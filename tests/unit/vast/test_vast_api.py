# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The client against everything that the wire can do."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import traceback
import urllib.error
from collections.abc import Iterator

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rest_client import AmbiguousAnswer
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import (
    MARKET_INTERVALS,
    VastClient,
    VastError,
)
from wire_market import EPOCH, KEY, WireMarket

LIST = r"/api/v1/instances/$"
LIMITED = (429, b"API requests too frequent: endpoint threshold=1.0", {})


@pytest.fixture
def market() -> WireMarket:
    return WireMarket()


def test_every_page_is_read(market: WireMarket) -> None:
    market.page_size = 3
    for _unused in range(8):
        market.add(None)
    assert [row["id"] for row in market.client().list_instances()] == list(market.instances)
    assert len(market.sent("GET", LIST)) == 3


def test_no_instances_is_an_answer_when_the_market_counts_none(market: WireMarket) -> None:
    assert market.client().list_instances() == []


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"success": True, "instances": []},
        {"success": True, "instances": None, "total_instances": 0},
        {"success": True, "instances": {}, "total_instances": 0},
        {"success": True, "instances": [{"label": "no id"}], "total_instances": 1},
        {"success": True, "instances": ["7"], "total_instances": 1},
        {"success": True, "instances": [{"id": True}], "total_instances": 1},
        {"success": True, "instances": [], "total_instances": 2},
        {"success": True, "instances": [{"id": 1}], "total_instances": 2, "next_token": None},
        {"success": True, "instances": [{"id": 1}], "total_instances": 2, "next_token": 3},
        [],
        b"",
        b'{"instances": [',
        b"<html>maintenance</html>",
    ],
)
def test_a_partial_empty_or_malformed_list_is_an_error(market: WireMarket, page: object) -> None:
    market.add(None)
    market.fault("GET", LIST, times=1000, answer=(200, page, {}))
    with pytest.raises(VastError) as caught:
        market.client().list_instances()
    assert caught.value.code in ("partial", "malformed")
    assert market.clock.now < 1000 + 200, "the retries have a deadline"


def test_a_list_that_is_partial_once_is_read_again(market: WireMarket) -> None:
    market.add(None)
    market.add(None)
    market.fault("GET", LIST, rewrite=lambda page: {**page, "instances": page["instances"][:1]})
    assert len(market.client().list_instances()) == 2


def test_a_page_that_fails_fails_the_whole(market: WireMarket) -> None:
    market.page_size = 2
    for _unused in range(5):
        market.add(None)
    market.fault("GET", LIST, skip=1, times=1000, answer=(500, b"boom", {}))
    with pytest.raises(VastError, match="500"):
        market.client().list_instances()


def test_tokens_that_never_end_are_an_error(market: WireMarket) -> None:
    market.add(None)
    market.fault("GET", LIST, times=5000, rewrite=lambda page: {**page, "next_token": "0"})
    with pytest.raises(VastError, match="do not end"):
        market.client().list_instances()


def test_the_dead_list_endpoint_is_not_used(market: WireMarket) -> None:
    market.client().list_instances()
    assert not market.sent("GET", r"/api/v0/instances/$")


def test_plain_text_429_waits_and_asks_again(market: WireMarket) -> None:
    market.fault("GET", LIST, times=3, answer=LIMITED)
    assert market.client().list_instances() == []


def test_retry_after_is_obeyed(market: WireMarket) -> None:
    market.fault("GET", LIST, answer=(429, b"slow down", {"Retry-After": "17"}))
    market.client().list_instances()
    assert max(market.clock.slept) == 17.0


def test_a_retry_after_beyond_the_deadline_ends_at_once(market: WireMarket) -> None:
    market.fault("GET", LIST, answer=(429, b"slow down", {"Retry-After": "86400"}))
    with pytest.raises(VastError, match="429"):
        market.client().list_instances()
    assert not market.clock.slept


def test_a_used_up_search_quota_is_not_hammered(market: WireMarket) -> None:
    market.fault("POST", "bundles", times=9, answer=(429, {"error": "search_quota_exceeded", "msg": "quota"}, {}))
    with pytest.raises(VastError) as caught:
        market.client().search_offers({})
    assert caught.value.code == "search_quota_exceeded"
    assert len(market.sent("POST", "bundles")) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
        (403, {"success": False, "error": "auth_error", "msg": "This action requires login."}),
        (401, b"Please log in or sign up"),
        (404, {"msg": "Session expired. Please log in again."}),
    ],
)
def test_a_refused_key_is_not_a_missing_instance(market: WireMarket, status: int, body: object) -> None:
    market.fault("GET", "instances", times=9, answer=(status, body, {}))
    with pytest.raises(VastError) as caught:
        market.client().get_instance("5")
    assert caught.value.code == "auth_error"
    assert caught.value.kind == "config"
    market.fault("DELETE", "instances", times=9, answer=(status, body, {}))
    with pytest.raises(VastError, match=r"refused the key|two-factor login"):
        market.client().destroy_instance("5")


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"instances": None}, {}),
        (404, {"success": False, "error": "no_such_instance", "msg": "Instance 5 not found."}, {}),
        (404, {"success": False, "error": "not_found", "msg": "gone"}, {}),
        (404, {"success": False, "msg": "error 404/3603: no_such_instance"}, {}),
        (200, {"success": False, "error": "no_such_instance", "msg": "not found"}, {}),
    ],
)
def test_missing_is_the_providers_word(market: WireMarket, answer: tuple[int, object, dict[str, str]]) -> None:
    market.fault("GET", "instances", answer=answer)
    assert market.client().get_instance("5") is None


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"<html>nginx: not found</html>", {}),
        (404, {"detail": "Not Found"}, {}),
        (200, {}, {}),
        (200, {"instances": []}, {}),
        (200, {"instances": {"id": 6}}, {}),
        (200, b"null", {}),
        (502, b"bad gateway", {}),
    ],
)
def test_a_proxys_page_or_another_row_is_not_absence(
    market: WireMarket, answer: tuple[int, object, dict[str, str]]
) -> None:
    market.fault("GET", "instances", times=1000, answer=answer)
    with pytest.raises(VastError):
        market.client().get_instance("5")


def test_success_false_in_a_200_is_a_failure(market: WireMarket) -> None:
    market.fault(
        "PUT", "instances", answer=(200, {"success": False, "error": "invalid_args", "msg": "no such state"}, {})
    )
    with pytest.raises(VastError, match="no such state") as caught:
        market.client().set_state("5", "running")
    assert caught.value.code == "invalid_args"


def _silences() -> list[Exception]:
    return [
        TimeoutError("timed out"),
        ConnectionResetError(104, "reset"),
        http.client.RemoteDisconnected("closed"),
        http.client.IncompleteRead(b"{"),
        urllib.error.URLError(TimeoutError("timed out")),
        urllib.error.URLError(ConnectionResetError(104, "reset")),
    ]


@pytest.mark.parametrize("silence", _silences(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("effect_first", [True, False])
def test_a_create_is_sent_once_whatever_happens(market: WireMarket, silence: Exception, effect_first: bool) -> None:
    market.offer(1)
    market.fault("PUT", "asks", times=9, raises=lambda: silence, effect_first=effect_first)
    with pytest.raises(AmbiguousAnswer):
        market.client().create_instance(1, {"price": None, "label": "x", "disk": 10, "env": {}})
    assert len(market.sent("PUT", "asks")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"oops", {}),
        (502, {"success": False, "error": "busy"}, {}),
        (504, b"", {}),
        (200, b"", {}),
        (200, b'{"success": tr', {}),
        (200, b"[" * 200_000, {}),
        (200, {"success": True}, {}),
        (200, {"success": True, "new_contract": None}, {}),
        (200, {"success": True, "new_contract": True}, {}),
        (403, b"<html>WAF</html>", {}),
        (302, b"", {"Location": "http://127.0.0.1:9/"}),
    ],
)
def test_a_garbled_create_is_ambiguous(market: WireMarket, answer: tuple[int, object, dict[str, str]]) -> None:
    market.fault("PUT", "asks", answer=answer)
    with pytest.raises(AmbiguousAnswer):
        market.client().create_instance(1, {})


@pytest.mark.parametrize(
    ("answer", "code", "contract"),
    [
        ((404, {"error": "invalid_args", "msg": "error 404/3603: no_such_ask"}, {}), "no_such_ask", 0),
        ((410, {"error": "no_such_ask", "msg": "gone"}, {}), "no_such_ask", 0),
        ((400, {"error": "invalid_price", "msg": "low", "new_contract": 77}, {}), "invalid_price", 77),
        ((200, {"success": False, "msg": "low", "new_contract": 78}, {}), "", 78),
        ((429, b"API requests too frequent", {"Retry-After": "5"}), "rate_limited", 0),
    ],
)
def test_a_refused_create_is_certain(
    market: WireMarket, answer: tuple[int, object, dict[str, str]], code: str, contract: int
) -> None:
    market.fault("PUT", "asks", answer=answer)
    with pytest.raises(VastError) as caught:
        market.client().create_instance(1, {})
    assert not isinstance(caught.value, AmbiguousAnswer)
    assert (caught.value.code, caught.value.contract) == (code, contract)


def test_an_unreachable_api_says_that_nothing_left(market: WireMarket) -> None:
    market.fault("PUT", "asks", raises=lambda: urllib.error.URLError(ConnectionRefusedError(111, "refused")))
    with pytest.raises(VastError) as caught:
        market.client().create_instance(1, {})
    assert caught.value.code == "unsent"
    assert not isinstance(caught.value, AmbiguousAnswer)


def test_an_idempotent_request_is_sent_again_after_silence(market: WireMarket) -> None:
    row = market.add(None)
    market.fault("DELETE", "instances", raises=lambda: TimeoutError("t"), effect_first=True)
    assert market.client().destroy_instance(str(row["id"])) is False, "the second DELETE found it gone"
    assert not market.instances


def test_back_off_grows_and_jitters(market: WireMarket) -> None:
    waits = market.client().back_off(1.0, 8.0)
    taken = [next(waits) for _unused in range(12)]
    assert all(0.5 <= wait <= 8.0 for wait in taken)
    assert taken[-1] >= 4.0
    assert len(set(taken)) > 6


def test_the_markets_intervals_are_kept(market: WireMarket) -> None:
    client = market.client(intervals=MARKET_INTERVALS)
    market.offer(1)
    for _unused in range(3):
        client.search_offers({})
    assert sum(market.clock.slept) >= 2 * (MARKET_INTERVALS["search"] - 0.1)
    assert VastClient(KEY, VastClient.URL)._intervals == MARKET_INTERVALS
    assert VastClient(KEY, "http://127.0.0.1:8").base_url == "http://127.0.0.1:8"


def test_time_is_the_providers(market: WireMarket) -> None:
    client = market.client()
    assert client.provider_now() is None
    client.list_instances()
    now = client.provider_now()
    assert now is not None
    assert abs(now - (EPOCH + market.clock.now)) < 2
    market.clock.now += 500
    assert client.provider_now() == pytest.approx(now + 500)


@pytest.mark.parametrize(
    "date",
    ["Mon, 01 Jan 99999 00:00:00 GMT", "Fri, 01 Jan 3456 00:00:00 GMT", "soon", "", "\x00"],
)
def test_a_date_that_no_clock_shows_tells_nothing_of_the_providers_time(market: WireMarket, date: str) -> None:
    client = market.client()
    client.note_date(date)
    assert client.provider_now() is None
    client.list_instances()
    known = client.provider_now()
    client.note_date(date)
    assert client.provider_now() == known


@pytest.mark.parametrize("url", ["http://console.vast.ai", "ftp://x", "console.vast.ai", "http://8.8.8.8", "https://"])
def test_the_key_is_not_sent_in_clear(url: str) -> None:
    with pytest.raises(TenantFailure, match="api_url"):
        VastClient(KEY, url)


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "two words", "ключ"])
def test_a_key_that_cannot_be_one_is_refused_unseen(key: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        VastClient(key, "http://127.0.0.1:1")
    assert not key.strip() or key not in str(caught.value)


def test_what_an_api_says_steers_no_terminal_and_can_be_written_down(market: WireMarket) -> None:
    told = {"success": False, "error": "invalid_args", "msg": "no\n such \x9b31m\u202eoffer \ud800 训练"}
    market.fault("PUT", "asks", times=1, answer=(400, told, {}))
    with pytest.raises(VastError) as caught:
        market.client().create_instance(1, {})
    assert str(caught.value).isprintable()
    assert "no such 31m offer 训练" in str(caught.value)


def test_the_key_is_in_no_error_and_no_repr(market: WireMarket) -> None:
    client = market.client()
    echo = {"success": False, "error": "invalid_args", "msg": f"bad header Bearer {KEY}\n\x1b[31m{KEY}"}
    for method, path in (("GET", "instances"), ("PUT", "asks"), ("POST", "bundles")):
        market.fault(method, path, times=1, answer=(400, echo, {}))
    market.fault("DELETE", "instances", times=1000, raises=lambda: OSError(f"cannot send {KEY}"))
    for act in (
        client.list_instances,
        lambda: client.create_instance(1, {}),
        lambda: client.search_offers({}),
        lambda: client.destroy_instance("5"),
    ):
        with pytest.raises(VastError) as caught:
            act()
        shown = "".join(traceback.format_exception(caught.value, chain=True)) + json.dumps(caught.value.as_result())
        assert KEY not in shown
        assert "\x1b" not in str(caught.value)
    assert KEY not in repr(client)


@pytest.mark.parametrize("bad", ["../users", "5/../../users", "", "-1", "1e3", "5?x=1"])
def test_ids_are_numbers(market: WireMarket, bad: str) -> None:
    with pytest.raises(TenantFailure, match="not the number"):
        market.client().get_instance(bad)
    assert not market.requests


# -- a real socket: what no fake opener can prove ------------------------------------------------------------------


class _Odd(http.server.BaseHTTPRequestHandler):
    """Cuts answers short, hangs up, redirects."""

    seen: list[tuple[str, str]]

    def _serve(self) -> None:
        type(self).seen.append((self.command, self.path))
        if "asks/1/" in self.path:
            self.close_connection = True
            self.connection.close()
        elif "asks/2/" in self.path:
            self._head(200, 500)
            self.wfile.write(b'{"success": true, "new_contract": 5')
        elif "asks/3/" in self.path or "v1/instances" in self.path:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_PUT = do_POST = _serve

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        return


@pytest.fixture
def odd_url() -> Iterator[str]:
    _Odd.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    server.handle_error = lambda *_args: None  # type: ignore[method-assign]  # a closed socket is the point
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("offer", [1, 2, 3])
def test_real_sockets_that_break_are_ambiguous_and_sent_once(odd_url: str, offer: int) -> None:
    with pytest.raises(AmbiguousAnswer):
        VastClient(KEY, odd_url, timeout_s=5).create_instance(offer, {})
    assert _Odd.seen == [("PUT", f"/api/v0/asks/{offer}/")]


def test_a_redirect_is_not_followed(odd_url: str) -> None:
    with pytest.raises(VastError, match="302"):
        VastClient(KEY, odd_url, retry_for_s=0).list_instances()
    assert [path for _method, path in _Odd.seen if "stolen" in path] == []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Logs that the provider collects: asked for as the official client does, bounded, and without secrets."""

from __future__ import annotations

import io
import urllib.error
from email.message import Message
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import masking
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.masking import MASK, mask, printable
from ansible_collections.tenant.gpu.plugins.module_utils.vast.logs import Wish, read_log
from hypothesis import given
from hypothesis import strategies as st
from wire_market import KEY, Answer, WireMarket

LOGS = r"/api/v0/instances/request_logs/"
URL = "https://s3.amazonaws.com/vast.ai/instance_logs/abc.log"


class World:
    """A market whose logs lie elsewhere and appear after a few questions."""

    def __init__(self) -> None:
        self.market = WireMarket()
        self.row = self.market.add("gt1/p/a/g2/0123456789abcdef")
        self.text: bytes = b"one\ntwo\n"
        self.appears_after = 0
        self.url: Any = URL
        self.asked: list[Any] = []
        self._serve = self.market._serve
        self.market._serve = self._served  # type: ignore[method-assign]  # the logs stand before the market

    def _served(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if path.startswith("/api/v0/instances/request_logs/"):
            return 200, {"success": True, "result_url": self.url, "msg": "requested"}
        return self._serve(method, path, query, body)

    def open(self, request: Any, timeout: float) -> Answer:
        if request.full_url.startswith("http://127.0.0.1:1/api"):
            return self.market.open(request, timeout)
        assert KEY not in str(request.header_items()), "the key goes to the API only"
        self.asked.append(request.full_url)
        if len(self.asked) <= self.appears_after:
            raise urllib.error.HTTPError(request.full_url, 403, "not yet", Message(), io.BytesIO(b""))
        return Answer(200, self.text, {})

    def read(self, **changes: Any) -> dict[str, Any]:
        clock = self.market.clock
        client = self.market.client(opener=self, sleep=clock.sleep, clock=clock)
        return read_log(client, Wish(**{"project": "p", "name": "a", **changes}))

    def refused(self, **changes: Any) -> TenantFailure:
        with pytest.raises(TenantFailure) as caught:
            self.read(**changes)
        return caught.value


@pytest.fixture
def world() -> World:
    return World()


def test_the_request_is_the_official_clients(world: World) -> None:
    found = world.read(tail=5, wanted="two", daemon=True)
    assert world.market.sent("PUT", LOGS) == [{"tail": "5", "filter": "two", "daemon_logs": "true"}]
    assert (found["log"], found["lines"], found["of"], found["changed"]) == ("one\ntwo\n", 2, "daemon", False)
    world.read(tail=0)
    assert world.market.sent("PUT", LOGS)[-1] == {}


def test_a_log_that_appears_later_is_awaited(world: World) -> None:
    world.appears_after = 3
    assert world.read()["log"] == "one\ntwo\n"
    assert world.asked == [URL] * 4


def test_a_log_that_never_appears_ends_at_its_deadline(world: World) -> None:
    world.appears_after = 10_000
    began = world.market.clock.now
    assert "did not appear within 20 s" in world.refused(wait_s=20.0).what
    assert world.market.clock.now - began < 25


def test_the_end_of_a_long_log_is_what_is_kept(world: World) -> None:
    world.text = b"".join(b"line %06d\n" % number for number in range(200_000))
    found = world.read(max_bytes=1000)
    assert found["truncated"] is True
    assert found["log"].endswith("line 199999\n")
    assert found["log"].startswith("line ")
    assert len(found["log"]) <= 1000
    world.text = b"x" * 1000
    assert (world.read(max_bytes=1000)["truncated"], world.read(max_bytes=999)["truncated"]) == (False, True)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://10.0.0.7/x",
        "https://localhost/x",
        "file:///etc/passwd",
        "ftp://s3.amazonaws.com/x",
        "http://s3.amazonaws.com/x",
        "https://u:p@s3.amazonaws.com/x",
        "https://s3.amazonaws.com/x y",
        "http://127.0.0.1:2/x",
        "https://[x",
    ],
)
def test_the_provider_cannot_send_us_elsewhere(world: World, url: str) -> None:
    world.url = url
    assert "neither its own nor https" in world.refused().what
    assert world.asked == []


def test_the_apis_own_address_is_one(world: World) -> None:
    world.url = "http://127.0.0.1:1/logs/x.log"
    assert world.read()["lines"] == 2


@pytest.mark.parametrize("url", [None, "", 5])
def test_no_result_is_said(world: World, url: Any) -> None:
    world.url = url
    assert "no log to show: requested" in world.refused().what


def test_only_boxes_of_the_project_are_asked_for(world: World) -> None:
    world.market.add("somebody's own")
    for changes in ({"name": "b"}, {"project": "q"}, {"provider_id": "5002"}):
        assert "no box of this name and project" in world.refused(**changes).what
    assert world.market.sent("PUT", LOGS) == []


def test_secrets_are_masked_wherever_they_stand(world: World) -> None:
    world.text = f"key {KEY}\nmy own s3cr3t!\nHF_TOKEN=abcdefgh step=7\n".encode()
    text = world.read(secrets=["s3cr3t!", ""])["log"]
    assert text == f"key {MASK}\nmy own {MASK}\nHF_TOKEN={MASK} step=7\n"


# --- masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("WANDB_API_KEY=0123abcd", f"WANDB_API_KEY={MASK}"),
        ('"password": "hunter 2"', f'"password": {MASK}'),
        ("aws_secret_access_key : abc/def+gh", f"aws_secret_access_key : {MASK}"),
        ("Authorization: Bearer abcdef123456", f"Authorization: Bearer {MASK}"),
        ("clone https://me:pa55@git.example/x", f"clone https://me:{MASK}@git.example/x"),
        ("using hf_ABCDEFGHIJKLMNOPQRSTUVWX now", f"using {MASK} now"),
        ("AKIAIOSFODNN7EXAMPLE", MASK),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\nz", f"{MASK}\nz"),
        ("tokens: 1234 tokens/s", "tokens: 1234 tokens/s"),
        ("pad_token: 0, loss=0.5", "pad_token: 0, loss=0.5"),
        ("step 3 of keyboard=de", "step 3 of keyboard=de"),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert mask(text) == shown


@given(st.text(), st.lists(st.text(min_size=masking.SHORTEST), max_size=3))
def test_no_given_secret_is_left(text: str, secrets: list[str]) -> None:
    shown = mask(text + "".join(secrets), secrets)
    for secret in secrets:
        assert secret not in shown.replace(MASK, "") or secret in MASK


def test_a_log_steers_no_terminal() -> None:
    assert printable("a\x1b[2J\x1b]0;title\x07b\r\nc\rd\x00\te\n") == "ab\nc\nd\te\n"
    assert not set(printable("".join(map(chr, range(0x120))))) & {"\x1b", "\x07", "\x00", "\x9b"}

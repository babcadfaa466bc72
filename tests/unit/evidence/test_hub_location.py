# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Addresses on the Hugging Face Hub, whom its token may be told, what a receipt says. Against a Hub: integration."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    hub_location,
    hub_store,
    object_requests,
    roster,
    stores,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.hub_location import HubLocation
from ansible_collections.tenant.gpu.plugins.module_utils.object_client import Listed
from hypothesis import given
from hypothesis import strategies as st

URI = "hf://datasets/ada/results/demo/r1"


@pytest.fixture(autouse=True)
def nobodys_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind", "repository", "revision", "prefix"),
    [
        (URI, "dataset", "ada/results", "main", "demo/r1"),
        ("hf://ada/bert/demo/r1/", "model", "ada/bert", "main", "demo/r1"),
        ("hf://models/ada/bert/demo", "model", "ada/bert", "main", "demo"),
        ("hf://datasets/ada/results@exp/demo/r1", "dataset", "ada/results", "exp", "demo/r1"),
        ("hf://datasets/ada/results@exp%2F1/demo/r1", "dataset", "ada/results", "exp/1", "demo/r1"),
        ("hf://datasets/ada/results@refs/pr/7/demo/r1", "dataset", "ada/results", "refs/pr/7", "demo/r1"),
        ("hf://datasets/ada/results/a@b/c", "dataset", "ada/results", "main", "a@b/c"),
        ("hf://datasets/ada/results@" + "a1" * 20 + "/demo", "dataset", "ada/results", "a1" * 20, "demo"),
    ],
)
def test_addresses_are_read_as_the_hubs_library_reads_them(
    uri: str, kind: str, repository: str, revision: str, prefix: str
) -> None:
    found = stores.locate(uri)
    assert found == HubLocation(kind, repository, prefix, revision)
    assert stores.locate(found.uri) == found


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://datasets/ada/results",
        "hf://datasets/ada/results/",
        "hf://datasets/ada",
        "hf://ada/../other/x",
        "hf://ada/bert/../x",
        "hf://ada/bert//x",
        "hf://ada/bert@/x",
        "hf://ada/bert@a..b/x",
        "hf://ada/bert@-x/y",
        "hf://ada/bert@exp%2F..%2Fmain/x",
        "hf://ada/be rt/x",
        "hf://ada/bert/a b",
        "hf://ada/bert/*",
        "hf://ada/bert/[x]",
        "hf://ada/bert/.gitattributes",
        "hf://ada/bert/README.md",
        "hf://ada/bert/a\nb",
        "hf://spaces/ada/app/x",
        "hf://kernels/ada/fast/x",
        "hf://buckets/ada/box/x",
        "https://huggingface.co/ada/bert/x",
        None,
        7,
    ],
)
def test_an_address_that_names_no_folder_of_a_repository_is_refused(uri: object) -> None:
    with pytest.raises(TenantFailure) as caught:
        stores.locate(uri)
    assert caught.value.kind == "config"
    assert "hf://datasets/owner/repository/prefix" in caught.value.fix


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint_url": "http://mirror.example"},
        {"endpoint_url": "https://user:secret@mirror.example"},
        {"endpoint_url": "https://mirror.example/?x=1"},
        {"endpoint_url": "http://127.0.0.1.example"},
        {"endpoint_url": "ftp://localhost"},
        {"region": "eu"},
        {"addressing": "path"},
    ],
)
def test_settings_that_would_lose_the_token_or_mean_nothing_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(TenantFailure):
        stores.locate(URI, settings)


def test_a_copy_names_the_way_to_its_files_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    location = stores.locate(URI, {"endpoint_url": "https://mirror.example/", "profile": "results", "region": ""})
    copy = location.as_copy()
    assert copy == {"uri": URI, "endpoint_url": "https://mirror.example", "profile": "results"}
    assert stores.locate(copy["uri"], copy) == location
    assert stores.locate(URI).as_copy() == {"uri": URI}
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert stores.locate(URI).as_copy()["endpoint_url"] == "https://mirror.example"


# --- hosts --------------------------------------------------------------------------------------------------------

REAL = HubLocation("dataset", "ada/results", "demo")
MIRROR = HubLocation("dataset", "ada/results", "demo", endpoint_url="https://mirror.example")
LOOPBACK = HubLocation("dataset", "ada/results", "demo", endpoint_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co.example/x",
        "https://evil.example/huggingface.co",
        "http://huggingface.co/x",
        "https://huggingface.co@evil.example/x",
        "https://huggingface.co:444/x",
        "//huggingface.co/x",
        "https://[/x",
        None,
        7,
        "",
    ],
)
def test_the_token_goes_to_the_hub_alone(url: object) -> None:
    assert hub_location.own_address(REAL, "https://huggingface.co/api/x") == "https://huggingface.co/api/x"
    with pytest.raises(TenantFailure, match="not to be trusted"):
        hub_location.own_address(REAL, url)


def test_a_mirror_may_answer_with_the_name_of_what_it_mirrors() -> None:
    assert hub_location.own_address(MIRROR, "https://huggingface.co/api/x?y=1") == "https://mirror.example/api/x?y=1"
    with pytest.raises(TenantFailure):
        hub_location.own_address(MIRROR, "https://huggingface.co.example/x")


def test_bytes_cross_no_network_unencrypted() -> None:
    assert hub_location.storage_address(REAL, "https://cdn.example/x?sig=1") == "https://cdn.example/x?sig=1"
    assert hub_location.storage_address(LOOPBACK, "http://127.0.0.1:9000/x") == "http://127.0.0.1:9000/x"
    for location, url in (
        (REAL, "http://cdn.example/x"),
        (REAL, "http://127.0.0.1:9000/x"),
        (LOOPBACK, "http://192.0.2.1/x"),
        (REAL, "https://user@cdn.example/x"),
        (REAL, "file:///etc/passwd"),
    ):
        with pytest.raises(TenantFailure) as caught:
            hub_location.storage_address(location, url)
        assert "/x" not in caught.value.what


# --- the token ----------------------------------------------------------------------------------------------------


def test_the_token_is_found_where_the_hubs_library_keeps_it(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert hub_location.token_of(REAL, home) == ""
    (tmp_path / "token").write_text("hf_from_login\n")
    (tmp_path / "elsewhere").write_text("hf_elsewhere")
    (tmp_path / "stored_tokens").write_text("[ci]\nhf_token = hf_of_ci\n[other]\nhf_token = hf_other\n")
    assert hub_location.token_of(REAL, home) == "hf_from_login"
    assert hub_location.token_of(REAL, {**home, "HF_TOKEN_PATH": str(tmp_path / "elsewhere")}) == "hf_elsewhere"
    assert hub_location.token_of(REAL, {**home, "HF_TOKEN": "hf_env"}) == "hf_env"
    named = HubLocation("dataset", "ada/results", "demo", profile="ci")
    assert hub_location.token_of(named, {**home, "HF_TOKEN": "hf_env"}) == "hf_of_ci"
    with pytest.raises(TenantFailure, match="no token named 'nobody'"):
        hub_location.token_of(HubLocation("dataset", "ada/results", "demo", profile="nobody"), home)


@pytest.mark.parametrize("token", ["hf_a\r\nX-Evil: 1", "hf_of me", "hf_ü"])
def test_what_is_no_token_is_never_sent_and_never_shown(token: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        hub_location.token_of(REAL, {"HF_TOKEN": token})
    assert token not in str(caught.value)


# --- what lies there ----------------------------------------------------------------------------------------------


def test_only_the_very_hash_or_an_empty_file_is_there() -> None:
    file, empty = roster.RosterFile("a", 5, "ab" * 32), roster.RosterFile("b", 0, "cd" * 32)
    assert hub_store.is_at(Listed(5, "ab" * 32), file)
    assert hub_store.is_at(Listed(0, ""), empty)
    for listed in (None, Listed(5, ""), Listed(5, "cd" * 32), Listed(6, "ab" * 32)):
        assert not hub_store.is_at(listed, file)
    assert not hub_store.is_at(Listed(1, ""), empty)


@given(st.text(alphabet="*.pt filter=lfs\n", max_size=60))
def test_gitattributes_keeps_what_it_says_and_gains_its_line_once(text: str) -> None:
    once = hub_store.attributes_with(text, "demo/r1")
    assert once.startswith(text)
    assert once.splitlines()[-1] == "demo/r1/** filter=lfs diff=lfs merge=lfs -text"
    assert hub_store.attributes_with(once, "demo/r1") == once


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"retry-after": "7"}, 7.0),
        (429, {"ratelimit": '"api";r=0;t=55', "retry-after": "7"}, 55.0),
        (429, {"ratelimit": '"api";r=12;t=55'}, 0.0),
        (429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        (503, {"retry-after": "3"}, 3.0),
        (500, {"retry-after": "3"}, 0.0),
        (429, {"retry-after": "-5"}, 0.0),
        (429, {}, 0.0),
    ],
)
def test_how_long_a_busy_hub_asks_to_be_left_alone(status: int, headers: dict[str, str], wait_s: float) -> None:
    assert object_requests._problem(status, headers, b"").wait_s == wait_s


def test_the_hubs_own_words_are_kept_and_no_address_of_them() -> None:
    json_only = {"content-type": "application/json; charset=utf-8"}
    problem = object_requests._problem(
        404, {"x-error-code": "RevisionNotFound", "x-error-message": "Invalid rev id: x"}, b""
    )
    assert (problem.kind, problem.code, str(problem)) == (
        object_requests.MISSING,
        "RevisionNotFound",
        "HTTP 404 RevisionNotFound Invalid rev id: x",
    )
    told = object_requests._problem(400, json_only, b'{"error": "no, see https://cdn.example/x?sig=secret now"}')
    assert str(told) == "HTTP 400 no, see (an address) now"
    assert str(object_requests._problem(400, json_only, b"[" * 100_000)) == "HTTP 400"
    assert str(object_requests._problem(400, json_only, b'{"error": 7}')) == "HTTP 400"

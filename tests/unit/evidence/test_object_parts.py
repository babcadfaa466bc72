# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The parts of the object-store routes that need no store. Against a server: tests/integration."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    object_client,
    object_parts,
    object_requests,
    object_store,
    object_upload,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile
from hypothesis import given
from hypothesis import strategies as st

MIB = object_parts.MIB


def file_of(size: int, path: str = "model.pt") -> RosterFile:
    return RosterFile(path, size, "ab" * 32)


# --- cutting files ------------------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=5 * 2**40))
def test_parts_cover_a_file_once_and_are_as_many_as_s3_takes(size: int) -> None:
    part_bytes = object_parts.part_bytes_for(size)
    assert part_bytes == 0 or size > object_parts.PART_BYTES
    count = -(-size // part_bytes) if part_bytes else 1
    assert count <= object_parts.MAX_PARTS
    if count > 2000:
        return
    units = object_parts.units_of(file_of(size), part_bytes)
    assert len(units) == count
    assert sum(unit.bytes for unit in units) == size
    ends = [unit.offset + unit.bytes for unit in units]
    assert [unit.offset for unit in units] == [0, *ends[:-1]]
    # R2 wants all parts but the last to be of one size; S3 wants at least 5 MiB.
    assert all(unit.bytes == part_bytes for unit in units[:-1])


def test_five_tebibytes_fit_into_ten_thousand_parts() -> None:
    assert len(object_parts.units_of(file_of(5 * 2**40), object_parts.part_bytes_for(5 * 2**40))) <= 10_000


@given(st.lists(st.integers(0, 64 * MIB), max_size=50), st.integers(0, 256 * MIB))
def test_waves_lose_nothing_and_keep_to_their_budget(sizes: list[int], budget: int) -> None:
    units = [object_parts.Unit(file_of(size, f"f{number}"), 0, 0, size) for number, size in enumerate(sizes)]
    left, carried = units, []
    while left:
        wave = object_parts.next_wave(left, budget)
        assert wave
        assert len(wave) == 1 or sum(unit.bytes for unit in wave) <= budget
        carried += wave
        left = left[len(wave) :]
    assert carried == units


def test_a_part_is_there_only_with_its_very_hash() -> None:
    unit = object_parts.Unit(file_of(100), 1, 0, 100)
    hashes = {"sha256": "cd" * 32, "md5": "0123456789abcdef0123456789abcdef"}
    sha256 = object_store.base64_of(hashes["sha256"])

    def is_there(listed: dict[str, Any] | None) -> bool:
        return object_parts.is_there(unit, listed, hashes, sha256)

    assert is_there({"Size": 100, "ETag": '"x"', "ChecksumSHA256": sha256})
    assert is_there({"Size": 100, "ETag": f'"{hashes["md5"]}"'})
    assert not is_there(None)
    assert not is_there({"Size": 99, "ETag": '"x"', "ChecksumSHA256": sha256})
    assert not is_there({"Size": 100, "ETag": '"x"'})
    # Where the store has a SHA-256, an MD5 is not asked.
    assert not is_there(
        {"Size": 100, "ETag": f'"{hashes["md5"]}"', "ChecksumSHA256": object_store.base64_of("00" * 32)}
    )


def test_the_checksum_of_parts_is_the_one_that_s3_documents() -> None:
    parts = [b"a" * 10, b"b" * 20, b"c"]
    digests = [hashlib.sha256(part) for part in parts]
    whole = hashlib.sha256(b"".join(digest.digest() for digest in digests)).digest()
    expected = base64.b64encode(whole).decode() + "-3"
    assert object_store.composite([digest.hexdigest() for digest in digests]) == expected


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3:///prefix",
        "s3://bucket/../other",
        "s3://bucket//double",
        "s3://buck et/x",
        "s3://-bucket/x",
        "s3://bucket/a\nb",
        "https://bucket/x",
        "/folder",
        None,
        7,
    ],
)
def test_an_address_that_names_no_folder_of_a_bucket_is_refused(uri: object) -> None:
    with pytest.raises(TenantFailure) as caught:
        object_client.locate(uri)
    assert caught.value.kind == "config"


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint_url": "ftp://store"},
        {"endpoint_url": "https://user:secret@store"},
        {"endpoint_url": "https://store/?x=1"},
        {"addressing": "sideways"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(TenantFailure):
        object_client.locate("s3://bucket/x", settings)


def test_a_copy_names_the_way_to_its_objects_and_no_secret() -> None:
    settings = {"endpoint_url": "https://store:9000/", "region": "eu", "profile": "results", "secret_key": "hidden"}
    location = object_client.locate("s3://bucket/a/b/", settings)
    copy = location.as_copy()
    assert copy == {
        "uri": "s3://bucket/a/b",
        "endpoint_url": "https://store:9000",
        "region": "eu",
        "profile": "results",
    }
    assert object_client.locate(copy["uri"], copy) == location


# --- what the box is told -----------------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "a/b", "offset": 0, "bytes": 4, "of": 4, "url": "https://store/x", "sha256": "", **changes}


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"root": "relative"},
        {"root": "/x", "sends": [entry(path="../b")]},
        {"root": "/x", "sends": [entry(path="/etc/passwd")]},
        {"root": "/x", "sends": [entry(offset=2)]},
        {"root": "/x", "sends": [entry(offset=-1)]},
        {"root": "/x", "sends": [entry(url="file:///etc/passwd")]},
        {"root": "/x", "sends": [entry(headers=7)]},
        {"root": "/x", "hashes": [entry(algorithm="sha1")]},
        {"root": "/x", "whole": [{"path": "a", "bytes": 1, "sha256": "zz"}]},
    ],
)
def test_an_order_that_makes_no_sense_is_refused_without_quoting_a_url(record: object) -> None:
    with pytest.raises(object_upload.BadOrder) as caught:
        object_upload.parse_order(record)
    assert "store/x" not in str(caught.value)


def test_only_a_plain_file_that_is_as_promised_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    (tmp_path / "folder").mkdir()
    hashes = [
        entry(path="plain", offset=2, bytes=3, of=10, algorithm="sha256"),
        entry(path="plain", offset=0, bytes=10, of=10, algorithm="md5"),
        entry(path="plain", of=4, algorithm="sha256"),
        entry(path="link", bytes=10, of=10, algorithm="sha256"),
        entry(path="folder", bytes=0, of=0, algorithm="sha256"),
        entry(path="absent", algorithm="sha256"),
    ]
    order = object_upload.parse_order({"root": str(tmp_path), "hashes": hashes})
    hashed = object_upload.carry_out(order)["hashed"]
    assert hashed[0] == {"digest": hashlib.sha256(b"234").hexdigest()}
    assert hashed[1] == {"digest": hashlib.md5(b"0123456789", usedforsecurity=False).hexdigest()}
    assert [told.get("kind") for told in hashed[2:]] == [object_requests.CHANGED] * 4


# --- answers of a store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"", "busy"),
        (500, b"<html>", "busy"),
        (429, b"", "busy"),
        (400, b"<Error><Code>BadDigest</Code></Error>", "corrupted"),
        (400, b"<Error><Code>XAmzContentChecksumMismatch</Code></Error>", "corrupted"),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", "expired"),
        (403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "expired"),
        (403, b"<Error><Code>AccessDenied</Code></Error>", "refused"),
        (404, b"<Error><Code>NoSuchUpload</Code></Error>", "missing"),
        (301, b"<Error><Code>PermanentRedirect</Code></Error>", "refused"),
    ],
)
def test_each_answer_says_whether_another_try_can_help(status: int, body: bytes, kind: str) -> None:
    assert object_requests._problem(status, {}, body).kind == kind


def test_an_error_repeats_nothing_of_the_request() -> None:
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId>"
        b"<StringToSign>AWS4-HMAC</StringToSign></Error>"
    )
    assert str(object_requests._problem(403, {}, body)) == "HTTP 403 SignatureDoesNotMatch no match"


@pytest.mark.parametrize(
    ("part_bytes", "told", "same"),
    [
        (0, object_store.base64_of("ab" * 32), True),
        (0, object_store.base64_of("cd" * 32), False),
        (0, "", False),
        (5, "Q09NUE9TSVRF-2", True),
        (5, "Q09NUE9TSVRF", True),
        (5, "Q09NUE9TSVRF-3", False),
        (5, "T1RIRVI=-2", False),
    ],
)
def test_a_checksum_of_the_store_is_compared_as_what_it_is(part_bytes: int, told: str, same: bool) -> None:
    stored = object_store.StoredFile("a", 10, "ab" * 32, "etag", "", part_bytes, "Q09NUE9TSVRF-2")
    assert object_store._same_checksum(stored, told) is same

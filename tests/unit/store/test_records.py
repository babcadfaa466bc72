# SPDX-License-Identifier: MIT
"""Records are whole or not there; digests depend on content alone."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_digest_does_not_depend_on_key_order(value: dict) -> None:
    assert records.digest(value) == records.digest(dict(reversed(list(value.items()))))


@given(JSON)
def test_canonical_json_reads_back(value: object) -> None:
    assert json.loads(records.canonical_json(value)) == value


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.canonical_json({"loss": float("nan")})


def test_write_and_read(tmp_path) -> None:
    path = str(tmp_path / "deep" / "r.json")
    written = records.write_record(path, "receipt", {"a": 1, "unknown key of a later minor version": True})
    assert records.read_record(path, "receipt") == written
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    assert os.listdir(os.path.dirname(path)) == ["r.json"]


def test_a_failed_write_leaves_the_old_record(tmp_path, monkeypatch) -> None:
    path = str(tmp_path / "r.json")
    records.write_record(path, "receipt", {"a": 1})

    def refuse(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        records.write_record(path, "receipt", {"a": 2})
    assert records.read_record(path, "receipt")["a"] == 1
    assert os.listdir(tmp_path) == ["r.json"]


def test_half_a_surrogate_pair_is_written_and_reads_back_and_has_a_digest(tmp_path) -> None:
    path, word = str(tmp_path / "r.json"), "x \ud800 \\ud800 训练"
    records.write_record(path, "receipt", {"said": word, word: 1})
    read = records.read_record(path, "receipt")
    assert (read["said"], read[word]) == (word, 1)
    assert records.record_bytes("receipt", read) == (tmp_path / "r.json").read_bytes()
    assert records.digest(read) == records.digest({"said": word, word: 1, "schema": records.schema("receipt")})
    assert json.loads(records.canonical_json(word)) == word


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b"",
        b'{"schema": "gpu-tenant/receipt/v1", ',
        b"[]",
        b"\xff\xfe",
        b'{"schema": "gpu-tenant/receipt/v2"}',
    ],
)
def test_untrustworthy_records_are_refused_by_name(tmp_path, data: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(records.RecordError, match=r"r\.json"):
        records.read_record_or_none(str(path), "receipt")


def test_absence_is_an_answer_only_when_asked_for(tmp_path) -> None:
    path = str(tmp_path / "none.json")
    assert records.read_record_or_none(path, "receipt") is None
    with pytest.raises(records.RecordMissing):
        records.read_record(path, "receipt")


def test_utc_text_reads_back() -> None:
    now = records.utc_now()
    assert records.utc_text(records.parse_utc(now)) == now

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The reports of running transfers, read while several tasks append to one file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gpu_tenant.narrate import Narrator
from gpu_tenant.progress import JsonView, Progress
from gpu_tenant.transfers import Reports, Transfer, parse


def line(box: str, done: int, **changes: Any) -> bytes:
    report = {"box": box, "files_done": done, "files": 10, "bytes_done": done * 100, "bytes": 1000, **changes}
    return json.dumps(report).encode() + b"\n"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def test_before_the_first_transfer_there_is_nothing_to_read(path: Path) -> None:
    assert list(Reports(path).new()) == []


def test_several_boxes_in_one_file_and_each_report_once(path: Path) -> None:
    reports = Reports(path)
    append(path, line("b1", 1) + line("b2", 7, rate_bps=50.0, eta_s=6))
    assert list(reports.new()) == [
        Transfer("b1", 1, 10, 100, 1000),
        Transfer("b2", 7, 10, 700, 1000, rate_bps=50.0, eta_s=6.0),
    ]
    assert list(reports.new()) == []
    append(path, line("b1", 2))
    assert [report.files_done for report in reports.new()] == [2]


def test_a_torn_line_waits_for_its_end(path: Path) -> None:
    reports, whole = Reports(path), line("b1", 3)
    for cut in range(1, len(whole)):
        path.write_bytes(b"")
        reports = Reports(path)
        append(path, whole[:cut])
        assert list(reports.new()) == []
        append(path, whole[cut:] + line("b2", 4)[:5])
        assert [report.box for report in reports.new()] == ["b1"]


def test_what_is_no_report_is_left_out_and_the_rest_is_read(path: Path) -> None:
    foreign = [b"not json", b"[]", b"{}", b'"text"', b"\xff\xfe", b"", b"[" * 100_000]
    append(path, b"\n".join(foreign) + b"\n" + line("b1", 5))
    assert [report.files_done for report in Reports(path).new()] == [5]


def test_a_line_without_an_end_does_not_fill_the_memory(path: Path) -> None:
    reports = Reports(path)
    append(path, b"x" * 3_000_000)
    assert list(reports.new()) == []
    assert len(reports._begun) <= 64 * 1024
    append(path, b"\n" + line("b1", 6))
    assert [report.files_done for report in reports.new()] == [6]


@pytest.mark.parametrize("absurd", [-1, 1.5, True, "3", None])
def test_counts_are_whole_numbers(absurd: object) -> None:
    assert parse(line("b1", 1, bytes_done=absurd)) is None


@pytest.mark.parametrize("unknown", [float("nan"), float("inf"), -3, "fast", None])
def test_an_unusable_rate_is_unknown(unknown: object) -> None:
    found = parse(line("b1", 1, rate_bps=unknown, eta_s=unknown))
    assert found is not None
    assert (found.rate_bps, found.eta_s) == (None, None)


def test_the_text_says_only_what_is_known() -> None:
    assert Transfer("b1", 1, 4, 1000, 4_000_000).text == "1 of 4 files, 1.0 kB of 4.0 MB"
    told = Transfer("b1", 1, 4, 1000, 4_000_000, rate_bps=2_000_000, eta_s=2).text
    assert told == "1 of 4 files, 1.0 kB of 4.0 MB at 2.0 MB/s, 2 s left"


def test_a_report_becomes_an_event_with_its_numbers() -> None:
    stream = io.StringIO()
    with Progress(JsonView(stream)) as progress:
        Narrator(progress)(Transfer("b1", 1, 4, 1000, 4000, rate_bps=500.0))
    told = json.loads(stream.getvalue())
    assert (told["event"], told["box"], told["bytes_done"], told["rate_bps"]) == ("transfer", "b1", 1000, 500.0)
    assert "eta_s" not in told

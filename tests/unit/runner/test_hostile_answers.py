# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a hostile box answers ends no look at the others, steers no terminal, and can be written down."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gpu_tenant import fleet, risk, status, status_view, supervisor_answer
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.one_line import one_line

RUN: dict[str, Any] = {"run_id": "digits", "state": "running"}
CELL: dict[str, Any] = {"cell": "a", "state": "running", "step": 1, "steps": 2}
HUGE = 10**400
STEERS = "x \ud800\x1b]0;mine\x07\x1b[2J\x9b31m\u202e y"


def of_cell(**odd: Any) -> dict[str, Any]:
    return {"runs": [{**RUN, "cells": [{**CELL, **odd}]}]}


ANSWERS: list[dict[str, Any]] = [
    {"error": STEERS},
    {"runs": [{**RUN, "state": STEERS, "blocked_by": [STEERS], "waits_for": STEERS, STEERS: STEERS}]},
    of_cell(why=STEERS, failure=STEERS, liveness=STEERS, progress_problem=STEERS),
    of_cell(step=HUGE, steps=1e308, eta_s=1e308, rate=1e-320, running_s=1e308, attempt=2**53),
    {"health": {"gpu": {"cards": [{"name": STEERS, "used_mib": HUGE, "memory_mib": 1}]}}},
    {"health": {"disk": {"free_bytes": HUGE, "full_in_s": HUGE}, "warnings": [STEERS]}},
    {"batch": {"meaning": "unknown", "why": STEERS, "left_s": HUGE}, **of_cell()},
]


@pytest.fixture
def host(tmp_path: Path) -> BoxHost:
    return BoxHost("box-1", {"tenant_project": "demo", "tenant_state_dir": str(tmp_path)})


def told(answer: Any, code: int = 0, error: bytes = b"") -> Observation:
    out = b"no JSON" if answer is None else json.dumps(answer).encode()
    done = subprocess.CompletedProcess(["ssh"], code, out, error)
    return supervisor_answer.read_answer(Observation("box-1", "2026-11-01T00:00:00Z", "running"), done, "")


def drawn(rows: list[dict[str, Any]], width: int) -> str:
    """What a terminal gets, byte by byte."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="utf-8") as stream:
        Console(file=stream, width=width, force_terminal=False).print(status_view.StatusView(rows))
        stream.flush()
        return raw.getvalue().decode()


def harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


@pytest.mark.parametrize("width", [100, 200])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_hostile_answer_is_drawn_and_steers_nothing(answer: dict[str, Any], width: int, host: BoxHost) -> None:
    row = status.row(host, told(answer))
    shown = drawn([row], width)
    assert harmless(shown)
    assert "cannot be shown" not in shown
    assert "cannot be told" not in shown
    json.dumps(row, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_kept_of_an_answer_can_be_written_down_and_reckoned_with(answer: dict[str, Any], host: BoxHost) -> None:
    seen = told(answer)
    texts = [seen.problem, *seen.warnings, *([seen.run.reason, seen.run.failure, seen.run.state] if seen.run else [])]
    assert all(text == one_line(text) for text in texts)
    kept = json.dumps([seen.run.raw if seen.run else {}, seen.health, seen.batch], ensure_ascii=False, allow_nan=False)
    kept.encode()
    assert harmless(kept)
    assert str(HUGE) not in kept
    risk.at_risk_s(host, seen, "", None)


@pytest.mark.parametrize("code", [0, 1, 126, 127, 255])
def test_what_the_remote_command_writes_steers_no_terminal(code: int) -> None:
    seen = told(None, code, b"\x1b]0;owned\x07\x1b[2J\x1b[31mfake: everything\nis home\xc2\x9b\n")
    assert harmless(seen.problem)
    assert "\n" not in seen.problem


def test_a_path_that_can_be_shown_stays_as_it_is() -> None:
    seen = told(of_cell(folder="/data/two  blanks/训练"))
    assert seen.run is not None
    assert seen.run.raw["cells"][0]["folder"] == "/data/two  blanks/训练"


def test_an_error_of_one_row_is_told_in_it(monkeypatch: pytest.MonkeyPatch, host: BoxHost) -> None:
    def at_risk(host: BoxHost, seen: Observation, ledger: fleet.Known) -> Any:
        if seen.run is not None:
            raise OverflowError("nobody thought of it \x1b[2J")
        return risk.Risk(None, None, None)

    monkeypatch.setattr(fleet, "at_risk", at_risk)
    row = status.row_of_many(host, told(of_cell()), fleet.Known())
    assert (row["contact"], row["run"]) == ("unreachable", None)
    assert "OverflowError: nobody thought of it" in row["problem"]
    assert harmless(drawn([row], 200))


def test_an_error_of_our_records_of_one_box_is_told_in_its_row(monkeypatch: pytest.MonkeyPatch, host: BoxHost) -> None:
    def receipts(host: BoxHost, seen: Observation) -> Any:
        raise AttributeError("a receipt that is none")

    monkeypatch.setattr(status, "receipts", receipts)
    row = status.row_of_many(host, replace(told(of_cell()), contact="not_tried"), fleet.Known())
    assert (row["box"], row["contact"]) == ("box-1", "not_tried")
    assert "a receipt that is none" in row["problem"]


@pytest.mark.parametrize("width", [100, 200])
def test_a_cell_that_cannot_be_drawn_hides_no_other_box(width: int, host: BoxHost) -> None:
    good = status.row(host, told(of_cell()))
    bad = {**good, "box": "box-2", "disk_free_bytes": HUGE}
    shown = drawn([bad, {**good, "box": "box-3"}], width)
    assert all(each in shown for each in ("box-2", "box-3", "OverflowError", "step 1 of 2"))

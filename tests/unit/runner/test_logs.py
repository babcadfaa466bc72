# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box's log on a person's terminal: which one, to its end, through lost connections, and never as commands to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import login, logs
from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.logs import CellLog, Piece
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.supervisor_answer import run_view


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("loss 0.5\n", "loss 0.5\n"),
        ("训练完成\té\n", "训练完成\té\n"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("10%\r20%", "10%\n20%"),
        ("\u202etxt.exe\u2066", "\\u202etxt.exe\\u2066"),
        ("\x9b31m\x00", "\\x9b31m\\x00"),
    ],
)
def test_no_byte_of_a_box_steers_a_terminal(said: str, shown: str) -> None:
    assert logs.plain(said) == shown


def view(*cells: dict[str, Any]) -> Any:
    return run_view({"runs": [{"run_id": "digits", "state": "running", "cells": list(cells)}]}, "")


def test_the_cell_at_work_is_shown() -> None:
    seen = view(
        {"cell": "a", "state": "done", "attempt": 1},
        {"cell": "b", "state": "running", "attempt": 2},
        {"cell": "c", "state": "queued"},
    )
    assert logs.which(seen, "box-1", "") == ("digits", "b")
    assert logs.which(seen, "box-1", "a") == ("digits", "a")


def test_else_the_last_one_that_ran() -> None:
    seen = view({"cell": "a", "state": "done", "attempt": 1}, {"cell": "b", "state": "queued"})
    assert logs.which(seen, "box-1", "") == ("digits", "a")


@pytest.mark.parametrize(("cells", "wanted"), [([{"cell": "a"}], "z"), ([], ""), ([{"cell": "../x"}], "")])
def test_a_cell_that_is_not_there_is_named(cells: list[dict[str, Any]], wanted: str) -> None:
    with pytest.raises(TenantFailure) as refused:
        logs.which(view(*cells), "box-1", wanted)
    assert refused.value.kind == "config"


@pytest.mark.parametrize(
    ("contact", "kind"),
    [("unreachable", "unreachable"), ("not_tried", "unreachable"), ("no_supervisor", "config"), ("unpinned", "config")],
)
def test_a_box_that_cannot_be_asked_says_why(contact: str, kind: str) -> None:
    with pytest.raises(TenantFailure) as refused:
        logs.answered(Observation("box-1", "now", "stopped", contact=contact))
    assert refused.value.kind == kind
    assert refused.value.fix


class Log:
    """Stands for the box: each look gives the next text, or is a lost connection."""

    def __init__(self, *texts: str | None) -> None:
        self._texts = iter(texts)

    def after(self, piece: Piece) -> Piece:
        text = next(self._texts)
        if text is None:
            raise TenantFailure("unreachable", "no answer within 30 s")
        return Piece("a", 1, piece.offset + len(text), text)


def followed(log: Log, states: Iterator[str]) -> tuple[str, list[str], int]:
    troubles: list[str] = []
    waits: list[None] = []
    begin = Piece("a", 1, 0, "")
    pieces = logs.follow(log, begin, lambda: next(states), lambda: waits.append(None), troubles.append)  # type: ignore[arg-type]
    return "".join(piece.text for piece in pieces), troubles, len(waits)


def test_it_is_followed_to_the_end_of_the_run() -> None:
    states = iter(["running", "running", "done", "done"])
    assert followed(Log("one\n", "", "two\n", ""), states) == ("one\ntwo\n", [], 1)


def test_a_lost_connection_is_told_once_and_waited_for() -> None:
    states = iter(["running", "", "", "running", "done"])
    text, troubles, waits = followed(Log("one\n", None, None, "two\n", ""), states)
    assert (text, len(troubles), waits) == ("one\ntwo\n", 1, 2)


def test_a_group_is_no_box() -> None:
    boxes = [BoxHost(name, {}) for name in ("box-1", "box-2")]
    with pytest.raises(TenantFailure) as refused:
        login.one_box(boxes, "vast")
    assert "box-1, box-2" in refused.value.what
    assert login.one_box(boxes[:1], "box-1").name == "box-1"


class Door:
    """Stands for the observer: where the box is."""

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint("127.0.0.1", 22, "root", name)


def answered_with(monkeypatch: pytest.MonkeyPatch, out: bytes, code: int = 0, error: bytes = b"") -> CellLog:
    monkeypatch.setattr(logs, "run_ssh", lambda argv, most: subprocess.CompletedProcess(argv, code, out, error))
    host = BoxHost(
        "box-1", {"tenant_state_dir": "/nowhere", "platform_data_dir": "/data", "platform_python": "python3"}
    )
    return CellLog(cast(Observer, Door()), host, "", "digits", "a")


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(
    "out", [b"[1]", b'"x"', b"3", b"null", b"{}", b"no JSON", b"[" * 200_000, b'{"attempt": true, "offset": 1}']
)
def test_an_answer_that_is_no_log_is_a_failure_with_words(
    monkeypatch: pytest.MonkeyPatch, out: bytes, code: int
) -> None:
    with pytest.raises(TenantFailure) as failed:
        answered_with(monkeypatch, out, code).tail(3)
    assert (failed.value.kind, failed.value.box) == ("unreachable", "box-1")


def test_why_a_log_cannot_be_read_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for out, error in ((b'{"error": "no \\u001b[2J\\ud800 cell"}', b""), (b"", b"no \x1b[2J\n\xc2\x9bcell")):
        with pytest.raises(TenantFailure) as failed:
            answered_with(monkeypatch, out, 1, error).tail(3)
        assert str(failed.value).isprintable()


def test_what_a_supervisor_tells_of_a_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = answered_with(monkeypatch, b'{"attempt": 2, "offset": 9, "lines": ["a", "b"]}').tail(2)
    assert piece == Piece("a", 2, 9, "a\nb\n")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What one look at a box concludes, and what it never concludes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from rich.console import Console

from gpu_tenant import box_ssh, observe, risk, status, status_view, supervisor_answer
from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.sight import Sight

ALIAS = "digits-1.g2"
STATUS = {
    "runs": [
        {
            "run_id": "digits",
            "state": "running",
            "cells": [
                {"cell": "a", "state": "done", "step": 100, "steps": 100},
                {"cell": "b", "state": "running", "attempt": 2, "step": 42, "steps": 100, "loss": 0.5, "eta_s": 7.0},
            ],
        }
    ]
}


class Provider:
    """Stands for the API client: a list, or the failure to give one."""

    def __init__(self, rows: list[dict[str, Any]] | TenantFailure) -> None:
        self.rows = rows

    def list_instances(self) -> list[dict[str, Any]]:
        if isinstance(self.rows, TenantFailure):
            raise self.rows
        return self.rows

    def get_instance(self, instance_id: str) -> dict[str, Any] | None:
        """No box is more than a row of the list."""
        return None


@pytest.fixture
def host(tmp_path: Path) -> BoxHost:
    known_hosts = tmp_path / "known_hosts" / "digits-1"
    known_hosts.parent.mkdir()
    known_hosts.write_text(f"{ALIAS} ssh-ed25519 AAAA\n")
    return BoxHost(
        "digits-1",
        {
            "tenant_project": "demo",
            "tenant_state_dir": str(tmp_path),
            "platform_driver": "vast",
            "platform_name": "vast",
            "platform_data_dir": "/workspace/",
            "platform_python": "/opt/my python",
            "platform_clocks": [
                {"after": "0s", "effect": "the disk bills", "starts_at": "stopped"},
                {"after": "15d", "effect": "traffic bills", "starts_at": "always"},
            ],
        },
    )


class Box:
    """Answers instead of ssh; remembers how it was asked."""

    def __init__(self, code: int = 0, out: bytes = b"", error: bytes = b"") -> None:
        self.answer = (code, out, error)
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        self.asked.append(command)
        code, out, error = self.answer
        if code < 0:
            raise box_ssh.NoAnswer("no answer within 30 s")
        return subprocess.CompletedProcess(command, code, out, error)


def look(monkeypatch: pytest.MonkeyPatch, host: BoxHost, rows: Any, box: Box | None = None) -> Observation:
    observer = Observer([host], "/tmp/gt-test")
    provider = Provider(rows)
    monkeypatch.setattr(observer, "client", lambda name: provider)
    monkeypatch.setattr(observe, "run_ssh", box or Box(255))
    return observer.observe("digits")["digits-1"]


def test_a_running_box_answers(monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any]) -> None:
    box = Box(out=json.dumps(STATUS).encode())
    seen = look(monkeypatch, host, [vast_row], box)
    assert (seen.provider, seen.contact, seen.generation, seen.run_state) == ("running", "answered", 2, "running")
    assert seen.run is not None
    assert (seen.run.step, seen.run.steps, seen.run.loss, seen.run.attempt) == (42, 100, 0.5, 2)
    command = box.asked[0]
    assert "HostKeyAlias=digits-1.g2" in command
    assert "StrictHostKeyChecking=yes" in command
    assert command[command.index("--") + 1] == "127.0.0.1"
    assert "'/opt/my python'" in command[-1]
    assert command[-1].startswith("d=/workspace/gpu-tenant; ")
    assert "/proc" not in command[-1]


def test_only_who_shows_takes_what_a_supervisor_keeps_ready(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any]
) -> None:
    box = Box(out=json.dumps(STATUS).encode())
    observer = Observer([host], "")
    monkeypatch.setattr(observer, "client", lambda name: Provider([vast_row]))
    monkeypatch.setattr(observe, "run_ssh", box)
    for ready in (False, True):
        assert observer.observe(ready=ready)["digits-1"].run_state == "running"
    assert observer.observe("digits", ready=True)["digits-1"].run_state == "running"
    assert ["/answer" in command[-1] for command in box.asked] == [False, True, False]


@pytest.mark.parametrize(
    ("code", "out", "contact"),
    [
        (255, b"", "unreachable"),
        (-1, b"", "unreachable"),
        (0, b"not json", "unreachable"),
        (0, b"[1]", "unreachable"),
        (0, b"null", "unreachable"),
        (0, b"[" * 200_000, "unreachable"),
        (0, b'{"runs": 5}', "answered"),
        (127, b"", "no_python"),
        (126, b"", "no_python"),
        (66, b"", "no_supervisor"),
        (0, b'{"runs": []}', "answered"),
    ],
)
def test_contact(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any], code: int, out: bytes, contact: str
) -> None:
    seen = look(monkeypatch, host, [vast_row], Box(code, out))
    assert (seen.provider, seen.contact, seen.run) == ("running", contact, None)


@pytest.mark.parametrize("last", ["queued", "done"])
def test_a_run_that_failed_is_told_by_the_cell_that_did(last: str) -> None:
    cells = [
        {"cell": "a", "state": "failed", "failure": "host_memory", "why": "killed by signal 9", "attempt": 2},
        {"cell": "b", "state": last, "attempt": 0, "why": ""},
    ]
    run = {"run_id": "digits", "state": "failed", "cells": cells, "halted": "it asks to stop then"}
    seen = supervisor_answer.run_view({"runs": [run]}, "digits")
    assert seen is not None
    assert (seen.failure, seen.attempt) == ("host_memory", 2)
    assert seen.reason == "it asks to stop then; killed by signal 9"


@pytest.mark.parametrize(
    "odd",
    [
        {"step": float("nan"), "steps": 1e999, "loss": 10**400, "rate": "fast", "eta_s": True, "attempt": [1]},
        {"last_checkpoint": "yesterday", "running_s": 10**400, "why": 7, "liveness": {}, "progress_problem": 3},
    ],
)
@pytest.mark.parametrize("of_run", [{}, {"cells": 3}, {"cells": [5, None]}, {"blocked_by": 3}, {"state": ["running"]}])
def test_one_box_that_answers_nonsense_ends_no_look(
    monkeypatch: pytest.MonkeyPatch,
    host: BoxHost,
    vast_row: dict[str, Any],
    odd: dict[str, Any],
    of_run: dict[str, Any],
) -> None:
    run = {"run_id": "digits", "state": "running", "cells": [{"cell": "a", "state": "running", **odd}], **of_run}
    seen = look(monkeypatch, host, [vast_row], Box(out=json.dumps({"runs": [run], "health": [1]}).encode()))
    assert (seen.contact, seen.provider) == ("answered", "running")
    assert seen.run is not None
    assert (seen.run.step, seen.run.steps, seen.run.loss, seen.run.steps_per_s, seen.run.eta_s) == (None,) * 5
    assert risk.at_risk_s(host, seen, "", None) is None


def test_a_destroyed_box_on_a_list_that_lags_behind_is_absent(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any], tmp_path: Path
) -> None:
    box = Box(out=json.dumps(STATUS).encode())
    gone = {"provider_id": str(vast_row["id"]), "destroyed_at": "2026-11-21T04:00:00Z"}
    StateStore(str(tmp_path)).update_box("demo", "digits-1", 2, **gone)
    seen = look(monkeypatch, host, [vast_row], box)
    assert (seen.provider, seen.denied) == ("absent", None)
    assert box.asked == []


def test_a_look_tells_which_machine_on_record_is_denied(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, tmp_path: Path
) -> None:
    StateStore(str(tmp_path)).update_box("demo", "digits-1", 2, provider_id="4242")
    seen = look(monkeypatch, host, [], Box())
    assert (seen.provider, seen.denied) == ("absent", BoxIdentity("demo", "digits-1", 2, "4242"))


def test_another_machine_that_is_denied_was_not_denied_before() -> None:
    sight = Sight(lambda: 0.0, brought_up=True)
    for provider_id, times in (("41", 1), ("42", 1), ("42", 2), ("", 3), ("42", 4)):
        denied = BoxIdentity("demo", "digits-1", 2, provider_id) if provider_id else None
        sight.take(Observation("digits-1", "now", "absent", denied=denied))
        assert sight.absences == times


def test_an_unpinned_box_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "known_hosts" / "digits-1").write_text("digits-1.g1 ssh-ed25519 AAAA\n")
    box = Box()
    assert look(monkeypatch, host, [vast_row], box).contact == "unpinned"
    assert box.asked == []


def test_a_silent_provider_is_unreachable_and_never_absent(monkeypatch: pytest.MonkeyPatch, host: BoxHost) -> None:
    seen = look(monkeypatch, host, TenantFailure("provider", "no answer"))
    assert seen.provider == "unreachable"
    assert "no answer" in seen.problem


def test_a_refused_key_is_an_error(monkeypatch: pytest.MonkeyPatch, host: BoxHost) -> None:
    with pytest.raises(TenantFailure, match="refused"):
        look(monkeypatch, host, TenantFailure("config", "the API refused the key"))


def test_boxes_of_others_do_not_count(monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any]) -> None:
    theirs = dict(vast_row, label="gt1/other/digits-1/g9/0123456789abcdef")
    nobodys = dict(vast_row, id=5, label="my box")
    assert look(monkeypatch, host, [theirs, nobodys]).provider == "absent"


def test_superseded_boxes_are_seen(monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any]) -> None:
    old = dict(vast_row, id=4000, label="gt1/demo/digits-1/g1/0123456789abcdef")
    seen = look(monkeypatch, host, [old, vast_row], Box(66))
    assert [box.provider_id for box in seen.superseded] == ["4000"]


@pytest.mark.parametrize("address", ["-oProxyCommand=touch /tmp/x", "a b", ""])
def test_a_hostile_address_never_reaches_ssh(host: BoxHost, address: str) -> None:
    with pytest.raises(TenantFailure, match="host"):
        box_ssh.ssh_command(host, Endpoint(address, 22, "root", ALIAS), "/k", "")


def test_the_pool_is_per_generation(host: BoxHost) -> None:
    old = box_ssh.ssh_command(host, Endpoint("h", 22, "root", "digits-1.g1"), "/k", "/tmp/gt-x")
    new = box_ssh.ssh_command(host, Endpoint("h", 22, "root", "digits-1.g2"), "/k", "/tmp/gt-x")
    paths = [next(word for word in command if word.startswith("ControlPath=")) for command in (old, new)]
    assert paths[0] != paths[1]
    assert all(len(path) < 80 for path in paths)


def test_status_row(host: BoxHost, vast_item: Any) -> None:
    run = supervisor_answer.run_view(STATUS, "digits")
    row = status.row(host, Observation("digits-1", "t", "running", vast_item, contact="answered", run=run))
    assert row["price_per_hour"] == 0.31
    assert row["clocks"] == ["traffic bills (after 15d)"]
    line = status_view.line(row)
    assert line["progress"] == "step 42 of 100, loss 0.5, 7 s left"
    stopped = status.row(host, replace(Observation("digits-1", "t", "stopped"), item=vast_item))
    assert stopped["clocks"] == ["the disk bills", "traffic bills (after 15d)"]


def test_the_supervisors_warnings_are_shown_as_words_and_not_as_markup(
    monkeypatch: pytest.MonkeyPatch, host: BoxHost, vast_row: dict[str, Any]
) -> None:
    answer: dict[str, Any] = json.loads(json.dumps(STATUS))
    answer["health"] = {"warnings": ["the disk is full in 3 h 10 min", "x [/bold]\n\x1b[31my", 7]}
    answer["runs"][0]["cells"][1] |= {"progress_problem": "the pattern needs more than 0.05 s", "rate": 0.02}
    seen = look(monkeypatch, host, [vast_row], Box(out=json.dumps(answer).encode()))
    told = ("the disk is full in 3 h 10 min", "x [/bold] y", "progress: the pattern needs more than 0.05 s")
    assert seen.warnings == told
    row = status.row(host, seen)
    assert (row["warnings"], row["steps_per_s"]) == (list(told), 0.02)
    console = Console(width=500, record=True)
    console.print(status_view.table([row]))
    shown = console.export_text()
    assert all(each in shown for each in told)
    assert "50.0 s a step" in shown
    answer["health"] = {"warnings": "all of it"}
    answer["runs"] = []
    assert look(monkeypatch, host, [vast_row], Box(out=json.dumps(answer).encode())).warnings == ()


def test_the_key_file_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def key_of(**variables: Any) -> str:
        names = BoxHost("b", {"platform_driver": "vast", **variables})
        return str(Observer([names], "").client("b").key)

    monkeypatch.setenv("VAST_API_KEY", "from-env")
    assert key_of() == "from-env"
    path = tmp_path / "key"
    path.write_text("from-file\n")
    assert key_of(vast_api_key_file=str(path)) == "from-file"
    assert key_of(vast_api_key_file=str(path), vast_api_key="own") == "own"
    with pytest.raises(TenantFailure, match=r"cannot read the API key from .* correct vast_api_key_file"):
        key_of(vast_api_key_file=str(tmp_path / "absent"))
    monkeypatch.setenv("RUNPOD_API_KEY", "of-another-market")
    assert key_of(platform_driver="runpod", vast_api_key="own") == "of-another-market"

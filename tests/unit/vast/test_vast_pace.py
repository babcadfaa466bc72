# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's least intervals: each endpoint keeps its own, and all processes of an account keep them together."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import pace
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.pace import FARTHEST_SLOT_S, SharedPace, next_slot
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import MARKET_INTERVALS, VastClient
from wire_market import KEY, Clock

CALLS: dict[str, list[Callable[[VastClient], Any]]] = {
    "list": [lambda client: client.list_instances()],
    "show": [lambda client: client.get_instance("1")],
    "manage": [lambda client: client.set_state("1", "running")],
    "restart": [lambda client: client.restart_instance("1", "reboot")],
    "create": [lambda client: client.create_instance(1, {})],
    "destroy": [lambda client: client.destroy_instance("1")],
    "bid": [lambda client: client.change_bid("1", 0.2)],
    "deposit": [lambda client: client.deposit("1")],
    "prepay": [lambda client: client.prepay("1", 5.0)],
    "rises": [lambda client: client.pending_price_rises(), lambda client: client.answer_price_rise(1, True)],
    "ssh": [
        lambda client: client.list_ssh_keys(),
        lambda client: client.create_ssh_key("ssh-ed25519 AAAA"),
        lambda client: client.delete_ssh_key(1),
    ],
    "charges": [lambda client: client.charges(0, 1)],
    "search": [lambda client: client.search_offers({})],
    "copy": [
        lambda client: client.copy("1", "/a", "2", "/b"),
        lambda client: client.cloud_copy("1", 1, "Instance To Cloud", "/a", "/b"),
        lambda client: client.cancel_copies("1", cloud=True),
    ],
    "connections": [lambda client: client.connections()],
    "templates": [lambda client: client.find_templates({})],
    "logs": [lambda client: client.request_logs("1", 0, "", daemon=False)],
    "volumes": [
        lambda client: client.list_volumes(),
        lambda client: client.search_volume_offers({}),
        lambda client: client.create_volume(1, 10, "name"),
        lambda client: client.delete_volume("1"),
    ],
}


class Refusing:
    """Says no to every request, at once, and notes when it came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: list[float] = []

    def open(self, request: Any, timeout: float) -> None:
        self.at.append(self.clock.now)
        body = io.BytesIO(json.dumps({"success": False, "error": "invalid_args", "msg": "no"}).encode())
        raise urllib.error.HTTPError(request.full_url, 400, "refused", Message(), body)


def client_of(wire: Refusing, **settings: Any) -> VastClient:
    return VastClient(KEY, VastClient.URL, opener=wire, sleep=wire.clock.sleep, clock=wire.clock, **settings)


def ask(client: VastClient, call: Callable[[VastClient], Any]) -> None:
    with contextlib.suppress(TenantFailure):
        call(client)


def test_every_interval_has_a_call_here() -> None:
    assert set(CALLS) == set(MARKET_INTERVALS)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [(kind, calls[0], second) for kind, calls in sorted(CALLS.items()) for second in calls],
)
def test_each_endpoint_keeps_its_own_interval(
    tmp_path: Path, kind: str, first: Callable[[VastClient], Any], second: Callable[[VastClient], Any]
) -> None:
    wire = Refusing(Clock())
    shared = str(tmp_path / "run" / "clock")
    ask(client_of(wire, pace=SharedPace(shared)), first)
    # Another process has a client of its own and nothing but the file in common.
    ask(client_of(wire, pace=SharedPace(shared)), second)
    assert wire.at[1] - wire.at[0] == pytest.approx(MARKET_INTERVALS[kind])


def test_kinds_do_not_wait_for_each_other(tmp_path: Path) -> None:
    wire = Refusing(Clock())
    client = client_of(wire, pace=SharedPace(str(tmp_path / "run" / "clock")))
    for calls in CALLS.values():
        ask(client, calls[0])
    assert set(wire.at) == {wire.at[0]}


def test_on_the_market_the_file_is_the_accounts_and_elsewhere_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    wire = Refusing(Clock())
    ask(client_of(wire), CALLS["list"][0])
    ask(VastClient("another-key", VastClient.URL, opener=wire, clock=wire.clock), CALLS["list"][0])
    assert wire.at[0] == wire.at[1], "another account has its own time"
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 2
    assert all(file.stat().st_mode & 0o777 == 0o600 and KEY not in str(file) for file in files)
    local = VastClient(KEY, "http://127.0.0.1:1", opener=wire, clock=wire.clock)
    ask(local, CALLS["list"][0])
    assert len(list(tmp_path.rglob("*.json"))) == 2


TAKE = """
import sys, time
from ansible_collections.tenant.gpu.plugins.module_utils.pace import SharedPace
pace = SharedPace(sys.argv[1])
for _ in range(5):
    print(pace.take("create", 4.5, time.monotonic(), time.sleep))
"""


def test_processes_at_once_take_slots_that_are_apart(tmp_path: Path) -> None:
    words = [sys.executable, "-c", TAKE, str(tmp_path / "run" / "clock")]
    several = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _unused in range(4)]
    slots = sorted(float(line) for one in several for line in one.communicate(timeout=600)[0].split())
    assert len(slots) == 20
    assert min(after - before for before, after in itertools.pairwise(slots)) >= 4.5 - 1e-6


@pytest.mark.parametrize(
    ("last", "slot"),
    [
        (None, 1000.0),
        (999.0, 1003.5),
        (1002.0, 1006.5),
        (900.0, 1000.0),
        (1000.0 + FARTHEST_SLOT_S + 1, 1000.0),
        ("soon", 1000.0),
        (True, 1000.0),
        (float("nan"), 1000.0),
    ],
)
def test_what_cannot_be_a_slot_is_no_reason_to_wait(last: Any, slot: float) -> None:
    assert next_slot(last, 4.5, 1000.0) == slot


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"list": "x"}'])
def test_a_broken_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run" / "clock"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    clock = Clock()
    assert SharedPace(str(path)).take("list", 1.0, clock.now, clock.sleep) == clock.now
    assert SharedPace(str(path)).take("list", 1.0, clock.now, clock.sleep) == clock.now + 1.0


def test_a_file_that_cannot_be_used_leaves_each_process_its_own_time(tmp_path: Path) -> None:
    clock = Clock()
    link = tmp_path / "run" / "clock"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(tmp_path / "elsewhere")
    for path in (link, tmp_path / "open" / "clock", Path("/proc/none/clock")):
        (tmp_path / "open").mkdir(exist_ok=True)
        (tmp_path / "open").chmod(0o777)
        own = SharedPace(str(path))
        assert own.take("list", 1.0, clock.now, clock.sleep) == clock.now
        assert own.take("list", 1.0, clock.now, clock.sleep) == clock.now + 1.0
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "open" / "clock").exists()


def test_a_lock_that_nobody_lets_go_of_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    path = str(tmp_path / "run" / "clock")
    SharedPace(path).take("list", 1.0, clock.now, clock.sleep)
    with open(path, "r+b") as held:
        pace.fcntl.flock(held, pace.fcntl.LOCK_EX)
        before = clock.now
        SharedPace(path).take("list", 1.0, clock.now, clock.sleep)
    assert clock.now - before < 5

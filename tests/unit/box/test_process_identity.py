# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Who a process is: a pid alone says nothing."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import process
from ansible_collections.tenant.gpu.plugins.module_utils.box.process import (
    ALIVE,
    GONE,
    REBOOTED,
    RESTARTED,
    Boot,
    Identity,
)
from still_clock import StillClock

NOW = Boot("boot-1", 100)
TRAINER = Identity("boot-1", 100, 4242, 777)


@pytest.mark.parametrize(
    ("identity", "boot", "start", "verdict"),
    [
        (TRAINER, NOW, 777, ALIVE),
        (TRAINER, NOW, None, GONE),
        # Somebody else has the pid now.
        (TRAINER, NOW, 778, GONE),
        # The host rebooted; or only the container did, which keeps the boot id.
        (TRAINER, Boot("boot-2", 100), 777, REBOOTED),
        (TRAINER, Boot("boot-1", 101), 777, RESTARTED),
        (TRAINER, Boot("boot-2", 101), 777, REBOOTED),
        (None, NOW, 777, GONE),
    ],
)
def test_liveness(identity: Identity | None, boot: Boot, start: int | None, verdict: str) -> None:
    assert process.liveness(identity, boot, start) == verdict


def test_a_living_child_is_known_and_its_zombie_is_dead() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    identity = process.identify(child.pid)
    assert process.observe(identity) == ALIVE
    child.kill()
    # Not waited for yet: a zombie, whose pid is still taken.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.observe(identity) == GONE
    assert process.send(identity, 0) is False
    child.communicate()
    assert process.observe(identity) == GONE


def test_a_stranger_with_the_same_pid_gets_no_signal() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    real = process.identify(child.pid)
    assert real is not None
    stale = Identity(real.boot_id, real.pid1_start, real.pid, real.start - 1)
    assert not process.send(stale, 9)
    assert not process.send_group(stale, 9)
    assert process.kill_all([stale]) == 0
    assert process.observe(real) == ALIVE
    child.kill()
    child.communicate()


def test_members_are_found_by_their_environment_exactly() -> None:
    marked = subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"TENANT_ATTEMPT": "/x/a1"}, start_new_session=True)
    other = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, env={"TENANT_ATTEMPT": "/x/a11", "V": "TENANT_ATTEMPT=/x/a1"}
    )
    try:
        assert [found.pid for found in process.carrying("TENANT_ATTEMPT", "/x/a1")] == [marked.pid]
    finally:
        for child in (marked, other):
            child.kill()
            child.communicate()


@pytest.mark.parametrize("name", ["cat", "a b", "evil) S 1 1 1", "((", ") Z 0"])
def test_a_command_name_cannot_forge_the_fields(name: str) -> None:
    fields = " ".join(["R", "7", "8", "9"] + ["0"] * 15 + ["12345"] + ["0"] * 5)
    found = process.parse_stat(f"4242 ({name}) {fields}")
    assert found is not None
    assert (found.state, found.parent, found.group, found.start) == ("R", 7, 8, 12345)


@pytest.mark.parametrize("text", ["", "1 (x", "1 (x) R 1 2"])
def test_a_torn_stat_line_is_nothing(text: str) -> None:
    assert process.parse_stat(text) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"boot_id": "b"},
        {"boot_id": 1, "pid1_start": 1, "pid": 1, "start": 1},
        {"boot_id": "b", "pid": "1"},
    ],
)
def test_half_an_identity_is_none(value: object) -> None:
    assert process.identity_from(value) is None


def test_an_identity_survives_its_record() -> None:
    assert process.identity_from(TRAINER.as_dict()) == TRAINER
    assert process.observe(process.identity_from(process.myself().as_dict())) == ALIVE


# --- the end ----------------------------------------------------------------------------------------------------


def test_who_was_ended_is_gone() -> None:
    """Killed is not yet gone: memory of a GPU is free, and nothing writes, once it is."""
    sleepers = [subprocess.Popen(["sleep", "600"]) for _number in range(8)]
    try:
        identities = [found for found in (process.identify(each.pid) for each in sleepers) if found is not None]
        assert process.end_all(identities) == 8
        assert [process.observe(identity) for identity in identities] == [process.GONE] * 8
        assert process.end_all(identities) == 0
    finally:
        for each in sleepers:
            each.kill()
            each.wait()


def test_who_hangs_in_the_kernel_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StillClock()
    monkeypatch.setattr(process, "time", clock)
    monkeypatch.setattr(process, "send", lambda identity, number: True)
    monkeypatch.setattr(process, "observe", lambda identity: process.ALIVE)
    assert process.end_all([process.Identity("b", 1, 7, 7)]) == 1
    assert process.GONE_WITHIN_S <= clock.now < process.GONE_WITHIN_S + 1

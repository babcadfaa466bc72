# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``resume-all`` at a boot: the durable mount may come later than the script that resumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, control, desired, detach, gates, records
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import DISK, Refused

ASKED = gates.durable_problem
ABSENT = "the durable mount /mnt/team is not there"
CALLER = control.Caller(("/bin/true",))
RUN: dict[str, Any] = {
    "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "digits",
    "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "workdir": "/",
    "command": ["true"], "cells": [{"id": "c1"}], "durable": {"kind": "mount", "path": "/mnt/team"},
    "limits": {"min_free_bytes": 0, "min_free_inodes": 0},
}  # fmt: skip


class Boot:
    """A box that has just started. Its mount comes ``after_s`` on a clock that only waiting moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any] | None = None) -> None:
        self.layout = Layout(str(folder / "root"))
        self.now, self.after_s, self.started = 500.0, 0.0, 0
        monkeypatch.setattr(control.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(control.time, "sleep", self.wait)
        monkeypatch.setattr(gates, "durable_problem", self.problem)
        monkeypatch.setattr(gates, "_durable_shortages", lambda _durable, _limits: [])
        monkeypatch.setattr(detach, "start_daemon", self.start)
        control.register(self.layout, CALLER, run or RUN)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def problem(self, durable: dict[str, Any], _root: str) -> str:
        return ABSENT if durable["kind"] == "mount" and self.now < 500.0 + self.after_s else ""

    def start(self, *_words: object) -> str:
        self.started += 1
        return detach.RUNNING

    def resume(self, check: bool = False) -> dict[str, Any]:
        return control.resume_all(self.layout, control.Caller(CALLER.program, check=check))


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(tmp_path, monkeypatch)


def test_a_mount_that_is_there_is_not_waited_for(boot: Boot) -> None:
    assert "waited_for_mount_s" not in boot.resume()
    assert (boot.started, boot.now) == (1, 500.0)


def test_a_mount_that_comes_late_is_waited_for(boot: Boot) -> None:
    boot.after_s = 31.0
    answer = boot.resume()
    assert (answer["changed"], answer["waited_for_mount_s"], boot.started) == (True, 32.0, 1)


def disks(root: str, place: str, mounted: Callable[[], bool]) -> Callable[..., os.stat_result]:
    """``os.stat`` of a box whose data lie on a disk of their own; ``place`` on the system's until it is mounted."""
    real = os.stat

    def stat(path: Any, **words: Any) -> os.stat_result:
        found, name = real(path, **words), os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        device = {"/": 1, root: 2, place: 3 if mounted() else 1}.get(str(name), found.st_dev)
        return os.stat_result((*found[:2], device, *found[3:]))

    return stat


def test_an_empty_folder_on_the_disk_of_the_system_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box of two disks: what lies on the other one than the data is not mounted for that."""
    place = tmp_path / "netdisk"
    place.mkdir()
    boot = Boot(tmp_path, monkeypatch, dict(RUN, durable={"kind": "mount", "path": str(place)}))
    monkeypatch.setattr(gates, "durable_problem", ASKED)
    monkeypatch.setattr(os, "stat", disks(boot.layout.root, str(place), lambda: boot.now >= 531.0))
    answer = boot.resume()
    assert (answer["changed"], answer["waited_for_mount_s"], boot.started) == (True, 32.0, 1)


def test_law_6_a_mount_that_never_comes_is_waited_for_with_a_deadline(boot: Boot) -> None:
    boot.after_s = 1e9
    with pytest.raises(Refused, match=ABSENT) as refused:
        boot.resume()
    assert refused.value.code == DISK
    assert (boot.now - 500.0, boot.started) == (control.MOUNT_WITHIN_S, 0)


def test_what_ended_before_the_boot_waits_for_its_copy_too(boot: Boot) -> None:
    """It would have failed for a mount that comes a moment later."""
    run = dict(RUN, spec_sha256="a" * 64)
    found = attempt.claim(boot.layout, control.run_record.check_run(run), {"id": "c1", "args": [], "seed": 0}, 1)
    keys = attempt.work(control.run_record.check_run(run), {"id": "c1", "args": [], "seed": 0}, 1)
    attempt.write_exit(found, keys, wrapper=0, child=0)
    boot.after_s = 10.0
    assert (boot.resume()["waited_for_mount_s"], boot.started) == (10.0, 1)


@pytest.mark.parametrize("obstacle", ["check", "hold", "seal", "stopped", "nothing registered"])
def test_nobody_waits_for_a_mount_that_nothing_needs(boot: Boot, obstacle: str) -> None:
    boot.after_s = 1e9
    if obstacle in ("hold", "stopped"):
        stopped = {"digits": control.process.current_boot().as_dict()} if obstacle == "stopped" else {}
        order = {"desired": "hold" if obstacle == "hold" else "run", "stopped": stopped, "forgiven": {}}
        desired.write(boot.layout, order)
    if obstacle == "seal":
        records.write_record(boot.layout.seal, "seal", {})
    if obstacle == "nothing registered":
        os.unlink(boot.layout.index)
    if obstacle == "check":
        with pytest.raises(Refused, match=ABSENT):
            boot.resume(check=True)
    else:
        assert not boot.resume()["changed"]
    assert (boot.started, boot.now) == (0, 500.0)

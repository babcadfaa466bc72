# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the supervisor reads: metrics that grow, cgroup limits, free space, the fence, how to detach."""

from __future__ import annotations

import builtins
import errno
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    cgroup,
    desired,
    detach,
    failure_class,
    fence,
    gates,
    locks,
    process,
    shim,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import progress as progress_reader
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.records import RecordError
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from hypothesis import given
from hypothesis import strategies as st

# --- metrics ------------------------------------------------------------------------------------------------------


def metrics(folder: Path, *lines: str) -> progress_reader.Progress:
    path = folder / "metrics.jsonl"
    path.write_text("\n".join(lines))
    return progress_reader.read_progress(str(path), running_s=10.0)


def test_progress_of_a_resumed_run(tmp_path: Path) -> None:
    found = metrics(
        tmp_path,
        '{"resumed_from": 100, "path": "/x"}',
        '{"step": 101, "steps": 200, "loss": 0.9, "trained_s": 50.0}',
        '{"step": 111, "steps": 200, "loss": 0.5, "trained_s": 55.0}',
        '{"step": 112, "ste',
    )
    assert (found.step, found.steps, found.loss, found.resumed_from_step) == (111, 200, 0.5, 100)
    assert (found.rate, found.eta_s) == (2.0, 44.5)


def test_without_a_clock_in_the_lines_the_age_serves(tmp_path: Path) -> None:
    found = metrics(tmp_path, '{"resumed_from": 4}', '{"step": 24, "steps": 30}')
    assert (found.rate, found.eta_s) == (2.0, 3.0)


def test_the_middle_of_a_long_file_is_not_read(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "steps": 50000, "pad": "x" * 50}) for step in range(1, 20001)]
    found = metrics(tmp_path, '{"resumed_from": 0}', *lines)
    assert (found.step, found.resumed_from_step) == (20000, 0)


@pytest.mark.parametrize(
    "line", ["NaN", '{"step": NaN, "loss": Infinity}', '{"step": true}', '{"step": "7"}', "[1]", ""]
)
def test_numbers_that_are_none_are_not_shown(tmp_path: Path, line: str) -> None:
    found = metrics(tmp_path, line)
    assert (found.step, found.loss) == (None, None)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    lines = progress_reader.parse_lines(data)
    json.dumps(progress_reader.progress_of(lines, lines, 1.0).__dict__, allow_nan=False)


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cpus"), [("200000 100000", 2.0), ("150000 100000", 1.5), ("max 100000", None), ("", None), ("5 0", None)]
)
def test_cpu_quota(text: str, cpus: float | None) -> None:
    assert cgroup.parse_cpu_max(text) == cpus


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("300000 100000\n")
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    assert cgroup.cpu_quota(str(tmp_path), str(membership)) == 3.0
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cgroup.cpu_quota(str(tmp_path), str(membership)) == 0.5


def test_threads_are_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: 0.5)
    assert cgroup.threads() == 1
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: 1e6)
    assert cgroup.threads() == len(__import__("os").sched_getaffinity(0))


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "limits", "refused"),
    [
        (10**12, 10**6, {}, 0),
        (10**8, 10**6, {}, 1),
        (10**12, 10, {}, 1),
        (10**8, 10, {}, 2),
        (10**12, None, {}, 0),
        (100, 10, {"min_free_bytes": 100, "min_free_inodes": 10}, 0),
        (99, 9, {"min_free_bytes": 100, "min_free_inodes": 10}, 2),
    ],
)
def test_the_disk_gate(free_bytes: int, free_inodes: int | None, limits: dict[str, int], refused: int) -> None:
    assert len(gates.shortages(gates.Disk(free_bytes, free_inodes), limits)) == refused


# --- fence --------------------------------------------------------------------------------------------------------


@given(st.lists(st.none() | st.integers(0, 20), max_size=20))
def test_the_fence_never_falls(callers: list[int | None]) -> None:
    known = 0
    for epoch in callers:
        if epoch is not None and epoch < known:
            with pytest.raises(Refused) as refused:
                fence.admitted_epoch(known, epoch)
            assert refused.value.code == 14
            continue
        admitted = fence.admitted_epoch(known, epoch)
        assert admitted >= known
        assert epoch is None or admitted == epoch
        known = admitted


def test_a_damaged_fence_lets_nobody_pass(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    for text in (
        "{",
        '{"schema": "gpu-tenant/fence/v1", "epoch": "9"}',
        '{"schema": "gpu-tenant/fence/v2", "epoch": 9}',
    ):
        Path(layout.fence).write_text(text)
        with pytest.raises(RecordError):
            fence.pass_fence(layout, 100)


def test_a_damaged_wish_means_hold(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert desired.read(layout)["desired"] == "run"
    Path(layout.desired).write_text('{"desired": "ru')
    assert desired.orders(layout).desired == "hold"


def test_a_stop_lasts_until_the_box_starts_again(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    boot = process.current_boot()
    older = dict(boot.as_dict(), pid1_start=boot.pid1_start + 1)
    wish = {"desired": "run", "stopped": {"now": boot.as_dict(), "before": older}, "forgiven": {}}
    desired.write(layout, wish)
    orders = desired.orders(layout)
    assert orders.stopped == {"now"}
    assert orders.may_run("before")
    assert not orders.may_run("now")


# --- locks, detaching, environment ----------------------------------------------------------------------------------


def test_a_lock_is_held_once_and_seen_by_others(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    assert not locks.is_held(path)
    with locks.exclusive(path, 0, "x"):
        assert locks.is_held(path)
        assert locks.try_lock(path) is None
        with pytest.raises(Refused) as refused, locks.exclusive(path, 0.1, "x"):
            pass
        assert refused.value.code == 14
    assert not locks.is_held(path)


def test_detached_commands() -> None:
    argv = ["/usr/bin/python3", "-I", "/x/s.pyz", "daemon"]
    tmux = detach.command("tmux", argv, "/data", is_root=True)
    assert tmux[:3] == ["tmux", "-L", tmux[2]]
    assert tmux[-4:] == argv
    given = detach.command("tmux", argv, "/data", is_root=True, variables=["A", "B"])
    assert given[given.index("update-environment") + 1] == "A B"
    assert detach.command("tmux", argv, "/other", is_root=True)[2] != tmux[2]
    assert "--user" in detach.command("systemd", argv, "/data", is_root=False)
    unit = detach.command("systemd", argv, "/data", is_root=True)
    assert "--user" not in unit
    assert "KillMode=process" in unit
    again = detach.command("systemd", argv, "/data", is_root=True)
    names = [word for words in (unit, again) for word in words if word.startswith("--unit=")]
    bare = f"--unit={detach.unit_name('/data')}"
    assert names[0] != names[1], "a unit that a trainer has outlived keeps its name"
    assert bare not in names, "which is that of the hook for a start of the machine"
    assert all(name.startswith(f"{bare}-") for name in names)
    with pytest.raises(Refused):
        detach.command("nohup", argv, "/data", is_root=True)


def test_login_noise_does_not_reach_the_trainer() -> None:
    run: dict[str, Any] = {"env": {"A": "run", "OMP_NUM_THREADS": "7"}, "python": "/opt/env/bin/python"}
    inherited = {"SSH_AUTH_SOCK": "/x", "TMUX": "1", "TENANT_STAMP": "gt1", "HOME": "/root", "PATH": "/bin"}
    found = shim.trainer_environment(inherited, run, {"A": "secret"}, {"TENANT_RUN_ID": "r"}, threads=3)
    assert not {"SSH_AUTH_SOCK", "TMUX", "TENANT_STAMP"} & set(found)
    assert (found["A"], found["HOME"], found["PATH"]) == ("secret", "/root", "/opt/env/bin:/bin")
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("7", "3")
    # An image's own number is none of this box.
    of_the_image = {"OMP_NUM_THREADS": "128", "MKL_NUM_THREADS": "128"}
    found = shim.trainer_environment({**inherited, **of_the_image}, run, {}, {}, threads=3)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("7", "3")


def test_large_copies_go_past_the_cache_unless_somebody_says_otherwise() -> None:
    """A hypervisor that shows few cores a large cache makes glibc copy through it."""
    run: dict[str, Any] = {"env": {}, "python": "/usr/bin/python3"}
    assert shim.trainer_environment({}, run, {}, {}, threads=1)["GLIBC_TUNABLES"] == shim.COPYING["GLIBC_TUNABLES"]
    own = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}
    assert shim.trainer_environment(own, run, {}, {}, threads=1)["GLIBC_TUNABLES"] == own["GLIBC_TUNABLES"]
    assert shim.trainer_environment({}, {**run, "env": own}, {}, {}, 1)["GLIBC_TUNABLES"] == own["GLIBC_TUNABLES"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a tunable of x86")
def test_glibc_takes_the_size_from_which_it_copies_past_the_cache() -> None:
    loader = "/lib64/ld-linux-x86-64.so.2"
    asked = [loader, "--list-tunables"]
    told = subprocess.run(asked, env=dict(shim.COPYING), check=True, text=True, stdout=subprocess.PIPE).stdout
    assert "glibc.cpu.x86_non_temporal_threshold: 0x400000 " in told


@pytest.mark.parametrize(
    ("child", "stop_asked", "wrapper"),
    [(0, False, 0), (1, False, 40), (-9, False, 40), (30, False, 30), (0, True, 30), (-9, True, 30), (1, True, 30)],
)
def test_wrapper_exit_codes(child: int, stop_asked: bool, wrapper: int) -> None:
    assert shim.wrapper_exit(child, stop_asked) == wrapper


@pytest.mark.parametrize(("child", "wrapper"), [(1, 13), (0, 0), (-9, 40), (30, 30)])
def test_a_trainer_that_fails_on_a_full_disk_is_not_blamed(child: int, wrapper: int) -> None:
    failure = failure_class.classify(failure_class.Evidence(child, shortages=("0 bytes are free",)))
    assert shim.wrapper_exit(child, stop_asked=False, failure=failure) == wrapper


def test_a_log_is_capped_without_losing_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not shim.rotate(str(path), cap=100)
        writer.write(b"b")
        assert shim.rotate(str(path), cap=100)
        writer.write(b"after")
    assert path.read_bytes() == b"after"
    assert (tmp_path / "run.log.1").read_bytes() == b"a" * 100 + b"b"


def test_of_a_log_that_grew_faster_than_it_was_looked_at_the_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"a" * 1000 + b"b" * 200)
    assert shim.rotate(str(path), cap=100)
    assert (tmp_path / "run.log.1").read_bytes() == b"b" * 200


def test_a_log_on_a_full_disk_gives_space_back_and_takes_none(tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("NOT RUN: mounting a small file system needs root")
    try:
        path = tmp_path / "run.log"
        with open(path, "ab", buffering=0) as writer:
            writer.write(b"x" * 700_000 + b"the last words\n")
            assert shim.rotate(str(path), cap=600_000)
            assert gates.disk_of(str(tmp_path)).free_bytes >= 900_000
            assert (tmp_path / "run.log.1").read_bytes().endswith(b"x" * 1000 + b"the last words\n")
            writer.write(b"after")
        assert path.read_bytes() == b"after"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_log_is_cut_where_no_inode_is_left_for_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open

    def no_new_file(path: Any, mode: str = "r", *words: Any, **more: Any) -> Any:
        if "w" in mode and not os.path.exists(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *words, **more)

    path = tmp_path / "run.log"
    path.write_bytes(b"a" * 200)
    monkeypatch.setattr(builtins, "open", no_new_file)
    assert shim.rotate(str(path), cap=100)
    assert os.path.getsize(path) == 0


def test_a_log_that_cannot_be_copied_for_another_reason_is_left_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shutil, "copyfileobj", refuse)
    path = tmp_path / "run.log"
    path.write_bytes(b"a" * 200)
    assert not shim.rotate(str(path), cap=100)
    assert path.read_bytes() == b"a" * 200

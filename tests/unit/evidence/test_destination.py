# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The place where files arrive, judged before the first byte, and held by one transfer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, destination, quota, roster
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from evidence_world import entry

FILES = roster.parse_files([entry("d/a", b"aaa"), entry("b", b"bb")])
ROOM = {"path": "/data", "free_bytes": 1000, "free_inodes": 100, "block_bytes": 1, "staged_bytes": 0}
ROOM |= {"limits": [], "problem": ""}


def files(*sizes: int) -> tuple[roster.RosterFile, ...]:
    return tuple(roster.RosterFile(f"d{n}/f", size, "0" * 64) for n, size in enumerate(sizes))


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount made by ``mount OPTIONS folder``; the test is skipped where this user may not mount."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a mount needs root and its capabilities: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=600)


# --- where it lies ---


@pytest.mark.parametrize("escape", ["..", "link"])
def test_law_8_a_destination_outside_its_root_is_refused(tmp_path: Path, escape: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(destination.BadDestination, match="is not inside"):
        delivery.answer_survey(str(inside / escape / "x"), FILES, str(inside), dry=False)
    delivery.answer_survey(str(inside / "fine"), FILES, str(inside), dry=False)
    with pytest.raises(destination.BadDestination, match="absolute"):
        destination.confine("relative", "")


def test_a_file_in_the_way_of_the_destination_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("x")
    with pytest.raises(destination.BadDestination, match=r"results is not a folder"):
        destination.room(str(tmp_path / "results" / "demo"))


# --- what fits ---


def test_room_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    found = destination.room(str(tmp_path / "not" / "yet"), FILES)
    assert found["path"] == str(tmp_path)
    assert found["free_bytes"] > 0
    assert found["problem"] == ""
    assert list(tmp_path.iterdir()) == []


def test_bytes_and_inodes_are_counted_before_anything_moves() -> None:
    assert destination.room_problem(files(400, 500), ROOM, 100) == ""
    assert "900 bytes" in destination.room_problem(files(400, 500), ROOM, 101)
    assert "free at /data" in destination.room_problem(files(400, 500), ROOM, 101)
    assert "inodes" in destination.room_problem(files(*[1] * 50), ROOM, 0)
    assert destination.room_problem(files(*[1] * 50), {**ROOM, "free_inodes": -1}, 0) == ""
    assert destination.room_problem((), {**ROOM, "problem": "/data is read-only"}, 0) == ""


def test_small_files_take_whole_blocks() -> None:
    room = {**ROOM, "free_bytes": 40_000, "block_bytes": 4096}
    assert "40960 bytes" in destination.room_problem(files(*[10] * 10), room, 0)
    assert destination.room_problem(files(*[10] * 9), room, 0) == ""


def test_what_arrived_before_needs_no_room_again_unless_it_is_made_anew(tmp_path: Path) -> None:
    staged = tmp_path / "results" / roster.INCOMING / "d"
    staged.mkdir(parents=True)
    (staged / "f").write_bytes(b"x" * 65536)
    found = destination.room(str(tmp_path / "results"), FILES)["staged_bytes"]
    assert found >= 65536
    room = {**ROOM, "free_bytes": 50_000, "staged_bytes": found}
    assert destination.room_problem(files(100_000), room, 0, in_place=True) == ""
    assert "100000 bytes" in destination.room_problem(files(100_000), room, 0)
    assert "bytes are to come" in destination.room_problem(files(200_000), room, 0, in_place=True)


def test_every_folder_of_a_deep_path_takes_inodes() -> None:
    deep = (roster.RosterFile("/".join(["d"] * 30) + "/f", 1, "0" * 64),)
    assert "inodes" in destination.room_problem(deep, ROOM, 0)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"free_bytes": 10, "free_inodes": -1}, "only 10 are free at the quota of user 7"),
        ({"free_bytes": -1, "free_inodes": 3}, "only 3 are free at the quota of user 7"),
        ({"free_bytes": -1, "free_inodes": -1}, ""),
    ],
)
def test_a_quota_is_a_limit_like_the_disk(limit: dict[str, int], said: str) -> None:
    problem = destination.room_problem(files(20), {**ROOM, "limits": [{"what": "the quota of user 7", **limit}]}, 0)
    assert said in problem
    assert bool(problem) == bool(said)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**ROOM, "free_bytes": None},
        {**ROOM, "block_bytes": "x"},
        {**ROOM, "limits": 7},
        {**ROOM, "limits": [{}]},
        {**ROOM, "limits": ["x"]},
        {**ROOM, "problem": "no"},
        {**ROOM, "staged_bytes": "x"},
    ],
)
def test_law_8_what_a_box_says_of_its_room_cannot_break_the_preflight(answer: dict[str, Any]) -> None:
    assert destination.room_problem(files(1), answer, 0, in_place=True) != ""


def test_a_proxy_carries_small_files_only() -> None:
    assert destination.proxy_problem(files(60), 64) == ""
    assert "proxy" in destination.proxy_problem(files(60, 5), 64)


def test_the_known_cap_of_a_mount_counts_what_is_there(tmp_path: Path) -> None:
    with mounted(tmp_path / "fs", "-t", "tmpfs", "-o", "size=1m", "none"):
        root = tmp_path / "fs" / "results"
        for number in range(30):
            (root / f"{number}").mkdir(parents=True)
        room = destination.room(str(root), FILES, inode_cap=40)
        assert f"only 9 are free at the 40 files that {tmp_path / 'fs'} may hold" in destination.room_problem(
            FILES, room, 0
        )
        assert destination.room_problem(FILES, destination.room(str(root), FILES, inode_cap=100), 0) == ""
        assert destination.room(str(root), FILES, inode_cap=5)["limits"][0]["free_inodes"] == 0


# --- what can be written at all ---


@pytest.mark.parametrize("dry", [True, False])
def test_a_read_only_destination_is_named_as_such(tmp_path: Path, dry: bool) -> None:
    (tmp_path / "fs").mkdir()
    with mounted(tmp_path / "fs", "--bind", "-o", "ro", str(tmp_path)):
        room = destination.room(str(tmp_path / "fs" / "results"), FILES, dry)
        assert destination.room_problem(FILES, room, 0) == f"{tmp_path / 'fs'} is read-only"


def test_a_destination_of_someone_else_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    problem = destination.room(str(tmp_path / "results"), FILES)["problem"]
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        assert problem == "", "root passes every permission"
    else:
        assert "may not be written to by this user" in problem


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "is full"), (errno.EDQUOT, "quota"), (errno.EIO, "Input/output error")]
)
def test_whatever_a_probe_meets_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refuse(_folder: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(destination, "_write_unnamed", refuse)
    assert said in destination.room(str(tmp_path), FILES)["problem"]


@pytest.mark.parametrize("dry", [True, False])
def test_a_probe_leaves_nothing_where_files_must_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    assert destination.room(str(tmp_path), FILES, dry)["problem"] == ""
    assert list(tmp_path.iterdir()) == []


def test_law_9_a_look_does_not_even_change_a_time(tmp_path: Path) -> None:
    before = tmp_path.stat()
    twins = roster.parse_files([entry("A", b"1"), entry("a", b"2")])
    destination.room(str(tmp_path / "new"), twins, dry=True)
    after = tmp_path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_names_that_differ_in_case_are_fine_where_they_are_two(tmp_path: Path) -> None:
    twins = roster.parse_files([entry("d/A", b"1"), entry("d/a", b"2"), entry("\u00e9", b"3"), entry("e\u0301", b"4")])
    assert destination.room(str(tmp_path), twins, dry=False)["problem"] == ""
    assert list(tmp_path.iterdir()) == []


def test_law_8_names_that_a_filesystem_folds_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No filesystem here folds names, so the question that the probe asks is answered as one that does would."""

    def folding(path: str) -> bool:
        folder, name = os.path.split(path)
        return roster.fold(name) in {roster.fold(each) for each in os.listdir(folder)}

    monkeypatch.setattr(destination.os.path, "lexists", folding)
    for first, second in (("d/Model.pt", "d/model.pt"), ("\u00e9", "e\u0301"), ("Stra\u00dfe", "STRASSE")):
        twins = roster.parse_files([entry(first, b"1"), entry(second, b"2")])
        problem = destination.room(str(tmp_path), twins, dry=False)["problem"]
        assert repr(first) in problem
        assert repr(second) in problem
        assert "rename one of them" in problem
    assert list(tmp_path.iterdir()) == []


# --- quotas ---


def disk_quota(**fields: int) -> quota.DiskQuota:
    found = quota.DiskQuota(**fields)
    found.valid = 63
    return found


@pytest.mark.parametrize(
    ("fields", "free"),
    [
        ({"block_hard": 100, "space": 1024 * 60}, (1024 * 40, -1)),
        ({"block_hard": 100, "space": 1024 * 160}, (0, -1)),
        ({"block_soft": 10, "inode_hard": 8, "inodes": 5}, (10240, 3)),
        ({"inode_soft": 4, "inodes": 5}, (-1, 0)),
    ],
)
def test_what_a_quota_leaves(fields: dict[str, int], free: tuple[int, int]) -> None:
    found = quota.binding_quotas("/x", ask=lambda _path, kind, _id: disk_quota(**fields) if kind == 0 else None)
    assert [(each["free_bytes"], each["free_inodes"]) for each in found] == [free]
    assert found[0]["what"] == f"the quota of user {os.geteuid()}"


def test_no_quota_is_no_limit() -> None:
    assert quota.binding_quotas("/x", ask=lambda *_each: disk_quota(space=7)) == []
    assert quota.binding_quotas("/x", ask=lambda *_each: None) == []


def test_the_kernel_is_asked_and_may_have_no_quotas(tmp_path: Path) -> None:
    asked = quota._ask_kernel(str(tmp_path), 0, os.geteuid())
    assert asked is None or isinstance(asked, quota.DiskQuota)
    assert isinstance(quota.binding_quotas(str(tmp_path)), list)


def test_whom_the_kernel_exempts_no_quota_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_ask_kernel", lambda *_each: disk_quota(block_hard=1))
    for exempt, found in ((True, 0), (False, 2)):
        monkeypatch.setattr(quota, "_is_exempt", lambda exempt=exempt: exempt)
        assert len(quota.binding_quotas(str(tmp_path))) == found


def test_a_real_quota_is_read(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-O", "quota", "-E", "quotatype=usrquota", str(image)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mkfs.ext4 cannot make a filesystem with quotas here")
    with mounted(tmp_path / "fs", "-o", "loop", str(image)):
        found = quota._ask_kernel(str(tmp_path / "fs"), 0, 0)
        assert found is not None
        assert found.space > 0
        assert found.inodes > 0


# --- one at a time ---

HOLDER = """
import sys, time
from ansible_collections.tenant.gpu.plugins.module_utils import destination
with destination.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def other_holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_held_destination_refuses_another_and_names_the_holder(tmp_path: Path) -> None:
    root = tmp_path / "results"
    with other_holder(root) as process:
        with pytest.raises(TenantFailure) as caught, destination.held(str(root)):
            raise AssertionError("two at once")
        with pytest.raises(TenantFailure) as looked:
            destination.refuse_if_held(str(root))
        assert caught.value.kind == looked.value.kind == "lease_held"
        for said in (str(root), f"pid {process.pid}", "Nothing was transferred", "run this again"):
            assert said in str(caught.value)
            assert said in str(looked.value)
        process.kill()
        process.wait(timeout=600)
        destination.refuse_if_held(str(root))


def test_a_look_for_a_holder_leaves_no_trace(tmp_path: Path) -> None:
    destination.refuse_if_held(str(tmp_path / "new"))
    destination.refuse_if_held(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_killed_lets_go_and_leaves_no_trace(tmp_path: Path) -> None:
    with other_holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=600)
        assert (tmp_path / roster.LOCK).exists()
        with destination.held(str(tmp_path)):
            assert (tmp_path / roster.LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_waiting_gets_the_destination_once_it_is_free(tmp_path: Path) -> None:
    order: list[str] = []
    from threading import Thread

    def second() -> None:
        with destination.held(str(tmp_path), wait_s=600):
            order.append("second")

    with destination.held(str(tmp_path)):
        thread = Thread(target=second)
        thread.start()
        order.append("first")
    thread.join(timeout=600)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_name_went_away_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former holder removes the file after we opened it and before we lock it: the next one would make another."""
    lock, plain = destination._try_lock, tmp_path / roster.LOCK

    def late(descriptor: int, *kind: int) -> bool:
        monkeypatch.setattr(destination, "_try_lock", lock)
        plain.unlink()
        return lock(descriptor, *kind)

    monkeypatch.setattr(destination, "_try_lock", late)
    with destination.held(str(tmp_path)):
        assert plain.exists()
        with pytest.raises(TenantFailure), destination.held(str(tmp_path)):
            raise AssertionError("two at once")


def test_law_8_a_planted_link_is_not_locked_and_not_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    (root / roster.LOCK).symlink_to(secret)
    with pytest.raises(TenantFailure, match="cannot be used"), destination.held(str(root)):
        raise AssertionError("a link was followed")
    assert secret.read_text() == "mine"
    with secret.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        destination.refuse_if_held(str(root))  # would else quote the secret as the holder's name


def test_a_destination_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TenantFailure, match=r"file.* cannot be used"), destination.held(str(tmp_path / "file" / "x")):
        raise AssertionError("a folder in a file")

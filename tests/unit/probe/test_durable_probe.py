# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The durable mount: is it one, is it shared, which disk is it, is it full."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import durable_probe, probe_report, shared_disks
from ansible_collections.tenant.gpu.plugins.module_utils.box import disk_use, gates
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

SECOND_DISK = pytest.mark.skipif(
    not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/").st_dev, reason="needs a second disk"
)


# --- is it one ----------------------------------------------------------------------------------------------------


def test_a_durable_folder_on_the_same_disk_is_not_real(tmp_path: Path) -> None:
    found = durable_probe.check_durable("mount", str(tmp_path), "/", True)
    assert found["real"] is False
    assert "no mount of its own" in found["why"]
    assert durable_probe.check_durable("mount", str(tmp_path / "none"), "/", True)["why"].endswith("is not there")
    assert durable_probe.check_durable("pull", "", "/", True)["real"] is None


@SECOND_DISK
def test_a_folder_on_the_disk_of_the_system_is_refused_alike_by_probe_and_gate(tmp_path: Path) -> None:
    """AutoDL without a netdisk: /root/autodl-tmp is a data disk, /root/autodl-fs an empty folder of the system's."""
    netdisk = str(tmp_path)
    assert os.stat(netdisk).st_dev == os.stat("/").st_dev
    probed = durable_probe.check_durable("mount", netdisk, "/dev/shm", True)
    refused = gates.durable_problem({"kind": "mount", "path": netdisk}, "/dev/shm")
    assert probed["real"] is False
    assert probed["why"] == refused
    assert refused == f"{netdisk} is no mount of its own: it lies on the same disk as /, nothing is mounted there"


@SECOND_DISK
@pytest.mark.parametrize("write", [True, False])
def test_a_durable_mount_is_proven_and_left_as_it_was(write: bool) -> None:
    before = set(os.listdir("/dev/shm"))
    found = durable_probe.check_durable("mount", "/dev/shm", "/data", write)
    assert (found["real"], found["why"], found["disk"]) == (True, "", None)
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith(".")]


@SECOND_DISK
def test_a_disk_of_the_machine_is_no_shared_one() -> None:
    """featurize's home folder, lanrui's data disk: mounts of their own, and gone with the machine all the same."""
    found = durable_probe.check_durable("mount", "/dev/shm", "/data", False, shared=True)
    assert found["real"] is False
    assert "a disk of this machine (tmpfs), and not on one that other boxes see" in found["why"]


@SECOND_DISK
@pytest.mark.parametrize("kind", ["nfs4", "fuse.juicefs", "ceph", "a-kind-of-tomorrow"])
def test_a_network_disk_and_one_that_nobody_knows_are_taken(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_probe, "mount_of", lambda _path: ("/dev/shm", kind))
    assert durable_probe.check_durable("mount", "/dev/shm", "/data", False, shared=True)["real"] is True


def test_the_box_says_which_network_disks_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gpushare's /hy-netdisk is only on some machines: what is there instead is named with what to write."""
    there = [("/", "overlay"), ("/hy-tmp", "ext4"), ("/hy-nas", "nfs4"), ("/proc", "proc")]
    monkeypatch.setattr(durable_probe, "mounts", lambda: there)
    durable = durable_probe.check_durable("mount", "/hy-netdisk", "/hy-tmp", True, shared=True)
    assert durable["others"] == [{"path": "/hy-nas", "fstype": "nfs4"}]
    (said,) = probe_report.refusals({"durable": durable}, {})
    assert "/hy-netdisk is not there" in said
    assert "set platform_durable_path to a network disk of this box (/hy-nas)" in said
    assert "platform_durable_kind to pull" in said


# --- which disk it is ---------------------------------------------------------------------------------------------


def test_two_boxes_with_one_disk_read_one_name(tmp_path: Path) -> None:
    first = durable_probe.disk_name(str(tmp_path), True)
    assert first
    assert durable_probe.disk_name(str(tmp_path), True) == first
    assert durable_probe.disk_name(str(tmp_path), False) == first
    assert os.listdir(tmp_path) == [durable_probe.MARK]


def test_another_region_has_another_name(tmp_path: Path) -> None:
    names = set()
    for region in ("one", "two"):
        (tmp_path / region).mkdir()
        names.add(durable_probe.disk_name(str(tmp_path / region), True))
    assert len(names) == 2


def test_a_look_names_nothing(tmp_path: Path) -> None:
    assert durable_probe.disk_name(str(tmp_path), False) is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", '{"schema": "gpu-tenant/shared-disk/v1", "disk": "../x"}', "[]"])
def test_a_damaged_mark_is_no_name_and_stays(text: str, tmp_path: Path) -> None:
    (tmp_path / durable_probe.MARK).write_text(text)
    assert durable_probe.disk_name(str(tmp_path), True) is None
    assert (tmp_path / durable_probe.MARK).read_text() == text


@pytest.mark.parametrize("links", [True, False])
def test_boxes_that_come_at_once_agree(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hard links there is one name for all; without, all read what is there in the end."""
    if not links:

        def refused(*_words: object) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refused)
    # So short that the threads change places between any two looks at the disk.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(20):
            disk = tmp_path / str(number)
            disk.mkdir()
            found = named_at_once(str(disk))
            assert None not in found
            if links:
                assert len(set(found)) == 1
            assert durable_probe.disk_name(str(disk), False) in found
            assert os.listdir(disk) == [durable_probe.MARK]
    finally:
        sys.setswitchinterval(interval)


def named_at_once(disk: str) -> list[str | None]:
    """What each of eight boxes reads that ask for the name of a new disk in the same moment."""
    found: list[str | None] = []
    start = threading.Barrier(8)

    def box() -> None:
        start.wait()
        found.append(durable_probe.disk_name(disk, True))

    threads = [threading.Thread(target=box) for _box in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


A, B = "a" * 32, "b" * 32


def admitted(store: StateStore, box: str, disk: object, platform: str = "autodl", **more: Any) -> None:
    probe = {"durable": {"kind": "mount", "path": "/root/autodl-fs", "real": True, "disk": disk}}
    store.update_box("p", box, 1, platform=platform, admission={"refusals": [], "probe": probe}, **more)


def test_boxes_of_two_regions_are_told_apart(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    admitted(store, "near", A)
    admitted(store, "far", B)
    admitted(store, "gone", B, destroyed_at="2026-11-22T00:00:00Z")
    admitted(store, "elsewhere", B, platform="matpool")
    admitted(store, "silent", None)
    admitted(store, "odd", "x\ny")
    assert shared_disks.compared(store, "p", "new", "autodl", {"disk": A}) == {"with": ["near"], "apart": ["far"]}
    assert shared_disks.compared(store, "p", "near", "autodl", {"disk": A}) == {"with": [], "apart": ["far"]}
    assert shared_disks.compared(store, "p", "new", "autodl", {"disk": None}) == {"with": [], "apart": []}
    assert shared_disks.compared(store, "other", "new", "autodl", {"disk": A}) == {"with": [], "apart": []}


# --- is it full ---------------------------------------------------------------------------------------------------


def test_a_quota_that_the_disk_does_not_tell_is_counted(tmp_path: Path) -> None:
    (tmp_path / "env.snap").write_bytes(b"x" * 300_000)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_bytes(b"x" * 100_000)
    os.symlink("/", tmp_path / "out")
    use = disk_use.measured_use(str(tmp_path), 1_000_000, 60)
    assert use.whole
    assert 400_000 <= use.used_bytes < 450_000
    assert [name for name, _size in use.largest[:2]] == ["env.snap", "run"]


def test_counting_ends_in_time_with_the_least(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"x" * 5000)
    ticks = iter(range(1000))
    use = disk_use.measured_use(str(tmp_path), 1_000_000, 10, lambda: float(next(ticks)))
    assert not use.whole
    assert 0 < use.used_bytes < 50 * 8192


def test_a_disk_that_tells_its_quota_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        f_blocks, f_frsize, f_bavail = 5000, 1_000_000, 1000

    monkeypatch.setattr(os, "statvfs", lambda _path: Told)
    monkeypatch.setattr(disk_use, "_sizes", lambda _path: pytest.fail("counted"))
    use = disk_use.measured_use(str(tmp_path), 5_000_000_000, 10)
    assert (use.used_bytes, use.free_bytes, use.whole) == (4_000_000_000, 1_000_000_000, True)


@pytest.mark.parametrize(("used", "refused"), [(4.9e9, True), (4.0e9, False), (6e9, True), (None, False), ("x", False)])
def test_a_full_netdisk_is_refused_with_what_fills_it(used: object, refused: bool) -> None:
    """matpool's snapshots eat the 5 GB of its netdisk."""
    use = {"cap_bytes": 5e9, "used_bytes": used, "whole": True, "largest": [["env.snap", 3.1e9], "junk", ["b\n", 1]]}
    durable = {"kind": "mount", "path": "/mnt", "real": True, "why": "", "use": use}
    said = probe_report.refusals({"durable": durable}, {})
    assert bool(said) == refused
    if refused:
        assert "the durable mount /mnt is full" in said[0]
        assert "env.snap 3.1 GB" in said[0]

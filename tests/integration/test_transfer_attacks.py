# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Attacks on a transfer over a real sshd: whatever a box, a wire, a disk or a second harvest does, what stands at the
destination is right, and what is not there is named."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import folder_manifest
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, delivery, roster, settling, transfer
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, transfer_order
from loopback_sshd import LoopbackBox, loopback_box, wait_for

pytestmark = pytest.mark.integration
both = pytest.mark.parametrize("transport", ["rsync", "stream"])
SYNC = "tenant.gpu.checked_sync"
MIB = 1024 * 1024
BIG = "c0/a1/out/big.bin"
SMALL = "c0/a1/done.json"
# How long each ssh may carry something before it is killed; more makes a longer run.
CUT_EVERY_S = float(os.environ.get("TENANT_CUT_EVERY_S", "1"))


@pytest.fixture(scope="module")
def box() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


def nothing() -> None:
    pass


class Attack:
    """A run's folder on a box, a destination here, and what happens on the box between preflight and first byte."""

    def __init__(self, box: LoopbackBox, tmp_path: Path) -> None:
        self.box = box
        self.folder = box.home / "attacks" / tmp_path.name
        self.dest = tmp_path / "results"
        self.after_offer: Callable[[], None] = nothing
        self.write(SMALL, b"{}")

    def write(self, path: str, data: bytes) -> Path:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return place

    def manifest(self, **more: Any) -> dict[str, Any]:
        return folder_manifest.of_folder(self.folder, **more)

    def pull(
        self, transport: str, manifest: dict[str, Any] | None = None, check_mode: bool = False, **more: Any
    ) -> dict[str, Any]:
        """What the action does, less a second of Ansible: ssh, sshd, rsync, files and mounts are the real ones."""
        parsed = roster.parse_manifest(manifest or self.manifest())
        wishes = transfer.RsyncWishes(more.pop("stall_timeout_s", 120), more.pop("limit_kib", 0))
        patience = carrier.Patience(more.pop("retries", 2), more.pop("resends", 1), 0.05)
        order = transfer_order.Order(
            pull=True,
            src=str(self.folder),
            dest=str(self.dest),
            files=parsed.files,
            manifest=parsed,
            dest_root=str(self.dest),
            extra="quarantine",
            transport=transport,
            deadline_s=more.pop("deadline_s", 600),
            wishes=wishes,
            patience=patience,
            check_mode=check_mode,
            **more,
        )
        far = transfer_order.Far("box1", self.box.link(), self._ask)
        try:
            return checked_transfer.run(order, far)
        except TenantFailure as failure:
            return dict(failure.as_result(), failed=True, verified=False)

    def push(self, transport: str) -> dict[str, Any]:
        """The run's folder to a folder of its own on the box."""
        order = transfer_order.Order(
            pull=False,
            src=str(self.folder),
            dest=str(self.dest),
            files=delivery.scan_tree(str(self.folder)),
            transport=transport,
            deadline_s=600,
            wishes=transfer.RsyncWishes(120),
            patience=carrier.Patience(2, 1, 0.05),
        )
        return checked_transfer.run(order, transfer_order.Far("box1", self.box.link(), self._ask))

    def _ask(self, op: str, wanted: Any, **options: Any) -> dict[str, Any]:
        """The box is this machine, so it can be asked here; arguments and answer go through JSON."""
        parameters = {"within": "", "aside": [], **options, "op": op, "files": wanted}
        answer: dict[str, Any] = json.loads(
            json.dumps(delivery.answer(json.loads(json.dumps(parameters)), check_mode=False))
        )
        if op == "offer":
            self.after_offer()
        return answer

    def at_home(self) -> list[str]:
        """What stands at the destination and claims to be a result."""
        places = [path for path in self.dest.rglob("*") if not path.is_dir() or path.is_symlink()]
        found = [str(path.relative_to(self.dest)) for path in places]
        return sorted(path for path in found if not path.startswith(".tenant-"))

    def assert_home(self, result: dict[str, Any], manifest: dict[str, Any] | None = None) -> None:
        files = roster.parse_manifest(manifest or self.manifest()).files
        assert result["verified"] is True, result
        assert settling.check_files(str(self.dest), files) == []
        assert self.at_home() == sorted(["manifest.json", *(file.path for file in files)])

    def assert_refused(self, result: dict[str, Any], *said: str) -> None:
        """Not verified, no manifest that says so, and the message names what it must, what is safe and what is next."""
        assert result.get("failed"), result
        assert result["verified"] is False
        assert not (self.dest / "manifest.json").exists()
        for word in said:
            assert word in result["msg"]
        assert result["failure"]["safe"]
        assert result["failure"]["fix"]


@pytest.fixture
def attack(box: LoopbackBox, tmp_path: Path) -> Attack:
    return Attack(box, tmp_path)


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount made by ``mount OPTIONS folder``; the test is skipped where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a mount needs root and its capabilities: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=600)


@contextlib.contextmanager
def forced(box: LoopbackBox, script: str) -> Iterator[None]:
    """Whatever is asked of the box over ssh, this Python script runs instead; ``asked`` is what was asked."""
    program = box.folder / "forced.py"
    head = "import os, subprocess, sys\nasked = os.environ['SSH_ORIGINAL_COMMAND']\n"
    program.write_text(head + script)
    keys = box.folder / "authorized_keys"
    plain = keys.read_text()
    keys.write_text(f'command="{sys.executable} {program}" {plain}')
    try:
        yield
    finally:
        keys.write_text(plain)


# --- the files on the box move ---


@both
def test_a_file_that_grows_during_the_pull_is_named_and_comes_when_it_stands(attack: Attack, transport: str) -> None:
    big = attack.write(BIG, os.urandom(2 * MIB))
    manifest, done = attack.manifest(), threading.Event()

    def grow() -> None:
        with big.open("ab") as stream:
            while not done.wait(0.005):
                stream.write(b"more")
                stream.flush()

    writer = threading.Thread(target=grow)
    attack.after_offer = writer.start
    try:
        result = attack.pull(transport, manifest, resends=0, limit_kib=8192)
    finally:
        done.set()
        writer.join(timeout=600)
    attack.assert_refused(result, BIG, "make the manifest again")
    assert [entry["path"] for entry in result["mismatches"]] == [BIG]
    assert attack.at_home() == [SMALL], "the others are home, the growing one is not"
    attack.after_offer = nothing
    attack.assert_home(attack.pull(transport))


@both
def test_a_stale_file_of_the_same_size_and_time_is_replaced(attack: Attack, transport: str) -> None:
    big = attack.write(BIG, os.urandom(MIB))
    stale = attack.dest / BIG
    stale.parent.mkdir(parents=True)
    stale.write_bytes(os.urandom(MIB))
    facts = big.stat()
    os.utime(stale, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    attack.assert_home(attack.pull(transport))
    assert stale.read_bytes() == big.read_bytes()


# Devices by their numbers: one that is read without end, one that is empty.
DEVICES = {"endless device": os.makedev(1, 5), "empty device": os.makedev(1, 3)}
SWAPS = ["link", "linked folder", "fifo", "folder", "socket", "gone", "other bytes", "shorter", *DEVICES]


@both
@pytest.mark.parametrize("swap", SWAPS)
def test_law_8_what_is_swapped_in_after_the_preflight_never_comes_home(
    attack: Attack, transport: str, swap: str
) -> None:
    secret = attack.box.folder / "secrets" / "big.bin"
    secret.parent.mkdir(exist_ok=True)
    secret.write_bytes(b"s" * 50_000)
    big = attack.write(BIG, os.urandom(50_000))
    manifest = attack.manifest()
    if swap in DEVICES:
        _demand_devices(attack.folder)

    def swap_in() -> None:
        if swap == "other bytes":
            big.write_bytes(os.urandom(50_000))
        elif swap == "shorter":
            os.truncate(big, 49_999)
        elif swap == "linked folder":
            big.parent.rename(big.parent.with_name("moved"))
            big.parent.symlink_to(secret.parent)
        else:
            big.unlink()
            make = {
                "link": lambda: big.symlink_to(secret),
                "fifo": lambda: os.mkfifo(big),
                "folder": big.mkdir,
                "socket": lambda: _leave_socket(big),
                "gone": nothing,
                **{name: functools.partial(_make_device, big, number) for name, number in DEVICES.items()},
            }
            make[swap]()

    attack.after_offer = swap_in
    result = attack.pull(transport, manifest, retries=0, resends=0)
    attack.assert_refused(result, BIG)
    assert [entry["path"] for entry in result["mismatches"]] == [BIG]
    assert attack.at_home() == [SMALL]
    assert secret.read_bytes() == b"s" * 50_000


def _make_device(path: Path, number: int) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, number)


def _demand_devices(folder: Path) -> None:
    """As root with its capabilities: an error in CI, NOT RUN elsewhere."""
    probe = folder.with_name(f"{folder.name}-device")
    try:
        _make_device(probe, DEVICES["empty device"])
        assert probe.read_bytes() == b"", "a disk that is mounted without devices"
    except (OSError, AssertionError) as error:
        reason = f"NOT RUN: no device can be made here ({error})"
        (pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip)(reason)
    finally:
        probe.unlink(missing_ok=True)


def _leave_socket(path: Path) -> None:
    code = "import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind(sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(path.parent), path.name], check=True, timeout=600)


@both
def test_hard_links_arrive_as_files_of_their_own_and_do_not_write_through(attack: Attack, transport: str) -> None:
    """Writers link ``latest`` to a step, and people keep snapshots of results by ``cp -al``."""
    step = attack.write("c0/a1/out/step-1.pt", os.urandom(5000))
    os.link(step, attack.folder / "c0/a1/out/latest.pt")
    attack.assert_home(attack.pull(transport))
    assert (attack.dest / "c0/a1/out/latest.pt").stat().st_nlink == 1
    snapshot = attack.dest.with_name("snapshot")
    shutil.copytree(attack.dest, snapshot, copy_function=os.link)
    before = (snapshot / "c0/a1/out/step-1.pt").read_bytes()
    step.write_bytes(os.urandom(5000))
    attack.assert_home(attack.pull(transport))
    assert (snapshot / "c0/a1/out/step-1.pt").read_bytes() == before


ODD = ["a" * 255, "d/" * 40 + "f", "#c", ";c", "*", "?[a]", "~root", "$HOME", "`id`", "$(id)", "a;b|c&d", "a'b\"c"]
ODD += ["{{ lookup('pipe', 'id') }}", "%s", "host:file", " lead", "trail ", "...", ".h", "\u4e2d/\u6587.pt", "e\u0301"]
ODD += ["Case", "case", "+x", "@f", "!x", "sub/manifest.json", "x.tmp", "con"]


@both
def test_odd_names_are_carried_as_they_are(attack: Attack, transport: str) -> None:
    for number, path in enumerate(ODD):
        attack.write(path, b"%d" % number)
    attack.assert_home(attack.pull(transport))


@both
def test_sparse_files_come_whole_or_are_refused_for_their_size(attack: Attack, transport: str) -> None:
    with attack.write(BIG, b"").open("r+b") as stream:
        stream.truncate(3 * MIB)
    attack.assert_home(attack.pull(transport))
    os.truncate(attack.folder / BIG, 1 << 42)
    absurd = folder_manifest.of_lines([{"path": BIG, "bytes": 1 << 42, "sha256": "0" * 64}])
    (attack.dest / "manifest.json").unlink()
    attack.assert_refused(attack.pull(transport, absurd), "4398046511104 bytes are to come", "are free at")
    assert not (attack.dest / ".tenant-incoming").exists()


# --- the wire ---


@both
def test_bytes_flipped_on_their_way_are_found_and_sent_again(attack: Attack, transport: str) -> None:
    """A relay above ssh's own checks, which damages what the box says in its first connection."""
    attack.write(BIG, os.urandom(4 * MIB))
    once = attack.folder.with_suffix(".damaged")
    script = f"""
import pathlib
with subprocess.Popen(asked, shell=True, stdout=subprocess.PIPE) as real:
    seen, damage = 0, not pathlib.Path({str(once)!r}).exists()
    while chunk := os.read(real.stdout.fileno(), 65536):
        if damage and seen <= 1500000 < seen + len(chunk):
            where = 1500000 - seen
            chunk = chunk[:where] + bytes([chunk[where] ^ 4]) + chunk[where + 1:]
            pathlib.Path({str(once)!r}).touch()
        seen += len(chunk)
        os.write(1, chunk)
sys.exit(real.returncode)
"""
    with forced(attack.box, script):
        result = attack.pull(transport)
    assert once.exists(), "the damage was done"
    attack.assert_home(result)


@both
def test_law_3_a_link_that_is_cut_again_and_again_still_finishes(attack: Attack, transport: str) -> None:
    """More cuts than the patience for failures without progress: what arrived is kept, so each attempt gets further."""
    attack.write(BIG, os.urandom(2 * MIB))
    script = """
with subprocess.Popen(asked, shell=True, stdout=subprocess.PIPE) as real:
    left = 450_000
    while left and (chunk := os.read(real.stdout.fileno(), min(left, 65536))):
        left -= len(chunk)
        os.write(1, chunk)
    if not left:
        real.kill()
        sys.exit(255)
sys.exit(real.returncode)
"""
    with forced(attack.box, script):
        result = attack.pull(transport, retries=2)
    attack.assert_home(result)
    assert result["attempts"] >= 5, "none of its connections carried more than 450,000 bytes"


# Lets that many bytes out, then the connection breaks. By bytes: a busy machine may carry all in one long breath.
CUTTER = """
import signal
real = subprocess.Popen(asked, shell=True, stdout=subprocess.PIPE)
left = {slice_bytes}
while chunk := os.read(real.stdout.fileno(), 65536):
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view):]
    left -= len(chunk)
    if left <= 0:
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)
os._exit(real.wait())
"""


@both
def test_law_3_ssh_killed_every_few_seconds_still_finishes(attack: Attack, transport: str) -> None:
    rate_kib = 4096
    slice_bytes = int(CUT_EVERY_S * rate_kib * 1024)
    attack.write(BIG, os.urandom(6 * slice_bytes))
    with forced(attack.box, CUTTER.format(slice_bytes=slice_bytes)):
        result = attack.pull(transport, retries=2, limit_kib=rate_kib)
    attack.assert_home(result)
    assert result["attempts"] >= 6


@both
def test_law_3_after_a_cut_at_half_the_second_run_moves_no_more_than_the_rest(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(64 * MIB))
    # What is in the buffers of a killed sshd, some megabytes, is lost.
    with forced(attack.box, CUTTER.format(slice_bytes=33 * MIB)):
        first = attack.pull(transport, retries=0)
    assert first["failed"]
    assert first["failure"]["kind"] == "unreachable"
    second = attack.pull(transport)
    attack.assert_home(second)
    assert 0 < second["wire_bytes"] <= 0.55 * second["bytes"]


def _arrived(dest: Path) -> int:
    total = 0
    for folder, _folders, names in os.walk(dest / ".tenant-incoming"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


@both
@pytest.mark.parametrize("pull", [True, False], ids=["pull", "push"])
def test_text_is_compressed_on_its_way_and_a_checkpoint_is_not(attack: Attack, transport: str, pull: bool) -> None:
    """Counted by a relay below ssh. The checkpoint would shrink too, so its bytes show that nobody tried."""
    text, rest = 5 * MIB, 40 * MIB
    attack.write("c0/a1/run.log", b"epoch 1 loss 0.25\n" * (text // 18))
    attack.write("c0/a1/out/model.pt", b"weights!" * (rest // 8))
    counted = attack.folder.with_suffix(".counted")
    with forced(attack.box, RELAY.format(counted=str(counted))):
        result = attack.pull(transport) if pull else attack.push(transport)
    assert result["verified"] is True, result
    wire = [int(line) for line in counted.read_text().split()]
    assert len(wire) >= 2, "one connection for the text, others for the rest"
    assert rest <= sum(wire) < rest + text // 2


# Both directions are counted: the one that carries requests has next to nothing.
RELAY = """
import threading
real = subprocess.Popen(asked, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
passed = [0, 0]
def relay(number, source, target):
    try:
        while chunk := os.read(source, 65536):
            passed[number] += len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view):]
    except BrokenPipeError:
        pass
def inward():
    relay(0, 0, real.stdin.fileno())
    real.stdin.close()
threading.Thread(target=inward, daemon=True).start()
relay(1, real.stdout.fileno(), 1)
real.wait()
with open({counted!r}, "a") as notes:
    notes.write(str(sum(passed)) + "\\n")
os._exit(real.returncode)
"""


@both
def test_a_box_that_falls_silent_is_given_up_after_the_stall_time(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(MIB))
    with forced(attack.box, "import time\ntime.sleep(60)\n"):
        result = attack.pull(transport, stall_timeout_s=1, retries=0)
    attack.assert_refused(result, "no data", "Run the same task again")
    assert result["failure"]["kind"] == "unreachable"


@both
def test_law_8_a_box_that_talks_without_end_fills_nothing(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(MIB))
    with forced(attack.box, "while True:\n    os.write(1, b'x' * 65536)\n"):
        result = attack.pull(transport, retries=0)
    attack.assert_refused(result)
    assert _arrived(attack.dest) <= MIB
    assert attack.at_home() == []


@both
def test_law_8_a_box_that_complains_without_end_fills_nothing(attack: Attack, transport: str) -> None:
    """On standard error, which nobody asked for and no stall ends."""
    attack.write(BIG, os.urandom(MIB))
    over, largest = threading.Event(), [0]

    def look() -> None:
        while not over.wait(0.02):
            largest[0] = max(largest[0], _largest_open_file())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with forced(attack.box, "while True:\n    os.write(2, b'x' * 65535 + b'\\n')\n"):
            result = attack.pull(transport, retries=0, stall_timeout_s=2)
    finally:
        over.set()
        watcher.join(timeout=600)
    attack.assert_refused(result)
    # The box may hold the shared standard error so full that rsync cannot say why it ends.
    assert "no data" in result["msg"] or "could not print" in result["msg"]
    assert largest[0] <= 2 * MIB
    assert len(result["msg"]) < 2000


def _largest_open_file() -> int:
    """The size of the largest file that this process holds open, those without a name too."""
    sizes = [0]
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            facts = os.stat(f"/proc/self/fd/{descriptor}")
            sizes.append(facts.st_size if stat.S_ISREG(facts.st_mode) else 0)
    return max(sizes)


def test_law_8_an_rsync_that_sends_what_nobody_asked_for_changes_nothing(attack: Attack) -> None:
    """The far rsync forgets the list and sends its whole folder, links too."""
    attack.write(BIG, os.urandom(5000))
    manifest = attack.manifest()
    attack.write("unasked", b"x")
    (attack.folder / "way-out").symlink_to(attack.dest.parent)
    script = """
import shlex
words = [word for word in shlex.split(asked) if not word.startswith(("--files-from", "--from0"))]
words.insert(words.index("--sender") + 1, "-rl")
sys.exit(subprocess.call(words))
"""
    with forced(attack.box, script):
        attack.pull("rsync", manifest, retries=0)
    assert set(attack.at_home()) <= {BIG, SMALL, "manifest.json"}
    found = [path for path in attack.dest.parent.rglob("*") if path.is_symlink() or path.name == "unasked"]
    assert found == []
    assert sorted(path.name for path in attack.dest.parent.iterdir()) == ["results"]


# --- the destination ---


@both
def test_a_full_disk_is_found_before_the_first_byte(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(3 * MIB))
    with mounted(attack.dest, "-t", "tmpfs", "-o", "size=2m", "none"):
        for check_mode in (True, False):
            result = attack.pull(transport, check_mode=check_mode)
            attack.assert_refused(result, "bytes are to come", f"are free at {attack.dest}", "Free space there")
        assert list(attack.dest.iterdir()) == []


@both
def test_too_few_inodes_are_found_before_the_first_byte(attack: Attack, transport: str) -> None:
    for number in range(60):
        attack.write(f"c0/a1/out/{number}", b"x")
    with mounted(attack.dest, "-t", "tmpfs", "-o", "size=2m,nr_inodes=50", "none"):
        for check_mode in (True, False):
            result = attack.pull(transport, check_mode=check_mode)
            attack.assert_refused(result, "inodes are needed", f"are free at {attack.dest}")
        assert list(attack.dest.iterdir()) == []


@both
@pytest.mark.parametrize("resource", ["bytes", "inodes"])
def test_a_disk_that_fills_meanwhile_is_named_and_the_pull_goes_on_once_there_is_room(
    attack: Attack, transport: str, resource: str
) -> None:
    """Somebody else takes the room when the preflight is over and the first connection stands."""
    for number in range(40):
        attack.write(f"c0/a1/out/{number}", os.urandom(30_000))
    hog = attack.dest / ".tenant-quarantine" / "hog"
    script = f"""
import contextlib, pathlib
hog = pathlib.Path({str(hog)!r})
hog.mkdir(parents=True, exist_ok=True)
with contextlib.suppress(OSError):
    for number in range(1000):
        with (hog / str(number)).open("wb") as stream:
            stream.write(b"x" * {100_000 if resource == "bytes" else 0})
sys.exit(subprocess.call(asked, shell=True))
"""
    with mounted(attack.dest, "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "none"):
        with forced(attack.box, script):
            result = attack.pull(transport)
        attack.assert_refused(result, "destination is full", "Put that right, then run the same task again")
        assert result["failure"]["kind"] == "config", "the box is not to blame"
        assert result["attempts"] == 1, "waiting makes no room"
        shutil.rmtree(hog.parent)
        attack.assert_home(attack.pull(transport))


@both
def test_a_read_only_destination_is_named_before_the_first_byte(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(5000))
    real = attack.dest.with_name("real")
    real.mkdir()
    with mounted(attack.dest, "--bind", "-o", "ro", str(real)):
        for check_mode in (True, False):
            attack.assert_refused(attack.pull(transport, check_mode=check_mode), f"{attack.dest} is read-only")
    assert list(real.iterdir()) == []


def test_a_read_only_destination_is_named_by_ansible(attack: Attack) -> None:
    real = attack.dest.with_name("real")
    real.mkdir()
    arguments = {"direction": "pull", "src": str(attack.folder), "dest": str(attack.dest / "r1")}
    with mounted(attack.dest, "--bind", "-o", "ro", str(real)):
        result = attack.box.ad_hoc(SYNC, {**arguments, "manifest": attack.manifest()})
    assert result["failed"]
    assert f"{attack.dest} is read-only" in result["msg"]
    assert "Nothing was transferred" in result["msg"]
    assert "choose another destination" in result["msg"]


# --- clocks ---


@both
@pytest.mark.parametrize("days", [-1, 1])
def test_a_box_whose_clock_is_a_day_off_changes_no_verdict(attack: Attack, transport: str, days: int) -> None:
    """Everything that the box runs sees the wrong time, its files and its manifest bear it."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here (package faketime)")
    big = attack.write(BIG, os.urandom(100_000))
    moment = time.time() + days * 86400
    os.utime(big, (moment, moment))
    stale = attack.dest / BIG
    stale.parent.mkdir(parents=True)
    stale.write_bytes(os.urandom(100_000))
    manifest = attack.manifest(created_at=records.utc_text(datetime.datetime.fromtimestamp(moment, datetime.UTC)))
    script = f"""
import datetime, pathlib
environment = dict(os.environ, LD_PRELOAD={str(library)!r}, FAKETIME='{days:+d}d')
date = subprocess.run(['date', '-u', '+%s'], env=environment, capture_output=True, check=True).stdout
pathlib.Path({str(attack.folder.with_suffix(".date"))!r}).write_bytes(date)
sys.exit(subprocess.call(asked, shell=True, env=environment))
"""
    with forced(attack.box, script):
        attack.assert_home(attack.pull(transport, manifest), manifest)
        again = attack.pull(transport, manifest)
    assert (again["changed"], again["verified"]) == (False, True)
    told = int(attack.folder.with_suffix(".date").read_text())
    assert abs(told - moment) < 3600, "the box's clock was off"


# --- two at once ---


@both
def test_two_harvests_into_one_destination_do_not_meet(attack: Attack, transport: str) -> None:
    attack.write(BIG, os.urandom(3 * MIB))
    connected, go_on = attack.folder.with_suffix(".connected"), attack.folder.with_suffix(".go-on")
    script = f"""
import pathlib, time
pathlib.Path({str(connected)!r}).touch()
while not pathlib.Path({str(go_on)!r}).exists():
    time.sleep(0.02)
sys.exit(subprocess.call(asked, shell=True))
"""
    first: list[dict[str, Any]] = []
    slow = threading.Thread(target=lambda: first.append(attack.pull(transport)))
    with forced(attack.box, script):
        slow.start()
        try:
            wait_for(connected.exists, what="the connection of the first")
            second = attack.pull(transport)
        finally:
            go_on.touch()
            slow.join(timeout=600)
    assert second["failed"]
    assert second["failure"]["kind"] == "lease_held"
    for said in (f"another transfer works in {attack.dest}", f"pid {os.getpid()}", "run this again"):
        assert said in second["msg"]
    attack.assert_home(first[0])
    again = attack.pull(transport)
    assert (again["changed"], again["verified"]) == (False, True)

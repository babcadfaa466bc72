# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A hash that was made on the way is worth something only for the very file that it was made of."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    arrivals,
    delivery,
    follower,
    landing,
    progress,
    roster,
    settling,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import spread
from evidence_world import entry

LARGE = b"0123456789abcdef" * (follower.LARGE // 16 + 7)
FILES = roster.parse_files([entry("d/large.pt", LARGE), entry("d/small", b"small"), entry("top", b"top")])


def quiet() -> progress.Progress:
    return progress.Progress(None, len(FILES), sum(file.bytes for file in FILES))


# --- every core ---


def test_results_keep_their_order_whoever_worked_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "cores", lambda: 3)
    # What other tests of this process have left running holds no lock that the work here needs.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    items = list(range(100))
    found = spread.spread(items, [1 << 20] * 100, lambda share: [[item, os.getpid()] for item in share])
    assert [item for item, _pid in found] == items
    assert len({pid for _item, pid in found}) == 3
    assert os.getpid() in {pid for _item, pid in found}


def test_nothing_is_forked_beside_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "cores", lambda: 3)
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        found = spread.spread(list(range(9)), [1 << 24] * 9, lambda share: [os.getpid()] * len(share))
    finally:
        over.set()
        other.join()
    assert set(found) == {os.getpid()}


def test_a_worker_that_dies_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "cores", lambda: 2)
    here = os.getpid()

    def work(share: Any) -> list[Any]:
        if os.getpid() != here:
            os._exit(9)
        return [item * 2 for item in share]

    assert spread.spread([1, 2, 3, 4], [1 << 24] * 4, work) == [2, 4, 6, 8]


def test_an_error_of_a_worker_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "cores", lambda: 2)

    def work(share: Any) -> list[Any]:
        if 4 in share:
            raise ValueError("four")
        return list(share)

    with pytest.raises(ValueError, match="four"):
        spread.spread([1, 2, 3, 4], [1 << 24] * 4, work)


@pytest.mark.parametrize("costs", [[], [1], [1 << 30], [1 << 30, 1, 1, 1 << 30, 5], [0, 0, 0]])
def test_every_item_is_in_one_share(costs: list[int]) -> None:
    for count in (1, 2, 5):
        shares = spread._shares(costs, count)
        assert sorted(index for share in shares for index in share) == list(range(len(costs)))
        assert len(shares) <= max(1, count)


def test_two_large_files_are_not_worked_on_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spread._shares([1 << 30, 1 << 30], 2) == [[0], [1]]


# --- evidence ---


def test_law_1_a_hash_made_on_the_way_counts_while_the_file_is_the_same(tmp_path: Path) -> None:
    """What is noted here is a lie, so that it shows who is believed."""
    staged = Path(delivery.open_staging(str(tmp_path), FILES)) / "top"
    staged.write_bytes(b"lie")
    note = {settling.identity(staged.stat()): FILES[2].sha256}
    assert settling.settle(str(tmp_path), FILES[2:], note)[0] == ["top"]

    staged.write_bytes(b"lie")
    stale = {settling.identity(staged.stat()): FILES[2].sha256}
    facts = staged.stat()
    os.utime(staged, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    settled, mismatches = settling.settle(str(tmp_path), FILES[2:], stale)
    assert settled == []
    assert "SHA-256" in mismatches[0].what


def test_a_note_of_the_far_end_that_is_broken_is_no_evidence(tmp_path: Path) -> None:
    delivery.open_staging(str(tmp_path), FILES)
    note = tmp_path / ".tenant-incoming" / settling.EVIDENCE
    for text in ("", "[", "{}", "[[1, 2]]", '[[[1, 2, 3, "x"], "y"]]', "[[[1, 2, 3], 4]]"):
        note.write_text(text)
        assert delivery.read_evidence(str(tmp_path)) == {}
    note.write_text('[[[1, 2, 3, 4], "abc"]]')
    assert delivery.read_evidence(str(tmp_path)) == {(1, 2, 3, 4): "abc"}


class Rsync:
    """Writes as rsync does: a new inode in the temporary folder, from beginning to end, then a rename."""

    def __init__(self, root: Path) -> None:
        self.landing = landing.Landing(str(root), quiet())
        self.staged = Path(delivery.open_staging(str(root), FILES))
        self.temporary = self.staged / settling.TEMPORARY
        self.follower = follower.Follower(self.landing, FILES, str(self.temporary))

    def write(self, path: str, data: bytes, between: Callable[[], None]) -> Path:
        growing = self.temporary / f".{Path(path).name}.aBcDeF"
        with growing.open("wb") as stream:
            for begin in range(0, len(data), 300_000):
                stream.write(data[begin : begin + 300_000])
                stream.flush()
                between()
        growing.rename(self.staged / path)
        return self.staged / path

    def read_since(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of files that are read again from now on."""
        read: list[str] = []
        real = settling._hash
        monkeypatch.setattr(
            settling, "_hash", lambda folder, name, *more: read.append(name) or real(folder, name, *more)
        )
        return read


def test_a_large_file_is_hashed_while_it_grows_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsync = Rsync(tmp_path)
    read = rsync.read_since(monkeypatch)
    rsync.write("d/large.pt", LARGE, rsync.follower._turn)
    rsync.follower.line(b"d/large.pt")
    while rsync.follower._turn():
        pass
    assert (tmp_path / "d/large.pt").read_bytes() == LARGE
    assert read == []
    settled, mismatches = rsync.landing.settle(FILES)
    assert settled == ["d/large.pt"]
    assert [str(mismatch) for mismatch in mismatches] == ["d/small is missing", "top is missing"]


@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_law_1_a_large_file_that_is_not_the_one_that_was_hashed_is_read_again(tmp_path: Path, how: str) -> None:
    rsync = Rsync(tmp_path)
    place = rsync.write("d/large.pt", LARGE, rsync.follower._turn)
    while rsync.follower._turn():
        pass
    wrong = LARGE[:-1] + b"X"
    if how == "replaced":
        other = place.with_name("other")
        other.write_bytes(wrong)
        other.rename(place)
    else:
        place.write_bytes(wrong)
        facts = place.stat()
        os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))
    rsync.follower.line(b"d/large.pt")
    rsync.follower.start()
    rsync.follower.end()
    settled, mismatches = rsync.landing.settle(FILES)
    assert settled == []
    assert "SHA-256" in str(mismatches[0])
    assert not (tmp_path / "d/large.pt").exists()


def test_what_the_follower_missed_is_settled_in_the_end(tmp_path: Path) -> None:
    rsync = Rsync(tmp_path)
    rsync.follower.start()
    rsync.write("d/large.pt", LARGE, lambda: None)
    (rsync.staged / "top").write_bytes(b"top")
    rsync.follower.line(b"not ours")
    rsync.follower.line(b"d/small")
    rsync.follower.end()
    assert rsync.landing.settle(FILES)[0] == ["d/large.pt", "top"]


def test_a_small_file_is_settled_once_rsync_has_gone_on_to_the_next(tmp_path: Path) -> None:
    incoming = landing.Landing(str(tmp_path), quiet())
    staged = Path(delivery.open_staging(str(tmp_path), FILES))
    reader = arrivals.Arrivals(incoming, FILES[1:])
    reader.start()
    reader.line(b"d/small")
    (staged / "d/small").write_bytes(b"smal")
    reader.line(b"receiving incremental file list")
    assert not (tmp_path / "d/small").exists()
    (staged / "d/small").write_bytes(b"small")
    reader.line(b"top")
    assert (tmp_path / "d/small").read_bytes() == b"small"
    (staged / "top").write_bytes(b"tip")
    reader.end()
    settled, mismatches = incoming.settle(FILES[1:])
    assert settled == ["d/small"]
    assert "SHA-256" in str(mismatches[0])
    assert not (tmp_path / "top").exists()
    assert not (staged / "top").exists()


@pytest.mark.parametrize("how", ["grows", "changes"])
def test_law_1_a_file_that_changes_while_it_is_read_is_named_and_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    staged = Path(delivery.open_staging(str(tmp_path), FILES)) / "top"
    staged.write_bytes(b"top" if how == "grows" else b"tip")
    read = settling.hash_open

    def meanwhile(*arguments: Any) -> tuple[int, str]:
        if how == "grows":
            staged.write_bytes(b"topping")
        else:
            os.utime(staged, ns=(0, 1))
        return read(*arguments)

    monkeypatch.setattr(settling, "hash_open", meanwhile)
    settled, mismatches = settling.settle(str(tmp_path), FILES[2:])
    assert (settled, [mismatch.what for mismatch in mismatches]) == ([], ["changed while it was read"])
    assert not (tmp_path / "top").exists()


def test_a_file_is_right_only_at_its_place(tmp_path: Path) -> None:
    """Checked again after the move, as a receipt does it."""
    staged = Path(delivery.open_staging(str(tmp_path), FILES))
    (staged / "d/large.pt").write_bytes(LARGE)
    (staged / "d/small").write_bytes(b"small")
    (staged / "top").write_bytes(b"tip")
    settling.settle(str(tmp_path), FILES)
    assert [str(mismatch) for mismatch in settling.check_files(str(tmp_path), FILES)] == ["top is missing"]


# --- on the disk, and told about ---


def test_a_tree_is_flushed_at_once_or_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("nowhere")
    delivery.flush(str(tmp_path))
    synced: list[str] = []
    monkeypatch.setattr(delivery.ctypes, "CDLL", lambda *_arguments, **_more: object())
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    delivery.flush(str(tmp_path))
    assert sorted(synced) == [str(tmp_path), str(tmp_path / "d"), str(tmp_path / "d/a")]
    with pytest.raises(FileNotFoundError):
        delivery.flush(str(tmp_path / "absent"))


def test_progress_is_told_once_a_second_and_at_the_end() -> None:
    told: list[dict[str, Any]] = []
    now = [0.0]
    counts = progress.Progress(told.append, 3, 1000, clock=lambda: now[0])
    counts.begin(1, 100)
    counts.found(100)
    for _unused in range(4):
        now[0] += 0.4
        counts.moved(100)
    counts.landed()
    assert [report["bytes_done"] for report in told] == [500]
    assert told[0]["rate_bps"] == 250
    assert told[0]["eta_s"] == 2.0
    counts.landed()
    counts.moved(400)
    counts.end()
    assert told[-1] == {**told[-1], "files_done": 3, "files": 3, "bytes_done": 1000, "bytes": 1000, "eta_s": 0.0}


def test_bytes_in_the_buffers_on_the_way_are_no_progress() -> None:
    counts = quiet()
    for _unused in range(3):
        counts.begin(0, 0)
        counts.moved(1 << 20)
    assert counts.beyond_buffers == 0
    counts.begin(0, 0)
    counts.moved(6 << 20)
    assert counts.beyond_buffers == 2 << 20
    counts.begin(0, 0)
    assert counts.beyond_buffers == 2 << 20


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    for size in (0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000):
        (tmp_path / f"f{size}").write_bytes(os.urandom(size))
    found = delivery.scan_tree(str(tmp_path))
    assert {file.path: file.sha256 for file in found} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()
    }

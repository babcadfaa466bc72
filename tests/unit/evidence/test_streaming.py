# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The stream, with its far end as a process of this machine: no ssh, everything else real."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    delivery,
    landing,
    progress,
    settling,
    stream_carrier,
    stream_peer,
    transfer,
)

SIZES = {"a/empty": 0, "a/one": 1, "a/edge": stream_peer.SMALL, "b/over": stream_peer.SMALL + 1, "b/big": 3_000_001}
compressed = pytest.mark.parametrize("compress", [False, True])


class World:
    """Files in ``far``, promised in ``files``; what arrives goes to ``near``."""

    def __init__(self, folder: Path) -> None:
        self.far, self.near = folder / "far", folder / "near"
        self.near.mkdir()
        for path, size in SIZES.items():
            place = self.far / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((b"text and " + os.urandom(2)) * (size // 11) + b"x" * (size % 11))
        self.files = delivery.scan_tree(str(self.far))

    def route(self, pull: bool, compress: bool, **more: Any) -> carrier.Route:
        staged = delivery.open_staging(str(self.near), self.files)
        near, far = (staged, str(self.far)) if pull else (str(self.far), staged)
        wishes = transfer.RsyncWishes(20, compress=compress)
        counts = progress.Progress(None, len(self.files), 1)
        return carrier.Route(transfer.Link(), pull, far, near, sys.executable, wishes, counts, **more)

    def pull(self, compress: bool = False) -> tuple[transfer.Attempt, landing.Landing]:
        incoming = landing.Landing(str(self.near), progress.Progress(None, 1, 1))
        route = self.route(True, compress, landing=incoming)
        return stream_carrier.move_by_stream(route, self.files, carrier.Deadline(30), False), incoming

    def push(self, compress: bool = False) -> transfer.Attempt:
        return stream_carrier.move_by_stream(self.route(False, compress), self.files, carrier.Deadline(30), False)

    def partial(self, path: str, data: bytes) -> None:
        place = self.near / ".tenant-incoming" / stream_carrier._partial_path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@compressed
def test_a_pull_is_in_its_place_when_the_stream_ends(world: World, compress: bool) -> None:
    attempt, incoming = world.pull(compress)
    assert (attempt.status, attempt.wire_bytes) == (0, sum(SIZES.values()))
    assert settling.check_files(str(world.near), world.files) == []
    assert incoming.settle(world.files) == ([file.path for file in world.files], [])


@compressed
def test_a_push_is_hashed_while_it_arrives(world: World, compress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.push(compress).status == 0
    evidence = delivery.read_evidence(str(world.near))
    assert sorted(evidence.values()) == sorted(file.sha256 for file in world.files)
    monkeypatch.setattr(settling, "_hash", lambda *_arguments: pytest.fail("nothing is read a second time"))
    found = delivery.answer_settle(str(world.near), world.files, "", [])
    assert found["mismatches"] == []
    monkeypatch.undo()
    assert settling.check_files(str(world.near), world.files) == []


@compressed
@pytest.mark.parametrize("pull", [True, False])
def test_law_3_a_cut_file_goes_on_where_it_was_cut(world: World, pull: bool, compress: bool) -> None:
    delivery.open_staging(str(world.near), world.files)
    whole = (world.far / "b/big").read_bytes()
    world.partial("b/big", whole[:2_000_000])
    attempt = world.pull(compress)[0] if pull else world.push(compress)
    assert attempt.wire_bytes == sum(SIZES.values()) - 2_000_000
    assert settling.settle(str(world.near), [file for file in world.files if file.path == "b/big"])[0] == ["b/big"]
    assert (world.near / "b/big").read_bytes() == whole


def test_law_1_a_wrong_beginning_is_found_and_does_not_stay(world: World) -> None:
    delivery.open_staging(str(world.near), world.files)
    world.partial("b/big", b"?" * 2_000_000)
    _attempt, incoming = world.pull()
    _settled, mismatches = incoming.settle(world.files)
    assert [mismatch.path for mismatch in mismatches] == ["b/big"]
    attempt, incoming = world.pull()
    assert incoming.settle(world.files)[1] == []
    assert attempt.status == 0


@pytest.mark.parametrize("path", ["a/one", "b/big"])
def test_law_1_wrong_bytes_do_not_reach_their_place(world: World, path: str) -> None:
    data = bytearray((world.far / path).read_bytes())
    data[0] ^= 1
    (world.far / path).write_bytes(data)
    _attempt, incoming = world.pull()
    settled, mismatches = incoming.settle(world.files)
    assert [str(mismatch) for mismatch in mismatches] == [f"{path} {settling.OTHER_BYTES}"]
    assert len(settled) == len(SIZES) - 1
    assert not (world.near / path).exists()


def test_what_the_box_does_not_send_is_named_in_plain_characters(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.far / "a/one").unlink()
    (world.far / "b/big").write_bytes(b"short")
    _attempt, incoming = world.pull()
    _settled, mismatches = incoming.settle(world.files)
    said = {mismatch.path: mismatch.what for mismatch in mismatches}
    assert said["a/one"] == "No such file or directory"
    assert said["b/big"] == f"has another size (5 bytes) than the manifest says ({SIZES['b/big']})"


def test_law_8_a_box_cannot_colour_the_terminal_with_its_reasons(world: World) -> None:
    stream = stream_peer.In(_bytes(b"\0\x09\x1b[31mbad\n"), False)
    assert stream_carrier._reason(stream) == "\\x1b[31mbad\\n"


def _bytes(data: bytes) -> Any:
    import io

    return io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]


@pytest.mark.parametrize("first", ["all", "little by little"])
def test_law_8_what_follows_the_end_of_a_deflate_stream_is_not_taken(first: str) -> None:
    """zlib would gather it in memory, and copy what it has with every piece, until the deadline."""
    source = _Endless(zlib.compress(b"text" * 10), 1 if first == "little by little" else 1000)
    stream = stream_peer.In(source, True)  # type: ignore[arg-type]
    assert stream.read_exactly(40) == b"text" * 10
    with pytest.raises(EOFError):
        stream.read_exactly(1)
    assert source.asked < 80
    assert stream._inflate is not None
    assert len(stream._inflate.unused_data) <= stream_peer.CHUNK


class _Endless:
    """A stream that begins with ``data``, so many bytes at a time, and goes on for ever with others."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step, self.asked = data, step, 0

    def read1(self, size: int) -> bytes:
        self.asked += 1
        if self.asked > 80:
            raise AssertionError("it reads on and on")
        piece, self.data = self.data[: self.step], self.data[self.step :]
        return piece or b"x" * size


@pytest.mark.parametrize("offsets", [None, 3, [[0]], [["x", 1]], [[-1, 1]], [[99, 1]], [[4, 10**9]], [[4, "1"]]])
def test_law_8_offsets_that_make_no_sense_are_refused(world: World, offsets: Any) -> None:
    with pytest.raises(stream_carrier._Broken):
        stream_carrier._far_offsets({"offsets": offsets}, world.files)


def test_law_8_a_peer_sends_nothing_from_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/out").symlink_to(tmp_path)
    folders = stream_peer.Folders(str(tmp_path / "root"))
    for path in ("../x", "out/x", "/etc/passwd", "a/../../x", ""):
        with pytest.raises(ValueError, match=r"leads out|not a file"):
            folders.contained(path)
    assert folders.contained("x") == str(tmp_path / "root/x")


def test_the_far_end_is_one_file_that_imports_nothing_of_ours() -> None:
    assert "from ." not in Path(stream_peer.__file__).read_text()
    assert hashlib.sha256(b"").hexdigest() == stream_peer.Hasher().hexdigest()

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""TensorBoard's event files: as the real writers write them (``tfevents/make.py``), torn, damaged, growing."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import tfevents
from ansible_collections.tenant.gpu.plugins.module_utils.box.tfevents import Scalar
from hypothesis import given
from hypothesis import strategies as st

FILES = Path(__file__).with_name("tfevents")
REAL = (FILES / "simple_values.tfevents").read_bytes()


def varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(step: int, tag: str, value: float) -> bytes:
    summary = field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
    return b"\x09" + struct.pack("<d", 1.5) + b"\x10" + varint(step) + field(5, summary)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", tfevents.masked_crc(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]


def scalars_of(data: bytes, tmp_path: Path, offset: int = 0) -> tfevents.Look:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(data)
    return tfevents.look(str(path), offset)


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720, appendix B.4.
    assert tfevents.crc32c(b"123456789") == 0xE3069283
    assert tfevents.crc32c(bytes(32)) == 0x8A9136AA
    assert tfevents.crc32c(b"\xff" * 32) == 0x62A8AB43


def test_what_torch_writes_is_read() -> None:
    found = tfevents.look(str(FILES / "simple_values.tfevents"), 0)
    losses = [scalar for scalar in found.scalars if scalar.tag == "train/loss"]
    assert [(scalar.step, round(scalar.value, 6)) for scalar in losses] == [
        (count * 10, round(2.0 / count, 6)) for count in range(1, 41)
    ]
    assert [scalar.step for scalar in found.scalars if scalar.tag == "val/loss"] == [1, 2, 3, 4]
    # Texts and histograms are no scalars.
    assert {scalar.tag for scalar in found.scalars} == {"train/loss", "val/loss"}
    assert (found.offset, found.problem) == (len(REAL), "")


def test_scalars_in_the_form_of_tensors_are_read() -> None:
    found = tfevents.look(str(FILES / "tensors_of_torch.tfevents"), 0)
    assert [scalar for scalar in found.scalars if scalar.tag == "loss"] == [
        Scalar(step, "loss", struct.unpack("<f", struct.pack("<f", 1.0 / step))[0]) for step in range(1, 6)
    ]
    assert [scalar.value for scalar in found.scalars if scalar.tag == "precise"] == [1.0 / 3] * 5


def test_every_type_of_number_is_read_and_arrays_are_not() -> None:
    found = tfevents.look(str(FILES / "tensors_of_tensorboard.tfevents"), 0)
    assert found.scalars == [
        Scalar(0, "t0", 0.5),
        Scalar(1, "t1", 0.25),
        Scalar(2, "t2", 7.0),
        Scalar(3, "t3", -3.0),
        Scalar(4, "t4", 1.5),
        Scalar(2**40, "big", 1.0),
    ]


@given(cut=st.integers(0, len(REAL)))
def test_wherever_the_writer_stands_nothing_is_lost_or_told_twice(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = scalars_of(REAL, folder)
    first = scalars_of(REAL[:cut], folder)
    assert first.problem == ""
    assert first.offset <= cut
    second = scalars_of(REAL, folder, first.offset)
    assert first.scalars + second.scalars == whole.scalars
    assert second.offset == len(REAL)


@given(at=st.integers(0, len(REAL) - 1), flip=st.integers(1, 255))
def test_a_damaged_byte_never_makes_a_number(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    damaged = REAL[:at] + bytes([REAL[at] ^ flip]) + REAL[at + 1 :]
    folder = tmp_path_factory.mktemp("damaged")
    found = scalars_of(damaged, folder)
    assert set(found.scalars) <= set(scalars_of(REAL, folder).scalars)
    assert found.problem or found.offset < len(REAL)


def test_a_damaged_record_is_passed_over_and_told(tmp_path: Path) -> None:
    good = [record(event(step, "loss", 1.0)) for step in (1, 2, 3)]
    bad = good[1][:-6] + bytes([good[1][-6] ^ 1]) + good[1][-5:]
    found = scalars_of(good[0] + bad + good[2], tmp_path)
    assert [scalar.step for scalar in found.scalars] == [1, 3]
    assert "1 records of it are damaged" in found.problem


def test_a_last_record_whose_bytes_are_not_there_yet_gets_another_look(tmp_path: Path) -> None:
    one, two = record(event(1, "loss", 1.0)), record(event(2, "loss", 0.5))
    # As some network file systems show it: the length is there, the bytes are zeros still.
    early = scalars_of(one + two[:12] + bytes(len(two) - 12), tmp_path)
    assert ([scalar.step for scalar in early.scalars], early.offset, early.problem) == ([1], len(one), "")
    assert [scalar.step for scalar in scalars_of(one + two, tmp_path, early.offset).scalars] == [2]


def test_pictures_are_passed_over_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = record(b"\x12" + bytes(9_000_000))
    monkeypatch.setattr(tfevents, "MOST_READ", 3 * tfevents.LARGEST * 2)
    data = record(event(1, "loss", 1.0)) + picture + record(event(2, "loss", 0.5))
    found = scalars_of(data, tmp_path)
    assert [scalar.step for scalar in found.scalars] == [1, 2]
    assert found.offset == len(data)
    assert scalars_of(data[:-2000], tmp_path, 0).offset < len(data) - 9_000_000


def test_a_fast_writer_is_kept_up_with_at_a_bounded_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(record(event(step, "loss", 1.0)) for step in range(1, 4001))
    decoded = 0
    real = tfevents.event_scalars

    def counted(data: bytes) -> list[Scalar]:
        nonlocal decoded
        decoded += len(data)
        return real(data)

    monkeypatch.setattr(tfevents, "event_scalars", counted)
    found = scalars_of(data, tmp_path)
    assert found.scalars[-1].step == 4000
    assert decoded <= tfevents.MOST_DECODED + 100 < len(data)


def test_a_file_that_became_shorter_is_read_from_its_start(tmp_path: Path) -> None:
    found = scalars_of(record(event(7, "loss", 1.0)), tmp_path, offset=10**6)
    assert [scalar.step for scalar in found.scalars] == [7]


def test_negative_steps_keep_their_sign(tmp_path: Path) -> None:
    assert scalars_of(record(event(-1, "loss", 1.0)), tmp_path).scalars[0].step == -1


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    scalars_of(data, folder)
    # With sound checksums around them, too.
    scalars_of(record(data) + record(event(1, "x", 1.0)), folder)

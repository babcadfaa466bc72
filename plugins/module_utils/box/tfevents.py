# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""TensorBoard event files, read by hand: their scalars, from where the last look ended.

A file is a row of TFRecords: length (8 bytes) and its checksum (4), then the data and its checksum (4). Both are masked
CRC-32C. The data are a protobuf ``Event``, of which only step, tag and value of its scalars are decoded. The writer may
be in the midst of the last record, and it may write faster than this reads; neither holds anybody up.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Iterator, NamedTuple

PREFIX = "events.out.tfevents."
# Read at most at one look. Steps matter now, so what is behind that is passed over, header by header.
MOST_READ = 512 * 1024
# Of what was read, this much of the end is checked and decoded: that is what costs time.
MOST_DECODED = 64 * 1024
# A longer record holds pictures or a graph; it is passed over unread.
LARGEST = 64 * 1024
_CHUNK = 128 * 1024
_HEADER = struct.Struct("<QI")
_FRAME = _HEADER.size + 4
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
# TensorFlow's DataType: struct format of one number in ``tensor_content``.
_NUMBERS = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 19: "<e"}
_FLOAT_VAL, _DOUBLE_VAL, _INT_VAL, _INT64_VAL, _HALF_VAL = _LISTED = (5, 6, 7, 10, 13)


class Scalar(NamedTuple):
    step: int
    tag: str
    value: float


class Look(NamedTuple):
    """What one look at a file found. ``offset`` is where the next one begins, ``problem`` what is wrong with it."""

    scalars: list[Scalar]
    offset: int
    problem: str = ""


# --- checksum -----------------------------------------------------------------------------------------------------


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _bit in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), which the standard library does not have."""
    table, crc = _TABLE, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """The checksum as TFRecords store it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# --- records ------------------------------------------------------------------------------------------------------


def look(path: str, offset: int) -> Look:
    """The scalars written at or after ``offset``. A file that became shorter is another one and is read from its start.

    :raises OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        begin = offset if offset <= size else 0
        return _read(stream, begin, size)


def _read(stream: BinaryIO, offset: int, size: int) -> Look:
    framed: list[tuple[int, bytes]] = []
    problem = ""
    for _turn in range(MOST_READ // _CHUNK):
        if offset + _FRAME > size:
            break
        stream.seek(offset)
        chunk = stream.read(_CHUNK)
        found, ahead, problem = _frames(chunk, size - offset)
        framed += [(offset + at, record) for at, record in found]
        offset += ahead
        if problem or not ahead:
            break
    if problem:
        problem = f"it is damaged at byte {offset}"
    scalars, first_bad, damaged = _decoded(framed)
    # Some file systems show a length before the bytes: the last record gets another chance at the next look.
    if first_bad is not None and first_bad + _FRAME + len(framed[-1][1]) - 4 == size:
        return Look(scalars, first_bad, problem)
    return Look(scalars, offset, problem or damaged)


def _frames(chunk: bytes, left: int) -> tuple[list[tuple[int, bytes]], int, str]:
    """Whole records in ``chunk`` with their checksums, how far that goes, and what stopped it if not the end.

    :param left: bytes of the file from the chunk's first one on.
    """
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + _HEADER.size <= len(chunk):
        length, checksum = _HEADER.unpack_from(chunk, at)
        if masked_crc(chunk[at : at + 8]) != checksum:
            return found, at, "length"
        end = at + _FRAME + length
        if length > LARGEST and end <= left:
            return found, end, ""
        if end > len(chunk):
            break
        found.append((at, chunk[at + _HEADER.size : end]))
        at = end
    return found, at, ""


def _decoded(framed: list[tuple[int, bytes]]) -> tuple[list[Scalar], int | None, str]:
    """The scalars of the last records, where the last one lies if its checksum is wrong, and a word on the others."""
    first = len(framed)
    budget = MOST_DECODED
    while first and budget > 0:
        first -= 1
        budget -= len(framed[first][1])
    scalars: list[Scalar] = []
    bad = []
    for at, record in framed[first:]:
        data, checksum = record[:-4], int.from_bytes(record[-4:], "little")
        if masked_crc(data) != checksum:
            bad.append(at)
            continue
        try:
            scalars += event_scalars(data)
        except (ValueError, IndexError, struct.error):
            bad.append(at)
    last_is_bad = bad and bad[-1] == framed[-1][0]
    word = f"{len(bad)} records of it are damaged and were passed over" if bad else ""
    return scalars, bad[-1] if last_is_bad else None, word


# --- protobuf -----------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """One field of a message: ``integer`` of a varint, ``data`` of the others."""

    number: int
    wire: int
    integer: int = 0
    data: bytes = b""


def event_scalars(data: bytes) -> list[Scalar]:
    """The scalars of one ``Event``. :raises ValueError, IndexError, struct.error: these bytes are none."""
    step, summaries = 0, []
    for field in _fields(data):
        if field.number == 2 and field.wire == _VARINT:
            step = _signed(field.integer)
        elif field.number == 5 and field.wire == _BYTES:
            summaries.append(field.data)
    found = []
    for summary in summaries:
        for field in _fields(summary):
            named = _summary_value(field.data) if field.number == 1 and field.wire == _BYTES else None
            if named is not None:
                found.append(Scalar(step, *named))
    return found


def _summary_value(data: bytes) -> tuple[str, float] | None:
    """Tag and number of one ``Summary.Value``; None when it is a picture, a histogram, a text or an array."""
    tag, number = "", None
    for field in _fields(data):
        if field.number == 1 and field.wire == _BYTES:
            tag = field.data.decode("utf-8", "replace")
        elif field.number == 2 and field.wire == _FOUR:
            number = _unpack("<f", field.data)
        elif field.number == 8 and field.wire == _BYTES:
            number = _tensor_number(field.data)
    return None if number is None else (tag, number)


def _tensor_number(data: bytes) -> float | None:
    """The number of a ``TensorProto`` of no dimensions."""
    kind, content, listed = 0, b"", None
    for field in _fields(data):
        if field.number == 1 and field.wire == _VARINT:
            kind = field.integer
        elif field.number == 2 and any(each.number == 2 for each in _fields(field.data)):
            return None
        elif field.number == 4:
            content = field.data
        elif field.number in _LISTED:
            listed = _listed_number(field)
    return _unpack(_NUMBERS[kind], content) if content and kind in _NUMBERS else listed


def _listed_number(field: _Field) -> float | None:
    """The only number of a repeated field, packed or not; None when it holds several."""
    if field.number in (_FLOAT_VAL, _DOUBLE_VAL):
        return _unpack("<f" if field.number == _FLOAT_VAL else "<d", field.data)
    count = field.integer
    if field.wire == _BYTES:
        count, end = _varint(field.data, 0)
        if end != len(field.data):
            return None
    return _unpack("<e", (count & 0xFFFF).to_bytes(2, "little")) if field.number == _HALF_VAL else float(_signed(count))


def _unpack(form: str, data: bytes) -> float | None:
    return float(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else None


def _fields(data: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            count, at = _varint(data, at)
            yield _Field(number, wire, count)
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_EIGHT, _FOUR):
            length = 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("the message is cut")
        yield _Field(number, wire, data=data[at : at + length])
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise ValueError("a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

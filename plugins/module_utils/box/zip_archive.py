# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Zip archives read strictly: every byte belongs to one member or to the directory, and every member keeps its CRC-32.

``zipfile`` forgives what damage and attacks need: bytes before, between and after the members, members that overlap,
headers that contradict the directory. ``torch.save`` and ``numpy.savez`` write none of it. An archive may also be a
part of a file, as each item of a torch distributed checkpoint is.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from typing import Iterable, Iterator, NamedTuple

STORED, DEFLATED = 0, 8
_PIECE = 32 * 1024 * 1024
_READ = 256 * 1024
_WORTH_THREADS = 8 * 1024 * 1024
_MAX_DIRECTORY = 256 * 1024 * 1024
_MAX_THREADS = 8
_SATURATED_16, _SATURATED_32 = 0xFFFF, 0xFFFFFFFF
_NEWEST_VERSION, _IS_FOLDER = 63, 0x10
_ENCRYPTED, _DESCRIPTOR_FOLLOWS = 0x1, 0x8
_ZIP64_EXTRA = 1
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class Damaged(ValueError):
    """The text says what is wrong with the file, as a sentence beginning with "it"."""


class Window:
    """A part of an open file, read at offsets that count from its start."""

    def __init__(self, descriptor: int, start: int, length: int):
        self.descriptor, self.start, self.length = descriptor, start, length

    def read(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes, or Damaged."""
        if offset < 0 or offset + count > self.length:
            raise Damaged("it is cut short or damaged (a header points outside of it)")
        pieces = list(self.chunks(offset, count))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self, offset: int, count: int) -> Iterator[bytes]:
        position, end = self.start + offset, self.start + offset + count
        while position < end:
            data = os.pread(self.descriptor, min(_READ, end - position), position)
            if not data:
                raise Damaged("it is cut short: it ended while it was read")
            position += len(data)
            yield data


class Member(NamedTuple):
    """One part of an archive. ``start`` and ``stored`` are where its bytes lie and how many, ``size`` unpacked."""

    name: str
    method: int
    crc: int
    stored: int
    size: int
    start: int


class _Entry(NamedTuple):
    name: bytes
    flags: int
    method: int
    moment: tuple[int, int]
    crc: int
    stored: int
    size: int
    header: int


def cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


# --- the directory --------------------------------------------------------------------------------------------


def read_members(window: Window) -> list[Member]:
    """The members in the order of their bytes, which fill the archive without gap or overlap; else Damaged."""
    offset, size, count = _find_directory(window)
    entries = _read_entries(window.read(offset, size), count)
    if len({entry.name for entry in entries}) != len(entries):
        raise Damaged("it names one of its parts twice")
    members, position = [], 0
    for entry in sorted(entries, key=lambda entry: entry.header):
        if entry.header != position:
            raise Damaged(f"there is a gap or an overlap before its part {_text(entry.name)}")
        start = _data_start(window, entry)
        members.append(Member(_text(entry.name), entry.method, entry.crc, entry.stored, entry.size, start))
        position = _end_of_part(window, entry, start + entry.stored)
    if position != offset:
        raise Damaged("there is a gap or an overlap before its directory")
    return members


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _find_directory(window: Window) -> tuple[int, int, int]:
    """(offset, size, entries) of the directory, which must end where its end record begins."""
    end = window.length - _END.size
    if end < 0:
        raise Damaged("it is cut short or not a zip file")
    found = _END.unpack(window.read(end, _END.size))
    signature, disks, (count, total, size, offset), comment = found[0], found[1:3], found[3:7], found[7]
    if signature != b"PK\x05\x06" or any(disks) or count != total or comment:
        raise Damaged("it is cut short or not a zip file: it does not end with a zip directory")
    boundary = end
    if end >= _LOCATOR.size and window.read(end - _LOCATOR.size, 4) == b"PK\x06\x07":
        boundary, wide = _find_directory_64(window, end - _LOCATOR.size)
        for narrow, value, saturated in zip((count, size, offset), wide, (_SATURATED_16, _SATURATED_32, _SATURATED_32)):
            if narrow not in (value, saturated):
                raise Damaged("its two directory records contradict each other")
        count, size, offset = wide
    if offset + size != boundary or size > _MAX_DIRECTORY:
        raise Damaged("its directory is not where its end record says")
    return offset, size, count


def _find_directory_64(window: Window, locator: int) -> tuple[int, tuple[int, int, int]]:
    _signature, disk, boundary, disks = _LOCATOR.unpack(window.read(locator, _LOCATOR.size))
    if disk or disks != 1 or boundary + _END_64.size != locator:
        raise Damaged("its wide directory record is not where it should be")
    found = _END_64.unpack(window.read(boundary, _END_64.size))
    signature, length, disks_64, (count, total, size, offset) = found[0], found[1], found[4:6], found[6:10]
    if signature != b"PK\x06\x06" or length != _END_64.size - 12 or any(disks_64) or count != total:
        raise Damaged("its wide directory record is damaged")
    return boundary, (count, size, offset)


def _read_entries(data: bytes, count: int) -> list[_Entry]:
    entries, position = [], 0
    while position < len(data):
        if position + _ENTRY.size > len(data):
            raise Damaged("its directory is cut short")
        found = _ENTRY.unpack_from(data, position)
        signature, flags, method, moment, crc, stored, size = found[0], found[3], found[4], found[5:7], *found[7:10]
        name_length, extra_length, comment_length, disk, header = *found[10:14], found[16]
        names = position + _ENTRY.size
        extras = names + name_length
        position = extras + extra_length + comment_length
        needed, attributes = found[2], found[15]
        if signature != b"PK\x01\x02" or disk or position > len(data):
            raise Damaged("its directory is damaged")
        if needed & 0xFF > _NEWEST_VERSION or attributes & _IS_FOLDER:
            raise Damaged("its directory calls a part a folder, or asks for a reader that does not exist")
        size, stored, header = _widen(data[extras : extras + extra_length], size, stored, header)
        if flags & _ENCRYPTED or method not in (STORED, DEFLATED):
            raise Damaged("it has encrypted parts, or parts packed in a way that is not known")
        if method == STORED and stored != size:
            raise Damaged("its directory contradicts itself about the size of a part")
        name = bytes(data[names:extras])
        entries.append(_Entry(name, flags, method, (moment[0], moment[1]), crc, stored, size, header))
    if len(entries) != count:
        raise Damaged(f"its directory has {len(entries)} entries, its end record says {count}")
    return entries


def _widen(extra: bytes, *values: int) -> list[int]:
    """``values`` with each saturated one taken from the zip64 field, which lists only those, in this order."""
    wide = list(_zip64_numbers(extra))
    found = []
    for value in values:
        if value == _SATURATED_32 and not wide:
            raise Damaged("its directory lacks the wide size of a part")
        found.append(wide.pop(0) if value == _SATURATED_32 else value)
    return found


def _zip64_numbers(extra: bytes) -> Iterator[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == _ZIP64_EXTRA:
            yield from (number for (number,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8]))
        position += 4 + length


# --- one part -------------------------------------------------------------------------------------------------


def _data_start(window: Window, entry: _Entry) -> int:
    """Where the bytes of a part begin, once its own header has said the same as the directory."""
    found = _LOCAL.unpack(window.read(entry.header, _LOCAL.size))
    signature, (flags, method), moment, crc, stored, size = found[0], found[2:4], found[4:6], *found[6:9]
    name_length, extra_length = found[9:11]
    names = entry.header + _LOCAL.size
    name = window.read(names, name_length)
    extra = window.read(names + name_length, extra_length)
    if signature != b"PK\x03\x04" or (name, flags, method, moment) != entry[:4]:
        raise Damaged(f"the header of its part {_text(entry.name)} is damaged")
    if not (flags & _DESCRIPTOR_FOLLOWS and (crc, stored, size) == (0, 0, 0)):
        size, stored = _widen(extra, size, stored)
        if (crc, stored, size) != (entry.crc, entry.stored, entry.size):
            raise Damaged(f"the header of its part {_text(entry.name)} contradicts the directory")
    return names + int(name_length) + int(extra_length)


def _end_of_part(window: Window, entry: _Entry, end: int) -> int:
    """Where the next part must begin: after the descriptor, if one follows the bytes."""
    if not entry.flags & _DESCRIPTOR_FOLLOWS:
        return end
    for form in ("<4sLQQ", "<4sLLL", "<LQQ", "<LLL"):
        length = struct.calcsize(form)
        if end + length > window.length:
            continue
        found = struct.unpack(form, window.read(end, length))
        if form[1] == "4" and found[0] != b"PK\x07\x08":
            continue
        if found[-3:] == (entry.crc, entry.stored, entry.size):
            return end + length
    raise Damaged(f"what follows its part {_text(entry.name)} contradicts the directory")


# --- checksums ------------------------------------------------------------------------------------------------


def check_members(window: Window, members: Iterable[Member], threads: int | None = None) -> None:
    """Damaged, naming the first part whose bytes are not those that its CRC-32 was made of. Memory stays bounded."""
    pieces = [piece for member in members for piece in _pieces(member)]
    total = sum(length for _member, _start, length in pieces)
    wanted = min(threads or cores(), _MAX_THREADS)
    if wanted < 2 or total < _WORTH_THREADS:
        _compare(pieces, (_crc_of(window, *piece) for piece in pieces))
        return
    from concurrent.futures import ThreadPoolExecutor  # only for large files: it brings logging along

    with ThreadPoolExecutor(wanted) as pool:
        _compare(pieces, pool.map(lambda piece: _crc_of(window, *piece), pieces))


def _pieces(member: Member) -> Iterator[tuple[Member, int, int]]:
    """Slices of a part whose checksums can be taken apart and combined; a packed part is one."""
    if member.method == DEFLATED or not member.stored:
        yield member, member.start, member.stored
        return
    for offset in range(0, member.stored, _PIECE):
        yield member, member.start + offset, min(_PIECE, member.stored - offset)


def _compare(pieces: Iterable[tuple[Member, int, int]], crcs: Iterable[int]) -> None:
    crc, done, before = 0, 0, None
    for (member, _start, length), found in zip(pieces, crcs):
        if member is not before:
            crc, done, before = 0, 0, member
        crc, done = combine(crc, found, length), done + length
        if done == member.stored and (found if member.method == DEFLATED else crc) != member.crc:
            raise Damaged(f"its part {member.name} has changed since it was written")


def _crc_of(window: Window, member: Member, start: int, length: int) -> int:
    if member.method == STORED:
        crc = 0
        for data in window.chunks(start, length):
            crc = zlib.crc32(data, crc)
        return crc
    crc, size = 0, 0
    for data in unpacked(window, member):
        crc, size = zlib.crc32(data, crc), size + len(data)
    if size != member.size:
        raise Damaged(f"its part {member.name} unpacks to {size} bytes, the directory says {member.size}")
    return crc


def unpacked(window: Window, member: Member) -> Iterator[bytes]:
    """The bytes of a part, never more at once or in all than its directory entry says."""
    if member.method == STORED:
        yield from window.chunks(member.start, member.stored)
        return
    decoder, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        for packed in window.chunks(member.start, member.stored):
            while packed and not decoder.eof:
                data = decoder.decompress(packed, _READ)
                packed, size = decoder.unconsumed_tail, size + len(data)
                if size > member.size:
                    raise Damaged(f"its part {member.name} unpacks to more bytes than the directory says")
                yield data
        yield decoder.flush()
    except zlib.error as error:
        raise Damaged(f"its part {member.name} cannot be unpacked ({error})") from error
    if not decoder.eof or decoder.unused_data:
        raise Damaged(f"its part {member.name} is not whole")


# --- CRC arithmetic: polynomials over GF(2), as in zlib's crc32_combine ------------------------------------------

_POLYNOMIAL = 0xEDB88320


def combine(first: int, second: int, second_length: int) -> int:
    """The CRC-32 of two byte strings one after the other, from the CRC-32 of each."""
    return _multiply(_shift(second_length), first) ^ second


def _multiply(left: int, right: int) -> int:
    product, bit = 0, 1 << 31
    while bit:
        if left & bit:
            product ^= right
        right = (right >> 1) ^ _POLYNOMIAL if right & 1 else right >> 1
        bit >>= 1
    return product


@functools.lru_cache(maxsize=64)
def _shift(length: int) -> int:
    """x to the power of 8 times ``length``, modulo the polynomial: what ``length`` more bytes do to a checksum."""
    power, square = 1 << 31, 1 << 23  # x to the power of 0 and of 8; the highest bit is the constant term
    while length:
        if length & 1:
            power = _multiply(square, power)
        square = _multiply(square, square)
        length >>= 1
    return power

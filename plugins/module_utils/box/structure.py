# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Is a file whole? By its loader's format, with the standard library alone; nothing in it is executed."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from typing import Any, Callable

from . import inert_pickle, zip_archive
from .records import is_count
from .zip_archive import Damaged, Member, Window

SHARDED_LOADERS = ("hf", "dcp")
_MAX_HEADER = 100 * 1024 * 1024
_MAX_JSON = 256 * 1024 * 1024
_MAX_PICKLE = 1024 * 1024 * 1024
_MAX_ARRAY_HEADER = 64 * 1024
_DTYPES_BY_BITS = {
    64: ("F64", "I64", "U64", "C64"),
    32: ("F32", "I32", "U32"),
    16: ("F16", "BF16", "I16", "U16"),
    8: ("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"),
    4: ("F4",),
}
_DTYPE_BITS = {name: bits for bits, names in _DTYPES_BY_BITS.items() for name in names}
_STORAGE_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "UntypedStorage": 1,
}
_ENDINGS = {
    ".safetensors": "safetensors",
    ".json": "json",
    ".jsonl": "json",
    ".bin": "torch",
    ".pt": "torch",
    ".pth": "torch",
}
# The header of an array file is a Python literal; numpy writes these three keys, sorted.
_ARRAY_HEADER = re.compile(
    r"\{'descr': (?P<descr>'[^']*'|\[.*\]), 'fortran_order': (?:True|False), 'shape': \((?P<shape>[0-9, ]*)\), \}\s*\Z",
    re.DOTALL,
)


def loader_for(path: str, loader: str) -> str:
    """The loader of one file: in sharded folders (``hf``, ``dcp``) files go by their ending."""
    if loader not in SHARDED_LOADERS:
        return loader
    return _ENDINGS.get(os.path.splitext(path)[1], "none")


def check_structure(path: str, loader: str, threads: int | None = None) -> str:
    """What is wrong with the file at ``path`` as ``loader`` would see it; empty when nothing is.

    Every byte of zip-based formats is read against its CRC-32. OSError when the file cannot be read at all.

    :param threads: how many compute checksums; as many as there are processors when not given.
    """
    name = loader_for(path, loader)
    if name == "none":
        return ""
    checks: dict[str, Callable[[Window], None]] = {
        "torch": lambda window: check_torch(window, threads),
        "safetensors": check_safetensors,
        "npz": lambda window: _check_npz(window, threads),
        "json": lambda window: _check_json(window, path.endswith(".jsonl")),
    }
    if name not in checks:
        return ""
    return problem_in(path, checks[name])


def problem_in(path: str, check: Callable[[Window], None]) -> str:
    """What ``check`` finds wrong with the bytes of the file at ``path``; empty when nothing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return "it is not a plain file"
        if found.st_size == 0:
            return "it is empty"
        check(Window(descriptor, 0, found.st_size))
    except Damaged as error:
        return str(error)
    finally:
        os.close(descriptor)
    return ""


# --- torch ----------------------------------------------------------------------------------------------------


def check_torch(window: Window, threads: int | None = None) -> None:
    """Damaged unless it is a whole file of ``torch.save`` with the bytes of all its tensors."""
    members, _reading = read_torch(window)
    zip_archive.check_members(window, members, threads)


def read_torch(window: Window) -> tuple[list[Member], inert_pickle.Reading]:
    """The parts of a file of ``torch.save`` and what it holds besides its tensors' bytes, which are not read.

    :raises Damaged: it is no such file, lacks a tensor, or names what runs commands.
    """
    members = zip_archive.read_members(window)
    folder = next((member.name[: -len("data.pkl")] for member in members if member.name.endswith("/data.pkl")), None)
    if folder is None:
        raise Damaged("it is a zip file, but not one that torch.save wrote")
    if any(member.method != zip_archive.STORED for member in members):
        # It could be a bomb: torch.load would unpack it into memory.
        raise Damaged("it has compressed members, which torch.save never writes")
    parts = {member.name: member for member in members}
    reading = inert_pickle.read(_pickle_in(window, parts[f"{folder}data.pkl"]))
    commands = sorted(filter(inert_pickle.runs_commands, reading.names))
    if commands:
        raise Damaged(f"it needs code to load ({', '.join(commands)}), which runs commands, and was refused")
    for pid in reading.persistent:
        _check_storage(pid, folder, parts)
    return members, reading


def _pickle_in(window: Window, member: Member) -> bytes:
    if member.size > _MAX_PICKLE:
        raise Damaged(f"its pickle has {member.size} bytes, more than {_MAX_PICKLE}")
    zip_archive.check_members(window, [member])
    return window.read(member.start, member.size)


def _check_storage(pid: Any, folder: str, parts: dict[str, Member]) -> None:
    """The bytes of a storage must be there, as many as the pickle says: torch would read on into the next part."""
    try:
        kind, storage, key, _location, count = pid
        wanted = storage.wanted.rpartition(".")[2]
        needed = None if wanted not in _STORAGE_BYTES else int(count) * _STORAGE_BYTES[wanted]
        part = parts.get(f"{folder}data/{key}")
    except (TypeError, ValueError, AttributeError) as error:
        raise Damaged("its pickle names a storage in a way that torch.save does not") from error
    if kind != "storage" or part is None:
        raise Damaged(f"its pickle names the storage {key!r}, whose bytes are not in it")
    if needed is not None and part.size != needed:
        raise Damaged(f"its storage {key!r} has {part.size} bytes, its pickle says {needed}")


# --- npz ------------------------------------------------------------------------------------------------------


def _check_npz(window: Window, threads: int | None) -> None:
    members = zip_archive.read_members(window)
    if not members or not all(member.name.endswith(".npy") for member in members):
        raise Damaged("it is a zip file, but not one that numpy.savez wrote")
    zip_archive.check_members(window, members, threads)
    for member in members:
        _check_array(window, member)


def _check_array(window: Window, member: Member) -> None:
    head = b""
    for data in zip_archive.unpacked(window, member):
        head += data
        if len(head) >= _MAX_ARRAY_HEADER:
            break
    if head[:6] != b"\x93NUMPY" or len(head) < 12:
        raise Damaged(f"its part {member.name} is not a NumPy array")
    begin = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:begin], "little")
    found = _ARRAY_HEADER.match(head[begin : begin + length].decode("latin-1"))
    if found is None or begin + length > len(head):
        raise Damaged(f"the header of its array {member.name} is malformed")
    if re.match(r"'[<>|=]?O\d*'", found["descr"]) or re.search(r"'[<>|=]?O\d*'[,)]", found["descr"]):
        raise Damaged(f"it needs code to load (object array {member.name[: -len('.npy')]!r}) and was refused")
    width = re.match(r"'[<>|=](?:[biufcmMSV](\d+)|U(\d+))(?:\[[^']*\])?'\Z", found["descr"])
    if width is None:
        return  # A record of fields: numpy alone knows how wide it is.
    count = int(width[1]) if width[1] else 4 * int(width[2])
    for dimension in filter(None, found["shape"].replace(" ", "").split(",")):
        count *= int(dimension)
    if begin + length + count != member.size:
        raise Damaged(f"its array {member.name} has {member.size - begin - length} bytes, its shape needs {count}")


# --- safetensors ----------------------------------------------------------------------------------------------


def check_safetensors(window: Window) -> None:
    """Damaged unless the tensors fill the data exactly, without gap or overlap, each as long as its shape says."""
    _check_tensors(*safetensors_header(window))


def safetensors_header(window: Window) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file without its metadata, and how many bytes of tensors follow it."""
    if window.length < 8:
        raise Damaged("it is cut short before its header")
    length = struct.unpack("<Q", window.read(0, 8))[0]
    if length > min(_MAX_HEADER, window.length - 8):
        raise Damaged(f"its header says {length} bytes, the file has {window.length}")
    try:
        header = json.loads(window.read(8, length).decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its header is not JSON ({str(error)[:200]})") from error
    if not isinstance(header, dict):
        raise Damaged("its header is not a mapping")
    header.pop("__metadata__", None)
    return header, window.length - 8 - length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names something twice")
    return found


def _check_tensors(header: dict[str, Any], data_bytes: int) -> None:
    spans = sorted((*_span(name, tensor), name) for name, tensor in header.items())
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise Damaged(f"there is a gap or an overlap before tensor {name!r}")
        position = end
    if position != data_bytes:
        raise Damaged(f"its tensors need {position} bytes, {data_bytes} are there")


def _span(name: str, tensor: Any) -> tuple[int, int]:
    try:
        begin, end = tensor["data_offsets"]
        bits = _DTYPE_BITS.get(tensor["dtype"])
        numbers = [begin, end, *tensor["shape"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the header of tensor {name!r} is malformed") from error
    if not all(is_count(number) for number in numbers):
        raise Damaged(f"the header of tensor {name!r} is malformed")
    count = 1
    for dimension in numbers[2:]:
        count *= dimension
    if end < begin or (bits is not None and count * bits != (end - begin) * 8):
        raise Damaged(f"tensor {name!r} has {end - begin} bytes, not what its shape says")
    return begin, end


# --- json -----------------------------------------------------------------------------------------------------


def json_documents(window: Window, lines: bool) -> list[Any]:
    """The document, or one per line."""
    if window.length > _MAX_JSON:
        raise Damaged(f"it is larger than {_MAX_JSON} bytes: declare it with loader none")
    data = window.read(0, window.length)
    pieces = [line for line in data.splitlines() if line.strip()] if lines else [data]
    try:
        return [json.loads(piece.decode("utf-8")) for piece in pieces]
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is not JSON ({str(error)[:200]})") from error


def _check_json(window: Window, lines: bool) -> None:
    json_documents(window, lines)

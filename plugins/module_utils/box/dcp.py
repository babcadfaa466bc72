# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""torch distributed checkpoints: the pickle ``.metadata`` says which rank's file holds which part of each tensor.

torch unpickles that file with full powers, so it is read here inertly and refused when it names anything but what
torch itself puts into it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Optional, Tuple

from . import inert_pickle
from .inert_pickle import Inert
from .names import UnsafeName, check_relative_path
from .records import is_count
from .structure import check_torch
from .zip_archive import Damaged, Window

METADATA = ".metadata"
_RANK_METADATA = re.compile(r"__\d+\.metadata\Z")
_RANK_FILE = re.compile(r"__(\d+)_\d+\.distcp\Z")
_MAX_METADATA = 1024 * 1024 * 1024
_OF_METADATA = (
    "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata TensorProperties MetadataIndex "
    "StorageMeta _MEM_FORMAT_ENCODING"
)
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
_ENUMS = (
    "torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING",
    "torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
)
_MEMORY_FORMATS = ("TORCH_CONTIGUOUS_FORMAT", "TORCH_CHANNELS_LAST", "TORCH_PRESERVE_FORMAT")
_DTYPES = (
    "float16 float32 float64 bfloat16 complex32 complex64 complex128 uint8 uint16 uint32 uint64 int8 int16 int32 int64 "
    "bool float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 qint8 quint8 qint32"
)
# What torch.distributed.checkpoint writes into .metadata, in any version so far.
KNOWN_NAMES = frozenset(
    [f"torch.distributed.checkpoint.metadata.{name}" for name in _OF_METADATA.split()]
    + [f"torch.distributed.checkpoint.filesystem.{name}" for name in ("_StorageInfo", "_StoragePrefix")]
    + [
        f"torch.distributed._shard.sharded_tensor.metadata.{name}"
        for name in ("TensorProperties", "MEM_FORMAT_ENCODING")
    ]
    + [f"{enum}.{member}" for enum in _ENUMS for member in _MEMORY_FORMATS]
    + [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS]
    + [f"torch.{name}" for name in _DTYPES.split()]
    + ["torch.Size", "torch.strided", "torch.device", "torch.serialization._get_layout"]
    + ["collections.OrderedDict", "builtins.set", "builtins.frozenset", "copyreg._reconstructor", "builtins.object"]
)


_Place = Tuple[str, Optional[Tuple[int, ...]]]


class Item(NamedTuple):
    """What one span of a rank's file holds. ``sizes`` is None for an object that is no tensor."""

    name: str
    file: str
    offset: int
    length: int
    sizes: tuple[int, ...] | None
    dtype: str
    transformed: bool


class Metadata(NamedTuple):
    """``tensors`` are the whole shapes by name, ``items`` everything that the rank files hold."""

    tensors: dict[str, tuple[int, ...]]
    items: list[Item]

    def of_file(self, file: str) -> list[Item]:
        return sorted((item for item in self.items if item.file == file), key=lambda item: item.offset)

    @property
    def files(self) -> list[str]:
        return sorted({item.file for item in self.items})


def is_metadata(name: str) -> bool:
    """Whether a file name is that of the metadata, of all ranks or (``__0.metadata``) of one that saved alone."""
    return name == METADATA or _RANK_METADATA.match(name) is not None


def rank_of(file: str) -> str:
    """``rank 1`` for ``__1_0.distcp``; empty for a name that torch does not give."""
    found = _RANK_FILE.search(file)
    return f"rank {int(found.group(1))}" if found else ""


def read_metadata(window: Window) -> Metadata:
    """The metadata, every part of every tensor accounted for; else Damaged."""
    if window.length > _MAX_METADATA:
        raise Damaged(f"it has {window.length} bytes, more than {_MAX_METADATA}")
    reading = inert_pickle.read(window.read(0, window.length))
    foreign = sorted(reading.reached - KNOWN_NAMES)
    if foreign:
        raise Damaged(f"it needs code to load ({', '.join(foreign[:5])}) and was refused: torch would run it")
    try:
        return _metadata(reading.value.state)
    except (AttributeError, TypeError, KeyError, ValueError, IndexError, UnsafeName) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(
            f"it is damaged: it is not what torch.distributed.checkpoint writes ({str(error)[:100]})"
        ) from error


def _metadata(state: dict[str, Any]) -> Metadata:
    promised: dict[_Place, tuple[int, ...] | None] = {}
    tensors, dtypes = {}, {}
    for name, entry in state["state_dict_metadata"].items():
        if _kind(entry) != "TensorStorageMetadata":
            promised[name, None] = None
            continue
        tensors[name] = _size(entry.state["size"])
        dtypes[name] = _dtype(entry.state["properties"])
        chunks = [(_size(chunk.state["offsets"]), _size(chunk.state["sizes"])) for chunk in entry.state["chunks"]]
        _check_chunks(name, tensors[name], chunks)
        promised.update({(name, offsets): sizes for offsets, sizes in chunks})
    _check_paths(state["planner_data"], state["state_dict_metadata"])
    stored = {_place(index.state): info.state for index, info in state["storage_data"].items()}
    lost = len(set(promised) - set(stored))
    if lost:
        raise Damaged(f"it does not say where {lost} of its {len(promised)} parts are: the checkpoint is incomplete")
    items = [_item(place, info, promised[place], dtypes.get(place[0], "")) for place, info in stored.items()]
    return Metadata(tensors, items)


def _check_paths(planner_data: Any, names: dict[str, Any]) -> None:
    """torch keeps with the flat name of a value the keys that lead to it, from which it makes the names to look for."""
    for name, path in planner_data.items() if isinstance(planner_data, dict) else ():
        if isinstance(path, tuple) and (name not in names or ".".join(map(str, path)) != name):
            raise Damaged(f"it is damaged: it says that {name!r} lies under the keys {path!r}")


def _place(index: dict[str, Any]) -> _Place:
    offset = index.get("offset")
    return str(index["fqn"]), None if offset is None else _size(offset)


def _item(place: _Place, info: dict[str, Any], sizes: tuple[int, ...] | None, dtype: str) -> Item:
    begin, length = info["offset"], info["length"]
    if not (is_count(begin) and is_count(length) and length):
        raise Damaged(f"it says that {place[0]!r} lies at {begin!r}, {length!r} bytes long")
    file = check_relative_path(info["relative_path"])
    return Item(place[0], file, begin, length, sizes, dtype, bool(info.get("transform_descriptors")))


def _check_chunks(name: str, whole: tuple[int, ...], chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    """The parts of a tensor lie inside of it, no two at one place, and make up all of it."""
    for offsets, sizes in chunks:
        inside = len(offsets) == len(sizes) == len(whole)
        if not inside or any(at + size > end for at, size, end in zip(offsets, sizes, whole)):
            raise Damaged(f"a part of tensor {name!r} lies outside of it")
    parts = sum(_count(sizes) for _offsets, sizes in chunks)
    if len({offsets for offsets, _sizes in chunks}) != len(chunks) or parts < _count(whole):
        raise Damaged(f"tensor {name!r} is incomplete: its parts are {parts} of {_count(whole)} numbers")


def _count(sizes: tuple[int, ...]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def _kind(entry: Any) -> str:
    return entry.wanted.rpartition(".")[2] if isinstance(entry, Inert) else ""


def _size(value: Any) -> tuple[int, ...]:
    """A torch.Size, which pickles as a call with one tuple."""
    numbers = tuple(value.args[0]) if isinstance(value, Inert) else tuple(value)
    if not all(is_count(number) for number in numbers):
        raise Damaged("it holds a shape that is none")
    return numbers


def _dtype(properties: Any) -> str:
    """The number format that a TensorProperties names; Damaged unless torch would take it as it is."""
    dtype, layout, requires_grad, memory_format, pinned = properties.state
    layouts = layout.wanted == "torch.strided" or layout.args[0] == "torch.strided"
    known = dtype.wanted in KNOWN_NAMES and issubclass(dtype, Inert)
    if not (_is_memory_format(memory_format) and layouts and known) or (type(requires_grad), type(pinned)) != (
        bool,
        bool,
    ):
        raise Damaged("it describes a tensor in a way that torch does not")
    return str(dtype.wanted)


def _is_memory_format(member: Any) -> bool:
    """A member of the enum, made from its number or, by an early Python 3.11, asked for by its name."""
    enum, _dot, name = member.wanted.rpartition(".")
    return (enum in _ENUMS and name in _MEMORY_FORMATS) or (
        member.wanted in _ENUMS and member.args[0] in range(len(_MEMORY_FORMATS))
    )


# --- a rank's file --------------------------------------------------------------------------------------------


def check_rank_file(window: Window, items: list[Item], threads: int | None = None) -> None:
    """Damaged unless ``items`` fill the file exactly, each of them a whole file of torch.save."""
    position = 0
    for item in items:
        if item.offset != position:
            raise Damaged(f"there is a gap or an overlap before {item.name!r}, as {METADATA} tells it")
        position += item.length
    if position != window.length:
        raise Damaged(
            f"it has {window.length} bytes, {METADATA} speaks of {position}: it is cut short or from another save"
        )
    for item in items:
        if item.transformed:
            continue  # Packed by an extension of the user: only its place and length are known here.
        try:
            check_torch(Window(window.descriptor, window.start + item.offset, item.length), threads)
        except Damaged as error:
            raise Damaged(f"its item {item.name!r}: {error}") from error

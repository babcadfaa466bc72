# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Pickles read without running anything from them.

A pickle acts only through the classes and functions that it names, and here every name, whatever it is, becomes a
new empty class that merely remembers what it was given. What is left of a pickle is its data and the names it wanted.
The interpreter is the one in Python, whose memo is a dictionary: in the one in C a damaged index allocates gigabytes.
"""

from __future__ import annotations

import io
import pickle
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, NamedTuple

from .zip_archive import Damaged

# How Python 3.11.0 to 3.11.3 (Debian 12 has 3.11.2) writes the member of an enum: the class and a name for this.
GETATTR = "builtins.getattr"


class Inert:
    """Stands for an object: ``args`` it would have been made with, ``state`` it would have been given."""

    wanted = ""

    def __new__(cls, *args: Any, **_named: Any) -> Inert:
        made = object.__new__(cls)
        made.args = args
        made.state = None
        made.items = {}
        return made

    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def add(self, value: Any) -> None:
        self.append(value)


def _stand_in(wanted: str) -> type[Inert]:
    return type("Inert", (Inert,), {"wanted": wanted})


class Reading(NamedTuple):
    """``value`` with stand-ins, ``names`` that the pickle asked for, ``persistent`` ids in their order.

    ``attributes`` are what it asked ``getattr`` for, as ``module.class.attribute``.
    """

    value: Any
    names: frozenset[str]
    persistent: list[Any]
    attributes: frozenset[str]

    @property
    def reached(self) -> frozenset[str]:
        """The names, with what was asked of ``getattr`` in its place. Where that cannot be told, it stays itself."""
        return self.names - {GETATTR} | self.attributes if self.attributes else self.names


class _Whole(io.BytesIO):
    """Bytes that end where a reader wants no more: the interpreter in Python would not notice a frame cut short."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError
        return data


# The interpreter in Python, because only its opcodes can be overridden; typeshed does not list it, and where it does
# on a newer Python the remark is unused.
class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc,unused-ignore]
    def __init__(self, stream: _Whole):
        super().__init__(stream, encoding="latin-1")
        self.names: set[str] = set()
        self.persistent: list[Any] = []
        self.attributes: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles spell modules as Python 2 did, and a reader of today maps them so.
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        wanted = f"{module}.{name}"
        self.names.add(wanted)
        return self._attribute if wanted == GETATTR else _stand_in(wanted)

    def _attribute(self, holder: Any, name: Any) -> Inert:
        of_class = isinstance(holder, type) and issubclass(holder, Inert) and isinstance(name, str)
        wanted = f"{holder.wanted}.{name}" if of_class else GETATTR
        self.attributes.add(wanted)
        return _stand_in(wanted)()

    def persistent_load(self, pid: Any) -> Any:
        self.persistent.append(pid)
        return Inert(pid)

    def get_extension(self, code: int) -> Any:
        # The registry of extension codes is the only other way to a real object.
        raise Damaged(f"it holds a pickle with the extension code {code}")


def read(data: bytes) -> Reading:
    """What the pickle ``data`` holds; Damaged when it is none."""
    stream = _Whole(data)
    reader = _Reader(stream)
    try:
        value = reader.load()
    except (MemoryError, Damaged):
        raise
    except Exception as error:
        # Damaged opcodes raise anything: stack underflow, bad text, unhashable keys.
        raise Damaged(f"it holds a pickle that cannot be read ({type(error).__name__})") from error
    if stream.tell() != len(data):
        raise Damaged("it holds a pickle with bytes after its end")
    return Reading(value, frozenset(reader.names), reader.persistent, frozenset(reader.attributes))


# --- names that never belong into a checkpoint --------------------------------------------------------------------

_RUNS_COMMANDS = re.compile(
    r"(?:asyncio|commands|_?ctypes|importlib|multiprocessing|nt|os|platform|popen2|posix|pty|pydoc|runpy|shutil|signal"
    r"|socket|subprocess|_posixsubprocess|sys|threading|timeit|webbrowser)\."
    r"|builtins\.(?:__import__|breakpoint|compile|eval|exec|execfile|help|input|open)\Z"
)
_REACHES_ANYTHING = re.compile(
    r"(?:cloudpickle|code|codecs|dill|functools|inspect|operator|pickle|types)\."
    r"|builtins\.(?!(?:bool|bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|tuple)\Z)"
)


def runs_commands(name: str) -> bool:
    """Whether ``name`` leads to the machine itself: no checkpoint of anybody needs it."""
    return _RUNS_COMMANDS.match(name) is not None


def never_allowed(name: str) -> bool:
    """Whether ``name`` must be refused even when a user lists it: commands, and what reaches any other name."""
    return runs_commands(name) or _REACHES_ANYTHING.match(name) is not None

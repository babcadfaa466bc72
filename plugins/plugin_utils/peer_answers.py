# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a box answers when a transfer asks it: a stranger's word, read strictly before anything is done with it.

Each function takes an answer of ``delivery.answer`` and the files that it was asked about. Senseless when the answer
has not the form that this module gives it, or names files that nobody asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.roster import Mismatch, RosterFile

_LONGEST_PATH = 4096
_LONGEST_REASON = 300


class Senseless(ValueError):
    """An answer that cannot be used; the text says why, in our own words."""


@dataclass(frozen=True)
class Offer:
    """What keeps files from being fetched, why not by rsync, and the box's interpreter."""

    mismatches: tuple[Mismatch, ...]
    rsync_problem: str
    python: str


@dataclass(frozen=True)
class Survey:
    """What a receiver has: paths that are right, those that came with the question and are now, paths that nobody
    promised, its room as ``room_problem`` takes it."""

    good: frozenset[str]
    landed: frozenset[str]
    extra: tuple[str, ...]
    room: Mapping[str, Any]
    rsync_problem: str
    python: str


@dataclass(frozen=True)
class Settled:
    """What a receiver put in its place, what it did not, and the folder that extra files were moved to."""

    paths: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]
    quarantine: str


def offer(answer: Mapping[str, Any], files: Sequence[RosterFile]) -> Offer:
    return Offer(_mismatches(answer, files), _reason(answer, "rsync_problem"), _python(answer))


def survey(answer: Mapping[str, Any], files: Sequence[RosterFile]) -> Survey:
    room = answer.get("room")
    if not isinstance(room, dict):
        raise Senseless("room is not a mapping")
    good = frozenset(_asked(_texts(answer, "good"), files, "good"))
    landed = frozenset(_asked(_texts(answer, "landed"), files, "landed"))
    if good & landed:
        raise Senseless("good and landed name the same file")
    return Survey(good, landed, tuple(_texts(answer, "extra")), room, _reason(answer, "rsync_problem"), _python(answer))


def settled(answer: Mapping[str, Any], files: Sequence[RosterFile]) -> Settled:
    paths = tuple(_asked(_texts(answer, "settled"), files, "settled"))
    return Settled(paths, _mismatches(answer, files), printable(_text(answer, "quarantine"))[:_LONGEST_PATH])


def _mismatches(answer: Mapping[str, Any], files: Sequence[RosterFile]) -> tuple[Mismatch, ...]:
    found = answer.get("mismatches")
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Senseless("mismatches is not a list of mappings")
    whats = {_text(entry, "path"): _text(entry, "what") for entry in found}
    paths = _asked(list(whats), files, "mismatches")
    return tuple(Mismatch(path, printable(whats[path])[:_LONGEST_REASON]) for path in paths)


def _text(answer: Mapping[str, Any], key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str):
        raise Senseless(f"{key} is not text")
    return value


def _reason(answer: Mapping[str, Any], key: str) -> str:
    """A sentence of the box's, fit to be shown."""
    return printable(_text(answer, key))[:_LONGEST_REASON]


def _texts(answer: Mapping[str, Any], key: str) -> list[str]:
    value = answer.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Senseless(f"{key} is not a list of texts")
    return value


def _asked(paths: list[str], files: Sequence[RosterFile], key: str) -> list[str]:
    """``paths`` if each is one of ``files`` and comes once."""
    known = {file.path for file in files}
    if len(set(paths)) != len(paths) or not known.issuperset(paths):
        raise Senseless(f"{key} names files that it was not asked about, or one of them twice")
    return paths


def _python(answer: Mapping[str, Any]) -> str:
    """The interpreter becomes a word of a command, on the box, but here too."""
    path = _text(answer, "python")
    if not path.startswith("/") or len(path) > _LONGEST_PATH or not path.isprintable():
        raise Senseless("python is not the path of a program")
    return path

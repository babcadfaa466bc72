# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The stamp in a volume's name, which is the only text of it that is ours."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from .box.names import UnsafeName, check_name
from .failures import TenantFailure

MOST_NAME = 64

_NAME = re.compile(r"gt1__(.+?)__(.+?)__g([1-9][0-9]{0,5})__([0-9a-f]{8})\Z")
_ESCAPED = re.compile(r"_([0-9a-f]{2})")


@dataclass(frozen=True)
class VolumeStamp:
    """``gt1__<project>__<name>__g<generation>__<nonce>``; other letters than A-Z, a-z and 0-9 as ``_`` and hex."""

    project: str
    name: str
    generation: int
    nonce: str

    def __str__(self) -> str:
        return f"gt1__{_escape(self.project)}__{_escape(self.name)}__g{self.generation}__{self.nonce}"


def new_stamp(project: str, name: str, generation: int) -> VolumeStamp:
    """A fresh stamp. TenantFailure when the market's limit on names leaves no room for it."""
    stamp = VolumeStamp(check_name("project", project), check_name("volume", name), generation, secrets.token_hex(4))
    if len(str(stamp)) > MOST_NAME:
        raise TenantFailure(
            "config",
            f"the market's names have at most {MOST_NAME} characters, and {stamp} has {len(str(stamp))}",
            box=name,
            safe="nothing was rented",
            fix="take a shorter name; letters and digits need one character each, others three",
        )
    return stamp


def parse_stamp(text: object) -> VolumeStamp | None:
    """The stamp in a volume's name, None for a name that is not ours. Never raises."""
    match = _NAME.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        project, name = (check_name("volume", _unescape(part)) for part in match.groups()[:2])
    except UnsafeName:
        return None
    stamp = VolumeStamp(project, name, int(match.group(3)), match.group(4))
    return stamp if str(stamp) == text else None


def _escape(name: str) -> str:
    return "".join(one if one.isascii() and one.isalnum() else f"_{ord(one):02x}" for one in name)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text)


def record_name(name: str) -> str:
    """What the records of a volume are filed by: no box can have this name and be confused with it."""
    return f"volume.{name}"

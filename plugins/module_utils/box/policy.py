# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What of a run comes home: all of its roster, unless people chose to leave roles or files behind.

The choice lies on the box, because the seal promises exactly what is to come home; so it is made before the seal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import globs, records
from .layout import Layout
from .names import UnsafeName, check_name
from .refusal import USAGE, Refused
from .run_record import ROLES


@dataclass(frozen=True)
class Policy:
    """``roles`` that come home, and ``exclude``: globs of what does not, relative to an attempt's ``out`` folder."""

    roles: tuple[str, ...] = ROLES
    exclude: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"roles": list(self.roles), "exclude": list(self.exclude)}

    def why_left(self, inner: str, role: str) -> str:
        """Why a file stays on the box, in words; empty when it comes home."""
        pattern = next((each for each in self.exclude if globs.regex(each).match(inner)), "")
        if pattern:
            return f"harvest_exclude names it ({pattern})"
        return "" if role in self.roles else f"harvest_roles leaves {role} files on the box"


def of(roles: list[str], exclude: list[str]) -> Policy:
    """The policy in these words. :raises Refused: USAGE for an unknown role, no role at all, or an unusable glob."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        known = ", ".join(ROLES)
        what = f"unknown roles {', '.join(unknown)}" if unknown else "no role at all: nothing would come home"
        raise Refused(USAGE, f"the harvest policy has {what}", f"name one or more of {known}")
    for pattern in exclude:
        try:
            globs.regex(pattern)
        except UnsafeName as error:
            raise Refused(USAGE, f"the harvest policy cannot be used: {error}", "give a relative glob") from error
    return Policy(tuple(role for role in ROLES if role in roles), tuple(sorted(set(exclude))))


def path(layout: Layout, run_id: str) -> str:
    return layout.path("policies", check_name("run", run_id) + ".json")


def read(layout: Layout, run_id: str) -> Policy:
    """The policy in force; everything when none was chosen. A damaged one raises: guessing could lose files."""
    record = records.read_record_or_none(path(layout, run_id), "harvest-policy")
    return Policy() if record is None else of_record(record)


def of_record(record: dict[str, Any]) -> Policy:
    """The policy that a record of it, or of what was made under it, carries."""
    return of(list(record.get("roles") or []), list(record.get("exclude") or []))

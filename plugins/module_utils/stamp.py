# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The stamp: how a rented machine says whose it is.

``gt1/<project>/<box>/g<generation>/<nonce>`` goes into the provider's label and the instance's environment before
anything else depends on the machine, so that every box is found again from the provider alone.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from .box.names import UnsafeName, check_name

ENVIRONMENT_NAME = "TENANT_STAMP"
_STAMP = re.compile(r"gt1/([^/\s]+)/([^/\s]+)/g([1-9][0-9]{0,8})/([0-9a-f]{16})\Z")


@dataclass(frozen=True)
class Stamp:
    project: str
    box: str
    generation: int
    nonce: str

    def __str__(self) -> str:
        return f"gt1/{self.project}/{self.box}/g{self.generation}/{self.nonce}"


def new_stamp(project: str, box: str, generation: int) -> Stamp:
    """A stamp with a fresh 64-bit nonce. UnsafeName for a name that cannot be one."""
    if generation < 1:
        raise UnsafeName(f"generation {generation!r}: the first is 1")
    return Stamp(check_name("project", project), check_name("box", box), generation, secrets.token_hex(8))


def parse_stamp(text: object) -> Stamp | None:
    """The stamp in a label, or None for a label that is not ours. Never raises: labels are strangers' text."""
    if not isinstance(text, str):
        return None
    match = _STAMP.match(text.strip())
    if match is None:
        return None
    project, box, generation, nonce = match.groups()
    try:
        return Stamp(check_name("project", project), check_name("box", box), int(generation), nonce)
    except UnsafeName:
        return None

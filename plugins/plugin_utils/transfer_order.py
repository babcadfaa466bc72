# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a checked transfer over ssh is to carry and how, and the box at its far end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import carrier, roster, transfer


@dataclass(frozen=True)
class Far:
    """The box: how to reach it, and a way to ask its far end (``delivery.answer``) something.

    ``ask(op, files, within_s, **options)`` has TenantFailure for a box that does not answer in time; ``files`` are as
    that end takes them. ``proxy`` says what to use in place of the platform's proxy that the link goes
    through; empty where it goes through none.
    """

    name: str
    link: transfer.Link
    ask: Callable[..., dict[str, Any]]
    proxy: str = ""


@dataclass(frozen=True)
class Order:
    """What is to be carried and how; sizes in bytes, times in seconds."""

    pull: bool
    src: str
    dest: str
    files: tuple[roster.RosterFile, ...]
    manifest: roster.Manifest | None = None
    dest_root: str = ""
    extra: str = "report"
    transport: str = "auto"
    reserve_bytes: int = 0
    inode_cap: int = 0
    proxy_limit_bytes: int = 0
    deadline_s: int = 3600
    wishes: transfer.RsyncWishes = field(default_factory=lambda: transfer.RsyncWishes(60))
    patience: carrier.Patience = field(default_factory=carrier.Patience)
    check_mode: bool = False
    # A push whose files are small enough goes with the question what is there.
    enclose: bool = False

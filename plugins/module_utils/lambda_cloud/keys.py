# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Public SSH keys of an account of Lambda's. A launch names one of them, and only that one is let in."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Sequence

from ..failures import TenantFailure
from ..public_keys import Material, as_sent, material_of, parse_public_key
from ..rest_client import AmbiguousAnswer
from .api import LambdaClient


def names_of(client: LambdaClient, material: Material | None = None) -> list[str]:
    """The names of the account's keys, or of those that are this one."""
    rows = client.list_keys()
    return sorted(str(row["name"]) for row in rows if material in (None, material_of(row.get("public_key"))))


def ensure_key(client: LambdaClient, text: str, read_only: bool) -> str:
    """The name of this public key on the account, which gets it where it lacks it. TenantFailure.

    :param read_only: tell the name that it would have.
    """
    material = parse_public_key(text)
    name = f"gpu-tenant-{hashlib.sha256(' '.join(material).encode()).hexdigest()[:12]}"
    known = names_of(client, material)
    if not known and not read_only:
        # Success is the entry in the list, not the answer.
        with contextlib.suppress(AmbiguousAnswer):
            client.add_key(name, as_sent(text))
        known = names_of(client, material)
        if not known:
            raise TenantFailure(
                "provider",
                "the public key was sent but is not in the account's list",
                safe="nothing was rented",
                fix="run again",
            )
    return known[0] if known else name


def refuse_unknown(client: LambdaClient, name: str, box: str) -> None:
    """TenantFailure for the name of a key that the account does not have."""
    known: Sequence[str] = names_of(client)
    if name not in known:
        raise TenantFailure(
            "config",
            f"the account has no ssh key {name!r}; it has {', '.join(known) or 'none'}",
            box=box,
            safe="nothing was rented",
            fix="name one of these in ssh_key, or a .pub file in public_key_file, whose key is added",
        )

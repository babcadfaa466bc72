# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Public SSH keys of the account. A key must be there before a box is rented, so that the box carries it."""

from __future__ import annotations

import contextlib
from typing import Any

from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..public_keys import Material, as_sent, material_of, parse_public_key
from ..rest_client import AmbiguousAnswer
from .api import VastClient


def registered(client: VastClient, material: Material) -> list[dict[str, Any]]:
    """The account's entries with this key, whatever their comments."""
    return [row for row in client.list_ssh_keys() if material_of(row.get("public_key") or row.get("key")) == material]


def ensure_ssh_key(client: VastClient, text: str, state: str, check_mode: bool = False) -> dict[str, Any]:
    """Make the key present or absent on the account. Returns ``changed``, ``diff`` and ``ssh_key``."""
    material = parse_public_key(text)
    rows = registered(client, material)
    difference = DifferenceTracker()
    difference.compare("ssh_key", " ".join(material) if rows else "", " ".join(material) if state == "present" else "")
    if difference.changed and not check_mode:
        rows = _register(client, text, material) if state == "present" else _remove(client, rows, material)
    shown = {"id": rows[0]["id"] if rows else None, "type": material[0], "public_key": " ".join(material)}
    return dict(difference.as_result(), ssh_key=shown)


def _register(client: VastClient, text: str, material: Material) -> list[dict[str, Any]]:
    """Send the key and read it back: success is the entry in the list, not the answer to the request."""
    with contextlib.suppress(AmbiguousAnswer):  # the list below says whether it arrived
        client.create_ssh_key(as_sent(text))
    rows = registered(client, material)
    if not rows:
        raise TenantFailure(
            "provider",
            "the key was sent but is not in the account's list",
            safe="nothing else was changed",
            fix="run again",
        )
    return rows


def _remove(client: VastClient, rows: list[dict[str, Any]], material: Material) -> list[dict[str, Any]]:
    for row in rows:
        client.delete_ssh_key(row["id"])
    if registered(client, material):
        raise TenantFailure("provider", "the key was deleted but is still in the account's list", fix="run again")
    return []

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Public SSH keys of the account. A key must be there before a box is rented, so that the box carries it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from typing import Any, Tuple

from ..difference import DifferenceTracker
from ..failures import TenantFailure
from ..rest_client import AmbiguousAnswer
from .api import VastClient

Material = Tuple[str, str]

_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_FIX = "give the contents of a .pub file in public_key, or its path in public_key_file"


def parse_public_key(text: str) -> Material:
    """``(type, base64)`` of an OpenSSH public key; its comment does not count. TenantFailure for anything else."""
    if "PRIVATE KEY" in text:
        raise _refusal("this is a private key")
    lines = [line for line in text.splitlines() if line.strip()]
    words = lines[0].split() if len(lines) == 1 else []
    if len(words) < 2 or words[0] not in _TYPES:
        raise _refusal("this is not one OpenSSH public key")
    if not _names_its_type(words[1], words[0]):
        raise _refusal(f"the body of this {words[0]} key is damaged")
    return words[0], words[1]


def read_public_key(path: str) -> str:
    """The key in a file. TenantFailure when it cannot be read or holds anything but a public key."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(65536).decode("utf-8", "replace")
    except OSError as error:
        raise TenantFailure("config", f"cannot read {path}: {error.strerror}", fix=_FIX) from None
    if "PRIVATE KEY" in text:
        raise _refusal(f"{path} is a private key")
    return text.strip()


def _names_its_type(body: str, name: str) -> bool:
    """A key's body repeats its type, length first."""
    try:
        blob = base64.b64decode(body.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    encoded = name.encode("ascii")
    return blob[:4] == len(encoded).to_bytes(4, "big") and blob[4 : 4 + len(encoded)] == encoded and len(blob) > 40


def _refusal(what: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was sent", fix=_FIX)


def registered(client: VastClient, material: Material) -> list[dict[str, Any]]:
    """The account's entries with this key, whatever their comments."""
    return [row for row in client.list_ssh_keys() if _material_of(row) == material]


def _material_of(row: dict[str, Any]) -> Material | None:
    words = str(row.get("public_key") or row.get("key") or "").split()
    return (words[0], words[1]) if len(words) >= 2 else None


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
    words = re.sub(r"[^\x20-\x7e]", "?", text).split()
    with contextlib.suppress(AmbiguousAnswer):  # the list below says whether it arrived
        client.create_ssh_key(" ".join(words))
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

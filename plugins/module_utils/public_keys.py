# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Public SSH keys as files and providers have them: told from private ones, compared by their material. Pure but for
the reading of a file."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Tuple

from .failures import TenantFailure

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


def material_of(text: Any) -> Material | None:
    """The same of a key as a provider lists it; None where it lists none."""
    words = text.split() if isinstance(text, str) else []
    return (words[0], words[1]) if len(words) >= 2 else None


def as_sent(text: str) -> str:
    """A key on one line of plain characters."""
    return " ".join(re.sub(r"[^\x20-\x7e]", "?", text).split())

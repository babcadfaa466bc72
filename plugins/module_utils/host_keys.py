# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Host keys: one file per box, pinned at first contact under an alias that changes with every rented machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any, Iterable, NamedTuple, Sequence

_TYPE = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+)\Z")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}\Z")


class HostKey(NamedTuple):
    """A public key as ssh writes it: its type and its base64."""

    type: str
    data: str

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ``ssh-keygen -l`` shows it."""
        hashed = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(hashed).decode("ascii").rstrip("=")


# Between these lines a box prints its host keys into the instance's log, at each start.
LOG_BEGINS = "gpu-tenant: host keys"
LOG_ENDS = "gpu-tenant: end of host keys"


class Verdict(NamedTuple):
    """What to do: ``keys`` to be pinned, how they are trusted, or why they are ``refused`` (a sentence)."""

    keys: list[HostKey]
    trust: str
    refused: str


def parse_scan(text: str) -> list[HostKey]:
    """The keys in the output of ssh-keyscan; comments and lines that are no keys are left out."""
    found = []
    for line in text.splitlines():
        parts = line.split()
        key = _key(parts[1:3]) if len(parts) >= 3 and not line.startswith("#") else None
        if key is not None and key not in found:
            found.append(key)
    return sorted(found)


def parse_log(text: str) -> list[HostKey]:
    """The keys that a box printed at its last start; empty when its log has none, or not all of them yet."""
    block: list[str] | None = None
    found: list[str] = []
    for line in text.splitlines():
        if line.strip() == LOG_BEGINS:
            block, found = [], []
        elif line.strip() == LOG_ENDS and block is not None:
            found = block
            block = None
        elif block is not None:
            block.append(line)
    keys = (_key(line.split()[:2]) for line in found)
    return sorted({key for key in keys if key is not None})


def pinned(text: str, alias: str) -> list[HostKey]:
    """The keys that a known_hosts file holds for ``alias``."""
    lines = [line for line in text.splitlines() if line.split()[:1] == [alias]]
    return parse_scan("\n".join(lines))


def as_known_hosts(alias: str, keys: Iterable[HostKey]) -> str:
    return "".join(f"{alias} {key.type} {key.data}\n" for key in sorted(keys))


def parse_expected(texts: Iterable[Any]) -> tuple[list[str], list[HostKey]]:
    """Fingerprints, and the whole keys among them. ValueError names what is neither.

    A whole key may be written as in a ``.pub`` file or with a host name before it.
    """
    fingerprints, keys = [], []
    for text in texts:
        parts = str(text).split()
        key = _key(parts[:2]) or _key(parts[1:3])
        if key is not None:
            keys.append(key)
            fingerprints.append(key.fingerprint)
        elif len(parts) == 1 and _FINGERPRINT.match(parts[0]):
            fingerprints.append(parts[0])
        else:
            raise ValueError(f"{str(text)[:80]!r} is neither a public host key nor a fingerprint such as SHA256:…")
    return fingerprints, keys


def judge(known: list[HostKey], scanned: list[HostKey], expected: list[str], logged: Sequence[HostKey] = ()) -> Verdict:
    """Compare what the box shows with what is pinned for this generation, and with what somebody expects.

    :param expected: fingerprints from another source (the instance's log, the console); they outrank the pin, because
        naming them is a person's consent to exactly that key.
    :param logged: what the box printed into its log, which its provider brought us; it counts for the first pin only.
    """
    if expected:
        matching = [key for key in scanned if key.fingerprint in expected]
        if not matching:
            return Verdict([], "", f"it shows {_names(scanned)}, but {', '.join(expected)} is expected")
        return Verdict(known if _agree(known, matching) else matching, "expected", "")
    if not known and logged:
        if not _agree(list(logged), scanned):
            return Verdict([], "", f"it shows {_names(scanned)}, but its instance log says {_names(logged)}")
        return Verdict([key for key in scanned if key in logged], "instance log", "")
    if not known:
        return Verdict(scanned, "first contact", "")
    if _agree(known, scanned):
        return Verdict(known, "pinned", "")
    return Verdict([], "", f"its host key changed: {_names(known)} is pinned, it now shows {_names(scanned)}")


def _agree(known: list[HostKey], shown: list[HostKey]) -> bool:
    """A pinned key is shown, and none is contradicted by another key of its type."""
    contradicted = any(old.type == new.type and old != new for old in known for new in shown)
    return bool(set(known) & set(shown)) and not contradicted


def _key(parts: list[str]) -> HostKey | None:
    if len(parts) < 2 or not _TYPE.match(parts[0]):
        return None
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != parts[0].encode("ascii"):
        return None
    return HostKey(parts[0], parts[1])


def _names(keys: Iterable[HostKey]) -> str:
    return ", ".join(f"{key.type} {key.fingerprint}" for key in keys) or "no key"

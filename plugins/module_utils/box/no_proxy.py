# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The list of hosts that no proxy is asked for: merged, never overwritten, in words that every library reads. Pure.

``requests`` knows no ``*`` in front of a domain, Go takes a leading dot for subdomains only, and each library looks at
another spelling of the variable.
"""

from __future__ import annotations

import re
from typing import Iterable

SPELLINGS = ("no_proxy", "NO_PROXY")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ADDRESS = re.compile(r"[0-9.]+\Z|.*:.*\Z")


def entries(text: str) -> list[str]:
    """The entries of such a variable; ``*.example.org`` reads ``.example.org``."""
    found = (part.strip() for part in text.split(","))
    return [part[1:] if part.startswith("*.") else part for part in found if part]


def of_host(host: str) -> list[str]:
    """The entries that exempt ``host`` and all below it."""
    bare = host.strip().lstrip("*").strip(".").lower()
    if not bare:
        return []
    return [bare] if _ADDRESS.match(bare) else [f".{bare}", bare]


def merged(texts: Iterable[str], hosts: Iterable[str] = ()) -> str:
    """Everything that ``texts`` exempt, in their order, then the loopback, then ``hosts``; nothing twice."""
    wanted = [entry for text in texts for entry in entries(text)]
    wanted += [*LOOPBACK, *(entry for host in hosts for entry in of_host(host))]
    return ",".join(dict.fromkeys(wanted))

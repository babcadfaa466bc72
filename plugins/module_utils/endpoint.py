# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The one door through which a provider's host, port and user become connection settings.

A host name such as ``-oProxyCommand=…`` would run on the controller, so everything is matched against a strict
pattern before ssh, rsync or an inventory variable sees it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Tuple

from .failures import TenantFailure

Endpoint = Tuple[str, int, str]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
# A host, an address or a name in known_hosts: nothing that ssh or a shell would read as more than one word.
_WORD = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,254}\Z")


def check_endpoint(host: Any, port: Any, user: Any) -> Endpoint:
    """``(host, port, user)`` if each is what it should be; else TenantFailure of kind ``provider``.

    Accepted: a DNS name, an IPv4 or an IPv6 address without zone; a port from 1 to 65535 as number or text; a login
    name of letters, digits, ``_``, ``.`` and ``-`` that starts with a letter or ``_``.
    """
    if not _is_host(host):
        raise _refusal("host", host)
    if isinstance(port, bool) or not isinstance(port, (int, str)) or not _PORT.match(str(port)) or int(port) > 65535:
        raise _refusal("port", port)
    if not isinstance(user, str) or not _USER.match(user):
        raise _refusal("user", user)
    return host, int(port), user


def is_ssh_word(value: Any) -> bool:
    """Whether ssh can take ``value`` for nothing but a host or a name of its key: no option, no template of ssh's."""
    return isinstance(value, str) and bool(_WORD.match(value))


def _is_host(host: Any) -> bool:
    if not isinstance(host, str) or not 1 <= len(host) <= 253:
        return False
    if ":" in host:
        return "%" not in host and _is_address(host)
    return bool(_HOST.match(host))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refusal(part: str, value: Any) -> TenantFailure:
    shown = ascii(value)
    return TenantFailure(
        "provider",
        f"the provider gave the {part} {shown[:80]}, which cannot be one",
        safe="nothing was connected to",
        fix="look at the box in the provider's console; if it persists, destroy the box and rent another machine",
    )

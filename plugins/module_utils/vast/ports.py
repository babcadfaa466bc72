# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ports of a box beside ssh's: what is asked for at the rental, and where the provider then mapped them."""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ..endpoint import check_endpoint
from ..failures import TenantFailure

# What the market opens at most (its API reference), ssh's included.
MOST_PORTS = 64
_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp))?\Z")
_FLAG = re.compile(r"-p ([0-9]{1,5}):([0-9]{1,5})(/udp)?\Z")
_MAPPED = re.compile(r"([1-9][0-9]{0,4})/(tcp|udp)\Z")


def ports_in(given: Sequence[Any]) -> tuple[str, ...]:
    """The module's option as ``8080/tcp`` texts, sorted. TenantFailure for what is no port of a box."""
    found = set()
    for one in given:
        match = _PORT.match(str(one))
        if match is None or int(match.group(1)) > 65535:
            raise _bad(f"{str(one)[:40]!r} in ports is no port: 8080 or 8080/udp")
        if match.group(1) == "22":
            raise _bad("port 22 is ssh's, and is mapped by itself")
        found.add(f"{match.group(1)}/{match.group(2) or 'tcp'}")
    if len(found) >= MOST_PORTS:
        raise _bad(f"the market opens {MOST_PORTS} ports at most, ssh's included, and {len(found)} are asked for")
    return tuple(sorted(found, key=_by_number))


def flag_of(port: str) -> str:
    """How the market's clients ask for it, in the environment of a create."""
    number, kind = port.split("/")
    return f"-p {number}:{number}" + ("/udp" if kind == "udp" else "")


def ports_asked_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The ports that a box was rented with."""
    asked = [f"{match[2]}/{'udp' if match[3] else 'tcp'}" for match in map(_FLAG.match, environment) if match]
    return tuple(sorted((port for port in asked if port != "22/tcp"), key=_by_number))


def mapped_ports(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Where each port of a running box is reached: ``{"8080/tcp": {"host": …, "port": …}}``, ssh's left out.

    What is no usable endpoint is left out: the row is the provider's text.
    """
    ports, address = row.get("ports"), row.get("public_ipaddr")
    found = {}
    for name, listed in ports.items() if isinstance(ports, dict) and isinstance(address, str) else ():
        first = listed[0] if isinstance(listed, list) and listed else None
        if not isinstance(first, dict) or name == "22/tcp" or not _MAPPED.match(str(name)):
            continue
        try:
            host, port, _user = check_endpoint(str(address).strip(), first.get("HostPort"), "root")
        except TenantFailure:
            continue
        found[str(name)] = {"host": host, "port": port}
    return found


def _by_number(port: str) -> tuple[int, str]:
    number, kind = port.split("/")
    return int(number), kind


def _bad(what: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was rented")

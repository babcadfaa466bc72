# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Endpoints that are a platform's ssh proxy: good for a shell and small files, not for results.

Which hosts are one, and what to use in their place, is written in the platform's profile.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Iterable, Mapping

PROFILE_KEY = "platform_ssh_proxies"
DIRECT = "rent the box with a direct port"


def instead_of(proxies: Any, hosts: Iterable[Any]) -> str:
    """What to use in place of the first of ``hosts`` that is a proxy; empty when none is.

    :param proxies: the value of ``PROFILE_KEY``: a list of ``{host, instead}``, where ``host`` is a glob.
    """
    for host in hosts:
        name = str(host or "").rstrip(".").lower()
        for proxy in proxies or []:
            if name and fnmatch.fnmatchcase(name, str(proxy["host"]).lower()):
                return str(proxy["instead"])
    return ""


def mark(endpoint: dict[str, Any], profile: Mapping[str, Any], hosts: Iterable[Any]) -> None:
    """Note in the fact ``box_endpoint`` that one of ``hosts`` is a proxy, and what to use in its place."""
    instead = instead_of(profile.get(PROFILE_KEY), hosts)
    if instead:
        endpoint.update(proxy=True, proxy_instead=instead)

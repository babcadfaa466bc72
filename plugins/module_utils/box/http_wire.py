# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Connections: TLS by this machine's authorities, through the proxy that the environment names.

A proxy with a whitelist stands in no ``http_proxy``: every program would ask it for hosts that it refuses. It has two
variables of our own, and is asked for the hosts on its list only.
"""

from __future__ import annotations

import base64
import functools
import http.client
import os
import re
import ssl
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from . import no_proxy
from .proxy_hook import LISTED_HOSTS, LISTED_PROXY

BLOCK = 1024 * 1024
# How a connection goes: as the environment says, past every proxy, or through the proxy whatever ``no_proxy`` says.
BY_ENVIRONMENT, PLAIN, PROXIED = "", "plain", "proxied"
# What http.client says when a proxy does not open a tunnel; these answers say that it never will.
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_NEVER = ("403", "405", "407", "451")


@functools.lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """This machine's trusted authorities, read once."""
    return ssl.create_default_context()


def connection(
    scheme: str, netloc: str, timeout_s: float, route: str = BY_ENVIRONMENT
) -> tuple[http.client.HTTPConnection, dict[str, str] | None]:
    """A connection to ``netloc``; with a plain-HTTP proxy, the headers that go with requests to absolute targets."""
    host = netloc.rpartition("@")[2]
    proxy = _proxy(scheme, host, route)
    address = proxy.netloc.rpartition("@")[2] if proxy else host
    if scheme == "https":
        secure = http.client.HTTPSConnection(address, timeout=timeout_s, context=tls_context(), blocksize=BLOCK)
        if proxy:
            place = urlsplit(f"//{host}")
            secure.set_tunnel(place.hostname or "", place.port or 443, headers=_credentials(proxy))
        return secure, None
    plain = http.client.HTTPConnection(address, timeout=timeout_s, blocksize=BLOCK)
    return plain, _credentials(proxy) if proxy else None


def _proxy(scheme: str, host: str, route: str) -> SplitResult | None:
    name = urlsplit(f"//{host}").hostname or ""
    past = route == PLAIN or (route != PROXIED and proxy_bypass(name))
    found = "" if past else proxy_of(scheme, name)
    if not found:
        return None
    return urlsplit(found if "//" in found else f"//{found}")


def proxy_of(scheme: str, host: str) -> str:
    """The proxy that calls to ``host`` can go through: everybody's, else that of the listed hosts; empty for none."""
    return getproxies().get(scheme, "") or (os.environ.get(LISTED_PROXY, "") if is_listed(host) else "")


def is_listed(host: str) -> bool:
    """Whether ``host`` is one that the proxy with a whitelist lets through, or lies below one."""
    name = host.lower().rstrip(".")
    domains = os.environ.get(LISTED_HOSTS, "").lower().split()
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)


def for_child(url: str, route: str) -> dict[str, str]:
    """What another program needs in its environment to reach ``url`` by ``route``."""
    parts = urlsplit(url)
    if route == PLAIN:
        return dict.fromkeys(no_proxy.SPELLINGS, "*")
    listed = os.environ.get(LISTED_PROXY, "") if is_listed(parts.hostname or "") else ""
    if not listed or getproxies().get(parts.scheme):
        return {}
    return dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), listed)


def is_refused_by_proxy(error: Exception) -> bool:
    """Whether a proxy said that it will not connect to the host, now or later: it has a list, and this is not on it."""
    found = _TUNNEL.search(str(error)) if isinstance(error, OSError) else None
    return found is not None and found.group(1) in _NEVER


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}


def why_unreachable(error: Exception) -> str:
    """What went wrong on the wire, in words that quote no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate was not accepted ({error.verify_message}); is the package ca-certificates there?"
    tunnel = _TUNNEL.search(str(error)) if isinstance(error, OSError) else None
    if tunnel:
        return f"the proxy does not connect to it (HTTP {tunnel.group(1)})"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "it did not answer in time"
    text = (error.strerror or "") if isinstance(error, OSError) else ""
    return text or type(error).__name__

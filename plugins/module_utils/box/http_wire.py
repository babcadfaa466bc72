# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Connections: TLS by this machine's authorities, through the proxy that the environment names."""

from __future__ import annotations

import base64
import functools
import http.client
import ssl
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

BLOCK = 1024 * 1024
# How a connection goes: as the environment says, past every proxy, or through the proxy whatever ``no_proxy`` says.
BY_ENVIRONMENT, PLAIN, PROXIED = "", "plain", "proxied"


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
    past = route == PLAIN or (route != PROXIED and proxy_bypass(urlsplit(f"//{host}").hostname or ""))
    found = "" if past else getproxies().get(scheme, "")
    if not found:
        return None
    return urlsplit(found if "//" in found else f"//{found}")


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}


def why_unreachable(error: Exception) -> str:
    """What went wrong on the wire, in words that quote no address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate was not accepted ({error.verify_message}); is the package ca-certificates there?"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "it did not answer in time"
    text = (error.strerror or "") if isinstance(error, OSError) else ""
    return text or type(error).__name__

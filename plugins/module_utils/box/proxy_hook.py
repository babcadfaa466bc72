# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The platform's proxy hook: a shell file that sets proxy variables, or the URL of a proxy. Never set box-wide."""

from __future__ import annotations

import re
from typing import Iterable, Mapping

from . import bounded
from .bounded import run_bounded
from .refusal import ENVIRONMENT, Refused

# A proxy that opens TLS brings the authority that it signs with.
_VARIABLE = re.compile(
    r"(?:(?:https?|all|no)_proxy|ssl_cert_(?:file|dir)|(?:requests|curl)_ca_bundle|git_ssl_cainfo)\Z", re.IGNORECASE
)
# A proxy that lets only some hosts through, and the domains that it lets through, separated by blanks.
LISTED_PROXY, LISTED_HOSTS = "TENANT_PROXY_URL", "TENANT_PROXY_HOSTS"
_WITHIN_S = 20.0


def variables(hook: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that the hook stands for; none without a hook. Refused(ENVIRONMENT) when it does not work.

    :param environment: in which a shell file is sourced.
    """
    if not hook:
        return {}
    if hook.startswith(("http://", "https://")):
        return dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), hook)
    # What the file prints is for people; only what it sets counts.
    script = '. "$0" >/dev/null 2>&1; command -p env -0'
    known = dict(environment, PATH=bounded.search_path(), LC_ALL="C")
    outcome = run_bounded(["/bin/sh", "-c", script, hook], _WITHIN_S, known)
    if outcome.rc != 0:
        why = outcome.why or f"it ended with {outcome.rc}"
        raise Refused(ENVIRONMENT, f"the platform's proxy hook {hook} cannot be sourced: {why}", "see that file")
    pairs = [line.partition("=") for line in outcome.out.split("\0")]
    return {name: value for name, _equals, value in pairs if _VARIABLE.match(name)}


def listed(of_hook: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    """What a hook sets, for a proxy that lets only ``hosts`` through: no program is told of it but ours, which asks it
    for those hosts and goes past it for all others. Without ``hosts`` it is everybody's."""
    domains = " ".join(hosts)
    if not domains or not of_hook:
        return dict(of_hook)
    proxies = [
        of_hook[name] for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY") if of_hook.get(name)
    ]
    others = {name: text for name, text in of_hook.items() if not name.lower().endswith("_proxy")}
    return {**others, **({LISTED_PROXY: proxies[0], LISTED_HOSTS: domains} if proxies else {})}

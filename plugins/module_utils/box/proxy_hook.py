# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The platform's proxy hook: a shell file that sets proxy variables, or the URL of a proxy. Never set box-wide."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping

from .bounded import run_bounded
from .refusal import ENVIRONMENT, Refused

_VARIABLE = re.compile(r"(?:https?|all|no)_proxy\Z", re.IGNORECASE)
_WITHIN_S = 20.0


def variables(hook: str) -> dict[str, str]:
    """The proxy variables that the hook stands for; none without a hook. Refused(ENVIRONMENT) when it does not work."""
    if not hook:
        return {}
    if hook.startswith(("http://", "https://")):
        return dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), hook)
    # What the file prints is for people; only what it sets counts.
    script = '. "$0" >/dev/null 2>&1; command -p env -0'
    outcome = run_bounded(["/bin/sh", "-c", script, hook], _WITHIN_S)
    if outcome.rc != 0:
        why = outcome.why or f"it ended with {outcome.rc}"
        raise Refused(ENVIRONMENT, f"the platform's proxy hook {hook} cannot be sourced: {why}", "see that file")
    pairs = [line.partition("=") for line in outcome.out.split("\0")]
    return {name: value for name, _equals, value in pairs if _VARIABLE.match(name)}


def prepare_environment(env: Mapping[str, Any], hook: str) -> None:
    """Give this process what its calls to other hosts need: ``env``, then what the hook sets."""
    os.environ.update({str(name): str(text) for name, text in env.items()})
    os.environ.update(variables(hook))

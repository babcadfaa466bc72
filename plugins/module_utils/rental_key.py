# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The key of an account on a market: where it is looked for, and in which order."""

from __future__ import annotations

import os
from typing import Any, Mapping

from .failures import TenantFailure


def api_key_of(options: Mapping[str, Any], variable: str, setting: str = "api_key_file") -> str:
    """``api_key`` of the options, else what the file ``api_key_file`` holds, else the environment variable.

    :param setting: what names the file, for who has to correct it.
    """
    if options.get("api_key"):
        return str(options["api_key"])
    path = options.get("api_key_file")
    if not path:
        return os.environ.get(variable, "")
    try:
        with open(os.path.expanduser(str(path)), encoding="utf-8") as stream:
            return stream.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "it is not text"
        raise TenantFailure(
            "config",
            f"cannot read the API key from {path}: {reason}",
            safe="nothing was asked",
            fix=f"correct {setting}: the file holds the key, and nothing else, and only you may read it (0600)",
        ) from None

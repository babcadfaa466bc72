# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files that a person asked for by name."""

from __future__ import annotations

import os

from ansible_collections.tenant.gpu.plugins.module_utils.box.records import write_bytes
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure


def write(path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    try:
        write_bytes(os.path.expanduser(path), text.encode("utf-8", "replace"))
    except OSError as error:
        what, fix = f"{path} cannot be written: {error.strerror}", "give the path of a file that can be"
        raise TenantFailure("config", what, safe="nothing else was changed", fix=fix) from error

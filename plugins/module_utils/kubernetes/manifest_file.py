# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The file that ``gpu-tenant export --to kubernetes`` wrote."""

from __future__ import annotations

from typing import Any

from ..failures import TenantFailure


def documents_in(path: str) -> list[Any]:
    """The YAML documents of a file. TenantFailure for a file that holds none."""
    import yaml  # ansible-core needs it too, but not on every machine that a module may run on

    try:
        with open(path, encoding="utf-8") as stream:
            return [document for document in yaml.safe_load_all(stream) if document is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", "") or "it is no YAML"
        fix = "name the file that `gpu-tenant export RUN --to kubernetes --output FILE` wrote"
        raise TenantFailure(
            "config", f"cannot read manifests from {path}: {why}", safe="nothing was asked", fix=fix
        ) from None

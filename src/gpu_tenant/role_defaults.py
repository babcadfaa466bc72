# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a role does where nobody says otherwise, read where the role has it, so that it stands once."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def seconds(variable: str) -> float:
    """A wait of a role, by its variable, of which the first word is the role."""
    import ansible_collections.tenant.gpu as collection
    import yaml

    role = variable.partition("_")[0]
    path = Path(next(iter(collection.__path__)), "roles", role, "defaults", "main.yml")
    return float(yaml.safe_load(path.read_text(encoding="utf-8"))[variable])

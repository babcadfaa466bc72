# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The lookup by which the roles name the program of the box before it is brought there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.lookup import supervisor_bundle
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build


def test_it_names_a_file_that_is_there_and_mends_a_damaged_one(tmp_path: Path) -> None:
    found = supervisor_bundle.bundle(str(tmp_path))
    path = Path(found["path"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found["sha256"] == build()[1]
    assert path.name == found["name"] == f"supervisor-{found['sha256'][:12]}.pyz"
    path.write_bytes(b"cut")
    supervisor_bundle.bundle.cache_clear()
    assert supervisor_bundle.bundle(str(tmp_path)) == found
    assert path.read_bytes() == build()[0]

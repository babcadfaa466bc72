# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Globs of a run spec: what each matches, and that none leads out of its folder."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import globs
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.pt", "a.pt", True),
        ("*.pt", "sub/a.pt", False),
        ("*.pt", ".a.pt", False),
        (".*.pt", ".a.pt", True),
        ("checkpoints/step-*.pt", "checkpoints/step-0000000001.pt", True),
        ("checkpoints/step-*.pt", "checkpoints/x/step-1.pt", False),
        ("**", "a/b/.metadata", True),
        ("**/*.json", "metrics.json", True),
        ("**/*.json", "a/b/metrics.json", True),
        ("a/**/b.pt", "a/b.pt", True),
        ("a/**/b.pt", "a/x/y/b.pt", True),
        ("a/**/b.pt", "ab.pt", False),
        ("model.pt", "modelxpt", False),
        ("rank[0-3].pt", "rank2.pt", True),
        ("rank[0-3].pt", "rank7.pt", False),
        ("rank[!0].pt", "rank0.pt", False),
        ("a?c", "a/c", False),
        ("a[", "a[", True),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    assert bool(globs.regex(pattern).match(path)) is matches


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "a/../b", "", "a\nb", "-x"])
def test_a_glob_cannot_leave_its_folder(pattern: str) -> None:
    with pytest.raises(UnsafeName):
        globs.regex(pattern)

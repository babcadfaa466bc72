# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A registry that is measured may be hostile or broken: what it sends for its token ends nothing but its own chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import http_get
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import choice, probe

SOURCE = probe.Source(
    "docker", "near", "https://registry.example", {"way": "registry", "image": "library/x", "sha256": "a" * 64}
)


@pytest.mark.parametrize(
    "pieces", [[b"[" * 200_000], [b" " * 65_536] * 17 + [b'{"token": "t"}'], [b"no json"], [b"[]"], [b'{"token": 3}']]
)
def test_what_it_sends_for_its_token_raises_nothing(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    def answered(url: str, *_more: Any) -> Iterator[bytes]:
        if "/token" not in url:
            challenge = 'Bearer realm="https://registry.example/token",service="s"'
            raise http_get.HttpProblem(http_get.DENIED, "401", challenge=challenge)
        yield from pieces

    monkeypatch.setattr(probe, "_pieces", answered)
    found = probe.measure(SOURCE, "plain", probe.Limits())
    assert found.outcome != choice.GOOD
    assert found.why

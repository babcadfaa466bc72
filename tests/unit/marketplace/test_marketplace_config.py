# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.engines.base import BOX_PORTS, find_tool, free_ports, require_tools
from gpu_tenant.marketplace.engines.podman import PodmanEngine


def test_a_missing_tool_is_named_with_its_package() -> None:
    with pytest.raises(TenantFailure) as refusal:
        require_tools({"sh": "dash", "no-such-sshd": "openssh-server", "no-such-rsync": "rsync"}, "process")
    assert refusal.value.kind == "config"
    assert "no-such-rsync, no-such-sshd" in str(refusal.value)
    assert "apt-get install openssh-server rsync" in str(refusal.value)


def test_tools_in_sbin_are_found_with_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_tool("pivot_root") is not None


def test_podman_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(TenantFailure, match="needs root"):
        PodmanEngine("", tmp_path).check()


def test_ports_are_neighbours_and_never_one_of_a_live_box() -> None:
    taken = set(range(BOX_PORTS.start, BOX_PORTS.stop - 6000))
    first, second = free_ports(2, taken)
    assert second == first + 1
    assert not taken.intersection((first, second))


def test_the_key_is_not_shown() -> None:
    assert "hidden-key" not in repr(MarketplaceConfig(port=1, api_key="hidden-key"))

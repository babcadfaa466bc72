# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box without a provider's interface is looked at under the name that its host key is pinned under."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_tenant.box_ssh import ssh_command, static_endpoint
from gpu_tenant.hosts import BoxHost

# As the profile says it where box_locate has not told of the generation.
PROFILE = (
    "-o HostKeyAlias=closet-1 -o 'UserKnownHostsFile=\"/state/known_hosts/closet-1\"' -o StrictHostKeyChecking=yes"
)


@pytest.mark.parametrize(
    ("pins", "arguments", "alias"),
    [
        ("closet-1.g1 ssh-ed25519 AAAA\n", PROFILE, "closet-1.g1"),
        ("closet-1.g9 ssh-ed25519 AAAA\ncloset-1.g10 ssh-ed25519 AAAA\n", PROFILE, "closet-1.g10"),
        ("closet-11.g7 ssh-ed25519 AAAA\n", PROFILE, "closet-1"),
        ("", PROFILE, "closet-1"),
        ("closet-1.g1 ssh-ed25519 AAAA\n", "-o HostKeyAlias=my-own", "my-own"),
    ],
)
def test_the_alias_of_the_newest_pin(pins: str, arguments: str, alias: str, tmp_path: Path) -> None:
    known_hosts = tmp_path / "closet-1"
    if pins:
        known_hosts.write_text(pins)
    box = BoxHost("closet-1", {"ansible_host": "192.0.2.7", "ansible_ssh_common_args": arguments})
    command = ssh_command(box, static_endpoint(box), str(known_hosts), "")
    assert [word for word in command if word.startswith("HostKeyAlias=")] == [f"HostKeyAlias={alias}"]

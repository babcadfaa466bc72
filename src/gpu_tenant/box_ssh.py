# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reach a box by ssh: where it is, whether its key is pinned, and the command line that asks it something."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom a box is reached; ``alias`` is the name that its pinned key goes by."""

    host: str
    port: int
    user: str
    alias: str


def known_hosts_of(host: BoxHost) -> str:
    return StateStore(host.required("tenant_state_dir")).known_hosts_path(host.name)


def is_pinned(host: BoxHost, endpoint: Endpoint) -> bool:
    """Whether we hold a key to know the box by. A box that a person wrote down is ssh's own affair."""
    if not host.text("platform_driver"):
        return True
    try:
        lines = Path(known_hosts_of(host)).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(endpoint.alias in line.split(" ", 1)[0].split(",") for line in lines)


def _pinned_alias(host: BoxHost, known_hosts: str) -> str:
    """The name that the newest key of a box is pinned under; its own name while none is."""
    try:
        lines = Path(known_hosts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return host.name
    names = [name for line in lines for name in line.split(" ", 1)[0].split(",")]
    generations = [
        int(name.rpartition(".g")[2]) for name in names if re.fullmatch(rf"{re.escape(host.name)}\.g\d+", name)
    ]
    return f"{host.name}.g{max(generations)}" if generations else host.name


def run_ssh(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """The end of an ssh command. ``subprocess.TimeoutExpired`` where the box is silent for too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise TenantFailure("config", "ssh is not installed here", fix="install the OpenSSH client") from error


def ssh_command(host: BoxHost, endpoint: Endpoint, known_hosts: str, control_dir: str) -> list[str]:
    """The ssh command line for a box, without the remote command: pinned key, no prompts, bounded, pooled."""
    address, port, user = check_endpoint(endpoint.host, endpoint.port, endpoint.user)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_TIMEOUT_S,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
        "TCPKeepAlive": "yes",
        "LogLevel": "ERROR",
    }
    if control_dir:
        socket = hashlib.sha256(f"{user}@{address}:{port}/{endpoint.alias}".encode()).hexdigest()[:16]
        options |= {"ControlMaster": "auto", "ControlPersist": 60, "ControlPath": f"{control_dir}/o{socket}"}
    if host.text("platform_driver"):
        options |= {
            "HostKeyAlias": endpoint.alias,
            "UserKnownHostsFile": f'"{known_hosts}"',
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
        }
    command = ["ssh", "-C"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    if not host.text("platform_driver"):
        # The profile names the box without its generation as long as box_locate has not told of it.
        plain, pinned = f"HostKeyAlias={host.name}", f"HostKeyAlias={_pinned_alias(host, known_hosts)}"
        words = shlex.split(host.text("ansible_ssh_common_args"))
        command += [pinned if word == plain else word for word in words]
    key = host.text("ansible_ssh_private_key_file")
    if key:
        command += ["-i", os.path.expanduser(key), "-o", "IdentitiesOnly=yes"]
    return [*command, "-p", str(port), "-l", user, "--", address]


def static_endpoint(host: BoxHost) -> Endpoint:
    """The endpoint of a box that a person wrote into the inventory."""
    user = host.text("ansible_user", host.text("platform_ssh_user", "root"))
    address = host.text("ansible_host", host.name)
    return Endpoint(address, int(host.text("ansible_port", "22")), user, address)

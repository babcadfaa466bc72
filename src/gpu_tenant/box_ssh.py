# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reach a box by ssh: where it is, whether its key is pinned, and the command line that asks it something."""

from __future__ import annotations

import hashlib
import os
import re
import selectors
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import size
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 30.0
# A status of a thousand cells is well below one of them. It counts what ssh has inflated.
MOST_ANSWER_BYTES = 8 * 1024 * 1024
_MOST_ERROR_BYTES = 64 * 1024
_CHUNK = 64 * 1024
# The machine is a stranger's: with these its owner could use the team's ssh agent and screen, where ~/.ssh/config hands
# them to every host.
_NOTHING_FORWARDED = ("ForwardAgent=no", "ForwardX11=no")
_SILENT = f"no answer within {ANSWER_TIMEOUT_S:.0f} s"


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


class NoAnswer(Exception):
    """A box did not answer, or what it sent is no answer; the text says which."""


def run_ssh(command: Sequence[str], most_bytes: int = MOST_ANSWER_BYTES) -> subprocess.CompletedProcess[bytes]:
    """The end of an ssh command, with no more of what it writes than ``most_bytes``.

    :raises NoAnswer: the box is silent for too long, or writes more than that; ssh is killed then.
    """
    try:
        # Not subprocess.run: a box that writes without end would fill this machine's memory until the time is over.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise TenantFailure("config", "ssh is not installed here", fix="install the OpenSSH client") from error
    until = time.monotonic() + ANSWER_TIMEOUT_S
    with child:
        try:
            out, errors = _read(child, most_bytes, until)
            code = child.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise NoAnswer(_SILENT) from error
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(command, code, out, errors)


def _read(child: subprocess.Popen[bytes], most_bytes: int, until: float) -> tuple[bytes, bytes]:
    """All that a child writes to standard output, and the end of what it says on standard error."""
    out, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as pipes:
        for pipe, kept in ((child.stdout, out), (child.stderr, errors)):
            pipes.register(pipe, selectors.EVENT_READ, kept)  # type: ignore[arg-type]
        while pipes.get_map():
            ready = pipes.select(until - time.monotonic())
            if not ready or time.monotonic() > until:
                raise NoAnswer(_SILENT)
            for key, _events in ready:
                data = os.read(key.fd, _CHUNK)
                key.data.extend(data)
                if not data:
                    pipes.unregister(key.fileobj)
            if len(out) > most_bytes:
                raise NoAnswer(f"its answer is longer than {size(most_bytes)}, which no supervisor's is")
            del errors[:-_MOST_ERROR_BYTES]
    return bytes(out), bytes(errors)


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
    # What stands first wins in ssh: a team may say otherwise in the variables of a box of its own.
    for option in _NOTHING_FORWARDED:
        command += ["-o", option]
    key = host.text("ansible_ssh_private_key_file")
    if key:
        command += ["-i", os.path.expanduser(key), "-o", "IdentitiesOnly=yes"]
    return [*command, "-p", str(port), "-l", user, "--", address]


def static_endpoint(host: BoxHost) -> Endpoint:
    """The endpoint of a box that a person wrote into the inventory."""
    user = host.text("ansible_user", host.text("platform_ssh_user", "root"))
    address = host.text("ansible_host", host.name)
    return Endpoint(address, int(host.text("ansible_port", "22")), user, address)

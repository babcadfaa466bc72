# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the marketplace asks of an engine, and what an engine needs to know of a box."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

LOOPBACK = "127.0.0.1"
START_DEADLINE_S = 120.0
EXECUTE_DEADLINE_S = 30.0
# Below the kernel's ephemeral range, so that no outgoing connection takes the port of a stopped box.
BOX_PORTS = range(20000, 32000)


@dataclass(frozen=True)
class Card:
    """The graphics card a machine really has; its offer may claim another."""

    name: str
    memory_mb: int
    count: int
    driver: str
    cuda: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "memory_mb": self.memory_mb,
            "count": self.count,
            "driver": self.driver,
            "cuda": self.cuda,
        }


@dataclass(frozen=True)
class BoxSpec:
    """One box as an engine sees it.

    :param box_id: the instance id, for ever this box's own.
    :param directory: everything the engine keeps for the box lies below; nothing else does.
    :param ports: TCP ports on the loopback interface on which its sshd answers.
    :param keys: public keys that may log in.
    :param environment: the instance's environment, visible to onstart and to sessions.
    :param room_mib: room in ``/workspace``, which then is in memory and gone when the box stops; None for a disk.
    :param volumes: folders of this machine that outlive the box, each with the absolute path where it sees them.
    :param onstart: shell text run at every start inside the box; empty for none.
    :param starts_sshd: there is an sshd once ``onstart`` has run the image's ``/start.sh``, with the host keys that the
        box has by then in ``/etc/ssh``; else there is one from the start, whose key the box keeps for life.
    :param login: the user that is let in, and who owns the volumes; empty for the engine's own. An engine that has no
        users lets in its own all the same, and says so by :meth:`Engine.login_of`.
    :param bashrc: what the provider's image adds to the ``~/.bashrc`` of its user, told from other lines by its first
        one. An engine whose boxes have no image of their own leaves it out.
    """

    box_id: int
    directory: Path
    ports: tuple[int, ...]
    card: Card
    image: str = ""
    keys: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    onstart: str = ""
    room_mib: float | None = None
    volumes: tuple[tuple[Path, str], ...] = ()
    starts_sshd: bool = False
    login: str = ""
    bashrc: str = ""


class EngineError(Exception):
    """A box did not start or end; the message becomes the instance's status message."""


class Engine(ABC):
    """Calls for one box never overlap; calls for different boxes may."""

    name: str
    # Whether a running box answers rsync daemon requests over ssh, as the official client's local copies need it.
    has_rsync_daemon = False
    # Whether a relay can stand in front of a box, and whether its ``/workspace`` can be made small.
    has_links = False
    limits_room = False
    mounts_volumes = False

    @abstractmethod
    def check(self) -> None:
        """TenantFailure (kind config) naming the Debian package of each missing tool."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What holds a box, for ``/control/state``: at least ``name``, ``login`` and ``isolation``."""

    def login_of(self, login: str) -> str:
        """The name that a box of this login is really logged into with."""
        return login or str(self.describe()["login"])

    @abstractmethod
    def create(self, spec: BoxSpec) -> None:
        """Make the box's disk. EngineError."""

    @abstractmethod
    def start(self, spec: BoxSpec) -> None:
        """Start the box and run its onstart; returns when its sshd answers. EngineError."""

    @abstractmethod
    def stop(self, box_id: int) -> None:
        """End every process of the box at once; the disk stays. Not running is no error."""

    @abstractmethod
    def destroy(self, spec: BoxSpec) -> None:
        """End the box and delete its disk. Not existing is no error."""

    @abstractmethod
    def alive(self, box_id: int) -> bool:
        """Whether the box, believed to run, still does."""

    @abstractmethod
    def log(self, spec: BoxSpec) -> str:
        """What the box's own onstart printed, over all starts."""

    def execute(self, spec: BoxSpec, words: Sequence[str]) -> str:
        """What a command prints in the running box, on either stream. EngineError where none can be run."""
        raise EngineError(f"instance {spec.box_id} runs no commands with the engine {self.name}")

    def disk(self, spec: BoxSpec) -> contextlib.AbstractContextManager[Path]:
        """The root of the box's disk on this machine, whether the box runs or not. EngineError without one."""
        raise EngineError(f"instance {spec.box_id} has no disk")

    def renew_host_key(self, spec: BoxSpec) -> None:
        """Another host key, in force from the box's next start on. EngineError without one."""
        raise EngineError(f"instance {spec.box_id} has no host key")

    def cut_sessions(self, spec: BoxSpec) -> None:
        """End the ssh connections that there are; new ones are let in. EngineError where that cannot be done."""
        raise EngineError(f"instance {spec.box_id} has no sessions that the engine {self.name} could end")

    def set_keys(self, spec: BoxSpec) -> None:  # noqa: B027 - an engine without boxes has no doors
        """Let ``spec.keys`` in from now on."""

    def close(self) -> None:  # noqa: B027 - an engine without processes has nothing to end
        """End the processes of every box."""


def require_tools(packages: dict[str, str], engine: str) -> None:
    """TenantFailure naming the Debian packages of the programs that are not on PATH or in sbin."""
    missing = sorted({package for tool, package in packages.items() if find_tool(tool) is None})
    if missing:
        tools = ", ".join(sorted(tool for tool in packages if find_tool(tool) is None))
        raise TenantFailure(
            "config",
            f"the marketplace's engine {engine!r} needs {tools}, which this machine lacks",
            safe="Nothing was started",
            fix=f"On Debian or Ubuntu: apt-get install {' '.join(missing)}",
        )


def find_tool(name: str) -> str | None:
    """Absolute path of a program, also in the sbin directories that a user's PATH omits."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def free_ports(count: int, taken: Iterable[int]) -> tuple[int, ...]:
    """``count`` neighbouring loopback TCP ports that are free now and not in ``taken``. EngineError."""
    used = set(taken)
    for _attempt in range(200):
        first = BOX_PORTS.start + secrets.randbelow(len(BOX_PORTS) - count)
        ports = tuple(range(first, first + count))
        if not used.intersection(ports) and all(port_is_free(port) for port in ports):
            return ports
    raise EngineError("no free TCP port on the loopback interface after 200 tries")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What makes an instance a pod: its disks, its ports, its GPUs, and what they cost. Pure.

Prices are RunPod's of 2026-11: a container disk bills only while its pod runs, a volume disk twice as much while it
rests, and both are gone with the pod.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Dollars for a GB and month.
CONTAINER_DISK = 0.10
VOLUME_RUNNING = 0.10
VOLUME_RESTING = 0.20
NETWORK_VOLUME = 0.07
NETWORK_VOLUME_ABOVE_1_TB = 0.05
_FIRST_TB = 1000.0
_MONTH_H = 720.0
_DIGITS = string.digits + string.ascii_lowercase
_POD, _VOLUME = "pod", "nv"


@dataclass(frozen=True)
class PodTerms:
    """:param gpu_type: RunPod's name of the card.
    :param gpu_count: how many it was rented with; :attr:`gpus` how many it has since its last start.
    :param gpu_price: dollars an hour for each.
    :param volume_gb: of its own volume disk, 0 with a network volume.
    :param network_volume: number of the network volume in the place of its own, 0 for none.
    :param ports: exposed ones, such as ``22/tcp`` and ``8888/http``.
    :param public_ip: whether ports of TCP are reached from outside.
    :param interruptible: whether it is a spot pod, whose GPU the market may give to another.
    :param stop_after: when it is stopped, :attr:`terminate_after` when it is terminated, by RunPod itself.
    """

    name: str
    gpu_type: str
    gpu_count: int
    gpus: int
    gpu_price: float
    container_gb: int
    volume_gb: int
    mount_path: str
    cloud_type: str
    data_center: str
    ports: tuple[str, ...]
    network_volume: int = 0
    public_ip: bool = True
    started_at: float = 0.0
    interruptible: bool = False
    stop_after: float | None = None
    terminate_after: float | None = None

    @property
    def compute_rate(self) -> float:
        """Dollars an hour; what a pod without its GPUs costs is published nowhere, and nothing here."""
        return self.gpu_price * self.gpus

    @property
    def resting_gb_month(self) -> float:
        return VOLUME_RESTING

    @property
    def running_disk_rate(self) -> float:
        """Dollars an hour for its disks while it runs."""
        return (self.container_gb * CONTAINER_DISK + self.volume_gb * VOLUME_RUNNING) / _MONTH_H

    @property
    def has_ssh(self) -> bool:
        """Whether its own sshd is reached from outside; the proxy is a shell only."""
        return self.public_ip and "22/tcp" in self.ports

    def mapped_ports(self) -> list[str]:
        """The ports of TCP beside ssh's that are mapped to public ones."""
        return (
            sorted(port for port in self.ports if port.endswith("/tcp") and port != "22/tcp") if self.public_ip else []
        )


def terms_from_dict(data: Mapping[str, Any] | None) -> PodTerms | None:
    return None if data is None else PodTerms(**{**data, "ports": tuple(data["ports"])})


def network_volume_rate(size_gb: float) -> float:
    """Dollars for a GB and month of a network volume of this size, on average."""
    first = min(size_gb, _FIRST_TB)
    total = first * NETWORK_VOLUME + (size_gb - first) * NETWORK_VOLUME_ABOVE_1_TB
    return total / size_gb if size_gb else NETWORK_VOLUME


# --- names ----------------------------------------------------------------------------------------------------------


def pod_id(number: int) -> str:
    return f"{_POD}{_base36(number):0>11}"


def volume_id(number: int) -> str:
    return f"{_VOLUME}{_base36(number):0>8}"


def number_of(name: str) -> int:
    """The number in :func:`pod_id` or :func:`volume_id`; 0 for any other text."""
    for prefix, length in ((_POD, 14), (_VOLUME, 10)):
        digits = name[len(prefix) :]
        if name.startswith(prefix) and len(name) == length and set(digits) <= set(_DIGITS):
            return int(digits, 36)
    return 0


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"

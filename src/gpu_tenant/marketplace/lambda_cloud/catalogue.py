# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The instance types and regions that the market's machines stand for. Pure.

Names are Lambda's; prices are of the order of its list of 2026. Lambda rents no cards of the catalogue's other models.
A machine is let as a whole, so that a type has as many GPUs as its machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..offers import Machine

REGIONS = {
    "us-east-1": "Virginia, USA", "us-west-1": "California, USA", "us-west-3": "Utah, USA", "us-south-1": "Texas, USA",
    "europe-central-1": "Germany", "asia-northeast-1": "Osaka, Japan", "asia-northeast-2": "Tokyo, Japan",
    "australia-east-1": "Australia",
}  # fmt: skip
# Of each place of the catalogue.
REGION_OF = {
    "Sweden, SE": "europe-central-1", "Norway, NO": "europe-central-1", "Germany, DE": "europe-central-1",
    "Bulgaria, BG": "europe-central-1", "Czechia, CZ": "europe-central-1", "Spain, ES": "europe-central-1",
    "Texas, US": "us-south-1", "Utah, US": "us-west-3", "California, US": "us-west-1", "Quebec, CA": "us-east-1",
    "Taiwan, TW": "asia-northeast-2", "Japan, JP": "asia-northeast-1", "South Korea, KR": "asia-northeast-2",
    "Australia, AU": "australia-east-1",
}  # fmt: skip


@dataclass(frozen=True)
class GpuClass:
    """What every GPU of a model brings with it: cents an hour, virtual CPUs, GiB of memory and of root disk."""

    suffix: str
    shown: str
    cents: int
    vcpus: int
    memory_gib: int
    storage_gib: int


CLASSES = {
    "RTX A6000": GpuClass("a6000", "RTX A6000 (48 GB)", 80, 14, 100, 512),
    "A100 SXM4": GpuClass("a100_80gb_sxm4", "A100 (80 GB SXM4)", 179, 30, 225, 2500),
    "H100 SXM": GpuClass("h100_sxm5", "H100 (80 GB SXM5)", 299, 26, 225, 2800),
}
_TYPE = re.compile(r"gpu_(1|2|4|8)x_([a-z0-9_]+)\Z")
_BY_SUFFIX = {one.suffix: one for one in CLASSES.values()}


def type_of(machine: Machine) -> str:
    """Its instance type's name, empty for a machine that Lambda has none of."""
    found = CLASSES.get(machine.model.name)
    return f"gpu_{machine.num_gpus}x_{found.suffix}" if found is not None else ""


def region_of(machine: Machine) -> str:
    return REGION_OF[machine.geolocation]


def type_row(name: str) -> dict[str, Any]:
    """KeyError for a name that :func:`type_of` never gives."""
    found = _TYPE.match(name)
    if found is None:
        raise KeyError(name)
    gpus, one = int(found[1]), _BY_SUFFIX[found[2]]
    return {
        "name": name,
        "description": f"{gpus}x {one.shown}",
        "gpu_description": one.shown,
        "price_cents_per_hour": one.cents * gpus,
        "specs": {
            "vcpus": one.vcpus * gpus,
            "memory_gib": one.memory_gib * gpus,
            "storage_gib": one.storage_gib * gpus,
            "gpus": gpus,
        },
    }


def region_row(name: str) -> dict[str, str]:
    return {"name": name, "description": REGIONS[name]}


def offered(machines: Iterable[Machine], taken: frozenset[int]) -> dict[str, Any]:
    """Every type that there is, each with the regions where a machine of it is free."""
    regions: dict[str, list[str]] = {}
    for machine in machines:
        name = type_of(machine)
        if name:
            free = regions.setdefault(name, [])
            if machine.machine_id not in taken and region_of(machine) not in free:
                free.append(region_of(machine))
    return {
        name: {"instance_type": type_row(name), "regions_with_capacity_available": list(map(region_row, sorted(free)))}
        for name, free in sorted(regions.items())
    }

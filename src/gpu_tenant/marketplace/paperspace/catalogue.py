# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The machine types, regions and templates that the market's machines stand for. Pure.

Names are Paperspace's; prices are of the order of its list of 2026. It rents no cards of the catalogue's other models.
A machine is let as a whole, so that a type has as many GPUs as its machines.
"""

from __future__ import annotations

from typing import Any

from ..offers import Machine

REGIONS = {"ny2": "East Coast (NY2)", "ca1": "West Coast (CA1)", "ams1": "Europe (AMS1)"}
_EUROPE = ("SE", "NO", "DE", "BG", "CZ", "ES")
# The type's name and what an hour of each card costs, of each model of the catalogue's.
CLASSES = {"RTX A6000": ("A6000", 1.89), "A100 SXM4": ("A100-80G", 3.18), "H100 SXM": ("H100", 5.95)}
# Templates with the types that they are available on. The ids are those that clients in use name: t0nspur5 is Ubuntu 22
# (dstack, terraform-provider-paperspace), tiq8mhti the one of an H100 (SkyPilot).
TEMPLATES = {
    "t0nspur5": ("Ubuntu 22.04", ("A6000", "A100-80G")),
    "tiq8mhti": ("ML-in-a-Box, Ubuntu 22.04", ("A6000", "A100-80G", "H100")),
}


def type_of(machine: Machine) -> str:
    """Its machine type's name, empty for a machine that Paperspace has none of."""
    found = CLASSES.get(machine.model.name)
    if found is None:
        return ""
    return found[0] if machine.num_gpus == 1 else f"{found[0]}x{machine.num_gpus}"


def price_of(machine: Machine) -> float:
    """Dollars an hour. KeyError for a machine without a type."""
    return round(CLASSES[machine.model.name][1] * machine.num_gpus, 2)


def region_of(machine: Machine) -> str:
    """The region that a place of the catalogue stands for."""
    place, _comma, country = machine.geolocation.partition(", ")
    if country in _EUROPE:
        return "ams1"
    return "ny2" if place in ("Texas", "Quebec") else "ca1"


def region_in(name: object) -> str:
    """The short name of a region in either spelling; empty for none."""
    if not isinstance(name, str):
        return ""
    return next((short for short, full in REGIONS.items() if name in (short, full)), "")


def base_of(machine_type: str) -> str:
    """The type without its number of cards."""
    return machine_type.partition("x")[0]


def template_rows(types: list[str]) -> list[dict[str, Any]]:
    """The provider's templates, as ``os-templates`` lists them."""
    return [
        {
            "id": template,
            "name": name,
            "agentType": "LinuxHeadless",
            "operatingSystemLabel": name,
            "defaultSizeGb": 50,
            "availableMachineTypes": [
                {"machineTypeLabel": kind, "isAvailable": base_of(kind) in fitting} for kind in types
            ],
            "dtCreated": "2023-12-14T00:00:00.000Z",
        }
        for template, (name, fitting) in TEMPLATES.items()
    ]

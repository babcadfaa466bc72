# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Stand-in for nvidia-smi inside a box: reports the card that the machine really has, from ``card.json`` beside it.

Understands ``-L``, ``--query-gpu=FIELDS --format=csv[,noheader][,nounits]``, ``-q`` and no option at all.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

Card = dict[str, Any]
UNITS = {"memory": "MiB", "utilization": "%", "power": "W"}


def values(card: Card, index: int) -> dict[str, str]:
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{card['name']}/{card.get('serial', 0)}/{index}")
    return {
        "index": str(index),
        "count": str(card["count"]),
        "name": card["name"],
        "gpu_name": card["name"],
        "uuid": f"GPU-{identity}",
        "gpu_uuid": f"GPU-{identity}",
        "serial": "[N/A]",
        "driver_version": card["driver"],
        "memory.total": str(card["memory_mb"]),
        "memory.used": "1",
        "memory.free": str(card["memory_mb"] - 1),
        "utilization.gpu": "0",
        "utilization.memory": "0",
        "temperature.gpu": "34",
        "power.draw": "21.50",
        "power.limit": "450.00",
        "pstate": "P8",
        "pci.bus_id": f"00000000:{index + 1:02X}:00.0",
        "gpu_bus_id": f"00000000:{index + 1:02X}:00.0",
        "compute_mode": "Default",
        "persistence_mode": "Enabled",
        "compute_cap": "[N/A]",
        "ecc.mode.current": "[N/A]",
        "ecc.errors.uncorrected.volatile.total": "[N/A]",
        "mig.mode.current": "[N/A]",
    }


def query(card: Card, fields: list[str], layout: list[str], selected: list[int]) -> int:
    known = values(card, 0)
    for field in fields:
        if field not in known:
            print(f'Field "{field}" is not a valid field to query.')
            return 2
    if "noheader" not in layout:
        print(", ".join(header(field, layout) for field in fields))
    for index in selected:
        row = values(card, index)
        print(", ".join(cell(field, row[field], layout) for field in fields))
    return 0


def header(field: str, layout: list[str]) -> str:
    unit = UNITS.get(field.split(".")[0])
    return f"{field} [{unit}]" if unit and "." in field and "nounits" not in layout else field


def cell(field: str, value: str, layout: list[str]) -> str:
    unit = UNITS.get(field.split(".")[0])
    return f"{value} {unit}" if unit and "." in field and "nounits" not in layout else value


def listing(card: Card) -> int:
    for index in range(card["count"]):
        row = values(card, index)
        print(f"GPU {index}: {row['name']} (UUID: {row['uuid']})")
    return 0


def report(card: Card) -> int:
    print("\n==============NVSMI LOG==============\n")
    print(f"Driver Version                            : {card['driver']}")
    print(f"CUDA Version                              : {card['cuda']}\n")
    print(f"Attached GPUs                             : {card['count']}")
    for index in range(card["count"]):
        row = values(card, index)
        print(f"GPU {row['pci.bus_id']}")
        print(f"    Product Name                          : {row['name']}")
        print(f"    GPU UUID                              : {row['uuid']}")
        print("    FB Memory Usage")
        print(f"        Total                             : {row['memory.total']} MiB")
        print(f"        Used                              : {row['memory.used']} MiB")
        print(f"        Free                              : {row['memory.free']} MiB")
    return 0


def overview(card: Card) -> int:
    rule = "+" + "-" * 78 + "+"
    title = f" NVIDIA-SMI {card['driver']}   Driver Version: {card['driver']}   CUDA Version: {card['cuda']}"
    print(rule)
    print(f"|{title:<78}|")
    print(rule)
    for index in range(card["count"]):
        row = values(card, index)
        used = f"{row['memory.used']}MiB / {row['memory.total']}MiB"
        line = f" {index}  {row['name']:<34} {row['pci.bus_id']}  {used}"
        print(f"|{line:<78}|")
    print(rule)
    print(f"|{' Processes: no running processes found':<78}|")
    print(rule)
    return 0


def main(arguments: list[str]) -> int:
    card = json.loads((Path(__file__).parent / "card.json").read_text())
    fields: list[str] = []
    layout: list[str] = []
    selected = list(range(card["count"]))
    mode = ""
    pending = list(arguments)
    while pending:
        word = pending.pop(0)
        name, has_value, value = word.partition("=")
        if not has_value and name in ("-i", "--id", "--query-gpu", "--format", "-l", "--loop") and pending:
            value = pending.pop(0)
        if name == "--query-gpu":
            fields = [field.strip() for field in value.split(",")]
        elif name == "--format":
            layout = [part.strip() for part in value.split(",")]
        elif name in ("-i", "--id"):
            selected = [index for index in selected if value in (str(index), values(card, index)["uuid"])]
            if not selected:
                print("No devices were found")
                return 6
        elif name in ("-L", "--list-gpus"):
            mode = "list"
        elif name in ("-q", "--query"):
            mode = "report"
        elif name.startswith("--query-"):
            return 0
        else:
            print(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help. ({word})")
            return 1
    if fields:
        return query(card, fields, layout, selected)
    if mode == "list":
        return listing(card)
    return report(card) if mode == "report" else overview(card)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes: storage on one machine that bills until it is deleted, whatever becomes of the boxes that use it.

A volume is rows, rules and a bill here; its bytes lie in a folder of the market's own, which engines show to boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import billing
from .offers import Machine, hardware_row

if TYPE_CHECKING:
    from .instances import Instance

# Of a machine's disk this part is let as volumes, beside the disks of boxes.
SHARE = 0.5
FIRST_OFFER_ID = 60_000_000
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}\Z")
_MOUNT = re.compile(r"-v V\.(\d{1,18}):(/\S*)\Z")
# A path inside a box that hides nothing of its system, in letters that a mount of any engine takes.
_PLACE = re.compile(r"(/[A-Za-z0-9._-]+)+\Z")
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr")
_GPU_COLUMNS = re.compile(r".*gpu|dlperf|flops|compute_cap|cuda|vram|bw_nvlink|pci")


@dataclass(frozen=True)
class Volume:
    """:param storage_cost: dollars for a GB and month of 720 hours.
    :param machine_id: 0 for one that lies on none: a network volume of RunPod's, a file system of Lambda's.
    :param data_center: where a network volume of RunPod's side lies, :attr:`region` where a file system of Lambda's.
    :param sort: what it is on Paperspace's side, empty for none; it lies in :attr:`place`, and is of machine
        :attr:`owner`, 0 for none.
    :param earlier: what it cost while it was of another size.
    """

    id: int
    machine_id: int
    size_gb: float
    storage_cost: float
    created_at: float
    name: str = ""
    deleted_at: float | None = None
    data_center: str = ""
    region: str = ""
    sort: str = ""
    place: str = ""
    owner: int = 0
    earlier: tuple[billing.Segment, ...] = ()

    @property
    def live(self) -> bool:
        return self.deleted_at is None

    @property
    def is_local(self) -> bool:
        """Whether it lies on one machine, as vast.ai's do."""
        return self.machine_id != 0

    def account(self) -> billing.Account:
        return billing.Account(
            self.id, self.name, self.created_at, self.deleted_at, self.size_gb, self.storage_cost, (),
            earlier_disk=self.earlier,
        )  # fmt: skip

    def resized(self, size_gb: float, now: float) -> Volume:
        """Of this size from now on."""
        account = self.account()
        past = billing.Segment(account.disk_since, now, account.disk_rate)
        return replace(self, size_gb=size_gb, earlier=(*self.earlier, past))

    def deleted(self, now: float) -> Volume:
        return replace(self, deleted_at=now)


def volume_from_dict(data: Mapping[str, Any]) -> Volume:
    # States from before sizes changed know of no earlier ones.
    return Volume(**{**data, "earlier": tuple(billing.Segment(**one) for one in data.get("earlier", ()))})


def offer_id_of(machine: Machine) -> int:
    return FIRST_OFFER_ID + machine.machine_id


def is_name(name: str) -> bool:
    return bool(_NAME.match(name))


def left_on(machine: Machine, volumes: Mapping[int, Volume]) -> float:
    """GB that the machine can still let as volumes."""
    taken = sum(one.size_gb for one in volumes.values() if one.live and one.machine_id == machine.machine_id)
    return max(0.0, round(machine.disk_space * SHARE - taken, 1))


def mounts(environment: Mapping[str, str]) -> dict[int, str]:
    """{volume: path} that docker flags in an instance's environment ask for."""
    found = [_MOUNT.match(flag) for flag in environment]
    return {int(match[1]): match[2] for match in found if match is not None}


def is_place(path: str) -> bool:
    """Whether a box can have a volume there."""
    parts = path.split("/")[1:]
    return bool(_PLACE.match(path)) and parts[0] not in _SYSTEM and not {".", "..", ".box"}.intersection(parts)


def users(volume: Volume, instances: Mapping[int, Instance]) -> list[int]:
    """The instances that use a volume, stopped ones too."""
    return sorted(one.id for one in instances.values() if one.live and volume.id in mounts(one.env))


def offer_row(machine: Machine, now: float, free_gb: float, allocated_gb: float) -> dict[str, Any]:
    """A machine's volume space as a search shows it."""
    row = _storage_row(machine, now)
    hourly = machine.storage_cost * allocated_gb / billing.MONTH_H
    return {
        **row,
        "id": offer_id_of(machine),
        "ask_contract_id": offer_id_of(machine),
        "resource_type": "volume",
        "disk_space": free_gb,
        "storage_total_cost": hourly,
        "dph_total": hourly,
        "dph_base": 0.0,
        "rentable": free_gb > 0,
        "rented": False,
    }


def volume_row(volume: Volume, machine: Machine, now: float, used_by: list[int]) -> dict[str, Any]:
    """A volume as its owner's list shows it."""
    return {
        **_storage_row(machine, now),
        "id": volume.id,
        "label": volume.name or None,
        "name": volume.name or None,
        "disk_space": volume.size_gb,
        "status": "created",
        "start_date": volume.created_at,
        "storage_total_cost": volume.account().disk_rate,
        "instances": used_by,
        "type": "local_volume",
    }


def _storage_row(machine: Machine, now: float) -> dict[str, Any]:
    row = {name: value for name, value in hardware_row(machine, now).items() if not _GPU_COLUMNS.match(name)}
    return {**row, "cuda_max_good": machine.cuda, "cluster_id": None, "storage_cost": machine.storage_cost}

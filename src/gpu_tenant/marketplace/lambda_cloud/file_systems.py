# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""File systems: folders in one region that bill what lies in them until they are deleted, whatever becomes of boxes."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from ..books import Books
from ..engines.control import delete_tree
from ..volumes import Volume
from .catalogue import region_row
from .orders import FileSystemOrder
from .refusals import missing, refusal
from .terms import FILE, FILE_SYSTEM, id_of, number_of

MOST = 24
# The provider estimates what is used every few hours.
MEASURED_EVERY_S = 3600.0
_GIB = 1024.0**3


class FileSystems:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._next_look = float("-inf")

    def all(self) -> list[Volume]:
        """Those that are there, the oldest first, as large as they are now."""
        self.measure()
        with self._books.reading() as (state, _now):
            return [one for one in state.volumes.values() if one.live and one.region]

    def named(self, name: str) -> Volume:
        """MarketError (404) for none."""
        found = next((one for one in self.all() if one.name == name), None)
        if found is None:
            raise missing(f"Filesystem {name[:60]!r} was not found.")
        return found

    def numbered(self, number: int) -> Volume:
        """MarketError (404) for none."""
        found = next((one for one in self.all() if one.id == number), None)
        if found is None:
            raise missing("Filesystem was not found.")
        return found

    def create(self, order: FileSystemOrder) -> Volume:
        there = self.all()
        if any(one.name == order.name for one in there):
            raise refusal(400, "global/duplicate", "A filesystem with this name already exists.")
        if len(there) >= MOST:
            message = "Contact Support to increase your quota."
            raise refusal(400, "global/quota-exceeded", "Quota exceeded.", message)
        with self._books.changing() as (state, now):
            self._books.check_credit()
            made = Volume(state.take_id(), 0, 0.0, FILE_SYSTEM, now, name=order.name, region=order.region)
            state.volumes[made.id] = made
        self.folder(made.id).mkdir(parents=True, exist_ok=True)
        return made

    def delete(self, name: str) -> str:
        """By its id, which is returned. MarketError: unknown, or a box uses it."""
        volume = self.numbered(number_of(FILE, name))
        with self._books.changing() as (state, now):
            if self._is_in_use(volume):
                message = "Filesystem is in use by an instance and cannot be deleted."
                advice = "Terminate the instances that use it, then try again."
                raise refusal(400, "filesystems/filesystem-in-use", message, advice)
            state.volumes[volume.id] = volume.deleted(now)
        delete_tree(self.folder(volume.id))
        return id_of(FILE, volume.id)

    def folder(self, number: int) -> Path:
        """Where its bytes lie, whether a box uses it or none."""
        return self._books.directory.volumes / str(number)

    def row(self, volume: Volume) -> dict[str, Any]:
        created = datetime.datetime.fromtimestamp(volume.created_at, datetime.UTC)
        return {
            "id": id_of(FILE, volume.id),
            "name": volume.name,
            "mount_point": mount_point(volume),
            "created": created.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "created_by": {"id": f"{100001:032x}", "email": "tenant@marketplace.invalid", "status": "active"},
            "is_in_use": self._is_in_use(volume),
            "region": region_row(volume.region),
            "bytes_used": round(volume.size_gb * _GIB),
        }

    def look(self) -> None:
        """Measure what bills, every hour of the market's."""
        if self._books.clock.now() >= self._next_look:
            self.measure()

    def measure(self) -> None:
        """Bill from now on what lies in each of them."""
        self._next_look = self._books.clock.now() + MEASURED_EVERY_S
        with self._books.reading() as (state, _now):
            numbers = [one.id for one in state.volumes.values() if one.live and one.region]
        sizes = {number: _bytes_below(self.folder(number)) / _GIB for number in numbers}
        with self._books.lock:
            state, now = self._books.state, self._books.clock.now()
            grown = [state.volumes[number] for number, size in sizes.items() if state.volumes[number].size_gb != size]
            for volume in grown:
                if volume.live:
                    state.volumes[volume.id] = volume.resized(sizes[volume.id], now)
            if grown:
                self._books.save()

    def _is_in_use(self, volume: Volume) -> bool:
        living = (one.vm for one in self._books.state.instances.values() if one.live and one.vm is not None)
        return any(volume.id in dict(vm.mounts) for vm in living)


def mount_point(volume: Volume) -> str:
    """Where a box has it unless its launch says otherwise."""
    return f"/lambda/nfs/{volume.name}"


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue  # a box that works with it removed it meanwhile
    return total

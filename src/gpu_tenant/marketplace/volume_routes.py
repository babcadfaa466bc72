# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for volumes, and what the rest of it asks about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import volumes
from .books import Books
from .boxes import Boxes
from .calls import Call, Route
from .contracts import Order
from .engines.control import delete_tree
from .filters import in_order, matches
from .refusals import MarketError, no_such_offer
from .requests import invalid, number_in
from .volumes import Volume

INTERVAL_S = 5.5
SEARCH_LIMIT = 64
DEFAULT_SIZE_GB = 15
KINDS = ("local_volume", "network_volume", "all_volume")


class VolumeRoutes:
    def __init__(self, books: Books, boxes: Boxes) -> None:
        self._books = books
        self._boxes = boxes

    def routes(self) -> list[Route]:
        path = "/api/v0/volumes"
        return [
            Route("POST", f"{path}/search", self.search, interval_s=INTERVAL_S, call="volumes"),
            Route("GET", path, self.list, interval_s=INTERVAL_S, call="volumes"),
            Route("PUT", path, self.create, interval_s=INTERVAL_S, call="volumes"),
            Route("DELETE", path, self.delete, interval_s=INTERVAL_S, call="volumes"),
        ]

    # --- requests -----------------------------------------------------------------------------------------------

    def search(self, call: Call) -> dict[str, Any]:
        wanted = call.body
        allocated = number_in(wanted, "allocated_storage", 1.0)
        with self._books.reading() as (state, now):
            rows = [
                volumes.offer_row(machine, now, volumes.left_on(machine, state.volumes), allocated)
                for machine in self._books.machines
            ]
        found = [row for row in rows if row["rentable"] and row["disk_space"] >= allocated and matches(row, wanted)]
        limit = int(number_in(wanted, "limit", SEARCH_LIMIT)) or SEARCH_LIMIT
        return {"offers": in_order(found, wanted.get("order") or [["score", "desc"]])[: max(limit, 0)]}

    def list(self, call: Call) -> dict[str, Any]:
        kind = call.query.get("type") or "all_volume"
        if kind not in KINDS:
            raise invalid(f"type is among {', '.join(KINDS)}")
        with self._books.reading() as (state, now):
            rows = [
                volumes.volume_row(one, self._books.machine(one.machine_id), now, volumes.users(one, state.instances))
                for one in state.volumes.values()
                if one.live and one.is_local and kind != "network_volume"
            ]
        return {"success": True, "volumes": rows}

    def create(self, call: Call) -> dict[str, Any]:
        size, name = number_in(call.body, "size", DEFAULT_SIZE_GB), str(call.body.get("name") or "")
        made = self._make(int(number_in(call.body, "id", 0)), size, name)
        return {"success": True, "volume_name": f"V.{made.id}"}

    def delete(self, call: Call) -> dict[str, Any]:
        """The client names the volume in the query, the vendor's description in the body."""
        named = call.query.get("id") or call.body.get("id")
        if not str(named).isdigit():
            raise invalid("id must be a volume's id")
        with self._books.changing() as (state, now):
            volume = self._live(state.volumes, int(str(named)))
            used_by = volumes.users(volume, state.instances)
            if used_by:
                listed = ", ".join(map(str, used_by))
                raise invalid(f"Volume {volume.id} is in use by instance {listed}.")
            state.volumes[volume.id] = volume.deleted(now)
        delete_tree(self._folder(volume.id))
        return {"success": True}

    # --- what creating an instance asks -------------------------------------------------------------------------

    def with_volume(self, order: Order, body: Mapping[str, Any]) -> Order:
        """The order with the volume that ``volume_info`` asks for, made if need be. MarketError for one that cannot."""
        info = body.get("volume_info")
        if isinstance(info, Mapping):
            order = self._with_info(order, info)
        named = volumes.mounts(order.env)
        if not named:
            return order
        self._boxes.check_volumes()
        if not all(map(volumes.is_place, named.values())):
            raise invalid("A volume is mounted at an absolute path that holds nothing of the system.")
        machine = self._books.machine_of_offer(order.offer_id)
        with self._books.reading() as (state, _now):
            for number in named:
                if self._live(state.volumes, number).machine_id != machine.machine_id:
                    raise invalid(f"Volume {number} is not on the machine of offer {order.offer_id}.")
        return order

    def _with_info(self, order: Order, info: Mapping[str, Any]) -> Order:
        path = str(info.get("mount_path") or "")
        if not path.startswith("/"):
            raise invalid("volume_info needs an absolute mount_path")
        number = int(number_in(info, "volume_id", 0))
        if info.get("create_new"):
            size = number_in(info, "size", DEFAULT_SIZE_GB)
            number = self._make(number, size, str(info.get("name") or "")).id
        return replace(order, env={**order.env, f"-v V.{number}:{path}": "1"})

    def _make(self, offer_id: int, size: float, name: str) -> Volume:
        if name and not volumes.is_name(name):
            raise invalid("A volume's name has at most 64 letters, digits and underscores.")
        if size < 1 or size != int(size):
            raise invalid("size must be whole GB, at least 1")
        with self._books.changing() as (state, now):
            self._books.check_credit()
            machine = next((one for one in self._books.machines if volumes.offer_id_of(one) == offer_id), None)
            if machine is None:
                raise no_such_offer(offer_id)
            left = volumes.left_on(machine, state.volumes)
            if size > left:
                raise invalid(f"size {size:g} GB: the offer has {left:g} GB")
            made = Volume(state.take_id(), machine.machine_id, size, machine.storage_cost, now, name)
            state.volumes[made.id] = made
        self._folder(made.id).mkdir(parents=True, exist_ok=True)
        return made

    def _folder(self, number: int) -> Path:
        """Where a volume's bytes lie, whether a box uses it or none."""
        return self._books.directory.volumes / str(number)

    def _live(self, known: Mapping[int, Volume], number: int) -> Volume:
        volume = known.get(number)
        if volume is None or not volume.live or not volume.is_local:
            raise MarketError(404, "no_such_volume", f"Volume {number} not found.")
        return volume

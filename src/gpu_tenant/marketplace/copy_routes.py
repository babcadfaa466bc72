# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The market's REST for copies: between instances, with cloud connections, and the client's own local ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .calls import Call, Route
from .copies import Connection, Copies, End
from .faults import Fault
from .market import Market
from .refusals import MarketError
from .requests import invalid

STARTED = "Remote to Remote copy initiated - check instance status bar for progress updates (~30 seconds delayed)."
FLAGS = ("--dry-run", "--size-only", "--ignore-existing", "--update", "--delete-excluded")
LOCAL = "local"
_INSTANCE = re.compile(r"(?:C\.)?(\d{1,18})\Z")
_CLOUD = re.compile(r"([a-z][a-z0-9]*)(?:\.(\d{1,18}))?\Z")


class CopyRoutes:
    """:param struck: as :class:`.copies.Copies` asks it."""

    def __init__(self, market: Market, struck: Callable[[Sequence[int]], Fault | None]) -> None:
        self._market = market
        self._copies = Copies(market, struck)

    def routes(self) -> list[Route]:
        commands = "/api/v0/commands"
        return [
            Route("PUT", f"{commands}/copy_direct", self.copy, interval_s=3.5, call="copies"),
            Route("PUT", f"{commands}/rsync", self.copy, interval_s=3.5, call="copies"),
            Route("DELETE", f"{commands}/copy_direct", self.cancel_copy, call="copies"),
            Route("POST", f"{commands}/rclone", self.cloud_copy, interval_s=3.5, call="copies"),
            Route("DELETE", f"{commands}/rclone", self.cancel_sync, call="copies"),
            Route("GET", "/api/v0/users/cloud_integrations", self.connections, interval_s=2.9, call="copies"),
        ]

    def copy(self, call: Call) -> dict[str, Any]:
        body = call.body
        source_path, dest_path = path_in(body, "src_path"), path_in(body, "dst_path")
        source_id, dest_id = side_in(body, "src_id"), side_in(body, "dst_id")
        if LOCAL in (source_id, dest_id):
            return self._local(source_id, dest_id)
        self._copies.start(self._end(source_id, source_path), self._end(dest_id, dest_path))
        return {"success": True, "msg": STARTED}

    def cancel_copy(self, call: Call) -> dict[str, Any]:
        return self._cancel(call, cloud=False)

    def cloud_copy(self, call: Call) -> dict[str, Any]:
        body = call.body
        source_path, dest_path = path_in(body, "src"), path_in(body, "dst")
        instance = End("", instance=self._instance(str(body.get("instance_id"))))
        connection = self._connection(str(body.get("selected") or ""))
        flags = body.get("flags") or []
        if not isinstance(flags, list) or any(flag not in FLAGS for flag in flags):
            raise invalid(f"flags are among {', '.join(FLAGS)}")
        direction = str(body.get("transfer") or "").lower()
        on_box, in_cloud = instance.instance, connection
        if direction == "instance to cloud":
            self._copies.start(End(source_path, on_box), End(dest_path, connection=in_cloud), flags)
        elif direction == "cloud to instance":
            self._copies.start(End(source_path, connection=in_cloud), End(dest_path, on_box), flags)
        else:
            raise invalid("transfer is Instance To Cloud or Cloud To Instance")
        return {"success": True, "msg": "Cloud Copy Started", "result_url": None}

    def cancel_sync(self, call: Call) -> dict[str, Any]:
        return self._cancel(call, cloud=True)

    def connections(self, _call: Call) -> list[dict[str, Any]]:
        return [{"id": one.id, "name": one.name, "cloud_type": one.cloud_type} for one in self._copies.connections]

    # --- what the requests name ---------------------------------------------------------------------------------

    def _end(self, side: str, path: str) -> End:
        if _INSTANCE.match(side):
            return End(path, instance=self._instance(side))
        if side.startswith("V."):
            raise MarketError(200, "no_such_volume", f"Volume {side} not found.")
        cloud = _CLOUD.match(side)
        if cloud is None:
            raise invalid(f"{side[:80]!r} names no instance, volume or cloud connection")
        return End(path, connection=self._connection(cloud[2] or "", cloud[1]))

    def _instance(self, text: str) -> int:
        """The number in ``31000001`` or ``C.31000001``. MarketError (400, or 404 no_such_instance)."""
        named = _INSTANCE.match(text.partition(":")[0])
        if named is None:
            raise invalid(f"{text[:80]!r} is not an instance")
        return self._market.books.instance(int(named[1])).id

    def _connection(self, number: str, cloud_type: str = "") -> Connection:
        for one in self._copies.connections:
            if number in ("", str(one.id)) and cloud_type in ("", one.cloud_type):
                return one
        raise MarketError(404, "no_such_user", f"There is no cloud connection {number or cloud_type}.")

    def _local(self, source: str, dest: str) -> dict[str, Any]:
        """Where the client's own rsync shall go. MarketError (200) where nothing would answer it."""
        side, name = ("dst", dest) if source == LOCAL else ("src", source)
        number = self._instance(name)
        where = self._market.boxes.rsync_daemon(number)
        if where is None:
            raise MarketError(
                200,
                "invalid_args",
                f"Local copies need a running box of the podman engine here; instance {number} is none.",
            )
        return {"success": True, f"{side}_addr": where[0], f"{side}_port": where[1]}

    def _cancel(self, call: Call, cloud: bool) -> dict[str, Any]:
        ended = self._copies.cancel(self._instance(str(call.body.get("dst_id"))), cloud)
        return {"success": True, "msg": f"{ended} copies cancelled."}


def path_in(body: Mapping[str, Any], name: str) -> str:
    path = body.get(name)
    if not isinstance(path, str) or not path or "\0" in path or ".." in path.split("/"):
        raise invalid(f"Invalid {name}.")
    return path


def side_in(body: Mapping[str, Any], name: str) -> str:
    """An id as the client sends it: a number, a text, or null for a path of its own machine."""
    side = body.get(name)
    return LOCAL if side is None else str(side)

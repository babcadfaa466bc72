# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where the boxes of a play are that only the inventory knows, read once for all forks.

To read one other box's variables costs Ansible a few milliseconds, so that boxes which all look at each other take
minutes in a large play. The first fork of a play reads them all under a lock, the others read what it wrote.

Two names for one machine are noticed by at least one of the two, however old the table is: each box first puts its own
address right in it. Nobody is refused by what another fork has read: the table is read anew before that.
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterable, Iterator, Sequence, Tuple

from .box import locks, process, records
from .box.refusal import Refused
from .failures import TenantFailure
from .state_store import StateStore

SCHEMA = "fixed-endpoints"
LOCK_WAIT_S = 120.0
Address = Tuple[str, str]
Read = Callable[[], Iterable["tuple[str, str, object]"]]


def address(host: object, port: object) -> Address:
    """Two addresses are equal when they reach the same machine, as far as their text tells."""
    return str(host).lower(), str(port)


class FixedEndpoints:
    """The table of one play.

    :param run: what tells this run of a playbook from others; see :func:`this_run`.
    :param hosts: the boxes of the play.
    :param read: name, host and port of every box of the play that has a fixed address; asked seldom, for it is slow.
    """

    def __init__(self, store: StateStore, run: str, hosts: Sequence[str], read: Read) -> None:
        self._path = store.path("cache", "fixed-endpoints.json")
        self._of = records.digest([run, sorted(hosts)])
        self._read = read

    def sharing(self, box: str, host: object, port: object, fixed: bool) -> list[str]:
        """The other boxes with this address.

        :param fixed: whether the box's own address comes from the inventory too, and so belongs into the table.
        """
        own = {box: address(host, port)} if fixed else {}
        mine = address(host, port)
        with self._alone(box):
            table = self._known()
            if table is None or _others(table, box, mine):
                return _others(self._anew(own), box, mine)
            if fixed and table.get(box) != mine:
                self._write({**table, **own})
            return []

    @contextlib.contextmanager
    def _alone(self, box: str) -> Iterator[None]:
        try:
            descriptor = locks.lock_within(self._path + ".lock", LOCK_WAIT_S, "the table of addresses")
        except Refused as refused:
            raise TenantFailure("lease_held", refused.what, box=box, safe="nothing was connected to") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def _known(self) -> dict[str, Address] | None:
        try:
            record = records.read_record_or_none(self._path, SCHEMA)
        except records.RecordError:
            return None
        if record is None or record.get("of") != self._of or not isinstance(record.get("boxes"), dict):
            return None
        return {str(name): address(*place) for name, place in record["boxes"].items() if _is_place(place)}

    def _anew(self, own: dict[str, Address]) -> dict[str, Address]:
        table = {name: address(host, port) for name, host, port in self._read()}
        table.update(own)
        self._write(table)
        return table

    def _write(self, table: dict[str, Address]) -> None:
        records.write_record(self._path, SCHEMA, {"of": self._of, "boxes": table})


def this_run() -> str:
    """The process that forked this one, and when that one began: ansible-playbook, seen from a task."""
    parent = os.getppid()
    found = process.read_stat(parent)
    return f"{parent} {found.start if found else ''}"


def _others(table: dict[str, Address], box: str, mine: Address) -> list[str]:
    return sorted(name for name, place in table.items() if place == mine and name != box)


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2

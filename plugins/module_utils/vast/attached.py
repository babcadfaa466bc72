# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Volumes that a box is rented with. A volume lies on one machine, so it also says which machine can be rented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..failures import TenantFailure
from ..rented_box import number
from ..volume_stamp import parse_stamp
from .api import VastClient

_FLAG = re.compile(r"-v V\.([0-9]{1,18}):(/\S*)\Z")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+\Z")
# What an image's own system needs where it is.
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr", "var")


@dataclass(frozen=True)
class Mount:
    """What is declared: a volume, by its id or by its name in the project, and where a box shall see it."""

    volume: str
    path: str


@dataclass(frozen=True)
class Attached:
    """A volume that there is."""

    volume_id: str
    machine_id: int
    path: str

    @property
    def flag(self) -> str:
        """How the market's clients ask for it, in the environment of a create."""
        return f"-v V.{self.volume_id}:{self.path}"


def mounts_in(given: Sequence[Any]) -> tuple[Mount, ...]:
    """The module's option. TenantFailure for what no box can have."""
    found = []
    for one in given:
        volume, path = str(one.get("volume") or ""), str(one.get("path") or "")
        if not volume:
            raise _bad("an entry of volumes does not say which volume")
        if not _PATH.match(path) or any(part in (".", "..") for part in path.split("/")):
            raise _bad(f"{path[:60]!r} in volumes is no absolute path of letters, digits, '.', '_' and '-'")
        if path.split("/")[1] in _SYSTEM:
            raise _bad(f"{path} in volumes is a place of the image's own system")
        found.append(Mount(volume.partition("V.")[2] or volume, path))
    if len({mount.path for mount in found}) < len(found) or len({mount.volume for mount in found}) < len(found):
        raise _bad("volumes names a volume or a path twice")
    return tuple(found)


def attach(client: VastClient, project: str, mounts: Sequence[Mount]) -> tuple[Attached, ...]:
    """The declared volumes as the provider lists them. TenantFailure unless all are there, on one machine."""
    if not mounts:
        return ()
    rows = client.list_volumes()
    found = tuple(_attached(rows, project, mount) for mount in mounts)
    machines = sorted({one.machine_id for one in found})
    if len(machines) > 1:
        listed = ", ".join(f"V.{one.volume_id} on machine {one.machine_id}" for one in found)
        raise TenantFailure(
            "config",
            f"the volumes lie on different machines ({listed}), and a box has one",
            safe="nothing was rented",
            fix="declare volumes of one machine, or rent the others anew with vast_volume and its machine_id",
        )
    return found


def machine_of(attached: Sequence[Attached]) -> int | None:
    """The one machine that can be rented; None when any can."""
    return attached[0].machine_id if attached else None


def attached_in(environment: Mapping[str, str]) -> dict[str, str]:
    """{volume id: path} that a box was rented with."""
    return {match[1]: match[2] for match in map(_FLAG.match, environment) if match is not None}


def _attached(rows: Sequence[Mapping[str, Any]], project: str, mount: Mount) -> Attached:
    meant = [row for row in rows if _is_meant(row, project, mount.volume)]
    # As vast_volume does: the youngest of a name counts.
    meant.sort(key=lambda row: (-_generation(row), int(row["id"])))
    machine = number(meant[0].get("machine_id")) if meant else None
    if machine is None:
        raise TenantFailure(
            "config",
            f"there is no volume {mount.volume} on the account" + ("" if not meant else " that tells its machine"),
            safe="nothing was rented",
            fix=f"rent it first: vast_volume with project {project or '(its project)'} and its name",
        )
    return Attached(str(meant[0]["id"]), int(machine), mount.path)


def _is_meant(row: Mapping[str, Any], project: str, volume: str) -> bool:
    if volume.isdigit():
        return str(row["id"]) == volume
    stamp = parse_stamp(row.get("label")) or parse_stamp(row.get("name"))
    return stamp is not None and (stamp.project, stamp.name) == (project, volume)


def _generation(row: Mapping[str, Any]) -> int:
    stamp = parse_stamp(row.get("label")) or parse_stamp(row.get("name"))
    return stamp.generation if stamp else 0


def _bad(what: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was rented", fix="an entry is {volume: id or name, path: /data}")

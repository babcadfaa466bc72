# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The fact ``box_endpoint``: where a box is, and which generation of it."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from . import generations
from .box.names import check_name
from .endpoint import check_endpoint
from .failures import TenantFailure
from .rented_box import Box, current_and_superseded
from .state_store import StateStore

# A name that never resolves (RFC 2606), so that connecting to a box that was not located fails closed.
NOWHERE = "not-located.invalid"
# States in which a box may answer; an offline host may only have missed a heartbeat.
REACHABLE_STATES = ("running", "offline", "unknown")


def alias(box: str, generation: int) -> str:
    """The name under which a box's host key is pinned; it changes with every rented machine."""
    return f"{check_name('box', box)}.g{generation}"


def absent(box: str, python: str, user: str) -> dict[str, Any]:
    """The provider lists no box of this name."""
    return {
        "host": NOWHERE,
        "port": 22,
        "user": user,
        "alias": alias(box, 0),
        "python": python,
        "provider_id": "",
        "generation": 0,
        "state": "absent",
        "intended": "",
        "stamp": "",
        "proxy": False,
        "proxy_instead": "",
        "machine_id": None,
        "price_per_hour": None,
        "superseded": [],
        "problem": "",
    }


def from_provider(boxes: Iterable[Box], project: str, box: str, python: str, user: str) -> dict[str, Any]:
    """The endpoint of the box that carries this project and name, out of the provider's whole list."""
    current, superseded = current_and_superseded(boxes, project, box)
    if current is None:
        return absent(box, python, user)
    endpoint = absent(box, python, user)
    if current.host and current.state in REACHABLE_STATES:
        host, port, login = check_endpoint(current.host, current.port, current.user)
        endpoint.update(host=host, port=port, user=login, proxy=current.proxy)
    endpoint.update(
        alias=alias(box, current.generation),
        provider_id=current.provider_id,
        generation=current.generation,
        state=current.state,
        intended=current.intended,
        stamp=str(current.stamp),
        machine_id=current.machine_id,
        price_per_hour=current.dph_total,
        problem=current.endpoint_problem,
        superseded=[
            {"provider_id": old.provider_id, "generation": old.generation, "state": old.state} for old in superseded
        ],
    )
    return endpoint


def from_inventory(
    box: str, host: Any, port: Any, user: Any, python: str, generation: int, proxy: bool = False, known_as: str = ""
) -> dict[str, Any]:
    """The endpoint of a box that no API knows: what the team wrote is believed, and ``running`` is an assumption.

    :param known_as: the provider id of the machine on record, where it outlives its address; see ``machine_mark``.
    """
    try:
        host, port, _login = check_endpoint(host, port, user or "nobody")
    except TenantFailure as failure:
        raise TenantFailure(
            "config",
            failure.what.replace("the provider gave", "the inventory gives"),
            box=box,
            safe="nothing was connected to",
            fix="correct ansible_host, ansible_port or ansible_user of this box",
        ) from None
    endpoint = absent(box, python, user or "")
    endpoint.update(
        host=host,
        port=port,
        alias=alias(box, generation),
        provider_id=known_as or f"ssh:{host}:{port}",
        generation=generation,
        state="running",
        proxy=proxy,
    )
    return endpoint


def generation_without_provider(
    store: StateStore, project: str, box: str, wanted: int | None, results_dir: str = ""
) -> int:
    """The generation of a box that we did not create: the inventory's word, else the last that is on record or at
    home, at least 1."""
    known = max(store.last_generation(project, box), generations.at_home(results_dir, project, box))
    if wanted is None:
        return max(1, known)
    if wanted < max(1, known):
        raise TenantFailure(
            "config",
            f"generation {wanted} is asked for, but generation {known} of it is on record or at home",
            box=box,
            safe="nothing was changed",
            fix=f"write tenant_generation: {known}, or a higher one when the machine is a new one",
        )
    return wanted


def differs_from_record(store: StateStore, project: str, box: str, endpoint: dict[str, Any]) -> bool:
    """The newest live box on record is not the one that the list shows: ask again before believing either."""
    newest = store.last_generation(project, box)
    if newest == 0:
        return False
    record = store.read_box(project, box, newest) or {}
    if record.get("destroyed_at") or not record.get("provider_id"):
        return False
    return bool(str(record["provider_id"]) != endpoint["provider_id"])


def place(host: object, kind: object, data_dir: object) -> str:
    """What no other box of a play may have at its port: the machine. A cluster's login node is that of many boxes, each
    with a folder of its own."""
    return f"{host} {data_dir}" if kind == "slurm" else str(host)


def refuse_shared_machine(box: str, endpoint: dict[str, Any], others: Sequence[str]) -> None:
    """TenantFailure if another name of the play reaches the same machine.

    :param others: names of the boxes of the play that have this endpoint too.
    """
    if endpoint["host"] == NOWHERE or not others:
        return
    raise TenantFailure(
        "config",
        f"{', '.join(others)} and {box} reach the same machine, {endpoint['host']} port {endpoint['port']}",
        box=box,
        safe="nothing was connected to",
        fix="two names would write over each other: give each box its own machine, or remove one name",
    )


def listed_at(
    boxes: Iterable[Box], project: str, box: str, endpoint: dict[str, Any], names: Iterable[str]
) -> list[str]:
    """The boxes of ``names`` that the provider lists at the endpoint of ``box``."""
    mine = (endpoint["host"], endpoint["port"])
    found = {
        other.stamp.box
        for other in boxes
        if other.stamp and other.stamp.project == project
        if other.state in REACHABLE_STATES and (other.host, other.port) == mine
    }
    return sorted((found - {box}).intersection(names))


def refuse_unlocated(box: str, endpoint: dict[str, Any]) -> None:
    """TenantFailure if the box cannot be connected to now."""
    if endpoint["host"] != NOWHERE:
        return
    state = endpoint["state"]
    said = endpoint["problem"] or f"the provider says it is {state}"
    what = f"it cannot be reached: {said}"
    if state == "absent":
        what = "the provider lists no box of this name and project"
    raise TenantFailure(
        "unreachable",
        what,
        box=box,
        safe="nothing was connected to",
        fix="run the provision playbook for it",
    )

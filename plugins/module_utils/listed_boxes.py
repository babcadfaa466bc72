# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An account's boxes as the inventory plugins show them: plain values that can be cached, and who declares which.

A box is *declared* when an inventory host has its name and project. It enriches that host. Of each name the box that
counts is meant; the older ones are listed with it as superseded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Sequence

from . import box_endpoint, last_contact
from .box import records
from .failures import TenantFailure
from .ghosts import real_boxes
from .rented_box import Box, seniority
from .state_store import StateStore

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """How the boxes of a market are shown.

    :param to_box: the box in a row of the provider's.
    :param facts: what is told of a box, as its modules tell it.
    :param stranger: the facts of one without our stamp: enough to be recognised, nothing to connect to.
    """

    to_box: Callable[[Any], Box]
    facts: Callable[[Any, float | None], dict[str, Any]]
    stranger: tuple[str, ...]


@dataclass(frozen=True)
class Sorted:
    """The rows by what the inventory does with them.

    ``declared`` maps a host's name to its row; ``undeclared`` are ours but no host's; ``strangers`` carry no stamp.
    """

    declared: dict[str, Row]
    undeclared: list[Row]
    strangers: list[Row]


def account_digest(client: Any) -> str:
    """What tells accounts apart in a cache, without their keys."""
    return hashlib.sha256(f"{client.base_url}\0{client.key}".encode()).hexdigest()[:16]


def ask(client: Any, shown: Shown, allow_empty: bool = False, store: StateStore | None = None) -> dict[str, Any]:
    """Every box of the account, with when it was asked; plain JSON without any secret.

    :param client: whose ``list_instances`` tells rows with an id each.
    :param store: what tells which boxes we destroyed; a list may lag behind and still show them.
    :raises TenantFailure: for a list that is partial or malformed, and for an empty one unless ``allow_empty``, which
        is believed only when two answers agree.
    """
    observed_at = records.utc_now()
    rows = client.list_instances() or client.list_instances()
    if not rows and not allow_empty:
        raise TenantFailure(
            "provider",
            "the provider lists no instance at all, in two answers",
            safe="nothing was concluded from it",
            fix="if the account has none, write allow_empty: true into the inventory source; else try again",
        )
    boxes = real_boxes(client, store, map(shown.to_box, rows))
    return {"account": account_digest(client), "observed_at": observed_at, "boxes": _rows(client, shown, boxes)}


def is_usable(answer: object, client: Any) -> bool:
    """Whether a cached answer is one of :func:`ask` for this very account."""
    if not isinstance(answer, Mapping) or answer.get("account") != account_digest(client):
        return False
    rows = answer.get("boxes")
    return isinstance(rows, list) and all(isinstance(row, Mapping) and "provider_id" in row for row in rows)


def _rows(client: Any, shown: Shown, boxes: Sequence[Box]) -> list[dict[str, Any]]:
    now = client.provider_now()
    named: dict[tuple[str, str], list[Box]] = {}
    for box in boxes:
        if box.stamp is not None:
            named.setdefault((box.stamp.project, box.stamp.box), []).append(box)
    older: dict[str, list[Box]] = {}
    for group in named.values():
        first, *rest = sorted(group, key=seniority)
        older[first.provider_id] = rest
    return [_row(shown, box, now, older.get(box.provider_id)) for box in boxes]


def _row(shown: Shown, box: Box, now: float | None, superseded: Sequence[Box] | None) -> dict[str, Any]:
    row = dict(shown.facts(box, now), label=box.label, is_leaving=box.is_leaving, is_current=superseded is not None)
    if box.stamp is None:
        return {name: row[name] for name in (*shown.stranger, "label")}
    row["superseded"] = [
        {"provider_id": old.provider_id, "generation": old.generation, "state": old.state} for old in superseded or []
    ]
    return row


def sort_out(rows: Iterable[Row], projects: Mapping[str, str]) -> Sorted:
    """Who declares which box.

    :param projects: the project of each inventory host that may declare a box of this market.
    """
    found = Sorted({}, [], [])
    names = {(project, host) for host, project in projects.items()}
    for row in rows:
        if not row.get("stamp"):
            found.strangers.append(row)
        elif (row["project"], row["name"]) not in names:
            found.undeclared.append(row)
        elif row["is_current"]:
            found.declared[row["name"]] = row
    return found


def undeclared_name(row: Row) -> str:
    """The inventory name of a box that nobody declares: its own, but never that of a host somebody may declare."""
    return f"{row['project']}.{row['name']}.g{row['generation']}.{row['provider_id']}"


def stranger_name(row: Row) -> str:
    return f"unstamped.{row['provider_id']}"


def connection_of(row: Row, store: StateStore | None) -> dict[str, Any]:
    """Connection variables of an undeclared box. It is reached only if its host key was pinned before."""
    reachable = bool(row["host"]) and row["state"] in box_endpoint.REACHABLE_STATES
    options = ["StrictHostKeyChecking=yes", f"HostKeyAlias={box_endpoint.alias(row['name'], row['generation'])}"]
    options += ["ForwardAgent=no", "ForwardX11=no"]
    if store is not None:
        options.append(f'UserKnownHostsFile="{store.known_hosts_path(row["name"])}"')
    return {
        "ansible_host": row["host"] if reachable else box_endpoint.NOWHERE,
        "ansible_port": row["port"] if reachable else 22,
        "ansible_user": row["user"] or "root",
        "ansible_ssh_common_args": " ".join(f"-o {option}" for option in options),
    }


def runs_on(store: StateStore, row: Row) -> list[str]:
    """The runs that this very machine was last known to hold; damaged records hold none that could be named."""
    # Ansible compiles a collection's files anew in each process: an inventory without a state store is spared these.
    from .evidence import named_runs

    place = (row["project"], row["name"], row["generation"])
    found: set[str] = set()
    contact = _record(store.contact_path(*place), "contact", row)
    found.update(last_contact.parse(contact.get("runs")) or {})
    found.update(named_runs(_record(store.seal_path(*place), "seal-reading", row)))
    return sorted(found)


def _record(path: str, name: str, row: Row) -> dict[str, Any]:
    try:
        record = records.read_record_or_none(path, name)
    except records.RecordError:
        return {}
    return record if record and str(record.get("provider_id")) == row["provider_id"] else {}

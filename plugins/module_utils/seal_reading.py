# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Reading a box's seal: what it promises, which runs it knows, and what lives on it right now. Changes nothing.

The box is a stranger's, so its answer is a claim. The gate believes what it can re-read at home: the claim only says
which digests must be found there.
"""

from __future__ import annotations

import os
from typing import Any, Mapping

from .box import attempt, index, records
from .box.layout import Layout
from .box.names import UnsafeName, check_name
from .state_store import BoxIdentity, StateStore

_MOST_NAMES = 1000


def read_box(tenant_root: str) -> dict[str, Any]:
    """On the box: ``{seal, index, live_cells, unlisted_runs, problems}``. A damaged record is a problem, not None."""
    layout, problems = Layout(tenant_root), []
    found: dict[str, Any] = {"seal": None, "index": None}
    for name, read in (("seal", _read_seal), ("index", index.read)):
        try:
            found[name] = read(layout)
        except records.RecordError as error:
            problems.append(str(error))
    listed = set(index.run_ids(found["index"]))
    present = _folders(layout.path("runs"))
    return dict(
        found,
        live_cells=_live_cells(layout, present),
        unlisted_runs=[run_id for run_id in present if run_id not in listed],
        problems=problems,
    )


def _read_seal(layout: Layout) -> dict[str, Any] | None:
    return records.read_record_or_none(layout.seal, "seal")


def _folders(path: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name)))[:_MOST_NAMES]
    except OSError:
        return []


def _live_cells(layout: Layout, run_ids: list[str]) -> list[str]:
    """``run/cell/aN`` of every attempt whose shim or trainer lives, whatever the index says of it."""
    live = []
    for run_id in filter(_is_name, run_ids):
        for cell in filter(_is_name, _folders(layout.run_dir(run_id))):
            for number in layout.attempt_numbers(run_id, cell):
                if attempt.is_alive(layout.attempt(run_id, cell, number)):
                    live.append(f"{run_id}/{cell}/a{number}")
    return live


def _is_name(text: str) -> bool:
    try:
        check_name("name", text)
    except UnsafeName:
        return False
    return True


def as_record(identity: BoxIdentity, read_at: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The seal reading that the store keeps. ``read_at`` is when the question was sent, by the controller's clock."""
    return {
        "schema": records.schema("seal-reading"),
        "read_at": read_at,
        "reachable": True,
        "project": identity.project,
        "box": identity.box,
        "generation": identity.generation,
        "provider_id": identity.provider_id,
        "seal": answer.get("seal"),
        "index": answer.get("index"),
        "live_cells": answer.get("live_cells"),
        "unlisted_runs": answer.get("unlisted_runs"),
        "problems": answer.get("problems"),
    }


def save(store: StateStore, identity: BoxIdentity, reading: Mapping[str, Any]) -> dict[str, Any]:
    path = store.seal_path(identity.project, identity.box, identity.generation)
    return records.write_record(path, "seal-reading", dict(reading))

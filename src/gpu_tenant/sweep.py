# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Sharing out the cells of a run among boxes, and moving those of a box that is given up.

A share is a run of its own: its own id, results, receipts and evidence, so no two boxes ever write to one path, and all
that works for a run works for a share. The spec of a share lies in ``.tenant``, which is never part of the code, so
that a new share changes no other.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import sweeps
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.cell_split import split_cells
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName, check_name
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress import parse_lines
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.ledger import Ledger
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

SAFE = "nothing was changed"
_FOLDER = ".tenant/sweeps"
_TAIL_BYTES = 65536


def split(
    spec_path: str, boxes: Sequence[str], costs: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, Any]:
    """The sweep of a run spec: a share for each box that gets a cell.

    :param costs: seconds of a cell, as far as they were measured; the others count as the median of these.
    :param weights: the speed of a box beside the others.
    """
    spec = load_run_spec(spec_path)
    if spec["parts"] or spec["nodes"]:
        raise _refused(
            f"run {spec['id']} trains on several boxes as one already", "give a spec without parts and nodes"
        )
    cells = [str(cell["id"]) for cell in spec["cells"]]
    usual = statistics.median(costs.values()) if costs else 1.0
    priced = [{"id": cell, "cost": costs.get(cell, usual)} for cell in cells]
    try:
        shared = split_cells(priced, list(boxes), dict(weights))
    except ValueError as error:
        raise _refused(str(error), "correct the boxes or their weights") from error
    shares = {}
    for box, mine in shared.items():
        if mine:
            name = _share_id(spec["id"], box)
            seconds = sum(float(one["cost"]) for one in mine) if costs else None
            shares[name] = {"box": box, "cells": [str(one["id"]) for one in mine], "expected_s": seconds}
    return {"sweep_id": spec["id"], "spec_sha256": spec["spec_sha256"], "cells": cells, "shares": shares}


def move(sweep: Mapping[str, Any], box: str, home: Iterable[str], boxes: Sequence[str]) -> dict[str, Any]:
    """The sweep once ``box`` is given up: what it brought home stays its own, the rest goes to ``boxes``.

    :param home: the cells that are home already.
    """
    safe = set(home)
    takers = [name for name in boxes if name != box]
    shares = {name: dict(share) for name, share in sweep["shares"].items()}
    lost = [name for name, share in shares.items() if share["box"] == box and not share.get("given_up")]
    if not lost:
        raise _refused(f"{box} has no share of sweep {sweep['sweep_id']}", "name one of the boxes that have one")
    orphaned = [cell for name in lost for cell in shares[name]["cells"] if cell not in safe]
    if orphaned and not takers:
        raise _refused(f"there is no other box for the cells of {box}", "give more boxes with -l")
    for name in lost:
        kept = [cell for cell in shares[name]["cells"] if cell in safe]
        shares[name] = {**shares[name], "cells": kept, "given_up": True}
    turn = 1 + max(int(share.get("turn") or 1) for share in shares.values())
    for taker, mine in split_cells(orphaned, takers).items() if orphaned else ():
        if mine:
            share = {"box": taker, "cells": [str(cell) for cell in mine], "expected_s": None, "turn": turn}
            shares[_share_id(str(sweep["sweep_id"]), f"{taker}.m{turn}")] = share
    return {**sweep, "shares": shares}


def _share_id(sweep_id: str, suffix: str) -> str:
    try:
        return check_name("run", f"{sweep_id}.{suffix}")
    except UnsafeName as error:
        raise _refused(str(error), "give the run a shorter id: a share is called ID.BOX") from error


def _refused(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe=SAFE, fix=fix)


# --- specs of shares ------------------------------------------------------------------------------------------------


def spec_path_of(spec_path: str, run_id: str, sweep_id: str) -> Path:
    return Path(spec_path).resolve().parent / _FOLDER / sweep_id / f"{run_id.removeprefix(sweep_id + '.')}.yml"


def write_specs(spec_path: str, sweep: Mapping[str, Any]) -> list[Path]:
    """A run spec for every share that has a box; one that lies there already is left, for it may be at work."""
    text = Path(spec_path).resolve().read_text(encoding="utf-8")
    written = []
    for run_id, share in sorted(sweep["shares"].items()):
        path = spec_path_of(spec_path, run_id, str(sweep["sweep_id"]))
        if share.get("given_up") or path.exists():
            continue
        way_back = os.path.relpath(Path(spec_path).resolve().parent, path.parent)
        spec = _share_spec(yaml.safe_load(text), run_id, share, way_back)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
        header = (
            f"# A share of sweep {sweep['sweep_id']}, made by gpu-tenant sweep; changed, it would be another run.\n"
        )
        records.write_bytes(str(path), (header + body).encode(), 0o644)
        written.append(path)
    return written


def _share_spec(spec: dict[str, Any], run_id: str, share: Mapping[str, Any], way_back: str) -> dict[str, Any]:
    code = dict(spec.get("code") or {})
    code["path"] = os.path.join(way_back, str(code.get("path", ".")))
    wanted = set(share["cells"])
    cells = [cell for cell in spec.get("cells") or [] if str(cell.get("id")) in wanted]
    kept = {name: value for name, value in spec.items() if name not in ("id", "code", "cells", "candidates")}
    # A spec without cells has the one that is called main, and then only one share exists.
    return {"id": run_id, "code": code, **({"cells": cells} if cells else {}), **kept}


# --- what was measured ----------------------------------------------------------------------------------------------


def state_of(
    store: StateStore, project: str, sweep: Mapping[str, Any]
) -> tuple[list[sweeps.Home], list[sweeps.Problem]]:
    """What is home of a sweep, and what keeps it from being whole."""
    homes = sweeps.homes(store, project, sweep, Ledger(Journal(store).lines()))
    return homes, sweeps.reconcile(sweep, homes)


def cells_home(homes: Iterable[sweeps.Home]) -> set[str]:
    """The cells with a done record in a copy that is sound."""
    return {
        file.path.split("/")[0]
        for home in homes
        if not home.problems and not home.broken
        for file in home.files
        if file.path.endswith("/done.json") and file.path.count("/") == 2
    }


def measured(store: StateStore, project: str, sweep_id: str, cells: Iterable[str]) -> dict[str, float]:
    """Seconds that cells of these names trained, by the metrics of earlier runs at home: of this run, or its shares."""
    wanted = set(cells)
    found: dict[str, float] = {}
    folder = Path(store.path("receipts", project))
    names = [path.name for path in sorted(folder.glob("*"))]
    ours = [name for name in names if name == sweep_id or name.startswith(f"{sweep_id}.")]
    earlier: dict[str, Any] = {"cells": [], "shares": {name: {"cells": []} for name in ours}}
    for home in sweeps.homes(store, project, earlier, Ledger(Journal(store).lines())):
        for file in home.files:
            cell, _slash, rest = file.path.partition("/")
            if cell in wanted and file.role == "metrics" and rest.endswith("metrics.jsonl"):
                seconds = _trained_s(Path(home.where, file.path))
                if seconds is not None:
                    found[cell] = max(seconds, found.get(cell, 0.0))
    return found


def _trained_s(path: Path) -> float | None:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - _TAIL_BYTES))
            lines = parse_lines(stream.read(), cut=size > _TAIL_BYTES)
    except OSError:
        return None
    told = [line["trained_s"] for line in lines if isinstance(line.get("trained_s"), (int, float))]
    seconds = float(told[-1]) if told else 0.0
    return seconds if 0 < seconds < float("inf") else None


def as_json(event: str, **values: Any) -> str:
    return json.dumps({"event": event, **values}, sort_keys=True, default=str)

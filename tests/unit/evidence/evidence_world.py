# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A small world in which every piece of evidence is home, for tests to take pieces out of."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, gate, losses, receipts, roster, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

IDENTITY = BoxIdentity("demo", "box1", 2, "4711")
DESTROY = "destroy"
BOOT = "0b7e2a52-0000-4000-8000-000000000001"


def later(text: str, seconds: float) -> str:
    return records.utc_text(records.parse_utc(text) + datetime.timedelta(seconds=seconds))


def entry(path: str, data: bytes, loader: str = "none", role: str = "other") -> dict[str, Any]:
    return {
        "path": path,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "role": role,
        "loader": loader,
    }


def make_manifest(run_id: str, files: list[dict[str, Any]], identity: BoxIdentity = IDENTITY, **more: Any) -> Any:
    record = {
        "schema": records.schema("manifest"),
        "project": identity.project,
        "run_id": run_id,
        "spec_sha256": "5" * 64,
        "box": identity.box,
        "generation": identity.generation,
        "created_at": "2026-11-21T03:00:00Z",
        "files": files,
        "totals": {"files": len(files)},
        "works": {name: {"config_sha256": "c" * 64, "present": True} for name in _attempts_of(files)},
        **more,
    }
    return dict(record, digest=roster.manifest_digest(record))


def _attempts_of(files: list[dict[str, Any]]) -> set[str]:
    return {"/".join(str(line["path"]).split("/")[:2]) for line in files if isinstance(line, dict) and "path" in line}


_MODEL = "c0/a1/out/model.bin"
FINISHED = {
    _MODEL: b"weights",
    "c0/a1/done.json": json.dumps({"artifacts": [entry(_MODEL, b"weights")]}).encode(),
}


class World:
    """A store and a results folder. ``now`` is fixed, so that ages are exact."""

    def __init__(self, tmp_path: Path) -> None:
        self.now = records.utc_now()
        self.store = StateStore(str(tmp_path / "state"))
        self.results = tmp_path / "results"
        self.identity = IDENTITY
        self.digests: dict[str, str] = {}
        self.store.update_box(
            "demo",
            "box1",
            2,
            provider_id="4711",
            created_at="2026-11-21T01:00:00Z",
            deploy_started_at="2026-11-21T01:10:00Z",
        )

    # --- results and receipts ---

    def root(self, run_id: str) -> Path:
        return self.results / "demo" / run_id / "box1" / "g2"

    def bring_home(self, run_id: str, contents: dict[str, bytes] | None = None) -> roster.Manifest:
        contents = contents or FINISHED
        for path, data in contents.items():
            place = self.root(run_id) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        files = [
            entry(path, data, "json" if path.endswith(".json") else "none") for path, data in sorted(contents.items())
        ]
        record = make_manifest(run_id, files)
        records.write_record(str(self.root(run_id) / "manifest.json"), "manifest", record)
        self.digests[run_id] = record["digest"]
        return roster.parse_manifest(record)

    def claim(self, manifest: roster.Manifest, **changes: Any) -> receipts.Claim:
        values = {"identity": self.identity, "root": str(self.root(manifest.run_id)), "run_state": "done", **changes}
        return receipts.Claim(manifest=manifest, **values)

    def give_receipt(self, run_id: str = "r1", **changes: Any) -> str:
        manifest = self.bring_home(run_id)
        receipts.establish(self.store, self.claim(manifest, **changes))
        return self.store.receipt_path("demo", run_id, "box1", 2)

    # --- the seal ---

    def promise(self, name: str, runs: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
        return {"schema": records.schema(name), **self.identity.as_dict(), "epoch": 1, "runs": runs, **changes}

    def reading(self, **changes: Any) -> dict[str, Any]:
        sealed = [
            {"run_id": run, "spec_sha256": "5" * 64, "state": "done", "manifest_digest": digest}
            for run, digest in self.digests.items()
        ]
        index = [{"run_id": run, "spec_sha256": "5" * 64, "cells": ["c0"]} for run in self.digests]
        answer = {
            "seal": self.promise("seal", sealed),
            "index": self.promise("index", index),
            "live_cells": [],
            "unlisted_runs": [],
            "checkpoints": {run: {"c0": {"step": None, "done": True}} for run in self.digests},
            "durable": [],
            "boot_id": BOOT,
            "problems": [],
        }
        return {**seal_reading.as_record(self.identity, self.now, answer), **changes}

    def save_reading(self, **changes: Any) -> None:
        seal_reading.save(self.store, self.identity, self.reading(**changes))

    # --- power ---

    def park(self, after_s: float = 5, **changes: Any) -> None:
        """We stopped the box this long after :attr:`now`, when its seal is read."""
        self.store.update_box("demo", "box1", 2, parked_at=later(self.now, after_s), **changes)

    # --- approvals and decisions ---

    def approve(self, binds: dict[str, Any] | None = None, **changes: Any) -> str:
        values: dict[str, Any] = {
            "identity": self.identity,
            "verb": DESTROY,
            "binds": {"kind": "digest", "digests": dict(self.digests)} if binds is None else binds,
            "approver": "ada",
            "source": {"kind": "cli", "ref": "test"},
            "reason": "the paper is out",
            "now": self.now,
            **changes,
        }
        return str(approvals.give(self.store, **values)["id"])

    def approve_loss(self, **changes: Any) -> str:
        """Consent to just what would be lost by the evidence as it is."""
        return self.approve(losses.of(self.evidence(**changes)).as_binds())

    def view(self, state: str = "running", started_at: str | None = None) -> gate.ProviderView:
        return gate.ProviderView(state, started_at, self.now)

    def evidence(self, keeps: list[str] | None = None, **changes: Any) -> gate.Evidence:
        values: dict[str, Any] = {
            "identity": self.identity,
            "verb": DESTROY,
            "provider": self.view(),
            "now": self.now,
            **changes,
        }
        return gate.gather(self.store, keeps=keeps or [], **values)

    def decide(self, keeps: list[str] | None = None, **changes: Any) -> gate.Decision:
        return gate.decide(self.evidence(keeps, **changes))

    def complete(self) -> World:
        """Everything that the gate asks for, for two runs."""
        self.give_receipt("r1")
        self.give_receipt("r2")
        self.save_reading()
        self.approve()
        return self


def edit_json(path: str, **changes: Any) -> None:
    """Change a record behind the program's back."""
    with open(path, encoding="utf-8") as stream:
        record = json.load(stream)
    record.update(changes)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(record, stream)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside a record, however deep."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [path for key, child in children for path in places(child, (*at, key))]


def value_at(record: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        record = record[key]
    return record


def replaced(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    value_at(changed, path[:-1])[path[-1]] = value
    return changed


def without(record: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    del value_at(changed, path[:-1])[path[-1]]
    return changed

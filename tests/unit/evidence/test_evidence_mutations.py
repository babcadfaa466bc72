# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A wrong condition in what gathers the evidence is found: in the reading of the store, and of the box's seal."""

from __future__ import annotations

import json
import os
import shutil
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    evidence,
    gate,
    last_contact,
    power_record,
    receipts,
    seal_reading,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, control, records, run_record
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import SYSTEM, Refused
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from evidence_world import IDENTITY, World, edit_json, entry, make_manifest
from mutants import no_waiting_for_disks, survivors

# --- the state store ----------------------------------------------------------------------------------------------


class Archive:
    """A store with records of six generations of a box, whole and wrong; only looked at, never changed."""

    def __init__(self, folder: Path) -> None:
        self.world = world = World(folder)
        world.give_receipt("r1")
        world.give_receipt("r2", run_state="failed")
        for run_id in ("r3", "r4", "r5", "r6"):
            world.give_receipt(run_id)
        store = world.store
        Path(store.receipt_path("demo", "r3", "box1", 2)).write_text("{")
        edit_json(store.receipt_path("demo", "r4", "box1", 2), files=99)
        edit_json(store.receipt_path("demo", "r5", "box1", 2), copies=["text", {"uri": "ftp://x/y"}])
        edit_json(store.receipt_path("demo", "r6", "box1", 2), copies={"uri": "file:///tmp"}, complete="yes")
        self._misplace("r7", "r1")
        self._misplace("r8", "r1", run_id="../up")
        shutil.copytree(store.path("receipts", "demo", "r1"), store.path("receipts", "demo", "-odd"))
        self._elsewhere("r2", BoxIdentity("demo", "box9", 1, "99"))
        self._elsewhere("r2", replace(IDENTITY, generation=3, provider_id="4712"))
        self._generations()
        world.save_reading()
        world.approve()
        Path(store.seal_path("demo", "box1", 4)).write_text("{")
        seal_reading.save(store, self.of(3), {"read_at": world.now, **self.of(3).as_dict()})
        edit_json(store.seal_path("demo", "box1", 3), read_at="later")
        last_contact.note(store, IDENTITY, {"seen": {"c0": Reached(4)}})
        last_contact.note(store, replace(self.of(3), provider_id="other"), {"foreign": {"c0": Reached(4)}})
        last_contact.note(store, self.of(4), {"odd": {"c0": Reached(4)}})
        edit_json(store.contact_path("demo", "box1", 4), runs={"odd": 7})
        Path(store.contact_path("demo", "box1", 5)).write_text("{")
        Journal(store).append("effect", "deploy_started", **self.of(3).as_dict())

    def _misplace(self, place_of: str, of: str, **changes: Any) -> None:
        place = Path(self.world.store.receipt_path("demo", place_of, "box1", 2))
        place.parent.mkdir(parents=True)
        shutil.copy(self.world.store.receipt_path("demo", of, "box1", 2), place)
        edit_json(str(place), **changes)

    def _elsewhere(self, run_id: str, who: BoxIdentity) -> None:
        receipt = records.read_record(self.world.store.receipt_path("demo", run_id, "box1", 2), "receipt")
        receipts.write(self.world.store, who, {**receipt, **who.as_dict()})

    def _generations(self) -> None:
        update, moment = self.world.store.update_box, self.world.now
        update("demo", "box1", 1, provider_id="4710", admitted_at=moment)
        update("demo", "box1", 3, provider_id="4712", admitted_at=moment)
        update("demo", "box1", 4, provider_id="4713", admitted_at=None)
        update("demo", "box1", 5, provider_id="", admitted_at=moment)
        Path(self.world.store.box_record_path("demo", "box1", 6)).write_text("{")

    @staticmethod
    def of(generation: int) -> BoxIdentity:
        return BoxIdentity("demo", "box1", generation, str(4709 + generation))

    def look(self) -> Iterator[Any]:
        yield from self._lists()
        asked: list[dict[str, Any]] = [{}, {"keeps": ["disk"]}, {"keeps": ["disk"], "gated_tiers": ["fs"]}]
        asked += [{"keeps": ["disk", "fs"], "gated_tiers": ["fs"]}, {"reading": {"index": None}}, {"reading": {}}]
        asked += [{"identity": self.of(generation)} for generation in (1, 3, 4, 5, 6)]
        asked += [{"identity": replace(IDENTITY, box="box7")}, {"identity": replace(IDENTITY, provider_id="1")}]
        for changes in asked:
            found = self.world.evidence(**changes)
            yield found
            yield (found.subject, found.summary())
        with mock.patch.object(records, "utc_now", return_value="2026-11-21T03:00:07Z"):
            found = self.world.evidence(now=None)
        yield found.now
        # The moment that is given is soon the present one, where the scene is set within its second.
        yield self.world.evidence(now="2026-11-21T03:00:08Z").now
        try:
            self.world.evidence(keeps="disk")  # type: ignore[arg-type]  # what is refused
        except TypeError as error:
            yield str(error)

    @staticmethod
    def _lists() -> Iterator[Any]:
        run = {"run_id": "r1"}
        lists: list[Any] = [None, [], [run], [run, 7], [run, run], [run, {"run_id": "r2"}], [{"run_id": "../r"}], [{}]]
        for odd in (None, 7, {}, *({"runs": runs} for runs in lists)):
            yield evidence.runs_of(odd)
            yield evidence.named_runs({"index": odd, "seal": {"runs": [{"run_id": "r9"}]}})
        yield evidence.named_runs(None)


# --- the box ------------------------------------------------------------------------------------------------------


class SealedBox:
    """Boxes as a supervisor and a stranger leave them: sealed, then written to; half-written; full of odd names."""

    CELLS: tuple[dict[str, Any], ...] = ({"id": "c1", "args": [], "seed": 1}, {"id": "c2", "args": [], "seed": 2})

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(str(folder / "box"))
        for run_id in ("r", "quiet", "broken", "moved", "shrunk"):
            self._register(run_id, str(folder) if run_id == "quiet" else "/nowhere/at/all")
        self._train()
        self._seal()
        self._write_on()
        self.retouched = self._retouched()
        self._strangers()
        self.empty = Layout(str(folder / "empty"))
        self.damaged = Layout(str(folder / "damaged"))
        os.makedirs(self.damaged.root)
        for path in (self.damaged.seal, self.damaged.index):
            Path(path).write_text("{")
        Path(self.damaged.path("runs")).write_text("")
        self.odd = Layout(str(folder / "odd"))
        os.makedirs(self.odd.root)
        records.write_record(self.odd.seal, "seal", {"runs": "none"})

    def _register(self, run_id: str, mount: str) -> None:
        control.register(self.layout, control.Caller(()), {
            "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": run_id,
            "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"],
            "workdir": "/", "cells": list(self.CELLS), "durable": {"kind": "mount", "path": mount},
            "artifacts": [{"glob": "*.bin", "role": "other", "loader": "none"},
                          {"glob": "*.ckpt", "role": "checkpoint", "loader": "none"}],
        })  # fmt: skip

    def _file(self, run_id: str, relative: str, data: bytes = b"12345") -> Path:
        place = Path(self.layout.run_dir(run_id), relative)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return place

    def _train(self) -> None:
        for name in ("same", "touched", "changed", "longer", "gone", "linked", "folder", "pipe"):
            self._file("r", f"c1/a1/out/{name}.bin")
        for step in (4, 10, 9):
            self._file("r", f"c1/a1/out/checkpoints/step-{step}.pt")
        self._file("r", "c1/a2/out/checkpoints/step-7.pt")
        self._file("r", "c1/a2/done.json", b"{}")
        self._file("r", "c1/a10/run.log")
        self._file("r", "c2/a1/out/checkpoints/step-0.pt")
        self._file("r", "c2/a1/alive")
        self._file("r", "c2/a2/unsaid")
        self._file("r", "c2/notes")
        # One of them of the present work, and what an earlier one left.
        run = run_record.read_run(self.layout, "r")
        for cell, config in (("c1", "e" * 64), ("c2", attempt.present_work(run, "c2"))):
            claim = {"config_sha256": config}
            records.write_record(self.layout.attempt("r", cell, 2 if cell == "c1" else 1).claim, "claim", claim)
        self._file("quiet", "c1/a1/out/same.bin")
        self._file("quiet", "c1/a1/out/nameless.ckpt")
        for run_id in ("moved", "shrunk"):
            self._file(run_id, "c1/a1/out/same.bin")

    def _seal(self) -> None:
        """As the supervisor does, for artifacts of this scene's choice."""
        runs = []
        for run_id in ("r", "quiet", "moved", "shrunk"):
            found = sorted(Path(self.layout.attempt(run_id, "c1", 1).output).glob("*.bin"))
            files = [entry(f"c1/a1/out/{path.name}", path.read_bytes()) for path in found]
            record = make_manifest(run_id, files, BoxIdentity("p", "b1", 1, "7"))
            records.write_record(self.layout.run_manifest(run_id), "manifest", record)
            runs.append({"run_id": run_id, "manifest_digest": record["digest"]})
        odd: list[Any] = ["text", {"run_id": 7}, {"run_id": "../up"}, {"run_id": "never", "manifest_digest": "0" * 64}]
        records.write_record(self.layout.seal, "seal", {"runs": [*runs, *odd]})

    def _write_on(self) -> None:
        out = Path(self.layout.attempt("r", "c1", 1).output)
        self._later(out / "touched.bin", b"12345")
        self._later(out / "changed.bin", b"54321")
        self._later(out / "longer.bin", b"123456")
        self._later(out / "new.bin", b"new")
        for name in ("gone", "linked", "folder", "pipe"):
            (out / f"{name}.bin").unlink()
        (out / "linked.bin").symlink_to("same.bin")
        (out / "folder.bin").mkdir()
        os.mkfifo(out / "pipe.bin")
        edit_json(self.layout.run_manifest("moved"), digest="0" * 64)
        edit_json(self.layout.run_manifest("shrunk"), files=[])
        Path(self.layout.run_record("broken")).write_text("{")

    def _later(self, path: Path, data: bytes) -> None:
        """Written after the seal by the clock of the file system, which ticks a few hundred times a second."""
        sealed, deadline = os.lstat(self.layout.seal).st_ctime_ns, time.monotonic() + 600
        while True:
            path.write_bytes(data)
            if os.lstat(path).st_ctime_ns > sealed:
                return
            assert time.monotonic() < deadline, "the file system's clock stands still"

    def _retouched(self) -> Layout:
        """As after a change of the seal's mode: by its time nothing was written after it."""
        layout = Layout(str(self.folder / "retouched"))
        shutil.copytree(self.layout.root, layout.root, symlinks=True, ignore=shutil.ignore_patterns("pipe.bin"))
        newest = max(os.lstat(path).st_ctime_ns for path in Path(layout.root).rglob("*"))
        deadline = time.monotonic() + 600
        while os.lstat(layout.seal).st_ctime_ns <= newest:
            os.utime(layout.seal)
            assert time.monotonic() < deadline, "the file system's clock stands still"
        return layout

    def _strangers(self) -> None:
        for name in ("stray", "-odd", "with blank"):
            Path(self.layout.path("runs", name, "c1", "a1")).mkdir(parents=True)
            Path(self.layout.path("runs", name, "c1", "a1", "alive")).write_text("")
        Path(self.layout.path("runs", "a file")).write_text("")
        Path(self.layout.run_dir("r"), "bad cell", "a1").mkdir(parents=True)

    def look(self) -> Iterator[Any]:
        with mock.patch.object(attempt, "is_alive", self._is_alive):
            layouts = (self.layout, self.retouched, self.empty, self.damaged, self.odd)
            found = [self._read(layout) for layout in layouts]
            found.append(self._cut_short("_MOST_PROBLEMS", 2))
        yield from found
        yield from self._kept()
        sealed = os.lstat(self.layout.seal).st_ctime_ns
        yield [seal_reading._is_newer(self.layout.seal, moment) for moment in (sealed - 1, sealed, sealed + 1)]

    @staticmethod
    def _is_alive(paths: AttemptPaths) -> bool:
        if os.path.exists(os.path.join(paths.folder, "unsaid")):
            raise Refused(SYSTEM, "this disk cannot say who holds a lock", "")
        return os.path.exists(os.path.join(paths.folder, "alive"))

    def _cut_short(self, limit: str, number: int) -> dict[str, Any]:
        with mock.patch.object(seal_reading, limit, number):
            return self._read(self.layout)

    @staticmethod
    def _read(layout: Layout) -> dict[str, Any]:
        return seal_reading.read_box(layout.root)

    def _kept(self) -> Iterator[Any]:
        answer = {"seal": {"runs": []}, "index": None, "live_cells": [], "surplus": 1}
        yield seal_reading.as_record(IDENTITY, "2026-11-21T03:00:00Z", answer)
        yield seal_reading.as_record(IDENTITY, "2026-11-21T03:00:00Z", {**answer, "live_cells": float("nan")})
        store = World(self.folder / "world").store
        with mock.patch.object(records, "utc_now", return_value="2026-11-21T03:00:07Z"):
            saved = seal_reading.save(store, IDENTITY, {"read_at": "2026-11-21T03:00:00Z", **IDENTITY.as_dict()})
        yield saved
        yield json.loads(Path(store.seal_path("demo", "box1", 2)).read_text())
        line = Journal(store).lines()[-1]
        yield {key: line.get(key) for key in ("kind", "verb", "sha256", "generation")}
        yield [self._stop_after_reading(store, at_rest) for at_rest in (None, {"sealed_by": "controller"})]
        shutil.rmtree(store.root)

    @staticmethod
    def _stop_after_reading(store: StateStore, at_rest: Mapping[str, str] | None) -> object:
        """What is left of a stop whose sender died, once the box has answered, or only a copy of it was read."""
        store.update_box(IDENTITY.project, IDENTITY.box, IDENTITY.generation, provider_id=IDENTITY.provider_id)
        power_record.note_stopping(store, IDENTITY, 60.0)
        reading = {"read_at": records.utc_now(), **IDENTITY.as_dict(), **({"at_rest": at_rest} if at_rest else {})}
        seal_reading.save(store, IDENTITY, reading)
        left = power_record.read(store, IDENTITY)
        return left is not None and left.get("stopping") is not None


SCENES: dict[str, tuple[types.ModuleType, Callable[[Path], Any]]] = {
    "evidence": (evidence, Archive),
    "seal_reading": (seal_reading, SealedBox),
}
# Mutants that are no other program, each with the reason.
EQUIVALENT: dict[str, str] = {
    "seal_reading._broken_promises: isinstance(run_id, str) and _is_name(run_id) #1": (
        "a name is a text; the type checker wants to be told"
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with no_waiting_for_disks():
        yield


@pytest.mark.parametrize("name", sorted(SCENES))
def test_every_mutant_of_what_gathers_the_evidence_is_found(name: str, tmp_path: Path) -> None:
    module, stage = SCENES[name]
    alive, of = survivors({name: stage(tmp_path).look}, module)
    assert [where for where in alive if where not in EQUIVALENT] == [], f"of {of}"


def test_the_scene_of_the_store_holds_what_the_gate_would_take(tmp_path: Path) -> None:
    """A scene in which nothing is whole would tell no mutant that opens from the original."""
    found = Archive(tmp_path).world.evidence()
    assert found.receipts["r1"].problem == ""
    assert found.receipts["r1"].copies[0].problems == ()
    assert sorted(run_id for run_id, one in found.receipts.items() if one.problem) == [
        "r3",
        "r4",
        "r5",
        "r6",
        "r7",
        "r8",
    ]
    assert [receipt.problem for receipt in found.elsewhere["r2"]] == ["", ""]
    assert not gate.decide(found).allowed

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Receipts as properties: whole or not in force, whatever is edited, torn, put back, forgotten or cut off.

Edits are drawn from the receipt's own structure, so that a field that it gains later is attacked without a new test.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, losses, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from evidence_world import World, entry, make_manifest, places, replaced, value_at, without
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mutants import no_waiting_for_disks

RICH = {
    "provenance": {"code": "c" * 64, "seeds": {"c0": 7}, "torch": "2.9.0", "cost": {"usd": 0.25, "how": "estimate"}},
    "not_pulled": {"files": 1, "bytes": 800, "listed": [{"path": "c0/a1/out/cache", "bytes": 800, "why": "unnamed"}]},
    "tool_version": "0.2.0",
    "parts": ("box1",),
}


class Home:
    """A world with four runs home and approved; what an example does to its records is undone before the next."""

    RUNS = ("r1", "r2", "r3", "r4")

    def __init__(self, folder: Path) -> None:
        self._world = world = World(folder)
        manifest = world.bring_home("r1")
        shutil.copytree(world.root("r1"), folder / "second")
        receipts.establish(world.store, world.claim(manifest, copies=[{"uri": (folder / "second").as_uri()}], **RICH))
        for run_id in self.RUNS[1:]:
            world.give_receipt(run_id)
        world.save_reading()
        world.approve()
        self._kept = {path: path.read_bytes() for path in self._files()}
        self.receipt = records.read_record(str(self.path("r1")), "receipt")

    def _files(self) -> list[Path]:
        return [path for path in Path(self._world.store.root).rglob("*") if path.is_file()]

    def path(self, run_id: str) -> Path:
        return Path(self._world.store.receipt_path("demo", run_id, "box1", 2))

    def whole(self, run_id: str) -> bytes:
        return self._kept[self.path(run_id)]

    def mended(self) -> World:
        for path in set(self._files()) - set(self._kept):
            path.unlink()
        for path, data in self._kept.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
        return self._world


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with no_waiting_for_disks():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    evidence = made.mended().evidence()
    assert gate.decide(evidence).allowed
    assert list(losses.copies_of_run(evidence, "r1")) == ["c0"]
    return made


def counts_nowhere(world: World, run_id: str = "r1") -> None:
    """Neither as evidence of this box nor as a copy of the run."""
    evidence = world.evidence()
    decision = gate.decide(evidence)
    assert not decision.allowed
    assert f"run {run_id}:" in " ".join(decision.missing)
    assert losses.copies_of_run(evidence, run_id) == {}


# --- written and read back ----------------------------------------------------------------------------------------

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=3)


@settings(max_examples=25)
@given(provenance=OBJECTS, listed=st.lists(OBJECTS, max_size=3), version=st.text(max_size=8))
def test_a_receipt_is_read_back_as_it_was_written(
    home: Home, provenance: dict[str, Any], listed: list[Any], version: str
) -> None:
    world = home.mended()
    receipts.withdraw(world.store, world.identity, "r1")
    says = {"provenance": provenance, "not_pulled": {"files": 1, "bytes": 2, "listed": listed}, "tool_version": version}
    claim = world.claim(roster.read_manifest(str(world.root("r1"))), **says)
    written = receipts.establish(world.store, claim).receipt
    found = records.read_record(str(home.path("r1")), "receipt")
    assert found == written
    assert (found["provenance"], found["not_pulled"], found["tool_version"]) == (provenance, listed, version)
    assert gate.decide(world.evidence()).allowed


# --- edited -------------------------------------------------------------------------------------------------------


def nudged(value: Any) -> Any:
    """A value of the same kind that says something else."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    if isinstance(value, list):
        return [*value, value[-1] if value else "box2"]
    return {**value, "foreign": 1} if isinstance(value, dict) else 0


def edits() -> dict[str, Callable[[dict[str, Any], tuple[Any, ...]], dict[str, Any]]]:
    return {
        "taken out": without,
        "nudged": lambda record, path: replaced(record, path, nudged(value_at(record, path))),
        "emptied": lambda record, path: replaced(record, path, type(value_at(record, path))()),
        "none": lambda record, path: replaced(record, path, None),
    }


@pytest.mark.parametrize("edit", sorted(edits()))
def test_law_2_no_receipt_counts_with_any_of_its_values_edited(home: Home, edit: str) -> None:
    before = records.canonical_json(home.receipt)
    tried = 0
    for path in places(home.receipt):
        edited = edits()[edit](home.receipt, path)
        if records.canonical_json(edited) != before:
            world = home.mended()
            home.path("r1").write_text(json.dumps(edited))
            counts_nowhere(world)
            tried += 1
    assert tried > 50, "the receipt has lost its fields"


@settings(max_examples=150)
@given(data=st.data())
def test_law_2_no_receipt_counts_with_several_values_forged(home: Home, data: st.DataObject) -> None:
    forged = home.receipt
    for _again in range(data.draw(st.integers(1, 3))):
        forged = replaced(forged, data.draw(st.sampled_from(places(forged))), data.draw(JSON))
    assume(records.canonical_json(forged) != records.canonical_json(home.receipt))
    world = home.mended()
    home.path("r1").write_text(json.dumps(forged))
    counts_nowhere(world)


@settings(max_examples=60)
@given(data=st.data())
def test_law_2_no_seal_reading_counts_with_any_of_its_values_edited(home: Home, data: st.DataObject) -> None:
    """Also the epoch of the seal, and whatever else the box said."""
    world = home.mended()
    path = Path(world.store.seal_path("demo", "box1", 2))
    reading = json.loads(path.read_bytes())
    edit = edits()[data.draw(st.sampled_from(["taken out", "nudged", "none"]))]
    edited = edit(reading, data.draw(st.sampled_from(places(reading))))
    assume(records.canonical_json(edited) != records.canonical_json(reading))
    path.write_text(json.dumps(edited))
    decision = world.decide()
    assert not decision.allowed
    assert str(path) in " ".join(decision.missing)


def test_law_2_a_receipt_of_an_earlier_version_is_known_by_the_line_that_it_has(home: Home) -> None:
    """Lines once had no hash of the whole; such a receipt counts, and an edit of what its line says still shows."""
    world = home.mended()
    lines = [dict(line) for line in Journal(world.store).lines()]
    for line in lines:
        if line["verb"] == "receipt":
            line.pop("sha256", None)
    Path(world.store.journal_path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert world.decide().allowed
    home.path("r1").write_text(json.dumps({**home.receipt, "bytes": home.receipt["bytes"] + 1}))
    counts_nowhere(world)


# --- torn ---------------------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(data=st.data())
def test_law_2_a_receipt_that_ends_at_any_byte_does_not_count_and_is_made_anew(home: Home, data: st.DataObject) -> None:
    world = home.mended()
    whole = home.path("r1").read_bytes()
    # Without its last byte, the line's end, it still says all that it said.
    home.path("r1").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    counts_nowhere(world)
    assert receipts.read(world.store, world.identity, "r1") is None


class PowerCut(BaseException):
    """The machine is off: nothing after this reaches the disk."""


@contextlib.contextmanager
def power_cut(after: int) -> Iterator[list[str]]:
    """Let ``after`` steps that change the disk happen and none that follows; the steps that were begun."""
    begun: list[str] = []

    def step(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **keywords: Any) -> Any:
            begun.append(name)
            if len(begun) > after:
                raise PowerCut
            return original(*args, **keywords)

        return act

    with contextlib.ExitStack() as stack:
        for owner, name in ((os, "replace"), (os, "unlink"), (os, "fsync"), (Journal, "append")):
            stack.enter_context(mock.patch.object(owner, name, step(name, getattr(owner, name))))
        yield begun


def test_law_1_a_power_cut_at_any_step_leaves_one_whole_receipt_or_none(home: Home, tmp_path: Path) -> None:
    """The run was harvested, trained on, and is harvested anew: cut after each step that changes the disk."""
    for after in itertools.count():
        world = World(tmp_path / str(after))
        path = Path(world.give_receipt("r1"))
        old = path.read_bytes()
        manifest = world.bring_home("r1", {"c0/a1/out/model.bin": b"further", "c0/a1/done.json": b"{}"})
        world.save_reading()
        world.approve()
        with power_cut(after) as begun, contextlib.suppress(PowerCut):
            receipts.establish(world.store, world.claim(manifest))
        if len(begun) <= after:
            break
        found = json.loads(path.read_bytes()) if path.exists() else {"manifest_digest": None}
        is_new = found["manifest_digest"] == manifest.digest
        assert is_new or found["manifest_digest"] is None or path.read_bytes() == old, begun
        assert world.decide().allowed == is_new, begun
        # The same command goes on where it was cut.
        receipts.establish(world.store, world.claim(manifest))
        assert world.decide().allowed, begun
    assert after > 5, "the receipt is written without a step that a cut could hit"


# --- put back, and forgotten --------------------------------------------------------------------------------------

CHECKPOINTS = st.lists(st.binary(min_size=1, max_size=6), min_size=2, max_size=4, unique=True)


@settings(max_examples=10)
@given(checkpoints=CHECKPOINTS)
def test_law_2_a_receipt_of_an_older_seal_never_covers_a_later_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: list[bytes]
) -> None:
    """Sealed, harvested, trained on, sealed again: each receipt opens the gate for its own seal, for no later one."""
    world = World(tmp_path_factory.mktemp("story"))
    path = Path(world.store.receipt_path("demo", "r1", "box1", 2))
    older: list[bytes] = []
    for data in checkpoints:
        contents = {"c0/a1/out/model.bin": data, "c0/a1/done.json": b"{}"}
        world.digests["r1"] = make_manifest("r1", _entries(contents))["digest"]
        world.save_reading()
        world.approve()
        assert not world.decide().allowed, "the box has a checkpoint that nobody harvested"
        manifest = world.bring_home("r1", contents)
        receipts.establish(world.store, world.claim(manifest))
        assert world.decide().allowed
        newest = path.read_bytes()
        for replayed in older:
            path.write_bytes(replayed)
            counts_nowhere(world)
        path.write_bytes(newest)
        older.append(newest)
    os.unlink(world.store.journal_path)
    assert world.decide().allowed
    for replayed in older[:-1]:
        path.write_bytes(replayed)
        assert not world.decide().allowed, "not even without a journal that knows better"


def _entries(contents: dict[str, bytes]) -> list[dict[str, Any]]:
    return [entry(path, data, "json" if path.endswith(".json") else "none") for path, data in sorted(contents.items())]


def _foreign(home: Home, path: Path) -> None:
    path.write_bytes(next(home.whole(run_id) for run_id in Home.RUNS if home.path(run_id) != path))


LOST: dict[str, Callable[[Home, Path], object]] = {
    "never written": lambda _home, path: path.unlink(),
    "withdrawn": lambda _home, path: path.rename(f"{path}.withdrawn"),
    "another run's": _foreign,
    "torn": lambda _home, path: path.write_bytes(path.read_bytes()[:-9]),
    "a folder": lambda _home, path: (path.unlink(), path.mkdir()),
}


@settings(max_examples=60)
@given(faults=st.dictionaries(st.sampled_from(Home.RUNS), st.sampled_from(sorted(LOST))))
def test_law_2_every_run_in_the_index_needs_a_receipt_of_its_own(home: Home, faults: dict[str, str]) -> None:
    world = home.mended()
    try:
        for run_id, fault in faults.items():
            LOST[fault](home, home.path(run_id))
        decision = world.decide()
    finally:
        for path in map(home.path, Home.RUNS):
            if path.is_dir():
                path.rmdir()
    assert decision.allowed == (not faults)
    named = {run_id for run_id in Home.RUNS if any(f"run {run_id}:" in why for why in decision.missing)}
    assert named == set(faults)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""No box of a sweep goes before every cell of it is home exactly once, and sound."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, roster, sweeps
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.sweeps import Home
from evidence_world import World, edit_json
from hypothesis import given, settings
from hypothesis import strategies as st


def files(*cells: str, attempt: int = 1) -> tuple[roster.RosterFile, ...]:
    found = []
    for cell in cells:
        found.append(roster.RosterFile(f"{cell}/a{attempt}/out/model.pt", 9, "0" * 64, "checkpoint", "torch"))
        found.append(roster.RosterFile(f"{cell}/a{attempt}/done.json", 2, "1" * 64, "other", "json"))
    return tuple(found)


def sweep_of(shares: dict[str, list[str]], **more: Any) -> dict[str, Any]:
    cells = sorted(cell for mine in shares.values() for cell in mine)
    told = {name: {"box": name.rpartition(".")[2], "cells": mine} for name, mine in shares.items()}
    return {"sweep_id": "grid", "cells": cells, "shares": told, **more}


TWO = {"grid.a": ["c0", "c1"], "grid.b": ["c2"]}
A, B = Home("grid.a", "/home/a", True, (), files("c0", "c1")), Home("grid.b", "/home/b", True, (), files("c2"))


def kinds(*homes: Home, sweep: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    return [(one.kind, one.cell) for one in sweeps.reconcile(sweep or sweep_of(TWO), homes)]


def test_a_whole_sweep_has_no_problem() -> None:
    assert kinds(A, B) == []


EMPTY = (files("c2")[0]._replace(bytes=0), files("c2")[1])


@pytest.mark.parametrize(
    ("homes", "found"),
    [
        ([A], [("missing", "c2")]),
        ([A, replace(B, complete=False)], [("missing", "c2")]),
        ([A, replace(B, files=files("c2")[:1])], [("missing", "c2")]),
        ([A, replace(B, files=EMPTY)], [("zero-byte", "c2")]),
        ([A, replace(B, files=EMPTY, unloaded=(EMPTY[0].path,))], [("zero-byte", "c2")]),
        ([A, replace(B, files=files("c2") + files("c2", attempt=2))], [("duplicate", "c2")]),
        ([A, B, replace(B, where="/home/b2")], [("duplicate", "c2")]),
        ([A, replace(B, files=files("c2", "c9"))], [("unexpected", "c9")]),
        ([A, replace(B, files=files("c2", "c0"))], [("unexpected", "c0")]),
        ([A, replace(B, unloaded=("c2/a1/out/model.pt",))], [("unloadable", "c2")]),
        ([A, replace(B, broken=("c2/a1/done.json has 0 bytes, not 2",))], [("unloadable", "c2")]),
        ([A, replace(B, problems=("it was edited",))], [("unloadable", "c2"), ("missing", "c2")]),
    ],
)
def test_each_flaw_is_named_with_its_cell(homes: list[Home], found: list[tuple[str, str]]) -> None:
    assert kinds(*homes) == found
    told = sweeps.reconcile(sweep_of(TWO), homes)
    assert all(str(one).startswith(f"{one.kind}: ") for one in told)


def test_a_box_that_was_given_up_answers_for_what_it_brought_home_and_nothing_else() -> None:
    sweep = sweep_of({"grid.a": ["c0"], "grid.b": ["c2"], "grid.b.m2": ["c1"]})
    sweep["shares"]["grid.a"]["given_up"] = True
    moved = Home("grid.b.m2", "/home/m", True, (), files("c1"))
    # It came back and finished a cell that is another's by now.
    revived = replace(A, complete=False)
    assert kinds(revived, B, moved, sweep=sweep) == []
    assert kinds(revived, B, sweep=sweep) == [("missing", "c1")]
    assert kinds(replace(revived, problems=("edited",)), B, moved, sweep=sweep) == [("missing", "c0")]


def test_a_cell_that_no_share_has_is_missing_and_says_so() -> None:
    [problem] = sweeps.reconcile({**sweep_of(TWO), "cells": ["c0", "c1", "c2", "c3"]}, [A, B])
    assert (problem.kind, problem.cell) == ("missing", "c3")
    assert "no share has it" in problem.text


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(1, 6), boxes=st.integers(1, 3))
def test_any_one_cell_taken_away_or_doubled_is_found(data: st.DataObject, count: int, boxes: int) -> None:
    shares: dict[str, list[str]] = {f"grid.b{number}": [] for number in range(boxes)}
    for number in range(count):
        shares[f"grid.b{data.draw(st.integers(0, boxes - 1))}"].append(f"c{number}")
    homes = [Home(name, f"/{name}", True, (), files(*mine)) for name, mine in shares.items()]
    sweep = sweep_of(shares)
    assert sweeps.reconcile(sweep, homes) == []
    index = data.draw(st.sampled_from([number for number, home in enumerate(homes) if home.files]))
    cell = data.draw(st.sampled_from(shares[homes[index].run_id]))
    kept = tuple(file for file in homes[index].files if not file.path.startswith(f"{cell}/"))
    without = [*homes[:index], replace(homes[index], files=kept), *homes[index + 1 :]]
    assert [(one.kind, one.cell) for one in sweeps.reconcile(sweep, without)] == [("missing", cell)]
    doubled = [*homes, Home(homes[index].run_id, "/again", True, (), files(cell))]
    assert [(one.kind, one.cell) for one in sweeps.reconcile(sweep, doubled)] == [("duplicate", cell)]


# --- in the gate ----------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A box with the runs r1 and r2, of one cell c0 each, both home and approved."""
    return World(tmp_path).complete()


def declare(world: World, cells: list[str], **shares: Any) -> None:
    told = {name: {"box": "box1", "cells": mine} for name, mine in shares.items()}
    sweeps.write(world.store, "demo", {"sweep_id": "grid", "cells": cells, "shares": told})


def test_the_gate_opens_for_a_whole_sweep_and_for_runs_of_none(world: World) -> None:
    declare(world, ["c7"], other=["c7"])
    assert world.decide().allowed, "no run of this box is a share of that sweep"
    declare(world, ["c0"], r1=["c0"])
    assert world.decide().rule == gate.RULE_EVIDENCE_HOME


def test_the_gate_stays_shut_while_another_boxs_cell_is_missing(world: World) -> None:
    declare(world, ["c0", "c1"], r1=["c0"], elsewhere=["c1"])
    decision = world.decide()
    assert not decision.allowed
    assert any("sweep grid: missing: cell c1 is not home; harvest run elsewhere" in why for why in decision.missing)


def test_a_person_who_consents_to_the_loss_is_not_held_up(world: World) -> None:
    declare(world, ["c0", "c1"], r1=["c0"], elsewhere=["c1"])
    world.approve_loss()
    assert world.decide().rule == gate.RULE_LOSS


@pytest.mark.parametrize("flaw", ["cut", "gone", "withdrawn"])
def test_what_lies_at_home_now_counts_and_not_what_once_did(world: World, tmp_path: Path, flaw: str) -> None:
    declare(world, ["c0"], r2=["c0"])
    assert world.decide().allowed
    if flaw == "cut":
        (world.root("r2") / "c0/a1/out/model.bin").write_bytes(b"")
    elif flaw == "gone":
        shutil.rmtree(world.root("r2"))
    else:
        edit_json(world.store.receipt_path("demo", "r2", "box1", 2), files=99)
    assert [why for why in world.decide().missing if why.startswith("sweep grid: ")]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "gpu-tenant/sweep/v1", "shares": {"r1": {}}, "cells": ["c0"]}']
)
def test_a_record_that_cannot_be_read_keeps_the_gate_shut(world: World, text: str) -> None:
    path = Path(sweeps.path_of(world.store, "demo", "grid"))
    path.parent.mkdir(parents=True)
    path.write_text(text)
    decision = world.decide()
    assert not decision.allowed
    assert any("nobody knows whether" in why for why in decision.missing)
    with pytest.raises(records.RecordError):
        sweeps.read(world.store, "demo", "grid")


def test_a_stop_that_keeps_the_disk_needs_no_sweep(world: World) -> None:
    declare(world, ["c0", "c1"], r1=["c0"], elsewhere=["c1"])
    assert world.decide(["disk"]).rule == gate.RULE_KEEPS_DISK

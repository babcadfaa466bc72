# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What would be lost, by the records on the disk: superseded boxes, boxes out of reach, consents outgrown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate, last_contact, losses, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity
from evidence_world import World, entry, later, make_manifest

NEWER = BoxIdentity("demo", "box1", 3, "4712")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def outbid(world: World, **changes: Any) -> gate.Decision:
    """It was outbid, and told an hour later to stay where it is."""
    now = later(world.now, 7200)
    world.park(after_s=3600)
    view = gate.ProviderView("outbid", later(world.now, -3600), now)
    return world.decide(**{"now": now, "provider": view, **changes})


def saw(world: World, step: int | None, done: bool = False, **changes: Any) -> None:
    """The box was last seen training run r1, unsealed, its newest checkpoint at ``step``."""
    index = world.promise("index", [{"run_id": "r1", "spec_sha256": "5" * 64, "cells": ["c0"]}])
    checkpoints = {"r1": {"c0": {"step": step, "done": done, "series": series(step)}}}
    world.save_reading(
        **{"seal": None, "index": index, "live_cells": ["r1/c0/a1"], "checkpoints": checkpoints, **changes}
    )


def series(step: int | None) -> dict[str, list[list[int]]]:
    return {} if step is None else {"checkpoints/step-*.npz": [[step, 1]]}


def snapshot(world: World, step: int, identity: BoxIdentity = NEWER, spec: str = "5" * 64, **more: Any) -> Path:
    """A verified snapshot of r1 at ``step``, of whichever box; where its checkpoint lies."""
    root = world.results / "demo" / "r1" / identity.box / f"g{identity.generation}"
    path = f"c0/a1/out/checkpoints/step-{step:06d}.npz"
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    numpy = pytest.importorskip("numpy")
    numpy.savez(place, step=numpy.array(step), w=numpy.arange(4.0))
    files = [entry(path, place.read_bytes(), "npz", "checkpoint")]
    record = make_manifest("r1", files, identity, snapshot=True, spec_sha256=spec, **more)
    records.write_record(str(root / "manifest.json"), "manifest", record)
    claim = receipts.Claim(identity, str(root), roster.parse_manifest(record), "snapshot")
    receipts.establish(world.store, claim)
    return place


def admit(world: World, identity: BoxIdentity = NEWER, **changes: Any) -> None:
    world.store.update_box(
        identity.project,
        identity.box,
        identity.generation,
        **{"provider_id": identity.provider_id, "admitted_at": world.now, **changes},
    )


# --- superseded ---


def test_law_2_a_superseded_box_goes_when_a_copy_is_as_far_as_it_was(world: World) -> None:
    saw(world, 400)
    assert not outbid(world).allowed, "nothing took its place"
    admit(world)
    told = " ".join(outbid(world).missing)
    assert "is superseded and bills" in told
    assert "r1/c0 got to step 400; last durable copy: none" in told
    snapshot(world, 300)
    assert "last durable copy: step 300" in " ".join(outbid(world).missing)
    place = snapshot(world, 400)
    assert outbid(world) == gate.Decision(True, gate.RULE_SUPERSEDED, (), None)
    assert not outbid(world, provider=world.view("running")).allowed, "it came back: stop it first"
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    assert not outbid(world).allowed, "the copy is re-read now"


def test_law_2_its_own_snapshot_counts_for_a_superseded_box(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400, world.identity)
    assert outbid(world).rule == gate.RULE_SUPERSEDED


@pytest.mark.parametrize(
    "changes",
    [
        {"done": True},
        {"problems": ["index.json is half-written"]},
        {"unlisted_runs": ["r9"]},
        {"checkpoints": None},
        {"checkpoints": {}},
        {"checkpoints": {"r1": {"c0": {"step": "9", "done": False}}}},
        {"index": None},
        {"reachable": False},
    ],
)
def test_law_2_a_superseded_box_of_which_more_or_less_is_known_stays(world: World, changes: dict[str, Any]) -> None:
    saw(world, 400, **changes)
    admit(world)
    snapshot(world, 400)
    assert not outbid(world).allowed


def test_law_2_a_copy_of_another_spec_does_not_stand_for_a_superseded_box(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400, spec="6" * 64)
    assert not outbid(world).allowed


@pytest.mark.parametrize("spec", [None, "", "short", 7])
def test_law_2_a_run_without_its_spec_is_covered_by_no_copy(world: World, spec: object) -> None:
    index = world.promise("index", [{"run_id": "r1", "spec_sha256": spec, "cells": ["c0"]}])
    saw(world, 400, index=index)
    admit(world)
    snapshot(world, 400)
    snapshot(world, 400, world.identity, spec="6" * 64)
    assert not outbid(world).allowed
    saw(world, 400)
    assert outbid(world).rule == gate.RULE_SUPERSEDED


def test_law_2_a_run_that_the_index_forgot_keeps_a_superseded_box(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400)
    last_contact.note(world.store, world.identity, {"r9": {"c0": Reached(None)}})
    assert "run r9: it is not in the index" in " ".join(outbid(world).missing)


def test_law_2_a_superseded_box_that_started_again_is_not_known(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400)
    now = later(world.now, 7200)
    assert outbid(world).allowed
    assert not outbid(world, provider=gate.ProviderView("outbid", later(world.now, 60), now)).allowed
    world.store.update_box("demo", "box1", 2, started_at=later(world.now, 60))
    assert "since it was started again" in " ".join(outbid(world).missing), "our own record knows of starts too"


def test_law_2_a_superseded_box_that_was_not_told_to_stop_may_come_back(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400)
    now = later(world.now, 7200)
    told = " ".join(world.decide(now=now, provider=gate.ProviderView("outbid", None, now)).missing)
    assert "it was not told to stop" in told
    assert "vast_instance with state: stopped" in told


def test_law_2_a_consent_to_a_loss_ends_when_the_box_is_known_to_have_started(world: World) -> None:
    saw(world, 400, live_cells=[])
    world.park()
    world.approve_loss(provider=world.view("stopped"))
    assert world.decide(provider=world.view("stopped")).rule == gate.RULE_LOSS
    world.store.update_box("demo", "box1", 2, started_at=later(world.now, 60))
    assert "started again" in " ".join(world.decide(provider=world.view("stopped")).missing)


def test_law_2_a_look_of_the_runner_moves_what_a_superseded_box_was_known_to_have(world: World) -> None:
    saw(world, 400)
    admit(world)
    snapshot(world, 400)
    status = [{"run_id": "r1", "cells": [{"cell": "c0", "state": "running", "last_checkpoint": {"step": 450}}]}]
    last_contact.note(world.store, world.identity, last_contact.of_status(status))
    assert "r1/c0 got to step 450" in " ".join(outbid(world).missing)


@pytest.mark.parametrize("changes", [{"admitted_at": None}, {"provider_id": ""}])
def test_law_2_a_successor_that_was_never_admitted_supersedes_nothing(world: World, changes: dict[str, Any]) -> None:
    saw(world, 400)
    admit(world, **changes)
    snapshot(world, 400)
    assert not outbid(world).allowed


def test_a_superseded_box_has_a_deadline(world: World) -> None:
    saw(world, 400)
    admit(world, admitted_at=later(world.now, -23 * 3600))
    assert "do this by" in " ".join(world.decide(provider=world.view("outbid")).missing)
    assert "this was due by" in " ".join(outbid(world).missing)


# --- breaking glass ---


def test_law_2_a_consent_covers_the_loss_that_it_named_and_no_greater_one(world: World) -> None:
    saw(world, 400)
    snapshot(world, 300, world.identity)
    view = gate.ProviderView("offline", None, world.now)
    loss = losses.of(world.evidence(provider=view))
    assert [line for line in loss.words() if "steps 300 to 400" in line and "step 300, of box1 g2" in line]
    approval = world.approve_loss(provider=view)
    assert world.decide(provider=view) == gate.Decision(True, gate.RULE_LOSS, (), approval)

    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(500)}})
    told = " ".join(world.decide(provider=view).missing)
    assert "smaller loss" in told
    assert "it got further since, to step 500" in told


def test_law_2_a_consent_to_a_loss_ends_when_more_runs_are_known(world: World) -> None:
    saw(world, 400)
    world.approve_loss()
    assert world.decide().allowed
    last_contact.note(world.store, world.identity, {"r2": {"c0": Reached(None, True)}})
    assert "r2/c0: its loss was not named" in " ".join(world.decide().missing)


def test_law_2_a_consent_to_a_loss_ends_when_the_last_copy_is_damaged(world: World) -> None:
    saw(world, 400)
    place = snapshot(world, 300, world.identity)
    world.approve_loss()
    assert world.decide().allowed
    place.unlink()
    assert "best copy is not what it was" in " ".join(world.decide().missing)


def test_law_2_a_consent_given_for_an_offline_box_ends_when_it_is_back(world: World) -> None:
    saw(world, 400)
    now = later(world.now, 7200)
    world.approve_loss(provider=gate.ProviderView("offline", None, now), now=now)
    assert world.decide(provider=gate.ProviderView("offline", None, now), now=now).allowed
    back = world.decide(provider=gate.ProviderView("running", None, now), now=now)
    assert "writes now" in " ".join(back.missing)


def test_law_2_a_consent_is_for_one_generation(world: World) -> None:
    saw(world, 400)
    world.approve_loss()
    assert not world.decide(identity=dataclasses.replace(world.identity, generation=1)).allowed
    assert not world.decide(identity=dataclasses.replace(world.identity, provider_id="1")).allowed


def test_law_2_a_consent_covers_a_checkpoint_whose_name_says_no_step_and_no_further_one(world: World) -> None:
    index = world.promise("index", [{"run_id": "r1", "spec_sha256": "5" * 64, "cells": ["c0"]}])
    unnamed = {"step": None, "done": False, "unnamed": ["last.pt"]}
    world.save_reading(seal=None, index=index, checkpoints={"r1": {"c0": unnamed}})
    world.approve_loss()
    assert world.decide().rule == gate.RULE_LOSS
    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(None, False, ("best.pt",))}})
    assert "it got further since: best.pt, last.pt (the name says no step" in " ".join(world.decide().missing)


# --- what was last known ---


def test_looks_add_up_and_none_takes_away(world: World) -> None:
    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(40), "c1": Reached(7, True)}})
    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(30)}})
    found = world.evidence().contact
    assert found == {"r1": {"c0": Reached(40), "c1": Reached(7, True)}}
    path = Path(world.store.contact_path("demo", "box1", 2))
    before = path.stat().st_mtime_ns
    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(40)}})
    assert path.stat().st_mtime_ns == before, "no news is not written"


def test_a_damaged_contact_record_is_ignorance(world: World) -> None:
    path = Path(world.store.contact_path("demo", "box1", 2))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert "how far its runs got" in losses.of(world.evidence(reading=world.reading())).unknown
    last_contact.note(world.store, world.identity, {"r1": {"c0": Reached(4)}})
    assert world.evidence().contact == {"r1": {"c0": Reached(4)}}


@pytest.mark.parametrize(
    "runs",
    [None, [], {"../x": {}}, {"r": []}, {"r": {"c": 1}}, {"r": {"c": {"step": -1, "done": False}}}, {"r": {"c": {}}}]
    + [{"r": {"c": {"step": None, "done": False, "unnamed": names}}} for names in ("a", [1], ["../a"], [""], {"a": 1})]
    + [{"r": {"c": {"step": True, "done": False}}}, {"r": {"c": {"step": 1.5, "done": False}}}],
)
def test_what_a_box_says_of_its_progress_is_read_whole_or_not_at_all(runs: Any) -> None:
    assert last_contact.parse(runs) is None


def test_a_status_that_lies_about_its_shape_is_left_out() -> None:
    good = {"run_id": "r1", "cells": [{"cell": "c0", "state": "done", "last_checkpoint": None}]}
    bad = {"run_id": "r2", "cells": [{"cell": "../c", "state": "done"}]}
    worse = [{"run_id": "r3", "cells": "all"}, {"run_id": "r4", "cells": [{"last_checkpoint": "x"}]}, {"cells": [1]}]
    assert last_contact.of_status([good, bad, *worse]) == {"r1": {"c0": Reached(None, True)}}

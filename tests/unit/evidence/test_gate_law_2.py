# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2, attacked: nothing irreversible unless the evidence is home."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    approvals,
    gate,
    last_contact,
    receipts,
    roster,
    standstill,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from evidence_world import World, edit_json, later, make_manifest, places, replaced, value_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def complete(world: World) -> World:
    return world.complete()


def refused(decision: gate.Decision, *words: str) -> None:
    assert not decision.allowed
    assert decision.rule == gate.RULE_REFUSED
    assert decision.approval_id is None
    assert decision.missing
    told = " | ".join(decision.missing)
    for word in words:
        assert word in told, told


def test_law_2_opens_when_everything_is_home(complete: World) -> None:
    decision = complete.decide()
    assert decision.missing == ()
    assert decision.allowed
    assert decision.rule == gate.RULE_EVIDENCE_HOME
    assert decision.approval_id is not None


def test_law_2_a_verb_that_keeps_the_disk_is_not_gated(world: World) -> None:
    assert world.decide(keeps=["disk"]) == gate.Decision(True, gate.RULE_KEEPS_DISK, (), None)


@pytest.mark.parametrize("keeps", [[], ["volume"], ["diskette"], ["d", "i", "s", "k"]])
def test_law_2_a_verb_that_keeps_less_is_gated(world: World, keeps: list[str]) -> None:
    refused(world.decide(keeps=keeps))


def test_law_2_keeps_as_one_text_is_an_error_not_a_substring_match(world: World) -> None:
    with pytest.raises(TypeError):
        gate.gather(world.store, world.identity, "destroy", "disk", world.view())


def test_law_2_an_empty_world_is_told_everything_that_is_missing(world: World) -> None:
    refused(world.decide(), "no seal", "nobody approved")


# --- (a) the seal ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seal": None}, ["not sealed"]),
        ({"index": None}, ["index", "not read"]),
        ({"live_cells": ["r1/c0/a1"]}, ["live", "r1/c0/a1"]),
        ({"live_cells": None}, ["live"]),
        ({"reachable": False}, ["did not reach"]),
        ({"provider_id": "4712"}, ["4712"]),
        ({"unlisted_runs": ["r9"]}, ["r9", "index"]),
        ({"problems": ["the seal record seal.json is half-written"]}, ["seal.json"]),
        ({"read_at": "yesterday"}, ["no readable time"]),
    ],
)
def test_law_2_an_unusable_seal_reading_keeps_the_gate_shut(
    complete: World, changes: dict[str, Any], words: list[str]
) -> None:
    complete.save_reading(**changes)
    refused(complete.decide(), *words)


@pytest.mark.parametrize("key", ["project", "box", "generation", "provider_id", "schema"])
@pytest.mark.parametrize("name", ["seal", "index"])
def test_law_2_a_seal_of_another_box_or_version_keeps_the_gate_shut(complete: World, name: str, key: str) -> None:
    reading = complete.reading()
    reading[name][key] = 3 if key == "generation" else "other"
    complete.save_reading(**{name: reading[name]})
    refused(complete.decide(), name)


@pytest.mark.parametrize("state", ["running", "loading", "scheduling", "offline", "unknown", "absent"])
def test_law_2_a_seal_grows_stale_while_the_box_may_run(complete: World, state: str) -> None:
    now = later(complete.now, standstill.FRESH_SEAL_S + 1)
    refused(complete.decide(provider=gate.ProviderView(state, None, now), now=now), "seal was read")
    just = later(complete.now, standstill.FRESH_SEAL_S)
    assert complete.decide(provider=gate.ProviderView(state, None, just), now=just).allowed


@pytest.mark.parametrize("state", gate.STOPPED_STATES)
def test_law_2_a_seal_read_before_parking_holds_while_no_start_shows(complete: World, state: str) -> None:
    now = later(complete.now, 7200)
    before, after = later(complete.now, -60), later(complete.now, 60)
    complete.park()
    assert complete.decide(provider=gate.ProviderView(state, before, now), now=now).allowed
    assert complete.decide(provider=gate.ProviderView(state, None, now), now=now).allowed
    refused(complete.decide(provider=gate.ProviderView(state, after, now), now=now), "was started at")
    refused(complete.decide(provider=gate.ProviderView(state, "soon", now), now=now), "start time")


@pytest.mark.parametrize("state", gate.STOPPED_STATES)
def test_law_2_a_box_that_rests_by_itself_may_have_worked_since_its_seal_was_read(complete: World, state: str) -> None:
    """The provider's row gives the time of its creation in every such state: it cannot show a start."""
    now = later(complete.now, 7200)
    view = gate.ProviderView(state, later(complete.now, -9000), now)
    ways_on = ("start it", "harvest_via", "gpu-tenant approve destroy box1 --generation 2 --loss")
    refused(complete.decide(provider=view, now=now), "not because we stopped it", *ways_on)
    complete.park(after_s=7000)
    refused(complete.decide(provider=view, now=now), "7000 s before it was stopped", *ways_on)
    complete.park(after_s=standstill.FRESH_SEAL_S)
    assert complete.decide(provider=view, now=now).allowed
    complete.store.update_box("demo", "box1", 2, parked_at=None, started_at=later(complete.now, 60))
    refused(complete.decide(provider=view, now=now), "was started at", *ways_on)
    complete.park(after_s=100)
    refused(complete.decide(provider=view, now=now), "was started at")


def test_law_2_a_running_box_that_was_started_since_its_seal_was_read_is_asked_again(complete: World) -> None:
    complete.store.update_box("demo", "box1", 2, started_at=later(complete.now, 60))
    now = later(complete.now, 120)
    refused(complete.decide(provider=gate.ProviderView("running", None, now), now=now), "was started at")


def test_law_2_a_provider_clock_that_is_behind_cannot_hide_a_start(complete: World) -> None:
    """The provider's clock is 200 s slow: a start 60 s after the reading looks like one before it."""
    now = later(complete.now, 120)
    complete.park()
    view = gate.ProviderView("stopped", later(complete.now, 60 - 200), later(now, -200))
    refused(complete.decide(provider=view, now=now), "was started at")


def test_law_2_an_old_look_at_the_provider_is_no_look(complete: World) -> None:
    now = later(complete.now, 7200)
    complete.park()
    refused(complete.decide(provider=gate.ProviderView("stopped", None, complete.now), now=now), "look at the provider")


def test_law_2_a_reading_from_the_future_is_refused(complete: World) -> None:
    now = later(complete.now, -standstill.CLOCK_SLACK_S - 1)
    refused(complete.decide(provider=gate.ProviderView("running", None, now), now=now), "future")


# --- (b) receipts ---


def test_law_2_every_run_of_the_index_needs_a_receipt(complete: World) -> None:
    os.unlink(complete.store.receipt_path("demo", "r2", "box1", 2))
    decision = complete.decide()
    refused(decision, "run r2: there is no receipt")
    assert not any("r1" in gap for gap in decision.missing)


def test_law_2_a_run_in_the_index_that_the_seal_forgot_keeps_the_gate_shut(complete: World) -> None:
    reading = complete.reading()
    reading["index"]["runs"].append({"run_id": "r3", "cells": []})
    complete.save_reading(index=reading["index"])
    refused(complete.decide(), "run r3", "no manifest digest")


def test_law_2_a_run_in_the_seal_that_the_index_forgot_needs_a_receipt_too(complete: World) -> None:
    reading = complete.reading()
    reading["seal"]["runs"].append({"run_id": "r3", "manifest_digest": "a" * 64})
    complete.save_reading(seal=reading["seal"])
    refused(complete.decide(), "run r3: there is no receipt", "run r3: it is sealed, but the index")
    reading["index"]["runs"].pop()
    reading["seal"]["runs"].pop()
    complete.save_reading(seal=reading["seal"], index=reading["index"])
    decision = complete.decide()
    refused(decision, "run r2: it is sealed, but the index does not list it")
    assert len(decision.missing) == 1, "a receipt does not make up for it"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"complete": False}, "not complete"),
        ({"complete": "yes"}, "not complete"),
        ({"run_id": "r2"}, "another run_id"),
        ({"box": "box2"}, "another box"),
        ({"generation": 1}, "another generation"),
        ({"provider_id": "1"}, "another provider_id"),
        ({"project": "other"}, "another project"),
        ({"manifest_digest": "0" * 64}, "other files"),
        ({"copies": []}, "names no copy"),
        ({"copies": "file:///tmp"}, "names no copy"),
        ({"copies": [{"uri": "ftp://host/key"}]}, "cannot be re-read"),
        ({"checks": None}, "no readable checks"),
        ({"checks": [{"path": "m.pt", "ok": False}]}, "did not load"),
        ({"schema": "gpu-tenant/receipt/v2"}, "known version"),
    ],
)
def test_law_2_a_receipt_that_says_less_keeps_the_gate_shut(
    complete: World, changes: dict[str, Any], word: str
) -> None:
    edit_json(complete.store.receipt_path("demo", "r1", "box1", 2), **changes)
    refused(complete.decide(), "r1", word)


def test_law_2_the_receipt_of_another_run_does_not_count(complete: World) -> None:
    shutil.copy(
        complete.store.receipt_path("demo", "r1", "box1", 2), complete.store.receipt_path("demo", "r2", "box1", 2)
    )
    refused(complete.decide(), "another run_id")


# --- (c) copies are re-read now ---


def test_law_2_a_tampered_file_of_the_same_size_is_found(complete: World) -> None:
    model = complete.root("r1") / "c0/a1/out/model.bin"
    facts = model.stat()
    model.write_bytes(b"wEights")
    os.utime(model, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    refused(complete.decide(), "model.bin", "SHA-256")


def test_law_2_a_file_that_went_away_is_found(complete: World) -> None:
    (complete.root("r2") / "c0/a1/done.json").unlink()
    refused(complete.decide(), "done.json", "missing")


def test_law_2_a_file_that_became_a_link_is_found(complete: World, tmp_path: Path) -> None:
    model = complete.root("r1") / "c0/a1/out/model.bin"
    shutil.copy(model, tmp_path / "elsewhere")
    model.unlink()
    model.symlink_to(tmp_path / "elsewhere")
    refused(complete.decide(), "model.bin")


def test_law_2_a_manifest_shrunk_together_with_its_digest_is_found(complete: World) -> None:
    """Whoever deletes a result and rewrites the manifest cannot rewrite what the box sealed."""
    root = complete.root("r1")
    manifest = roster.read_manifest(str(root))
    (root / "c0/a1/out/model.bin").unlink()
    left = [file for file in manifest.record["files"] if file["path"] != "c0/a1/out/model.bin"]
    records.write_record(str(root / "manifest.json"), "manifest", make_manifest("r1", left))
    refused(complete.decide(), "r1", "other files")


def test_law_2_a_half_written_manifest_is_refused_by_name(complete: World) -> None:
    path = complete.root("r1") / "manifest.json"
    path.write_bytes(path.read_bytes()[:40])
    refused(complete.decide(), str(path), "half-written")


# --- damaged records: refused by name, never a traceback, never open ---


@pytest.mark.parametrize("damage", [b"", b'{"schema": "gpu-te', b"[]", b"\xff\xfe", b'{"schema": "gpu-tenant/x/v9"}'])
@pytest.mark.parametrize("which", ["seal", "receipt", "approval"])
def test_law_2_a_half_written_record_is_refused_by_name(complete: World, which: str, damage: bytes) -> None:
    path = {
        "seal": complete.store.seal_path("demo", "box1", 2),
        "receipt": complete.store.receipt_path("demo", "r1", "box1", 2),
        "approval": complete.store.approvals()[0],
    }[which]
    Path(path).write_bytes(damage)
    refused(complete.decide(), path)


@pytest.mark.parametrize(
    "runs", [None, "r1", [1], [{"run_id": "../../etc"}], [{"run_id": "r1"}, {"run_id": "r1"}], [{}], {"r1": {}}]
)
def test_law_2_a_hostile_list_of_runs_is_refused(complete: World, runs: Any) -> None:
    for name in ("seal", "index"):
        reading = complete.reading()
        reading[name]["runs"] = runs
        complete.save_reading(**{name: reading[name]})
        refused(complete.decide(), name)


# --- (d) approvals ---


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"verb": "recycle"}, "nobody approved"),
        ({"generation": 1}, "edited"),
        ({"provider_id": "1"}, "edited"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "edited"),
        ({"approver": "mallory"}, "edited"),
        ({"binds": {"kind": "complete_receipt"}}, "edited"),
        ({"used_at": "2026-11-21T03:00:00Z"}, "used already"),
        ({"schema": "gpu-tenant/approval/v2"}, "known version"),
    ],
)
def test_law_2_an_approval_edited_after_it_was_given_is_refused(
    complete: World, changes: dict[str, Any], word: str
) -> None:
    edit_json(complete.store.approvals()[0], **changes)
    refused(complete.decide(), word)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"generation": 1}, "generation"),
        ({"generation": True}, "generation"),
        ({"provider_id": "1"}, "provider_id"),
        ({"project": "other"}, "nobody approved"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expired"),
        ({"expires_at": "never"}, "no readable"),
        ({"created_at": "2099-01-01T00:00:00Z"}, "future"),
        ({"binds": None}, "bound to"),
        ({"binds": {"kind": "loss", "loss": " "}}, "name what will be lost"),
        ({"binds": {"kind": "digest", "digests": {"r1": "short"}}}, "digest"),
        ({"id": "ap-other"}, "another id"),
    ],
)
def test_law_2_all_approval_rules_hold_with_the_journal_deleted(
    complete: World, changes: dict[str, Any], word: str
) -> None:
    os.unlink(complete.store.journal_path)
    assert complete.decide().allowed
    edit_json(complete.store.approvals()[0], **changes)
    refused(complete.decide(), word)


def test_law_2_an_approval_works_once(complete: World) -> None:
    decision = complete.decide()
    with approvals.spending(complete.store, str(decision.approval_id)):
        pass
    refused(complete.decide(), "used already")
    with pytest.raises(TenantFailure, match="used already"), approvals.spending(complete.store, decision.approval_id):
        pytest.fail("it was spent twice")


def test_law_2_a_spent_approval_cannot_be_refilled_by_an_edit(complete: World) -> None:
    decision = complete.decide()
    with approvals.spending(complete.store, str(decision.approval_id)):
        pass
    edit_json(complete.store.approval_path(str(decision.approval_id)), used_at=None)
    refused(complete.decide(), "used already")


def test_law_2_an_approval_for_older_digests_does_not_cover_newer_ones(complete: World) -> None:
    complete.bring_home("r1", {"c0/a1/out/model.bin": b"newer"})
    complete.give_receipt("r2")
    complete.save_reading()
    refused(complete.decide(), "r1")
    newer = {"c0/a1/out/model.bin": b"newer"}
    receipts.establish(complete.store, complete.claim(complete.bring_home("r1", newer)))
    refused(complete.decide(), "bound to other digests")


def test_law_2_a_standing_approval_fires_on_complete_receipts_only(world: World) -> None:
    world.approve({"kind": "complete_receipt"})
    world.bring_home("r1")
    world.save_reading()
    refused(world.decide(), "run r1: there is no receipt")
    world.give_receipt("r1", run_state="running")
    refused(world.decide(), "not complete")
    world.give_receipt("r1")
    decision = world.decide()
    assert (decision.allowed, decision.rule) == (True, gate.RULE_STANDING)


def test_law_2_breaking_glass_names_the_loss_and_skips_the_rest(world: World) -> None:
    seal = Path(world.store.seal_path("demo", "box1", 2))
    seal.parent.mkdir(parents=True, exist_ok=True)
    seal.write_text("{")
    approval = world.approve_loss()
    assert world.decide() == gate.Decision(True, gate.RULE_LOSS, (), approval)
    refused(world.decide(now=later(world.now, 25 * 3600)), "expired")
    refused(world.decide(identity=dataclasses.replace(world.identity, generation=3)))
    refused(world.decide(verb="recycle"), "nobody approved recycle")


def test_law_2_a_loss_in_mere_words_is_no_consent(world: World) -> None:
    with pytest.raises(TenantFailure, match="by cell"):
        world.approve({"kind": "loss", "loss": "run r1 after step 400"})


def test_law_2_a_loss_that_was_approved_is_called_a_loss_even_when_all_is_home(world: World) -> None:
    world.give_receipt("r1")
    world.save_reading()
    world.approve_loss()
    assert world.decide().rule == gate.RULE_LOSS
    standing = world.approve({"kind": "complete_receipt"})
    assert world.decide() == gate.Decision(True, gate.RULE_STANDING, (), standing)


def test_law_2_an_edited_receipt_shows_even_where_it_contradicts_nothing_else(world: World) -> None:
    """A receipt of a failed run, made complete by hand, with every reason taken out."""
    world.give_receipt("r1", run_state="failed")
    world.save_reading()
    world.approve()
    refused(world.decide(), "not complete", "failed")
    path = world.store.receipt_path("demo", "r1", "box1", 2)
    edit_json(path, complete=True, incomplete_because=[])
    refused(world.decide(), "edited")


def test_law_2_a_withdrawn_receipt_put_back_is_no_receipt(complete: World) -> None:
    path = complete.store.receipt_path("demo", "r1", "box1", 2)
    withdrawn = receipts.withdraw(complete.store, complete.identity, "r1")
    os.rename(withdrawn, path)
    refused(complete.decide(), "withdrawn", "put back")


def test_law_2_a_crash_after_the_receipt_and_before_its_line_costs_nothing(complete: World) -> None:
    """The receipt is whole on the disk; its journal ends with the intent."""
    receipts.withdraw(complete.store, complete.identity, "r1")
    path = complete.store.receipt_path("demo", "r1", "box1", 2)
    effect = Journal(complete.store).effect("receipt", run_id="r1", **complete.identity.as_dict())
    effect.__enter__()
    os.rename(path + ".withdrawn", path)
    assert complete.decide().allowed


def test_law_2_an_edited_or_older_seal_reading_is_refused(complete: World) -> None:
    path = Path(complete.store.seal_path("demo", "box1", 2))
    older = path.read_bytes()
    complete.save_reading(live_cells=["r1/c0/a2"])
    refused(complete.decide(), "live")
    path.write_bytes(older)
    refused(complete.decide(), str(path), "put back")
    complete.save_reading()
    assert complete.decide().allowed
    edit_json(str(path), read_at=later(complete.now, 30))
    refused(complete.decide(), str(path), "edited")
    os.unlink(complete.store.journal_path)
    assert complete.decide().allowed, "without a journal the records stand alone"


def test_law_2_a_share_of_a_sharded_run_waits_for_the_others(complete: World) -> None:
    os.unlink(complete.store.journal_path)
    path = complete.store.receipt_path("demo", "r1", "box1", 2)
    edit_json(path, parts=["box1", "box2"], waits_for=["box2"], complete=False, incomplete_because=["waits for box2"])
    refused(complete.decide(), "waits for other parts", "box2")
    edit_json(path, waits_for=[], complete=True, incomplete_because=[])
    assert complete.decide().allowed
    edit_json(path, parts=["box2", "box3"])
    refused(complete.decide(), "does not name this box")


def test_law_2_a_verb_that_loses_the_durable_tier_is_gated_too(world: World) -> None:
    """Deleting the file system that holds the copies keeps the disk, and is gated all the same."""
    refused(world.decide(keeps=["disk"], gated_tiers=["disk", "fs"]))
    assert world.decide(keeps=["disk", "fs"], gated_tiers=["fs"]).rule == gate.RULE_KEEPS_DISK
    assert world.decide(keeps=["fs"], gated_tiers=[]).rule == gate.RULE_REFUSED, "the disk always counts"


def test_law_2_a_run_that_was_seen_on_the_box_is_not_forgotten(complete: World) -> None:
    """The index was rewritten without the run; what was seen of it before keeps the gate shut."""
    last_contact.note(complete.store, complete.identity, {"r3": {"c0": last_contact.Reached(40)}})
    refused(complete.decide(), "run r3")


def test_law_2_a_box_out_of_reach_is_told_what_is_home_and_the_only_way_on(complete: World) -> None:
    last_contact.note(complete.store, complete.identity, {"r1": {"c0": last_contact.Reached(40)}})
    now = later(complete.now, 9000)
    decision = complete.decide(provider=gate.ProviderView("offline", None, now), now=now)
    refused(decision, "box1 g2", "offline", "last durable copy", "step 40", "--generation 2 --loss")


def test_law_2_a_damaged_approval_of_someone_else_does_not_block(complete: World) -> None:
    Path(complete.store.approval_path("ap-broken")).write_text("{")
    assert complete.decide().allowed


# --- the virgin exception ---


def virgin(world: World, **changes: Any) -> None:
    known = {"provider_id": "4711", "created_at": world.now, "deploy_started_at": None}
    path = world.store.box_record_path("demo", "box1", 2)
    records.write_record(path, "box", {"project": "demo", "box": "box1", "generation": 2, **known, **changes})


def test_law_2_a_virgin_box_goes_without_approval(world: World) -> None:
    virgin(world)
    assert world.decide() == gate.Decision(True, gate.RULE_VIRGIN, (), None)
    world.save_reading(seal=None, index=None)
    assert world.decide().rule == gate.RULE_VIRGIN
    world.save_reading(seal=None)
    assert world.decide().rule == gate.RULE_VIRGIN


@pytest.mark.parametrize(
    "changes",
    [
        {"provider_id": "4712"},
        {"deploy_started_at": "2026-11-21T01:10:00Z"},
        {"deploy_started_at": ""},
        {"created_at": None},
        {"project": "other"},
        {"generation": 1},
    ],
)
def test_law_2_a_box_that_may_have_been_used_is_not_virgin(world: World, changes: dict[str, Any]) -> None:
    virgin(world, **changes)
    refused(world.decide())


def test_law_2_a_record_rebuilt_from_the_provider_is_not_virgin(world: World) -> None:
    """After the loss of our disk the record knows no deploys: that is ignorance, not virginity."""
    path = world.store.box_record_path("demo", "box1", 2)
    record = {**world.identity.as_dict(), "created_at": world.now}
    records.write_record(path, "box", record)
    refused(world.decide())
    Path(path).write_text("{")
    refused(world.decide())


@pytest.mark.parametrize(
    "changes",
    [{"live_cells": ["r1/c0/a1"]}, {"unlisted_runs": ["r1"]}, {"problems": ["seal.json is half-written"]}],
)
def test_law_2_a_reading_that_shows_use_ends_virginity(world: World, changes: dict[str, Any]) -> None:
    virgin(world)
    world.save_reading(**{"seal": None, "index": None, **changes})
    refused(world.decide())


def test_law_2_a_known_run_or_receipt_ends_virginity(world: World) -> None:
    virgin(world)
    world.bring_home("r1")
    world.save_reading(seal=None)
    refused(world.decide())
    os.unlink(world.store.seal_path("demo", "box1", 2))
    world.give_receipt("r1")
    refused(world.decide())


def test_law_2_a_box_record_that_was_edited_or_put_back_does_not_hide_a_deploy(world: World) -> None:
    virgin(world)
    Journal(world.store).append("effect", "deploy_started", **dict(world.identity.as_dict(), provider_id="4712"))
    assert world.decide().rule == gate.RULE_VIRGIN, "that was another machine"
    Journal(world.store).append("effect", "deploy_started", **world.identity.as_dict())
    refused(world.decide())


# --- no forged value opens it ---


def test_law_2_the_gate_has_no_parameter_that_opens_it() -> None:
    """What a playbook can pass along (a registered result, an extra variable) is no input of the decision."""
    fields = {field.name for field in dataclasses.fields(gate.Evidence)}
    assert not fields & {"allowed", "force", "approved", "rule", "decision"}
    assert gate.decide.__code__.co_argcount == 1


def test_law_2_a_forged_registered_result_is_no_evidence(world: World) -> None:
    world.bring_home("r1")
    world.save_reading()
    world.approve()
    forged = {"allowed": True, "rule": "evidence_home", "complete": True, "verified": True}
    Journal(world.store).append("effect", "receipt", run_id="r1", **forged)
    records.write_record(world.store.path("receipts", "demo", "r1", "forged.json"), "receipt", forged)
    refused(world.decide(), "run r1: there is no receipt")


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([{"run_id": "r1"}]),
    st.just({"kind": "digest"}),
    st.just("2099-01-01T00:00:00Z"),
)
# What the decision does not rest on, and values that say the same as the true one.
FREE = {
    "spec_sha256",
    "state",
    "epoch",
    "cells",
    "verified_at",
    "level",
    "expect",
    "files",
    "bytes",
    "provenance",
    "not_pulled",
    "tool_version",
    "extra",
    "snapshot",
    "run_state",
    "incomplete_because",
    "how",
    "at",
    "version_id",
    "sha256",
    "reason",
    "approver",
    "source",
    "expires_at",
    "created_at",
    "claimed_at",
    "read_at",
    "loader",
    "tensors",
    "step",
    "finite",
    "error",
    "path",
    "checks",
    "unlisted_runs",
    "problems",
    "home",
    "whole",
    "policy",
    "not_pulled_totals",
    "durable",
    "boot_id",
    "checkpoints",
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_law_2_no_single_forged_value_opens_what_it_falsifies(
    evidence_parts: tuple[gate.Evidence, dict[str, Any]], data: st.DataObject
) -> None:
    """Put junk at any place of any record: decide never raises, and what the decision rests on shuts the gate."""
    evidence, parts = evidence_parts
    name = data.draw(st.sampled_from(sorted(parts)))
    path = data.draw(st.sampled_from(places(parts[name])))
    junk = data.draw(JUNK)
    place = value_at(parts[name], path)
    decision = gate.decide(_with(evidence, name, replaced(parts[name], path, junk)))
    assert decision.allowed == (not decision.missing)
    rests_on = not any(key in FREE for key in path if isinstance(key, str))
    same = junk == place or (path == ("used_at",) and junk is None)
    if rests_on and not same:
        assert not decision.allowed, (name, path, junk)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_law_2_no_forged_value_makes_a_used_box_virgin(
    evidence_parts: tuple[gate.Evidence, dict[str, Any]], data: st.DataObject
) -> None:
    """Nothing was read of it yet, and nobody approved: its record is all that there is, and the journal."""
    evidence = dataclasses.replace(
        evidence_parts[0], reading=None, receipts={}, receipt_paths=(), approvals=(), was_deployed=True
    )
    record = dict(evidence.box_record or {}, deploy_started_at=None)
    alone = dataclasses.replace(evidence, box_record=record, was_deployed=False)
    assert gate.decide(alone).rule == gate.RULE_VIRGIN
    forged = replaced(record, data.draw(st.sampled_from(places(record))), data.draw(JUNK))
    assert not gate.decide(dataclasses.replace(evidence, box_record=forged)).allowed


def _with(evidence: gate.Evidence, name: str, record: dict[str, Any]) -> gate.Evidence:
    if name == "reading":
        return dataclasses.replace(evidence, reading=record)
    if name == "receipt":
        receipt = dataclasses.replace(evidence.receipts["r1"], record=record)
        return dataclasses.replace(evidence, receipts={**evidence.receipts, "r1": receipt})
    # With its journal line gone, so that it is the rules that refuse and not the hash.
    approval = dataclasses.replace(evidence.approvals[0], record=record, journalled_sha256="")
    return dataclasses.replace(evidence, approvals=(approval,))


@pytest.fixture(scope="module")
def evidence_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[gate.Evidence, dict[str, Any]]:
    evidence = World(tmp_path_factory.mktemp("world")).complete().evidence()
    assert gate.decide(evidence).allowed
    parts = {
        "reading": dict(evidence.reading or {}),
        "receipt": dict(evidence.receipts["r1"].record or {}),
        "approval": dict(evidence.approvals[0].record or {}),
    }
    return evidence, parts


FAULTS: dict[str, Any] = {
    "no reading": lambda e: dataclasses.replace(e, reading=None),
    "damaged reading": lambda e: dataclasses.replace(e, reading=None, reading_problem="seal.json is half-written"),
    "no seal": lambda e: dataclasses.replace(e, reading={**(e.reading or {}), "seal": None}),
    "no receipt": lambda e: dataclasses.replace(e, receipts={k: v for k, v in e.receipts.items() if k != "r2"}),
    "damaged copy": lambda e: dataclasses.replace(
        e,
        receipts={
            k: dataclasses.replace(
                v, copies=tuple(dataclasses.replace(c, problems=("x is missing",)) for c in v.copies)
            )
            for k, v in e.receipts.items()
        },
    ),
    "copies not re-read": lambda e: dataclasses.replace(
        e, receipts={k: dataclasses.replace(v, copies=()) for k, v in e.receipts.items()}
    ),
    "no approval": lambda e: dataclasses.replace(e, approvals=()),
    "other verb": lambda e: dataclasses.replace(e, verb="recycle"),
    "other machine": lambda e: dataclasses.replace(e, identity=dataclasses.replace(e.identity, provider_id="1")),
    "other generation": lambda e: dataclasses.replace(e, identity=dataclasses.replace(e.identity, generation=3)),
    "late": lambda e: dataclasses.replace(e, now=later(e.now, 30 * 24 * 3600)),
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.sampled_from(sorted(FAULTS)), min_size=1))
def test_law_2_no_combination_of_faults_opens_the_gate(
    evidence_parts: tuple[gate.Evidence, dict[str, Any]], names: set[str]
) -> None:
    evidence = evidence_parts[0]
    for name in sorted(names):
        evidence = FAULTS[name](evidence)
    decision = gate.decide(evidence)
    assert not decision.allowed, names
    assert decision.missing

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A wrong condition in what carries out a gated verb is found: boxes and volumes, and all that can happen meanwhile.

Each story is told on a market and a store of its own; against each mutant they are told until one ends differently.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    approvals,
    gate,
    kept_volumes,
    rental_account,
    seal_reading,
    volume_gate,
    volume_states,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import Passed
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from volume_world import World as VolumeWorld
from wire_market import WireMarket

sys.path.insert(0, str(Path(__file__).parents[1] / "evidence"))
from mutants import no_waiting_for_disks, survivors

ITEM = r"v0/instances/[0-9]+/$"
RUNNING = {"actual_status": "running", "intended_status": "running", "cur_state": "running", "next_state": "running"}
STOPPED = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}
KINDS = ("rule", "why", "was_there", "platform")


def told(act: Callable[[], Any]) -> Any:
    """What it returns or refuses, without the numbers: times, ages and ids."""
    try:
        found = act()
    except TenantFailure as failure:
        return re.sub(
            r"[0-9a-f]{8,}|[0-9]+", "#", f"{failure.kind}: {failure} {failure.box} {failure.safe} {failure.fix}"
        )
    return dict(found.as_result(), approval_id=found.approval_id is not None) if isinstance(found, Passed) else found


class Bench:
    """One used box on the market, sealed a moment ago, with a standing approval; each part can be left out."""

    def __init__(self, folder: Path, deployed: bool = True, sealed: bool = True, **row: Any) -> None:
        self.market = WireMarket()
        self.store = StateStore(str(folder))
        stamp = new_stamp("digits", "vast-a", 1)
        hour_ago = self.market.epoch() - 3600
        self.row = self.market.add(str(stamp), **{"start_date": hour_ago, "uptime_mins": 60.0, **row})
        self.identity = BoxIdentity("digits", "vast-a", 1, str(self.row["id"]))
        moment = self.ago(3600)
        started = moment if deployed else None
        self.note(provider_id=self.identity.provider_id, created_at=moment, deploy_started_at=started)
        if sealed:
            self._seal()
        self.approval = self._consent() if deployed else ""

    @staticmethod
    def ago(seconds: float) -> str:
        return records.utc_text(records.parse_utc(records.utc_now()) - datetime.timedelta(seconds=seconds))

    def note(self, **changes: Any) -> None:
        self.store.update_box("digits", "vast-a", 1, **changes)

    def _seal(self) -> None:
        promises = {
            name: dict(self.identity.as_dict(), schema=records.schema(name), epoch=1, runs=[])
            for name in ("seal", "index")
        }
        answer = dict(promises, live_cells=[], unlisted_runs=[], checkpoints={}, durable=[], boot_id="b", problems=[])
        seal_reading.save(self.store, self.identity, seal_reading.as_record(self.identity, self.ago(5), answer))

    def _consent(self) -> str:
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it may not bill till morning"}
        return str(approvals.give(self.store, self.identity, "destroy", {"kind": "complete_receipt"}, **who)["id"])

    def account(self, **changes: Any) -> Account:
        return Account(self.market.client(), self.store, **changes)

    @property
    def box(self) -> Box:
        return to_box(self.row)

    @contextlib.contextmanager
    def reading_takes(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Reading every copy takes this long on every clock, and this happens meanwhile."""
        gather, utc_now = gate.gather, records.utc_now

        def slow(*args: Any, **keywords: Any) -> Any:
            found = gather(*args, **keywords)
            self.market.clock.sleep(seconds)
            late = records.utc_text(records.parse_utc(utc_now()) + datetime.timedelta(seconds=seconds))
            clock.enter_context(mock.patch.object(records, "utc_now", return_value=late))
            meanwhile()
            return found

        with contextlib.ExitStack() as clock:
            clock.enter_context(mock.patch.object(gate, "gather", slow))
            yield

    def end(self) -> dict[str, Any]:
        """What is left: on the market, in the store, in the journal."""
        record = self.store.read_box("digits", "vast-a", 1) or {}
        names = ("parked_at", "started_at", "destroyed_at")
        lines = [(line["kind"], line["verb"], *map(line.get, KINDS)) for line in Journal(self.store).lines()]
        sent = [(verb, re.sub("[0-9]+", "#", path), body) for verb, path, body in self.market.requests if verb != "GET"]
        consent = records.read_record(self.store.approval_path(self.approval), "approval") if self.approval else {}
        return {
            "instances": len(self.market.instances),
            "record": {name: record.get(name) is not None for name in names},
            "journal": lines,
            "sent": sent,
            "consent": {name: consent.get(name) is not None for name in ("claimed_at", "used_at")},
        }

    def destroyed(self, **changes: Any) -> list[Any]:
        box = self.box
        return [told(lambda: self.account(**changes).destroy(box, 60.0, why="it is home")), self.end()]


# --- stories of boxes ---------------------------------------------------------------------------------------------


def _at_once(folder: Path, **bench: Any) -> list[Any]:
    return Bench(folder, **bench).destroyed()


def _parked(folder: Path) -> list[Any]:
    """It was stopped by us; an hour later its copies take an hour to read."""
    bench = Bench(folder)
    stopped = told(lambda: bench.account().stop(bench.box, 60.0)[1])
    with bench.reading_takes(3600):
        return [stopped, *bench.destroyed()]


def _meanwhile(folder: Path, seconds: float, row: dict[str, Any], **bench: Any) -> list[Any]:
    made = Bench(folder, **bench)
    with made.reading_takes(seconds, lambda: made.row.update(row)):
        return made.destroyed()


def _turned_while_parked(folder: Path) -> list[Any]:
    bench = Bench(folder, **STOPPED)
    bench.note(parked_at=bench.ago(1))
    with bench.reading_takes(1, lambda: bench.row.update(RUNNING)):
        return bench.destroyed()


def _gone(folder: Path) -> list[Any]:
    """The provider has forgotten it before it is looked at."""
    bench = Bench(folder)
    box = bench.box
    bench.market.instances.clear()
    return [told(lambda: bench.account().destroy(box, 60.0)), bench.end()]


def _gone_meanwhile(folder: Path) -> list[Any]:
    bench = Bench(folder)
    with bench.reading_takes(1, bench.market.instances.clear):
        return bench.destroyed()


def _turned_before_the_verb(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.market.fault("GET", ITEM, skip=2, rewrite=lambda found: {"instances": {**found["instances"], **STOPPED}})
    return bench.destroyed()


def _gone_before_the_verb(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.market.fault("GET", ITEM, skip=2, rewrite=lambda _found: {"instances": None})
    return bench.destroyed()


def _listed_a_while(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.market.linger_s = 30.0
    return [*bench.destroyed(), bench.market.instances]


def _leaving(folder: Path) -> list[Any]:
    """Destroyed by a process that did not live to see it gone."""
    bench = Bench(folder, cur_state="unloaded", intended_status="stopped")
    bench.market.linger_s = 30.0
    bench.market.client().destroy_instance(str(bench.row["id"]))
    return bench.destroyed()


def _listed_for_ever(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.market.linger_s = 1e9
    return bench.destroyed()


def _delete_that_fails(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.market.fault("DELETE", "instances", times=10_000, answer=(503, b"down", {}))
    first = bench.destroyed()
    bench.market.faults.clear()
    return [len(first), first[1]["consent"], first[1]["instances"], *bench.destroyed()[:1]]


def _stops(folder: Path) -> list[Any]:
    """A stop that the profile says wipes the disk is gated; one that keeps it is not."""
    bench = Bench(folder, sealed=False)
    wiping = bench.account(keeps={"stop": []})
    return [
        told(lambda: wiping.stop(bench.box, 60.0)),
        told(lambda: bench.account().stop(bench.box, 60.0)[1]),
        bench.end(),
    ]


def _kept(folder: Path) -> list[Any]:
    promises: list[dict[str, Any]] = [{}, {"destroy": []}, {"destroy": ["disk", "volume"]}, {"stop": []}]
    promises += [{"stop": ["disk"]}, {"stop": ["volume", "fs"], "destroy": ["disk"]}]
    bench = Bench(folder)
    return [bench.account(keeps=keeps).kept_by(verb) for keeps in promises for verb in ("destroy", "stop")]


def _must_stop(folder: Path) -> list[bool]:
    bench = Bench(folder)
    outbid = {**STOPPED, "min_bid": 9.0}
    found = []
    leaving = {**RUNNING, "intended_status": "stopped"}
    wanted, odd = {**outbid, "intended_status": "running"}, {**STOPPED, "intended_status": "frozen"}
    for row in (RUNNING, STOPPED, outbid, leaving, wanted, odd):
        for record in ({"parked_at": None}, {"parked_at": bench.ago(1)}, {"provider_id": "1"}):
            bench.note(**{"provider_id": bench.identity.provider_id, **record})
            bench.row.update(row)
            found.append(bench.account().must_stop(bench.box))
    return found


def _seen_at_work(folder: Path) -> list[Any]:
    """A box that we parked runs: somebody started it, and the records say so, but not in check mode."""
    bench = Bench(folder)
    bench.note(parked_at=bench.ago(3))
    found: list[Any] = []
    for read_only in (True, False):
        account = bench.account(read_only=read_only)
        found += [told(lambda account=account: account.pass_gate(bench.box, "stop")), bench.end()]
    return found


def _denied_for_a_while(folder: Path) -> list[Any]:
    bench = Bench(folder)
    bench.note(destroyed_at=bench.ago(60), lost=True)
    bench.account()._note_seen(bench.box, records.utc_now())
    return [bench.end()]


def _strangers(folder: Path) -> list[Any]:
    bench = Bench(folder)
    stranger = to_box(bench.market.add("mine"))
    found = [told(lambda: bench.account().destroy(stranger)), told(lambda: bench.account().pass_gate(stranger, "stop"))]
    bench.account()._note_seen(stranger, records.utc_now())
    box, bench.row["label"] = bench.box, str(new_stamp("digits", "vast-a", 9))
    found += [told(lambda: bench.account().look(box)), told(lambda: bench.account().look(stranger).provider_id)]  # type: ignore[union-attr]  # it is there
    stranger_row = bench.market.instances[int(stranger.provider_id)]
    stranger_row["label"] = str(new_stamp("digits", "vast-b", 1))
    found.append(told(lambda: bench.account().look(stranger).provider_id))  # type: ignore[union-attr]  # it is there
    # A duplicate of the generation has no record of its own to close.
    bench.note(provider_id="1")
    bench.account()._note_gone(box)
    return [*found, bench.end()]


def _plain(folder: Path) -> list[Any]:
    profile = {"park": [{"verb": "stop", "keeps": ["disk"]}, "odd", {"verb": "stop", "keeps": ["disk", "fs"]}]}
    found: list[Any] = [
        rental_account.keeps_of(verbs)
        for verbs in ({}, profile, {"destroy": ["disk"]}, {"park": ["x"]}, {"stop": None}, {"park": [{"verb": "stop"}]})
    ]
    moments = (None, 0.0, 100.0, 220.0, 221.0)
    found += [rental_account._is_later(started, since) for started in moments for since in moments]
    found += [
        told(lambda missing=missing: _raise(rental_account._refused("instance", _WHO, "stop", missing)))
        for missing in ([], ["x"])
    ]
    bench = Bench(folder, **STOPPED)
    return [*found, bench.account().provider_view(bench.box).state, _rested(bench)]


_WHO = BoxIdentity("digits", "vast-a", 1, "7")


def _rested(bench: Bench) -> Any:
    """A view without a time, where the provider gives none."""
    bench.row["start_date"] = None
    return bench.account().provider_view(bench.box).started_at


def _raise(failure: TenantFailure) -> None:
    raise failure


BOXES: dict[str, Callable[[Path], list[Any]]] = {
    "kept": _kept,
    "plain": _plain,
    "must stop": _must_stop,
    "virgin": lambda folder: _at_once(folder, deployed=False, sealed=False),
    "used": lambda folder: _at_once(folder, sealed=False),
    "sealed": _at_once,
    "parked": _parked,
    "an hour passed": lambda folder: _meanwhile(folder, 3600, {}),
    "restarted": lambda folder: _meanwhile(folder, 200, {"uptime_mins": 1.0}),
    "an old answer": lambda folder: _meanwhile(folder, 200, {}),
    "told in minutes": lambda folder: _meanwhile(folder, 100, {"uptime_mins": 61.0}),
    "stopped meanwhile": lambda folder: _meanwhile(folder, 1, STOPPED),
    "turned": _turned_while_parked,
    "gone": _gone,
    "gone meanwhile": _gone_meanwhile,
    "turned before the verb": _turned_before_the_verb,
    "gone before the verb": _gone_before_the_verb,
    "listed a while": _listed_a_while,
    "leaving": _leaving,
    "listed for ever": _listed_for_ever,
    "a delete that fails": _delete_that_fails,
    "stops": _stops,
    "seen at work": _seen_at_work,
    "denied for a while": _denied_for_a_while,
    "strangers": _strangers,
}
OF_BOXES = {
    "kept_by", "must_stop", "stop", "pass_gate", "provider_view", "look", "destroy", "await_gone", "_recheck",
    "_approver", "_spending", "_note_seen", "_note_gone", "_is_later", "identity_of", "_refused", "keeps_of",
    "was_started",
}  # fmt: skip


# --- stories of volumes -------------------------------------------------------------------------------------------


def _ended(world: VolumeWorld, *found: Any) -> list[Any]:
    lines = [
        (line["kind"], line["verb"], line.get("rule"), line.get("was_there")) for line in world.account.journal.lines()
    ]
    last = world.store.last_generation("vision", "volume.data-1")
    known = [world.store.read_box("vision", "volume.data-1", number) or {} for number in range(1, last + 1)]
    closed = [(record.get("destroyed_at") is not None, record.get("deploy_started_at") is not None) for record in known]
    return [*found, lines, closed, len(world.volumes)]


def _deleted(world: VolumeWorld, **changes: Any) -> Any:
    found = told(lambda: world.do(state="absent", **changes))
    if not isinstance(found, dict):
        return found
    return {**found, "gate": [{**one, "approval_id": one["approval_id"] is not None} for one in found["gate"]]} | {
        name: re.sub("__[0-9a-f]{8}", "", str(found[name])) for name in ("superseded", "volume", "diff")
    }


def _volume(folder: Path, **row: Any) -> VolumeWorld:
    world = VolumeWorld(folder)
    world.add(str(volumes.new_stamp("vision", "data-1", 1)), **row)
    return world


def _without_consent(folder: Path) -> list[Any]:
    world = _volume(folder)
    looked = _deleted(world, check_mode=True)
    known = world.store.last_generation("vision", "volume.data-1")
    return _ended(world, looked, known, _deleted(world))


def _with_consent(folder: Path, **changes: Any) -> list[Any]:
    world = _volume(folder)
    world.approve(**changes)
    return _ended(world, _deleted(world, check_mode=True), len(world.volumes), _deleted(world), _deleted(world))


def _in_use(folder: Path) -> list[Any]:
    world = _volume(folder)
    world.approve()
    world.volumes[0]["instances"] = [4711]
    volume = volumes.locate(world.account, "vision", "data-1").current
    assert volume is not None
    return _ended(world, _deleted(world), told(lambda: kept_volumes.delete(world.account, volume)))


def _views(folder: Path) -> list[Any]:
    world, found = _volume(folder), []
    for users in ([], [4711]):
        world.volumes[0]["instances"] = users
        volume = volumes.locate(world.account, "vision", "data-1").current
        assert volume is not None
        evidence = volume_gate.evidence_of(world.account.store, volume.identity)
        found.append(
            (evidence.provider.state, evidence.provider.started_at, evidence.keeps, evidence.gated_tiers, evidence.verb)
        )
    return found


def _several(folder: Path) -> list[Any]:
    """Two of one name: consent to the newer one alone deletes neither."""
    world = _volume(folder)
    world.add(str(volumes.new_stamp("vision", "data-1", 2)))
    world.approve()
    return _ended(world, _deleted(world))


def _by_a_rule_without_a_person(folder: Path) -> list[Any]:
    world = _volume(folder)
    with mock.patch.object(gate, "decide", return_value=gate.Decision(True, "virgin", (), None)):
        return _ended(world, _deleted(world, check_mode=True), _deleted(world))


def _gone_already(folder: Path) -> list[Any]:
    world = _volume(folder)
    world.approve()
    volume = volumes.locate(world.account, "vision", "data-1").current
    assert volume is not None
    world.volumes.clear()
    return _ended(world, told(lambda: kept_volumes.delete(world.account, volume)))


def _flickering(folder: Path) -> list[Any]:
    """After the delete one list lacks it, the next has it, and only two that lack it count."""
    world = _volume(folder)
    world.approve()
    row, serve, lists = dict(world.volumes[0]), world.market._serve, itertools.count()

    def flicker(method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        status, found = serve(method, path, query, body)
        if method == "GET" and path.startswith("/api/v0/volumes") and not world.volumes and next(lists) == 1:
            return 200, {"volumes": [row]}
        return status, found

    world.market._serve = flicker  # type: ignore[method-assign]  # as the lists of one account may disagree
    return _ended(world, _deleted(world), next(lists))


def _never_gone(folder: Path) -> list[Any]:
    world = _volume(folder)
    world.approve()
    serve = world.market._serve

    def promises(method: str, *rest: Any) -> Any:
        return (200, {"success": True}) if method == "DELETE" else serve(method, *rest)

    world.market._serve = promises  # type: ignore[method-assign]
    return _ended(world, _deleted(world))


def _known_otherwise(folder: Path) -> list[Any]:
    """A record of the same generation of another volume is written over; our own one keeps its times."""
    world = _volume(folder)
    world.store.update_box("vision", "volume.data-1", 1, provider_id="V.1", deploy_started_at=None, destroyed_at="then")
    first = _ended(world, _deleted(world))
    world.store.update_box("vision", "volume.data-1", 1, created_at="kept")
    return _ended(
        world, first, _deleted(world), (world.store.read_box("vision", "volume.data-1", 1) or {})["created_at"]
    )


VOLUMES: dict[str, Callable[[Path], list[Any]]] = {
    "views": _views,
    "without consent": _without_consent,
    "with consent": _with_consent,
    "consent to another verb": lambda folder: _with_consent(folder, verb="destroy"),
    "in use": _in_use,
    "several": _several,
    "nobody": _by_a_rule_without_a_person,
    "gone already": _gone_already,
    "flickering": _flickering,
    "never gone": _never_gone,
    "known otherwise": _known_otherwise,
}
OF_KEPT_VOLUMES = {"pass_gate", "delete", "_await_gone", "remember"}
OF_VOLUME_GATE = {"evidence_of", "consent", "remember"}
OF_VOLUME_STATES = {"absent"}


# --- the mutants --------------------------------------------------------------------------------------------------


def told_anew(folder: Path, stories: dict[str, Callable[[Path], list[Any]]]) -> dict[str, Callable[[], list[str]]]:
    """Each story in a folder of its own, which its end does not name."""
    rounds = itertools.count()

    def end(story: Callable[[Path], list[Any]]) -> list[str]:
        place = folder / str(next(rounds))
        return [repr(story(place)).replace(str(place), "")]

    return {name: functools.partial(end, story) for name, story in stories.items()}


SCENES: dict[str, tuple[types.ModuleType, set[str], dict[str, Callable[[Path], list[Any]]]]] = {
    "boxes": (rental_account, OF_BOXES, BOXES),
    "kept volumes": (kept_volumes, OF_KEPT_VOLUMES, VOLUMES),
    "volume gate": (volume_gate, OF_VOLUME_GATE, VOLUMES),
    "volume states": (volume_states, OF_VOLUME_STATES, VOLUMES),
}
# Mutants that are no other program, each with the reason.
EQUIVALENT: dict[str, str] = {
    "kept_volumes._await_gone: True #0": "whatever is not None ends the wait",
    "volume_gate.consent: decision.allowed and decision.approval_id is not None #1": "a refusal names no approval",
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with no_waiting_for_disks():
        yield


@pytest.mark.parametrize("name", sorted(SCENES))
def test_every_mutant_of_a_gated_verb_is_found(name: str, tmp_path: Path) -> None:
    module, functions, stories = SCENES[name]
    alive, of = survivors(told_anew(tmp_path, stories), module, functions)
    assert [where for where in alive if where not in EQUIVALENT] == [], f"of {of}"


def test_the_stories_end_in_both_ways(tmp_path: Path) -> None:
    """Stories that are all refused, or none, would tell little."""
    ends = {name: tell()[0] for name, tell in told_anew(tmp_path, {**BOXES, **VOLUMES}).items()}
    for name in ("virgin", "sealed", "parked", "an old answer", "told in minutes", "gone before the verb"):
        assert "'rule': " in ends[name], ends[name]
        assert "'instances': 0" in ends[name], ends[name]
    for name in ("used", "an hour passed", "restarted", "turned", "turned before the verb", "in use", "several"):
        assert "gate_refused" in ends[name], ends[name]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Superseded boxes: stopped at once, told, and past their deadline ended by the gate's word and by nothing else."""

from __future__ import annotations

import datetime
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast import superseded
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from wire_market import WireMarket

sys.path.insert(0, str(Path(__file__).parents[1] / "evidence"))
from mutants import no_waiting_for_disks, survivors

ROLES = Path(__file__).parents[3] / "roles"
RESTS = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}


def ago(seconds: float) -> str:
    return records.utc_text(records.parse_utc(records.utc_now()) - datetime.timedelta(seconds=seconds))


class Replaced:
    """Generation 1 worked until generation 2 took its place, that many hours ago."""

    def __init__(self, folder: Path, hours_ago: float | None = 25, **row: Any) -> None:
        self.market = WireMarket()
        self.store = StateStore(str(folder))
        self.old = self.add(1, **row)
        self.current = self.add(2)
        admitted = None if hours_ago is None else ago(hours_ago * 3600)
        self.note(1, self.old, deploy_started_at=ago(200_000))
        self.note(2, self.current, deploy_started_at=None, admitted_at=admitted)

    def add(self, generation: int, **row: Any) -> dict[str, Any]:
        born = self.market.epoch() - 200_000
        return self.market.add(str(new_stamp("digits", "vast-a", generation)), **{"start_date": born, **row})

    def note(self, generation: int, row: dict[str, Any], **facts: Any) -> None:
        facts = {"provider_id": str(row["id"]), "created_at": ago(200_000), **facts}
        self.store.update_box("digits", "vast-a", generation, **facts)

    @property
    def identity(self) -> BoxIdentity:
        return BoxIdentity("digits", "vast-a", 1, str(self.old["id"]))

    def parked(self, seconds_ago: float) -> Replaced:
        self.old.update(RESTS)
        self.store.update_box("digits", "vast-a", 1, parked_at=ago(seconds_ago))
        return self

    def looked_at(self, seconds_ago: float, runs: tuple[str, ...] = (), seal: bool = True) -> Replaced:
        """Its seal was read then. A run that it lists was never harvested."""
        named = [{"run_id": run_id, "spec_sha256": "5" * 64, "manifest_digest": "a" * 64} for run_id in runs]
        promises: dict[str, Any] = {
            name: dict(self.identity.as_dict(), schema=records.schema(name), epoch=1, runs=named)
            for name in ("seal", "index")
        }
        reached = {run_id: {"c0": {"step": 400, "done": False}} for run_id in runs}
        answer = dict(
            promises, live_cells=[], unlisted_runs=[], checkpoints=reached, durable=[], boot_id="b", problems=[]
        )
        reading = seal_reading.as_record(self.identity, ago(seconds_ago), answer if seal else {**answer, "seal": None})
        seal_reading.save(self.store, self.identity, reading)
        return self

    def approve(self) -> Replaced:
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it was replaced"}
        approvals.give(self.store, self.identity, "destroy", {"kind": "complete_receipt"}, **who)
        return self

    def settle(self, state: str = "absent", check_mode: bool = False, **keeps: Any) -> dict[str, Any]:
        account = Account(self.market.client(), self.store, keeps_of(keeps))
        return superseded.settle(account, "digits", "vast-a", state, 60.0, check_mode)

    def one(self, state: str = "absent", **options: Any) -> dict[str, Any]:
        (found,) = self.settle(state, **options)["boxes"]
        return dict(found)

    @property
    def ended(self) -> bool:
        return self.old["id"] not in self.market.instances


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with no_waiting_for_disks():
        yield


def test_it_is_stopped_at_once_and_told_with_its_deadline(tmp_path: Path) -> None:
    world = Replaced(tmp_path, hours_ago=1)
    predicted = world.settle(check_mode=True)
    assert not world.market.sent("PUT", "instances")
    done, again = world.settle(), world.settle()
    assert [predicted["changed"], done["changed"], again["changed"]] == [True, True, False]
    assert predicted["diff"] == done["diff"]
    assert world.old["intended_status"] == "stopped"
    assert world.current["intended_status"] == "running"
    (old,) = done["boxes"]
    assert (old["state"], old["overdue"], old["to_harvest"], old["generation"]) == ("stopped", False, False, 1)
    due = records.parse_utc(old["due"]) - records.parse_utc(old["superseded_at"])
    assert due == datetime.timedelta(hours=24)
    assert f"by {old['due']}" in done["told"][0]
    assert "approve destroy vast-a --generation 1 --loss" in done["told"][0]


@pytest.mark.parametrize(
    ("actual", "intended", "told"),
    [("offline", "stopped", 0), ("offline", "running", 1), ("running", "stopped", 1)],
)
def test_nobody_waits_for_a_host_that_is_away_and_was_told(
    tmp_path: Path, actual: str, intended: str, told: int
) -> None:
    world = Replaced(tmp_path, hours_ago=1, actual_status=actual, intended_status=intended, cur_state=intended)
    old = world.one()
    assert len(world.market.sent("PUT", "instances")) == told
    assert (old["state"] == "offline") == (not told)


def test_law_2_before_its_deadline_it_is_kept_even_if_the_gate_would_let_it_go(tmp_path: Path) -> None:
    world = Replaced(tmp_path, hours_ago=23).parked(5).looked_at(10).approve()
    assert world.one()["state"] == "stopped"
    assert not world.ended


def test_nothing_is_replaced_before_its_successor_was_admitted(tmp_path: Path) -> None:
    world = Replaced(tmp_path, hours_ago=None)
    done = world.settle()
    assert not done["changed"]
    assert "has not been admitted" in done["boxes"][0]["kept_because"]
    assert world.old["intended_status"] == "running"


def test_law_2_an_overdue_one_is_stopped_and_kept_while_the_gate_is_shut(tmp_path: Path) -> None:
    world = Replaced(tmp_path).looked_at(5, runs=("r1",)).approve()
    done = world.settle()
    (old,) = done["boxes"]
    assert (old["state"], old["overdue"], old["to_harvest"], old["gate"]) == ("stopped", True, True, None)
    assert "run r1: there is no receipt" in old["kept_because"]
    assert "which was due by" in done["told"][0]
    assert not world.ended
    assert not world.market.sent("DELETE", "instances")


def test_law_2_an_overdue_one_goes_with_its_evidence_and_an_approval(tmp_path: Path) -> None:
    world = Replaced(tmp_path, **RESTS).parked(5).looked_at(10).approve()
    assert world.one("parked")["state"] == "stopped", "parked never ends one"
    predicted = world.one(check_mode=True)
    assert not world.ended
    old = world.one()
    assert (old["state"], old["kept_because"]) == ("absent", "")
    assert old["gate"]["approver"] == predicted["gate"]["approver"] == "ada"
    assert world.ended
    assert world.settle() == {"changed": False, "diff": {"before": {}, "after": {}}, "boxes": [], "told": []}


def test_law_2_an_overdue_one_goes_when_nothing_of_it_is_beyond_a_verified_copy(tmp_path: Path) -> None:
    """The gate's own exception: never sealed, told to stop, and the box is known to hold no run."""
    world = Replaced(tmp_path, **RESTS).parked(5).looked_at(10, seal=False)
    assert world.one()["gate"]["rule"] == "superseded"
    assert world.ended


def test_law_2_an_overdue_one_that_may_have_got_further_is_looked_into_first(tmp_path: Path) -> None:
    """It was stopped long after the last look. A teardown may go by what is known; here nobody asked for its end."""
    world = Replaced(tmp_path, **RESTS).parked(5).looked_at(9000, seal=False)
    old = world.one()
    assert (old["to_harvest"], old["kept_because"]) == (
        True,
        "it may hold what is not home, and nobody approved its end",
    )
    assert not world.ended
    world.looked_at(10, seal=False)
    assert world.one()["state"] == "absent"


def test_law_2_a_virgin_one_goes_once_it_is_overdue(tmp_path: Path) -> None:
    world = Replaced(tmp_path)
    world.note(1, world.old, deploy_started_at=None)
    assert world.one()["gate"]["rule"] == "virgin"


def test_what_is_home_is_not_harvested_again(tmp_path: Path) -> None:
    world = Replaced(tmp_path, **RESTS).parked(5).looked_at(10)
    assert not world.one("parked")["to_harvest"]
    world.looked_at(10, runs=("r1",))
    assert world.one("parked")["to_harvest"]


def test_a_second_box_of_one_generation_is_stopped_too(tmp_path: Path) -> None:
    world = Replaced(tmp_path, hours_ago=1)
    twin = world.add(2)
    done = world.settle()
    assert [box["generation"] for box in done["boxes"]] == [2, 1]
    assert twin["intended_status"] == world.old["intended_status"] == "stopped"
    assert done["boxes"][0]["due"] is None


def test_one_that_cannot_be_stopped_keeps_none_of_the_others(tmp_path: Path) -> None:
    world = Replaced(tmp_path, hours_ago=1)
    twin = world.add(2)
    world.market.fault("PUT", f"instances/{twin['id']}/$", times=10_000, answer=(503, b"down", {}))
    done = world.settle()
    assert "could not be stopped" in done["boxes"][0]["kept_because"]
    assert world.old["intended_status"] == "stopped"


def test_law_2_a_stop_that_would_wipe_the_disk_is_gated(tmp_path: Path) -> None:
    world = Replaced(tmp_path)
    old = world.one(park=[{"verb": "stop", "keeps": []}])
    assert "could not be stopped: stop of instance" in old["kept_because"]
    assert world.old["intended_status"] == "running"


@pytest.mark.parametrize(
    ("tasks", "states"),
    [
        ("harvest/tasks/superseded_vast.yml", ["parked", "absent"]),
        ("teardown/tasks/superseded_vast.yml", ["absent"]),
        ("provision/tasks/vast/superseded.yml", ["absent"]),
    ],
)
def test_the_roles_deal_with_them(tasks: str, states: list[str]) -> None:
    listed = yaml.safe_load((ROLES / tasks).read_text())
    asked = [task["tenant.gpu.vast_superseded"] for task in listed if "tenant.gpu.vast_superseded" in task]
    assert [options["state"] for options in asked] == states
    assert all(options["verb_keeps"] == "{{ platform_verbs }}" for options in asked)


# --- mutants ------------------------------------------------------------------------------------------------------


WIPES = {"park": [{"verb": "stop", "keeps": []}]}


def stories(folder: Path) -> dict[str, Callable[[], Iterator[Any]]]:
    """The worlds above, each settled once in a folder of its own; a wrong condition ends one of them differently."""
    rounds = itertools.count()

    def world(*args: Any, **row: Any) -> Replaced:
        return Replaced(folder / str(next(rounds)), *args, **row)

    def at_rest(*args: Any) -> Replaced:
        return world(*args, **RESTS).parked(5)

    def with_twin() -> Replaced:
        made = world(1)
        made.add(2)
        return made

    def virgin() -> Replaced:
        made = world()
        made.note(1, made.old, deploy_started_at=None)
        return made

    def vanishing() -> Replaced:
        made = world()
        made.market.fault(
            "GET", f"v0/instances/{made.old['id']}/$", times=10_000, rewrite=lambda _found: {"instances": None}
        )
        return made

    def away(actual: str, intended: str) -> Replaced:
        return world(1, actual_status=actual, intended_status=intended, cur_state=intended)

    worlds: dict[str, Callable[[], Replaced]] = {
        "early": lambda: world(1),
        "not admitted": lambda: world(None),
        "overdue": lambda: world().looked_at(5, runs=("r1",)).approve(),
        "a twin": with_twin,
        "running, never sealed": lambda: world().looked_at(5, seal=False),
        "gone while it stops": vanishing,
        "home": lambda: at_rest().looked_at(10).approve(),
        "home, early": lambda: at_rest(23).looked_at(10).approve(),
        "never sealed": lambda: at_rest().looked_at(10, seal=False),
        "not home": lambda: at_rest().looked_at(10, runs=("r1",)),
        "looked at long ago": lambda: at_rest().looked_at(9000, runs=("r1",)),
        "never looked at": at_rest,
        "known, looked at long ago": lambda: at_rest().looked_at(9000, seal=False),
        "known, looked at long ago, approved": lambda: at_rest().looked_at(9000, seal=False).approve(),
        "virgin": virgin,
        "away, told": lambda: away("offline", "stopped"),
        "away, not told": lambda: away("offline", "running"),
        "there, told": lambda: away("running", "stopped"),
    }
    asked: list[dict[str, Any]] = [{}, {"check_mode": True}, {"state": "parked"}, WIPES]
    return {
        f"{name}, {options}": functools.partial(_end_of, make, options)
        for name, make in worlds.items()
        for options in asked
    }


def _end_of(make: Callable[[], Replaced], options: dict[str, Any]) -> Iterator[Any]:
    world = make()
    found = world.settle(**options)
    for box in found["boxes"]:
        yield [box[name] for name in ("provider_id", "generation", "state", "overdue", "to_harvest")]
        yield [bool(box[name]) for name in ("superseded_at", "due", "gate")]
        yield [word in box["kept_because"] for word in ("admitted", "stopped", "refused", "no receipt", "nobody")]
    yield [[word in told for word in ("was due", ", by ", "(", "is destroyed")] for told in found["told"]]
    sent = [(verb, path, body) for verb, path, body in world.market.requests if verb != "GET"]
    yield found["changed"], found["diff"], sent, sorted(world.market.instances)


def test_every_mutant_is_found(tmp_path: Path) -> None:
    alive, of = survivors(stories(tmp_path), superseded)
    assert alive == [], f"of {of}"

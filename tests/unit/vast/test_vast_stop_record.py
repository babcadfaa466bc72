# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A process that dies while it stops a box: the next look finds the stop, and never takes another's stop for ours."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, power_record, seal_reading
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box
from wire_market import WireMarket

ITEM = r"v0/instances/[0-9]+/$"
RUNNING = {"actual_status": "running", "intended_status": "running", "cur_state": "running", "next_state": "running"}
STOPPED = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}
NIGHT = records.parse_utc(records.utc_now())
HOUR = 3600.0


class Killed(BaseException):
    pass


class Night:
    """A box that is done and sealed, its controller's clock, and what happens to both."""

    def __init__(self, folder: Path) -> None:
        self.market, self.store = WireMarket(), StateStore(str(folder))
        up_since_yesterday = {"start_date": self.market.epoch() - 24 * HOUR, "uptime_mins": 24 * 60.0}
        self.row = self.market.add(str(new_stamp("digits", "vast-a", 1)), **up_since_yesterday)
        self.identity = BoxIdentity("digits", "vast-a", 1, str(self.row["id"]))
        self._now = NIGHT
        times = {"created_at": self.ago(24 * HOUR), "deploy_started_at": self.ago(24 * HOUR)}
        self.store.update_box("digits", "vast-a", 1, provider_id=self.identity.provider_id, **times)
        self.is_sealed()
        who = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "it may not bill till morning"}
        approvals.give(self.store, self.identity, "destroy", {"kind": "complete_receipt"}, **who)

    def now(self) -> str:
        return records.utc_text(self._now)

    def ago(self, seconds: float) -> str:
        return records.utc_text(self._now - datetime.timedelta(seconds=seconds))

    def passes(self, seconds: float) -> None:
        self._now += datetime.timedelta(seconds=seconds)

    @property
    def account(self) -> Account:
        return Account(self.market.client(), self.store)

    @property
    def record(self) -> dict[str, Any]:
        return power_record.read(self.store, self.identity) or {}

    def is_sealed(self) -> None:
        """Its seal is read from the box, so it answers."""
        place = self.identity.as_dict()
        answer = {name: dict(place, schema=records.schema(name), epoch=1, runs=[]) for name in ("seal", "index")}
        nothing = {"live_cells": [], "unlisted_runs": [], "checkpoints": {}, "durable": [], "problems": []}
        reading = seal_reading.as_record(self.identity, self.now(), {**answer, **nothing, "boot_id": "b"})
        seal_reading.save(self.store, self.identity, reading)

    def look(self) -> None:
        self.account.locate("digits", "vast-a")

    def console(self, row: dict[str, Any]) -> None:
        """Somebody works in the provider's console; nobody tells us."""
        self.row.update(row)

    def stop(self) -> None:
        found = self.account.locate("digits", "vast-a").current
        assert found is not None
        self.account.tell_to_stop(found)

    def destroy(self) -> str:
        found = self.account.locate("digits", "vast-a").current
        assert found is not None
        passed = self.account.destroy(found)
        assert passed is not None
        return passed.rule

    def is_kept(self, why: str) -> None:
        with pytest.raises(TenantFailure, match=why) as caught:
            self.destroy()
        assert caught.value.kind == "gate_refused"
        assert not self.market.sent("DELETE", "instances")


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    moment = {"of": lambda: records.utc_text(NIGHT)}

    def now() -> str:
        return moment["of"]()

    monkeypatch.setattr(records, "utc_now", now)
    made = Night(tmp_path)
    moment["of"] = made.now
    return made


@contextlib.contextmanager
def _dies() -> Iterator[None]:
    """The end of a process by SIGKILL: what an exception would still have written is not written."""
    append = Journal.append

    def until_death(journal: Journal, kind: str, verb: str, **fields: Any) -> dict[str, Any]:
        return {} if kind == "failed" else append(journal, kind, verb, **fields)

    with mock.patch.object(Journal, "append", until_death), pytest.raises(Killed):
        yield


def _before_it_is_sent(night: Night) -> None:
    night.market.fault("PUT", ITEM, raises=Killed)
    with _dies():
        night.stop()


def _before_its_answer(night: Night) -> None:
    night.market.fault("PUT", ITEM, raises=Killed, effect_first=True)
    with _dies():
        night.stop()


def _before_its_line(night: Night) -> None:
    append = Journal.append

    def torn(journal: Journal, kind: str, verb: str, **fields: Any) -> dict[str, Any]:
        if (kind, verb) == ("effect", "stop"):
            raise Killed
        return append(journal, kind, verb, **fields)

    with mock.patch.object(Journal, "append", torn), _dies():
        night.stop()


def _before_its_record(night: Night) -> None:
    with mock.patch.object(power_record, "note_stop", side_effect=Killed), _dies():
        night.stop()


EFFECTIVE = (_before_its_answer, _before_its_line, _before_its_record)


@pytest.mark.parametrize("dies", EFFECTIVE)
@pytest.mark.parametrize("later", [0.0, 20.0, HOUR, 20 * HOUR])
def test_a_stop_whose_sender_died_is_found_by_the_next_look(
    night: Night, dies: Callable[[Night], None], later: float
) -> None:
    night.passes(30)
    began = night.now()
    dies(night)
    assert not night.record.get("parked_at")
    night.passes(later)
    night.look()
    client = night.market.client()
    latest = records.parse_utc(began) + datetime.timedelta(seconds=client.retry_for_s + client.timeout_s + 1)
    assert night.record["parked_at"] == min(night.now(), records.utc_text(latest)), "no later than it can have arrived"
    found = [line for line in Journal(night.store).lines() if line["verb"] == power_record.SEEN_STOPPED]
    assert [line["effective_at"] for line in found] == [night.record["parked_at"]]
    assert night.destroy() == "standing_approval"


def test_what_lives_on_notes_its_own_stop(night: Night) -> None:
    night.passes(30)
    night.stop()
    stopped_at = night.now()
    night.passes(HOUR)
    night.look()
    assert (night.record["parked_at"], night.record["stopping"]) == (stopped_at, None)
    assert power_record.SEEN_STOPPED not in [line["verb"] for line in Journal(night.store).lines()]


def test_a_stop_that_was_never_sent_is_sent_again(night: Night) -> None:
    _before_it_is_sent(night)
    night.passes(60)
    night.stop()
    assert night.record["parked_at"] == night.now()
    assert night.destroy() == "standing_approval"


def test_law_2_a_box_that_was_seen_at_work_was_not_stopped_by_that_request(night: Night) -> None:
    _before_it_is_sent(night)
    night.passes(60)
    night.look()
    assert night.record["stopping"] is None
    night.passes(HOUR)
    night.console(STOPPED)
    night.is_kept("not because we stopped it")


def test_law_2_a_box_that_answered_was_not_stopped_by_that_request(night: Night) -> None:
    """A seal that was read after the stop would else be older than no work at all."""
    _before_it_is_sent(night)
    night.passes(60)
    night.is_sealed()
    night.passes(HOUR)
    night.console(STOPPED)
    night.is_kept("not because we stopped it")


def test_a_seal_that_is_read_from_a_copy_is_no_answer_of_the_box(night: Night) -> None:
    _before_its_answer(night)
    night.passes(60)
    reading = {**records.read_record(night.store.seal_path("digits", "vast-a", 1), "seal-reading"), "at_rest": True}
    seal_reading.save(night.store, night.identity, {**reading, "read_at": night.now()})
    assert night.record["stopping"]


def test_law_2_a_box_that_was_started_since_is_not_taken_for_parked(night: Night) -> None:
    _before_its_answer(night)
    night.passes(60)
    night.account.start(to_box(night.row), Constraints(price_cap=1.0), 60.0)
    assert (night.record["stopping"], night.record["parked_at"]) == (None, None)
    night.passes(HOUR)
    night.console(STOPPED)
    night.is_kept("was started at")


def test_law_2_a_stop_that_the_provider_refused_stopped_nothing(night: Night) -> None:
    night.market.fault(
        "PUT", ITEM, times=99, answer=(400, {"success": False, "error": "invalid_args", "msg": "no"}, {})
    )
    with pytest.raises(TenantFailure):
        night.stop()
    night.passes(HOUR)
    night.console(STOPPED)
    night.is_kept("not because we stopped it")


def test_a_stop_without_an_answer_may_have_arrived(night: Night) -> None:
    night.market.fault("PUT", ITEM, times=99, answer=(503, b"down", {}))
    with pytest.raises(TenantFailure):
        night.stop()
    night.console(STOPPED)
    night.passes(HOUR)
    assert night.destroy() == "standing_approval"


def test_law_2_a_seal_from_long_before_the_stop_is_too_old(night: Night) -> None:
    night.passes(290)
    _before_its_answer(night)
    night.passes(HOUR)
    night.is_kept("s before it was stopped")


def test_law_2_a_box_that_its_provider_stopped_is_not_taken_for_parked(night: Night) -> None:
    _before_it_is_sent(night)
    night.passes(60)
    night.console({**STOPPED, "intended_status": "running", "min_bid": 9.0})
    night.look()
    assert not night.record.get("parked_at")


def test_check_mode_and_a_look_from_before_change_no_record(night: Night) -> None:
    began = night.now()
    _before_its_answer(night)
    night.passes(60)
    Account(night.market.client(), night.store, read_only=True).locate("digits", "vast-a")
    before = records.utc_text(records.parse_utc(began) - datetime.timedelta(seconds=1))
    for state, intended in (("stopped", "stopped"), ("running", "running")):
        power_record.note_seen(night.store, night.identity, state, intended, before)
    other = BoxIdentity("digits", "vast-a", 1, "1")
    power_record.note_seen(night.store, other, "stopped", "stopped", night.now())
    assert not night.record.get("parked_at")
    assert night.record["stopping"]["since"] == began


@pytest.mark.parametrize("told", [None, {}, [], "since", {"since": "soon", "until": "later"}, {"since": NIGHT.year}])
def test_a_damaged_note_stops_nothing(night: Night, told: Any) -> None:
    night.store.update_box("digits", "vast-a", 1, stopping=told)
    night.console(STOPPED)
    night.passes(HOUR)
    night.is_kept("not because we stopped it")

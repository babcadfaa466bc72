# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.marketplace.billing import Segment, Traffic
from gpu_tenant.marketplace.books import Books
from gpu_tenant.marketplace.clock import MarketClock
from gpu_tenant.marketplace.config import MarketplaceConfig
from gpu_tenant.marketplace.fault_memory import FaultMemory
from gpu_tenant.marketplace.faults import plan_of, script_in
from gpu_tenant.marketplace.holds import Held, Hold
from gpu_tenant.marketplace.instances import Instance, Key, Phase
from gpu_tenant.marketplace.state import MarketState, StateDirectory, state_as_dict, state_from_dict


def a_state() -> MarketState:
    key = Key(5, "ssh-ed25519 AAAA", 3.0)
    instance = Instance(
        id=31000001,
        offer_id=1,
        machine_id=2,
        created_at=1.0,
        price=None,
        base_price=0.3,
        storage_cost=0.1,
        disk_gb=20,
        image="debian",
        runtype="ssh",
        ports=(20001, 20002),
        env={"A": "b"},
        args=("x",),
        keys=(key,),
        phase=Phase.RUNNING,
        compute=(Segment(1.0, 2.0, 0.3), Segment(3.0, None, 0.3)),
        traffic=(Traffic(1.5, "bwd", 2.0, 0.01),),
    )
    state = MarketState(9, 12.5, 31000002, 6, {instance.id: instance}, (key,), {2: 0.7})
    script = script_in({"seed": 3, "faults": [{"kind": "outbid", "call": "show", "times": None, "instance": 31000001}]})
    state.faults = FaultMemory(script, plan_of(script, 9))
    state.faults.plan.of_state("show", [31000001], [31000001])
    state.holds.add(Hold(31000001, Held.OUTBID, float("inf"), 1))
    state.holds.add(Hold(31000001, Held.LOADING, 99.5, 1))
    state.secrets, state.profile = {"TOKEN": "x"}, {"fullname": "Ada"}
    return state


def test_a_state_survives_being_written_and_read() -> None:
    assert state_from_dict(json.loads(json.dumps(state_as_dict(a_state())))) == a_state()


def test_a_directory_is_served_once(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path), StateDirectory(tmp_path)
    first.acquire()
    with pytest.raises(TenantFailure, match="another marketplace"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_state_is_private(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path / "market")
    directory.acquire()
    directory.save(a_state())
    directory.release()
    assert (tmp_path / "market").stat().st_mode & 0o077 == 0
    assert (tmp_path / "market" / "market.json").stat().st_mode & 0o077 == 0


def test_another_seed_is_another_market(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    directory.save(a_state())
    assert directory.load(9) == a_state()
    with pytest.raises(TenantFailure, match="seed 9, not 10"):
        directory.load(10)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "seed": 0}'])
def test_a_strangers_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "market.json").write_text(text)
    with pytest.raises(TenantFailure) as refusal:
        StateDirectory(tmp_path).load(0)
    assert refusal.value.kind == "config"
    assert (tmp_path / "market.json").read_text() == text


def test_what_was_saved_is_written_by_the_next_flush_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    directory = StateDirectory(tmp_path)
    monkeypatch.setattr(directory, "write", written.append)
    books = Books(MarketplaceConfig(port=0, api_key="k", state=tmp_path), directory)
    for _change in range(3):
        with books.changing() as (state, _now):
            state.take_id()
    assert written == []
    books.flush()
    books.flush()
    assert len(written) == 1
    assert json.loads(written[0])["next_id"] == 31000004


def test_a_write_that_failed_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_text: str) -> None:
        raise OSError("no space left")

    directory = StateDirectory(tmp_path)
    books = Books(MarketplaceConfig(port=0, api_key="k", state=tmp_path), directory)
    with books.changing() as (state, _now):
        state.take_id()
    with monkeypatch.context() as patched:
        patched.setattr(directory, "write", full)
        with pytest.raises(OSError, match="no space"):
            books.flush()
    books.flush()
    assert StateDirectory(tmp_path).load(0).next_id == 31000002


def test_ids_only_grow() -> None:
    state = MarketState()
    assert [state.take_id() for _unused in range(3)] == [31000001, 31000002, 31000003]


class Hands:
    def __init__(self) -> None:
        self.wall = 1000.0
        self.monotonic = 50.0


def test_a_fast_clock_runs_ahead_of_the_wall() -> None:
    hands = Hands()
    clock = MarketClock(3600, 0, lambda: hands.wall, lambda: hands.monotonic)
    hands.monotonic += 2
    assert clock.now() == 1000.0 + 7200.0


def test_market_time_never_goes_back() -> None:
    hands = Hands()
    assert MarketClock(1, 5000.0, lambda: hands.wall, lambda: hands.monotonic).now() == 5000.0
    assert MarketClock(1, 10.0, lambda: hands.wall, lambda: hands.monotonic).now() == 1000.0


def test_a_clock_slower_than_the_wall_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        MarketClock(0.5)


def test_the_date_header_is_the_markets(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MarketClock(1, 0, lambda: 0.0, lambda: 0.0)
    assert clock.http_date() == "Thu, 01 Jan 1970 00:00:00 GMT"


def changed_market(folder: Path) -> Books:
    """A market whose second change went into the journal."""
    StateDirectory(folder).save(a_state())
    books = Books(MarketplaceConfig(port=0, api_key="k", state=folder, seed=9), StateDirectory(folder))
    instance = books.instance(31000001)
    for label in ("first", "second"):
        with books.changing() as (state, _now):
            state.take_id()
            books.put(replace(instance, label=label))
        books.flush()
    return books


def test_a_change_after_the_first_is_written_beside_the_state(tmp_path: Path) -> None:
    books = changed_market(tmp_path)
    journal = tmp_path / "market.journal"
    assert journal.read_text().count("\n") == 1
    assert journal.stat().st_mode & 0o077 == 0
    assert StateDirectory(tmp_path).load(9) == books.state


def test_half_an_entry_was_never_answered_for(tmp_path: Path) -> None:
    books = changed_market(tmp_path)
    with (tmp_path / "market.journal").open("a") as journal:
        journal.write('{"series": "x", "inst')
    assert StateDirectory(tmp_path).load(9) == books.state


def test_a_broken_entry_before_the_last_is_a_strangers(tmp_path: Path) -> None:
    changed_market(tmp_path)
    with (tmp_path / "market.journal").open("a") as journal:
        journal.write("{}\n")
    with pytest.raises(TenantFailure, match="not a marketplace's state"):
        StateDirectory(tmp_path).load(9)


def test_a_journal_of_an_earlier_state_counts_no_more(tmp_path: Path) -> None:
    changed_market(tmp_path)
    before = (tmp_path / "market.journal").read_text()
    StateDirectory(tmp_path).save(a_state())
    (tmp_path / "market.journal").write_text(before)
    assert StateDirectory(tmp_path).load(9) == a_state()


def test_a_long_journal_becomes_a_state_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_tenant.marketplace.state.JOURNAL_BYTES", 1)
    books = changed_market(tmp_path)
    books.save()
    books.flush()
    assert not (tmp_path / "market.journal").exists()
    assert StateDirectory(tmp_path).load(9) == books.state


def test_an_entry_that_failed_is_made_up_for_by_the_whole_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = changed_market(tmp_path)
    with books.changing() as (state, _now):
        state.take_id()
        books.put(replace(books.instance(31000001), label="third"))
    with monkeypatch.context() as patched:
        patched.setattr("gpu_tenant.marketplace.state.os.fsync", failing_fsync)
        with pytest.raises(OSError, match="no space"):
            books.flush()
    books.flush()
    assert StateDirectory(tmp_path).load(9) == books.state
    assert not (tmp_path / "market.journal").exists()


def failing_fsync(_file: int) -> None:
    raise OSError("no space left")

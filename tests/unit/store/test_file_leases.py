# SPDX-License-Identifier: MIT
"""Leases in files: real processes take, lose, and leave them behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, lease_keeper, leases
from ansible_collections.tenant.gpu.plugins.module_utils.box import locks, records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.holders import Holder
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.leases import FileLeases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

DEADLINE_S = 600.0


@pytest.fixture
def store(tmp_path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def ask_of(holder: Holder, box: str = "box", **more: str) -> Ask:
    return Ask("p", box, "train", leases.nonce_of(holder), holder, **more)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def until(what) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_living_holder_is_not_disturbed_and_a_dead_one_gives_way_at_once(store, other) -> None:
    kept = FileLeases(store)
    theirs = holders.of_process(other.pid)
    first = kept.take(ask_of(theirs)).lease
    with pytest.raises(TenantFailure, match=f"process {other.pid} of .* box_lease_from={first.nonce}") as refused:
        kept.take(ask_of(holders.myself()))
    assert refused.value.exit_code == 24
    assert "box_lease_from" in kept.holder_words("p", "box") or str(other.pid) in kept.holder_words("p", "box")
    end(other)
    assert kept.holder_words("p", "box") == ""
    second = kept.take(ask_of(holders.myself()))
    assert (second.how, second.lease.epoch > first.epoch) == ("dead", True)
    [line] = [line for line in Journal(store).lines() if line["verb"] == "lease_taken_over"]
    assert (line["why"], line["box"], line["holders"][0]["pid"]) == ("dead", "box", other.pid)


def test_a_foreign_holder_keeps_it_until_its_time_and_the_tolerance_are_over(store) -> None:
    now = [1_700_000_000.0]
    kept = FileLeases(store, clock=lambda: now[0])
    foreign = replace(holders.myself(), host="elsewhere")
    kept.take(ask_of(foreign))
    now[0] += lease.TERM_S + lease.CLOCK_TOLERANCE_S
    with pytest.raises(TenantFailure, match="elsewhere"):
        kept.take(ask_of(holders.myself()))
    now[0] += 1
    assert kept.take(ask_of(holders.myself())).how == "expired"


def test_the_clocks_of_controllers_that_share_a_disk_do_not_matter(store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One a day behind, one a day ahead: neither loses a lease by it, and neither lives longer by it."""
    behind, ahead = (replace(holders.myself(), host=host) for host in ("behind", "ahead"))
    now, day = time.time, 24 * 3600.0
    monkeypatch.setattr(time, "time", lambda: now() - day)
    FileLeases(store).take(ask_of(behind))
    monkeypatch.setattr(time, "time", lambda: now() + day)
    with pytest.raises(TenantFailure, match="behind has the lease"):
        FileLeases(store).take(ask_of(ahead))
    FileLeases(store).release("p", "box", behind)
    granted = FileLeases(store).take(ask_of(ahead)).lease
    assert abs(granted.until - lease.TERM_S - now()) < day / 2
    with pytest.raises(TenantFailure, match="ahead has the lease"):
        FileLeases(store).take(ask_of(behind))


def test_who_may_only_read_the_store_goes_by_his_own_clock(store, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = replace(holders.myself(), host="elsewhere")
    FileLeases(store).take(ask_of(foreign))

    def refused(*arguments: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    assert "elsewhere has the lease" in FileLeases(store).holder_words("p", "box")


def test_what_was_taken_away_may_not_act_any_more(store, other) -> None:
    kept = FileLeases(store)
    mine = kept.take(ask_of(holders.myself())).lease
    kept.before_verb("p", "box")
    theirs = holders.of_process(other.pid)
    assert kept.take(ask_of(theirs, over=mine.nonce)).how == "taken"
    with pytest.raises(TenantFailure, match="taken away") as refused:
        kept.before_verb("p", "box")
    assert refused.value.kind == "lease_held"
    assert kept.renew("p", "box", holders.myself()) is None
    kept.release("p", "box", theirs)
    third = replace(theirs, host="elsewhere")
    for _time in range(2):
        with pytest.raises(TenantFailure, match="taken away"):
            kept.before_verb("p", "box")
        with pytest.raises(TenantFailure, match="taken away"):
            kept.take(ask_of(holders.myself()))
        kept.take(ask_of(third))
        kept.release("p", "box", third)


def test_a_verb_on_a_box_that_another_holds_is_refused_and_one_without_a_lease_is_not(store, other) -> None:
    kept = FileLeases(store)
    kept.before_verb("p", "box")
    kept.take(ask_of(holders.of_process(other.pid)))
    with pytest.raises(TenantFailure, match=str(other.pid)):
        kept.before_verb("p", "box")
    end(other)
    kept.before_verb("p", "box")


def test_a_lease_with_little_time_left_is_renewed_before_a_verb(store) -> None:
    now = [1_700_000_000.0]
    kept = FileLeases(store, clock=lambda: now[0])
    until_first = kept.take(ask_of(holders.myself())).lease.until
    now[0] = until_first - lease.VERB_MARGIN_S - 1
    kept.before_verb("p", "box")
    assert kept.read("p", "box").until == until_first
    now[0] += 2
    kept.before_verb("p", "box")
    assert kept.read("p", "box").left_s(now[0]) == lease.TERM_S


def test_many_at_once_and_one_gets_it(store) -> None:
    """Every taker is another live process of another machine, as far as the others can see."""
    takers = [replace(holders.myself(), host=f"host-{number}") for number in range(16)]

    def try_it(who: Holder) -> bool:
        try:
            FileLeases(store).take(Ask("p", "box", "train", who.host, who))
        except TenantFailure:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_it, takers)) == 1


def test_the_keeper_gives_back_what_a_killed_process_had(store, other) -> None:
    kept = FileLeases(store)
    theirs = holders.of_process(other.pid)
    for box in ("a", "b"):
        kept.take(ask_of(theirs, box))
        lease_keeper.ensure(store, theirs)
    path = lease_keeper.lock_path(store, theirs)
    until(lambda: locks.is_held(path))
    assert [one.box for one in kept.of(theirs)] == ["a", "b"]
    end(other)
    until(lambda: not os.path.exists(path))
    assert [kept.read("p", box).released_at is not None for box in ("a", "b")] == [True, True]


def test_the_keeper_renews_while_the_process_lives(store, other) -> None:
    now = [1_700_000_000.0]
    kept = FileLeases(store, clock=lambda: now[0])
    theirs = holders.of_process(other.pid)
    first = kept.take(ask_of(theirs)).lease.until

    def ended_after_two_rounds(holder: Holder, seconds: float) -> bool:
        now[0] += seconds
        return now[0] >= 1_700_000_000.0 + 3 * seconds

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lease_keeper, "ended_within", ended_after_two_rounds)
        lease_keeper.keep(kept, theirs)
    found = kept.read("p", "box")
    assert found.until == first + 2 * lease_keeper.RENEW_EVERY_S
    assert found.released_at == now[0]


def test_a_damaged_lease_is_refused_by_name(store) -> None:
    kept = FileLeases(store)
    kept.take(ask_of(holders.myself()))
    with open(store.lease_path("p", "box"), "w", encoding="utf-8") as stream:
        stream.write("{")
    with pytest.raises(records.RecordError, match=r"box\.json"):
        kept.take(ask_of(holders.myself()))

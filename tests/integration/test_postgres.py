# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A team's database: leases that two controllers fight over, and the index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import postgres_server
import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed in this environment")
if not postgres_server.programs():
    pytest.skip("PostgreSQL is not installed", allow_module_level=True)

from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, leases
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.holders import FOREIGN, Holder
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.table_leases import TableLeases

from gpu_tenant import sql_index

pytestmark = pytest.mark.integration

# A controller of its own: takes the box, adds one to a file that nobody locks, gives the box back; so many times.
FIGHT = """\
import pathlib, sys, time
from dataclasses import replace
from ansible_collections.tenant.gpu.plugins.module_utils import holders, leases
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

name, state_dir, counter, times = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
kept = leases.opened(StateStore(state_dir))
me = replace(holders.myself(), host=name)
epochs = []
while len(epochs) < times:
    try:
        epochs.append(kept.take(Ask("p", "box", "fight", name, me)).lease.epoch)
    except TenantFailure as refused:
        assert refused.kind == "lease_held", refused
        continue
    seen = int(counter.read_text())
    time.sleep(0)
    counter.write_text(str(seen + 1))
    kept.release("p", "box", me)
print(epochs)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.postgres() as url:
        yield url


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GPU_TENANT_DATABASE_URL", server)
    return server


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def test_two_controllers_fight_over_one_box(url: str, store: StateStore, tmp_path: Path) -> None:
    counter, times = tmp_path / "counter", 25
    counter.write_text("0")
    command = [sys.executable, "-c", FIGHT]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    fighters = [
        subprocess.Popen(
            [*command, name, store.root, counter, str(times)], env=known, stdout=subprocess.PIPE, text=True
        )
        for name in ("north", "south")
    ]
    epochs = [json.loads(fighter.communicate(timeout=600)[0]) for fighter in fighters]
    assert counter.read_text() == str(2 * times), "two held the box at once"
    assert len({epoch for own in epochs for epoch in own}) == 2 * times
    assert all(own == sorted(own) for own in epochs)
    assert not Path(store.path("leases")).exists()


def ask_of(holder: Holder, box: str, over: str = "") -> Ask:
    return Ask("p", box, "train", holder.host, holder, over=over)


def test_the_rules_are_those_of_the_files(url: str, store: StateStore) -> None:
    kept = leases.opened(store)
    assert isinstance(kept, TableLeases)
    north, south = (replace(holders.myself(), host=name) for name in ("north", "south"))
    first = kept.take(ask_of(north, "rules")).lease
    with pytest.raises(TenantFailure, match=r"on north .*box_lease_from=north"):
        kept.take(ask_of(south, "rules"))
    with pytest.raises(TenantFailure, match="on north"):
        kept.before_verb("p", "rules")
    assert kept.renew("p", "rules", north) is not None
    taken = kept.take(ask_of(south, "rules", over="north"))
    assert (taken.how, taken.lease.epoch > first.epoch, taken.lease.displaced) == ("taken", True, (north,))
    assert [line["why"] for line in Journal(store).lines()] == ["taken"]
    assert [one.box for one in kept.of(south)] == ["rules"]
    kept.release("p", "rules", south)
    assert kept.read("p", "rules").released_at is not None


def test_many_at_once_and_one_gets_it(url: str, store: StateStore) -> None:
    def try_it(name: str) -> bool:
        try:
            TableLeases(store, url, lambda holder: FOREIGN).take(ask_of(replace(holders.myself(), host=name), "many"))
        except TenantFailure:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(try_it, [f"host-{number}" for number in range(12)])) == 1


def test_the_database_s_clock_counts_not_ours(url: str, store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.0)
    granted = TableLeases(store, url).take(ask_of(holders.myself(), "clock")).lease
    assert granted.granted_at > 1_700_000_000
    assert granted.until == granted.granted_at + lease.TERM_S


def test_a_database_that_is_away_is_named(store: StateStore, tmp_path: Path) -> None:
    away = TableLeases(store, f"postgresql://tenant:hidden-word@/postgres?host={tmp_path}")
    with pytest.raises(TenantFailure, match="GPU_TENANT_DATABASE_URL") as failure:
        away.read("p", "box")
    assert "hidden-word" not in str(failure.value)


def test_the_index_is_in_it_too(url: str, store: StateStore) -> None:
    Journal(store).append("effect", "rent", project="p", box="a")
    store.update_box("p", "a", 1, provider_id="7")
    for _look in range(2):
        with sql_index.opened(store) as index:
            assert [line["box"] for line in index.lines("p")] == ["a"]
            assert [record["provider_id"] for record in index.records("box")] == ["7"]
    assert not Path(store.path(sql_index.FILE_NAME)).exists()

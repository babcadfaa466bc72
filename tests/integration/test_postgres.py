# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A team's database: leases that two controllers fight over, a person against ``watch`` too; and the index."""

from __future__ import annotations

import json
import os
import signal
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

import psycopg
from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, lease_schema, leases
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.holders import FOREIGN, Holder
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.table_leases import TableLeases
from team_folder import HELD_TRAINER, ROOT, TeamFolder, held_spec
from two_controllers import Controller, controllers

from gpu_tenant import sql_index
from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration

EARLIER = Path(__file__).parents[1] / "earlier_schemas"

# A controller of its own: takes the box, adds one to a file that nobody locks, gives the box back; so many times.
FIGHT = """\
import pathlib, sys, time
from dataclasses import replace
import psycopg
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

# What a person does by hand: for as long as the test wants, and then more.
MEND = """\
- name: Mend by hand
  hosts: all
  gather_facts: false
  roles: [tenant.gpu.box]
  tasks:
    - name: Mend
      ansible.builtin.wait_for: {path: "{{ playbook_dir }}/mended", timeout: 600, sleep: 1}
      delegate_to: localhost
- name: Go on by hand
  hosts: all
  gather_facts: false
  roles: [tenant.gpu.box]
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


# --- of an earlier version ------------------------------------------------------------------------------------------


class Database:
    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, text: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(text)

    def tables(self) -> set[str]:
        with psycopg.connect(self.url) as connection:
            named = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return {row[0] for row in named}


@pytest.fixture
def earlier(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database of its own with the tables of the first versions, and a lease that is held."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE earlier")
    database = Database(server.replace("/postgres?", "/earlier?"))
    for name in ("leases-1", "index-1"):
        database.run((EARLIER / f"{name}.sql").read_text())
    monkeypatch.setenv("GPU_TENANT_DATABASE_URL", database.url)
    yield database
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE earlier WITH (FORCE)")


FIRST = {"gpu_tenant_leases", "gpu_tenant_index", "journal", "files"}
PRESENT = {
    "gpu_tenant_leases",
    "gpu_tenant_lease_schema",
    "gpu_tenant_index",
    "gpu_tenant_journal",
    "gpu_tenant_files",
}


def assert_held(kept: leases.Leases) -> None:
    held = kept.read("p", "held")
    assert held is not None
    assert (held.epoch, held.nonce, held.released_at) == (4102444800, "45c86d0221a7", None)
    with pytest.raises(TenantFailure, match="process 4711 of kim on north"):
        kept.take(ask_of(holders.myself(), "held"))


def test_a_lease_that_is_held_survives_the_tables_of_an_earlier_version(earlier: Database, store: StateStore) -> None:
    Journal(store).append("effect", "rent", project="p", box="a")
    kept = leases.opened(store)
    assert_held(kept)
    assert kept.take(ask_of(holders.myself(), "mine")).how == "new"
    with sql_index.opened(store) as index:
        assert [line["box"] for line in index.lines("p")] == ["a"]
    assert earlier.tables() == PRESENT
    assert_held(kept)
    taken = kept.take(ask_of(holders.myself(), "held", over="45c86d0221a7"))
    assert (taken.how, taken.lease.epoch) == ("taken", 4102444801)


# A controller that ends in the middle of what it makes of the tables.
KILLED = """\
import os, signal, sys
from ansible_collections.tenant.gpu.plugins.module_utils import lease_schema, leases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from gpu_tenant import sql_index

def end(*unused):
    os.kill(os.getpid(), signal.SIGKILL)

store = StateStore(sys.argv[2])
if sys.argv[1] == "index":
    make = sql_index._metadata.create_all
    sql_index._metadata.create_all = lambda connection: (make(connection), end())
    with sql_index.opened(store):
        pass
migrate = lease_schema.migrate
lease_schema.migrate = lambda cursor: (migrate(cursor), end())
leases.opened(store).release("p", "held", None)
"""


@pytest.mark.parametrize("what", ["index", "leases"])
def test_killed_in_the_middle_all_is_as_it_was(earlier: Database, store: StateStore, what: str) -> None:
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, what, store.root], env=known, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    assert earlier.tables() == FIRST
    kept = leases.opened(store)
    assert_held(kept)
    with sql_index.opened(store) as index:
        assert index.lines() == []
    assert earlier.tables() == PRESENT


def test_two_controllers_find_an_earlier_version_at_once(earlier: Database, store: StateStore) -> None:
    Journal(store).append("effect", "rent", project="p", box="a")

    def follow(number: int) -> list[str]:
        leases.opened(store).take(ask_of(replace(holders.myself(), host=f"host-{number}"), f"box-{number}"))
        with sql_index.opened(store) as index:
            return [line["box"] for line in index.lines("p")]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(follow, range(4))) == [["a"]] * 4
    assert earlier.tables() == PRESENT
    assert_held(leases.opened(store))


def test_leases_of_a_newer_version_are_said_and_nothing_is_begun(earlier: Database, store: StateStore) -> None:
    kept = leases.opened(store)
    assert_held(kept)
    assert kept.note() == ""
    newer = lease_schema.VERSION + 1
    earlier.run("UPDATE gpu_tenant_lease_schema SET version = version + 1; DROP TABLE gpu_tenant_leases")
    acts = (
        lambda: kept.before_verb("p", "held"),
        lambda: kept.take(ask_of(holders.myself(), "free")),
        lambda: kept.release("p", "held", holders.myself()),
    )
    for act in acts:
        with pytest.raises(TenantFailure, match=f"newer gpu-tenant .version {newer}.*nothing was begun") as refused:
            act()
        assert refused.value.kind == "config"
    assert f"version {newer}" in kept.note()
    assert "gpu_tenant_leases" not in earlier.tables()


# --- a person and the runner ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="a host name of its own needs root")
def test_a_person_and_the_runner_never_act_on_one_box_at_once(url: str, tmp_path: Path) -> None:
    with running_marketplace("none", state_dir=tmp_path / "market") as market:
        team = TeamFolder(tmp_path, market, ["shared"], held_spec("nightly"), HELD_TRAINER, "")
        team.write("mend.yml", MEND)
        with controllers(team, "shared", "north", "south") as (north, south):
            fight_over_a_box(team, north, south)
        assert market.state()["instances"] == []


def fight_over_a_box(team: TeamFolder, north: Controller, south: Controller) -> None:
    with north.nobody_rents():
        watch = north.runner("watch", "--once")
        held = north.until_it_holds()
        refused = south.play(ROOT / "playbooks/train.yml")
        assert refused.ended() == 2
        assert "'Rent, deploy and train' is at work on it: process " in refused.said
        assert f"process {held.holders[0].pid} of" in refused.said
        assert "on north has the lease until" in refused.said
        assert f"the same command with -e box_lease_from={held.nonce}" in refused.said
        mending = south.play(team.folder / "mend.yml", "-e", f"box_lease_from={held.nonce}")
        taken = south.until_it_holds(after=held.epoch)
    # Its create was next.
    assert watch.ended() == 24, watch.said
    assert "was taken away: 'Mend by hand' (process" in watch.said
    assert team.market.state()["instances"] == []
    [line] = [line for line in Journal(south.store).lines() if line["verb"] == "lease_taken_over"]
    assert (line["why"], [holder["host"] for holder in line["holders"]]) == ("taken", ["north"])

    watch = north.runner("watch", "--once")
    assert watch.ended() == 24, watch.said
    assert "'Mend by hand' is at work on it: process " in watch.said
    assert "on south has the lease until" in watch.said
    assert f"the same command with -e box_lease_from={taken.nonce}" in watch.said

    with north.nobody_rents():
        go = north.runner("go", str(team.folder / "job/run.yml"), "-e", f"box_lease_from={taken.nonce}")
        north.until_it_holds(after=taken.epoch)
        (team.folder / "mended").touch()
        assert mending.ended() == 2, "it had another part to do"
        assert "was taken away: 'gpu-tenant go' (process" in mending.said
        assert go.end_at_once() == 30, go.said
    assert team.market.state()["instances"] == []

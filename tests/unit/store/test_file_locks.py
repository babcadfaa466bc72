# SPDX-License-Identifier: MIT
"""Law 6: no lock of the state store is waited for without end, and a refusal names who has it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import file_locks, holders, journal, leases, provider_list
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.file_locks import Lock
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Ask
from ansible_collections.tenant.gpu.plugins.module_utils.provider_list import ProviderList
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

# Locked by the product's own code, or by something that signs nothing.
_HOLDERS = {
    "ours": (
        "from ansible_collections.tenant.gpu.plugins.module_utils.file_locks import Lock, held\n"
        "with held(Lock(sys.argv[1], 'it', '', 600.0)):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    ),
    "strange": (
        "import fcntl\nfile = open(sys.argv[1], 'ab')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    ),
}
Hold = Callable[[str, str], int]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have another process hold a lock; its number."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(path: str, who: str) -> int:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys\n" + _HOLDERS[who], path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process.pid

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def refused(act: Callable[[], object]) -> TenantFailure:
    with pytest.raises(TenantFailure) as caught:
        act()
    return caught.value


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (journal, leases, provider_list):
        monkeypatch.setattr(module, "LOCKED_WITHIN_S", 0.05)


def test_a_locked_journal_is_refused_in_words_and_nothing_is_begun(store: StateStore, hold: Hold, short: None) -> None:
    Journal(store).append("effect", "rent", box="a")
    pid = hold(store.journal_path, "strange")
    begun: list[str] = []

    def rent() -> None:
        with Journal(store).effect("rent", box="b"):
            begun.append("b")

    failure = refused(rent)
    assert (failure.kind, failure.exit_code, begun) == ("lease_held", 24, [])
    assert f"the journal is locked by process {pid}" in failure.what
    assert store.journal_path in failure.what
    assert "rent is not done before its intent is on disk" in failure.safe
    assert "end it if it hangs" in failure.fix
    assert [line["box"] for line in Journal(store).lines()] == ["a"], "it is read all the same"


def test_what_went_wrong_outweighs_a_journal_that_is_locked_by_then(store: StateStore, hold: Hold, short: None) -> None:
    def rent() -> None:
        with Journal(store).effect("rent", box="a"):
            hold(store.journal_path, "strange")
            raise ConnectionResetError("nobody knows whether it was rented")

    with pytest.raises(ConnectionResetError):
        rent()
    assert [line["kind"] for line in Journal(store).lines()] == ["intent"]


@pytest.mark.parametrize("who", ["ours", "strange"])
def test_a_locked_lease_is_refused_and_stays_as_it_was(store: StateStore, hold: Hold, short: None, who: str) -> None:
    me = holders.myself()
    ask = Ask("p", "box", "train", "nonce", me)
    kept = leases.FileLeases(store)
    kept.take(ask)
    before = Path(store.lease_path("p", "box")).read_bytes()
    pid = hold(store.lease_path("p", "box").replace(".json", ".lock"), who)
    for act in (lambda: kept.take(ask), lambda: kept.renew("p", "box", me), lambda: kept.release("p", "box", me)):
        failure = refused(act)
        assert failure.kind == "lease_held"
        known = f"process {pid} of {holders.user_name()} on " if who == "ours" else f"process {pid},"
        assert f"the lease of box is locked by {known}" in failure.what
        assert failure.safe == "the lease is as it was"
    assert Path(store.lease_path("p", "box")).read_bytes() == before


def test_a_list_that_another_process_asks_for_is_awaited_no_longer_than_that(
    store: StateStore, hold: Hold, short: None
) -> None:
    shared = ProviderList(store, "vast", "account")
    pid = hold(shared._path + ".lock", "ours")
    asked: list[int] = []
    failure = refused(lambda: shared.get(lambda: asked.append(1) or [], 0.0))
    assert f"locked by process {pid} of " in failure.what
    assert asked == []


def test_a_holder_of_whom_nothing_is_known_can_be_found(store: StateStore, hold: Hold, monkeypatch) -> None:
    path = store.path("cache", "account.lock")
    hold(path, "strange")
    monkeypatch.setattr(file_locks, "PROC", store.path("no-proc-here"))
    failure = refused(lambda: file_locks.held(Lock(path, "it", "all is well", 0.0)).__enter__())
    assert "it is locked by another process" in failure.what
    assert f"fuser -v {path} names it" in failure.fix


def test_a_lock_is_free_once_its_holder_was_killed_and_then_names_nobody(store: StateStore, hold: Hold) -> None:
    path = store.path("leases", "p", "box.lock")
    pid = hold(path, "ours")
    assert f"process {pid} of".encode() in Path(path).read_bytes()
    os.kill(pid, 9)
    with file_locks.held(Lock(path, "it", "", 600.0)):
        assert f"process {os.getpid()} of".encode() in Path(path).read_bytes()
    assert Path(path).read_bytes() == b""


def test_it_is_asked_less_and_less_often_and_once_more_at_the_deadline(store: StateStore, hold: Hold) -> None:
    path = store.path("cache", "account.lock")
    hold(path, "strange")
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    failure = refused(lambda: file_locks.held(Lock(path, "it", "", 60.0, lambda: now[0], sleep)).__enter__())
    assert "was not free within 60 s" in failure.what
    assert sum(slept) == pytest.approx(60.0)
    assert slept[:-1] == sorted(slept[:-1])
    assert len(slept) < 300


def test_a_disk_without_locks_is_named(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    failure = refused(lambda: Journal(store).append("intent", "rent"))
    assert (failure.kind, store.journal_path in failure.what) == ("config", True)
    assert "No locks available" in failure.what
    assert "a disk that has locks" in failure.fix

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Leases where they are kept: files of the state store, or a table that several controllers share.

One process at a time works on a box, whether a person started it or a runner. ``lease`` has the rules.
"""

from __future__ import annotations

import abc
import glob
import os
import time
from typing import Callable

from . import holders, lease
from .box import records
from .file_locks import Lock, held
from .holders import Holder
from .journal import Journal
from .lease import Ask, Grant, Lease
from .state_store import StateStore

# The nonce of the lease that a runner holds, for the playbooks that it starts.
NONCE_VARIABLE = "GPU_TENANT_LEASE"
DATABASE_VARIABLE = "GPU_TENANT_DATABASE_URL"
# It is held for the moment of one change only.
LOCKED_WITHIN_S = 60.0
_GAVE_WAY = ("dead", "expired", "taken")


class Leases(abc.ABC):
    """What can be done with leases wherever they are; subclasses say how one is read and changed as a whole.

    :param clock: seconds since 1970.
    """

    def __init__(
        self,
        store: StateStore,
        clock: Callable[[], float] = time.time,
        state_of: Callable[[Holder], str] = holders.state_of,
    ) -> None:
        self._store = store
        self._clock = clock
        self._state_of = state_of

    @abc.abstractmethod
    def read(self, project: str, box: str) -> Lease | None:
        """The lease on a box, None when there never was one."""

    @abc.abstractmethod
    def all(self) -> list[Lease]:
        """Every lease that is kept, those that were given back too."""

    def note(self) -> str:
        """Why it is not known here who has a box, where a newer version keeps the leases; empty when it is known."""
        return ""

    @abc.abstractmethod
    def _change(self, project: str, box: str, transition: Callable[[Lease | None], Lease | None]) -> None:
        """Replace the lease by what ``transition`` makes of it (None: leave it), nobody else between."""

    def take(self, ask: Ask) -> Grant:
        """:raises TenantFailure: ``lease_held``, naming who has it and how to take it away."""
        granted: list[Grant] = []

        def transition(before: Lease | None) -> Lease:
            grant = lease.take(before, ask, self._clock(), self._state_of)
            granted.append(grant)
            return grant.lease

        try:
            self._change(ask.project, ask.box, transition)
        except lease.Held as held:
            raise (lease.displaced if held.was_ours else lease.refusal)(held.lease) from None
        self._tell(granted[-1])
        return granted[-1]

    def _tell(self, grant: Grant) -> None:
        """Who lost a lease to whom is history; that one was taken and given back is not."""
        if grant.how not in _GAVE_WAY or grant.replaced is None:
            return
        lost = grant.replaced
        Journal(self._store).append(
            "effect",
            "lease_taken_over",
            project=grant.lease.project,
            box=grant.lease.box,
            why=grant.how,
            epoch=grant.lease.epoch,
            purpose=grant.lease.purpose,
            replaced={"epoch": lost.epoch, "purpose": lost.purpose, "until": lease.utc(lost.until)},
            holders=[holder.as_dict() for holder in lost.holders],
        )

    def renew(self, project: str, box: str, holder: Holder, term_s: float = lease.TERM_S) -> Lease | None:
        """The lease with a later end; None when ``holder`` no longer has it."""
        renewed: list[Lease | None] = []

        def transition(before: Lease | None) -> Lease | None:
            renewed.append(lease.renew(before, holder, self._clock(), term_s))
            return renewed[-1]

        self._change(project, box, transition)
        return renewed[-1] if renewed else None

    def release(self, project: str, box: str, holder: Holder) -> None:
        """Give up ``holder``'s part; a lease that it does not have stays as it is."""
        self._change(project, box, lambda before: lease.release(before, holder, self._clock()))

    def of(self, holder: Holder) -> list[Lease]:
        """The leases that ``holder`` has."""
        return [one for one in self.all() if one.released_at is None and holder in one.holders]

    def holder_words(self, project: str, box: str) -> str:
        """Who would refuse a stranger now; empty when nobody would."""
        found = self.read(project, box)
        if found is None or not self._binds(found):
            return ""
        return lease.refusal(found).what

    def _binds(self, found: Lease) -> bool:
        states = [self._state_of(holder) for holder in found.holders]
        if found.released_at is not None or all(state == holders.DEAD for state in states):
            return False
        return holders.ALIVE in states or found.is_open(self._clock())

    def before_verb(self, project: str, box: str) -> None:
        """To be called just before a provider is told to do something to a box.

        A lease of ours with little time left is renewed. Without any lease the verb is allowed: modules may be used in
        anybody's playbook.

        :raises TenantFailure: ``lease_held``: another has the lease, or it was taken away from us.
        """
        found = self.read(project, box)
        if found is None:
            return
        mine = holders.ancestry()
        ours = next((holder for holder in mine if holder in found.holders), None)
        if ours is None and any(holder in found.displaced for holder in mine):
            raise lease.displaced(found)
        if ours is None:
            if self._binds(found) and os.environ.get(NONCE_VARIABLE, "") != found.nonce:
                raise lease.refusal(found)
        elif found.left_s(self._clock()) < lease.VERB_MARGIN_S and self.renew(project, box, ours) is None:
            raise lease.displaced(found)


class FileLeases(Leases):
    """``leases/<project>/<box>.json``, changed under an flock; the state store may be on a disk that is shared.

    Time is the disk's, so that the controllers' own clocks do not matter where a server keeps it (NFS does).
    """

    def __init__(
        self,
        store: StateStore,
        clock: Callable[[], float] | None = None,
        state_of: Callable[[Holder], str] = holders.state_of,
    ) -> None:
        super().__init__(store, clock or self._disk_time, state_of)

    def _disk_time(self) -> float:
        """By the moment that the disk writes down when it is told "now". Who may only read goes by his own clock."""
        path = self._store.path("leases", ".clock")
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "ab"):
                os.utime(path)
            return os.stat(path).st_mtime
        except OSError:
            return time.time()

    def read(self, project: str, box: str) -> Lease | None:
        return _read(self._store.lease_path(project, box))

    def all(self) -> list[Lease]:
        paths = sorted(glob.glob(os.path.join(glob.escape(self._store.path("leases")), "*", "*.json")))
        return [found for found in map(_read, paths) if found is not None]

    def _change(self, project: str, box: str, transition: Callable[[Lease | None], Lease | None]) -> None:
        path = self._store.lease_path(project, box)
        what = f"the lease of {box}"
        with held(Lock(path[: -len(".json")] + ".lock", what, "the lease is as it was", LOCKED_WITHIN_S)):
            after = transition(_read(path))
            if after is not None:
                records.write_record(path, "lease", lease.as_record(after))


def _read(path: str) -> Lease | None:
    record = records.read_record_or_none(path, "lease")
    return None if record is None else lease.from_record(record)


def nonce_of(holder: Holder) -> str:
    """One nonce for all leases of a process, so that one word takes them all away; the runner's, if it started us."""
    return os.environ.get(NONCE_VARIABLE, "") or records.digest(dict(holder.as_dict(), user=""))[:12]


def opened(store: StateStore) -> Leases:
    """The leases of a state store: in the database that the environment names, if that is PostgreSQL; else in files."""
    from . import table_leases

    url = os.environ.get(DATABASE_VARIABLE, "")
    return table_leases.TableLeases(store, url) if table_leases.is_postgresql(url) else FileLeases(store)

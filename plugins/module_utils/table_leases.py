# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Leases in a table of a PostgreSQL database, for controllers that share more than a disk with locks can promise.

Time is the database's, so that the controllers' own clocks do not matter. The journal stays in the state store.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Callable, Iterator

from . import holders, lease, lease_schema
from .box import records
from .failures import TenantFailure
from .holders import Holder
from .lease import Lease
from .leases import DATABASE_VARIABLE, Leases
from .state_store import StateStore

_READ = "SELECT record FROM gpu_tenant_leases WHERE project = %s AND box = %s"
_READ_ALL = "SELECT record FROM gpu_tenant_leases ORDER BY project, box"
_WRITE = (
    "INSERT INTO gpu_tenant_leases (project, box, record) VALUES (%s, %s, %s) "
    "ON CONFLICT (project, box) DO UPDATE SET record = EXCLUDED.record"
)
# Until the transaction ends. Two boxes with one hash wait for each other for an instant, which harms nobody.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('gpu-tenant lease ' || %s, 0))"
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_CONNECT_WITHIN_S = 10
_LOCK_WITHIN = "SET LOCAL lock_timeout = '30s'"


def is_postgresql(url: str) -> bool:
    return re.match(r"postgres(ql)?(\+\w+)?://", url) is not None


class TableLeases(Leases):
    """:param url: ``postgresql://…``, as libpq or SQLAlchemy writes it."""

    def __init__(self, store: StateStore, url: str, state_of: Callable[[Holder], str] = holders.state_of) -> None:
        super().__init__(store, self._last_told, state_of)
        self._url = re.sub(r"\A(postgres(?:ql)?)\+\w+://", r"\1://", url)
        self._told = 0.0

    def _last_told(self) -> float:
        """The database's time, as of the transaction that is under way or was last."""
        return self._told

    def read(self, project: str, box: str) -> Lease | None:
        with self._transaction() as cursor:
            return _one(cursor, project, box)

    def all(self) -> list[Lease]:
        with self._transaction() as cursor:
            rows = cursor.execute(_READ_ALL).fetchall() if _is_there(cursor) else []
            return [_parsed(row[0]) for row in rows]

    def note(self) -> str:
        with self._connected() as (_connection, cursor):
            return lease_schema.note(lease_schema.version(cursor))

    def _change(self, project: str, box: str, transition: Callable[[Lease | None], Lease | None]) -> None:
        with self._transaction(f"{project}/{box}") as cursor:
            after = transition(_one(cursor, project, box))
            if after is not None:
                record = dict(lease.as_record(after), schema=records.schema("lease"))
                cursor.execute(_WRITE, (project, box, json.dumps(record, sort_keys=True)))

    @contextlib.contextmanager
    def _transaction(self, locked: str = "") -> Iterator[Any]:
        with self._connected() as (connection, cursor):
            found = lease_schema.version(cursor)
            lease_schema.refuse_newer(found)
            if locked:
                if found < lease_schema.VERSION:
                    _migrate(connection, cursor)
                cursor.execute(_LOCK, (locked,))
            self._told = float(cursor.execute(_NOW).fetchone()[0])
            yield cursor

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[Any, Any]]:
        driver = _driver()
        try:
            with driver.connect(self._url, connect_timeout=_CONNECT_WITHIN_S) as connection:
                cursor = connection.cursor()
                cursor.execute(_LOCK_WITHIN)
                yield connection, cursor
        except driver.Error as error:
            raise _unusable(error) from error


def _migrate(connection: Any, cursor: Any) -> None:
    """Under a lock: two that do it at once would trip over each other."""
    cursor.execute(_LOCK, ("table",))
    lease_schema.refuse_newer(lease_schema.version(cursor))
    lease_schema.migrate(cursor)
    connection.commit()
    cursor.execute(_LOCK_WITHIN)


def _one(cursor: Any, project: str, box: str) -> Lease | None:
    row = cursor.execute(_READ, (project, box)).fetchone() if _is_there(cursor) else None
    return None if row is None else _parsed(row[0])


def _is_there(cursor: Any) -> bool:
    return cursor.execute("SELECT to_regclass('gpu_tenant_leases')").fetchone()[0] is not None


def _parsed(text: str) -> Lease:
    return lease.from_record(records.parse_record(text.encode("utf-8"), "lease", "in the database"))


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise TenantFailure(
            "config",
            f"{DATABASE_VARIABLE} names a PostgreSQL database, and the Python of this command has no psycopg",
            safe="nothing was changed",
            fix="pip install 'psycopg[binary]' into the environment that ansible-playbook runs in",
        ) from error
    return psycopg


def _unusable(error: Exception) -> TenantFailure:
    told = " ".join(str(error).split())[:300]
    return TenantFailure(
        "config",
        f"the leases cannot be read from the database that {DATABASE_VARIABLE} names: {told}",
        safe="nothing was changed",
        fix="bring the database back, or unset the variable on all controllers to keep the leases in the state store",
    )

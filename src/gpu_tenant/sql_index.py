# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An SQL index of the state store, for questions over many boxes and runs: SQLite beside it, PostgreSQL for teams.

It is derived: the files are the truth. Deleted, it is filled again; of an earlier version, its tables are made anew, in
one transaction, so that nobody finds it half made. No law and no verb depends on it. Leases are no part of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import is_newer, read_line
from ansible_collections.tenant.gpu.plugins.module_utils.leases import DATABASE_VARIABLE
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.table_leases import is_postgresql

VERSION = 2
FILE_NAME = "index.sqlite"
LOCKED_WITHIN_S = 5.0
_KINDS = {"boxes": "box", "receipts": "receipt", "approvals": "approval", "contacts": "contact"}
# Of two that fill one PostgreSQL at once the second waits.
_LOCK = sql.text("SELECT pg_advisory_xact_lock(hashtextextended('gpu-tenant index', 0))")

# Tables of earlier versions that have no place in the present one, each with all of its columns: version 1 gave them
# names that a team's own tables in the same database may have.
_FORMER = {
    "journal": "place id at kind verb project box generation provider_id line",
    "files": "path kind project run_id box generation look record",
}

_metadata = sql.MetaData()
_meta = sql.Table(
    "gpu_tenant_index",
    _metadata,
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("value", sql.Text, nullable=False),
)
journal = sql.Table(
    "gpu_tenant_journal",
    _metadata,
    sql.Column("place", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("id", sql.Text, index=True),
    sql.Column("at", sql.Text, index=True),
    sql.Column("kind", sql.Text),
    sql.Column("verb", sql.Text),
    sql.Column("project", sql.Text),
    sql.Column("box", sql.Text),
    sql.Column("generation", sql.Integer),
    sql.Column("provider_id", sql.Text),
    sql.Column("line", sql.Text, nullable=False),
    sql.Index("gpu_tenant_journal_of_box", "project", "box", "generation"),
)
files = sql.Table(
    "gpu_tenant_files",
    _metadata,
    sql.Column("path", sql.Text, primary_key=True),
    sql.Column("kind", sql.Text, index=True),
    sql.Column("project", sql.Text),
    sql.Column("run_id", sql.Text),
    sql.Column("box", sql.Text),
    sql.Column("generation", sql.Integer),
    sql.Column("look", sql.Text, nullable=False),
    sql.Column("record", sql.Text, nullable=False),
)


class Index:
    """:param note: a sentence when the index could not be used as wanted; empty when all is well."""

    def __init__(self, engine: sql.Engine, store: StateStore, where: str, note: str = "") -> None:
        self._engine, self._store, self._where = engine, store, where
        self.note = note

    @property
    def read_only(self) -> bool:
        return bool(self.note)

    def sync(self) -> None:
        """Bring the index up to the files: new journal lines, records that changed or went."""
        if self.read_only:
            return
        with self._writing() as connection:
            self._sync_journal(connection)
            self._sync_files(connection)

    def lines(self, project: str = "") -> list[dict[str, Any]]:
        """The journal's lines, oldest first."""
        wanted = sql.select(journal.c.line).order_by(journal.c.place)
        return self._parsed(wanted.where(journal.c.project == project) if project else wanted)

    def records(self, kind: str, project: str = "") -> list[dict[str, Any]]:
        """:param kind: box, receipt, approval or contact."""
        wanted = sql.select(files.c.record).where(files.c.kind == kind).order_by(files.c.path)
        return self._parsed(wanted.where(files.c.project == project) if project else wanted)

    def close(self) -> None:
        self._engine.dispose()

    def _parsed(self, wanted: sql.Select[Any]) -> list[dict[str, Any]]:
        with self._explained(), self._engine.connect() as connection:
            return [json.loads(text) for text in connection.execute(wanted).scalars()]

    # -- filling -------------------------------------------------------------------------------------------------

    def _sync_journal(self, connection: sql.Connection) -> None:
        path = Path(self._store.journal_path)
        known = {row[0]: row[1] for row in connection.execute(sql.select(_meta.c.key, _meta.c.value))}
        place = int(known.get("place", 0))
        if place and known.get("head") != _head(path, min(place, int(known.get("head_bytes", 0)))):
            # Another journal, or a shorter one, lies there now.
            connection.execute(sql.delete(journal))
            place = 0
        rows, after = _read_lines(path, place)
        if rows:
            connection.execute(sql.insert(journal), rows)
        head_bytes = min(after, 4096)
        facts = {"place": str(after), "head_bytes": str(head_bytes), "head": _head(path, head_bytes)}
        connection.execute(sql.delete(_meta).where(_meta.c.key.in_(facts)))
        connection.execute(sql.insert(_meta), [{"key": key, "value": value} for key, value in facts.items()])

    def _sync_files(self, connection: sql.Connection) -> None:
        known = {row[0]: row[1] for row in connection.execute(sql.select(files.c.path, files.c.look))}
        there = _looks(Path(self._store.root))
        changed = {path: look for path, look in there.items() if known.get(path) != look}
        stale = [path for path in known if path not in there or path in changed]
        for begin in range(0, len(stale), 500):
            connection.execute(sql.delete(files).where(files.c.path.in_(stale[begin : begin + 500])))
        rows = [row for path, look in changed.items() if (row := self._row(path, look)) is not None]
        if rows:
            connection.execute(sql.insert(files), rows)

    def _row(self, path: str, look: str) -> dict[str, Any] | None:
        """None for a record that cannot be trusted: an index is no place to guess."""
        kind = _KINDS[path.split("/", 1)[0]]
        try:
            record = records.read_record(self._store.path(path), kind)
        except records.RecordError:
            return None
        facts = {name: _text(record.get(name)) for name in ("project", "run_id", "box")}
        return {
            **facts,
            "path": path,
            "kind": kind,
            "generation": _whole(record.get("generation")),
            "look": look,
            "record": json.dumps(record, sort_keys=True),
        }

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        with self._explained(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if self._engine.dialect.name == "postgresql":
                connection.execute(_LOCK)
            yield connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sql.exc.DBAPIError as error:
            raise _unusable(self._where, error, self.note) from error

    def prepare(self) -> None:
        """Make the tables, or make them anew when they are of an older version; a newer one is left as it is."""
        with self._explained(), self._engine.connect() as connection:
            found = _version(connection)
        if found is None or found < VERSION:
            found = self._migrated()
        if found > VERSION:
            self.note = (
                f"the index {self._where} is of a newer gpu-tenant (version {found}, this one knows {VERSION}): "
                "it is only read, and may lack what happened since"
            )

    def _migrated(self) -> int:
        """Of which version the tables are then: another controller may have been first, and a newer one."""
        with self._writing() as connection:
            found = _version(connection)
            if found is not None and found >= VERSION:
                return found
            if found is not None:
                _drop_former(connection)
                _metadata.drop_all(connection)
            _metadata.create_all(connection)
            connection.execute(sql.insert(_meta).values(key="version", value=str(VERSION)))
            return VERSION


def url_of(store: StateStore, database: str = "") -> str:
    """Where the index of a state store is.

    :param database: a URL; empty for what the environment says, and without that for a file of the store.
    """
    url = database or os.environ.get(DATABASE_VARIABLE, "")
    if is_postgresql(url):
        return "postgresql+psycopg://" + url.split("://", 1)[1]
    if url and not url.startswith("sqlite:///"):
        raise TenantFailure(
            "config",
            f"{url.split('://', 1)[0]!r} is no database that the index can be in",
            safe="nothing was changed",
            fix=f"give postgresql://… or sqlite:///… with --database or {DATABASE_VARIABLE}",
        )
    return url or "sqlite:///" + store.path(FILE_NAME)


@contextlib.contextmanager
def opened(store: StateStore, database: str = "") -> Iterator[Index]:
    """The index of ``store``, brought up to date. TenantFailure (``config``) when it is locked or damaged."""
    url = url_of(store, database)
    where = url if url.startswith("sqlite") else sql.make_url(url).render_as_string(hide_password=True)
    index = Index(_engine(url, store), store, where)
    try:
        index.prepare()
        index.sync()
        yield index
    finally:
        index.close()


def _engine(url: str, store: StateStore) -> sql.Engine:
    try:
        if not url.startswith("sqlite"):
            return sql.create_engine(url, connect_args={"connect_timeout": 10})
        path = url.removeprefix("sqlite:///")
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        if os.access(os.path.dirname(path) or ".", os.W_OK):
            # Made here, so that nobody else may read it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return _sqlite(path)
    except (ImportError, OSError, sql.exc.ArgumentError) as error:
        raise TenantFailure(
            "config",
            f"the index cannot be opened: {error}",
            safe=f"the records in {store.root} are untouched",
            fix=f"correct --database or {DATABASE_VARIABLE}; PostgreSQL needs pip install 'psycopg[binary]'",
        ) from error


def _sqlite(path: str) -> sql.Engine:
    settings = {"timeout": LOCKED_WITHIN_S, "isolation_level": None}
    engine = sql.create_engine(f"sqlite:///file:{quote(path)}?uri=true", connect_args=settings)
    sql.event.listen(engine, "begin", _alone_while_writing)
    return engine


def _alone_while_writing(connection: sql.Connection) -> None:
    """SQLite locks a file at the first write by itself, when what was read before may be old already, and without this
    makes and drops tables outside of any transaction."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _drop_former(connection: sql.Connection) -> None:
    found = sql.inspect(connection)
    for name, columns in _FORMER.items():
        if found.has_table(name) and {column["name"] for column in found.get_columns(name)} == set(columns.split()):
            sql.Table(name, sql.MetaData()).drop(connection)


def _version(connection: sql.Connection) -> int | None:
    if not sql.inspect(connection).has_table(_meta.name):
        return None
    found = connection.execute(sql.select(_meta.c.value).where(_meta.c.key == "version")).scalar_one_or_none()
    return int(found) if found is not None and found.isdigit() else 0


def _unusable(where: str, error: sql.exc.DBAPIError, note: str) -> TenantFailure:
    told = " ".join(str(error.orig).split())[:200]
    if "locked" in told or "lock timeout" in told:
        what, fix = f"the index {where} is locked by another process", "wait until that one has ended"
    elif "malformed" in told or "not a database" in told:
        what, fix = f"the index {where} is damaged ({told})", "delete it: it is filled again from the state store"
    elif note:
        what = f"{note}; its tables are others than this one reads ({told})"
        fix = "use that gpu-tenant, or have an index of this one's own made: --database sqlite:////tmp/index.sqlite"
    else:
        what, fix = f"the index {where} cannot be used: {told}", "see whether the database can be reached"
    return TenantFailure("config", what, safe="the records in the state store are untouched", fix=fix)


def _head(path: Path, size: int) -> str:
    """What tells one journal from another: the digest of its beginning; empty when it is shorter than that."""
    try:
        with path.open("rb") as stream:
            data = stream.read(size)
    except OSError:
        return ""
    return hashlib.sha256(data).hexdigest() if len(data) == size else ""


def _read_lines(path: Path, place: int) -> tuple[list[dict[str, Any]], int]:
    """The rows of the whole lines from ``place`` on, and where the next one will begin: a line of a newer version waits
    for a version that knows it."""
    rows = []
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return [], 0
    with stream:
        stream.seek(place)
        for raw in stream:
            line = read_line(raw)
            if not raw.endswith(b"\n") or is_newer(line):
                break
            if line is not None:
                rows.append(_journal_row(place, line))
            place += len(raw)
    return rows, place


def _journal_row(place: int, line: dict[str, Any]) -> dict[str, Any]:
    texts = {name: _text(line.get(name)) for name in ("id", "at", "kind", "verb", "project", "box", "provider_id")}
    whole = json.dumps(line, sort_keys=True)
    return {**texts, "place": place, "generation": _whole(line.get("generation")), "line": whole}


def _looks(root: Path) -> dict[str, str]:
    """Every record by its path below ``root``, with what changes when it is written again."""
    found = {}
    for folder in _KINDS:
        for path in (root / folder).rglob("*.json"):
            with contextlib.suppress(OSError):
                about = path.stat()
                found[str(path.relative_to(root))] = f"{about.st_mtime_ns}.{about.st_size}.{about.st_ino}"
    return found


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The tables of a team's leases, by version, and the steps from one to the next.

What is in them is nowhere else: nobody may lose the box that he works on because a colleague's controller is newer. So
no table is made anew, each step only changes what is there, and all that are due are one transaction of the database,
which takes back what a controller that was killed in the middle had begun. The rows are records, and have a schema of
their own.
"""

from __future__ import annotations

from typing import Any

from .failures import TenantFailure

# By the version that it leads to.
STEPS = {
    1: (
        "CREATE TABLE IF NOT EXISTS gpu_tenant_leases "
        "(project text NOT NULL, box text NOT NULL, record text NOT NULL, PRIMARY KEY (project, box))"
    ),
    # From here on a database says which version it is of, so that an older controller does not guess.
    2: "CREATE TABLE gpu_tenant_lease_schema (version integer NOT NULL)",
}
VERSION = max(STEPS)
# Not by to_regclass(), which goes by what this connection knew before it waited for the lock.
_THERE = (
    "SELECT relname FROM pg_catalog.pg_class WHERE relname IN ('gpu_tenant_leases', 'gpu_tenant_lease_schema') "
    "AND relkind = 'r' AND pg_catalog.pg_table_is_visible(oid)"
)


def version(cursor: Any) -> int:
    """Of what is in the database; 0 before there is anything."""
    there = {row[0] for row in cursor.execute(_THERE).fetchall()}
    if "gpu_tenant_lease_schema" not in there:
        return 1 if there else 0
    return int(cursor.execute("SELECT max(version) FROM gpu_tenant_lease_schema").fetchone()[0] or 1)


def migrate(cursor: Any) -> None:
    """The steps that are due, nobody else between: the caller holds the lock of the tables, and commits."""
    found = version(cursor)
    if found >= VERSION:
        return
    for number in range(found + 1, VERSION + 1):
        cursor.execute(STEPS[number])
    cursor.execute("DELETE FROM gpu_tenant_lease_schema")
    cursor.execute("INSERT INTO gpu_tenant_lease_schema VALUES (%s)", (VERSION,))


def note(found: int) -> str:
    """Why this version cannot tell who has a box; empty when it can."""
    if found <= VERSION:
        return ""
    return f"the leases in the database are of a newer gpu-tenant (version {found}, this one knows {VERSION})"


def refuse_newer(found: int) -> None:
    """:raises TenantFailure: ``config``: whose a box is now is not for this version to say."""
    if why := note(found):
        raise TenantFailure(
            "config",
            f"{why}, so that nobody here knows who works on a box",
            safe="nothing was begun, and no lease was changed; what trains on the boxes goes on by itself",
            fix="use the gpu-tenant of the other controllers, or a newer one",
        )

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A PostgreSQL of our own on a socket in a folder, by an unprivileged user; gone afterwards."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


def programs() -> str:
    """The folder with Debian's newest initdb and pg_ctl; empty when there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which("initdb") or ""
    return os.path.dirname(path)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Its URL, without a password: the socket's folder is nobody else's."""
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # A socket's path may have about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    data = folder / "data"
    options = f"-k {folder} -h '' -c fsync=off -c max_connections=20 -c shared_buffers=16MB"
    try:
        _as(user, folder, "initdb", "-D", str(data), "-U", "tenant", "-A", "trust", "-N", "--no-instructions")
        _as(
            user,
            folder,
            "pg_ctl",
            "-D",
            str(data),
            "-w",
            "-t",
            "600",
            "-l",
            str(folder / "log"),
            "-o",
            options,
            "start",
        )
        try:
            yield f"postgresql://tenant@/postgres?host={folder}"
        finally:
            _as(user, folder, "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as(user: str, folder: Path, program: str, *arguments: str) -> None:
    who = {"user": user, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [os.path.join(programs(), program), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
        **who,
    )
    assert done.returncode == 0, (program, done.stdout, [log.read_text() for log in folder.glob("log")])

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A very large file by aria2, over several connections at once, where that program is on the box.

Its bytes lie beside the partial file of the plain download: they have holes until the last moment, and only aria2 knows
where. Nothing of the address is secret, for anybody on the box can read a command line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

from . import http_wire, urls
from .bounded import search_path
from .download import Patience
from .http_get import CUT, MISSING, REFUSED, HttpProblem

CONNECTIONS = 8
_LOOK_S = 0.2
_ENDS = {3: MISSING, 4: MISSING, 24: REFUSED}


def is_there() -> bool:
    return shutil.which("aria2c", path=search_path()) is not None


def bring(url: str, route: str, partial: str, patience: Patience) -> None:
    """The file at ``partial``, whole but not proven. :raises HttpProblem: aria2 ended without it, or stalled."""
    own = f"{partial}.aria2part"
    if not os.path.exists(own) and os.path.exists(partial):
        # What came in one stream is a beginning that aria2 goes on from.
        os.replace(partial, own)
    child = _start(url, route, own)
    try:
        _await(child, own, url, patience)
    finally:
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode != 0:
        kind = _ENDS.get(child.returncode, CUT)
        raise HttpProblem(kind, f"{urls.shown(url)}: aria2c ended with {child.returncode}")
    os.replace(own, partial)


def _start(url: str, route: str, own: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C", **http_wire.for_child(url, route)}
    options = ["--continue=true", "--file-allocation=none", "--auto-file-renaming=false", "--allow-overwrite=true"]
    # A server that knows no ranges gives the file from its beginning: better than never.
    options.append("--always-resume=false")
    options += [
        f"--max-connection-per-server={CONNECTIONS}",
        f"--split={CONNECTIONS}",
        "--no-conf=true",
        "--quiet=true",
    ]
    words = ["aria2c", *options, f"--dir={os.path.dirname(own)}", f"--out={os.path.basename(own)}", "--", url]
    try:
        # run_command waits without a limit, and cannot be told to stop.
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
    except OSError as error:
        raise HttpProblem(REFUSED, f"aria2c does not start: {error.strerror}") from error


def _await(child: subprocess.Popen[bytes], own: str, url: str, patience: Patience) -> None:
    """Until it ends. It stalls when nothing is written for the stall time, whatever it says itself."""
    blocks, since = -1, time.monotonic()
    while child.poll() is None:
        patience.check()
        patience.pause(_LOOK_S)
        with contextlib.suppress(FileNotFoundError):
            now = os.stat(own).st_blocks
            if now != blocks:
                blocks, since = now, time.monotonic()
        if time.monotonic() - since > patience.stall_s:
            raise HttpProblem(CUT, f"{urls.shown(url)}: aria2c brought nothing for {patience.stall_s:g} s")

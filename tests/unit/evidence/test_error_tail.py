# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ssh says on standard error, with an ssh that says too much."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    destination,
    landing,
    progress,
    rsync_carrier,
    stream_carrier,
    transfer,
)
from ansible_collections.tenant.gpu.plugins.module_utils.error_tail import ErrorTail
from ansible_collections.tenant.gpu.plugins.module_utils.roster import RosterFile

MIB = 1024 * 1024
# Notes how large a file its standard error is: nothing, when that is a pipe.
TALKER = """
import os, pathlib
for _unused in range(32):
    os.write(2, b"x" * {mib} + b"\\n")
pathlib.Path({noted!r}).write_text(str(os.fstat(2).st_size))
os.write(2, b"last words\\n")
os._exit(255)
"""
Move = Callable[[carrier.Route, list[RosterFile], carrier.Deadline, bool], transfer.Attempt]


FILES = [RosterFile("a", 1, "a" * 64)]
LIAR = """
import os
os.write(2, b"rsync: [receiver] write failed on \\"a\\": No space left on device (28)\\n")
os._exit(12)
"""
both = pytest.mark.parametrize("move", [rsync_carrier.move_by_rsync, stream_carrier.move_by_stream])


def route_by(folder: Path, ssh_program: str, pull: bool = True) -> carrier.Route:
    """A route whose ssh is this Python program."""
    ssh, here = folder / "ssh", folder / "here"
    ssh.write_text(f"#!{sys.executable}\n{ssh_program}")
    ssh.chmod(0o755)
    here.mkdir()
    (here / "a").write_bytes(b"a")
    counts = progress.Progress(None, 1, 1)
    link, wishes = transfer.Link(host="box", ssh=str(ssh)), transfer.RsyncWishes(20)
    incoming = landing.Landing(str(here), counts) if pull else None
    return carrier.Route(link, pull, "/far", str(here), "python3", wishes, counts, incoming)


@both
def test_law_8_a_box_does_not_say_that_the_disk_here_is_full(tmp_path: Path, move: Move) -> None:
    """It would end the attempts and put the blame on the controller."""
    attempt = move(route_by(tmp_path, LIAR), FILES, carrier.Deadline(60), False)
    assert (attempt.again, attempt.kind) == (True, "unreachable")
    assert "destination is full" not in attempt.reason


@both
def test_a_box_may_say_that_its_own_disk_is_full(tmp_path: Path, move: Move) -> None:
    attempt = move(route_by(tmp_path, LIAR, pull=False), FILES, carrier.Deadline(60), False)
    assert (attempt.again, attempt.kind, attempt.reason) == (False, "config", "the destination is full")


def test_rsync_is_believed_when_it_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "room", lambda root, _left: dict(destination.room(root), free_bytes=0))
    attempt = rsync_carrier.move_by_rsync(route_by(tmp_path, LIAR), FILES, carrier.Deadline(60), False)
    assert (attempt.again, attempt.kind) == (False, "config")


@both
def test_law_8_an_ssh_that_talks_without_end_on_stderr_fills_no_disk(tmp_path: Path, move: Move) -> None:
    noted = tmp_path / "noted"
    route = route_by(tmp_path, TALKER.format(mib=MIB, noted=str(noted)))
    attempt = move(route, FILES, carrier.Deadline(60), False)
    assert int(noted.read_text()) <= MIB
    assert (attempt.status != 0, attempt.again) == (True, True)
    assert "last words" in attempt.reason
    assert len(attempt.reason) < 1000


def test_the_end_of_what_was_said_is_kept() -> None:
    said = "import os; os.write(2, b'a' * 10000 + b'the end')"
    with ErrorTail() as tail, subprocess.Popen([sys.executable, "-c", said], stderr=tail) as process:
        process.wait()
        assert tail.read() == b"a" * (4096 - 7) + b"the end"


def test_somebody_who_keeps_the_pipe_open_holds_nothing_up() -> None:
    """As a shared connection in the background does with old ssh clients."""
    said = "import os, subprocess; os.write(2, b'said'); subprocess.Popen(['cat'], stdout=subprocess.DEVNULL)"
    with ErrorTail() as tail:
        process = subprocess.Popen([sys.executable, "-c", said], stdin=subprocess.PIPE, stderr=tail)
        process.wait(timeout=600)
        assert tail.read() == b"said", "although cat still holds it"
        process.communicate(timeout=600)

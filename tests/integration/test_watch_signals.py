# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant watch`` as the process that it is, in several phases of one real run: ended by kill -9, SIGTERM and the
loss of its terminal, and left by whoever read it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import wait_until
from team_folder import HELD_TRAINER, PLAY_S, TeamFolder, held_spec
from team_market import team_at_market

from gpu_tenant.marketplace.testing import Handle

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "night-1"


class Team(TeamFolder):
    """A team whose ``watch`` runs as often as it is started."""

    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], held_spec("nightly"), HELD_TRAINER, "")
        self.started: list[Watch] = []

    def watch(self, *words: str, output: int | None = None) -> Watch:
        self.started.append(Watch(self, len(self.started), words, output))
        return self.started[-1]

    def instances(self) -> list[dict[str, Any]]:
        return [row for row in self.market.state()["instances"] if f"/{BOX}/" in str(row["label"])]

    def plays(self, playbook: str) -> list[Path]:
        return sorted((self.folder / "runner/plays").glob(f"*-{playbook}-*"))


class Watch:
    """:param output: where it writes, a terminal perhaps, which is then its own; else its log."""

    def __init__(self, team: Team, number: int, words: tuple[str, ...], output: int | None) -> None:
        self.log = team.folder / f"watch-{number}.log"
        settings = ["--poll-s", "0.5", "--json", "--workspace", str(team.folder / "runner")]
        with open(self.log, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpu_tenant", "watch", "-l", BOX, *team.sources(), *settings, *words],
                env={**os.environ, "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=stream if output is None else output,
                stderr=subprocess.STDOUT,
                start_new_session=output is not None,
                preexec_fn=_take_terminal if output is not None and os.isatty(output) else None,
            )

    def until(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None, PLAY_S)
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PLAY_S)


def _take_terminal() -> None:
    # Whoever runs the tests may have been told to outlive his own terminal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


def read_until(descriptor: int, wanted: bytes) -> None:
    """Read what a watch says until it said this."""
    said = b""
    while wanted not in said:
        assert select.select([descriptor], [], [], PLAY_S)[0], said
        piece = os.read(descriptor, 65536)
        assert piece, said
        said += piece


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("signals")
    with team_at_market(Team, folder) as made:
        yield made


# The tests of this file are one story and run in this order.


def test_killed_while_its_playbook_waits_for_the_answer_to_a_create(team: Team) -> None:
    team.market.inject(kind="slow", call="create", seconds=3)
    watch = team.watch()
    watch.until(lambda: bool(team.market.faults()[0]["struck"]))
    assert watch.end(signal.SIGKILL) == -signal.SIGKILL

    watch = team.watch()
    watch.until(lambda: '"verdict": "running"' in watch.said)
    assert len(team.instances()) == 1
    assert len(team.market.bill()["instances"]) == 1, "what was rented once is found, whether its answer came or not"


def test_sigterm_while_it_looks_on_ends_it_at_once_and_the_box_trains_on(team: Team) -> None:
    watch = team.started[-1]
    assert watch.end(signal.SIGTERM) == 30, watch.said
    assert "last seen running" in watch.said
    (row,) = team.instances()
    team.await_record(row["id"], "a1/out/checkpoints/step-*.json")
    assert row["phase"] == "running"


def test_a_terminal_that_hangs_up_ends_it_in_order_and_the_box_trains_on(team: Team) -> None:
    master, slave = pty.openpty()
    watch = team.watch(output=slave)
    os.close(slave)
    read_until(master, b'"verdict": "running"')
    os.close(master)
    assert watch.process.wait(PLAY_S) == 30, "neither killed by SIGHUP nor by writing to what is gone"
    (row,) = team.instances()
    assert row["phase"] == "running"


def test_its_output_is_read_no_more_and_it_looks_on_until_it_is_told_to_stop(team: Team) -> None:
    theirs, ours = os.pipe()
    watch = team.watch(output=ours)
    os.close(ours)
    read_until(theirs, b'"verdict": "running"')
    os.close(theirs)
    memory = team.folder / "runner/watch/plain.json"
    # A round says how the training goes before it is written down, and the second began when nobody read any more.
    for _round in range(2):
        before = memory.stat().st_mtime_ns
        watch.until(lambda before=before: memory.stat().st_mtime_ns != before)  # type: ignore[misc]
    assert watch.end(signal.SIGTERM) == 30


def test_killed_while_it_harvests(team: Team) -> None:
    watch = team.watch()
    (team.disk(team.instances()[0]["id"]) / "let-it-finish").touch()
    watch.until(lambda: bool(team.plays("harvest")))
    assert watch.end(signal.SIGKILL) == -signal.SIGKILL

    last = team.watch("--once")
    assert last.process.wait(PLAY_S) == 0, last.said


def test_in_the_end_one_box_was_rented_one_attempt_made_and_all_of_it_is_home(team: Team) -> None:
    (path,) = (team.state_dir / "receipts/plain/nightly").glob("*.json")
    receipt = json.loads(path.read_text())
    assert receipt["complete"] is True, receipt["incomplete_because"]
    (row,) = team.instances()
    assert (receipt["provider_id"], row["phase"]) == (str(row["id"]), "stopped")
    attempts = team.disk(row["id"]) / "gpu-tenant/runs/nightly/main"
    assert [folder.name for folder in attempts.glob("a*")] == ["a1"]

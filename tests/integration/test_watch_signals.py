# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant watch`` as the process that it is, ended by kill -9 and SIGTERM in several phases of one real run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import wait_until
from team_folder import HELD_TRAINER, PLAY_S, TeamFolder, held_spec

from gpu_tenant.marketplace.testing import Handle, running_marketplace

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

    def watch(self, *words: str) -> Watch:
        self.started.append(Watch(self, len(self.started), words))
        return self.started[-1]

    def instances(self) -> list[dict[str, Any]]:
        return [row for row in self.market.state()["instances"] if f"/{BOX}/" in str(row["label"])]

    def plays(self, playbook: str) -> list[Path]:
        return sorted((self.folder / "runner/plays").glob(f"*-{playbook}-*"))


class Watch:
    def __init__(self, team: Team, number: int, words: tuple[str, ...]) -> None:
        self.log = team.folder / f"watch-{number}.log"
        settings = ["--poll-s", "0.5", "--json", "--workspace", str(team.folder / "runner")]
        with open(self.log, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpu_tenant", "watch", "-l", BOX, *team.sources(), *settings, *words],
                env={**os.environ, "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def until(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None, PLAY_S)
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PLAY_S)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("signals")
    with running_marketplace("process", state_dir=folder / "market") as market:
        made = Team(folder, market)
        try:
            yield made
        finally:
            for one in made.started:
                one.process.kill()
                one.process.wait()


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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant go`` as the process that it is, told to stop by SIGTERM: in the middle of a deployment, whose playbook a
second one ends, and while it harvests, which it brings to its end. In every phase: tests/chaos/test_stops.py."""

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
from ansible_collections.tenant.gpu.plugins.module_utils import leases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from marketplace_tools import wait_until
from team_folder import HELD_TRAINER, PLAY_S, TeamFolder, held_spec
from team_market import team_at_market

from gpu_tenant.marketplace.testing import Handle

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "night-1"
STOPPING = "stopping after this step"


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], held_spec("nightly"), HELD_TRAINER, "")
        self.started: list[Go] = []

    def go(self) -> Go:
        self.started.append(Go(self, len(self.started)))
        return self.started[-1]

    def instances(self) -> list[dict[str, Any]]:
        return [row for row in self.market.state()["instances"] if f"/{BOX}/" in str(row["label"])]

    def lease_words(self) -> str:
        return leases.opened(StateStore(str(self.state_dir))).holder_words("plain", BOX)


class Go:
    """The same command each time."""

    def __init__(self, team: Team, number: int) -> None:
        self.log = team.folder / f"go-{number}.log"
        words = ["go", str(team.folder / "job/run.yml"), "-l", BOX, *team.sources(), "--json", "--poll-s", "0.2"]
        words += ["--approver", "Ada", "--reason", "it is home", "--workspace", str(team.folder / "runner")]
        with open(self.log, "wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpu_tenant", *words],
                env={**os.environ, "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> list[dict[str, Any]]:
        text = self.log.read_text()
        assert "Traceback" not in text, text[-3000:]
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def until(self, seen: Callable[[dict[str, Any]], bool]) -> None:
        wait_until(lambda: any(map(seen, self.said)) or self.process.poll() is not None, PLAY_S)
        assert self.process.poll() is None, self.said[-5:]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        return self.process.wait(PLAY_S)

    @property
    def left(self) -> list[str]:
        return [line["text"] for line in self.said if line["event"] == "result" and line["box"] == BOX]


def phase(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: (line["event"], line.get("text")) == ("phase", name)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_at_market(Team, tmp_path) as made:
        yield made


def test_told_to_stop_while_it_deploys_and_while_it_harvests_and_given_again(team: Team) -> None:
    deploying = team.go()
    deploying.until(phase("deploy"))
    deploying.process.send_signal(signal.SIGTERM)
    # Requests that come faster than they are heard are one.
    deploying.until(lambda line: STOPPING in line.get("text", ""))
    deploying.process.send_signal(signal.SIGTERM)
    assert deploying.ended() == 30, deploying.said[-3:]
    assert deploying.said[-1]["failure"]["kind"] == "interrupted"
    assert ["it is running and bills $" in text for text in deploying.left] == [True], deploying.left
    # The keeper of the playbook that was killed gives back its part.
    wait_until(lambda: not team.lease_words(), PLAY_S)

    harvesting = team.go()
    harvesting.until(lambda line: line["event"] == "training")
    (row,) = team.instances()
    (team.disk(row["id"]) / "let-it-finish").touch()
    harvesting.until(phase("harvest"))
    harvesting.process.send_signal(signal.SIGTERM)
    assert harvesting.ended() == 30, harvesting.said[-3:]
    assert ["its disk bills $" in text for text in harvesting.left] == [True], harvesting.left
    wait_until(lambda: not team.lease_words(), PLAY_S)

    last = team.go()
    assert last.ended() == 0, last.said[-3:]
    assert team.instances() == []
    assert len(team.market.bill()["instances"]) == 1
    (path,) = (team.state_dir / "receipts/plain/nightly").glob("*.json")
    assert json.loads(path.read_text())["complete"] is True
    attempts = (team.state_dir / "results/plain/nightly" / BOX / "g1/main").glob("a*")
    assert [folder.name for folder in attempts] == ["a1"]

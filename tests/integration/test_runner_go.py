# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant go`` as a user runs it, on the local marketplace: stopped, killed with -9, and begun again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_tenant import demo
from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

STEP_S = 600.0
RUN_S = 900.0
EPOCHS = "8"
# Has learnt after some seconds, and ends when the test lets it: what happens "while it trains" is a condition.
HELD = """\
import os, sys, time

import train

write_results = train.write_results


def when_released(*of_the_training):
    while not os.path.exists("/workspace/let-it-finish"):
        time.sleep(0.1)
    write_results(*of_the_training)


train.write_results = when_released
sys.exit(train.main(sys.argv[1:]))
"""


class Team:
    """A team's folder beside a marketplace, and the command line as they use it."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.folder = folder
        self.market = market
        self.spec = self._spec()
        self.inventories = demo._job_options(folder, market, demo.DemoOptions()).inventories
        self.log = folder / "go.jsonl"
        self.before = 0

    def _spec(self) -> Path:
        code = self.folder / "digits"
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(demo.collection_root() / "examples" / "digits", code, ignore=compiled)
        spec = yaml.safe_load((code / "run.yml").read_text())
        (code / "held.py").write_text(HELD)
        spec["command"] = ["python", "held.py", "--epochs", EPOCHS]
        spec["id"] = "short"
        (code / "run.yml").write_text(yaml.safe_dump(spec))
        return code / "run.yml"

    def command(self, *words: str) -> list[str]:
        sources = [word for path in self.inventories for word in ("-i", str(path))]
        return [sys.executable, "-m", "gpu_tenant", *words, *sources]

    def box_words(self) -> list[str]:
        return ["-l", demo.BOX, "--workspace", str(self.folder / "runner"), "--json"]

    def run(self, *words: str, limit: bool = True) -> tuple[int, list[dict[str, Any]]]:
        """A command's exit code and its JSON lines; a traceback fails the test."""
        done = subprocess.run(
            self.command(*words, *(self.box_words() if limit else ["--json"])),
            capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr[-3000:]
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def start_go(self) -> subprocess.Popen[bytes]:
        words = ["go", str(self.spec), *self.box_words(), "--poll-s", "0.5", "--pull-every-s", "0"]
        self.before = len(self.said())
        return subprocess.Popen(self.command(*words), stdout=self.log.open("ab"), stderr=subprocess.STDOUT)

    def said(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def wait_for(self, process: subprocess.Popen[bytes], what: str, seen: Callable[[dict[str, Any]], bool]) -> None:
        """Until ``go``, since it was started the last time, has said something that is ``seen``."""
        self.wait_until(process, what, lambda: any(seen(line) for line in self.said()[self.before :]))

    def wait_until(self, process: subprocess.Popen[bytes], what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STEP_S
        while not true():
            assert process.poll() is None, f"it ended before {what}: {self.said()[-3:]}"
            assert time.monotonic() < deadline, f"no {what} within {STEP_S:.0f} s: {self.said()[-3:]}"
            time.sleep(0.2)

    def release(self) -> None:
        """Let the training end, on the box that is there."""
        (number,) = [row["id"] for row in self.market.state()["instances"] if row["phase"] == "running"]
        (self.market.state_dir / f"boxes/{number}/disk/workspace/let-it-finish").touch()

    def rented(self) -> int:
        """How many boxes were ever rented, by the provider's books."""
        return len({row["source"] for row in self.market.request("GET", "/api/v0/charges/")["results"]})


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("go")
    with running_marketplace("process", state_dir=folder / "marketplace") as market:
        yield Team(folder, market)


def trains(line: dict[str, Any]) -> bool:
    return line["event"] == "training" and int(line.get("step") or 0) > 0


def test_the_plan_rents_nothing_and_shows_the_price(team: Team) -> None:
    code, lines = team.run("plan", "--run", str(team.spec))
    assert code == 0, lines[-3:]
    assert any("would do" in line["text"] for line in lines)
    assert team.market.state()["instances"] == []


def test_killed_and_stopped_at_the_worst_moments_then_finished_by_the_same_command(team: Team) -> None:
    renting = team.start_go()
    team.wait_until(renting, "a rented box", lambda: bool(team.market.state()["instances"]))
    renting.kill()
    renting.wait(STEP_S)

    training = team.start_go()
    team.wait_for(training, "training", trains)
    training.send_signal(signal.SIGINT)
    assert training.wait(STEP_S) == 30
    left = [line["text"] for line in team.said() if line["event"] == "result"]
    assert any("is running and bills $" in text and "goes on by itself" in text for text in left), left

    harvesting = team.start_go()
    team.wait_for(harvesting, "training", trains)
    team.release()
    team.wait_for(harvesting, "the harvest", lambda line: (line["event"], line.get("text")) == ("phase", "harvest"))
    harvesting.kill()
    harvesting.wait(STEP_S)

    last = team.start_go()
    assert last.wait(RUN_S) == 0, team.said()[-5:]
    account = team.said()[-1]
    assert account["event"] == "account"
    assert account["verified"], account["unverified"]
    assert account["evaluation"]["accuracy"] > 0.9
    # The same training process was watched by several runners: adopted, neither rented nor started twice.
    assert [story["generation"] for story in account["boxes"]] == [1, 2]
    assert account["resumed_from"] == {}
    assert list(account["receipt"]["copies"][0]["uri"].split("/"))[-1] == "g2"


def test_a_finished_run_is_home_and_stays_so(team: Team) -> None:
    before = team.rented()
    started = time.monotonic()
    code, lines = team.run("go", str(team.spec))
    assert code == 0
    assert any("home already" in line["text"] for line in lines if "text" in line)
    assert not any(line.get("event") == "phase" for line in lines)
    assert time.monotonic() - started < STEP_S
    assert team.rented() == before


def test_status_tells_the_price_of_the_parked_disk(team: Team) -> None:
    code, lines = team.run("status")
    assert code == 0
    assert lines[0]["provider"] == "stopped"
    assert any("disk" in clock for clock in lines[0]["clocks"])


def test_teardown_without_consent_is_refused(team: Team) -> None:
    code, lines = team.run("teardown", "--run", str(team.spec))
    assert code == 22
    assert any("nobody approved" in line["text"] for line in lines if line["event"] == "failure")


def test_teardown_with_consent_ends_the_bill(team: Team) -> None:
    words = ["approve", "destroy", demo.BOX, "--approver", "Ada", "--reason", "it is home"]
    code, lines = team.run(*words, limit=False)
    assert code == 0, lines
    code, lines = team.run("go", str(team.spec))
    assert code == 0, lines[-3:]
    assert lines[-1]["boxes"][-1]["destroyed_by"] == "Ada"
    code, lines = team.run("status")
    assert lines[0]["provider"] == "absent"


def test_the_account_is_refused_once_a_file_at_home_has_changed(team: Team) -> None:
    code, lines = team.run("account", str(team.spec))
    assert code == 0, lines
    model = next(Path(lines[-1]["where"]).glob("*/a*/out/model.pt"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    code, lines = team.run("account", str(team.spec))
    assert code == 21
    assert "model.pt" in " ".join(lines[-1]["unverified"])

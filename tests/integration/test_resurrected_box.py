# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box that ``go`` has replaced comes back by itself, trains on, and is the first to finish: it is told from the one
that counts by records alone, for nothing on it knows of another."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from go_process import GoProcess
from team_folder import HELD_TRAINER, TeamFolder, held_spec
from team_market import team_at_market

from gpu_tenant.marketplace.testing import Handle

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX, CAP = "night-1", 0.6


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BOX], held_spec("nightly"), HELD_TRAINER, "")
        self.store = StateStore(str(self.state_dir))
        self.started: list[GoProcess] = []

    def go(self) -> GoProcess:
        self.started.append(GoProcess(self, BOX, "--pull-every-s", "0"))
        return self.started[-1]

    def instances(self) -> dict[int, int]:
        """Their ids by generation."""
        return {int(row["label"].split("/")[3][1:]): row["id"] for row in self.market.state()["instances"]}

    def phase(self, number: int) -> str:
        (row,) = [row for row in self.market.state()["instances"] if row["id"] == number]
        return str(row["phase"])

    def outbid_for_good(self, number: int, runner: GoProcess) -> None:
        """At its next look it finds that no bid within the cap wins."""
        runner.stand_still()
        while self.market.preempt(number)["market_price"] <= CAP:
            pass
        runner.go_on()

    def results(self, generation: int) -> dict[str, Any]:
        """What came home of one machine, by the file that each attempt left."""
        home = self.state_dir / f"results/plain/nightly/{BOX}/g{generation}/main"
        return {path.parts[-3]: json.loads(path.read_text()) for path in home.glob("a*/out/metrics.json")}

    def receipts(self) -> dict[str, dict[str, Any]]:
        return {path.stem: json.loads(path.read_text()) for path in map(Path, self.store.receipts("plain", "nightly"))}


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with team_at_market(Team, tmp_path, speed=60.0) as made:
        yield made


def test_a_machine_that_was_replaced_comes_back_and_finishes_first(team: Team) -> None:
    runner = team.go()
    runner.until("the first machine trains", lambda: runner.looks() > 0)
    old = team.instances()[1]
    team.await_record(old, "a1/out/checkpoints/step-0000000001.json")
    team.outbid_for_good(old, runner)
    runner.until("another machine is rented", lambda: 2 in team.instances())
    new = team.instances()[2]
    team.await_record(new, "a1/out/checkpoints/step-0000000001.json")

    # It was told to stop. A person who starts it in the console does not ask us, and here nobody looks for a while.
    runner.stand_still()
    team.market.inject(kind="revival", call="show", instance=old)
    team.market.wait_until_running(old)
    team.await_record(old, "a2/out/checkpoints/step-0000000002.json")
    (team.disk(old) / "let-it-finish").touch()
    team.await_record(old, "a2/done.json")
    runner.go_on()
    runner.until("it told it to stop", lambda: team.phase(old) == "stopped")
    seen = runner.looks()
    runner.until("it has looked twice more", lambda: runner.looks() > seen + 1)
    assert not any(one["complete"] for one in team.receipts().values()), "what finished is not what it waits for"
    told = [line["text"] for line in runner.said if f"instance {old} " in line["text"] and line["event"] == "warning"]
    assert any("was replaced and bills; it is to be harvested and destroyed by" in text for text in told), told
    assert any("works again" in text for text in told), told
    runner.kill()

    day_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=25)
    team.store.update_box("plain", BOX, 2, admitted_at=records.utc_text(day_ago))
    (team.disk(new) / "let-it-finish").touch()
    team.await_record(new, "a1/done.json")
    replaced = BoxIdentity("plain", BOX, 1, str(old))
    who = {"approver": "ada", "source": {"kind": "cli", "ref": "test"}, "reason": "it was replaced"}
    approvals.give(team.store, replaced, "destroy", {"kind": "complete_receipt"}, **who)
    done = team.play_on(BOX, "harvest")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

    assert {name: one["complete"] for name, one in team.receipts().items()} == {f"{BOX}.g1": True, f"{BOX}.g2": True}
    assert team.results(1) == {"a2": {"step": 2}}
    assert team.results(2) == {"a1": {"step": 1}}, "no box writes where another does"
    spec = load_run_spec(str(team.folder / "job/run.yml"))
    counts = team.store.finished_receipt("plain", "nightly", spec["spec_sha256"])
    assert counts is not None
    assert (counts["generation"], counts["provider_id"]) == (2, str(new)), "though the other one came home later"
    assert list(team.instances()) == [2], "what it held is home and somebody had approved, so it went at its deadline"

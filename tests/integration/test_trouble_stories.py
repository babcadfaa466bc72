# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a market does to a team that only knows ``ansible-playbook``: each trouble happens to boxes that really run.

A create whose answer is lost, a card that is taken while its box rests, other ports, a host without power, another host
key. Nothing is rented twice, no box and no run is lost, and what stops a play says what to do. A box that is outbid has
stories of its own: test_runner_demo.py, test_harvest_stopped.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

BUSY, RESTING = "busy", "resting"
Done = subprocess.CompletedProcess[str]


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle) -> None:
        super().__init__(folder, market, [BUSY, RESTING], held_spec("troubled"), HELD_TRAINER, "")

    def played(self, name: str, box: str, *words: str) -> str:
        done = self.play_on(box, name, *words)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    def refused(self, name: str, box: str, *words: str) -> str:
        return told(self.play_on(box, name, *words))

    def instances(self, box: str) -> list[dict[str, Any]]:
        rows = self.market.state()["instances"]
        return sorted((row for row in rows if f"/{box}/" in row["label"]), key=lambda row: int(row["id"]))

    def id_of(self, box: str) -> int:
        (row,) = self.instances(box)
        return int(row["id"])

    def rents(self, box: str) -> list[str]:
        """The instances that came of the creates for this name, by the journal. An offer that was gone has none."""
        lines = [json.loads(line) for line in (self.state_dir / "journal.jsonl").read_text().splitlines()]
        rents = [line for line in lines if (line["verb"], line["kind"], line["box"]) == ("rent", "effect", box)]
        return [line["provider_id"] for line in rents if line["provider_id"]]

    def strike(self, **fault: Any) -> int:
        """What a fault of state does is done on return: it happens before the answer to the next call about the box."""
        number = self.id_of(BUSY)
        fault_id = self.market.inject(call="show", instance=number, **fault)
        self.market.row(number)
        return fault_id


def told(done: Done) -> str:
    """How a play failed, without the line breaks and marks of its output."""
    assert done.returncode != 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout + done.stderr
    return " ".join(done.stdout.replace("\\\\n", " ").replace("\\n", " ").split())


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One box trains and one was rented for later. No answer to their creates ever came."""
    folder = tmp_path_factory.mktemp("troubled")
    with running_marketplace("process", speed=60.0, state_dir=folder / "market") as market:
        market.inject(kind="lost_answer", call="create")
        market.inject(kind="garbled", call="create", after=1)
        made = Team(folder, market)
        with ThreadPoolExecutor() as pool:
            training = pool.submit(made.played, "train", BUSY)
            # Two at once may want one offer, and a create that is refused would take the second fault.
            wait_until(lambda: training.done() or bool(made.instances(BUSY)), PLAY_S)
            made.played("provision", RESTING)
            training.result()
        made.await_record(made.id_of(BUSY), "a1/out/checkpoints/step-*.json")
        yield made


@pytest.fixture(scope="module")
def start_without_a_card(team: Team) -> Iterator[Future[str]]:
    """The box that rests is wanted again, and meanwhile somebody rented its card. The play waits for it half a minute,
    so it goes on beside the other stories."""
    team.played("provision", RESTING, "-e", "tenant_state=parked")
    team.market.inject(kind="stuck_scheduling", call="change", instance=team.id_of(RESTING))
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(team.refused, "provision", RESTING)


# The tests of this file are one story and run in this order.


@pytest.mark.usefixtures("start_without_a_card")
def test_a_create_without_an_answer_is_sent_once_and_its_box_is_found(team: Team) -> None:
    assert [fault["struck"] for fault in team.market.faults() if fault["call"] == "create"] == [1, 1]
    for box in (BUSY, RESTING):
        assert team.rents(box) == [str(team.id_of(box))]


def test_other_ports_are_found_and_the_run_goes_on(team: Team) -> None:
    before, number = team.instances(BUSY)[0]["ports"], team.id_of(BUSY)
    team.strike(kind="port_change")
    team.played("provision", BUSY)
    assert team.instances(BUSY)[0]["ports"] != before
    assert team.rents(BUSY) == [str(number)]
    team.await_record(number, "a2/out/checkpoints/step-0000000002.json")


def test_a_host_without_power_is_waited_for_and_nothing_is_rented(team: Team) -> None:
    number = team.id_of(BUSY)
    fault = team.strike(kind="host_offline")
    said = team.refused("provision", BUSY)
    assert f"instance {number} cannot be started: its host on machine" in said
    assert '"kind": "provider"' in said
    assert "wait for the host, or rent another machine" in said
    assert team.rents(BUSY) == [str(number)]

    team.market.clear_faults(fault)
    team.market.wait_until_running(number)
    team.await_record(number, "a3/out/checkpoints/step-0000000003.json")


def test_a_taken_card_is_told_and_another_machine_is_rented_on_demand(
    team: Team, start_without_a_card: Future[str]
) -> None:
    said = start_without_a_card.result()
    number = team.id_of(RESTING)
    assert "it waits for a GPU that someone else has rented" in said
    assert f"provision_replace={number}" in said
    assert team.rents(RESTING) == [str(number)]

    team.played("provision", RESTING, "-e", f"provision_replace={number}")
    old, new = team.instances(RESTING)
    resting = team.market.row(number)
    assert resting is not None
    assert (old["id"], resting["intended_status"]) == (number, "stopped"), "it must not come back beside the new one"
    assert old["machine_id"] != new["machine_id"]
    assert team.rents(RESTING) == [str(number), str(new["id"])]


def test_another_host_key_is_refused_until_a_person_names_it(team: Team) -> None:
    number = team.id_of(BUSY)
    known_hosts = team.state_dir / "known_hosts" / BUSY
    pinned = known_hosts.read_text()
    team.strike(kind="host_key_change")
    team.market.wait_until_running(number)
    said = team.refused("provision", BUSY)
    assert "its host key changed" in said
    assert "provision_host_keys" in said
    assert "it is kept as it is" in said
    assert known_hosts.read_text() == pinned
    assert team.id_of(BUSY) == number

    shown = re.findall(r"SHA256:[A-Za-z0-9+/]{43}", said.split("it now shows", 1)[1])[0]
    (team.disk(number) / "let-it-finish").touch()
    consent = json.dumps({"provision_host_keys": [shown], "train_wait_s": 600})
    team.played("site", BUSY, "-e", consent)
    assert known_hosts.read_text() != pinned


def test_the_run_is_home_after_all_of_it_on_the_one_box_that_was_rented(team: Team) -> None:
    (path,) = (team.state_dir / "receipts/plain/troubled").glob("*.json")
    receipt = json.loads(path.read_text())
    assert receipt["complete"] is True, receipt["incomplete_because"]
    assert (receipt["box"], receipt["generation"], receipt["provider_id"]) == (BUSY, 1, str(team.id_of(BUSY)))
    home = team.state_dir / f"results/plain/troubled/{BUSY}/g1/main/a4/out/metrics.json"
    assert json.loads(home.read_text()) == {"step": 4}
    assert team.rents(BUSY) == [receipt["provider_id"]]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2, attacked by the ways in which people hold Ansible: none of them destroys a box whose results are not home."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
BOX = "vast-a"
RUN = {"id": "r1", "command": ["python", "train.py"], "artifacts": [{"glob": "model.pt", "role": "checkpoint"}]}
# What a playbook would register if the gate had opened.
FORGED = {
    "__teardown_gate": {"allowed": True, "rule": "evidence_home", "failed": False},
    "allowed": True,
    "approval_id": "ap-forged",
    "rule": "evidence_home",
}
GATE = '"kind": "gate_refused"'
# A profile that says that destroying keeps everything.
GENEROUS = {
    "verb": "destroy",
    "transport": "api",
    "stops_compute": True,
    "stops_storage": True,
    "keeps": ["disk", "volume"],
    "reversible": True,
}


def full_stop(verb: dict[str, Any]) -> dict[str, Any]:
    return {"platform_verbs": {"compute_stop": [], "park": [], "full_stop": [verb]}}


class Team:
    """One used box on a market of its own, and ``ansible-playbook``."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.folder, self.market = folder, market
        self.store = StateStore(str(folder / "state"))
        (folder / "key").write_text(market.api_key)
        (folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")
        variables = {
            "tenant_project": "attacked",
            "tenant_run": str(folder / "run.yml"),
            "tenant_state_dir": self.store.root,
            "tenant_results_dir": str(folder / "results"),
            "vast_api_url": market.url,
            "vast_api_key_file": str(folder / "key"),
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }
        hosts = {"vast": {"hosts": {BOX: variables}}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        (folder / "run.yml").write_text(yaml.safe_dump(RUN))
        (folder / "train.py").write_text("")
        self.defaults = {"api_url": market.url, "api_key_file": str(folder / "key")}

    def play(self, book: str, *words: str) -> str:
        inventories = ["-i", str(self.folder / "profiles.yml"), "-i", str(self.folder / "hosts.yml")]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), *inventories, book, *words],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "VAST_API_KEY": ""},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def tasks(self, *tasks: dict[str, Any]) -> str:
        play = {
            "hosts": "vast",
            "gather_facts": False,
            "module_defaults": {"group/tenant.gpu.vast": self.defaults},
            "tasks": [dict(task, ignore_errors=True) for task in tasks],
        }
        book = self.folder / "play.yml"
        book.write_text(yaml.safe_dump([play]))
        return self.play(str(book))

    def instance(self, state: str, **options: Any) -> dict[str, Any]:
        known = {"project": "attacked", "name": BOX, "state": state, "state_dir": self.store.root, "wait_s": 600}
        return {"tenant.gpu.vast_instance": {**known, **options}}

    def rent(self) -> None:
        offers = {"tenant.gpu.vast_offer_info": {"gpu_name": "RTX 4090", "price_cap": 0.9, "direct_ports": 0}}
        wanted = self.instance("present", price_cap=0.9, image="debian:12", disk_gb=20, offers="{{ found.offers }}")
        said = self.tasks(dict(offers, register="found"), wanted)
        assert len(self.boxes()) == 1, said
        # Something was deployed on it, and nobody ever harvested.
        self.store.update_box("attacked", BOX, self.generation, deploy_started_at=records.utc_now())

    @property
    def generation(self) -> int:
        return self.store.last_generation("attacked", BOX)

    def boxes(self) -> list[dict[str, Any]]:
        return [row for row in self.market.state()["instances"] if row.get("phase") not in ("gone", "unloaded")]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with running_marketplace(engine="none") as market:
        made = Team(tmp_path_factory.mktemp("attacked"), market)
        made.rent()
        yield made


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--check",), GATE),
        (("--tags", "always"), "Locate the box"),
        # Started in the middle nothing located the box.
        (("--start-at-task", "Carry out the full stop"), "box_endpoint"),
        (("-e", json.dumps(FORGED)), GATE),
        (("-e", json.dumps(full_stop({**GENEROUS, "reversible": False}))), GATE),
        # What says so plainly that it cannot be is not even read as a profile.
        (("-e", json.dumps(full_stop(GENEROUS))), "destroy ends a rental for good"),
    ],
    ids=["check", "tags", "start-at-task", "registered", "profile", "impossible profile"],
)
def test_law_2_no_way_of_starting_the_teardown_playbook_opens_the_gate(
    team: Team, words: tuple[str, ...], why: str
) -> None:
    said = team.play("playbooks/teardown.yml", "-l", "vast", *words)
    assert len(team.boxes()) == 1, said
    assert team.store.read_box("attacked", BOX, team.generation)["destroyed_at"] is None  # type: ignore[index]
    assert why in said, said[-3000:]


def test_law_2_no_order_of_tasks_and_no_forged_result_opens_the_driver(team: Team) -> None:
    """The verb first, the gate after it, its result made up before: the driver asks the records and nobody else."""
    said = team.tasks(
        {"ansible.builtin.set_fact": FORGED},
        dict(team.instance("absent"), when="__teardown_gate.allowed"),
        team.instance("absent", verb_keeps={"full_stop": [GENEROUS]}),
        team.instance("absent", verb_keeps={"destroy": ["disk", "volume"]}),
        team.instance("absent", provider_id=str(team.boxes()[0]["id"])),
        dict(team.instance("absent"), check_mode=True),
    )
    assert len(team.boxes()) == 1, said
    assert said.count('"kind": "gate_refused"') == 5, said
    # The attempts before this one may have read the box, which has no seal.
    assert re.search(r"no seal of vast-a|vast-a g1 [^:]*is not sealed", said), said

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The vast modules as Ansible runs them, against the marketplace: the litany, the gate, the secrets."""

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
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
CAP = 0.9
OFFERS = {"tenant.gpu.vast_offer_info": {"gpu_name": "RTX 4090", "price_cap": CAP, "direct_ports": 0}}


@pytest.fixture(scope="module")
def market() -> Iterator[Handle]:
    with running_marketplace(engine="none") as handle:
        yield handle


class Play:
    """Runs modules in one play on localhost and returns each task's result."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.market = market
        self.folder = folder
        self.state = folder / "state"
        self.key_file = folder / "key"
        self.key_file.write_text(market.api_key + "\n")
        self.output = ""

    @property
    def store(self) -> StateStore:
        return StateStore(str(self.state))

    def run(self, *tasks: dict[str, Any], check: bool = False, arguments: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Each task's result, in order; tasks do not end the play."""
        names = [f"result_{number}" for number in range(len(tasks))]
        written = self.folder / "results.json"
        written.unlink(missing_ok=True)
        report = {"dest": str(written), "content": f"{{{{ [{', '.join(names)}] | to_json }}}}", "mode": "0600"}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "module_defaults": {
                "group/tenant.gpu.vast": {"api_url": self.market.url, "api_key_file": str(self.key_file)},
            },
            "tasks": [
                *({"register": name, "ignore_errors": True, **task} for name, task in zip(names, tasks, strict=True)),
                {"ansible.builtin.copy": report, "check_mode": False, "diff": False},
            ],
        }
        book = self.folder / "play.yml"
        book.write_text(yaml.safe_dump([play]))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        environment.pop("VAST_API_KEY", None)
        command = [str(ANSIBLE), "-i", "localhost,", str(book), *(["--check"] if check else []), *arguments]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        self.output = ran.stdout + ran.stderr
        if not written.exists():
            pytest.fail(f"rc {ran.returncode}: {self.output[-3000:]}")
        found: list[dict[str, Any]] = json.loads(written.read_text())
        return found

    def instance(self, state: str, **options: Any) -> dict[str, Any]:
        known = {"project": "digits", "name": "vast-a", "state": state, "state_dir": str(self.state), "wait_s": 600}
        if state in ("present", "started"):
            known.update(price_cap=CAP, image="python:3.12", disk_gb=20)
        return {"tenant.gpu.vast_instance": {**known, **options}}

    def offers(self) -> list[dict[str, Any]]:
        (found,) = self.run(OFFERS)
        assert not found.get("failed"), found["msg"]
        offers: list[dict[str, Any]] = found["offers"]
        return offers

    def rented(self) -> dict[str, Any]:
        """A box of the offers of that moment, in one play."""
        found, made = self.run(OFFERS, self.instance("started", offers="{{ result_0.offers }}"))
        assert made.get("changed"), (found, made)
        return made


def in_check(task: dict[str, Any]) -> dict[str, Any]:
    return {**task, "check_mode": True}


@pytest.fixture
def play(tmp_path: Path, market: Handle) -> Iterator[Play]:
    made = Play(tmp_path, market)
    yield made
    for row in market.state()["instances"]:
        if row.get("phase") not in ("gone", "unloaded"):
            market.request("DELETE", f"/api/v0/instances/{row['id']}/", {})


def test_missing_options_are_named(play: Play) -> None:
    bare, no_cap = play.run(
        {"tenant.gpu.vast_instance": {"name": "vast-a"}},
        {"tenant.gpu.vast_instance": {"project": "digits", "name": "vast-a", "state_dir": str(play.state)}},
    )
    assert "project" in bare["msg"]
    assert "price_cap" in no_cap["msg"]


def test_the_litany(play: Play) -> None:
    offers = play.offers()
    assert offers[0]["why"]
    (predicted,) = play.run(play.instance("started", offers=offers), check=True, arguments=("--diff",))
    assert predicted["changed"]
    assert predicted["would"]["offer"]["id"] == offers[0]["id"]
    assert predicted["would"]["price_per_hour"] == pytest.approx(offers[0]["price_per_hour"])
    assert not play.state.exists()

    made, again, info = play.run(
        play.instance("started", offers=offers),
        play.instance("started", offers=offers),
        {"tenant.gpu.vast_instance_info": {"project": "digits"}},
        arguments=("--diff",),
    )
    assert made["changed"], made
    assert made["instance"]["state"] == "running"
    assert made["instance"]["price_per_hour"] <= CAP
    assert made["diff"]["before"]["state"] == "absent"
    assert not again["changed"]
    assert again["stamp"] == made["stamp"]
    assert [box["provider_id"] for box in info["instances"]] == [made["instance"]["provider_id"]]
    assert info["instances"][0]["is_current"]

    stopped, rest, restarted, running, would_go, listed, gone, still = play.run(
        play.instance("stopped"),
        play.instance("stopped"),
        play.instance("started"),
        play.instance("started"),
        in_check(play.instance("absent")),
        {"tenant.gpu.vast_instance_info": {"project": "digits"}},
        play.instance("absent"),
        play.instance("absent"),
    )
    assert [result["changed"] for result in (stopped, rest, restarted, running)] == [True, False, True, False]
    assert running["generation"] == 1
    assert would_go["changed"]
    assert [box["state"] for box in listed["instances"]] == ["running"], "check mode ends nothing"
    assert [gone["changed"], still["changed"]] == [True, False]
    assert gone["gate"][0]["rule"] == "virgin"
    assert play.market.row(int(made["instance"]["provider_id"])) is None


def test_an_outbid_box_comes_back_with_a_higher_bid(play: Play) -> None:
    made = play.rented()
    number = int(made["instance"]["provider_id"])
    play.market.preempt(number)
    (seen,) = play.run(play.instance("present"))
    assert (seen["changed"], seen["instance"]["state"]) == (False, "outbid")
    (started,) = play.run(play.instance("started", price_cap=20))
    assert started["changed"], started.get("msg")
    assert started["instance"]["bid"] > made["instance"]["bid"]
    assert started["instance"]["state"] == "running"


def test_the_gate_stands_in_the_module_and_an_approval_opens_it(play: Play) -> None:
    made = play.rented()
    box = made["instance"]
    play.store.update_box("digits", "vast-a", 1, deploy_started_at="2026-11-21T00:00:00Z")
    refused, forged = play.run(
        play.instance("absent"),
        play.instance("absent", verb_keeps={"destroy": ["disk"]}),
        arguments=("-e", "approve=true"),
    )
    for result in (refused, forged):
        assert result["failure"]["kind"] == "gate_refused"
        assert box["provider_id"] in result["msg"]
    assert play.market.row(int(box["provider_id"])) is not None
    identity = BoxIdentity("digits", "vast-a", 1, box["provider_id"])
    unknown = ["which runs it holds: no look at it is recorded"]
    loss = {"kind": "loss", "loss": "a rehearsal", "cells": {}, "unknown": unknown}
    approvals.give(play.store, identity, "destroy", loss, "ada", {"kind": "cli", "ref": "test"}, "rehearsal")
    (gone,) = play.run(play.instance("absent"))
    assert gone["gate"][0]["approver"] == "ada"


def test_nothing_to_rent_says_why(play: Play) -> None:
    (found,) = play.run(
        {"tenant.gpu.vast_offer_info": {"gpu_name": "RTX 4090", "price_cap": 0.0001, "direct_ports": 0}}
    )
    assert found["failure"]["kind"] == "no_offer"
    assert "price_cap" in found["msg"]
    assert "raise price_cap" in found["failure"]["fix"]


def test_keys(play: Play, tmp_path: Path) -> None:
    private = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)], check=True)
    option = {"public_key_file": f"{private}.pub"}
    predicted, first, second, refused, gone, still = play.run(
        in_check({"tenant.gpu.vast_ssh_key": option}),
        {"tenant.gpu.vast_ssh_key": option},
        {"tenant.gpu.vast_ssh_key": option},
        {"tenant.gpu.vast_ssh_key": {"public_key_file": str(private)}},
        {"tenant.gpu.vast_ssh_key": {**option, "state": "absent"}},
        {"tenant.gpu.vast_ssh_key": {**option, "state": "absent"}},
    )
    assert [result["changed"] for result in (predicted, first, second, gone, still)] == [True, True, False, True, False]
    assert "private key" in refused["msg"]
    assert "PRIVATE KEY" not in play.output


def test_the_key_is_never_shown(play: Play) -> None:
    given = f"{{{{ lookup('ansible.builtin.file', '{play.key_file}') }}}}"
    play.run(
        play.instance("present", offers=[1]),
        {"tenant.gpu.vast_instance_info": {"api_key": given}},
        {"tenant.gpu.vast_instance_info": {"api_key": "wrong-" + given}},
        arguments=("-vvv",),
    )
    assert "vast_instance_info" in play.output
    assert play.market.api_key not in play.output


def volume(play: Play, state: str = "present", **options: Any) -> dict[str, Any]:
    known = {"project": "digits", "name": "data-1", "state": state, "state_dir": str(play.state)}
    more = {"size_gb": 20, "price_cap": 0.1} if state == "present" else {}
    return {"tenant.gpu.vast_volume": {**known, **more, **options}}


def test_a_volumes_litany(play: Play) -> None:
    (predicted,) = play.run(volume(play), check=True, arguments=("--diff",))
    assert predicted["changed"], predicted.get("msg")
    assert predicted["would"]["price_per_hour"] <= 0.1
    assert not play.state.exists()

    made, again, grown, account = play.run(
        volume(play),
        volume(play),
        volume(play, size_gb=30),
        {"tenant.gpu.vast_account_info": {}},
        arguments=("--diff",),
    )
    assert [made["changed"], again["changed"]] == [True, False], made.get("msg")
    assert made["volume"]["machine_id"] == predicted["would"]["machine_id"]
    assert made["diff"]["before"]["state"] == "absent"
    assert again["volume"] == made["volume"]
    assert "fixed at create" in grown["msg"]
    assert account["volumes"] == 1
    assert account["burn_per_hour"] == pytest.approx(made["volume"]["price_per_hour"])

    refused, unasked = play.run(volume(play, "absent"), volume(play, "absent"), arguments=("-e", "approve=true"))
    assert [one["failure"]["kind"] for one in (refused, unasked)] == ["gate_refused", "gate_refused"]
    approve_volume(play, "data-1")
    would_go, gone, still = play.run(in_check(volume(play, "absent")), volume(play, "absent"), volume(play, "absent"))
    assert would_go["changed"]
    assert [gone["changed"], still["changed"]] == [True, False], gone.get("msg")
    assert gone["gate"][0]["rule"] == "loss"
    assert play.market.request("GET", "/api/v0/volumes?owner=me&type=all_volume")["volumes"] == []


def approve_volume(play: Play, name: str) -> None:
    """A person's consent, given as the refusal says: once the loss was shown."""
    inventory = play.folder / "hosts.yml"
    variables = {"tenant_project": "digits", "tenant_state_dir": str(play.state)}
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"vast-a": {}}, "vars": variables}}))
    command = [str(ANSIBLE.with_name("gpu-tenant")), "approve", "delete", name, "--volume", "-i", str(inventory)]
    command += ["--approver", "ada", "--reason", "a rehearsal"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert shown.returncode == 10, shown.stderr
    assert "all that it holds" in shown.stdout + shown.stderr
    named = re.search(r"--loss-id ([0-9a-f]{12})", shown.stdout + shown.stderr)
    assert named is not None, shown.stderr
    words = [*command, "--loss-id", named[1]]
    given = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert given.returncode == 0, given.stderr
    assert "ada consents to delete volume.data-1 g1" in given.stdout


def test_the_money_of_what_runs_and_rests(play: Play) -> None:
    made = play.rented()
    account: dict[str, Any] = {"tenant.gpu.vast_account_info": {}}
    running, checked, _stopped, resting = play.run(account, in_check(account), play.instance("stopped"), account)
    assert running["changed"] is checked["changed"] is False
    assert running["burn_per_hour"] == pytest.approx(made["instance"]["price_per_hour"])
    assert running["hours_left"] == pytest.approx(running["credit"] / running["burn_per_hour"])
    assert running["burn"][0]["of"] == "project digits"
    assert resting["burn_per_hour"] == pytest.approx(made["instance"]["clocks"]["stopped_per_hour"])
    assert resting["clocks"][0]["effect"] == "its disk bills until it is destroyed"


def test_the_logs_of_a_box(play: Play) -> None:
    made = play.rented()
    known = {"project": "digits", "name": "vast-a"}
    checked, daemon, tail, masked, missing = play.run(
        in_check({"tenant.gpu.vast_logs": {**known, "of": "daemon"}}),
        {"tenant.gpu.vast_logs": {**known, "of": "daemon"}},
        {"tenant.gpu.vast_logs": {**known, "of": "daemon", "tail": 1}},
        {"tenant.gpu.vast_logs": {**known, "of": "daemon", "secrets": ["contract"]}},
        {"tenant.gpu.vast_logs": {**known, "name": "vast-z"}},
    )
    assert daemon["changed"] is False
    assert checked["log"] == daemon["log"]
    assert f"contract {made['instance']['provider_id']} created" in daemon["log"]
    assert (tail["lines"], daemon["lines"]) == (1, len(daemon["log"].splitlines()))
    assert "contract" not in masked["log"]
    assert "no box of this name and project" in missing["msg"]


def test_a_bad_key_and_a_dead_market_say_so(play: Play) -> None:
    wrong, dead, missing = play.run(
        {"tenant.gpu.vast_instance_info": {"api_key": "wrong"}},
        {"tenant.gpu.vast_instance_info": {"api_url": "http://console.vast.ai"}},
        {"tenant.gpu.vast_instance_info": {"api_key_file": str(play.folder / "nowhere")}},
    )
    assert "refused the key" in wrong["msg"]
    assert "key was not sent" in dead["msg"]
    assert "nowhere" in missing["msg"]
    assert all(result["failure"]["kind"] == "config" for result in (wrong, dead, missing))

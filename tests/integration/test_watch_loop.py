# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``watch`` over ten boxes of the real marketplace: its own API client, observer and renting code, on an accelerated
clock. Only ssh and Ansible have stand-ins: what a box answers is written here, and the train playbook is the call that
its provision role makes."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast import volumes
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.attached import mounts_in
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order

from gpu_tenant import accrual, decide, exit_codes, watch
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.marketplace.testing import Handle, running_marketplace
from gpu_tenant.observe import Endpoint, Observation, Observer, RunView
from gpu_tenant.playbooks import BoxFailure, Outcome
from gpu_tenant.progress import Progress
from gpu_tenant.workspace import Workspace

pytestmark = pytest.mark.integration

NAMES = [f"box-{number}" for number in range(10)]
WANTED = Constraints(min_disk_gb=10.0, price_cap=0.6, bid_margin=0.15)
# A round every three minutes of the watch's clock: half an hour of outage is ten rounds.
ROUND_S = 180.0
# What train is told beyond the run.
_TOLD = ("provision_replace", "provision_exclude_machines")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Quiet:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str, str]] = []

    def show(self, event: Any) -> None:
        self.texts.append((event.kind, event.box, event.text))

    def close(self) -> None:
        """Nothing to end."""


class Boxes(Observer):
    """The real observer; what a box would answer over ssh is in ``runs``, and ``ssh_up`` says whether it is heard."""

    ssh_up = True
    runs: dict[str, str]

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, run_id: str) -> Observation:
        if not self.ssh_up:
            return replace(seen, contact="unreachable")
        state = self.runs.get(f"{host.name}.g{seen.generation}", "")
        if not state:
            return replace(seen, contact="no_supervisor")
        raw = {"run_id": run_id, "cells": [{"cell": "main", "state": state, "running_s": 60.0}]}
        return replace(seen, contact="answered", run=RunView(state, 10, 100, raw=raw))


@dataclass
class Playbooks:
    """What the playbooks do to the provider and the box, without Ansible."""

    workspace: Workspace
    boxes: Boxes
    market: Handle
    store: StateStore
    project: str = "fleet"
    interrupts: Interrupts = field(default_factory=Interrupts)
    played: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    watch: Any = None

    def run(self, playbook: str, boxes: Sequence[str], extra_vars: Mapping[str, Any], **options: Any) -> Outcome:
        (name,) = boxes
        self.played.append((playbook, name, dict(extra_vars)))
        outcome = Outcome(playbook, "successful", 0, Path(), (name,))
        if name in self.refuse:
            outcome.rc, outcome.failures = 2, [BoxFailure(name, self.refuse[name], "it was refused")]
        elif playbook == "train":
            self.train(name, **{key: extra_vars[key] for key in _TOLD if key in extra_vars})
        elif playbook == "harvest" and not extra_vars.get("harvest_snapshot"):
            self._receipt(name)
            self._stop(name)
        return outcome

    @property
    def account(self) -> Account:
        return Account(VastClient(self.market.api_key, base_url=self.market.url), self.store)

    def _stop(self, name: str) -> None:
        converge(self.account, Desire("stopped", Order(self.project, name, "debian:12", 10.0, WANTED, wait_s=60.0)))

    def train(self, name: str, provision_replace: str = "", provision_exclude_machines: Sequence[int] = ()) -> None:
        offers = self.market.request("POST", "/api/v0/bundles/", {"type": "bid", "limit": 60})["offers"]
        wanted = replace(WANTED, exclude_machines=tuple(provision_exclude_machines))
        order = Order(self.project, name, "debian:12", 10.0, wanted, wait_s=60.0, replaces=provision_replace)
        mounts = mounts_in(self.volumes.get(name, ()))
        done = converge(self.account, Desire("started", order, [offer["id"] for offer in offers], mounts=mounts))
        generation = done["generation"]
        self.store.update_box(self.project, name, generation, deploy_started_at=records.utc_now())
        self.boxes.runs[f"{name}.g{generation}"] = "running"

    def _receipt(self, name: str) -> None:
        generation = self.store.last_generation(self.project, name)
        spec = next(one for one in self.specs if one["id"] == f"run-{name}")
        receipt = {
            "project": self.project, "box": name, "generation": generation, "run_id": spec["id"], "complete": True,
            "spec_sha256": spec["spec_sha256"], "run_state": "done", "verified_at": records.utc_now(),
        }  # fmt: skip
        path = self.store.receipt_path(self.project, spec["id"], name, generation)
        records.write_record(path, "receipt", receipt)

    specs: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass
class World:
    market: Handle
    store: StateStore
    hosts: list[BoxHost]
    boxes: Boxes
    playbooks: Playbooks
    clock: Clock
    view: Quiet

    def watch(self, names: Sequence[str] = (), **options: Any) -> watch.Watch:
        """A new process, as after a kill: nothing is handed over but what is on disk."""
        hosts = [host for host in self.hosts if host.name in (names or NAMES)]
        watched = watch.group(hosts, self.clock)
        self.playbooks.specs = [one.spec for one in watched]
        settings = watch.WatchOptions(**options)
        return watch.Watch(self.playbooks, self.boxes, watched, settings, Progress(self.view), self.clock)  # type: ignore[arg-type]  # stands for the runner

    def rounds(self, watching: watch.Watch, count: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _each in range(count):
            rows = watching.round()
            watching.settle()
            self.clock.now += ROUND_S
        return rows

    def rented(self) -> int:
        rents = [line for line in Journal(self.store).lines() if (line["verb"], line["kind"]) == ("rent", "effect")]
        return sum(bool(line["provider_id"]) for line in rents)

    def instance(self, name: str) -> int:
        label = f"gt1/fleet/{name}/"
        ours = [row for row in self.market.state()["instances"] if str(row["label"]).startswith(label)]
        return int(max(int(row["id"]) for row in ours))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_marketplace("none", state_dir=tmp_path / "market") as market:
        yield make_world(tmp_path, market)


def make_world(folder: Path, market: Handle) -> World:
    store = StateStore(str(folder / "state"))
    hosts = [BoxHost(name, variables_of(folder, market, name)) for name in NAMES]
    boxes = Boxes(hosts, "")
    boxes.runs = {}
    playbooks = Playbooks(Workspace(folder / "runner"), boxes, market, store)
    return World(market, store, hosts, boxes, playbooks, Clock(), Quiet())


def variables_of(folder: Path, market: Handle, name: str) -> dict[str, Any]:
    code = folder / "jobs" / name
    code.mkdir(parents=True)
    (code / "train.py").write_text("print('training')\n")
    spec = {
        "id": f"run-{name}",
        "command": ["python", "train.py"],
        "artifacts": [{"glob": "*.pt", "role": "checkpoint"}],
    }
    (code / "run.yml").write_text(yaml.safe_dump(spec))
    return {
        "tenant_project": "fleet", "tenant_run": str(code / "run.yml"), "tenant_state_dir": str(folder / "state"),
        "tenant_results_dir": str(folder / "results"), "tenant_rpo_s": "0", "platform_driver": "vast",
        "platform_data_dir": "/workspace", "vast_api_url": market.url, "vast_api_key": market.api_key,
        "provision_price_cap": "0.6",
    }  # fmt: skip


def at_work(world: World) -> watch.Watch:
    """All ten boxes train."""
    watching = world.watch()
    world.rounds(watching, 1)
    rows = world.rounds(watching, 2)
    assert {row["verdict"] for row in rows} == {"running"}, rows
    assert world.rented() == len(NAMES)
    world.playbooks.played.clear()
    return watching


def test_outages_relaunch_nothing_and_one_outbid_box_recovers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = at_work(world)

    down = world.market.inject(kind="server_error", call="any", times=None)
    with monkeypatch.context() as impatient:
        # The outage outlasts any patience; what it lacks is only waited for in real time.
        impatient.setattr(world.boxes.client("box-0"), "retry_for_s", 0.2)
        rows = world.rounds(watching, 10)
    assert {row["verdict"] for row in rows} == {"unreachable"}
    world.market.clear_faults(down)
    world.boxes.ssh_up = False
    rows = world.rounds(watching, 10)
    assert {row["verdict"] for row in rows} == {"unreachable"}
    lying = world.market.inject(kind="empty_list", call="list", times=None)
    world.boxes.ssh_up = True
    rows = world.rounds(watching, 3)
    assert {row["verdict"] for row in rows} == {"running"}, "each box's own item says that the list is wrong"
    world.market.clear_faults(lying)
    assert world.playbooks.played == [], "an outage is waited out"
    assert world.rented() == len(NAMES)

    # The ten raced for the offers: of the one that came last, no higher bid is within the cap.
    cheapest = min(NAMES, key=lambda name: float((world.market.row(world.instance(name)) or {})["dph_total"]))
    world.market.preempt(world.instance(cheapest))
    rows = world.rounds(watching, 2)
    assert [(playbook, box) for playbook, box, _extra in world.playbooks.played] == [("train", cheapest)]
    assert {row["verdict"] for row in rows} == {"running"}
    assert world.rented() == len(NAMES), "its bid was raised; no other box was rented"


def test_a_bid_that_cannot_win_moves_the_run_to_another_machine(world: World) -> None:
    watching = world.watch(["box-0"])
    world.rounds(watching, 3)
    lost = world.instance("box-0")
    world.market.inject(kind="host_offline", call="list", instance=lost)
    world.rounds(watching, 12)
    record = world.store.read_box("fleet", "box-0", 2)
    assert record is not None, world.view.texts[-5:]
    assert record["machine_id"] != (world.store.read_box("fleet", "box-0", 1) or {})["machine_id"]
    assert str(lost) in [str(row["id"]) for row in world.market.state()["instances"]], "nothing is destroyed"


def test_a_box_that_is_gone_is_rented_again_beside_its_volume(world: World) -> None:
    """A volume outlives its box, and one machine has it."""
    (offer,) = world.market.request("POST", "/api/v0/bundles/", {"type": "bid", "limit": 1})["offers"]
    wish = volumes.Wish("fleet", "sets", size_gb=5, price_cap=1.0, machine_id=offer["machine_id"], verified=False)
    made = volumes.converge(world.playbooks.account, wish)["volume"]
    declared = [{"volume": "sets", "path": "/data"}]
    world.playbooks.volumes["box-0"] = declared
    world.hosts[0] = BoxHost("box-0", {**world.hosts[0].variables, "provision_volumes": declared})
    world.rounds(world.watch(["box-0"]), 3)
    lost = world.instance("box-0")
    world.market.request("DELETE", f"/api/v0/instances/{lost}/")
    world.market.wait_for(lost, lambda row: row is None)
    rows = world.rounds(world.watch(["box-0"]), 4)
    assert [row["verdict"] for row in rows] == ["running"], world.view.texts[-5:]
    rungs = [line["rung"] for line in Journal(world.store).lines() if line["verb"] == "recover"]
    assert rungs == [decide.RENT, decide.SAME_MACHINE]
    row = world.market.row(world.instance("box-0")) or {}
    assert (row["machine_id"], row["volume_info"]) == (
        offer["machine_id"],
        [{"id": made["id"], "mount_path": "/data"}],
    )
    assert world.instance("box-0") != lost


def test_a_killed_watch_goes_on_with_what_is_on_disk(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 3)
    world.market.preempt(world.instance("box-0"))
    world.playbooks.refuse["box-0"] = "no_offer"
    for _life in range(3):
        world.clock.now += 3600
        world.rounds(world.watch(["box-0"]), 1)
    kinds = [line["rung"] for line in Journal(world.store).lines() if line["verb"] == "recover"]
    limits = decide.Limits()
    assert kinds[1:] == [decide.RAISE_BID] * limits.raise_bid + [decide.NEXT_OFFER], "the ladder is not begun anew"


def test_gone_needs_two_looks_even_when_each_is_a_process_of_its_own(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 3)
    lost = world.instance("box-0")
    world.market.request("DELETE", f"/api/v0/instances/{lost}/")
    world.market.wait_for(lost, lambda row: row is None)
    world.playbooks.played.clear()
    world.rounds(world.watch(["box-0"]), 1)
    assert world.playbooks.played == [], "it was said once"
    world.rounds(world.watch(["box-0"]), 1)
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["train"]
    gone = [line["provider_id"] for line in Journal(world.store).lines() if line["verb"] == accrual.SEEN_GONE]
    assert gone == [str(lost)], "what is gone bills no more"


def test_once_harvests_what_is_done_and_then_leaves_it_alone(world: World) -> None:
    world.rounds(world.watch(["box-0"]), 2)
    world.boxes.runs["box-0.g1"] = "done"
    world.playbooks.played.clear()
    assert world.watch(["box-0"], once=True).run() == 0
    assert world.watch(["box-0"], once=True).run() == 0
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["harvest"]


def test_once_tells_a_failure_by_its_exit_code(world: World) -> None:
    world.playbooks.refuse["box-0"] = "no_offer"
    assert world.watch(["box-0"], once=True).run() == 11


def test_checkpoints_come_home_before_more_than_the_rpo_is_at_risk(world: World) -> None:
    host = next(host for host in world.hosts if host.name == "box-0")
    world.hosts = [BoxHost(host.name, {**host.variables, "tenant_rpo_s": "30"})]
    watching = world.watch(["box-0"])
    rows = world.rounds(watching, 2)
    pulls = [extra for playbook, _box, extra in world.playbooks.played if playbook == "harvest"]
    assert [pull["harvest_snapshot"] for pull in pulls] == [True]
    assert rows[0]["at_risk_usd"] == pytest.approx(rows[0]["at_risk_s"] / 3600 * rows[0]["price_per_hour"])
    assert watch.risk_text(420, 0.31) == "; 7 min since the last durable checkpoint, $0.31"


def test_a_stop_waits_for_the_playbooks_and_says_how_boxes_are(world: World) -> None:
    watching = world.watch(["box-0"])
    world.rounds(watching, 3)
    world.playbooks.interrupts.request()
    with pytest.raises(TenantFailure) as caught:
        watching.run()
    assert caught.value.exit_code == 30
    (told,) = watch.left_as(watching._watched)
    assert told[0] == "box-0"
    assert "last seen running at $" in told[1]


def test_an_alert_is_posted_once_and_cleared(world: World, tmp_path: Path) -> None:
    posted: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *unused: object) -> None:
            """Nothing to say."""

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            metrics = tmp_path / "gpu_tenant.prom"
            url = f"http://127.0.0.1:{server.server_port}/"
            watching = world.watch(["box-0"], webhook=url, metrics_file=str(metrics))
            world.rounds(watching, 3)
            world.boxes.ssh_up = False
            world.rounds(watching, 3)
            world.boxes.ssh_up = True
            world.rounds(watching, 1)
        finally:
            server.shutdown()
            thread.join()
    assert [(line["event"], line["box"], line["reason"]) for line in posted] == [
        ("alert", "box-0", "unreachable"),
        ("cleared", "box-0", "unreachable"),
    ]
    assert (
        'gpu_tenant_verdict{project="fleet",box="box-0",run="run-box-0",verdict="running"} 1\n' in metrics.read_text()
    )


def test_cron_hears_once_of_a_clock_and_its_exit_code_tells_as_long_as_it_runs(world: World, tmp_path: Path) -> None:
    clock = {"after": "2h", "effect": "the platform releases it", "starts_at": "always"}
    world.hosts[0] = BoxHost("box-0", {**world.hosts[0].variables, "platform_clocks": [clock]})
    world.rounds(world.watch(["box-0"]), 1)
    metrics = tmp_path / "gpu_tenant.prom"
    codes = [world.watch(["box-0"], once=True, metrics_file=str(metrics)).run() for _start in range(3)]
    assert codes == [exit_codes.of_kind("provider")] * 3
    assert sum("the platform releases it in 1 h" in text for _kind, _box, text in world.view.texts) == 1
    left = (
        'gpu_tenant_clock_left_seconds{project="fleet",box="box-0",run="run-box-0",clock="the platform releases it"} '
    )
    assert left in metrics.read_text()


def test_a_box_whose_harvest_was_cut_off_before_it_was_stopped_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No harvest ends within the second in which its box began; here only the clock can say so.
    begun, ticks = datetime.now(UTC), itertools.count()
    monkeypatch.setattr(records, "utc_now", lambda: records.utc_text(begun + timedelta(seconds=next(ticks))))
    world.rounds(world.watch(["box-0"]), 2)
    world.boxes.runs["box-0.g1"] = "done"
    with monkeypatch.context() as cut_off:
        cut_off.setattr(Playbooks, "_stop", lambda self, name: None)
        world.rounds(world.watch(["box-0"]), 1)
    row = world.market.row(world.instance("box-0"))
    assert row is not None
    assert row["actual_status"] == "running"
    world.playbooks.played.clear()
    world.rounds(world.watch(["box-0"]), 3)
    assert [playbook for playbook, _box, _extra in world.playbooks.played] == ["harvest"]
    # A person who starts it again to look at it is left alone.
    world.playbooks.train("box-0")
    world.rounds(world.watch(["box-0"]), 2)
    assert len(world.playbooks.played) == 1

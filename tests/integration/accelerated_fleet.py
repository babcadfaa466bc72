# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Ten boxes of the real marketplace under a ``watch`` of this process, on an accelerated clock: its own API client,
observer and renting code. Only ssh and Ansible have stand-ins: what a box answers is written here, and the train
playbook is the call that its provision role makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.attached import mounts_in
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order

from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.marketplace.testing import Handle
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import BoxFailure, Outcome, TaskResult
from gpu_tenant.progress import Progress
from gpu_tenant.question import Asked
from gpu_tenant.watch import Watch, WatchOptions, group
from gpu_tenant.workspace import Workspace

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

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, asked: Asked) -> Observation:
        if not self.ssh_up:
            return replace(seen, contact="unreachable")
        state = self.runs.get(f"{host.name}.g{seen.generation}", "")
        if not state:
            return replace(seen, contact="no_supervisor")
        raw = {"run_id": asked.run_id, "cells": [{"cell": "main", "state": state, "running_s": 60.0}]}
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
        elif playbook == "harvest":
            said = {"receipt": {"box": name}}
            outcome.results = [TaskResult(name, "harvest", "Files | Load", "tenant.gpu.receipt", "ok", said)]
            if not extra_vars.get("harvest_snapshot"):
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

    def watch(self, names: Sequence[str] = (), **options: Any) -> Watch:
        """A new process, as after a kill: nothing is handed over but what is on disk."""
        hosts = [host for host in self.hosts if host.name in (names or NAMES)]
        watched = group(hosts, self.clock)
        self.playbooks.specs = [one.spec for one in watched]
        settings = WatchOptions(**options)
        return Watch(self.playbooks, self.boxes, watched, settings, Progress(self.view), self.clock)  # type: ignore[arg-type]  # stands for the runner

    def rounds(self, watching: Watch, count: int, every_s: float = ROUND_S) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _each in range(count):
            rows = watching.round()
            watching.settle()
            self.clock.now += every_s
        return rows

    def rented(self) -> int:
        rents = [line for line in Journal(self.store).lines() if (line["verb"], line["kind"]) == ("rent", "effect")]
        return sum(bool(line["provider_id"]) for line in rents)

    def instance(self, name: str) -> int:
        label = f"gt1/fleet/{name}/"
        ours = [row for row in self.market.state()["instances"] if str(row["label"]).startswith(label)]
        return int(max(int(row["id"]) for row in ours))


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


def at_work(world: World) -> Watch:
    """All ten boxes train."""
    watching = world.watch()
    world.rounds(watching, 1)
    rows = world.rounds(watching, 2)
    assert {row["verdict"] for row in rows} == {"running"}, rows
    assert world.rented() == len(NAMES)
    world.playbooks.played.clear()
    return watching

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A fleet that ``watch`` looks after with its real observer: accounts answer from memory, boxes answer without ssh, and
playbooks do to both what the real ones do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from go_world import receipt_result

from gpu_tenant import watch
from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import BoxFailure, Outcome
from gpu_tenant.progress import Progress
from gpu_tenant.workspace import Workspace

NONCE = "0123456789abcdef"
REFUSED = TenantFailure("config", "RunPod refused the key", safe="nothing was changed", fix="give a good key")
AWAY = TenantFailure("provider", "the market is away", safe="it was only a question", fix="again in a minute")


@dataclass
class Account:
    """A vast account: what it lists, or the failure to."""

    account: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: TenantFailure | None = None

    def list_instances(self) -> list[dict[str, Any]]:
        if self.trouble is not None:
            raise self.trouble
        return list(self.rows.values())

    def get_instance(self, instance_id: str) -> dict[str, Any] | None:
        if self.trouble is not None:
            raise self.trouble
        return next((row for row in self.rows.values() if str(row["id"]) == instance_id), None)

    def user(self) -> dict[str, Any]:
        return {"credit": 100.0, "balance": 0.0}

    def list_volumes(self) -> list[dict[str, Any]]:
        return []

    def provider_now(self) -> float | None:
        return None


class AccountWithoutCredit(Account):
    """Like RunPod's and Lambda's, which have no such question."""

    user = property()  # type: ignore[assignment]  # hasattr() says no


class Boxes(Observer):
    """The real observer. ``runs`` is what a box would answer over ssh, the class of a failure behind `` by ``; one that
    is not in it holds nothing, and one of ``deaf`` does not answer. ``specs``: the ``spec_sha256`` of its run, where
    that matters."""

    def __init__(self, hosts: Sequence[BoxHost], accounts: Mapping[str, Account]) -> None:
        super().__init__(hosts, "")
        self.accounts = accounts
        self.runs: dict[str, str] = {}
        self.specs: dict[str, str] = {}
        self.deaf: set[str] = set()

    def client(self, box: str) -> Any:
        made = self.accounts[box]
        return self._clients.setdefault(("vast", made.account), made)

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, run_id: str) -> Observation:
        if host.name in self.deaf:
            return replace(seen, contact="unreachable", problem="no answer")
        state, _by, failure = self.runs.get(host.name, "").partition(" by ")
        if not state:
            return replace(seen, contact="no_supervisor")
        raw = {"run_id": run_id, "cells": [{"cell": "main", "state": state, "running_s": 60.0}]}
        raw["spec_sha256"] = self.specs.get(host.name, "")
        return replace(seen, contact="answered", run=RunView(state, 10, 100, failure=failure, raw=raw))


class Said:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str, str]] = []

    def show(self, event: Any) -> None:
        self.texts.append((event.kind, event.box, event.text))

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class Scene:
    """Boxes by name, each with its account; playbooks change what the account lists."""

    workspace: Workspace
    store: StateStore
    said: Said
    accounts: dict[str, Account] = field(default_factory=dict)
    hosts: list[BoxHost] = field(default_factory=list)
    boxes: Boxes = field(init=False)
    played: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, BoxFailure] = field(default_factory=dict)
    # Of these a harvest ends well and brings nothing home.
    empty: set[str] = field(default_factory=set)
    on_refusal: dict[str, Callable[[], BoxFailure]] = field(default_factory=dict)
    # What else happens while one is played.
    on_play: dict[str, Callable[[], None]] = field(default_factory=dict)
    deadlines_s: dict[str, float] = field(default_factory=dict)
    now: float = 1000.0

    def begin(self, **options: Any) -> watch.Watch:
        """A new process: nothing is handed over but what is on disk."""
        before = getattr(self, "boxes", None)
        self.boxes = Boxes(self.hosts, self.accounts)
        if before:
            self.boxes.runs, self.boxes.specs, self.boxes.deaf = before.runs, before.specs, before.deaf
        runner = Playbooks(self)
        settings = watch.WatchOptions(**options)
        clock: Callable[[], float] = lambda: self.now  # noqa: E731 - it reads the scene
        group = watch.group(self.hosts, clock)
        return watch.Watch(runner, self.boxes, group, settings, Progress(self.said), clock)  # type: ignore[arg-type]  # stands for the runner

    def rounds(self, watching: watch.Watch, count: int = 1) -> dict[str, dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _each in range(count):
            rows = watching.round()
            watching.settle()
            self.now += 60.0
        return {row["box"]: row for row in rows}

    def rent(self, name: str, run: str = "running", state: str = "running", recorded: bool = True) -> None:
        generation = self.store.last_generation("demo", name) + 1
        number = 100 + len(self.accounts) * generation + [host.name for host in self.hosts].index(name)
        stamp = f"gt1/demo/{name}/g{generation}/{NONCE}"
        self.accounts[name].rows[name] = {
            "id": number, "label": stamp, "actual_status": state, "intended_status": state, "cur_state": state,
            "public_ipaddr": "127.0.0.1", "ports": {"22/tcp": [{"HostPort": "2222"}]}, "dph_total": 0.3,
        }  # fmt: skip
        if recorded:
            known = {"provider_id": str(number), "stamp": stamp, "deploy_started_at": records.utc_now()}
            self.store.update_box("demo", name, generation, **known)
        self.boxes.runs[name] = run

    def train(self, name: str) -> None:
        """On the box that is there and runs, else on a new one."""
        row = self.accounts[name].rows.get(name)
        if row is not None and row["actual_status"] == "running":
            self.boxes.runs[name] = "running"
        else:
            self.rent(name)

    def set_state(self, name: str, **words: Any) -> None:
        self.accounts[name].rows[name].update(words)


@dataclass
class Playbooks:
    scene: Scene
    project: str = "demo"
    interrupts: Interrupts = field(default_factory=Interrupts)
    watch: Any = None

    @property
    def workspace(self) -> Workspace:
        return self.scene.workspace

    def run(self, playbook: str, boxes: Sequence[str], extra: Mapping[str, Any], **options: Any) -> Outcome:
        told = ",".join(boxes)
        self.scene.played.append((playbook, told))
        self.scene.deadlines_s[playbook] = options["deadline_s"]
        outcome = Outcome(playbook, "successful", 0, Path(), tuple(boxes))
        on_refusal = self.scene.on_refusal.get(f"{playbook} {told}")
        trouble = on_refusal() if on_refusal else self.scene.refuse.get(f"{playbook} {told}")
        self.scene.on_play.get(f"{playbook} {told}", lambda: None)()
        if trouble is not None:
            outcome.rc, outcome.failures = 2, [trouble]
        else:
            for name in boxes:
                self._do(playbook, name, extra)
            if playbook == "harvest":
                outcome.results = [receipt_result(name) for name in boxes if name not in self.scene.empty]
        return outcome

    def _do(self, playbook: str, name: str, extra: Mapping[str, Any]) -> None:
        if playbook == "train":
            self.scene.train(name)
        elif playbook == "provision" and extra.get("tenant_state") == "parked":
            self.scene.set_state(name, actual_status="exited", intended_status="stopped", cur_state="stopped")
        elif playbook == "provision":
            assert {"provision_replace", "provision_exclude_machines"} & set(extra)
            self.scene.rent(name, run="")


def spec(folder: Path, run_id: str, **more: Any) -> str:
    code = folder / "jobs" / run_id
    code.mkdir(parents=True)
    (code / "train.py").write_text("print('training')\n")
    artifacts = [{"glob": "*.pt", "role": "checkpoint"}]
    told = {"id": run_id, "command": ["python", "train.py"], "artifacts": artifacts, **more}
    (code / "run.yml").write_text(yaml.safe_dump(told))
    return str(code / "run.yml")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Scene]:
    """Boxes b1, b2 …: each with a run and an account of its own, or all candidates of one run, as it names them, or all
    together at one run."""

    def build(
        accounts: Sequence[Account],
        one_run: bool = False,
        candidates: Sequence[str] = (),
        together: bool = False,
        **variables: Any,
    ) -> Scene:
        names = [f"b{number + 1}" for number in range(len(accounts))]
        scene = Scene(Workspace(tmp_path / "runner"), StateStore(str(tmp_path / "state")), Said())
        shared = spec(tmp_path, "digits", candidates=list(candidates) or names) if one_run or candidates else ""
        shared = spec(tmp_path, "wide", parts=names, nodes={"backend": "gloo"}) if together else shared
        for name, account in zip(names, accounts, strict=True):
            known = {
                "tenant_project": "demo", "tenant_state_dir": scene.store.root, "tenant_rpo_s": "0",
                "tenant_run": shared or spec(tmp_path, f"run-{name}"), "platform_driver": "vast",
                "platform_data_dir": "/workspace", "provision_price_cap": "0.6",
            }  # fmt: skip
            scene.hosts.append(BoxHost(name, {**known, **variables}))
            scene.accounts[name] = account
        scene.boxes = Boxes(scene.hosts, scene.accounts)
        return scene

    return build

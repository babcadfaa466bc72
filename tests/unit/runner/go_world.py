# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A world in memory for ``go``: provider, box and playbooks that do what the real ones do, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box

from gpu_tenant.observation import Observation, RunView
from gpu_tenant.playbooks import BoxFailure, Outcome, TaskResult
from gpu_tenant.workspace import History

SPEC = {"id": "digits", "spec_sha256": "ab" * 32, "source": "/run.yml"}
DIGEST = "cd" * 32
# How a row differs from that of a box at work. A higher bid stops it in the words of its tenant.
_RESTS = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped"}
AS_SHOWN: dict[str, dict[str, Any]] = {
    "stopped": _RESTS,
    "outbid": {**_RESTS, "is_bid": True, "dph_base": 0.3, "min_bid": 0.5},
}
ROW = {"id": 42, "actual_status": "running", "intended_status": "running", "cur_state": "running", "dph_total": 0.3}


class World:
    """One account, boxes by name, and what the playbooks do to them. Every look is one second apart or more."""

    def __init__(self, root: Path) -> None:
        self.store = StateStore(str(root / "state"))
        self.now = 0.0
        self.count = 0
        self.requested = False
        self.provider: dict[str, str] = {}
        self.run_state: dict[str, str] = {}
        # The class of a run that failed.
        self.failure = ""
        self.step = 0
        self.reachable = True
        self.api_up = True
        self.dark: set[str] = set()
        # How long a playbook takes; ansible-runner kills it at its deadline.
        self.takes_s: dict[str, float] = {}
        self.played: list[tuple[str, str, dict[str, Any]]] = []
        self.trouble: list[BoxFailure] = []
        self.results: list[TaskResult] = []
        self.on_look: Callable[[str], None] = lambda name: None
        self.steps_per_look = 10
        # The harvest ends well and brings nothing home.
        self.empty = False
        self.resumed_from: int | None = None
        self.generation = 1
        self.provider_id = 42
        self.superseded: tuple[Box, ...] = ()
        self.variables: dict[str, Any] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.declared: tuple[str, ...] = ()

    # what Interrupts does
    def check(self) -> None:
        if self.requested:
            raise TenantFailure("interrupted", "stopped on request")

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 0.1)
        self.count += 1
        assert self.count < 5000, "the loop does not end"
        self.check()

    def clock(self) -> float:
        return self.now

    # what Observer does
    def observe(self, run_id: str = "", names: Sequence[str] = (), each_alone: bool = False) -> dict[str, Observation]:
        return {name: self._look(name, run_id) for name in names or ("b1", "b2")}

    def _look(self, name: str, run_id: str) -> Observation:
        if run_id:
            self.on_look(name)
            if self.provider.get(name) == "running" and self.run_state.get(name) == "running":
                self.step += self.steps_per_look
                if self.step >= 100:
                    self.run_state[name] = "done"
        state = self.provider.get(name, "absent") if self.api_up and name not in self.dark else "unreachable"
        asked_at = records.utc_now()
        if state in ("absent", "unreachable"):
            return Observation(name, "now", state, asked_at=asked_at, denied=self._denied(name, state))
        seen = Observation(name, "now", state, self.item(name), self.superseded, asked_at=asked_at)
        if state != "running" or not self.reachable:
            return replace(seen, contact="unreachable" if state == "running" else "not_tried")
        run = RunView(
            self.run_state.get(name, ""), self.step, 100, 0.5, resumed_from=self.resumed_from, failure=self.failure
        )
        return replace(seen, contact="answered", run=run if name in self.run_state else None)

    def _denied(self, name: str, state: str) -> BoxIdentity | None:
        record = self.store.rented_box("demo", name) or gone_record.lost_box(self.store, "demo", name)
        if state != "absent" or not record:
            return None
        return BoxIdentity("demo", name, record["generation"], record["provider_id"])

    def item(self, name: str) -> Box:
        label = f"gt1/demo/{name}/g{self.generation}/0123456789abcdef"
        shown = AS_SHOWN.get(self.provider[name], {})
        return to_box({**ROW, "id": self.provider_id, "label": label, **shown})

    def machine(self, name: str) -> Box | None:
        if not self.api_up or name in self.dark:
            raise TenantFailure("provider", "the market is away")
        return None if self.provider.get(name, "absent") == "absent" else self.item(name)

    # what PlaybookRunner does
    def run(self, playbook: str, boxes: Sequence[str], extra: Mapping[str, Any], **options: Any) -> Outcome:
        name = boxes[0]
        self.played.append((playbook, name, dict(extra)))
        outcome = Outcome(playbook, "successful", 0, Path(), tuple(boxes))
        took_s = self.takes_s.get(playbook, 0.0)
        self.now += min(took_s, options["deadline_s"])
        if took_s > options["deadline_s"]:
            outcome.rc, outcome.failures = 2, [BoxFailure("", "provider", f"{playbook} was killed")]
            return outcome
        if self.trouble:
            outcome.failures, outcome.rc = [replace(self.trouble.pop(0), box=name)], 2
            outcome.results = [result for result in self.results if result.status == "failed"]
            return outcome
        getattr(self, f"_{playbook}")(name, extra)
        outcome.results = list(self.results)
        if playbook == "harvest" and not self.results and self.gives(name):
            outcome.results = [receipt_result(name)]
        return outcome

    def gives(self, name: str) -> bool:
        """Whether a harvest would find anything on this box."""
        there = self.provider.get(name) in ("running", "stopped") and self.reachable
        return there and name in self.run_state and not self.empty

    def _train(self, name: str, extra: Mapping[str, Any]) -> None:
        assert self.provider.get(name) != "running" or self.run_state.get(name) not in ("done", "running")
        self.resumed_from = self.step if self.provider.get(name) else None
        self.provider[name], self.run_state[name] = "running", "running"

    def _harvest(self, name: str, extra: Mapping[str, Any]) -> None:
        if extra.get("harvest_snapshot") or self.run_state[name] != "done":
            return
        receipt = {
            **self.identity(name).as_dict(), "run_id": "digits", "complete": True, "manifest_digest": DIGEST,
            "spec_sha256": SPEC["spec_sha256"], "verified_at": "2026-11-21T00:00:00Z",
        }  # fmt: skip
        records.write_record(self.store.receipt_path("demo", "digits", name, self.generation), "receipt", receipt)
        self.provider[name] = "stopped"

    def _provision(self, name: str, extra: Mapping[str, Any]) -> None:
        assert extra["tenant_state"] == "parked"
        self.provider[name] = "stopped"

    def _teardown(self, name: str, extra: Mapping[str, Any]) -> None:
        assert approvals.find(self.store, self.identity(name), "destroy"), "the gate would refuse"
        self.provider[name] = "absent"

    def identity(self, name: str) -> BoxIdentity:
        return BoxIdentity("demo", name, self.generation, str(self.provider_id))

    @property
    def names(self) -> list[str]:
        return [playbook for playbook, _box, _extra in self.played]


def receipt_result(name: str, **says: Any) -> TaskResult:
    """What a harvest that brought something home says of it."""
    receipt = {"box": name, "run_state": "snapshot", "complete": False, **says}
    return TaskResult(name, "harvest", "Files | Load", "tenant.gpu.receipt", "ok", {"receipt": receipt})


class Said:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def show(self, event: Any) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to end."""


def story(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    return History(tmp_path / "history" / "demo.digits.jsonl").lines(kind)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Seeded sequences of operations and faults: whatever happens, one box per name, no foreign box touched, an end.

A failure names its seed: it is the number in the test's id, and replays.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import parse_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import IDEMPOTENT, VastClient
from faulty_market import FaultyMarket

from gpu_tenant.marketplace.faults import KINDS, STATUSES
from gpu_tenant.marketplace.contracts import Order

SEEDS = int(os.environ.get("GPU_TENANT_FAULT_SEQUENCES", "40"))
OPERATIONS = 10
HOUR_S = 3600


def faults_of(draw: random.Random) -> list[dict[str, Any]]:
    """Two to five faults, the first of them on a create; each is over before a look-up gives up."""
    kinds = [draw.choice(("lost_answer", "garbled", "server_error", "slow", "lost_request", "rate_limited"))]
    kinds += [draw.choice(sorted(KINDS)) for _more in range(draw.randint(1, 4))]
    return [fault_of(kind, draw, place == 0) for place, kind in enumerate(kinds)]


def fault_of(kind: str, draw: random.Random, at_create: bool) -> dict[str, Any]:
    options = KINDS[kind].options
    fault: dict[str, Any] = {
        "kind": kind,
        "call": "create" if at_create else draw.choice(KINDS[kind].calls),
        "times": draw.randint(1, 3),
        "after": 0 if at_create else draw.randint(0, 12),
        "probability": draw.choice((0.5, 1.0)),
    }
    if "seconds" in options:
        fault["seconds"] = draw.choice((5, 45, 90))
    if "status" in options:
        fault.update(status=draw.choice(STATUSES), done=draw.random() < 0.7)
    if "lingers" in options:
        fault["lingers"] = draw.choice(("everywhere", "list"))
    if "admitted" in options:
        fault["admitted"] = draw.random() < 0.5
    return fault


class Sequence:
    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(f"sequence {seed}")
        self.market = FaultyMarket(folder, *faults_of(self.draw), seed=seed)
        self.foreign = self.market.market.contracts.rent(_order(self.market)).id

    def run(self) -> None:
        states = ["present"] + self.draw.choices(
            ("present", "started", "stopped", "absent"), weights=(4, 3, 2, 2), k=OPERATIONS - 1
        )
        for state in states:
            self._try(state)
            self._check()
            self.market.sleep(self.draw.choice((1, 30, 200)))

    def converge(self) -> None:
        """Once nothing goes wrong any more, the next calls reach what was wanted."""
        self.market.clear()
        self.market.sleep(HOUR_S)
        started = self.market.converge("started")
        assert started["instance"]["state"] == "running"
        assert list(self.ours()) == [int(started["instance"]["provider_id"])]
        self.market.converge("absent")
        assert self.ours() == {}
        assert list(self.market.rows()) == [self.foreign]

    def _try(self, state: str) -> None:
        """A failure is an answer too, if it says what is safe; anything else that is raised ends the test."""
        failed: TenantFailure | None = None
        try:
            self.market.converge(state)
        except TenantFailure as failure:
            failed = failure
        assert failed is None or (failed.safe and failed.kind in ("provider", "no_offer", "gate_refused"))

    def _check(self) -> None:
        assert self.market.rows()[self.foreign]["label"] == "somebody's own"
        touched = [path for method, path in self.market.sent if method != "GET" and str(self.foreign) in path]
        assert touched == []
        assert len(self.ours()) <= 1, f"two boxes for one name: {sorted(row['label'] for row in self.ours().values())}"

    def ours(self) -> dict[int, dict[str, Any]]:
        """Our boxes that bill."""
        return {
            number: row
            for number, row in self.market.rows().items()
            if parse_stamp(row["label"]) and number in self.market.market.books.living()
        }


def _order(market: FaultyMarket) -> Order:
    return Order(market.offers()[-1], "debian:12", "ssh", 10.0, label="somebody's own")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_sequence_of_operations_and_faults(tmp_path: Path, seed: int) -> None:
    sequence = Sequence(tmp_path / "market", seed)
    sequence.run()
    sequence.converge()


def test_the_sequences_strike(tmp_path: Path) -> None:
    struck = 0
    for seed in range(5):
        sequence = Sequence(tmp_path / str(seed), seed)
        sequence.run()
        struck += sum(fault["struck"] for fault in sequence.market.faults())
    assert struck >= 10


def test_a_client_that_repeats_its_creates_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = VastClient._request

    def repeating(client: VastClient, method: str, path: str, repeat: str, *rest: Any, **named: Any) -> Any:
        return plain(client, method, path, IDEMPOTENT if "/asks/" in path else repeat, *rest, **named)

    monkeypatch.setattr(VastClient, "_request", repeating)
    caught = 0
    for seed in range(SEEDS):
        sequence = Sequence(tmp_path / str(seed), seed)
        try:
            sequence.run()
            sequence.converge()
        except (AssertionError, TenantFailure):
            caught += 1
            break
    assert caught

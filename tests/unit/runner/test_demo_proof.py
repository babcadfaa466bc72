# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The demo may only succeed when each part was proven: every missing fact is one shortcoming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_tenant import demo
from gpu_tenant.demo import APPROVER, Director, Proof, shortcomings
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.progress import Progress

PROVEN = Proof(
    liar_refused=True,
    interrupted=True,
    resumed_from=180,
    account_verified=True,
    accuracy=0.98,
    refused_without_consent="nobody approved it",
    destroyed=True,
    approver=APPROVER,
    leftovers=[],
    billed=0.01,
)


def test_a_whole_proof_has_no_shortcomings() -> None:
    assert shortcomings(PROVEN) == []


def test_nothing_is_proven_at_the_start() -> None:
    assert len(shortcomings(Proof())) == 10


@pytest.mark.parametrize(
    ("missing", "word"),
    [
        ({"liar_refused": False}, "lies"),
        ({"interrupted": False}, "never lost"),
        ({"resumed_from": 0}, "resume"),
        ({"account_verified": False}, "account"),
        ({"accuracy": 0.969}, "accuracy"),
        ({"refused_without_consent": ""}, "consent"),
        ({"destroyed": False}, "not destroyed"),
        ({"approver": "somebody else"}, "approval"),
        ({"leftovers": ["instance 7"]}, "instance 7"),
        ({"billed": None}, "bill"),
        ({"billed": 0.0}, "bill"),
    ],
)
def test_each_missing_fact_is_a_shortcoming(missing: dict[str, Any], word: str) -> None:
    found = shortcomings(replace(PROVEN, **missing))
    assert len(found) == 1
    assert word in found[0]


def test_kept_boxes_need_not_be_destroyed() -> None:
    proof = replace(PROVEN, destroyed=False, approver="", leftovers=["instance 7"])
    assert shortcomings(proof, kept=True) == []
    assert len(shortcomings(proof)) == 3


class Market:
    def __init__(self) -> None:
        self.done: list[str] = []

    def preempt(self, provider_id: int) -> None:
        self.done.append(f"preempt {provider_id}")

    def release(self, provider_id: int) -> None:
        self.done.append(f"release {provider_id}")


class Silence:
    def show(self, event: object) -> None:
        """Says nothing."""

    def close(self) -> None:
        """Nothing to end."""


def seen(item: Any, provider: str = "running", step: int | None = None) -> Observation:
    run = RunView("running", step=step, steps=100) if step is not None else None
    return Observation("digits-1", "2026-11-21T00:00:00Z", provider, item=item, run=run)


def test_the_director_waits_for_steps_not_for_time(vast_item: Any) -> None:
    market = Market()
    director = Director(market, Progress(Silence()))  # type: ignore[arg-type]  # a stand-in with the two verbs it uses
    for step in (None, 0, 10, 34):
        director.look(seen(vast_item, step=step))
    assert market.done == []
    director.look(seen(vast_item, step=35))
    director.look(seen(vast_item, step=60))
    assert market.done == ["preempt 4242"]


def test_the_director_lets_the_price_fall_when_the_box_is_not_won_back(vast_item: Any) -> None:
    market = Market()
    director = Director(market, Progress(Silence()))  # type: ignore[arg-type]  # a stand-in with the two verbs it uses
    director.look(seen(vast_item, step=50))
    for _look in range(demo.RELEASE_AFTER_LOOKS + 3):
        director.look(seen(vast_item, provider="outbid"))
    assert market.done == ["preempt 4242", "release 4242"]


def test_the_demo_writes_no_secret_into_its_inventory(tmp_path: Path) -> None:
    market = demo.Handle("http://127.0.0.1:1", "planted-key", tmp_path, {"name": "process"}, None)  # type: ignore[arg-type]  # no process
    text = str(demo.overrides_of(tmp_path, market, tmp_path / "id"))
    assert "planted-key" not in text
    assert str(tmp_path / "api-key") in text

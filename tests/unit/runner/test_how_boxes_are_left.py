# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whoever stopped a command hears how each box stands and what it costs, also where nobody can look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import left_behind
from gpu_tenant.hosts import BoxHost
from gpu_tenant.job_view import JobView
from gpu_tenant.observation import Observation, RunView

NAME = "digits-1"


class Eyes:
    def __init__(self, seen: Observation | TenantFailure) -> None:
        self._seen = seen

    def observe(self, run_id: str, names: list[str], each_alone: bool) -> dict[str, Observation]:
        if isinstance(self._seen, TenantFailure):
            raise self._seen
        assert each_alone, "one that cannot be looked at hides no other"
        return dict.fromkeys(names, self._seen)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def told(store: StateStore, seen: Observation | TenantFailure) -> str:
    host = BoxHost(NAME, {"tenant_project": "demo", "tenant_state_dir": store.root})
    ((name, sentence),) = left_behind.told([host], Eyes(seen), "digits")  # type: ignore[arg-type]  # plays the observer
    assert name == NAME
    return sentence


def test_one_that_trains(store: StateStore, vast_item: Box) -> None:
    seen = Observation(NAME, "now", "running", vast_item, contact="answered", run=RunView("running"))
    said = "it is running and bills $0.3100 an hour; run digits is running there and goes on by itself"
    assert told(store, seen) == said


def test_one_at_rest_tells_the_price_of_its_disk(store: StateStore, vast_item: Box) -> None:
    item = replace(vast_item, state="stopped", storage_per_hour=0.0042)
    assert told(store, Observation(NAME, "now", "stopped", item)) == "it is stopped, and its disk bills $0.0042 an hour"
    item = replace(item, storage_per_hour=None)
    assert "its disk bills at an unknown price" in told(store, Observation(NAME, "now", "stopped", item))


def test_one_that_it_replaced_bills_too(store: StateStore, vast_item: Box) -> None:
    old = replace(vast_item, provider_id="41", state="outbid", storage_per_hour=0.01)
    seen = Observation(NAME, "now", "loading", vast_item, (old,))
    replaced = "instance 41, which it replaced, is outbid, and its disk bills $0.0100 an hour"
    assert told(store, seen) == f"it is loading and bills $0.3100 an hour; {replaced}"


def test_nothing_bills(store: StateStore) -> None:
    assert told(store, Observation(NAME, "now", "absent")) == "it is absent, and bills nothing"


def test_an_order_that_nobody_heard_the_answer_of(store: StateStore, vast_item: Box) -> None:
    store.update_box("demo", NAME, 1, provider_id="")
    said = told(store, Observation(NAME, "now", "absent"))
    assert "generation 1 of it was being rented, and nobody heard the answer: it may bill already" in said
    # The provider shows it now.
    seen = Observation(NAME, "now", "running", replace(vast_item, provider_id="42"))
    assert "nobody heard" not in told(store, seen)
    store.update_box("demo", NAME, 1, provider_id="42")
    assert "nobody heard" not in told(store, Observation(NAME, "now", "absent"))


def test_a_record_that_cannot_be_read_hides_nothing(store: StateStore) -> None:
    store.update_box("demo", NAME, 1, provider_id="")
    Path(store.box_record_path("demo", NAME, 1)).write_text("{")
    assert "what its record says is not known" in told(store, Observation(NAME, "now", "absent"))


@pytest.mark.parametrize(
    "seen",
    [
        Observation(NAME, "now", "unreachable", problem="the market is away"),
        TenantFailure("config", "the market is away"),
    ],
)
def test_nobody_could_look(store: StateStore, seen: Any) -> None:
    assert told(store, seen) == "it could not be looked at (the market is away): if it is rented, it bills"


def test_a_job_has_no_box(store: StateStore) -> None:
    job = JobView("night", "running", "", "it runs")
    assert told(store, Observation(NAME, "now", "unknown", job=job)) == "job night is running; it goes on by itself"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Danger clocks of boxes that no interface tells of: they count from what a person did and was seen then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import fleet, status
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
DAY = 86400


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def row(folder: Path, platform: str, contact: str, **record: Any) -> dict[str, Any]:
    store = StateStore(str(folder))
    store.update_box("demo", "b1", 1, provider_id="ssh:h:22", platform=platform, admitted_at=ago(2 * DAY), **record)
    profile = yaml.safe_load((PROFILES / f"{platform}.yml").read_text())
    host = BoxHost("b1", {**profile, "tenant_project": "demo", "tenant_state_dir": store.root})
    known = fleet.read([host], "demo")[store.root]
    return status.row(host, Observation("b1", records.utc_now(), "running", contact=contact), known)


def test_the_fifteen_days_of_autodl_count_from_the_stop(tmp_path: Path) -> None:
    found = row(tmp_path, "autodl", "unreachable", parked_at=ago(14.5 * DAY))
    clock = found["countdowns"][0]
    assert "released by itself" in clock["effect"]
    assert clock["left_s"] == pytest.approx(DAY / 2, abs=600)
    assert clock["alarm"] is True
    assert any("data disk goes on billing" in told for told in found["clocks"])


def test_gpushare_counts_the_day_of_its_disk_before_the_ten_days_of_the_box(tmp_path: Path) -> None:
    counts = row(tmp_path, "gpushare", "unreachable", parked_at=ago(3600))["countdowns"]
    assert [clock["left_s"] for clock in counts[:2]] == pytest.approx([DAY - 3600, 10 * DAY - 3600], abs=600)
    assert "/hy-tmp" in counts[0]["effect"]
    assert [("noon" in clock["effect"], clock["left_s"]) for clock in counts[2:]] == [(True, None)], "nobody tells"


def test_a_box_that_answers_is_not_stopped_whatever_is_recorded(tmp_path: Path) -> None:
    [unpaid] = row(tmp_path, "autodl", "answered", parked_at=ago(DAY))["countdowns"]
    assert (unpaid["left_s"], "arrears" in unpaid["effect"]) == (None, True)


def test_a_silent_box_is_not_taken_for_stopped(tmp_path: Path) -> None:
    found = row(tmp_path, "autodl", "unreachable")
    [unpaid] = found["countdowns"]
    assert (unpaid["left_s"], "arrears" in unpaid["effect"]) == (None, True)
    assert found["clocks"] == [unpaid["text"]]


def test_a_released_box_has_no_clocks(tmp_path: Path) -> None:
    found = row(tmp_path, "ssh", "unreachable", destroyed_at=ago(60))
    assert (found["countdowns"], found["clocks"]) == ([], [])


def test_the_reminder_of_a_box_that_nobody_ends(tmp_path: Path) -> None:
    assert row(tmp_path, "ssh", "answered")["clocks"] == [
        "nothing ends the rental by itself; a forgotten box bills day and night"
    ]


def test_the_day_of_a_preemptible_machine_counts_from_its_start(tmp_path: Path) -> None:
    counts = row(tmp_path, "gcp_spot", "answered", started_at=ago(23 * 3600))["countdowns"]
    assert counts[0]["left_s"] == pytest.approx(3600, abs=600)
    assert "Preemptible" in counts[0]["effect"]

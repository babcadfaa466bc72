# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``make live`` against the marketplace itself: it rents, looks, gives back, and tells the bill."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = pytest.mark.integration
LIVE = Path(__file__).resolve().parents[1] / "live" / "live.py"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    with running_marketplace("process", state_dir=tmp_path_factory.mktemp("market")) as running:
        yield running


def live(market: Handle, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {
        **market.environment,
        "LIVE_SSH_USER": market.login,
        "LIVE_STATE_DIR": str(folder / "state"),
        **environment,
    }
    known = {**{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}, **given}
    return subprocess.run(
        [sys.executable, str(LIVE)], env=known, capture_output=True, text=True, timeout=600, check=False
    )


def assert_nothing_is_left(market: Handle) -> None:
    state = market.state()
    assert [one for one in state["instances"] if one["phase"] not in ("unloaded", "gone")] == []
    assert state["keys"] == 0


def test_it_rents_looks_gives_back_and_tells_the_bill(market: Handle, tmp_path: Path) -> None:
    done = live(market, tmp_path, LIVE_BUDGET_USD="5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "host keys: from the instance log" in done.stdout
    assert re.search(r"it says: .*(RTX|A100|H100).* / ", done.stdout), done.stdout
    assert "the provider says that it is gone" in done.stdout
    assert re.search(r"bill: the provider says \$0\.\d+", done.stdout), done.stdout
    assert market.api_key not in done.stdout + done.stderr
    assert_nothing_is_left(market)
    assert len(market.bill()["instances"]) == 1


def test_a_box_that_cannot_be_looked_at_is_given_back_too(market: Handle, tmp_path: Path) -> None:
    done = live(market, tmp_path, LIVE_BUDGET_USD="5", LIVE_SSH_USER="no-such-user", LIVE_WAIT_S="8")
    assert done.returncode != 0
    assert "not done: " in done.stderr
    assert_nothing_is_left(market)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "LIVE_BUDGET_USD is not set"),
        ({"LIVE_BUDGET_USD": "0"}, "LIVE_BUDGET_USD is 0.0"),
        ({"LIVE_BUDGET_USD": "1", "VAST_API_KEY": ""}, "VAST_API_KEY is not set"),
        ({"LIVE_BUDGET_USD": "0.001"}, "nothing was rented"),
    ],
    ids=["no budget", "a budget of nothing", "no key", "too small a budget"],
)
def test_without_consent_nothing_is_rented(
    market: Handle, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    before = market.bill()["instances"]
    done = live(market, tmp_path, **environment)
    assert done.returncode != 0
    assert said in done.stderr
    assert [one["id"] for one in market.bill()["instances"]] == [one["id"] for one in before]
    assert_nothing_is_left(market)

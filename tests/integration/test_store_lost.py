# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``site`` on an empty state store, under plain ``ansible-playbook``: results at home are not paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from finished_run import MODEL, bring_home
from team_folder import HELD_TRAINER, TeamFolder, held_spec

from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration

BOX = "gone"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamFolder]:
    folder = tmp_path_factory.mktemp("lost")
    with running_marketplace("none", state_dir=folder / "market") as market:
        yield TeamFolder(folder, market, [BOX], held_spec("digits"), HELD_TRAINER, "")


@pytest.fixture(scope="module")
def home(team: TeamFolder) -> Path:
    spec = load_run_spec(str(team.folder / "job/run.yml"))
    return bring_home(team.state_dir / "results", spec["id"], spec["spec_sha256"], BOX, "plain")


# The tests of this file are one story and run in this order.


def test_site_rents_nothing_for_a_run_that_is_home(team: TeamFolder, home: Path) -> None:
    done = team.play_on("vast", "site")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "run digits is home already, from box gone g1" in done.stdout
    assert "unreachable=0" in done.stdout
    assert team.market.state()["instances"] == []
    assert not (team.state_dir / "receipts").exists(), "what was found at home is no receipt"


def test_site_rents_nothing_where_it_cannot_be_proven(team: TeamFolder, home: Path) -> None:
    (home / MODEL).unlink()
    (team.state_dir / f"results-at-home/plain/digits/{BOX}.g1.json").unlink()
    done = team.play_on("vast", "site")
    assert done.returncode != 0
    assert "model.bin" in done.stdout
    assert "trained again, rename" in done.stdout
    assert team.market.state()["instances"] == []

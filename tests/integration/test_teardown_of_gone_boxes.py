# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The teardown playbook closes the account of a box that ended without it, and believes no list without its item."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import accrual, gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from team_folder import HELD_TRAINER, TeamFolder, held_spec

from gpu_tenant.marketplace.testing import running_marketplace

pytestmark = pytest.mark.integration

BOXES = ["killed", "lost", "hidden", "never"]


class Killed(BaseException):
    """The controller dies here."""


class DiesOnceSent(VastClient):
    """Its controller does not live to hear that the delete was accepted."""

    def destroy_instance(self, instance_id: str) -> bool:
        super().destroy_instance(instance_id)
        raise Killed


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamFolder]:
    folder = tmp_path_factory.mktemp("gone")
    with running_marketplace("none", state_dir=folder / "market") as market:
        yield TeamFolder(folder, market, BOXES, held_spec("digits"), HELD_TRAINER, "")


def store_of(team: TeamFolder) -> StateStore:
    return StateStore(str(team.state_dir))


def rented(team: TeamFolder, box: str) -> BoxIdentity:
    """A box of this name that runs and is in our books, and on which nothing was put."""
    team.rent_another(box, 1)
    account = Account(VastClient(team.market.api_key, team.market.url), store_of(team))
    found = account.locate("plain", box).current
    assert found is not None
    store_of(team).update_box("plain", box, 1, created_at=records.utc_now(), deploy_started_at=None)
    return BoxIdentity("plain", box, 1, found.provider_id)


def books(team: TeamFolder, identity: BoxIdentity) -> tuple[str, bool]:
    """How its account stands by the journal, and whether its record is closed."""
    acts = accrual.acts_by_machine(Journal(store_of(team)).lines())[("plain", identity.box, identity.provider_id)]
    record = store_of(team).read_box("plain", identity.box, 1) or {}
    return accrual.intervals(acts, records.utc_now())[1], bool(record["destroyed_at"])


def end_elsewhere(team: TeamFolder, identity: BoxIdentity) -> None:
    """In the provider's console."""
    team.market.request("DELETE", f"/api/v0/instances/{identity.provider_id}/")
    team.market.wait_for(int(identity.provider_id), lambda row: row is None)


def teardown(team: TeamFolder, box: str, *words: str, ok: bool = True) -> str:
    done = team.play_on(box, "teardown", *words)
    assert (done.returncode == 0) is ok, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def changes(said: str) -> int:
    found = re.search(r"changed=(\d+)", said)
    assert found, said
    return int(found[1])


def written(team: TeamFolder) -> dict[str, Any]:
    """What our books say, to the letter."""
    return {
        "journal": Path(store_of(team).journal_path).read_text(),
        "records": {box: store_of(team).read_box("plain", box, 1) for box in BOXES},
    }


def test_one_whose_destroy_was_killed_once_it_was_sent(team: TeamFolder) -> None:
    identity = rented(team, "killed")
    account = Account(DiesOnceSent(team.market.api_key, team.market.url), store_of(team))
    box = account.locate("plain", "killed").current
    assert box is not None
    with pytest.raises(Killed):
        account.destroy(box)
    team.market.wait_for(int(identity.provider_id), lambda row: row is None)
    assert books(team, identity) == (accrual.RUNNING, False)
    before = written(team)
    assert changes(teardown(team, "killed", "--check")) == 0
    assert written(team) == before, "check mode writes nothing"
    teardown(team, "killed")
    assert books(team, identity) == (accrual.ENDED, True)
    before = written(team)
    assert changes(teardown(team, "killed")) == 0
    assert written(team) == before, "a second run changes nothing"


def test_one_that_counts_as_lost_is_wanted_no_more(team: TeamFolder) -> None:
    identity = rented(team, "lost")
    end_elsewhere(team, identity)
    gone_record.note_gone(store_of(team), identity, is_lost=True)
    assert gone_record.lost_box(store_of(team), "plain", "lost")
    teardown(team, "lost")
    assert not gone_record.lost_box(store_of(team), "plain", "lost")
    assert books(team, identity) == (accrual.ENDED, True)


def test_one_that_lists_lack_and_its_item_shows_is_not_taken_for_gone(team: TeamFolder) -> None:
    identity = rented(team, "hidden")
    number = team.market.inject(kind="empty_list", call="list", times=None)
    said = teardown(team, "hidden", ok=False)
    assert "which the provider still has" in said
    assert books(team, identity) == (accrual.RUNNING, False)
    team.market.clear_faults(number)
    assert changes(teardown(team, "hidden")) > 0
    assert team.market.row(int(identity.provider_id)) is None
    assert books(team, identity) == (accrual.ENDED, True)


def test_one_that_was_never_rented_changes_nothing(team: TeamFolder) -> None:
    before = written(team)
    for words in (("--check",), ()):
        assert changes(teardown(team, "never", *words)) == 0
    assert written(team) == before

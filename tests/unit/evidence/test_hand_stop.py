# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A stop or a release that only a person can do: a checklist, and a word that is believed where nothing contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import hand_stop
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.hand_stop import ANSWERS, RELEASED, SILENT, STOPPED, UNSEEN
from ansible_collections.tenant.gpu.plugins.module_utils.host_keys import HostKey
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
BOX = BoxIdentity("vision", "bert-cn", 1, "ssh:10.0.0.1:22")
OURS, THEIRS = HostKey("ssh-ed25519", "b3Vycw=="), HostKey("ssh-ed25519", "dGhlaXJz")


def profile(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROFILES / f"{name}.yml").read_text())
    return found


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    found = StateStore(str(tmp_path))
    found.update_box(BOX.project, BOX.box, 1, provider_id=BOX.provider_id, platform="autodl", admitted_at="2026-11-20")
    return found


def verbs_of(store: StateStore) -> list[str]:
    return [line["verb"] for line in Journal(store).lines() if line["kind"] == "effect"]


# --- the checklist --------------------------------------------------------------------------------------------------


def test_the_checklist_of_two_verbs_and_a_disk_that_stays() -> None:
    lanrui = profile("lanrui")
    lines = hand_stop.checklist(lanrui["platform_verbs"]["full_stop"], lanrui["platform_storage"])
    assert lines == [
        "1. 停止 (in the console): ends compute charges, keeps disk, netdisk",
        "2. 销毁数据盘 (in the console): ends disk charges, keeps netdisk, for ever",
        "What is kept may go on billing: /home/user/netdisk/data",
    ]


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yml")), ids=lambda path: path.stem)
def test_every_platform_has_a_checklist_of_all_its_steps(path: Path) -> None:
    shipped = profile(path.stem)
    verbs = shipped["platform_verbs"]["full_stop"]
    lines = hand_stop.checklist(verbs, shipped["platform_storage"])
    assert [line for line in lines if line[0].isdigit()] == lines[: len(verbs)]
    assert all(verb["verb"] in line for verb, line in zip(verbs, lines, strict=False))


# --- what is seen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pinned", "shown", "direct", "seen", "asked"),
    [
        ([OURS], [[OURS]], True, ANSWERS, 1),
        ([OURS], [[], [OURS]], True, ANSWERS, 2),
        ([OURS], [[], []], True, SILENT, 2),
        # The port was given to another machine.
        ([OURS], [[THEIRS], [THEIRS]], True, SILENT, 2),
        ([], [[OURS]], True, UNSEEN, 0),
        ([OURS], [[]], False, UNSEEN, 0),
    ],
)
def test_a_machine_is_known_by_its_host_key(
    pinned: list[HostKey], shown: list[list[HostKey]], direct: bool, seen: str, asked: int
) -> None:
    looks: list[int] = []

    def scan() -> list[HostKey]:
        looks.append(1)
        return shown[len(looks) - 1]

    assert hand_stop.look(pinned, scan, 2, 0.0, direct) == seen
    assert len(looks) == asked


def test_a_box_that_was_told_to_stop_is_watched_until_it_answers_no_more() -> None:
    answers = [ANSWERS, ANSWERS, SILENT, ANSWERS]
    assert hand_stop.watch(lambda: answers.pop(0), 600.0, -1.0) == SILENT
    assert answers == [ANSWERS]


def test_a_box_that_goes_on_answering_is_watched_to_the_deadline() -> None:
    assert hand_stop.watch(lambda: ANSWERS, 0.0, 0.0) == ANSWERS


# --- what is believed -----------------------------------------------------------------------------------------------


def test_nothing_is_done_before_somebody_says_so(store: StateStore) -> None:
    assert hand_stop.settle(store, BOX, RELEASED, False, SILENT, False, "")["done"] is False
    assert verbs_of(store) == []


def test_a_release_is_not_believed_while_the_machine_shows_its_key(store: StateStore) -> None:
    with pytest.raises(TenantFailure, match="still shows its own host key") as refused:
        hand_stop.settle(store, BOX, RELEASED, True, ANSWERS, False, "")
    assert refused.value.exit_code == 21
    assert "destroyed_at" not in (store.read_box("vision", "bert-cn", 1) or {})


def test_a_release_that_nothing_speaks_against_is_recorded_once(store: StateStore) -> None:
    assert hand_stop.settle(store, BOX, RELEASED, True, SILENT, True, "")["changed"] is True
    assert verbs_of(store) == [], "check mode records nothing"
    found = hand_stop.settle(store, BOX, RELEASED, True, SILENT, False, "")
    assert (found["changed"], found["done"]) == (True, True)
    assert (store.read_box("vision", "bert-cn", 1) or {})["destroyed_at"]
    assert hand_stop.settle(store, BOX, RELEASED, True, SILENT, False, "")["changed"] is False
    assert verbs_of(store) == ["destroy"]


def test_a_box_that_was_told_to_stop_itself_counts_by_its_silence_only(store: StateStore) -> None:
    """Nobody gave a word for it: behind a jump host it may have stopped or not."""
    unseen = hand_stop.settle(store, BOX, STOPPED, False, UNSEEN, False, "it is behind a jump host")
    assert (unseen["done"], unseen["how"]) == (False, "nobody can see whether it does (it is behind a jump host)")
    assert hand_stop.settle(store, BOX, STOPPED, False, ANSWERS, False, "")["done"] is False
    assert verbs_of(store) == []
    assert hand_stop.settle(store, BOX, STOPPED, False, SILENT, False, "")["done"] is True
    assert verbs_of(store) == ["stop"]


def test_another_port_after_a_start_is_the_same_machine(store: StateStore) -> None:
    hand_stop.settle(store, BOX, STOPPED, True, SILENT, False, "")
    moved = BoxIdentity(BOX.project, BOX.box, 1, "ssh:10.0.0.1:4711")
    assert hand_stop.note_start(store, moved, False) is True


def test_behind_a_jump_host_there_is_a_word_only_and_the_record_says_so(store: StateStore) -> None:
    found = hand_stop.settle(store, BOX, RELEASED, True, UNSEEN, False, "it is behind a jump host")
    assert found["how"] == "a person's word (it is behind a jump host)"
    assert (store.read_box("vision", "bert-cn", 1) or {})["stopped_how"] == found["how"]


def test_a_stop_counts_from_when_it_was_seen_and_a_start_takes_it_back(store: StateStore) -> None:
    waits = hand_stop.settle(store, BOX, STOPPED, True, ANSWERS, False, "")
    assert (waits["changed"], waits["done"]) == (False, False)
    hand_stop.settle(store, BOX, STOPPED, True, SILENT, False, "")
    assert (store.read_box("vision", "bert-cn", 1) or {})["parked_at"]
    assert hand_stop.settle(store, BOX, STOPPED, True, SILENT, False, "")["changed"] is False
    assert hand_stop.note_start(store, BOX, True) is True
    assert (store.read_box("vision", "bert-cn", 1) or {})["parked_at"]
    assert hand_stop.note_start(store, BOX, False) is True
    record = store.read_box("vision", "bert-cn", 1) or {}
    assert record["parked_at"] is None
    assert record["started_at"]
    assert hand_stop.note_start(store, BOX, False) is False
    assert verbs_of(store) == ["stop", "start"]

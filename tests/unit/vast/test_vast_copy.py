# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies that the provider makes: what is sent, what its words mean, and how a copy that will not end is ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import resting_copy
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import MARKET_INTERVALS
from ansible_collections.tenant.gpu.plugins.module_utils.vast.copy import Wish, carry_out
from ansible_collections.tenant.gpu.plugins.module_utils.vast.waiters import copy_word
from wire_market import WireMarket

COPY = r"/api/v0/commands/copy_direct/$"
RCLONE = r"/api/v0/commands/rclone/$"
STOPPED = {"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}
FINISHED = "Remote Copy Operation Finished: C.1:/a/ -> C.2:/b, 3 files, 42 bytes"
Told = list[tuple[float, str]]


class World:
    """Two boxes, one of them stopped, and a provider that copies by a script of messages."""

    def __init__(self, folder: Path) -> None:
        self.market = WireMarket()
        self.source = self.market.add("gt1/p/a/g2/0123456789abcdef", status_msg="", **STOPPED)
        self.dest = self.market.add("gt1/p/b/g1/0123456789abcdef")
        self.store = StateStore(str(folder))
        self.tell_to_stop(2, self.source)
        self.told: Told = []
        self.tellers = [self.source, self.dest]
        self.asked_at = 0.0
        self.cancelled: list[str] = []
        self.answers: list[tuple[int, Any]] = []
        self._serve = self.market._serve
        self.market._serve = self._served  # type: ignore[method-assign]  # the script stands before the market

    def _served(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        now = self.market.clock.now
        if path == "/api/v0/users/cloud_integrations/":
            rows = [{"id": 1001, "name": "backups", "cloud_type": "s3"}, {"id": 1002, "name": "x", "cloud_type": "hf"}]
            return 200, rows
        if path.startswith("/api/v0/commands/"):
            if method == "DELETE":
                self.cancelled.append(path)
                return 200, {"success": True}
            self.asked_at = now
            return self.answers.pop(0) if self.answers else (200, {"success": True, "msg": "initiated"})
        for after_s, message in self.told if self.asked_at else []:
            if now >= self.asked_at + after_s:
                for row in self.tellers:
                    row["status_msg"] = message
        return self._serve(method, path, query, body)

    def tell_to_stop(self, generation: int, row: dict[str, Any], at: str | None = "2026-11-21T03:00:00Z") -> None:
        self.store.update_box("p", "a", generation, provider_id=str(row["id"]), parked_at=at)

    def copy(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"source": "a", "source_path": "/a/", "dest": "b", "dest_path": "/b", "at_rest": True}
        account = Account(self.market.client(), self.store)
        return carry_out(account, Wish(project="p", **{**options, **changes}), check_mode)

    def refused(self, **changes: Any) -> TenantFailure:
        with pytest.raises(TenantFailure) as caught:
            self.copy(**changes)
        return caught.value

    @property
    def identity(self) -> BoxIdentity:
        return BoxIdentity("p", "a", 2, str(self.source["id"]))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_copy_is_asked_for_as_the_official_client_does(world: World) -> None:
    world.told = [(30, "Remote Copy Operation: C.1:/a/ -> C.2:/b 40%"), (60, FINISHED)]
    result = world.copy()
    assert world.market.sent("PUT", COPY) == [
        {
            "client_id": "me",
            "src_id": f"C.{world.source['id']}",
            "dst_id": f"C.{world.dest['id']}",
            "src_path": "/a/",
            "dst_path": "/b",
        }
    ]
    assert (result["outcome"], result["changed"], result["said"]) == ("finished", True, FINISHED)
    assert result["source"]["state"] == "stopped"


@pytest.mark.parametrize("teller", ["source", "dest"])
def test_whichever_instance_tells_is_heard(world: World, teller: str) -> None:
    world.tellers = [getattr(world, teller)]
    world.told = [(30, FINISHED)]
    assert world.copy()["outcome"] == "finished"


@pytest.mark.parametrize(
    ("told", "claims", "open_question"),
    [
        ([(30, FINISHED)], (True, 3, 42), "no checksum"),
        ([(30, "Copy done")], (True, None, None), "no checksum"),
        (
            [(30, "Copying 10 files"), (60, "success, running x/ssh")],
            (False, None, None),
            "never said that it finished",
        ),
    ],
)
def test_law_1_the_providers_word_verifies_nothing(
    world: World, told: Told, claims: tuple[bool, int | None, int | None], open_question: str
) -> None:
    world.told = told
    result = world.copy()
    assert result["verified"] is False
    assert (result["provider_said_finished"], result["claimed_files"], result["claimed_bytes"]) == claims
    assert open_question in result["unproven"]


@pytest.mark.parametrize(
    ("ends", "way"),
    [
        ({}, "harvest_via: b"),
        ({"at_rest": False}, "tenant.gpu.manifest with path and globs on a, and again on b"),
        ({"dest": None, "connection": "backups", "at_rest": False}, "manifest that was taken on a"),
        ({"source": None, "connection": "backups", "at_rest": False}, "tenant.gpu.manifest on b"),
    ],
)
def test_what_would_prove_a_copy_is_said_of_each_kind(world: World, ends: dict[str, Any], way: str) -> None:
    planned = world.copy(check_mode=True, **ends)
    world.told = [(30, FINISHED)]
    copied = world.copy(**ends)
    assert way in copied["prove_with"]
    assert way in planned["prove_with"]
    assert (planned["verified"], planned["unproven"]) == (False, "nothing was copied in check mode")


def test_the_end_that_was_copied_to_is_looked_at_again(world: World) -> None:
    world.told = [(30, FINISHED)]
    on_end(world, lambda: world.dest.update(STOPPED))
    assert world.copy()["dest"]["state"] == "stopped"


def test_nothing_sent_is_no_change(world: World) -> None:
    world.told = [(30, "Remote Copy Operation Finished: C.1:/a/ -> C.2:/b, 0 files, 0 bytes")]
    assert world.copy()["changed"] is False


def test_a_provider_that_does_not_count_is_believed_to_have_copied(world: World) -> None:
    world.told = [(30, "Copy done")]
    assert world.copy()["changed"] is True


def test_check_mode_sends_nothing_and_says_what_would_be(world: World) -> None:
    result = world.copy(check_mode=True)
    assert (result["changed"], result["outcome"]) == (True, "planned")
    assert str(world.source["id"]) in result["diff"]["after"]
    assert world.market.sent("PUT", COPY) == []
    assert not Path(resting_copy.record_path(world.store, world.identity)).exists()


def test_success_false_in_a_200_is_a_failure(world: World) -> None:
    world.answers = [(200, {"success": False, "error": "invalid_args", "msg": "no disk"})]
    failure = world.refused()
    assert failure.kind == "provider"
    assert "no disk" in failure.what


def test_a_busy_market_is_asked_again_after_its_interval(world: World) -> None:
    world.answers = [(429, b"API requests too frequent: endpoint threshold=3.5")]
    world.told = [(30, FINISHED)]
    world.copy()
    assert len(world.market.sent("PUT", COPY)) == 2
    assert MARKET_INTERVALS["copy"] == 3.5


def test_a_failed_copy_speaks_in_the_providers_words(world: World) -> None:
    world.told = [(30, "Remote Copy Operation C.1:/a/ -> C.2:/b failed: rsync: No space left on device (28)")]
    failure = world.refused()
    assert "No space left" in failure.what
    assert "untouched" in failure.safe


@pytest.mark.parametrize(
    ("told", "options", "word"),
    [
        ([(30, "Remote Copy Operation: 12%")], {"stall_s": 300}, "has not changed"),
        ([], {}, "never spoke of it"),
        ([(n * 60.0, f"Copying {n}%") for n in range(90)], {"wait_s": 900}, "not ended after 900 s"),
    ],
)
def test_a_stuck_copy_is_named_and_cancelled(world: World, told: Told, options: dict[str, Any], word: str) -> None:
    world.told = told
    failure = world.refused(**options)
    assert "stuck" in failure.what
    assert word in failure.what
    assert world.cancelled == ["/api/v0/commands/copy_direct/"]


def test_the_old_end_of_an_earlier_copy_does_not_end_a_new_one_at_once(world: World) -> None:
    for row in (world.source, world.dest):
        row["status_msg"] = "Copy finished"
    before = world.market.clock.now
    assert world.copy()["outcome"] == "unchanged"
    assert world.market.clock.now - before >= 120, "the status is told late"


def test_an_old_failure_that_never_changes_is_this_ones_too(world: World) -> None:
    world.dest["status_msg"] = "rsync error: broken (code 12)"
    assert "code 12" in world.refused().what


def test_a_provider_that_stops_speaking_of_the_copy_ended_it(world: World) -> None:
    world.told = [(30, "Copying 10%"), (60, "success, running x/ssh")]
    result = world.copy()
    assert (result["outcome"], result["changed"]) == ("unsaid", True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", ""),
        ("success, running pytorch/ssh", ""),
        ("Error: OCI runtime create failed", ""),
        ("Cloud Copy Operation Finished", "finished"),
        ("Remote Copy Operation: C.1:/done/failed/ -> C.2:/finished/ 4%", "under_way"),
        ("rsync error: some files could not be transferred (code 23)", "failed"),
        ("copying... permission denied", "failed"),
        ("Copy cancelled", "failed"),
        ("Syncing 1,234,567 45% 12.3MB/s", "under_way"),
    ],
)
def test_what_a_message_says(text: str, word: str) -> None:
    assert copy_word(text) == word


def test_law_5_a_box_that_is_not_at_rest_is_not_taken_for_whole(world: World) -> None:
    world.source.update(intended_status="running", min_bid=9.0)
    assert "not at rest before" in world.refused().what
    assert world.market.sent("PUT", COPY) == []
    assert world.copy(at_rest=False, wait_s=1, check_mode=True)["changed"]


def test_law_5_an_outbid_box_is_at_rest_only_once_it_was_told_to_stop(world: World) -> None:
    world.source["min_bid"] = 9.0
    world.tell_to_stop(2, world.source, at=None)
    world.told = [(30, FINISHED)]
    assert "was not told to stop" in world.refused().what
    assert world.copy(check_mode=True)["source"]["state"] == "outbid"
    world.tell_to_stop(2, world.source)
    assert world.copy()["outcome"] == "finished"


def test_a_box_that_revived_while_it_was_copied_leaves_no_record(world: World) -> None:
    def revive() -> None:
        running = {"actual_status": "running", "intended_status": "running", "cur_state": "running"}
        world.source.update(running, next_state="running")

    world.told = [(30, FINISHED)]
    on_end(world, revive)
    assert "not at rest while" in world.refused().what
    assert not Path(resting_copy.record_path(world.store, world.identity)).exists()


def on_end(world: World, act: Callable[[], None]) -> None:
    """Do ``act`` when the copy's end is told."""
    served = world.market._serve

    def then(*request: Any) -> tuple[int, Any]:
        answer = served(*request)
        if world.asked_at and world.market.clock.now >= world.asked_at + 30:
            act()
        return answer

    world.market._serve = then  # type: ignore[method-assign]  # the script stands before the market


def test_a_box_that_vanishes_meanwhile_is_said(world: World) -> None:
    world.told = [(10, "Copying 1%")]
    on_end(world, lambda: world.market.instances.pop(world.dest["id"], None) and None)
    assert "is gone" in world.refused().what


def test_the_copy_of_a_box_at_rest_is_recorded(world: World) -> None:
    world.told = [(30, FINISHED)]
    result = world.copy(source_path="/workspace/gpu-tenant/", dest_path="/workspace/h/a.g2/")
    record = resting_copy.read_record(world.store, world.identity, "/workspace/h/a.g2")
    assert (record["asked_at"], record["dest"]) == (result["asked_at"], "b")
    assert record["asked_at"] <= record["copied_at"]
    for identity, root in (
        (world.identity, "/workspace/h/other"),
        (BoxIdentity("p", "a", 1, world.identity.provider_id), "/workspace/h/a.g2"),
        (BoxIdentity("p", "a", 2, "1"), "/workspace/h/a.g2"),
    ):
        with pytest.raises(TenantFailure):
            resting_copy.read_record(world.store, identity, root)


def test_the_journal_has_intent_and_end(world: World) -> None:
    world.told = [(30, FINISHED)]
    world.copy()
    lines = [json.loads(line) for line in Path(world.store.journal_path).read_text().splitlines()]
    kinds = [(line["kind"], line["verb"], line["provider_id"]) for line in lines if line["verb"] == "copy"]
    assert kinds == [("intent", "copy", str(world.source["id"])), ("effect", "copy", str(world.source["id"]))]


def test_a_superseded_instance_can_be_named(world: World) -> None:
    old = world.market.add("gt1/p/a/g1/0123456789abcdef", **STOPPED)
    world.tell_to_stop(1, old)
    world.told = [(30, FINISHED)]
    world.copy(source_provider_id=str(old["id"]))
    assert world.market.sent("PUT", COPY)[0]["src_id"] == f"C.{old['id']}"
    assert "no instance of it with the id 77" in world.refused(source_provider_id="77").what


@pytest.mark.parametrize(("source", "dest"), [("a", None), (None, "b")])
def test_a_cloud_connection_stands_for_a_box(world: World, source: str | None, dest: str | None) -> None:
    world.told = [(30, "Cloud Copy Operation Finished")]
    result = world.copy(source=source, dest=dest, connection="backups", at_rest=False)
    (body,) = world.market.sent("POST", RCLONE)
    assert body["selected"] == "1001"
    assert body["transfer"] == ("Instance To Cloud" if source else "Cloud To Instance")
    assert body["instance_id"] == str((world.source if source else world.dest)["id"])
    assert (body["src"], body["dst"]) == ("/a/", "/b")
    assert result["outcome"] == "finished"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dest_path": "/root/"}, "ssh folder"),
        ({"dest_path": "/"}, "ssh folder"),
        ({"dest_path": "relative"}, "absolute"),
        ({"source_path": "/a/../etc"}, "absolute"),
        ({"dest": "a"}, "one instance"),
        ({"dest": None}, "needs a source and a dest"),
        ({"connection": "backups"}, "not beside both"),
        ({"source": "nobody"}, "lists no instance"),
        ({"dest": None, "connection": "nowhere"}, "1001 (backups)"),
    ],
)
def test_copies_that_cannot_be_are_refused_before_anything_is_sent(
    world: World, changes: dict[str, Any], word: str
) -> None:
    assert word in str(world.refused(**changes))
    assert world.market.sent("PUT", COPY) == []


def test_a_box_without_our_stamp_is_never_copied(world: World) -> None:
    world.source["label"] = "somebody else's"
    assert "lists no instance" in world.refused().what

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Routes through a repository of the Hugging Face Hub, against a Hub on loopback and through a real sshd."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    copies,
    hub_client,
    object_fetch,
    object_requests,
    roster,
    stores,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import object_transfer
from hub_server import READ_TOKEN, REPOSITORY, WRITE_TOKEN, Call, Cut, HubServer, Refusal, hub_server
from loopback_sshd import REPOSITORY as CHECKOUT
from loopback_sshd import LoopbackBox, loopback_box
from run_folder import BIG, BIG_BYTES, MIB, PART, SMALL, RunFolder, same_tree

pytestmark = pytest.mark.integration
SYNC = "tenant.gpu.checked_sync"
PREFIX = "demo/r1/box1/g1"
URI = f"hf://datasets/{REPOSITORY}/{PREFIX}"


@pytest.fixture(scope="module")
def running_server() -> Iterator[HubServer]:
    with hub_server() as running:
        yield running


@pytest.fixture
def server(running_server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    running_server.reset()
    monkeypatch.setattr(object_requests, "_FIRST_WAIT_S", 0.01)
    for name, value in login(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return running_server


def login(folder: Path) -> dict[str, str]:
    """An environment with the test's token and nobody's login."""
    return {"HF_TOKEN": WRITE_TOKEN, "HF_HOME": str(folder / "no-login")}


class Run(RunFolder):
    def __init__(self, server: HubServer, folder: Path, big: bool = False) -> None:
        super().__init__(folder, big)
        self.server = server

    def order(self, **changes: Any) -> object_transfer.Order:
        location = stores.locate(changes.pop("uri", URI), {"endpoint_url": self.server.url})
        order = object_transfer.Order(location, str(self.folder), roster.parse_manifest(self.record()), box="box1")
        return dataclasses.replace(order, **{"first_wait_s": 0.01, "retries": 2, **changes})


@pytest.fixture
def run(server: HubServer, tmp_path: Path) -> Run:
    return Run(server, tmp_path / "box")


@pytest.fixture
def big_run(server: HubServer, tmp_path: Path) -> Run:
    """One file goes in two parts."""
    return Run(server, tmp_path / "box", big=True)


def to_storage(call: Call) -> bool:
    return call.site == "storage" and call.method == "PUT"


def failing(which: Callable[[Call], bool], how: Exception, times: int) -> Callable[[Call], bytes]:
    left = [times]

    def fault(call: Call) -> bytes:
        if which(call) and left[0]:
            left[0] -= 1
            raise how
        return call.body

    return fault


# --- there and back -----------------------------------------------------------------------------------------------


def test_a_run_is_stored_in_one_commit_proven_and_fetched(big_run: Run, tmp_path: Path) -> None:
    server = big_run.server
    stored = big_run.store()
    assert stored["verified"], stored
    assert stored["transferred_files"] == 3
    assert server.commits_made() == 1
    tree = server.tree()
    assert {path for path in tree if path.startswith(PREFIX)} == {
        f"{PREFIX}/{path}" for path in (BIG, SMALL, "c0/a1/empty.log", "manifest.json")
    }
    assert all(entry.oid for path, entry in tree.items() if path.startswith(PREFIX) and entry.size)
    copy = stored["copies"][0]
    assert copy["version_id"] == server.repository.branches["main"]
    assert stores.reread(copy) == (stored["manifest_digest"], ())
    fetched = big_run.fetch(tmp_path / "home")
    assert fetched["verified"], fetched
    assert same_tree(big_run.folder, tmp_path / "home")
    assert roster.read_manifest(str(tmp_path / "home")).digest == stored["manifest_digest"]


def test_every_file_is_kept_by_its_hash_and_gitattributes_grows_by_one_line(run: Run) -> None:
    for number in range(30):
        run.write(f"c0/text/{number:02}.log", f"step {number}\n".encode())
    before = run.server.tree()[".gitattributes"].data
    assert run.store()["verified"]
    after = run.server.tree()[".gitattributes"].data
    assert after == before + f"{PREFIX}/** filter=lfs diff=lfs merge=lfs -text\n".encode()


def test_a_second_run_sends_and_commits_nothing(run: Run, tmp_path: Path) -> None:
    first = run.store()
    run.fetch(tmp_path / "home")
    run.server.calls.clear()
    again, fetched = run.store(), run.fetch(tmp_path / "home")
    assert (again["changed"], again["verified"], again["transport"]) == (False, True, "none")
    assert (fetched["changed"], fetched["verified"]) == (False, True)
    assert again["copies"][0]["version_id"] == first["copies"][0]["version_id"]
    assert (run.server.puts(), run.server.commits_made()) == ([], 0)


def test_a_second_run_names_its_own_commit_whatever_others_committed(run: Run) -> None:
    first = run.store()["copies"][0]["version_id"]
    run.server.commit_of_another()
    again = run.store()
    assert (again["changed"], again["copies"][0]["version_id"]) == (False, first)
    # What somebody broke is brought back, and the commit that it came with still says the same.
    path = f"{PREFIX}/{SMALL}"
    entry = run.server.tree()[path]
    run.server.commit_of_another(path)
    restored = run.store()
    assert (restored["changed"], restored["copies"][0]["version_id"]) == (True, first)
    assert run.server.tree()[path] == entry
    assert run.store()["copies"][0]["version_id"] == first


def test_check_mode_lists_and_touches_nothing(run: Run, tmp_path: Path) -> None:
    planned = run.store(check_mode=True)
    assert (planned["changed"], planned["transferred_files"], planned["verified"]) == (True, 3, False)
    assert BIG in planned["diff"]["after"]
    assert (run.orders, run.server.puts(), run.server.commits_made()) == ([], [], 0)
    run.store()
    planned = run.fetch(tmp_path / "home", check_mode=True)
    assert (planned["changed"], planned["transferred_files"]) == (True, 3)
    assert not (tmp_path / "home").exists()


def test_many_small_files_cost_few_calls(run: Run) -> None:
    for number in range(300):
        run.write(f"c0/small/{number:03}.bin", os.urandom(100))
    run.server.page_files = 100
    assert run.store()["transferred_files"] == 303
    assert [len(order["sends"]) for order in run.orders] == [256, 46]
    assert run.server.commits_made() == 1


def test_files_with_the_same_bytes_are_sent_once(run: Run) -> None:
    run.write("c0/copy.pt", (run.folder / BIG).read_bytes())
    assert run.store()["verified"]
    assert run.server.puts().count(2000) == 1


def test_a_commit_that_would_be_too_large_becomes_several_and_the_last_has_the_manifest(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub_client, "COMMIT_FILES", 2)
    stored = run.store()
    assert stored["verified"]
    assert run.server.commits_made() == 3
    last = [call for call in run.server.calls if "/commit/" in call.path][-1]
    assert b"manifest.json" in last.body
    assert run.fetch(tmp_path / "home")["verified"]


def test_another_branch_and_a_model_repository(run: Run, tmp_path: Path) -> None:
    model = run.server.make("models", "ada/bert", private=True)
    model.branches["exp/1"] = model.branches["main"]
    uri = f"hf://ada/bert@exp%2F1/{PREFIX}"
    stored = run.store(uri=uri)
    assert stored["verified"]
    assert stored["copies"][0]["uri"] == uri
    assert list(model.commits[model.branches["main"]]) == [".gitattributes"]
    order = run.order(uri=uri, folder=str(tmp_path / "home"), manifest=None, extra="quarantine")
    assert object_transfer.fetch(order)["verified"]
    with pytest.raises(TenantFailure, match="names a commit"):
        run.store(uri=f"hf://ada/bert@{stored['copies'][0]['version_id']}/{PREFIX}")


def test_a_public_repository_is_warned_of_before_and_after(run: Run) -> None:
    run.server.make("models", "ada/open")
    uri = f"hf://ada/open/{PREFIX}"
    assert "everybody can read" in run.store(uri=uri, check_mode=True)["warnings"][0]
    assert run.store(uri=uri)["warnings"]
    assert "warnings" not in run.store()


def test_files_that_nobody_promised_are_reported_or_refused(run: Run) -> None:
    run.server.commit_of_another(f"{PREFIX}/stranger")
    with pytest.raises(TenantFailure, match="stranger"):
        run.store(extra="refuse")
    assert run.store()["extra"] == ["stranger"]


def test_another_runs_prefix_is_refused(run: Run) -> None:
    run.store()
    other = roster.parse_manifest(run.record(generation=2))
    with pytest.raises(TenantFailure, match="g1"):
        run.store(manifest=other)


def test_a_passage_brings_home_what_no_narrow_way_can(big_run: Run, tmp_path: Path) -> None:
    order = big_run.order(folder=str(tmp_path / "home"), extra="quarantine")
    planned = object_transfer.through_store(
        dataclasses.replace(order, check_mode=True), str(big_run.folder), big_run.ask
    )
    assert (planned["changed"], planned["via"]) == (True, URI)
    through = object_transfer.through_store(order, str(big_run.folder), big_run.ask)
    assert through["verified"], through
    assert same_tree(big_run.folder, tmp_path / "home")


# --- damage and cuts ----------------------------------------------------------------------------------------------


def test_wrong_bytes_are_refused_by_the_hub_and_sent_again(run: Run) -> None:
    left = [1]

    def corrupt(call: Call) -> bytes:
        if to_storage(call) and left[0]:
            left[0] -= 1
            return b"\0" + call.body[1:]
        return call.body

    run.server.fault = corrupt
    stored = run.store()
    assert stored["verified"]
    assert stored["attempts"] == 2


def test_wrong_bytes_that_last_are_named_and_never_committed(big_run: Run) -> None:
    def corrupt(call: Call) -> bytes:
        return b"\0" * len(call.body) if to_storage(call) and len(call.body) > MIB else call.body

    big_run.server.fault = corrupt
    failed = big_run.store()
    assert failed["failed"]
    assert failed["attempts"] == 3
    assert "does not match its oid" in failed["msg"]
    assert [entry["path"] for entry in failed["mismatches"]] == [BIG]
    assert big_run.server.commits_made() == 0


def test_a_hub_that_checks_nothing_is_caught_by_the_reread(run: Run) -> None:
    run.server.checks = False
    run.server.fault = lambda call: b"\0" * len(call.body) if to_storage(call) and len(call.body) == 2000 else call.body
    failed = run.store()
    assert failed["failed"]
    assert failed["failure"]["kind"] == "evidence_missing"
    assert [entry["path"] for entry in failed["mismatches"]] == [BIG]
    assert "other bytes" in failed["msg"]
    assert "copies" not in failed or not failed["copies"]


def test_a_cut_upload_sends_only_the_part_that_is_missing(big_run: Run) -> None:
    def cut(call: Call) -> bytes:
        if to_storage(call) and call.path.startswith("/part/") and call.path.endswith("/2") and not stored_parts:
            stored_parts.append(call.path)
            raise Refusal(503, "Slow down")
        if to_storage(call) and call.path.endswith("/2") and len(stored_parts) < 3:
            stored_parts.append(call.path)
            raise Refusal(503, "Slow down")
        return call.body

    stored_parts: list[str] = []
    big_run.server.fault = cut
    stored = big_run.store()
    assert stored["verified"], stored
    assert stored["attempts"] == 2
    assert big_run.server.puts().count(PART) == 1


def test_what_came_before_a_cut_is_not_sent_by_the_next_task(big_run: Run) -> None:
    big_run.write("c0/second.pt", os.urandom(MIB))
    big_run.server.fault = failing(lambda call: call.path.startswith("/part/"), Cut(), 10**6)
    failed = big_run.store(retries=1)
    assert failed["failed"]
    assert failed["failure"]["kind"] == "unreachable"
    assert [entry["path"] for entry in failed["mismatches"]] == [BIG]
    big_run.server.fault = None
    big_run.server.calls.clear()
    stored = big_run.store()
    assert stored["verified"]
    assert MIB not in big_run.server.puts()
    assert stored["wire_bytes"] == BIG_BYTES


def test_a_lost_connection_to_the_box_is_another_attempt(big_run: Run) -> None:
    lost = [1]

    def lose(order: dict[str, Any]) -> None:
        if lost[0]:
            lost[0] -= 1
            raise TenantFailure("unreachable", "the connection to the box was lost")

    big_run.tamper = lose
    stored = big_run.store()
    assert stored["verified"]
    assert stored["attempts"] == 2


def test_an_address_that_expired_is_asked_for_anew(big_run: Run) -> None:
    def too_late_once(_order: dict[str, Any]) -> None:
        big_run.server.late_s = 3600.0 if len(big_run.orders) == 1 else 0.0

    big_run.tamper = too_late_once
    stored = big_run.store()
    assert stored["verified"], stored
    assert stored["attempts"] == 2
    assert len([call for call in big_run.server.calls if call.path.endswith("objects/batch")]) >= 3


def test_a_file_that_is_not_what_the_manifest_says_is_named_and_not_taken(big_run: Run, tmp_path: Path) -> None:
    order = big_run.order()
    (tmp_path / "secret").write_bytes(b"x" * 13)
    (big_run.folder / SMALL).unlink()
    (big_run.folder / SMALL).symlink_to(tmp_path / "secret")
    data = bytearray((big_run.folder / BIG).read_bytes())
    data[PART + 5] ^= 1
    (big_run.folder / BIG).write_bytes(data)
    failed = object_transfer.store(order, big_run.ask)
    assert failed["failed"]
    assert sorted(entry["path"] for entry in failed["mismatches"]) == [SMALL, BIG]
    assert big_run.server.commits_made() == 0
    assert not big_run.server.sent, "the parts of a changed file are never put together"


def test_a_file_that_changes_while_it_is_sent_never_arrives(run: Run) -> None:
    order = run.order()

    def change(_order: dict[str, Any]) -> None:
        run.write(BIG, os.urandom(2000))

    run.tamper = change
    failed = object_transfer.store(order, run.ask)
    assert failed["failed"]
    assert "its SHA-256 differs" in failed["msg"]
    assert 2000 not in run.server.puts(), "the end of it was held back, so the storage took nothing"


def test_a_box_that_lies_about_what_it_sent_is_caught(run: Run) -> None:
    order = run.order()
    failed = object_transfer.store(
        order, lambda told: {"sent": [{"etag": "0" * 32, "version_id": ""}] * len(told["sends"]), "whole": []}
    )
    assert failed["failed"]
    assert "did not find what was sent" in failed["msg"]
    with pytest.raises(TenantFailure, match="makes no sense"):
        object_transfer.store(order, lambda told: {"sent": None})


def test_a_cut_fetch_continues_inside_the_file(big_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big_run.store()
    monkeypatch.setattr(object_fetch, "SEGMENT_BYTES", MIB)
    oid = big_run.server.tree()[f"{PREFIX}/{BIG}"].oid
    served = [0]

    def cut_after_four(call: Call) -> bytes:
        if call.site == "storage" and oid in call.path:
            served[0] += 1
            if served[0] > 4:
                raise Cut
        return call.body

    big_run.server.fault = cut_after_four
    failed = big_run.fetch(tmp_path / "home", retries=0, connections=1)
    assert failed["failed"]
    assert failed["failure"]["kind"] == "unreachable"
    big_run.server.fault = None
    fetched = big_run.fetch(tmp_path / "home")
    assert fetched["verified"]
    assert fetched["wire_bytes"] == BIG_BYTES - 4 * MIB
    assert same_tree(big_run.folder, tmp_path / "home")


def test_a_hub_that_asks_to_wait_is_waited_for(run: Run) -> None:
    busy = Refusal(429, "Too many requests", headers={"RateLimit": '"api";r=0;t=0', "Retry-After": "0"})
    run.server.fault = failing(lambda call: call.site == "hub", busy, 3)
    assert run.store()["verified"]


def test_a_hub_that_asks_to_wait_past_the_deadline_is_told(run: Run) -> None:
    busy = Refusal(429, "Too many requests", headers={"RateLimit": '"api";r=0;t=290'})
    run.server.fault = failing(lambda call: call.site == "hub", busy, 10**6)
    with pytest.raises(TenantFailure, match="429") as caught:
        run.store(deadline_s=60)
    assert caught.value.kind == "unreachable"


# --- commits ------------------------------------------------------------------------------------------------------


def test_a_commit_upon_a_branch_that_moved_is_made_anew(run: Run) -> None:
    moved: list[str] = []

    def somebody_is_quicker(call: Call) -> bytes:
        if "/commit/" in call.path and not moved:
            moved.append(run.server.commit_of_another())
        return call.body

    run.server.fault = somebody_is_quicker
    stored = run.store()
    assert stored["verified"]
    assert run.server.commits_made() == 2
    assert "notes.txt" in run.server.tree(), "the other's commit is kept"
    assert stored["attempts"] == 1


def test_a_branch_that_moves_all_the_time_stops_with_the_fix_named(run: Run) -> None:
    def somebody_is_always_quicker(call: Call) -> bytes:
        if "/commit/" in call.path:
            run.server.commit_of_another(f"notes-{len(run.server.calls)}.txt")
        return call.body

    run.server.fault = somebody_is_always_quicker
    with pytest.raises(TenantFailure, match="others commit") as caught:
        run.store()
    assert "branch of their own" in caught.value.fix
    assert run.server.commits_made() == 3, "as many as the task has patience for"


def test_a_commit_whose_answer_was_lost_is_not_made_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, lost = run.server._commit, [True]

    def commit_and_cut(*told: Any) -> Any:
        said = answer(*told)
        if lost.pop() if lost else False:
            raise Cut
        return said

    monkeypatch.setattr(run.server, "_commit", commit_and_cut)
    stored = run.store()
    assert stored["verified"]
    assert len(run.server.repository.commits) == 2, "the first one, and ours"
    assert stored["copies"][0]["version_id"] == run.server.repository.branches["main"]


# --- the copy as evidence -----------------------------------------------------------------------------------------


def test_later_commits_change_nothing_of_a_copy(run: Run) -> None:
    stored = run.store()
    run.server.commit_of_another(f"{PREFIX}/{BIG}", b"other bytes")
    assert stores.reread(stored["copies"][0]) == (stored["manifest_digest"], ())


def test_a_rewritten_history_is_a_problem_named(run: Run) -> None:
    copy = run.store()["copies"][0]
    run.server.squash()
    found = copies._reread_objects(copy["uri"], copy)
    assert found.digest == ""
    assert "no such branch or commit any more" in found.problems[0]
    assert "rewritten" in found.problems[0]


@pytest.mark.parametrize("how", ["reread", "provider_checksum"])
def test_bytes_that_the_hub_lost_are_named(run: Run, how: str) -> None:
    stored = run.store(verify=how)
    assert stored["verified"], stored
    copy = stored["copies"][0]
    assert copy["how"] == how
    assert stores.reread(copy) == (stored["manifest_digest"], ())
    del run.server.objects[run.server.tree()[f"{PREFIX}/{BIG}"].oid]
    problems = stores.reread(copy)[1]
    assert len(problems) == 1
    assert BIG in problems[0]


def test_the_hubs_word_costs_no_download(run: Run) -> None:
    stored = run.store(verify="provider_checksum")
    oid = run.server.tree()[f"{PREFIX}/{BIG}"].oid
    assert not [call for call in run.server.calls if call.method == "GET" and oid in call.path]
    assert "by the Hub's hashes" in stored["msg"]


def test_damaged_bytes_in_the_storage_are_found_by_the_reread(run: Run) -> None:
    copy = run.store()["copies"][0]
    run.server.objects[run.server.tree()[f"{PREFIX}/{BIG}"].oid] = os.urandom(2000)
    assert "other bytes" in stores.reread(copy)[1][0]


def test_a_copy_without_a_commit_is_no_evidence(run: Run) -> None:
    copy = run.store()["copies"][0]
    assert stores.reread({**copy, "version_id": "main"})[1] == (
        f"the copy {URI} names no commit, so nothing says what it held",
    )


def test_a_manifest_that_is_absurdly_large_is_not_read(run: Run) -> None:
    copy = run.store()["copies"][0]
    client = hub_client.HubClient(run.order().location)
    data, _commit = client.read("manifest.json", copy["version_id"])
    assert json.loads(data)["digest"] == copy["sha256"]
    with pytest.raises(TenantFailure, match="absurdly large"):
        client.read("manifest.json", copy["version_id"], most=len(data) - 1)


def test_a_file_that_a_branch_lost_is_named_by_fetch(run: Run, tmp_path: Path) -> None:
    run.store()
    tree = {path: entry for path, entry in run.server.tree().items() if not path.endswith(SMALL)}
    run.server.repository.add("main", tree, "deleted by hand")
    with pytest.raises(TenantFailure, match="is missing from") as caught:
        run.fetch(tmp_path / "home")
    assert caught.value.kind == "evidence_missing"
    assert not (tmp_path / "home").exists()


# --- who is told what ---------------------------------------------------------------------------------------------


def test_the_token_reaches_neither_the_box_nor_the_storage_nor_the_result(big_run: Run, tmp_path: Path) -> None:
    stored, fetched = big_run.store(), big_run.fetch(tmp_path / "home")
    told = json.dumps([big_run.orders, stored, fetched])
    assert WRITE_TOKEN not in told
    assert "X-Amz-Signature" not in json.dumps([stored, fetched])
    assert {call.authorization for call in big_run.server.calls if call.site == "storage"} == {""}
    assert all(
        sending["url"].startswith(big_run.server.storage_url) for order in big_run.orders for sending in order["sends"]
    )


@pytest.mark.parametrize(
    "url", ["http://192.0.2.7/x", "ftp://127.0.0.1/x", "http://127.0.0.1@192.0.2.7/x", "file:///x"]
)
@pytest.mark.parametrize("which", ["/object/", "/part/", "/api/complete", "/verify"])
def test_a_foreign_host_in_an_answer_is_told_nothing(big_run: Run, url: str, which: str) -> None:
    big_run.server.rename = lambda real: url if which in real else real
    with pytest.raises(TenantFailure, match="not to be trusted") as caught:
        big_run.store()
    assert caught.value.kind == "provider"
    assert big_run.orders == []
    assert "/x" not in str(caught.value), "only the host is named, for an address may be a secret"


def test_bytes_are_taken_from_no_host_that_cannot_be_trusted(run: Run, tmp_path: Path) -> None:
    copy = run.store()["copies"][0]
    run.server.rename = lambda _real: "http://192.0.2.7/x"
    with pytest.raises(TenantFailure, match="not to be trusted"):
        run.fetch(tmp_path / "home")
    assert "not to be trusted" in copies._reread_objects(copy["uri"], copy).problems[0]


@pytest.mark.parametrize("which", ["/api/complete", "/verify"])
def test_what_needs_the_token_is_asked_of_the_hub_alone_even_where_bytes_may_go(big_run: Run, which: str) -> None:
    server = big_run.server
    server.rename = lambda real: real.replace(server.url, server.storage_url) if which in real else real
    with pytest.raises(TenantFailure, match="sends the controller to"):
        big_run.store()
    assert big_run.orders == []


def test_the_token_follows_no_page_of_a_list_to_another_host(run: Run) -> None:
    run.store()
    run.server.page_files = 1
    run.server.rename = lambda url: url.replace(run.server.url, "https://elsewhere.example")
    with pytest.raises(TenantFailure, match="elsewhere"):
        run.store()


def test_a_redirect_is_followed_on_the_hub_and_the_token_goes_no_further(run: Run) -> None:
    def about_the_branch(call: Call) -> bool:
        return call.path.endswith("/revision/main")

    moved = {"Location": f"/api/datasets/{REPOSITORY}/revision/main?moved=1"}
    run.server.fault = failing(about_the_branch, Refusal(307, "moved", headers=moved), 1)
    assert run.store()["verified"]
    elsewhere = {"Location": "http://192.0.2.7/api"}
    run.server.fault = failing(about_the_branch, Refusal(307, "moved", headers=elsewhere), 1)
    with pytest.raises(TenantFailure, match=r"192\.0\.2\.7"):
        run.store()
    for_ever = {"Location": f"/api/datasets/{REPOSITORY}/revision/main"}
    run.server.fault = failing(about_the_branch, Refusal(307, "moved", headers=for_ever), 10**6)
    with pytest.raises(TenantFailure, match="one redirect after another"):
        run.store()


def test_a_hub_that_wants_xet_is_refused(run: Run) -> None:
    run.server.transfer = "xet"
    with pytest.raises(TenantFailure, match="'xet'"):
        run.store()
    assert run.orders == []


# --- refusals that speak ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "repository", "what", "fix"),
    [
        ("", REPOSITORY, "no token", "hf auth login"),
        ("hf_unknown", REPOSITORY, "does not accept the token", "HF_TOKEN"),
        (READ_TOKEN, REPOSITORY, "may not upload", "write access"),
        (WRITE_TOKEN, "ada/nothing", "there is no dataset repository ada/nothing", "hf repos create"),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_fix(
    run: Run, monkeypatch: pytest.MonkeyPatch, token: str, repository: str, what: str, fix: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(TenantFailure, match=what) as caught:
        run.store(uri=f"hf://datasets/{repository}/{PREFIX}")
    assert caught.value.kind == "config"
    assert fix in caught.value.fix
    assert not token or token not in str(caught.value)
    assert run.orders == []


def test_a_branch_that_is_not_there(run: Run) -> None:
    with pytest.raises(TenantFailure, match="no such branch"):
        run.store(uri=f"hf://datasets/{REPOSITORY}@nowhere/{PREFIX}")


def test_a_hub_that_the_controller_cannot_reach(run: Run) -> None:
    location = dataclasses.replace(run.order().location, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TenantFailure, match="did not get through") as caught:
        run.store(location=location)
    assert caught.value.kind == "unreachable"


def test_a_storage_that_the_box_cannot_reach(run: Run) -> None:
    def wrong_address(order: dict[str, Any]) -> None:
        for sending in order["sends"]:
            sending["url"] = sending["url"].replace(run.server.storage_url, "http://127.0.0.1:9")

    run.tamper = wrong_address
    failed = run.store(retries=1)
    assert failed["failure"]["kind"] == "unreachable"
    assert "the box cannot reach" in failed["msg"]
    assert "X-Amz" not in json.dumps(failed)


# --- through Ansible ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


def test_through_ansible_store_fetch_and_a_proxied_pull(box: LoopbackBox, server: HubServer, tmp_path: Path) -> None:
    run = Run(server, box.home / "runs" / "r1", big=True)
    settings = {"endpoint_url": server.url}
    order = {"direction": "store", "src": str(run.folder), "dest": URI, "manifest": run.record()}
    log = tmp_path / "ansible.log"
    done = subprocess.run(
        box.ad_hoc_command(SYNC, {**order, "object_store": settings}, "-vvvv"),
        cwd=CHECKOUT,
        env=dict(box.environment(), ANSIBLE_LOG_PATH=str(log)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    stored = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("=> ") + 3 :])[0]
    assert stored["verified"], stored
    assert stored["copies"][0]["uri"] == URI
    for secret in (WRITE_TOKEN, "X-Amz-Signature"):
        assert secret not in done.stdout + done.stderr + log.read_text()

    fetch = {"direction": "fetch", "src": URI, "dest": str(tmp_path / "home"), "object_store": settings}
    assert box.ad_hoc(SYNC, fetch)["verified"]
    assert same_tree(run.folder, tmp_path / "home")

    pull = {"direction": "pull", "src": str(run.folder), "dest": str(tmp_path / "pulled"), "manifest": run.record()}
    pull |= {"endpoint": "proxy", "proxy_limit_bytes": 1000, "object_store": settings}
    refused = box.ad_hoc(SYNC, pull)
    assert refused["failed"]
    assert "s3://" in refused["failure"]["fix"]
    assert "hf://" in refused["failure"]["fix"]
    through = box.ad_hoc(SYNC, {**pull, "via": f"hf://datasets/{REPOSITORY}/passage/r1"})
    assert through["verified"], through
    assert (through["transport"], through["via"]) == ("object_store", f"hf://datasets/{REPOSITORY}/passage/r1")
    assert same_tree(run.folder, tmp_path / "pulled")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Many small files by checked_sync: whole folders, runs of rsync side by side, one login for all of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, delivery, rsync_carrier, transfer
from ansible_collections.tenant.gpu.plugins.plugin_utils import peer_answers
from checked_run import BIG, Run
from loopback_sshd import LoopbackBox, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def run(box_with_rsync: LoopbackBox, tmp_path: Path) -> Run:
    return Run(box_with_rsync, tmp_path.name, tmp_path)


def test_law_1_one_file_that_is_gone_holds_up_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs of rsync the files are parted into."""
    monkeypatch.setattr(rsync_carrier, "_MOST_NAMES", 2)
    run.write("c0/a1/out/large.bin", os.urandom(BIG))
    for number in range(5):
        run.write(f"c0/a1/out/small-{number}", os.urandom(1000))
    manifest = run.manifest()
    (run.folder / "c0/a1/out/model.bin").unlink()
    run.lies = True
    result = run.pull(manifest=manifest, transport="rsync", retries=1)
    assert result["failed"]
    assert [entry["path"] for entry in result["mismatches"]] == ["c0/a1/out/model.bin"]
    home = {path for path in run.at_home() if not path.startswith(".tenant-")}
    assert home == {line["path"] for line in manifest["files"]} - {"c0/a1/out/model.bin"}


def logins(run: Run) -> int:
    return (run.box.folder / "sshd.log").read_text().count("Accepted publickey")


def many_small(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hundred files that five runs of rsync bring, as if they were a lot of bytes."""
    monkeypatch.setattr(rsync_carrier, "_MOST_NAMES", 20)
    monkeypatch.setattr(carrier, "BULK_BYTES", 1)
    for number in range(98):
        run.write(f"c{number % 9}/small-{number}", os.urandom(1000))
    return run.pull(transport="rsync", retries=0)


def two_folders(run: Run) -> dict[str, Any]:
    for number in range(80):
        run.write(f"c{number % 2}/many/small-{number}", os.urandom(1000))
    return run.manifest()


def counted_runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each run of rsync from now on asks for folders."""
    runs: list[bool] = []
    build = rsync_carrier.rsync_argv

    def noted(*arguments: Any) -> list[str]:
        runs.append(arguments[-1])
        return build(*arguments)

    monkeypatch.setattr(rsync_carrier, "rsync_argv", noted)
    return runs


@pytest.mark.parametrize("halves", [1, 2])
def test_folders_of_many_files_come_by_one_name_each(run: Run, monkeypatch: pytest.MonkeyPatch, halves: int) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80 if halves == 2 else 81)
    runs = counted_runs(monkeypatch)
    manifest = two_folders(run)
    pulled = run.pull(manifest=manifest, transport="rsync", retries=0)
    assert (pulled["verified"], pulled["transferred_files"], runs) == (True, 82, [True] * halves + [False])
    assert pulled["wire_bytes"] == pulled["transferred_bytes"], "what each of them carried is counted"
    (run.dest / "c0/many/small-0").unlink()
    again = run.pull(manifest=manifest, transport="rsync", retries=0)
    assert (again["transferred_files"], runs[halves + 1 :]) == (1, [False]), "only what is missing is asked for"


@pytest.mark.parametrize("place", ["c0/many/stranger", "c0/many/below/stranger"])
@pytest.mark.parametrize("worth_two", [80, 81])
def test_law_8_what_nobody_promised_stays_on_the_box(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: str, worth_two: int
) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", worth_two)
    runs = counted_runs(monkeypatch)
    manifest = two_folders(run)
    run.write(place, b"not in the manifest")
    pulled = run.pull(manifest=manifest, transport="rsync", retries=0)
    assert pulled["verified"]
    assert set(run.at_home()) == {line["path"] for line in manifest["files"]} | {"manifest.json"}
    assert runs[0] is True
    assert runs[-1] is False


@pytest.mark.parametrize("is_slow", [True, False])
def test_what_the_box_lacks_is_named_although_the_rest_comes_already(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    """While the rest still comes, or once it is known that this does not."""
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", 0.1 if is_slow else 600.0)
    runs = counted_runs(monkeypatch)
    manifest = two_folders(run)
    (run.folder / "c0/many/small-0").unlink()
    refused = run.pull(manifest=manifest, transport="rsync", limit_kib=1 if is_slow else 0)
    assert refused["failed"]
    assert "c0/many/small-0 is missing" in refused["msg"]
    assert refused["failure"]["safe"] == "Nothing was removed, and what arrived whole is kept"
    assert runs == [True, True]
    assert run.dest.exists() is not is_slow
    assert (run.dest / "c0/many/small-2").exists() is not is_slow
    assert not (run.dest / "c0/many/small-0").exists()
    run.write("c0/many/small-0", b"x" * 1000)
    assert run.pull(transport="rsync")["verified"]


def test_a_box_is_asked_before_a_large_file_moves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "LARGE", 1)
    runs = counted_runs(monkeypatch)
    manifest = run.manifest()
    (run.folder / "c0/a1/out/model.bin").unlink()
    refused = run.pull(manifest=manifest, transport="rsync")
    assert "c0/a1/out/model.bin is missing" in refused["msg"]
    assert runs == []
    assert not run.dest.exists()


def test_what_comes_sooner_than_an_answer_is_proven_without_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", 600.0)
    asked: list[str] = []
    answer = delivery.answer

    def noted(parameters: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        asked.append(parameters["op"])
        return answer(parameters, check_mode)

    monkeypatch.setattr(delivery, "answer", noted)
    shutil.rmtree(run.folder / "c0")
    two_folders(run)
    pulled = run.pull(transport="rsync")
    assert (pulled["verified"], pulled["attempts"], asked) == (True, 1, [])


def test_a_box_that_lost_its_rsync_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync_carrier, "_WORTH_TWO", 80)
    monkeypatch.setattr(rsync_carrier, "_WORTH_ASKING_S", 600.0)
    monkeypatch.setattr(rsync_carrier, "rsync_argv", lambda *_unused: ["sh", "-c", "exit 127"])
    monkeypatch.setattr(
        peer_answers,
        "offer",
        lambda *_unused: peer_answers.Offer((), "rsync is not installed (package rsync)", "/usr/bin/python3"),
    )
    refused = run.pull(manifest=two_folders(run), transport="rsync", retries=5)
    assert refused["failure"]["kind"] == "config"
    assert "on the box rsync is not installed" in refused["msg"]


def test_a_link_in_a_folder_of_many_files_is_left_there(run: Run) -> None:
    manifest = two_folders(run)
    (run.folder / "c0/many/latest").symlink_to("small-0")
    pulled = run.pull(manifest=manifest, transport="rsync", retries=0)
    assert pulled["verified"]
    assert not os.path.lexists(run.dest / "c0/many/latest")


def test_a_file_of_a_folder_that_changed_is_named(run: Run) -> None:
    manifest = two_folders(run)
    run.write("c0/many/small-0", b"x" * 1000)
    run.lies = True
    pulled = run.pull(manifest=manifest, transport="rsync", retries=0)
    assert [entry["path"] for entry in pulled["mismatches"]] == ["c0/many/small-0"]
    assert "SHA-256" in pulled["mismatches"][0]["what"]


def test_many_runs_of_rsync_log_in_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logins(run)
    pulled = many_small(run, monkeypatch)
    assert (pulled["verified"], pulled["attempts"], pulled["transferred_files"]) == (True, 1, 100)
    assert logins(run) == before + 1


def share_no_connection(run: Run, tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\ncase "$*" in *ControlMaster=yes*) exit 255;; esac\nexec ssh "$@"\n')
    ssh.chmod(0o755)
    run.link = replace(run.link, ssh=str(ssh))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_the_connection_for_many_small_files_opens_while_the_box_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport: str, shared: bool
) -> None:
    """Where it does not come about, one is opened for the files as for any others."""
    monkeypatch.setattr(carrier, "BULK_BYTES", 1)
    monkeypatch.setattr(transfer, "_MANY", 2)
    if not shared:
        share_no_connection(run, tmp_path)
    before = logins(run)
    answer = delivery.answer

    def answer_late(parameters: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        if shared and parameters["op"] == "offer":
            wait_for(lambda: logins(run) == before + 1, what="a login while the box is asked")
        return answer(parameters, check_mode)

    monkeypatch.setattr(delivery, "answer", answer_late)
    pulled = run.pull(transport=transport, retries=0)
    assert (pulled["verified"], pulled["transport"], logins(run)) == (True, transport, before + 1)


def test_where_a_connection_cannot_be_shared_each_run_logs_in(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    share_no_connection(run, tmp_path)
    before = logins(run)
    pulled = many_small(run, monkeypatch)
    assert (pulled["verified"], pulled["attempts"]) == (True, 1)
    assert logins(run) == before + 5


def test_many_small_files_come_by_stream_when_nobody_asks_for_rsync(run: Run) -> None:
    for number in range(1000):
        run.write(f"c0/a1/out/many/{number}", b"%d" % number)
    assert run.pull(check_mode=True)["transport"] == "stream"
    pulled = run.pull()
    assert (pulled["transport"], pulled["verified"]) == ("stream", True)
    again = run.pull(transport="rsync")
    assert (again["transport"], again["changed"], again["verified"]) == ("none", False, True)

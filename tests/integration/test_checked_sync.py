# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""checked_sync over a real sshd, with real rsync, and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import delivery, roster, settling
from checked_run import BIG, SYNC, Run
from loopback_sshd import (
    REPOSITORY,
    LoopbackBox,
    descendants_named,
    end_pids,
    kill_tree,
    loopback_box,
    parse_ad_hoc,
    wait_for,
)

pytestmark = pytest.mark.integration
EXPOSE = "expose TCP port 22 of the pod"


@pytest.fixture(scope="module")
def box_without_rsync() -> Iterator[LoopbackBox]:
    with loopback_box(hidden_programs=("rsync",)) as running:
        yield running


@pytest.fixture
def run(box_with_rsync: LoopbackBox, tmp_path: Path) -> Run:
    return Run(box_with_rsync, tmp_path.name, tmp_path)


@pytest.fixture
def bare_run(box_without_rsync: LoopbackBox, tmp_path: Path) -> Run:
    return Run(box_without_rsync, tmp_path.name, tmp_path)


def test_law_9_check_then_pull_then_nothing(run: Run) -> None:
    predicted = run.pull_by_ansible("--check", "--diff")
    assert (predicted["changed"], predicted["verified"]) == (True, False)
    assert predicted["transferred_files"] == 2
    assert "c0/a1/out/model.bin" in predicted["shown"]
    assert not run.dest.exists()

    pulled = run.pull_by_ansible("--diff")
    assert pulled["verified"] is True
    assert pulled["transport"] == "rsync"
    assert pulled["shown"] == predicted["shown"]
    assert pulled["wire_bytes"] == pulled["bytes"] == 70_002
    assert run.at_home() == ["c0/a1/done it's.json", "c0/a1/out/model.bin", "manifest.json"]
    assert roster.read_manifest(str(run.dest)).digest == run.manifest()["digest"]
    assert (run.dest / "c0/a1/out/model.bin").read_bytes() == (run.folder / "c0/a1/out/model.bin").read_bytes()

    again = run.pull_by_ansible("--diff")
    assert (again["changed"], again["verified"], again["transport"]) == (False, True, "none")
    assert "model.bin" not in again["shown"]


def test_law_1_a_file_damaged_at_home_is_found_and_fetched_again(run: Run) -> None:
    run.pull()
    model = run.dest / "c0/a1/out/model.bin"
    facts = model.stat()
    model.write_bytes(bytes(reversed(model.read_bytes())))
    os.utime(model, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    again = run.pull()
    assert (again["changed"], again["transferred"]) == (True, ["c0/a1/out/model.bin"])
    assert model.read_bytes() == (run.folder / "c0/a1/out/model.bin").read_bytes()


def test_a_box_without_rsync_is_served_by_a_stream(bare_run: Run) -> None:
    pulled = bare_run.pull_by_ansible()
    assert (pulled["verified"], pulled["transport"]) == (True, "stream")
    assert bare_run.pull()["changed"] is False


def test_a_box_whose_ssh_path_lacks_rsync_is_found_out_on_the_way(bare_run: Run) -> None:
    """Its Python sees an rsync that the shell of ssh does not."""
    pulled = bare_run.pull()
    assert (pulled["verified"], pulled["transport"], pulled["attempts"]) == (True, "stream", 1)


def test_asking_for_rsync_where_there_is_none_names_the_side_and_the_package(bare_run: Run) -> None:
    refused = bare_run.pull_by_ansible(transport="rsync")
    assert refused["failed"]
    assert "on the box" in refused["msg"]
    assert "package rsync" in refused["msg"]
    assert not bare_run.dest.exists()


def _start_slow_pull(run: Run, **changes: Any) -> subprocess.Popen[str]:
    arguments = run.pull_arguments(bandwidth_limit_kib=1024, **changes)
    return subprocess.Popen(
        run.box.ad_hoc_command(SYNC, arguments),
        cwd=REPOSITORY,
        env=run.box.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _arrived(run: Run) -> int:
    """Bytes in the staging folder, from which files go away while it is looked at."""
    total = 0
    for path in (run.dest / ".tenant-incoming").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=600)
    return parse_ad_hoc(stdout, stderr)


def test_law_3_rsync_killed_in_mid_file_is_continued_by_the_same_task(run: Run) -> None:
    run.write("c0/a1/out/big.bin", os.urandom(BIG))
    process = _start_slow_pull(run)
    wait_for(lambda: process.poll() is not None or _arrived(run) > 1024 * 1024, what="a megabyte")
    end_pids(descendants_named(process.pid, "rsync"), signal.SIGTERM)
    result = _finish(process)
    assert result["verified"] is True, result
    assert result["attempts"] == 2
    assert result["wire_bytes"] < BIG, "what had arrived was not sent again"
    assert settling.check_files(str(run.dest), roster.parse_manifest(run.manifest()).files) == []
    assert not (run.dest / ".tenant-incoming").exists()


def test_law_3_a_stream_cut_in_mid_file_is_continued_by_the_same_task(bare_run: Run) -> None:
    bare_run.write("c0/a1/out/big.bin", os.urandom(BIG))
    process = _start_slow_pull(bare_run, transport="stream")
    wait_for(lambda: process.poll() is not None or _arrived(bare_run) > 1024 * 1024, what="a megabyte")
    # The ssh that carries the stream, not the play's shared one, which is no descendant.
    end_pids(descendants_named(process.pid, "ssh"), signal.SIGKILL)
    result = _finish(process)
    assert result["verified"] is True, result
    assert result["attempts"] == 2
    assert result["wire_bytes"] < BIG


def test_law_3_a_whole_task_killed_in_mid_file_is_continued_by_the_next(run: Run) -> None:
    run.write("c0/a1/out/big.bin", os.urandom(BIG))
    process = _start_slow_pull(run, transport="stream")
    wait_for(lambda: process.poll() is not None or _arrived(run) > 1024 * 1024, what="a megabyte")
    kill_tree(process.pid, ("ansible", "ssh", "python3", "python"))
    process.communicate(timeout=600)
    assert not (run.dest / "c0/a1/out/big.bin").exists(), "nothing unproven stands outside the staging folder"
    assert not (run.dest / "manifest.json").exists()
    result = run.pull(transport="stream")
    assert result.get("verified") is True, result
    assert result["wire_bytes"] < BIG


def test_how_far_it_is_is_appended_for_whoever_watches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = run.box.folder / "progress.jsonl"
    watched.write_text("earlier\n")
    monkeypatch.setenv("TENANT_PROGRESS_FILE", str(watched))
    pulled = run.pull_by_ansible()
    assert pulled["verified"] is True
    reports = [json.loads(line) for line in watched.read_text().splitlines()[1:]]
    counts = {"box": "box1", "files_done": 2, "files": 2, "bytes_done": 70_002, "bytes": 70_002}
    assert counts.items() <= reports[-1].items()


@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_law_1_a_file_tampered_on_the_box_never_comes_home(run: Run, transport: str) -> None:
    manifest = run.manifest()
    model = run.folder / "c0/a1/out/model.bin"
    data = bytearray(model.read_bytes())
    data[1000] ^= 1
    model.write_bytes(data)
    result = run.pull(manifest=manifest, transport=transport)
    assert result["failed"]
    assert result["verified"] is False
    assert result["failure"]["kind"] == "evidence_missing"
    assert [entry["path"] for entry in result["mismatches"]] == ["c0/a1/out/model.bin"]
    assert result["attempts"] == 3, "asked for again, a bounded number of times"
    assert "verified by" not in result["msg"]
    assert not (run.dest / "c0/a1/out/model.bin").exists()
    assert not (run.dest / "manifest.json").exists()


def test_a_file_missing_on_the_box_is_named_before_anything_moves(run: Run) -> None:
    manifest = run.manifest()
    (run.folder / "c0/a1/out/model.bin").unlink()
    result = run.pull(manifest=manifest)
    assert result["failed"]
    assert "model.bin is missing" in result["msg"]
    assert not run.dest.exists()


def test_a_full_destination_is_refused_before_anything_moves(run: Run) -> None:
    for check_mode in (True, False):
        result = run.pull(check_mode, reserve_bytes=10**18)
        assert result["failed"]
        assert "are free" in result["msg"]
    assert not run.dest.exists()
    assert "are free" in run.push(reserve_bytes=10**18)["msg"]


def test_a_proxied_endpoint_carries_small_files_only(run: Run) -> None:
    for refused in (run.pull(proxy=EXPOSE, proxy_limit_bytes=1000), run.push(proxy=EXPOSE, proxy_limit_bytes=1000)):
        assert refused["failed"]
        assert refused["failure"]["kind"] == "config"
        assert "ssh proxy" in refused["msg"]
        assert EXPOSE in refused["failure"]["fix"]
    assert not run.dest.exists()
    small = run.pull(proxy=EXPOSE)
    assert (small["verified"], small["transport"]) == (True, "stream")


def test_extra_files_at_home_are_refused_reported_or_quarantined(run: Run) -> None:
    run.pull()
    (run.dest / "c0/old.pt").write_text("an old checkpoint")
    assert "old.pt" in run.pull(extra="refuse")["msg"]
    reported = run.pull(extra="report")
    assert (reported["changed"], reported["extra"]) == (False, ["c0/old.pt"])
    predicted = run.pull(check_mode=True)
    assert (predicted["changed"], predicted["extra"]) == (True, ["c0/old.pt"])
    moved = run.pull()
    assert (moved["changed"], moved["verified"]) == (True, True)
    assert (Path(moved["quarantine"]) / "c0/old.pt").read_text() == "an old checkpoint"
    assert run.pull()["changed"] is False


def test_law_2_a_snapshot_of_a_finished_run_is_pulled_beside_it(run: Run) -> None:
    run.pull_by_ansible()
    before = {path: (run.dest / path).read_bytes() for path in run.at_home()}
    beside = run.dest.parent / "beside-g1"
    same = run.pull_by_ansible(manifest=run.manifest(snapshot=True), beside=str(beside))
    assert (same["verified"], same["changed"], same["beside_because"]) == (True, False, "")
    (run.folder / "c0/a1/out/model.bin").unlink()
    run.write("c0/a1/metrics.jsonl", b"{}\n")
    for _time in range(2):
        pulled = run.pull_by_ansible(manifest=run.manifest(snapshot=True), beside=str(beside))
        assert (pulled["verified"], pulled["dest"]) == (True, str(beside)), pulled
        assert pulled["beside_because"] == "all of the finished run is home there"
    assert pulled["changed"] is False
    assert (beside / "c0/a1/metrics.jsonl").read_bytes() == b"{}\n"
    assert {path: (run.dest / path).read_bytes() for path in run.at_home()} == before
    assert run.pull_by_ansible(manifest=run.manifest(), beside=str(beside))["beside_because"] == ""


def test_law_9_a_tree_is_pushed_by_ansible_check_push_nothing(run: Run) -> None:
    dest = run.box.home / "code" / run.folder.name
    arguments = {"direction": "push", "src": str(run.folder), "dest": str(dest), "dest_root": str(run.box.home)}
    predicted = run.box.ad_hoc(SYNC, arguments, "--check", "--diff")
    assert (predicted["changed"], predicted["transferred_files"]) == (True, 2)
    assert not dest.exists()
    pushed = run.box.ad_hoc(SYNC, arguments, "--diff")
    assert pushed["verified"] is True, pushed
    assert pushed["shown"] == predicted["shown"]
    assert run.box.ad_hoc(SYNC, arguments)["changed"] is False


@pytest.mark.parametrize("kind", ["run", "bare_run"])
def test_law_9_a_tree_is_pushed_proven_and_pushed_no_more(kind: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(kind)
    run.write("train.sh", b"#!/bin/sh\n")
    (run.folder / "train.sh").chmod(0o755)
    run.write("__pycache__/x.pyc", b"x")
    dest = run.box.home / "code" / run.folder.name
    pushed = run.push()
    assert pushed["verified"] is True, pushed
    assert pushed["transport"] == ("rsync" if kind == "run" else "stream")
    assert os.access(dest / "train.sh", os.X_OK)
    assert sorted(path.name for path in dest.iterdir()) == ["c0", "train.sh"]
    assert run.push()["changed"] is False
    (dest / "train.sh").write_bytes(b"#!/bin/ba\n")
    repaired = run.push()
    assert (repaired["changed"], repaired["transferred"]) == (True, ["train.sh"])
    (dest / "stray").write_text("x")
    reported = run.push()
    assert (reported["changed"], reported["extra"]) == (False, ["stray"])
    moved = run.push(extra="quarantine")
    assert (moved["changed"], moved["verified"]) == (True, True)
    assert not (dest / "stray").exists()
    assert (Path(moved["quarantine"]) / "stray").read_text() == "x"


def test_law_1_a_file_that_changes_while_it_is_pushed_is_not_called_verified(run: Run) -> None:
    files = delivery.scan_tree(str(run.folder))
    run.write("c0/a1/out/model.bin", os.urandom(70_000))
    dest = run.box.home / "code" / run.folder.name
    arguments = {"src": str(run.folder), "dest": str(dest), "dest_root": ""}
    result = run.carry(False, arguments, files, check_mode=False)
    assert result["failed"]
    assert result["verified"] is False
    assert not (dest / "c0/a1/out/model.bin").exists()


def test_a_box_that_never_answers_a_question_is_given_up_at_the_deadline(run: Run, tmp_path: Path) -> None:
    silent, begun = tmp_path / "silent", tmp_path / "begun"
    silent.write_text(f"#!/bin/sh\necho $$ >> {begun}\nexec sleep 600\n")
    silent.chmod(0o755)
    arguments = run.pull_arguments(deadline_s=8)
    result = run.box.ad_hoc(SYNC, arguments, ansible_python_interpreter=str(silent))
    if begun.exists():
        end_pids([int(line) for line in begun.read_text().split()])
    assert result["failure"]["kind"] == "unreachable"
    assert re.search(r"did not answer within [1-8] s when it was asked about its files \(offer\)", result["msg"])
    assert not run.dest.exists()

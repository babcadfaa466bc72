# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""checked_sync over a real sshd, with real rsync, and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_manifest
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    delivery,
    roster,
    rsync_carrier,
    settling,
    transfer,
)
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, peer_answers
from loopback_sshd import (
    ALIAS,
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
SYNC = "tenant.gpu.checked_sync"
BIG = 6 * 1024 * 1024
EXPOSE = "expose TCP port 22 of the pod"


@pytest.fixture(scope="module")
def box_with_rsync() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


@pytest.fixture(scope="module")
def box_without_rsync() -> Iterator[LoopbackBox]:
    with loopback_box(hidden_programs=("rsync",)) as running:
        yield running


class Run:
    """A run's folder on the box, and where its results go here."""

    def __init__(self, box: LoopbackBox, name: str, tmp_path: Path) -> None:
        self.box = box
        self.link = box.link()
        # A hostile box says that it has everything, whatever it has.
        self.lies = False
        self.folder = box.home / "runs" / name
        self.results = tmp_path / "results"
        self.dest = self.results / "demo" / "r 1" / "box1" / "g1"
        for path, data in {"c0/a1/out/model.bin": os.urandom(70_000), "c0/a1/done it's.json": b"{}"}.items():
            self.write(path, data)

    def write(self, path: str, data: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def manifest(self, **changes: Any) -> dict[str, Any]:
        return folder_manifest.of_folder(self.folder, **changes)

    def pull_arguments(self, **changes: Any) -> dict[str, Any]:
        return {
            "direction": "pull",
            "src": str(self.folder),
            "dest": str(self.dest),
            "dest_root": str(self.results),
            "manifest": self.manifest(),
            "first_wait_s": 0.05,
            "reserve_bytes": 0,
            **changes,
        }

    def pull_by_ansible(self, *flags: str, **changes: Any) -> dict[str, Any]:
        return self.box.ad_hoc(SYNC, self.pull_arguments(**changes), *flags)

    def pull(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        """What the action plugin does, less a second of Ansible: ssh, sshd, rsync and files are the real ones."""
        arguments = self.pull_arguments(**changes)
        manifest = roster.parse_manifest(arguments["manifest"])
        return self._carry(True, arguments, manifest.files, check_mode, manifest=manifest)

    def push(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        dest = str(self.box.home / "code" / self.folder.name)
        arguments = {"src": str(self.folder), "dest": dest, "dest_root": str(self.box.home), **changes}
        files = delivery.scan_tree(arguments["src"], ["__pycache__"])
        return self._carry(False, arguments, files, check_mode)

    def _carry(
        self, pull: bool, arguments: dict[str, Any], files: Any, check_mode: bool, **more: Any
    ) -> dict[str, Any]:
        order = checked_transfer.Order(
            pull=pull,
            src=arguments["src"],
            dest=arguments["dest"],
            files=files,
            dest_root=arguments["dest_root"],
            extra=arguments.get("extra", "quarantine" if pull else "report"),
            transport=arguments.get("transport", "auto"),
            reserve_bytes=arguments.get("reserve_bytes", 0),
            proxy_limit_bytes=arguments.get("proxy_limit_bytes", BIG),
            deadline_s=120,
            wishes=transfer.RsyncWishes(60, arguments.get("limit_kib", 0)),
            patience=carrier.Patience(retries=arguments.get("retries", 5), first_wait_s=0.05),
            check_mode=check_mode,
            **more,
        )
        far = checked_transfer.Far("box1", self.link, self._ask(check_mode), arguments.get("proxy", ""))
        try:
            return checked_transfer.run(order, far)
        except TenantFailure as failure:
            return dict(failure.as_result(), failed=True)

    def _ask(self, check_mode: bool) -> Callable[..., dict[str, Any]]:
        """The box is this machine, so it can be asked here; arguments and answer go through JSON."""

        def ask(op: str, wanted: Any, **options: Any) -> dict[str, Any]:
            parameters = {"within": "", "aside": [], **options, "op": op, "files": wanted}
            try:
                answer = delivery.answer(json.loads(json.dumps(parameters)), check_mode)
            except TenantFailure as failure:
                raise TenantFailure("config", f"the box refused: {failure.what}") from failure
            found: dict[str, Any] = json.loads(json.dumps(answer))
            return dict(found, mismatches=[]) if self.lies else found

        return ask

    def at_home(self) -> list[str]:
        return sorted(str(path.relative_to(self.dest)) for path in self.dest.rglob("*") if not path.is_dir())


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


def test_law_8_a_hostile_manifest_is_refused_before_the_box_is_asked(run: Run) -> None:
    manifest = run.manifest()
    manifest["files"][0]["path"] = "c0/../../../escaped"
    manifest["digest"] = roster.manifest_digest(manifest)
    result = run.pull_by_ansible(manifest=manifest)
    assert result["failed"]
    assert "path" in result["msg"]
    assert not run.results.exists()


def test_law_8_a_symlink_on_the_box_is_refused_by_name(run: Run) -> None:
    secret = run.box.folder / "secret"
    secret.write_bytes(b"the controller's own")
    (run.folder / "c0/a1/out/link.bin").write_bytes(secret.read_bytes())
    manifest = run.manifest()
    (run.folder / "c0/a1/out/link.bin").unlink()
    (run.folder / "c0/a1/out/link.bin").symlink_to(secret)
    for transport in ("rsync", "stream"):
        result = run.pull(manifest=manifest, transport=transport)
        assert result["failed"]
        assert "link.bin is a symlink" in result["msg"]
    assert not run.dest.exists()


def test_law_8_a_linked_folder_on_the_box_is_refused(run: Run) -> None:
    manifest = run.manifest()
    (run.folder / "c0").rename(run.box.home / f"moved-{run.folder.name}")
    (run.folder / "c0").symlink_to(run.box.home / f"moved-{run.folder.name}")
    result = run.pull(manifest=manifest)
    assert result["failed"]
    assert "symlink" in result["msg"]


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


def test_law_8_a_destination_outside_its_root_is_refused(run: Run, tmp_path: Path) -> None:
    run.results.mkdir()
    (run.results / "way-out").symlink_to(tmp_path)
    for dest in (tmp_path / "elsewhere", run.results / "way-out" / "x", run.results / ".." / "y"):
        result = run.pull(dest=str(dest))
        assert result["failed"]
        assert "not inside" in result["msg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


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


@pytest.mark.parametrize("transport", ["rsync", "stream"])
@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_law_8_a_host_key_that_is_not_pinned_stops_the_transfer(run: Run, transport: str, known: str) -> None:
    """Even where the play's variables switch the check off."""
    hosts = run.box.folder / f"known_hosts_{known.split()[0]}"
    hosts.write_text("")
    if known == "another key":
        words = Path(f"{run.box.key}.pub").read_text().split()[:2]
        hosts.write_text(f"{ALIAS} {' '.join(words)}\n")
    run.link = run.box.link(f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={hosts}")
    result = run.pull(transport=transport)
    assert result["failed"]
    assert result["failure"]["kind"] == "unreachable"
    assert "host key is not the pinned one" in result["msg"]
    assert result["attempts"] == 1
    assert run.at_home() == []


@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_law_8_a_box_does_not_end_a_transfer_by_what_it_prints(run: Run, transport: str) -> None:
    """It says and returns what ssh would of a wrong host key, once."""
    said = run.box.folder / f"said-{transport}"
    program = run.box.folder / f"forger-{transport}"
    program.write_text(
        f'#!/bin/sh\n[ -e {said} ] && exec "$@"\n: > {said}\necho "Host key verification failed." >&2\nexit 255\n'
    )
    program.chmod(0o755)
    run.link = replace(run.box.link(), become=(str(program),))
    result = run.pull(transport=transport)
    assert said.exists()
    assert (result["verified"], result["attempts"]) == (True, 2)


@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_law_8_a_box_that_lies_about_its_links_sends_none(run: Run, transport: str) -> None:
    secret = run.box.folder / "secret"
    secret.write_bytes(b"the controller's own")
    link = run.folder / "c0/a1/out/link.bin"
    link.write_bytes(secret.read_bytes())
    manifest = run.manifest()
    link.unlink()
    link.symlink_to(secret)
    run.lies = True
    result = run.pull(manifest=manifest, transport=transport)
    assert result["failed"]
    assert result["verified"] is False
    assert [entry["path"] for entry in result["mismatches"]] == ["c0/a1/out/link.bin"]
    assert not os.path.lexists(run.dest / "c0/a1/out/link.bin")
    assert not (run.dest / "manifest.json").exists()


def test_law_8_a_box_that_sends_more_than_it_was_asked_for_is_cut_off(run: Run) -> None:
    """The stream's sizes come from the box; what does not fit the manifest is not written."""
    manifest = run.manifest()
    run.write("c0/a1/out/model.bin", os.urandom(200_000))
    run.lies = True
    result = run.pull(manifest=manifest, transport="stream")
    assert result["failed"]
    assert "another size" in result["msg"]
    assert not (run.dest / "c0/a1/out/model.bin").exists()
    assert not (run.dest / "manifest.json").exists()


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


def test_law_8_a_link_in_a_pushed_tree_is_refused_by_name(run: Run) -> None:
    (run.folder / "data").symlink_to("/etc")
    arguments = {"direction": "push", "src": str(run.folder), "dest": str(run.box.home / "code" / "x")}
    result = run.box.ad_hoc(SYNC, arguments)
    assert result["failed"]
    assert "data is a symlink" in result["msg"]


def test_law_8_a_push_stays_inside_its_root_on_the_box(run: Run) -> None:
    result = run.push(dest=str(run.box.folder / "elsewhere"))
    assert result["failed"]
    assert "not inside" in result["msg"]
    assert not (run.box.folder / "elsewhere").exists()


def test_law_1_a_file_that_changes_while_it_is_pushed_is_not_called_verified(run: Run) -> None:
    files = delivery.scan_tree(str(run.folder))
    run.write("c0/a1/out/model.bin", os.urandom(70_000))
    dest = run.box.home / "code" / run.folder.name
    arguments = {"src": str(run.folder), "dest": str(dest), "dest_root": ""}
    result = run._carry(False, arguments, files, check_mode=False)
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

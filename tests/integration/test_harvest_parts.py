# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run over two boxes: each harvest brings its share home, and the sharded whole is loaded once both are there.

The checkpoint is real (two gloo ranks, torch.distributed.checkpoint), and so are supervisors, sshd and playbooks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import parts, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec, run_record
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from hub_server import REPOSITORY, WRITE_TOKEN, HubServer, hub_server
from loopback_sshd import LoopbackBox, loopback_box
from object_server import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectServer, object_server
from supervised_box import SupervisedBox, supervised_box

from gpu_tenant import transfers

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TRAINER = Path(__file__).with_name("sharded_trainer.py")
NODES = ("node-a", "node-b")
STEPS = (3, 6)
SPEC = {
    "id": "shared",
    "command": ["python", "train.py", *map(str, STEPS)],
    "cells": [{"id": "main", "seed": 11}],
    "artifacts": [
        {"glob": "checkpoints/**", "role": "checkpoint", "loader": "dcp"},
        {"glob": "metrics.json", "role": "metrics", "loader": "json"},
    ],
    "parts": list(NODES),
    "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
}


@dataclass
class Node:
    name: str
    ssh: LoopbackBox
    box: SupervisedBox

    @property
    def identity(self) -> BoxIdentity:
        return BoxIdentity("vision", self.name, 1, f"ssh:127.0.0.1:{self.ssh.port}")

    def place(self, results: Path) -> Path:
        return results / "vision" / "shared" / self.name / "g1"


class Run:
    """The run after both ranks have finished, on two boxes that share nothing."""

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        self.nodes = nodes
        (folder / "job").mkdir()
        shutil.copy(TRAINER, folder / "job" / "train.py")
        (folder / "job" / "run.yml").write_text(yaml.safe_dump(SPEC))
        self.spec = load_run_spec(str(folder / "job" / "run.yml"))
        for rank, node in enumerate(nodes):
            self._start(rank, node)
        for node in nodes:
            node.box.await_state("done", "shared")

    def _start(self, rank: int, node: Node) -> None:
        box = node.box
        shutil.copytree(self.folder / "job", box.root / "code" / self.spec["code_sha256"])
        (box.root / "bin").mkdir(parents=True)
        shutil.copy(box.program, box.root / "bin" / "supervisor-0123456789ab.pyz")
        endpoint = {"generation": 1, "provider_id": node.identity.provider_id}
        environment = {"RANK": str(rank), "RENDEZVOUS": str(self.folder / "rendezvous")}
        known = {"name": node.name, "tenant_root": str(box.root), "python": sys.executable, "env": environment}
        record = run_record(self.spec, endpoint, "vision", known)
        box.verb("register", "--run-file", "-", stdin=json.dumps(record))
        box.verb("start")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("parts")
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in NODES:
            (folder / name).mkdir()
            box = stack.enter_context(supervised_box(folder / name))
            nodes.append(Node(name, stack.enter_context(loopback_box()), box))
        yield Run(folder, nodes)


# --- the playbook ---------------------------------------------------------------------------------------------------


class Team:
    def __init__(self, run: Run, objects: ObjectServer, hub: HubServer) -> None:
        self.folder, self.run = run.folder, run
        self.store = StateStore(str(run.folder / "state"))
        self.results = run.folder / "results"
        hosts = {node.name: node.ssh.host_variables(platform_data_dir=str(node.box.root.parent)) for node in run.nodes}
        # One of the boxes keeps a second copy in a bucket, the other on the Hugging Face Hub.
        hosts["node-a"] |= {
            "harvest_object_store": f"hf://datasets/{REPOSITORY}/team",
            "harvest_object_store_access": {"endpoint_url": hub.url},
        }
        hosts["node-b"] |= {
            "harvest_object_store": f"s3://{BUCKET}/team",
            "harvest_object_store_access": {"endpoint_url": objects.url, "region": "us-east-1"},
        }
        variables = {
            "tenant_project": "vision",
            "tenant_run": run.spec["source"],
            "tenant_state_dir": self.store.root,
            "tenant_results_dir": str(self.results),
            "platform_python": sys.executable,
        }
        (run.folder / "hosts.yml").write_text(json.dumps({"ssh": {"hosts": hosts, "vars": variables}}))
        (run.folder / "profiles.yml").write_text("plugin: tenant.gpu.profiles\n")

    def harvest(self, limit: str) -> tuple[str, dict[str, int]]:
        """What was printed, and how many tasks changed something on each box."""
        sources = ["-i", str(self.folder / "profiles.yml"), "-i", str(self.folder / "hosts.yml")]
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/harvest.yml", *sources]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp")}
        environment[transfers.VARIABLE] = str(self.folder / "progress.jsonl")
        environment |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "HF_TOKEN": WRITE_TOKEN}
        done = subprocess.run(
            [*command, "-l", limit],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Traceback" not in done.stdout + done.stderr
        told = re.findall(r"^(node-.)\s+:.*changed=(\d+).*failed=0", done.stdout, re.MULTILINE)
        return done.stdout, {name: int(changed) for name, changed in told}

    def receipt(self, name: str) -> dict[str, Any]:
        return records.read_record(self.store.receipt_path("vision", "shared", name, 1), "receipt")


def loaded(whole: Path, step: int) -> torch.Tensor:
    state = {"weights": torch.zeros(8, 8), "step": 0}
    dcp.load(state, checkpoint_id=str(whole / "main" / "checkpoints" / f"step-{step}"), no_dist=True)
    assert state["step"] == step
    return state["weights"]


@pytest.fixture
def objects() -> Iterator[ObjectServer]:
    with object_server() as served:
        served.reset()
        yield served


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as served:
        served.reset()
        yield served


def test_law_2_no_part_is_complete_before_the_whole_loads(run: Run, objects: ObjectServer, hub: HubServer) -> None:
    team = Team(run, objects, hub)
    (run.nodes[0].box.root / "runs/shared/main/a1/out/cache.bin").write_bytes(b"x" * 4096)
    shown, _changed = team.harvest("node-a")
    first = team.receipt("node-a")
    assert (first["home"], first["complete"], first["waits_for"]) == (True, False, ["node-b"])
    assert first["incomplete_because"] == ["the sharded whole of run shared waits for part(s) node-b"]
    assert not (team.results / "vision/shared/whole").exists()
    assert "cache.bin" in shown
    assert [each["path"] for each in first["not_pulled"]] == ["main/a1/out/cache.bin"]
    assert first["not_pulled_totals"] == {"files": 1, "bytes": 4096}

    team.harvest("node-b")
    whole = team.results / "vision/shared/whole"
    for name in NODES:
        receipt = team.receipt(name)
        assert (receipt["complete"], receipt["incomplete_because"], receipt["waits_for"]) == (True, [], [])
        assert receipt["whole"]["uri"] == whole.as_uri()
        assert {check["path"] for check in receipt["whole"]["checks"]} >= {
            f"main/checkpoints/step-{step}/.metadata" for step in STEPS
        }
        assert all(check["ok"] for check in receipt["whole"]["checks"])
    for step in STEPS:
        assert torch.equal(loaded(whole, step), torch.arange(64.0).reshape(8, 8) + step)
    manifest = records.read_record(str(whole / "manifest.json"), "run-manifest")
    assert [part["box"] for part in manifest["parts"]] == list(NODES)
    assert {file["part"] for file in manifest["files"]} == set(NODES)
    assert manifest["digest"] == team.receipt("node-a")["whole"]["sha256"]

    reports = list(transfers.Reports(team.folder / "progress.jsonl").new())
    assert {report.box for report in reports} == set(NODES)
    assert all(report.bytes_done <= report.bytes for report in reports)
    last = [report for report in reports if report.box == "node-a"][-1]
    assert (last.files_done, last.bytes_done) == (last.files, last.bytes)

    here, there = team.receipt("node-b")["copies"]
    assert here["uri"] == run.nodes[1].place(team.results).as_uri()
    assert there["uri"] == f"s3://{BUCKET}/team/vision/shared/node-b/g1"
    assert (there["how"], there["sha256"]) == ("reread", team.receipt("node-b")["manifest_digest"])
    assert "team/vision/shared/node-b/g1/main/a1/out/metrics.json" in objects.listing()
    assert "team/vision/shared/node-a/g1/main/a1/out/metrics.json" in hub.tree()
    on_hub = team.receipt("node-a")["copies"][1]
    assert on_hub["uri"] == f"hf://datasets/{REPOSITORY}/team/vision/shared/node-a/g1"
    assert (on_hub["version_id"], on_hub["how"]) == (hub.repository.branches["main"], "reread")
    assert WRITE_TOKEN not in shown + json.dumps(team.receipt("node-a"))
    assert SECRET_KEY not in shown + (team.folder / "state/receipts/vision/shared/node-b.g1.json").read_text()

    provenance = team.receipt("node-a")["provenance"]
    assert provenance["code_sha256"] == run.spec["code_sha256"]
    assert (provenance["seeds"], provenance["platform"]) == ({"main": 11}, "ssh")
    assert provenance["torch"] == torch.__version__
    assert provenance["supervisor_sha256"] == records.sha256_file(str(run.nodes[0].box.program))
    assert provenance["cost"] == "unknown"

    before = {path: path.stat().st_mtime_ns for path in (run.folder / "state" / "receipts").rglob("*.json")}
    hub.commit_of_another()
    _shown, changed = team.harvest("node-a,node-b")
    assert changed == dict.fromkeys(NODES, 0)
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "state" / "receipts").rglob("*.json")} == before


# --- settling, without the plays ------------------------------------------------------------------------------------


class Home:
    """The shares as two harvests left them, in a folder and a store of their own."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.results = run, folder / "results"
        self.store = StateStore(str(folder / "state"))
        self.whole = self.results / "vision" / "shared" / "whole"
        for node in run.nodes:
            shutil.copytree(node.box.root / "runs" / "shared", node.place(self.results))
            self.promise(node, node.box.verb("manifest", "--run", "shared"))

    def node(self, name: str) -> Node:
        return next(node for node in self.run.nodes if node.name == name)

    def promise(self, node: Node, manifest: dict[str, Any]) -> None:
        records.write_record(str(node.place(self.results) / "manifest.json"), "manifest", manifest)

    def change(self, name: str, inner: str, data: bytes) -> None:
        """Another share, honestly listed: as if the box had written these bytes."""
        node = self.node(name)
        (node.place(self.results) / "main/a1/out" / inner).write_bytes(data)
        manifest = roster.read_manifest(str(node.place(self.results)))
        files = [dict(line) for line in manifest.record["files"]]
        for line in files:
            if line["path"].endswith(inner):
                path = str(node.place(self.results) / line["path"])
                line.update(bytes=len(data), sha256=records.sha256_file(path))
        changed = dict(manifest.record, files=files)
        self.promise(node, dict(changed, digest=roster.manifest_digest(changed)))

    def claim(self, name: str, **changes: Any) -> receipts.Claim:
        node = self.node(name)
        values = {"run_state": "done", "parts": NODES, **changes}
        root = str(node.place(self.results))
        return receipts.Claim(identity=node.identity, root=root, manifest=roster.read_manifest(root), **values)

    def establish(self, name: str, check_mode: bool = False, **changes: Any) -> receipts.Outcome:
        return parts.establish(self.store, self.claim(name, **changes), str(self.whole), check_mode)

    def complete(self) -> dict[str, bool]:
        found = [records.read_record(path, "receipt") for path in self.store.receipts("vision", "shared")]
        return {str(receipt["box"]): receipt["complete"] for receipt in found}

    def shard(self, name: str, step: int) -> Path:
        (path,) = (self.node(name).place(self.results) / f"main/a1/out/checkpoints/step-{step}").glob("__*.distcp")
        return path


@pytest.fixture
def home(run: Run, tmp_path: Path) -> Home:
    return Home(run, tmp_path)


@pytest.mark.parametrize("order", [NODES, NODES[::-1]])
def test_the_parts_may_come_home_in_any_order_and_again(home: Home, order: tuple[str, str]) -> None:
    assert home.establish(order[0]).receipt["waits_for"] == [order[1]]
    predicted = home.establish(order[1], check_mode=True)
    assert (predicted.changed, predicted.receipt["complete"]) == (True, True)
    assert home.complete() == {order[0]: False}
    assert home.establish(order[1]).receipt["complete"] is True
    assert home.complete() == dict.fromkeys(NODES, True)
    assert [home.establish(name).changed for name in NODES] == [False, False]
    assert not home.establish(order[0], check_mode=True).changed
    assert not list(home.whole.parent.glob(".whole-*"))


def test_the_whole_is_read_again_and_what_changed_in_it_is_named(home: Home) -> None:
    for name in NODES:
        receipt = home.establish(name).receipt
    checks, problems = parts.reread_whole(receipt)
    assert {check["path"] for check in checks if check["tensors"]} >= {
        f"main/checkpoints/step-{step}/.metadata" for step in STEPS
    }
    assert problems == []
    manifest = home.whole / "manifest.json"
    record = json.loads(manifest.read_text())
    record["files"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(record))
    assert "not what the receipt speaks of" in parts.reread_whole(receipt)[1][0]
    manifest.unlink()
    assert "manifest.json" in parts.reread_whole(receipt)[1][0]
    assert parts.reread_whole({"whole": None}) == ([], [])


def test_the_whole_shares_its_blocks_with_the_parts_and_never_changes_them(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.results.rglob("*") if path.is_file()}
    for name in NODES:
        home.establish(name)
    assert {path: path.read_bytes() for path in before} == before
    inner = "main/checkpoints/step-3/" + home.shard("node-a", 3).name
    assert (home.whole / inner).read_bytes() == home.shard("node-a", 3).read_bytes()


def test_a_whole_that_was_damaged_is_made_again_and_the_old_one_kept(home: Home) -> None:
    for name in NODES:
        home.establish(name)
    inner = "main/checkpoints/step-3/" + home.shard("node-a", 3).name
    damaged = home.whole / inner
    data = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(data[:-1] + b"!")
    home.establish("node-a")
    assert damaged.read_bytes() == data
    (kept,) = (home.whole.parent / ".tenant-quarantine").iterdir()
    assert (kept / inner).read_bytes() != data
    assert home.complete() == dict.fromkeys(NODES, True)


def test_law_1_a_rank_file_of_another_step_makes_no_whole(home: Home) -> None:
    stale = home.shard("node-b", 3).read_bytes()
    assert stale != home.shard("node-b", 6).read_bytes()
    home.establish("node-a")
    home.change("node-b", "checkpoints/step-6/" + home.shard("node-b", 6).name, stale[:-9])
    with pytest.raises(TenantFailure, match="do not make a whole") as caught:
        home.establish("node-b")
    assert caught.value.kind == "evidence_missing"
    assert "step-6" in caught.value.what
    assert home.complete() == dict.fromkeys(NODES, False)
    assert not home.whole.exists()
    assert not list(home.whole.parent.glob(".whole-*"))


def test_law_1_two_boxes_that_disagree_on_one_file_are_both_named(home: Home) -> None:
    home.establish("node-a")
    place = home.node("node-b").place(home.results) / "main/a1/out/checkpoints/step-3/.metadata"
    shutil.copy(home.node("node-a").place(home.results) / "main/a1/out/checkpoints/step-3/.metadata", place)
    node = home.node("node-b")
    manifest = roster.read_manifest(str(node.place(home.results)))
    line = dict(manifest.record["files"][0], path="main/a1/out/checkpoints/step-3/.metadata", loader="dcp")
    line.update(bytes=place.stat().st_size, sha256=records.sha256_file(str(place)))
    changed = dict(manifest.record, files=[*manifest.record["files"], line])
    home.promise(node, dict(changed, digest=roster.manifest_digest(changed)))
    assert home.establish("node-b").receipt["complete"] is True, "the same bytes under one path are no conflict"

    home.change("node-b", "checkpoints/step-3/.metadata", place.read_bytes() + b"x")
    with pytest.raises(TenantFailure, match="other bytes on node-a than on node-b"):
        home.establish("node-b")
    assert home.complete() == dict.fromkeys(NODES, False)


def test_law_2_a_part_that_is_verified_anew_shuts_the_others_meanwhile(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NODES:
        home.establish(name)
    seen: list[dict[str, bool]] = []

    def look(*arguments: Any, **options: Any) -> receipts.Verification:
        seen.append(home.complete())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(receipts, "verify", look)
        with pytest.raises(KeyboardInterrupt):
            home.establish("node-b", level="expect")
    assert seen == [{"node-a": False}]
    assert home.complete() == {"node-a": False}
    home.establish("node-b")
    assert home.complete() == dict.fromkeys(NODES, True)


def test_law_2_a_share_of_a_failed_run_is_not_home_for_the_others(home: Home) -> None:
    home.establish("node-a")
    assert home.establish("node-b", run_state="failed").receipt["home"] is False
    assert home.complete() == dict.fromkeys(NODES, False)


def _establish(home: Home, name: str) -> None:
    home.establish(name)


def test_two_harvests_at_once_come_to_the_same_end(home: Home) -> None:
    context = multiprocessing.get_context("fork")
    harvests = [context.Process(target=_establish, args=(home, name)) for name in (*NODES, *NODES)]
    for harvest in harvests:
        harvest.start()
    for harvest in harvests:
        harvest.join(120)
    assert [harvest.exitcode for harvest in harvests] == [0] * 4
    assert home.complete() == dict.fromkeys(NODES, True)
    assert torch.equal(loaded(home.whole, 6), torch.arange(64.0).reshape(8, 8) + 6)


def test_a_part_named_like_the_whole_is_refused(home: Home) -> None:
    with pytest.raises(TenantFailure, match="cannot be called 'whole'"):
        home.establish("node-a", parts=("node-a", "whole"))

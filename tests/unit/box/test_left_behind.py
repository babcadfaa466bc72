# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What comes home of a run and what stays on the box: chosen before the seal, listed afterwards, never silent."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import harvest_policy_task, run_manifest_task
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    control,
    left_behind,
    policy,
    promise,
    records,
    run_manifest,
    run_record,
    seal,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

CALLER = control.Caller(())
ARTIFACTS = [
    {"glob": "model.bin", "role": "checkpoint", "loader": "none"},
    {"glob": "shards/**", "role": "checkpoint", "loader": "none"},
    {"glob": "best.json", "role": "metrics", "loader": "json"},
]
OUTPUT = {"model.bin": b"weights", "shards/rank0/optim.bin": b"o" * 50, "shards/rank0/model.bin": b"m" * 40}


class Box:
    """A box with one finished run, as the supervisor leaves it."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(str(folder))
        run = {
            "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r",
            "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"],
            "workdir": "/", "cells": [{"id": "c1", "args": [], "seed": 5}], "artifacts": ARTIFACTS,
        }  # fmt: skip
        control.register(self.layout, CALLER, run)
        self.paths = self.layout.attempt("r", "c1", 2)
        self.write("out", OUTPUT)
        self.write("out", {"best.json": b"{}"})
        self.write("", {"metrics.jsonl": b"{}\n", "run.log": b"log\n", "shim.lock": b"", "reserve-1": b"0" * 99})
        self.write("out/checkpoints", {"attempts.json": b"{}"})
        lines = [
            self.line(f"out/{name}", next(entry["role"] for entry in ARTIFACTS if entry["glob"][:6] == name[:6]))
            for name in [*OUTPUT, "best.json"]
        ]
        lines += [self.line("metrics.jsonl", "metrics"), self.line("run.log", "log")]
        keys = {"project": "p", "run_id": "r", "cell": "c1", "spec_sha256": "a" * 64}
        skipped = [{"path": "torn.bin", "why": "it is cut short"}]
        records.write_record(self.paths.done, "done", dict(keys, artifacts=lines, skipped=skipped))

    def write(self, folder: str, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = Path(self.paths.folder, folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def line(self, inner: str, role: str) -> dict[str, Any]:
        return run_manifest._line(self.paths, inner, role, "none")

    def manifest(self) -> dict[str, Any]:
        return run_manifest.current(self.layout, "r")

    def left(self, **options: Any) -> dict[str, Any]:
        return left_behind.listing(self.layout, "r", self.manifest(), **options)

    def choose(self, roles: list[str] | None = None, exclude: list[str] | None = None) -> dict[str, Any]:
        wanted = policy.of(roles or list(policy.ROLES), exclude or [])
        return harvest_policy_task.choose(self.layout, CALLER, "r", wanted)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def home(box: Box) -> set[str]:
    return {line["path"].split("/", 2)[2] for line in box.manifest()["files"]}


def reasons(box: Box) -> dict[str, str]:
    return {each["path"].split("/", 2)[2]: each["why"] for each in box.left()["listed"]}


EVERYTHING = {"done.json", "metrics.jsonl", "run.log", "out/best.json", *[f"out/{name}" for name in OUTPUT]}


def test_without_a_choice_everything_comes_home_and_nothing_is_left(box: Box) -> None:
    assert home(box) == EVERYTHING
    assert box.left() == {"files": 0, "bytes": 0, "listed": [], "summary": ""}


def test_a_cell_that_was_brought_here_without_its_log_has_a_manifest_all_the_same(box: Box) -> None:
    """Another box has finished it, where people left the logs: its done record goes on promising them."""
    os.unlink(os.path.join(box.paths.folder, "run.log"))
    assert home(box) == EVERYTHING - {"run.log"}
    keys = {"project": "p", "run_id": "r", "cell": "c1", "spec_sha256": "a" * 64}
    records.write_record(box.paths.claim, "claim", keys)
    with pytest.raises(Refused, match=r"run\.log is gone since"):
        box.manifest()
    os.unlink(box.paths.claim)
    os.unlink(os.path.join(box.paths.output, "model.bin"))
    with pytest.raises(Refused, match=r"model\.bin is gone since"):
        box.manifest()


def test_what_nobody_declared_is_listed_with_its_size_and_the_reason(box: Box) -> None:
    box.write("out", {"cache.bin": b"x" * 9, "model.bin.tmp": b"x" * 8, "torn.bin": b"x", "shards/a.part": b"x" * 7})
    os.symlink("/etc/hostname", os.path.join(box.paths.output, "link"))
    first = box.layout.attempt("r", "c1", 1)
    os.makedirs(os.path.join(first.output, "shards"))
    Path(first.output, "shards", "step-1.bin").write_bytes(b"x" * 6)
    Path(first.folder, "run.log").write_bytes(b"x" * 5)
    os.makedirs(os.path.join(box.layout.cell_dir("r", "c1"), "resume"))
    Path(box.layout.cell_dir("r", "c1"), "resume", "step-1.pt").write_bytes(b"from home")
    assert reasons(box) == {
        "out/cache.bin": "no artifact glob names it",
        "out/model.bin.tmp": "its name is a temporary one",
        "out/shards/a.part": "its name is a temporary one",
        "out/torn.bin": "it is cut short",
        "out/link": "it is a symlink",
        "out/shards/step-1.bin": "an older checkpoint, or one that is not sound",
        "run.log": "of an attempt that another one replaced",
    }
    left = box.left()
    assert (left["files"], left["listed"][1]["bytes"]) == (7, 9)
    assert left["summary"].startswith("7 files (")
    assert left["summary"].endswith(" and 4 more")


def test_the_list_is_bounded_and_the_totals_are_not(box: Box) -> None:
    box.write("out", {f"cache-{number:04}": b"x" * number for number in range(500)})
    left = box.left(most=3)
    assert [each["bytes"] for each in left["listed"]] == [499, 498, 497]
    assert (left["files"], left["bytes"]) == (500, sum(range(500)))


def test_a_hostile_name_can_be_recorded_and_printed(box: Box) -> None:
    name = b"a\xff\n\x1b[2J"
    with open(os.path.join(os.fsencode(box.paths.output), name), "wb") as stream:
        stream.write(b"x")
    (each,) = box.left()["listed"]
    assert each["path"].isprintable()
    records.canonical_json(box.left())


def test_roles_and_globs_stay_on_the_box_when_people_choose_so(box: Box) -> None:
    before = box.manifest()["digest"]
    answer = box.choose(["checkpoint", "other"], ["**/optim.bin"])
    assert answer["changed"]
    assert home(box) == {"done.json", "out/model.bin", "out/shards/rank0/model.bin"}
    assert box.manifest()["digest"] != before
    assert box.manifest()["policy"] == {"roles": ["checkpoint", "other"], "exclude": ["**/optim.bin"]}
    assert reasons(box) == {
        "out/best.json": "harvest_roles leaves metrics files on the box",
        "metrics.jsonl": "harvest_roles leaves metrics files on the box",
        "run.log": "harvest_roles leaves log files on the box",
        "out/shards/rank0/optim.bin": "harvest_exclude names it (**/optim.bin)",
    }
    assert not box.choose(["checkpoint", "other"], ["**/optim.bin"])["changed"]
    assert box.choose()["changed"]
    assert home(box) == EVERYTHING


def test_a_sealed_box_promises_in_digests(box: Box) -> None:
    assert promise.of_run(box.layout, "r") == {"sealed": False}
    seal.seal(box.layout, CALLER, stop_live=False, grace_s=None)
    kept, none_left = box.manifest(), box.left()
    promised = {"sealed": True, "state": kept["state"], "digest": kept["digest"], "policy": kept["policy"]}
    assert promise.of_run(box.layout, "r") == {**promised, "not_pulled": none_left}
    box.write("out", {"late.bin": b"x" * 9})
    assert promise.of_run(box.layout, "r") == {**promised, "not_pulled": box.left()} != {"not_pulled": none_left}
    assert promise.of_run(box.layout, "other") == {"sealed": False}


@pytest.mark.parametrize("harm", ["held", "shorter", "gone", "unsealed"])
def test_law_1_a_seal_that_does_not_hold_promises_nothing(box: Box, harm: str) -> None:
    seal.seal(box.layout, CALLER, stop_live=False, grace_s=None)
    model = Path(box.paths.output, "model.bin")
    if harm == "held":
        os.makedirs(box.layout.held("r"))
    elif harm == "shorter":
        model.write_bytes(b"w")
    elif harm == "gone":
        model.unlink()
    else:
        seal.unseal(box.layout, CALLER)
    assert promise.of_run(box.layout, "r") == {"sealed": False}


def test_the_seal_settles_the_choice(box: Box) -> None:
    box.choose(["checkpoint"])
    Path(box.layout.seal).write_text("{}")
    assert not box.choose(["checkpoint"])["changed"]
    with pytest.raises(Refused, match="sealed under") as refused:
        box.choose(["checkpoint", "metrics"])
    assert "unseal" in refused.value.fix


@pytest.mark.parametrize(("roles", "exclude"), [(["weights"], []), ([], []), (["log"], ["../x"]), (["log"], ["/x"])])
def test_an_unusable_choice_is_refused(roles: list[str], exclude: list[str]) -> None:
    with pytest.raises(Refused, match="harvest policy"):
        policy.of(roles, exclude)


def test_a_damaged_choice_is_never_guessed_and_can_be_made_anew(box: Box) -> None:
    box.choose(["checkpoint"])
    path = Path(box.layout.root, "policies", "r.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(records.RecordError):
        box.manifest()
    assert box.choose(["checkpoint"])["changed"]
    assert home(box) == {"done.json", *[f"out/{name}" for name in OUTPUT]}


def snapshot(box: Box, **options: Any) -> dict[str, Any]:
    asked = {"tenant_root": box.layout.root, "run_id": "r", "snapshot": True, "roles": [], "exclude": []}
    return run_manifest_task.take({**asked, "versions": False, "compare": None, "dest": None, **options}, check=True)


def test_law_1_a_snapshot_of_the_metrics_does_not_narrow_what_comes_home_in_the_end(box: Box) -> None:
    taken = snapshot(box, roles=["metrics"], exclude=["best.json"])
    named = {line["path"].split("/", 2)[2] for line in taken["manifest"]["files"]}
    assert named == {"done.json", "metrics.jsonl"}
    assert taken["manifest"]["policy"] == {"roles": ["metrics"], "exclude": ["best.json"]}
    why = {each["path"].split("/", 2)[2]: each["why"] for each in taken["not_pulled"]["listed"]}
    assert why["out/model.bin"] == "harvest_roles leaves checkpoint files on the box"
    assert home(box) == EVERYTHING
    box.choose(["checkpoint"])
    assert {line["role"] for line in snapshot(box)["manifest"]["files"]} == {"checkpoint", "other"}, "in force"


def test_a_choice_for_the_end_is_made_before_the_seal_and_not_by_a_manifest(box: Box) -> None:
    with pytest.raises(TenantFailure, match="not chosen by its manifest") as caught:
        snapshot(box, snapshot=False, roles=["metrics"])
    assert (caught.value.kind, "harvest_policy" in caught.value.fix) == ("config", True)
    with pytest.raises(TenantFailure, match="unknown roles"):
        snapshot(box, roles=["weights"])


def test_check_mode_chooses_nothing(box: Box) -> None:
    wanted = policy.of(["checkpoint"], [])
    assert harvest_policy_task.choose(box.layout, control.Caller((), check=True), "r", wanted)["changed"]
    assert home(box) == EVERYTHING


def saved(step: int, best: int | None) -> bytes:
    """A file of torch.save with the record that tenant_checkpoint adds to it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"step": step}, 2))
        archive.writestr("archive/manifest.json", json.dumps({"step": step, "best": best}))
    return buffer.getvalue()


def test_the_best_checkpoint_of_an_earlier_attempt_comes_home_with_the_newest(box: Box) -> None:
    """The box is given up in mid-run: what the newest checkpoint calls the best dies with it otherwise."""
    os.unlink(box.paths.done)
    first = Path(box.layout.attempt("r", "c1", 1).checkpoints)
    first.mkdir(parents=True)
    for step in (10, 20, 30):
        (first / f"step-{step:010d}.pt").write_bytes(saved(step, 10))
    box.write("out/checkpoints", {"step-0000000040.pt": saved(40, 10)})
    brought = sorted(line["path"] for line in box.manifest()["files"] if line["path"].endswith(".pt"))
    assert brought == ["c1/a1/out/checkpoints/step-0000000010.pt", "c1/a2/out/checkpoints/step-0000000040.pt"]
    assert {path for path in (each["path"] for each in box.left()["listed"]) if path.endswith(".pt")} == {
        f"c1/a1/out/checkpoints/step-{step:010d}.pt" for step in (20, 30)
    }
    (first / "step-0000000010.pt").write_bytes(saved(10, 10)[:-20])
    assert not [line for line in box.manifest()["files"] if "/a1/" in line["path"]], "a damaged one is not the best"


def brought(box: Box) -> list[str]:
    return sorted(path.split("/", 1)[1] for path in (line["path"] for line in box.manifest()["files"]) if ".pt" in path)


def test_the_best_checkpoint_comes_home_with_all_files_of_its_step(box: Box) -> None:
    os.unlink(box.paths.done)
    for step in (10, 20):
        for name in ("model", "optim"):
            box.write("out/shards", {f"{name}-step-{step}.pt": saved(step, 10)})
    box.write("out/shards", {"model-step-15.pt": saved(15, 10)})
    names = [f"a2/out/shards/{name}-step-{step}.pt" for name in ("model", "optim") for step in (10, 20)]
    assert brought(box) == sorted(names)


def test_of_checkpoints_whose_names_say_no_step_the_newest_of_each_name_comes_home(box: Box) -> None:
    """A run that failed with the weights in one file and the optimizer in another, each overwritten in place."""
    os.unlink(box.paths.done)
    os.unlink(os.path.join(box.paths.output, "model.bin"))
    shutil.rmtree(os.path.join(box.paths.output, "shards"))
    for age, name in enumerate(("optim.pt", "model_v2.pt", "model_v1.pt")):
        box.write("out/shards", {name: b"x" * 9})
        os.utime(os.path.join(box.paths.output, "shards", name), (1000 - age,) * 2)
    assert brought(box) == ["a2/out/shards/model_v2.pt", "a2/out/shards/optim.pt"]
    why = "a checkpoint whose name says no step: another one came home in place of it, or it is not sound"
    assert reasons(box)["out/shards/model_v1.pt"] == why


def test_a_step_that_is_half_written_comes_home_with_the_last_whole_one(box: Box) -> None:
    os.unlink(box.paths.done)
    box.write("out/shards", {"model-step-10.pt": b"x", "optim-step-10.pt": b"x", "model-step-20.pt": b"x"})
    box.write("out/shards", {"optim-step-20.pt": b""})
    names = [f"a2/out/shards/{name}-step-{step}.pt" for name, step in (("model", 10), ("model", 20), ("optim", 10))]
    assert brought(box) == sorted(names)
    assert reasons(box)["out/shards/optim-step-20.pt"] == "an older checkpoint, or one that is not sound"


def test_a_manifest_says_whose_work_each_attempt_is_and_its_digest_does_not(box: Box) -> None:
    made = box.manifest()
    assert made["works"] == {"c1/a2": {"config_sha256": "", "present": False}}, "its done record does not say it"
    run = run_record.read_run(box.layout, "r")
    attempt.claim(box.layout, run, run["cells"][0], 2)
    again = box.manifest()
    work = run_record.config_sha256(run, run["cells"][0])
    assert again["works"] == {"c1/a2": {"config_sha256": work, "present": True}}
    assert again["digest"] == made["digest"]
    cells = [{"id": "c1", "args": ["--lr", "2"], "seed": 5}]
    control.register(box.layout, CALLER, dict(run, spec_sha256="c" * 64, cells=cells))
    assert box.manifest()["works"] == {"c1/a2": {"config_sha256": work, "present": False}}

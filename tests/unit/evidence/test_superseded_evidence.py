# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The superseded exception on real files: what the box holds, what came home of it, and what the gate makes of both."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import (
    gate,
    home_contents,
    last_contact,
    losses,
    receipts,
    roster,
    seal_reading,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    artifacts,
    attempt,
    control,
    newest_checkpoints,
    policy,
    records,
    run_manifest,
    run_record,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import status as box_status
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.step_name import series_of
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from evidence_world import entry

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

IDENTITY = BoxIdentity("demo", "box1", 1, "4711")


class Old:
    """A box that trains run r, is outbid, told to stop, and replaced."""

    def __init__(self, folder: Path, glob: str, loader: str) -> None:
        self.folder, self.layout = folder, Layout(str(folder / "box"))
        spec = {
            **IDENTITY.as_dict(),
            "run_id": "r",
            "spec_sha256": "a" * 64,
            "code_sha256": "b" * 64,
            "python": "/usr/bin/python3",
            "command": ["python"],
            "workdir": "/",
            "cells": [{"id": "c", "args": [], "seed": 1}],
            "artifacts": [{"glob": glob, "role": "checkpoint", "loader": loader}],
        }
        control.register(self.layout, control.Caller(()), spec)
        self.run = run_record.read_run(self.layout, "r")
        self.out = Path(attempt.claim(self.layout, self.run, self.run["cells"][0], 1).output)
        self.store = StateStore(str(folder / "state"))

    def save(self, name: str, **state: Any) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state, w=torch.ones(3)), path)

    def save_folder(self, name: str, step: int, whole: bool = True) -> None:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        if whole:
            safetensors.save_file({"w": torch.ones(3)}, folder / "model.safetensors")
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))

    def finish(self) -> None:
        """The cell ends, as the supervisor records it."""
        paths = self.layout.attempt("r", "c", int(self.out.parent.name[1:]))
        found, skipped = artifacts.collect(str(self.out), self.run["artifacts"])
        lines = [dict(line, path=f"{paths.relative}/out/{line['path']}") for line in found]
        keys = attempt.work(self.run, self.run["cells"][0], paths.number)
        records.write_record(paths.done, "done", dict(keys, artifacts=lines, skipped=skipped))

    def change_spec(self) -> None:
        """The run is registered with other arguments of its cell, and tried anew."""
        cells = [{"id": "c", "args": ["--lr", "2"], "seed": 1}]
        control.register(self.layout, control.Caller(()), dict(self.run, spec_sha256="c" * 64, cells=cells))
        self.run = run_record.read_run(self.layout, "r")
        self.out = Path(attempt.claim(self.layout, self.run, self.run["cells"][0], 2).output)

    def drop_cell(self) -> None:
        """The run is registered with another cell alone."""
        cells = [{"id": "d", "args": [], "seed": 1}]
        control.register(self.layout, control.Caller(()), dict(self.run, spec_sha256="c" * 64, cells=cells))
        self.run = run_record.read_run(self.layout, "r")

    def bring_home(
        self, files: list[dict[str, Any]] | None = None, roles: list[str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """A snapshot comes home, or of its files only these, and gets the receipt that is returned."""
        chosen = policy.of(roles, []) if roles else None
        manifest = {**run_manifest.current(self.layout, "r", snapshot=True, chosen=chosen), **more}
        if files is not None:
            manifest["files"] = files
            manifest["digest"] = roster.manifest_digest(manifest)
        root = self.folder / "home"
        for line in manifest["files"]:
            place = root / line["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(self.layout.run_dir("r")) / line["path"], place)
        records.write_record(str(root / "manifest.json"), "manifest", manifest)
        claim = receipts.Claim(IDENTITY, str(root), roster.read_manifest(str(root)), "snapshot")
        return dict(receipts.establish(self.store, claim).receipt)

    def evidence(self) -> gate.Evidence:
        now = records.utc_now()
        reading = seal_reading.as_record(IDENTITY, now, seal_reading.read_box(self.layout.root))
        seal_reading.save(self.store, IDENTITY, reading)
        admitted = {"created_at": now, "deploy_started_at": now, "admitted_at": now}
        self.store.update_box("demo", "box1", 1, provider_id="4711", parked_at=now, started_at=None, **admitted)
        self.store.update_box("demo", "box1", 2, provider_id="4712", **admitted)
        return gate.gather(self.store, IDENTITY, "destroy", ["volume"], gate.ProviderView("stopped", None, now))

    def lost(self) -> str:
        """What the gate says would be lost; empty when it lets the box go."""
        found = self.evidence()
        decision = gate.decide(found)
        assert decision.rule == (gate.RULE_SUPERSEDED if decision.allowed else gate.RULE_REFUSED)
        return "" if decision.allowed else "; ".join(losses.of(found).words())


# --- steps of one source ------------------------------------------------------------------------------------------


def test_law_2_a_checkpoint_of_the_same_name_as_its_copy_may_be_further(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/last.pt", "torch")
    old.save("checkpoints/last.pt", step=100)
    old.bring_home()
    old.save("checkpoints/last.pt", step=90000)
    assert "r/c: checkpoints/last.pt (the name says no step" in old.lost()


def test_law_2_a_checkpoint_without_any_step_may_be_further_than_its_copy(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/model_v1.pt")
    old.save("checkpoints/step-5.pt", step=5)
    old.bring_home()
    old.save("checkpoints/model_v2.pt")
    assert "checkpoints/model_v*.pt (the name says no step" in old.lost()


def test_law_2_the_unnamed_result_of_a_finished_cell_must_be_home_itself() -> None:
    last = ("model.pt",)
    steps = (("step-*.pt", 4, 1),)
    finished, on_its_way = Reached(4, True, last, steps), Reached(4, False, last, steps)
    assert Reached(4, True, last, steps).at_least(finished)
    assert not Reached(4, True, (), steps).at_least(finished), "its done record alone is no result"
    assert not Reached(4, False, last, steps).at_least(finished)
    assert not Reached(3, True, last, (("step-*.pt", 3, 1),)).at_least(finished)
    assert not Reached(4, True, last, steps).at_least(on_its_way)


def test_law_2_an_epoch_in_a_name_is_not_a_step_in_a_file(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/ckpt-*.pt", "torch")
    old.save("checkpoints/ckpt-5.pt", step=5000)
    old.bring_home()
    old.save("checkpoints/ckpt-90.pt", step=90000)
    assert "r/c: steps 5 to 90" in old.lost()


@pytest.mark.parametrize("inside", [5, None])
def test_law_2_a_copy_of_the_newest_name_lets_it_go_whatever_it_counts_inside(
    tmp_path: Path, inside: int | None
) -> None:
    old = Old(tmp_path, "checkpoints/step-*.pt", "torch")
    old.save("checkpoints/step-0000000005.pt", **({} if inside is None else {"step": inside}))
    old.bring_home()
    assert old.lost() == ""
    old.save("checkpoints/step-0000000090.pt", step=90)
    assert "r/c: steps 5 to 90" in old.lost()


def test_law_2_the_step_of_a_folder_is_that_of_its_own_name_on_both_sides(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/epoch-*/*.pt", "torch")
    old.save("checkpoints/epoch-5/step-900.pt")
    old.bring_home()
    old.save("checkpoints/epoch-90/step-9000.pt")
    assert "r/c: steps 5 to 90" in old.lost()


def test_law_2_a_status_tells_of_a_checkpoint_whose_name_says_no_step(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/last.pt", "torch")
    old.save("checkpoints/last.pt", step=7)
    told = last_contact.of_status(box_status.status(old.layout)["runs"])
    assert told == {"r": {"c": Reached(unnamed=("checkpoints/last.pt",))}}
    last_contact.note(old.store, IDENTITY, told)
    Path(old.out, "checkpoints", "last.pt").unlink()
    assert "checkpoints/last.pt (the name says no step" in old.lost()


# --- folders ------------------------------------------------------------------------------------------------------


def test_law_2_a_folder_without_weights_stands_for_no_checkpoint(tmp_path: Path) -> None:
    """The Trainer had just begun checkpoint-600: what comes home is 500, and the box stays for what 600 became."""
    old = Old(tmp_path, "checkpoints/checkpoint-*/**", "hf")
    old.save_folder("checkpoints/checkpoint-500", 500)
    old.save_folder("checkpoints/checkpoint-600", 600, whole=False)
    receipt = old.bring_home()
    assert {Path(check["path"]).parent.name for check in receipt["checks"]} == {"checkpoint-500"}
    assert "r/c: steps 500 to 600" in old.lost()


def test_law_2_a_folder_with_its_weights_at_home_lets_the_box_go(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/checkpoint-*/**", "hf")
    old.save_folder("checkpoints/checkpoint-500", 500)
    old.bring_home()
    assert old.lost() == ""
    old.save_folder("checkpoints/checkpoint-600", 600)
    assert "r/c: steps 500 to 600" in old.lost()


def test_law_1_a_folder_without_weights_gets_no_receipt(tmp_path: Path) -> None:
    """As a supervisor of before told it: its roster names the folder whose weights were not written yet."""
    old = Old(tmp_path, "checkpoints/checkpoint-*/**", "hf")
    old.save_folder("checkpoints/checkpoint-600", 600, whole=False)
    path = old.out / "checkpoints" / "checkpoint-600" / "config.json"
    line = {**entry("c/a1/out/checkpoints/checkpoint-600/config.json", path.read_bytes(), "hf", "checkpoint")}
    with pytest.raises(TenantFailure, match="it has no weights"):
        old.bring_home([line])


def reached(path: str, loader: str) -> dict[str, Reached]:
    """Of a copy that holds this file, loaded."""
    attempt = home_contents.Attempt("c", ((path.split("/out/")[1], "checkpoint", loader),))
    check = {"path": path, "loader": loader, "ok": True, "step": 600}
    return home_contents.reached([check], home_contents.Contents({"c/a1": attempt}))


@pytest.mark.parametrize("name", ["config.json", "optimizer.pt", "model-00001-of-00002.safetensors", "__0_0.distcp"])
def test_law_2_no_single_file_of_a_folder_stands_for_it(name: str) -> None:
    path = f"c/a1/out/checkpoints/checkpoint-600/{name}"
    for loader in ("hf", "dcp"):
        assert reached(path, loader) == {}


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        ("hf", "model.safetensors"),
        ("hf", "model.safetensors.index.json"),
        ("hf", "adapter_model.bin"),
        ("dcp", ".metadata"),
    ],
)
def test_law_2_the_head_of_a_folder_stands_for_it(loader: str, name: str) -> None:
    path = f"c/a1/out/checkpoints/checkpoint-600/{name}"
    series = {
        "hf": (f"checkpoints/checkpoint-*/{series_of(name)}", 600, 1),
        "dcp": ("checkpoints/checkpoint-*/", 600, 1),
    }
    assert reached(path, loader) == {"c": Reached(600, series=(series[loader],))}


def test_a_folder_whose_name_says_no_step_comes_home_beside_a_newer_file(tmp_path: Path) -> None:
    old = Old(tmp_path, "final/**", "hf")
    old.run["artifacts"].append({"glob": "*.pt", "role": "checkpoint", "loader": "torch"})
    old.save_folder("final", 3)
    old.save("optim.pt")
    os.utime(old.out / "optim.pt", (2**32,) * 2)
    brought = newest_checkpoints.to_bring(old.run, [old.layout.attempt("r", "c", 1)])
    assert {"c/a1/out/optim.pt", "c/a1/out/final/model.safetensors"} <= {line["path"] for line in brought}


STARTED_ANEW = [
    (["phase1-step-1000.pt"], "phase2-step-50.pt"),
    ([f"fold-{number}-step-1000.pt" for number in range(4)], "fold-4-step-50.pt"),
    # Each ended by itself at another step.
    ([f"fold-{number}-step-{1000 + number}.pt" for number in range(10)], "fold-10-step-50.pt"),
    (["step-1000-seed1.pt"], "step-50-seed2.pt"),
]


@pytest.mark.parametrize(("before", "now"), STARTED_ANEW)
def test_what_began_to_count_anew_comes_home_beside_what_got_further(
    tmp_path: Path, before: list[str], now: str
) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    for name in [*before, now]:
        old.save(f"checkpoints/{name}")
    brought = newest_checkpoints.to_bring(old.run, [old.layout.attempt("r", "c", 1)])
    assert sorted(line["path"] for line in brought) == sorted(f"c/a1/out/checkpoints/{name}" for name in [*before, now])


@pytest.mark.parametrize(("before", "now"), STARTED_ANEW)
def test_law_2_a_box_stays_with_the_only_copy_of_what_began_to_count_anew(
    tmp_path: Path, before: list[str], now: str
) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    for name in before:
        old.save(f"checkpoints/{name}")
    old.bring_home()
    assert old.lost() == ""
    old.save(f"checkpoints/{now}")
    assert "at step 50 (1 file(s))" in old.lost()
    old.bring_home()
    assert old.lost() == ""


def test_the_best_of_each_fold_comes_home_where_no_name_says_a_step(tmp_path: Path) -> None:
    old = Old(tmp_path, "*.pth", "torch")
    for number in range(5):
        old.save(f"fold{number}_best.pth")
    brought = newest_checkpoints.to_bring(old.run, [old.layout.attempt("r", "c", 1)])
    assert sorted(line["path"] for line in brought) == [f"c/a1/out/fold{number}_best.pth" for number in range(5)]


# --- everything is looked at --------------------------------------------------------------------------------------


def test_law_2_no_cell_and_no_run_is_left_out_of_a_look_however_many_there_are(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/step-*.pt", "torch")
    names = [f"c{number:04d}" for number in range(1003)]
    for name in names:
        place = Path(old.layout.attempt("r", name, 1).checkpoints)
        place.mkdir(parents=True)
        (place / "step-0000000007.pt").write_bytes(b"x")
        Path(old.layout.run_dir(f"stray-{name}")).mkdir()
    found = seal_reading.read_box(old.layout.root)
    assert set(names) <= set(found["checkpoints"]["r"])
    assert found["unlisted_runs"] == [f"stray-{name}" for name in names]
    assert found["problems"] == []


def test_law_2_a_folder_that_cannot_be_listed_keeps_the_gate_shut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Old(tmp_path, "checkpoints/step-*.pt", "torch")
    old.save("checkpoints/step-5.pt", step=5)
    old.bring_home()
    assert old.lost() == ""
    real, dead = os.scandir, str(old.out / "checkpoints")

    def scandir(path: str) -> Any:
        if path == dead:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"{dead} cannot be listed: Input/output error" in old.lost()


def test_law_2_a_file_in_place_of_the_runs_is_told(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    assert seal_reading.read_box(layout.root)["problems"] == [], "nothing was deployed"
    Path(layout.path("runs")).write_text("")
    (problem,) = seal_reading.read_box(layout.root)["problems"]
    assert problem == f"{layout.path('runs')} cannot be listed: Not a directory"


# --- finished cells -----------------------------------------------------------------------------------------------


def test_law_2_a_done_record_alone_does_not_stand_for_the_result_that_it_promises(tmp_path: Path) -> None:
    """A snapshot of the metrics takes the done record along, and leaves the only checkpoint on the box."""
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/final.pt")
    old.finish()
    assert [check["path"] for check in old.bring_home(roles=["metrics"])["checks"]] == ["c/a1/done.json"]
    assert "its finished results and checkpoints/final.pt" in old.lost()
    old.bring_home()
    assert old.lost() == ""


def test_law_2_a_finished_cell_with_its_steps_named_needs_all_that_it_promised(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/step-*.pt", "torch")
    old.save("checkpoints/step-4.pt", step=4)
    old.save("checkpoints/step-5.pt", step=5)
    old.finish()
    whole = run_manifest.current(old.layout, "r", snapshot=True)["files"]
    old.bring_home([line for line in whole if "step-4" not in line["path"]])
    assert "r/c: its finished results; last durable copy: step 5" in old.lost()


def test_law_2_logs_that_people_leave_on_the_box_are_no_results(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/step-*.pt", "torch")
    old.save("checkpoints/step-5.pt", step=5)
    old.run["artifacts"].append({"glob": "train.log", "role": "log", "loader": "none"})
    (old.out / "train.log").write_text("log")
    old.finish()
    old.bring_home(roles=["checkpoint", "metrics"])
    assert old.lost() == ""


# --- an epoch before the step -------------------------------------------------------------------------------------


def in_epochs(*of_epochs: str) -> list[str]:
    return [f"checkpoints/epoch_{of_epoch.replace('.', '_step_')}.pt" for of_epoch in of_epochs]


def test_law_2_a_step_that_is_counted_within_its_epoch_is_not_stood_for_by_one_of_the_epoch_before(
    tmp_path: Path,
) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    for name in in_epochs("1.400", "1.500"):
        old.save(name)
    old.bring_home()
    assert old.lost() == ""
    for name in in_epochs("2.100", "2.400"):
        old.save(name)
        assert "checkpoints/epoch_2_step_*.pt at step" in old.lost()
    receipt = old.bring_home()
    brought = {check["path"].partition("/out/")[2] for check in receipt["checks"]}
    assert brought == set(in_epochs("1.500", "2.400")), "the newest, however its steps are counted"
    assert old.lost() == ""


def test_law_2_a_step_in_the_folder_of_an_epoch_is_not_stood_for_by_an_earlier_one(tmp_path: Path) -> None:
    """The script keeps the newest only, so that there is one file at each look; a later folder is the later."""
    old = Old(tmp_path, "checkpoints/**/*.pt", "torch")
    old.save("checkpoints/epoch_2/step_100.pt")
    old.bring_home()
    assert old.lost() == ""
    (old.out / "checkpoints/epoch_2/step_100.pt").unlink()
    old.save("checkpoints/epoch_2/step_400.pt")
    assert "checkpoints/epoch_*/step_*.pt at step 2 (up to 400 in it)" in old.lost()
    (old.out / "checkpoints/epoch_2/step_400.pt").unlink()
    old.save("checkpoints/epoch_3/step_100.pt")
    old.bring_home()
    assert old.lost() == ""


@pytest.mark.parametrize("names", [["1.500", "2.100"], ["1.400", "1.500", "2.100"], ["3.100", "2.400", "1.500"]])
def test_law_3_the_newest_of_the_latest_epoch_comes_home_first(tmp_path: Path, names: list[str]) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    for name in in_epochs(*names):
        old.save(name)
    brought = newest_checkpoints.to_bring(old.run, [old.layout.attempt("r", "c", 1)])
    wanted = [name for name in in_epochs("3.100", "2.400", "2.100", "1.500") if (old.out / name).exists()]
    assert [line["path"].partition("/out/")[2] for line in brought] == wanted


def test_steps_that_are_counted_through_are_stood_for_by_the_latest_whatever_was_measured(tmp_path: Path) -> None:
    """Lightning with ``save_top_k=1`` removed the ones before, which looks saw; its epochs went on after a restart."""
    old = Old(tmp_path, "checkpoints/*.ckpt", "torch")
    names = [f"checkpoints/epoch={n // 2}-val_f1=0.{95 - n}-step={100 * n}.ckpt" for n in range(1, 6)]
    for name in names:
        old.save(name)
        look = last_contact.parse(seal_reading.read_box(old.layout.root)["checkpoints"])
        assert look is not None
        last_contact.note(old.store, IDENTITY, look)
    brought = newest_checkpoints.to_bring(old.run, [old.layout.attempt("r", "c", 1)])
    assert [line["path"].partition("/out/")[2] for line in brought] == names[-1:]
    for name in names[:-1]:
        (old.out / name).unlink()
    old.bring_home()
    assert old.lost() == ""


def test_what_a_finished_cell_removed_before_its_end_is_no_loss(tmp_path: Path) -> None:
    """Nor is it where its name says something of each file that nobody knows."""
    old = Old(tmp_path, "checkpoints/*.ckpt", "torch")
    old.save("checkpoints/widget0.5-step=300.ckpt")
    old.evidence()
    early = last_contact.parse(seal_reading.read_box(old.layout.root)["checkpoints"])
    assert early is not None
    (old.out / "checkpoints/widget0.5-step=300.ckpt").unlink()
    old.save("checkpoints/widget0.6-step=400.ckpt")
    last_contact.note(old.store, IDENTITY, early)
    old.bring_home()
    assert "widget0.5-step=*.ckpt at step 300" in old.lost(), "nobody can say whether its result came of that"
    old.finish()
    old.bring_home()
    assert old.lost() == ""


# --- a step in several files --------------------------------------------------------------------------------------

PAIRS = [
    ("checkpoints/model-step-{}.pt", "checkpoints/optim-step-{}.pt"),
    ("checkpoints/step-{}/model.pt", "checkpoints/step-{}/optim.pt"),
    ("models/step-{}.pt", "optims/step-{}.pt"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_law_2_a_step_that_is_two_files_comes_home_as_two(tmp_path: Path, pair: tuple[str, str]) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    for step in (10, 20):
        for name in pair:
            old.save(name.format(step), step=step)
    receipt = old.bring_home()
    assert sorted(check["path"] for check in receipt["checks"]) == [f"c/a1/out/{name.format(20)}" for name in pair]
    assert old.lost() == ""


@pytest.mark.parametrize("pair", PAIRS)
def test_law_2_one_file_of_a_step_does_not_stand_for_the_other(tmp_path: Path, pair: tuple[str, str]) -> None:
    """It came home before the other one was written."""
    old = Old(tmp_path, "**/*.pt", "torch")
    old.save(pair[0].format(20), step=20)
    old.bring_home()
    assert old.lost() == ""
    old.save(pair[1].format(20), step=20)
    assert f"{pair[1].format('*')} at step 20 (1 file(s)); last durable copy: step 20" in old.lost()
    old.bring_home()
    assert old.lost() == ""


def test_law_2_the_last_whole_step_comes_home_with_one_that_is_being_written(tmp_path: Path) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    for name in ("model-step-20.pt", "optim-step-20.pt", "model-step-30.pt"):
        old.save(name, step=int(name[-5:-3]))
    whole = run_manifest.current(old.layout, "r", snapshot=True)["files"]
    assert sorted(line["path"].rpartition("/")[2] for line in whole) == [
        "model-step-20.pt",
        "model-step-30.pt",
        "optim-step-20.pt",
    ]
    old.bring_home([line for line in whole if "step-30" in line["path"]])
    assert "optim-step-*.pt at step 20" in old.lost(), "the later half of a step is no whole one"
    old.bring_home()
    assert old.lost() == ""


def test_law_2_the_files_of_some_ranks_are_no_step_of_all(tmp_path: Path) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    for rank in range(4):
        old.save(f"step-10/rank{rank}.pt", step=10)
    old.save("step-20/rank0.pt", step=20)
    old.bring_home()
    assert old.lost() == ""
    old.bring_home(
        [line for line in run_manifest.current(old.layout, "r", snapshot=True)["files"] if "-20/" in line["path"]]
    )
    assert "step-*/rank*.pt at step 10 (4 file(s))" in old.lost()


def test_law_2_an_attempt_with_half_of_a_step_does_not_hide_one_with_all_of_it(tmp_path: Path) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    for name in ("model-step-20.pt", "optim-step-20.pt"):
        old.save(name, step=20)
    old.out = Path(attempt.claim(old.layout, old.run, old.run["cells"][0], 2).output)
    old.save("model-step-20.pt", step=20)
    assert {check["path"] for check in old.bring_home()["checks"]} == {
        "c/a1/out/model-step-20.pt",
        "c/a1/out/optim-step-20.pt",
    }
    assert old.lost() == ""


def test_law_2_a_look_of_an_earlier_version_that_names_no_files_is_covered_by_no_copy(tmp_path: Path) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    old.save("step-20.pt", step=20)
    old.bring_home()
    last_contact.note(old.store, IDENTITY, {"r": {"c": Reached(20)}})
    assert old.lost() == "", "a look at the files themselves tells what belongs to that step"
    last_contact.note(old.store, IDENTITY, {"r": {"c": Reached(21)}})
    old.save("step-22.pt", step=22)
    old.bring_home()
    (old.out / "step-22.pt").unlink()
    assert "all files of step 21 (an earlier version looked, which did not note their names)" in old.lost()


def test_law_2_a_status_tells_of_which_files_a_step_consists(tmp_path: Path) -> None:
    old = Old(tmp_path, "**/*.pt", "torch")
    for name in ("model-step-20.pt", "optim-step-20.pt"):
        old.save(name, step=20)
    told = last_contact.of_status(box_status.status(old.layout)["runs"])
    series = (("model-step-*.pt", 20, 1), ("optim-step-*.pt", 20, 1))
    assert told == {"r": {"c": Reached(20, series=series)}}
    last_contact.note(old.store, IDENTITY, told)
    (old.out / "optim-step-20.pt").unlink()
    old.bring_home()
    assert "optim-step-*.pt at step 20" in old.lost()


# --- more than one work of a cell ---------------------------------------------------------------------------------


def test_law_2_a_finished_earlier_spec_does_not_hide_how_far_the_present_one_got(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-1000.pt", step=1000)
    old.finish()
    old.change_spec()
    old.save("checkpoints/step-10.pt", step=10)
    old.bring_home()
    assert old.lost() == ""
    old.save("checkpoints/step-500.pt", step=500)
    assert "r/c: steps 10 to 500" in old.lost()


def test_law_2_what_an_earlier_spec_left_must_be_home_too(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-10.pt", step=10)
    old.change_spec()
    old.save("checkpoints/step-500.pt", step=500)
    old.bring_home(
        [line for line in run_manifest.current(old.layout, "r", snapshot=True)["files"] if "/a2/" in line["path"]]
    )
    lost = old.lost()
    assert ": everything up to step 10; last durable copy: none" in lost
    assert "r/c@" in lost
    old.bring_home()
    assert old.lost() == ""


def test_looks_before_and_after_the_spec_was_changed_are_of_two_works(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")

    def look() -> None:
        last_contact.note(old.store, IDENTITY, last_contact.of_status(box_status.status(old.layout)["runs"]))

    old.save("checkpoints/step-5000.pt", step=5000)
    look()
    old.change_spec()
    old.save("checkpoints/step-2000.pt", step=2000)
    look()
    assert "steps 2000 to 5000" not in old.lost()
    old.bring_home()
    assert old.lost() == ""
    (old.out.parent.parent / "a1" / "out" / "checkpoints" / "step-5000.pt").unlink()
    old.bring_home()
    assert "everything up to step 5000" in old.lost(), "what an earlier look saw of the work before is still missed"


def test_a_spec_that_was_changed_and_not_begun_says_what_the_looks_before_were_of(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-5000.pt", step=5000)
    last_contact.note(old.store, IDENTITY, last_contact.of_status(box_status.status(old.layout)["runs"]))
    old.change_spec()
    shutil.rmtree(old.out.parent)
    old.bring_home()
    reading = seal_reading.read_box(old.layout.root)
    last_contact.note(old.store, IDENTITY, last_contact.parse(reading["checkpoints"]) or {})
    assert old.lost() == ""


def test_a_cell_that_the_spec_dropped_after_a_look_is_home_with_what_it_left(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-100.pt", step=100)
    last_contact.note(old.store, IDENTITY, last_contact.of_status(box_status.status(old.layout)["runs"]))
    old.drop_cell()
    reading = seal_reading.read_box(old.layout.root)
    last_contact.note(old.store, IDENTITY, last_contact.parse(reading["checkpoints"]) or {})
    lost = old.lost()
    assert "everything up to step 100" in lost
    assert "r/c:" not in lost, "it is told once, by its work"
    old.bring_home()
    assert old.lost() == ""


def test_law_2_a_copy_of_an_earlier_version_says_nothing_of_its_work(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-10.pt", step=10)
    old.bring_home(works=None)
    assert "none that counts: that of box1 g1 does not say which of its files are of the present spec" in old.lost()
    old.finish()
    old.bring_home(works=None)
    assert old.lost() == "", "the done record at home says of which spec the cell is"
    old.bring_home(works={"c/a1": {"config_sha256": "short", "present": True}})
    assert "none that counts" in old.lost()


def test_law_2_a_manifest_of_the_same_files_under_another_spec_does_not_say_whose_they_are(tmp_path: Path) -> None:
    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-10.pt", step=10)
    old.bring_home()
    assert old.lost() == ""
    path = tmp_path / "home" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "spec_sha256": "d" * 64}))
    assert "last durable copy: none" in old.lost()

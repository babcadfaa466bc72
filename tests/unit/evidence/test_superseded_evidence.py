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
    last_contact,
    losses,
    receipts,
    roster,
    seal_reading,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, control, records, run_manifest, run_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import status as box_status
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
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

    def bring_home(self, files: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """A snapshot comes home, or of its files only these, and gets the receipt that is returned."""
        manifest = run_manifest.current(self.layout, "r", snapshot=True)
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


def test_law_2_a_finished_cell_has_no_further_checkpoint_whatever_its_name() -> None:
    last = ("model.pt",)
    finished, on_its_way = last_contact.Reached(4, True, last), last_contact.Reached(4, False, last)
    assert last_contact.Reached(4, True).at_least(finished)
    assert not last_contact.Reached(4).at_least(finished)
    assert not last_contact.Reached(3, True).at_least(finished)
    assert not last_contact.Reached(4, True, last).at_least(on_its_way)


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
    assert told == {"r": {"c": last_contact.Reached(unnamed=("checkpoints/last.pt",))}}
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


@pytest.mark.parametrize("name", ["config.json", "optimizer.pt", "model-00001-of-00002.safetensors", "__0_0.distcp"])
def test_law_2_no_single_file_of_a_folder_stands_for_it(name: str) -> None:
    path = f"c/a1/out/checkpoints/checkpoint-600/{name}"
    for loader in ("hf", "dcp"):
        assert losses._reached([{"path": path, "loader": loader, "ok": True, "step": 600}]) == {}


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
    assert losses._reached([{"path": path, "loader": loader, "ok": True}]) == {"c": last_contact.Reached(600)}


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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The copy of a box at rest: what it may prove, what in it is refused, and when it may be deleted."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import copied_records, resting_copy
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, control, records, run_manifest, seal
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.evidence import Evidence, ProviderView, ReceiptEvidence
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.gate import CopyEvidence
from ansible_collections.tenant.gpu.plugins.module_utils.last_contact import Reached
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

CALLER = control.Caller(())
IDENTITY = BoxIdentity("p", "b1", 1, "7")
MODEL = "runs/r/c1/a1/out/model.bin"


class Copy:
    """A box with one finished run, and its copy on another box."""

    def __init__(self, folder: Path) -> None:
        self.original = Layout(str(folder / "box"))
        self.root = folder / copied_records.FOLDER / "b1.g1"
        run = {
            "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "r",
            "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"],
            "workdir": "/", "cells": [{"id": "c1", "args": [], "seed": 5}],
            "artifacts": [{"glob": "model.bin", "role": "checkpoint", "loader": "none"}],
        }  # fmt: skip
        control.register(self.original, CALLER, run)
        paths = self.original.attempt("r", "c1", 1)
        Path(paths.output).mkdir(parents=True)
        Path(paths.output, "model.bin").write_bytes(b"weights" * 100)
        line = run_manifest._line(paths, "out/model.bin", "checkpoint", "none")
        known = control.run_record.read_run(self.original, "r")
        keys = attempt.work(known, known["cells"][0], 1)
        records.write_record(paths.done, "done", dict(keys, artifacts=[line], skipped=[]))
        Path(self.original.run_dir("r"), "secrets.env").write_text("KEY=secret\n")

    def arrive(self) -> Path:
        """Copy as rsync does: times kept, nothing deleted."""
        shutil.copytree(self.original.root, self.root, symlinks=True, dirs_exist_ok=True)
        return self.root

    def examine(self) -> dict[str, Any]:
        return copied_records.examine(str(self.root))

    def refused(self) -> str:
        with pytest.raises(TenantFailure) as caught:
            self.examine()
        assert caught.value.kind == "evidence_missing"
        return caught.value.what


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path)
    made.arrive()
    return made


def test_a_box_that_was_never_sealed_is_sealed_in_its_copy(copy: Copy) -> None:
    answer = copy.examine()
    (run,) = answer["seal"]["runs"]
    assert (run["run_id"], run["state"]) == ("r", "done")
    assert run["manifest_digest"] == run_manifest.current(Layout(str(copy.root)), "r")["digest"]
    assert answer["seal"]["made_of"] == copied_records.MADE_OF_COPY
    assert (answer["live_cells"], answer["problems"], answer["unlisted_runs"]) == ([], [], [])
    assert not os.path.exists(copy.original.seal), "the box itself made no promise"


def test_the_copy_proves_what_the_box_itself_would_have(copy: Copy) -> None:
    digest = copy.examine()["seal"]["runs"][0]["manifest_digest"]
    assert digest == seal.seal(copy.original, CALLER, False, None)["seal"]["runs"][0]["manifest_digest"]


def test_a_seal_of_the_supervisor_is_taken_as_it_is(copy: Copy) -> None:
    promised = seal.seal(copy.original, CALLER, False, None)["seal"]
    copy.arrive()
    answer = copy.examine()
    assert answer["seal"] == promised
    assert answer["problems"] == [], "times of arrival are no times of writing"


def test_what_was_written_after_the_seal_is_named(copy: Copy) -> None:
    seal.seal(copy.original, CALLER, False, None)
    late = Path(copy.original.root, "runs/r/c1/a1/out/late.bin")
    late.write_bytes(b"late")
    os.utime(late, (os.stat(copy.original.seal).st_mtime + 2,) * 2)
    copy.arrive()
    assert copy.examine()["problems"] == ["runs/r/c1/a1/out/late.bin was written after the box was sealed"]


def test_an_earlier_look_at_less_does_not_last(copy: Copy) -> None:
    (copy.root / "runs/r/c1/a1/done.json").unlink()
    first = copy.examine()["seal"]["runs"][0]
    assert first["state"] != "done", "a copy without its done record is not of a finished run"
    copy.arrive()
    assert copy.examine()["seal"]["runs"][0]["state"] == "done"


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda root: os.truncate(root / MODEL, 5), "model.bin is not what was verified"),
        (lambda root: (root / MODEL).write_bytes(b"weightz" * 100), "model.bin is not what was verified"),
        (lambda root: (root / MODEL).unlink(), "model.bin is gone"),
        (lambda root: (root / "index.json").unlink(), "index.json did not arrive"),
        (lambda root: os.truncate(root / "index.json", 20), "half-written"),
        (lambda root: (root / "runs/r/run.json").unlink(), "run.json"),
        (shutil.rmtree, "nothing arrived"),
    ],
)
def test_a_copy_that_is_not_whole_is_refused_by_name(copy: Copy, damage: Any, word: str) -> None:
    damage(copy.root)
    assert word in copy.refused()


def test_law_8_secrets_do_not_stay_on_another_strangers_disk(copy: Copy) -> None:
    (copy.root / "index.json").unlink()
    copy.refused()
    assert not list(copy.root.rglob("secrets.env")), "also when the copy is refused"


@pytest.mark.parametrize("name", ["runs/r/c1/a1/out/x", "runs2", "seal.json"])
@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../../../../../etc"])
def test_law_8_no_link_leads_out_of_the_copy(copy: Copy, name: str, target: str) -> None:
    (copy.root / name).symlink_to(target)
    assert "leads out of the copy" in copy.refused()


def test_law_8_a_planted_folder_of_runs_cannot_reach_the_helpers_own(copy: Copy, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.move(copy.root / "runs", own)
    (copy.root / "runs").symlink_to(own)
    (own / "r/manifest.json").write_text("mine")
    (own / "r/secrets.env").write_text("mine")
    assert "leads out of the copy" in copy.refused()
    assert (own / "r/manifest.json").read_text() == "mine"
    assert (own / "r/secrets.env").read_text() == "mine"


def test_law_8_pipes_and_devices_are_refused_and_inner_links_are_not(copy: Copy) -> None:
    (copy.root / "runs/r/c1/a1/out/latest").symlink_to("model.bin")
    copy.examine()
    os.mkfifo(copy.root / "runs/r/pipe")
    assert "neither a file nor a folder" in copy.refused()


# --- the controller's part ----------------------------------------------------------------------------------------


def reading(copy: Copy) -> dict[str, Any]:
    record = {"asked_at": "2026-11-21T03:00:00Z", "dest": "b2", "dest_path": str(copy.root)}
    return resting_copy.reading_of(IDENTITY, record, copy.examine())


def test_the_reading_is_as_old_as_the_request(copy: Copy) -> None:
    found = reading(copy)
    assert found["read_at"] == "2026-11-21T03:00:00Z"
    assert found["at_rest"]["sealed_by"] == "controller"


@pytest.mark.parametrize("key", ["project", "box", "generation", "provider_id"])
def test_records_of_another_box_make_no_reading(copy: Copy, key: str) -> None:
    other = BoxIdentity(**{**IDENTITY.as_dict(), key: 9 if key == "generation" else "other"})
    record = {"asked_at": "2026-11-21T03:00:00Z"}
    with pytest.raises(TenantFailure, match="another box"):
        resting_copy.reading_of(other, record, copy.examine())


def evidence(copy: Copy, **changes: Any) -> Evidence:
    found = reading(copy)
    digest = found["seal"]["runs"][0]["manifest_digest"]
    record = {"manifest_digest": digest}
    receipt = ReceiptEvidence("r.json", record, copies=(CopyEvidence("file:///home", digest),))
    parts = {**vars(receipt), **changes}
    receipts = {"r": ReceiptEvidence(**parts)}
    return Evidence(IDENTITY, "v", (), ProviderView("stopped", None, ""), "", reading=found, receipts=receipts)


def test_what_is_home_may_be_deleted(copy: Copy) -> None:
    assert resting_copy.runs_not_home(evidence(copy)) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"record": None}, "no receipt"),
        ({"problem": "the receipt r.json was edited"}, "was edited"),
        ({"record": {"manifest_digest": "f" * 64}}, "other files"),
        ({"copies": ()}, "names no copy"),
        ({"copies": (CopyEvidence("file:///home", "", ("model.bin is missing",)),)}, "model.bin is missing"),
        ({"copies": (CopyEvidence("file:///home", "e" * 64),)}, "other files"),
    ],
)
def test_law_2_what_is_not_home_is_kept(copy: Copy, changes: dict[str, Any], word: str) -> None:
    (why,) = resting_copy.runs_not_home(evidence(copy, **changes))
    assert why.startswith("run r: ")
    assert word in why


@pytest.mark.parametrize("named_by", ["index", "unlisted", "contact"])
def test_law_2_a_run_that_only_something_else_than_the_seal_names_is_kept(copy: Copy, named_by: str) -> None:
    """The box sealed itself, and was given one more run after."""
    found = evidence(copy)
    reading, contact = dict(found.reading or {}), {}
    if named_by == "index":
        index = dict(reading["index"])
        reading["index"] = dict(index, runs=[*index["runs"], dict(index["runs"][0], run_id="later")])
    elif named_by == "unlisted":
        reading["unlisted_runs"] = ["later"]
    else:
        contact = {"later": {"c1": Reached(3)}}
    receipts = {**found.receipts, "later": found.receipts["r"]}
    (why,) = resting_copy.runs_not_home(replace(found, reading=reading, contact=contact, receipts=receipts))
    assert why.startswith("run later: its seal carries no manifest digest for it")


def test_law_2_a_copy_whose_runs_cannot_be_listed_is_kept(copy: Copy) -> None:
    found = evidence(copy)
    (why,) = resting_copy.runs_not_home(replace(found, reading=dict(found.reading or {}, unlisted_runs=None)))
    assert "cannot be told" in why


def test_deleting_names_every_path_and_size(copy: Copy) -> None:
    (copy.root.parent / ".b1.g1.pyz").write_bytes(b"ours")
    names = {str(path.relative_to(copy.root)) for path in copy.root.rglob("*") if path.is_file()}
    planned = copied_records.remove(str(copy.root), IDENTITY.as_dict(), check=True)
    assert copy.root.exists()
    gone = copied_records.remove(str(copy.root), IDENTITY.as_dict(), check=False)
    assert gone == planned
    assert {line["path"] for line in gone["listed"]} == names
    assert {"path": MODEL, "bytes": 700} in gone["listed"]
    assert not copy.root.parent.exists()
    assert copied_records.remove(str(copy.root), IDENTITY.as_dict(), check=False)["changed"] is False


def test_law_2_no_other_folder_is_deleted(copy: Copy, tmp_path: Path) -> None:
    other = dict(IDENTITY.as_dict(), provider_id="8")
    for root, identity in (
        (copy.original.root, IDENTITY.as_dict()),
        (str(copy.root), other),
        (str(copy.root), dict(IDENTITY.as_dict(), generation=2)),
        (str(copy.root.parent), IDENTITY.as_dict()),
    ):
        with pytest.raises(TenantFailure):
            copied_records.remove(root, identity, check=False)
    assert (copy.root / MODEL).exists()


def test_a_copy_that_is_not_on_record_proves_nothing(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    with pytest.raises(TenantFailure, match="no copy of it is on record"):
        resting_copy.read_record(store, IDENTITY, "/w/h/b1.g1")
    resting_copy.save_record(store, IDENTITY, at_rest=False, dest_path="/w/h/b1.g1")
    with pytest.raises(TenantFailure, match="differs in at_rest"):
        resting_copy.read_record(store, IDENTITY, "/w/h/b1.g1")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Older checkpoints of a finished cell: pruned behind the synced done record, and only what nobody needs."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    artifacts,
    attempt,
    finish,
    gates,
    left_behind,
    pruning,
    records,
    run_record,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

MODEL = {"glob": "model.pt", "role": "other", "loader": "torch"}
EVERY_STEP = {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"}


def write(path: Path, **about: Any) -> None:
    """A zip archive shaped like one of torch.save, with the manifest that tenant_checkpoint puts into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(about, 2))
        archive.writestr("archive/data/0", bytes(range(256)))
        if about:
            archive.writestr("archive/manifest.json", json.dumps(about))


class Box:
    """One cell whose attempt ``a2`` is done after ``a1`` was cut short."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(str(folder / "root"))
        self.mount = folder / "mount"
        self.run = self.record()

    def record(self, **changes: Any) -> dict[str, Any]:
        given = {
            "project": "p", "box": "b1", "generation": 1, "provider_id": "7", "run_id": "digits",
            "spec_sha256": "a" * 64, "code_sha256": "b" * 64, "python": "/usr/bin/python3", "workdir": "/",
            "command": ["true"], "cells": [{"id": "c1"}], "artifacts": [MODEL],
            "durable": {"kind": "mount", "path": str(self.mount)},
        }  # fmt: skip
        return run_record.check_run({**given, **changes})

    def attempt(self, number: int, *steps: int, best: int | None = None, spec: str = "a" * 64) -> AttemptPaths:
        run = dict(self.run, spec_sha256=spec)
        paths = attempt.claim(self.layout, run, run["cells"][0], number)
        for step in steps:
            write(Path(paths.checkpoints, f"step-{step:010d}.pt"), step=step, best=best)
        return paths

    def finish(self, number: int = 2) -> str:
        """The trainer of the attempt has ended well."""
        paths = self.layout.attempt("digits", "c1", number)
        write(Path(paths.output, "model.pt"))
        attempt.write_exit(paths, attempt.work(self.run, self.run["cells"][0], number), wrapper=0, child=0)
        return finish.finish(self.layout, self.run, self.run["cells"][0], number)

    def prune(self, number: int = 2) -> dict[str, Any] | None:
        return pruning.prune(self.layout, self.run, "c1", number)

    def left(self, number: int) -> list[int]:
        names = os.listdir(self.layout.attempt("digits", "c1", number).checkpoints)
        return sorted(int(name[5:-3]) for name in names if name.startswith("step-"))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """On a folder that passes for a mount."""
    monkeypatch.setattr(gates, "durable_problem", lambda _durable, _root: "")
    return Box(tmp_path)


def finished(box: Box, best: int | None = 3) -> Box:
    box.attempt(1, 1, 2, 3, best=3)
    box.attempt(2, 3, 4, 5, best=best)
    assert box.finish() == "done"
    assert (box.left(1), box.left(2)) == ([1, 2, 3], [3, 4, 5]), "nothing goes before the done record"
    return box


def test_older_ones_go_and_the_best_and_the_newest_stay(box: Box) -> None:
    told = finished(box).prune()
    assert told is not None
    assert (box.left(1), box.left(2)) == ([], [3, 5])
    assert sorted(told["kept"]) == [
        "c1/a2/out/checkpoints/step-0000000003.pt",
        "c1/a2/out/checkpoints/step-0000000005.pt",
    ]
    assert [each["path"][-8:] for each in told["removed"]] == ["00004.pt", "00003.pt", "00002.pt", "00001.pt"]
    assert all(each["bytes"] > 256 for each in told["removed"])
    kept = records.read_record(box.layout.attempt("digits", "c1", 2).pruned, "pruned")
    assert kept["finished_at"]
    assert (kept["problems"], kept["attempt"]) == ([], 2)
    assert "4 older checkpoints pruned" in pruning.sentences(told)[0]
    assert box.prune() is None, "once"


def test_the_best_of_an_earlier_attempt_stays_where_it_is(box: Box) -> None:
    box.attempt(1, 1, 2, best=2)
    box.attempt(2, 4, 5, best=2)
    box.finish()
    box.prune()
    assert (box.left(1), box.left(2)) == ([2], [5])


def test_without_a_metric_only_the_newest_stays(box: Box) -> None:
    finished(box, best=None).prune()
    assert (box.left(1), box.left(2)) == ([], [5])


def test_law_2_what_the_done_record_promises_stays_for_seal_and_harvest(box: Box) -> None:
    box.run = box.record(artifacts=[MODEL, EVERY_STEP])
    finished(box).prune()
    assert (box.left(1), box.left(2)) == ([], [3, 4, 5])


@pytest.mark.parametrize("kind", ["none", "pull", "object"])
def test_law_2_a_disk_that_holds_the_only_copy_is_not_pruned(box: Box, kind: str) -> None:
    box.run = box.record(durable={"kind": kind})
    assert finished(box).prune() is None
    assert (box.left(1), box.left(2)) == ([1, 2, 3], [3, 4, 5])


def test_law_2_a_copy_that_failed_prunes_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "durable_problem", lambda _durable, _root: "the mount is gone")
    box.attempt(1, 1, 2)
    box.attempt(2, 3, 4)
    assert box.finish() == "failed"
    assert box.prune() is None
    assert (box.left(1), box.left(2)) == ([1, 2], [3, 4])


def test_a_run_that_asks_for_none_and_a_sealed_box_are_left_alone(box: Box) -> None:
    finished(box)
    asked, box.run = box.run, box.record(checkpoint={"prune": "none"})
    assert box.prune() is None
    box.run = asked
    records.write_record(box.layout.seal, "seal", {})
    assert box.prune() is None
    assert (box.left(1), box.left(2)) == ([1, 2, 3], [3, 4, 5])


def test_law_3_a_newest_one_that_is_damaged_is_no_anchor(box: Box) -> None:
    paths = box.attempt(2, 3, 4, 5, best=None)
    newest = Path(paths.checkpoints, "step-0000000005.pt")
    newest.write_bytes(newest.read_bytes()[:-50])
    box.finish()
    told = box.prune()
    assert told is not None
    assert told["kept"] == ["c1/a2/out/checkpoints/step-0000000004.pt"]
    assert box.left(2) == [4, 5], "what is later is not judged"


def test_law_3_damaged_ones_of_the_last_attempt_stay_also_below_a_sound_one_of_an_earlier(box: Box) -> None:
    box.attempt(1, 5, 6, best=None)
    paths = box.attempt(2, 5, 6, best=None)
    for path in Path(paths.checkpoints).iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    box.finish()
    box.prune()
    assert (box.left(1), box.left(2)) == ([6], [5, 6])


def test_where_the_best_is_in_doubt_everything_stays(box: Box) -> None:
    paths = box.attempt(2, 3, 4, 5, best=3)
    best = Path(paths.checkpoints, "step-0000000003.pt")
    best.write_bytes(best.read_bytes()[:-50])
    box.finish()
    told = box.prune()
    assert told is not None
    assert told["why_kept"] == ["the best checkpoint (step 3) is nowhere sound, so all of its series stay"]
    assert box.left(2) == [3, 4, 5]


def test_checkpoints_that_name_no_best_stay(box: Box) -> None:
    """Of a trainer with a format of its own."""
    paths = box.attempt(2)
    for step in (1, 2):
        write(Path(paths.checkpoints, f"step-{step:010d}.pt"))
    box.finish()
    told = box.prune()
    assert told is not None
    assert "does not say which checkpoint is the best" in told["why_kept"][0]
    assert box.left(2) == [1, 2]


def test_another_spec_another_series_and_the_quarantine_are_not_touched(box: Box) -> None:
    box.attempt(1, 1, 2, spec="c" * 64)
    paths = box.attempt(2, 4, 5, best=None)
    others = [Path(paths.output, name) for name in ("disc/step-1.pt", "checkpoints/quarantine/step-0000000001.pt")]
    for path in others:
        write(path, step=1, best=None)
    # Promised by nobody, so only their names protect them.
    box.finish()
    box.run = box.record(artifacts=[MODEL, {"glob": "**/step-*.pt", "role": "checkpoint", "loader": "torch"}])
    box.prune()
    assert (box.left(1), box.left(2)) == ([1, 2], [5])
    assert all(path.exists() for path in others)


def test_law_3_a_fold_that_got_further_is_no_anchor_of_another(box: Box) -> None:
    box.run = box.record(artifacts=[MODEL, {"glob": "fold-*/*.pt", "role": "checkpoint", "loader": "torch"}])
    first = box.attempt(1)
    for name, step in (("fold-3/step-9.pt", 9), ("fold-3/step-7.pt", 7), ("fold-4/step-2.pt", 2)):
        write(Path(first.output, name), step=step, best=step)
    second = box.attempt(2)
    write(Path(second.output, "fold-3/step-10.pt"), step=10, best=10)
    assert box.finish() == "done"
    box.prune()
    assert os.listdir(Path(first.output, "fold-3")) == []
    assert os.listdir(Path(first.output, "fold-4")) == ["step-2.pt"]


def test_boxes_that_train_as_one_keep_what_they_may_have_to_go_on_from(box: Box) -> None:
    box.run = box.record(parts=["b1", "b2"], nodes={"count": 2})
    assert finished(box).prune() is None
    assert (box.left(1), box.left(2)) == ([1, 2, 3], [3, 4, 5])


def test_an_error_is_recorded_changes_nothing_else_and_is_made_good(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(box)
    real = os.unlink

    def unlink(path: Any, *words: Any, **more: Any) -> None:
        if str(path).endswith("a1/out/checkpoints/step-0000000002.pt"):
            raise OSError(5, "Input/output error")
        real(path, *words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        told = box.prune()
    assert told is not None
    assert told["problems"] == ["c1/a1/out/checkpoints/step-0000000002.pt could not be removed: Input/output error"]
    assert "the next start tries again" in pruning.sentences(told)[1]
    assert box.left(1) == [2]
    assert attempt.is_done(box.layout.attempt("digits", "c1", 2), attempt.work(box.run, box.run["cells"][0], 2))
    again = box.prune()
    assert again is not None
    assert (box.left(1), again["problems"], len(again["removed"])) == ([], [], 4)


def test_what_cannot_even_be_looked_at_is_recorded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(box)

    def fail(*_words: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(artifacts, "checkpoint_units", fail)
    told = box.prune()
    assert told is not None
    assert told["problems"] == ["PermissionError: [Errno 13] Permission denied"]


def test_a_box_that_stops_in_the_midst_has_told_what_goes_and_goes_on(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    def stop(_one: object) -> str:
        raise Stopped

    finished(box)
    with monkeypatch.context() as patched:
        patched.setattr(pruning, "_remove", stop)
        with pytest.raises(Stopped):
            box.prune()
    half = records.read_record(box.layout.attempt("digits", "c1", 2).pruned, "pruned")
    assert (half["finished_at"], len(half["removed"])) == (None, 4)
    assert box.left(1) == [1, 2, 3]
    box.prune()
    assert (box.left(1), box.left(2)) == ([], [3, 5])


def test_folders_go_whole_and_so_does_what_was_half_saved(box: Box) -> None:
    paths = box.attempt(2)
    for step in (1, 2):
        folder = Path(paths.checkpoints, f"step-{step:010d}.dcp")
        folder.mkdir()
        (folder / "__0_0.distcp").write_bytes(b"shard")
        (folder / "manifest.json").write_text('{"best": null}')
    Path(paths.checkpoints, ".step-0000000003.pt.tmp").write_bytes(b"half")
    box.finish()
    lines = [
        {"path": f"c1/a2/out/checkpoints/step-0000000002.dcp/{name}", "bytes": size}
        for name, size in (("__0_0.distcp", 5), ("manifest.json", 14))
    ]
    done = attempt.read(paths.done, "done")
    records.write_record(paths.done, "done", dict(done, artifacts=done["artifacts"] + lines))
    box.prune()
    assert os.listdir(paths.checkpoints) == ["step-0000000002.dcp"]


# --- checkpoint: {prune: older} -----------------------------------------------------------------------------------


def test_older_ones_are_left_to_the_mount_when_the_run_asks_for_it(box: Box) -> None:
    box.run = box.record(artifacts=[MODEL, EVERY_STEP], checkpoint={"prune": "older"})
    finished(box).prune()
    paths = box.layout.attempt("digits", "c1", 2)
    assert (box.left(1), box.left(2)) == ([], [3, 5])
    done = attempt.read(paths.done, "done")
    assert [line["path"] for line in done["durable_only"]] == ["c1/a2/out/checkpoints/step-0000000004.pt"]
    there = Path(done["durable"]["path"], "out/checkpoints/step-0000000004.pt")
    assert records.sha256_file(str(there)) == done["durable_only"][0]["sha256"]
    assert sorted(line["path"][-8:] for line in done["artifacts"] if line["role"] == "checkpoint") == [
        "00003.pt",
        "00005.pt",
    ]
    # All that the done record promises is there to be read again, and our own record is none that stays behind.
    promised = {"files": [*done["artifacts"], {"path": "c1/a2/done.json"}]}
    assert all(Path(box.layout.run_dir("digits"), line["path"]).exists() for line in done["artifacts"])
    assert left_behind.listing(box.layout, "digits", promised)["files"] == 0


def test_each_glob_keeps_what_proves_it(box: Box) -> None:
    first = {"glob": "checkpoints/step-*1.pt", "role": "checkpoint", "loader": "torch"}
    box.run = box.record(artifacts=[MODEL, first, EVERY_STEP], checkpoint={"prune": "older"})
    box.attempt(2, 11, 21, 24, 25)
    box.finish()
    box.prune()
    assert box.left(2) == [21, 25]


def test_a_glob_that_an_earlier_one_covers_keeps_its_proof_too(box: Box) -> None:
    second = {"glob": "checkpoints/step-*1.pt", "role": "checkpoint", "loader": "torch"}
    box.run = box.record(artifacts=[MODEL, EVERY_STEP, second], checkpoint={"prune": "older"})
    box.attempt(2, 11, 21, 24, 25)
    box.finish()
    box.prune()
    assert box.left(2) == [21, 25]


def test_without_a_mount_older_ones_are_promised_as_ever(box: Box) -> None:
    box.run = box.record(artifacts=[MODEL, EVERY_STEP], checkpoint={"prune": "older"}, durable={"kind": "pull"})
    finished(box)
    done = attempt.read(box.layout.attempt("digits", "c1", 2).done, "done")
    assert len([line for line in done["artifacts"] if line["role"] == "checkpoint"]) == 3
    assert "durable_only" not in done


@pytest.mark.parametrize("mode", ["all", "", False, ["none"]])
def test_a_mode_that_nobody_knows_is_refused(box: Box, mode: object) -> None:
    with pytest.raises(Refused, match="one of none, spare, older"):
        box.record(checkpoint={"prune": mode})

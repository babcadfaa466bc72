# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The whole state of a training: what is saved and restored, what is kept, what is told, what is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import tenant_checkpoint
import torch
from tenant_checkpoint import (
    Checkpointer,
    CheckpointError,
    Metrics,
    ShuffledBatches,
    manifest_of,
    random_state,
    restore_random_state,
)


class Box:
    """Any object with a state."""

    def __init__(self, **state: Any) -> None:
        self.state: dict[str, Any] = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def checkpoints(folder: Path, box: Box | None = None, **options: Any) -> Checkpointer:
    options.setdefault("environ", {})
    return Checkpointer({"box": box or Box()}, directory=str(folder), **options)


def names(folder: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in folder.glob("step-*.pt"))


def test_all_random_numbers_go_on_where_they_were() -> None:
    def draw() -> list[Any]:
        return [random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn(), torch.rand(3).tolist()]

    random.gauss(0, 1)  # leaves half a pair behind, which is part of the state
    numpy.random.randn()
    state = random_state()
    first = draw()
    draw()
    restore_random_state(state)
    assert draw() == first


def test_without_numpy_its_state_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tenant_checkpoint.sys.modules, "numpy")
    state = random_state()
    assert state["numpy"] is None
    restore_random_state(state)


def test_every_named_object_comes_back(tmp_path: Path) -> None:
    def make() -> dict[str, Any]:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=10),
            "milestones": torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD(model.parameters(), lr=0.1), [2, 2, 4]),
            "average": torch.optim.swa_utils.AveragedModel(model),
            "scaler": torch.amp.GradScaler("cpu"),
        }

    things = make()
    saver = Checkpointer(things, ShuffledBatches(20, 4), directory=str(tmp_path), environ={})
    for _step in range(3):
        things["scaler"].scale(things["model"](torch.rand(4, 3)).square().mean()).backward()
        things["scaler"].step(things["optimizer"])
        things["scaler"].update()
        things["scheduler"].step()
        things["average"].update_parameters(things["model"])
        saver.after_step()
    saver.save(wait=True)

    others = make()
    loader = Checkpointer(others, ShuffledBatches(20, 4), directory=str(tmp_path), environ={})
    assert loader.load_latest() == loader.resumed_from == 3
    assert loader.batches is not None
    assert loader.batches.batch == 3
    for name, thing in things.items():
        assert repr(others[name].state_dict()) == repr(thing.state_dict()), name


def test_numbers_of_numpy_are_stored_as_numbers(tmp_path: Path) -> None:
    box = Box(a=numpy.float64(1.5), b=[numpy.int64(3), (numpy.float32(0.5), numpy.bool_(True))], c=signal.SIGTERM)
    checkpoints(tmp_path, box).save(wait=True)
    other = Box()
    checkpoints(tmp_path, other).load_latest()
    assert other.state == {"a": 1.5, "b": [3, (0.5, True)], "c": 15}
    assert [type(other.state["a"]), type(other.state["b"][0]), type(other.state["c"])] == [float, int, int]


def test_containers_keep_their_class(tmp_path: Path) -> None:
    state = OrderedDict(a=Counter(x=2), b={"deep": [None, True, "text", b"bytes"]})
    checkpoints(tmp_path, Box(**state)).save(wait=True)
    other = Box()
    checkpoints(tmp_path, other).load_latest()
    assert other.state == state
    assert isinstance(other.state["a"], Counter)


def test_a_state_that_could_not_be_loaded_is_refused_at_the_first_save(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"torch cannot load it safely.*Let every state_dict hold tensors"):
        checkpoints(tmp_path, Box(a=numpy.zeros(2))).save(wait=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sharded", [False, True])
def test_a_state_that_could_no_longer_be_loaded_is_refused_and_the_save_before_it_stays(
    tmp_path: Path, sharded: bool
) -> None:
    box = Box(a=1)
    saver = checkpoints(tmp_path, box, sharded=sharded)
    saver.step = 1
    safe = saver.save(wait=True)
    for saver.step in (2, 3, 4):
        box.state = {"a": numpy.zeros(2)}
        with pytest.raises(CheckpointError, match=r"torch cannot load it safely.*numpy.*is safe.*Let every state_dict"):
            saver.save(wait=True)
    assert [path.name for path in tmp_path.glob("step-*")] == [Path(safe).name]
    resumed = checkpoints(tmp_path, Box(), sharded=sharded)
    assert resumed.load_latest() == 1


def test_what_has_no_state_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'model' \(int\) has no state_dict"):
        Checkpointer({"model": 3}, environ={})


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    saver = checkpoints(tmp_path, keep_last=2, longest_interval_s=1e9)
    for metric in (0.1, 0.9, 0.5, float("nan"), 0.3, None, 0.2):
        saver.after_step(metric=metric)
        saver.save(wait=True)
    assert names(tmp_path) == [2, 6, 7]
    resumed = checkpoints(tmp_path, keep_last=2)
    resumed.load_latest()
    assert resumed.best == {"step": 2, "metric": 0.9}
    resumed.after_step(metric=0.8)
    resumed.save(wait=True)
    assert names(tmp_path) == [2, 7, 8]
    resumed.after_step(metric=0.95)
    resumed.wait()
    assert names(tmp_path) == [8, 9]


class Tries:
    """Attempts of one cell on a box, each with folders of its own on the disk and on the durable mount."""

    def __init__(self, folder: Path, sharded: bool) -> None:
        self.folder, self.sharded = folder, sharded

    def own(self, number: int) -> Path:
        return self.folder / "box" / f"a{number}"

    def durable(self, number: int) -> Path:
        return self.folder / "mount" / f"a{number}"

    def begin(self, number: int) -> Checkpointer:
        earlier = range(number - 1, 0, -1)
        environ = {
            "TENANT_CHECKPOINT_DIR": str(self.own(number)),
            "TENANT_DURABLE_CHECKPOINT_DIR": str(self.durable(number)),
            "TENANT_RESUME_DIRS": os.pathsep.join(
                [*map(str, map(self.own, earlier)), *map(str, map(self.durable, earlier))]
            ),
        }
        model = torch.nn.Linear(2, 2)
        made = Checkpointer(
            {"model": model}, environ=environ, sharded=self.sharded, keep_last=1, longest_interval_s=1e9
        )
        made.load_latest()
        return made

    def steps(self, number: int) -> list[int]:
        return sorted(int(path.stem[5:]) for path in self.own(number).glob("step-*"))


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def tries(request: pytest.FixtureRequest, tmp_path: Path) -> Tries:
    made = Tries(tmp_path, request.param)
    first = made.begin(1)
    for metric in (0.1, 0.9, 0.5):
        first.after_step(metric=metric)
        first.save(wait=True)
    assert made.steps(1) == [2, 3]
    return made


@pytest.mark.parametrize("from_mount", [False, True])
def test_the_best_of_an_earlier_attempt_comes_along_with_the_first_save(tries: Tries, from_mount: bool) -> None:
    if from_mount:
        shutil.rmtree(tries.own(1))
    for number in (2, 3):
        resumed = tries.begin(number)
        assert resumed.best == {"step": 2, "metric": 0.9}
        assert tries.steps(number) == [], "an attempt that saves nothing must not look as if it had"
        resumed.after_step(metric=0.2)
        resumed.save(wait=True)
        assert tries.steps(number) == [2, resumed.step]
        names = [name for name in os.listdir(tries.own(number)) if name.startswith("step-0000000002")]
        best = manifest_of(str(tries.own(number) / names[0]))
        assert (best["step"], best["best"]) == (2, 2)
        assert manifest_of(resumed.save())["best"] == 2
    resumed.after_step(metric=0.95)
    resumed.save(wait=True)
    assert tries.steps(3) == [6], "a better one replaces it"


def test_where_no_link_can_lead_the_best_is_copied(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_paths: str) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(tenant_checkpoint.os, "link", other_disk)
    tries.begin(2).save(wait=True)
    assert tries.steps(2) == [2, 3]


def test_a_best_one_that_is_damaged_is_taken_from_where_it_is_whole(tries: Tries) -> None:
    (path,) = tries.own(1).glob("step-0000000002*")
    if path.is_dir():
        (path / "manifest.json").unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    tries.begin(2).save(wait=True)
    (taken,) = tries.own(2).glob("step-0000000002*")
    assert manifest_of(str(taken))["step"] == 2


def test_a_best_one_that_is_nowhere_any_more_makes_room_for_another(tries: Tries) -> None:
    for folder in (tries.own(1), tries.durable(1)):
        for path in folder.glob("step-0000000002*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = tries.begin(2)
    assert resumed.best is None
    resumed.after_step(metric=0.3)
    resumed.wait()
    assert resumed.best == {"step": 4, "metric": 0.3}
    assert tries.steps(2) == [4]


def test_the_lower_metric_can_be_the_better_one_and_is_saved_at_once(tmp_path: Path) -> None:
    saver = checkpoints(tmp_path, keep_last=1, best="min", longest_interval_s=1e9)
    for metric in (3.0, 1.0, 2.0):
        saver.after_step(metric=metric)
    saver.wait()
    assert names(tmp_path) == [2]


def test_later_steps_than_this_one_are_never_pruned(tmp_path: Path) -> None:
    later = checkpoints(tmp_path, keep_last=1)
    later.step = 50
    later.save(wait=True)
    earlier = checkpoints(tmp_path, keep_last=1)
    for earlier.step in (1, 2, 3):
        earlier.save(wait=True)
    assert names(tmp_path) == [3, 50]


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    saver = checkpoints(tmp_path)
    saver.step = 4
    path = Path(saver.save(wait=True))
    inode = path.stat().st_ino
    assert saver.save(wait=True) == str(path)
    assert path.stat().st_ino == inode
    resumed = checkpoints(tmp_path)
    resumed.load_latest()
    resumed.save(wait=True)
    assert path.stat().st_ino == inode


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(tmp_path: Path) -> None:
    path = Path(checkpoints(tmp_path, config={"seed": 1, "lr": 0.1}).save(wait=True))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"another run: lr was 0.1, is None, seed was 1, is 2\. .*its own folder"):
        checkpoints(tmp_path, config={"seed": 2}).load_latest()
    assert path.read_bytes() == before


def test_a_configured_value_that_is_no_number_is_the_same_value_at_the_resume(tmp_path: Path) -> None:
    checkpoints(tmp_path, config={"clip": float("nan")}).save(wait=True)
    checkpoints(tmp_path, config={"clip": float("nan")}).load_latest()
    with pytest.raises(CheckpointError, match="clip was nan, is 1"):
        checkpoints(tmp_path, config={"clip": 1}).load_latest()


def test_a_checkpoint_of_other_objects_is_refused(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(wait=True)
    with pytest.raises(CheckpointError, match=r"holds \['box'\], this script has \['model'\]"):
        Checkpointer({"model": Box()}, directory=str(tmp_path), environ={}).load_latest()


def test_where_things_are_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Checkpointer({}, environ={}).directory == str(tmp_path / "checkpoints")
    environ = {
        "TENANT_CHECKPOINT_DIR": str(tmp_path / "c"),
        "TENANT_RESUME_DIRS": os.pathsep.join(["/a", "", "/b"]),
        "TENANT_MU_S": "3600",
    }
    told = Checkpointer({}, environ=environ)
    assert (told.directory, told.resume_dirs, told.cadence.losses.guess_s) == (
        str(tmp_path / "c"),
        ["/a", "/b"],
        3600.0,
    )
    assert Checkpointer({}, directory="here", environ=environ).directory == str(tmp_path / "here")
    assert Checkpointer({}, environ={}).cadence.losses.guess_s == 3 * 3600
    with pytest.raises(CheckpointError, match="TENANT_MU_S is 'soon'"):
        Checkpointer({}, environ={"TENANT_MU_S": "soon"})


def test_a_new_run_says_nothing_and_a_resumed_one_says_from_where(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    saver = checkpoints(tmp_path, metrics=str(metrics), total_steps=9)
    assert saver.load_latest() == 0
    saver.after_step(loss=torch.tensor(0.5), accuracy=numpy.float32(0.25))
    saver.wait()
    checkpoints(tmp_path, metrics=str(metrics)).load_latest()
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert lines[0].pop("trained_s") >= 0
    assert lines == [
        {"step": 1, "steps": 9, "epoch": 0, "loss": 0.5, "accuracy": 0.25},
        {"resumed_from": 1, "path": str(tmp_path / "step-0000000001.pt"), "deterministic": False},
    ]


def test_metrics_can_be_written_less_often_but_the_last_step_is(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    saver = checkpoints(tmp_path, metrics=str(metrics), metrics_every=3, total_steps=8, longest_interval_s=1e9)
    for _step in range(8):
        saver.after_step(loss=1.0)
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [3, 6, 8]


def test_a_loss_that_is_no_number_is_still_json(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    Metrics(str(metrics)).write({"step": 1, "loss": float("nan"), "grad": float("inf")})
    assert json.loads(metrics.read_text()) == {"step": 1, "loss": None, "grad": None, "non_finite": ["grad", "loss"]}


class MetaTensor(torch.Tensor):
    """As MONAI's: a tensor of another package."""


class DTensor(torch.Tensor):
    """By its name. The numbers of a real one are asked of all ranks, and only one of them writes metrics."""

    def item(self) -> Any:
        raise AssertionError("the other ranks would have to be asked")

    tolist = item

    def __str__(self) -> str:
        return "DTensor"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (torch.ones(1, 1), 1.0),
        (torch.tensor([0.5, 0.25]), [0.5, 0.25]),
        (torch.nn.Parameter(torch.tensor(2.5)), 2.5),
        (torch.tensor(0.5).as_subclass(MetaTensor), 0.5),
        (torch.ones(2).as_subclass(MetaTensor), [1.0, 1.0]),
        (torch.ones(2).as_subclass(DTensor), "DTensor"),
        (numpy.arange(3), [0, 1, 2]),
        (numpy.zeros(1000), "1000 values"),
        ({"a": [1, numpy.float32(0.5)]}, {"a": [1, 0.5]}),
        ({1, 2}, "{1, 2}"),
        (Path("/x"), "/x"),
    ],
)
def test_whatever_is_given_for_a_metrics_line_the_training_goes_on(tmp_path: Path, given: Any, written: Any) -> None:
    metrics = tmp_path / "metrics.jsonl"
    checkpoints(tmp_path, metrics=str(metrics)).after_step(loss=given, extra=given)
    line = json.loads(metrics.read_text())
    assert (line["loss"], line["extra"]) == (written, written)


def test_a_list_with_what_is_no_number_is_still_json(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    Metrics(str(metrics)).write({"step": 1, "norms": [1.0, float("nan")]})
    assert json.loads(metrics.read_text()) == {"step": 1, "norms": None, "non_finite": ["norms"]}


def test_a_line_half_written_by_a_killed_process_spoils_only_itself(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n{"st')
    Metrics(str(metrics)).write({"step": 2})
    assert metrics.read_text() == '{"step": 1}\n{"st\n{"step": 2}\n'


def test_metrics_that_cannot_be_written_do_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics("/dev/full")
    metrics.write({"step": 1})
    metrics.write({"step": 2})
    assert len(caplog.records) == 1
    assert "training goes on without them" in caplog.text


def test_sigterm_saves_at_the_next_step_and_asks_to_leave(tmp_path: Path) -> None:
    saver = checkpoints(tmp_path, longest_interval_s=1e9)
    saver.after_step()
    saver.after_step()
    saver.wait()
    assert names(tmp_path) == [1]
    os.kill(os.getpid(), signal.SIGTERM)
    assert not saver.should_stop, "nothing is saved yet"
    saver.after_step()
    assert saver.should_stop
    assert names(tmp_path) == [1, 3]


def test_sigterm_in_the_middle_of_a_save_does_not_disturb_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = checkpoints(tmp_path)
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        replace(source, target)

    monkeypatch.setattr(tenant_checkpoint.os, "replace", interrupted)
    saver.step = 1
    saver.save(wait=True)
    assert checkpoints(tmp_path).load_latest() == 1
    monkeypatch.undo()
    saver.after_step()
    assert saver.should_stop
    assert names(tmp_path) == [1, 2]


def test_in_a_thread_there_is_no_signal_handler_but_all_else_works(tmp_path: Path) -> None:
    thread = threading.Thread(target=lambda: checkpoints(tmp_path).save(wait=True))
    thread.start()
    thread.join(600)
    assert names(tmp_path) == [0]


def test_time_of_earlier_attempts_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(tenant_checkpoint.time, "monotonic", lambda: now[0])
    first = checkpoints(tmp_path)
    first.load_latest()
    now[0] += 40
    first.save(wait=True)
    now[0] += 1000  # work that was lost
    second = checkpoints(tmp_path)
    second.load_latest()
    now[0] += 2
    assert second.trained_s == 42

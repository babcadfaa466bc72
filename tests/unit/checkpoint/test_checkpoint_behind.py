# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Saving behind the training: what the copy is, when the next save waits, where a failure shows, what SIGTERM does."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tenant_checkpoint
import torch
from step_clock import WRITE, count_steps
from tenant_checkpoint import Checkpointer, CheckpointError, HostCopy, find_newest, read_checkpoint

WAIT_S = 600


class Disk:
    """Holds every write of a checkpoint until it is let go, or fails it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.failure: OSError | None = None
        self.active = self.most_active = 0
        self._replace = os.replace
        monkeypatch.setattr(tenant_checkpoint.os, "replace", self.replace)

    def replace(self, source: str, target: str) -> None:
        if target.endswith(".pt"):
            self.active += 1
            self.most_active = max(self.active, self.most_active)
            self.reached.set()
            assert self.go.wait(WAIT_S)
            self.active -= 1
            if self.failure is not None:
                raise self.failure
        self._replace(source, target)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def model_of(value: float) -> torch.nn.Linear:
    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    return model


def saver(folder: Path, model: Any, **options: Any) -> Checkpointer:
    options.setdefault("environ", {})
    return Checkpointer({"model": model}, directory=str(folder), longest_interval_s=1e9, **options)


def weight_in(path: str) -> list[float]:
    weights: list[float] = read_checkpoint(path)["objects"]["model"]["weight"].flatten().tolist()
    return weights


def wait_for_step(checkpoints: Checkpointer, step: int) -> None:
    until = time.monotonic() + WAIT_S
    while checkpoints.step < step:
        assert time.monotonic() < until, f"it stands at step {checkpoints.step}"
        time.sleep(0.005)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def test_what_is_saved_is_the_state_at_the_call_however_the_training_goes_on(tmp_path: Path, disk: Disk) -> None:
    model = model_of(1.0)
    checkpoints = saver(tmp_path, model)
    path = checkpoints.save()
    assert disk.reached.wait(WAIT_S)
    torch.nn.init.constant_(model.weight, 2.0)
    disk.go.set()
    checkpoints.wait()
    assert weight_in(path) == [1.0, 1.0, 1.0]


class Average:
    """A state that torch knows nothing of, changed in place as the training goes on."""

    def __init__(self, value: float) -> None:
        self.tensor = torch.full((1000,), value)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.tensor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tensor.copy_(state["average"])


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_changed_in_place_behind_a_save_is_saved_as_it_was(tmp_path: Path, disk: Disk, sharded: bool) -> None:
    def averages(value: float) -> tuple[Checkpointer, Average, Average]:
        of_all, of_rank = Average(value), Average(value)
        objects = {"model": model_of(value), "of_all": of_all, "of_rank": of_rank}
        options: dict[str, Any] = {"sharded": sharded, "per_rank": ["of_rank"], "environ": {}}
        return Checkpointer(objects, directory=str(tmp_path), **options), of_all, of_rank

    checkpoints, of_all, of_rank = averages(1.0)
    checkpoints.step = 4
    checkpoints.save()
    assert disk.reached.wait(WAIT_S)
    of_all.tensor.fill_(2.0)
    of_rank.tensor.fill_(2.0)
    disk.go.set()
    checkpoints.wait()
    resumed, of_all, of_rank = averages(0.0)
    assert resumed.load_latest() == 4
    assert of_all.tensor.unique().tolist() == [1.0]
    assert of_rank.tensor.unique().tolist() == [1.0]


def test_a_second_save_waits_and_never_overlaps(tmp_path: Path, disk: Disk) -> None:
    checkpoints = saver(tmp_path, model_of(1.0))
    checkpoints.save()
    assert disk.reached.wait(WAIT_S)
    checkpoints.step = 1
    second = threading.Thread(target=checkpoints.save)
    second.start()
    second.join(0.2)
    assert second.is_alive(), "the second save did not wait for the first"
    assert names(tmp_path) == []
    disk.go.set()
    second.join(WAIT_S)
    checkpoints.wait()
    assert disk.most_active == 1
    assert names(tmp_path) == ["step-0000000000.pt", "step-0000000001.pt"]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_copy_is_whole_however_many_threads_make_it(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(tenant_checkpoint, "_MOVED_AT_ONCE", 1000)
    monkeypatch.setattr(tenant_checkpoint, "_WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    movers: set[str] = set()
    began = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (movers.add(self.name), began(self))[1])
    state = {f"t{number}": torch.randn(number * 777 + 1) for number in range(8)}
    copier = HostCopy()
    for _again in range(2):
        copied = copier.take(state)
        copier.ready()
        assert all(torch.equal(copied[name], state[name]) for name in state)
        assert all(copied[name].data_ptr() != state[name].data_ptr() for name in state)
        for tensor in state.values():
            tensor.add_(1.0)
    assert bool(movers) == (threads > 1)


def test_a_write_that_takes_too_long_holds_the_training_at_the_end_of_the_interval(tmp_path: Path, disk: Disk) -> None:
    """On a clock of steps, three of them an interval: the save begins after two, and may cost no more than three."""
    checkpoints = Checkpointer({"model": model_of(1.0)}, directory=str(tmp_path), longest_interval_s=3.0, environ={})
    count_steps(checkpoints)
    checkpoints.cadence.begin(save_s=1.0, write_s=WRITE)

    def train() -> None:
        while checkpoints.step < 9:
            checkpoints.after_step()

    training = threading.Thread(target=train)
    training.start()
    assert disk.reached.wait(WAIT_S)
    wait_for_step(checkpoints, 3)
    training.join(0.3)
    assert training.is_alive()
    assert names(tmp_path) == []
    assert checkpoints.step == 3, "it went on, with more than an interval at risk"
    disk.go.set()
    training.join(WAIT_S)
    checkpoints.wait()
    assert checkpoints.step == 9
    assert names(tmp_path)[-1] == "step-0000000008.pt"


CALLS: dict[str, Callable[[Checkpointer], object]] = {
    "after_step": lambda checkpoints: checkpoints.after_step(),
    "save": lambda checkpoints: checkpoints.save(),
    "wait": lambda checkpoints: checkpoints.wait(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_failed_write_shows_at_the_next_call_once_and_says_what_is_safe(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    checkpoints = saver(tmp_path, model_of(1.0), metrics=str(metrics))
    disk.go.set()
    safe = checkpoints.save(wait=True)
    disk.failure = OSError(errno.ENOSPC, "No space left on device")
    checkpoints.step = 5
    checkpoints.save()
    thread = checkpoints._behind._thread
    assert thread is not None
    thread.join(WAIT_S)
    said = r"cannot save .*step-0000000005.pt: .*No space left.*step-0000000000.pt is safe"
    with pytest.raises(CheckpointError, match=said):
        CALLS[call](checkpoints)
    checkpoints.wait()
    assert "No space left" in caplog.text
    assert "No space left" in json.loads(metrics.read_text().splitlines()[0])["checkpoint_failed"]
    assert find_newest([str(tmp_path)]).path == safe
    disk.failure = None
    checkpoints.step = 6
    checkpoints.save(wait=True)
    assert names(tmp_path) == ["step-0000000000.pt", "step-0000000006.pt"]


def test_a_process_that_ends_without_another_call_still_finishes_the_write(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        saver(tmp_path, model_of(4.0)).save()
        threading._shutdown()  # as the interpreter does when it ends
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert weight_in(find_newest([str(tmp_path)]).path) == [4.0, 4.0, 4.0]


def test_without_asynchronous_the_file_is_there_when_save_returns(tmp_path: Path) -> None:
    checkpoints = saver(tmp_path, model_of(3.0), asynchronous=False)
    path = checkpoints.save()
    assert not checkpoints._behind.busy
    assert weight_in(path) == [3.0, 3.0, 3.0]


def test_too_little_memory_for_the_copy_makes_it_save_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory(_size: int, _pinned: bool) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(tenant_checkpoint, "_host_space", no_memory)
    path = saver(tmp_path, model_of(3.0)).save()
    assert weight_in(path) == [3.0, 3.0, 3.0]
    assert "saves hold the training" in caplog.text


# ------------------------------------------------------------------------------------------ the copy


def test_the_copy_is_equal_apart_and_keeps_what_is_shared() -> None:
    whole = torch.arange(600_000, dtype=torch.float32)
    state = {
        "whole": whole,
        "view": whole[5:500:3],
        "turned": whole.reshape(600, 1000).t(),
        "half": torch.ones(7, dtype=torch.bfloat16),
        "none": torch.empty(0),
        "scalar": torch.tensor(3),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64).conj(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "list": [torch.zeros(2), {"deep": (torch.ones(1), "text")}],
    }
    copied = HostCopy().take(state)
    for name in ("whole", "view", "turned", "half", "none", "scalar", "complex", "parameter"):
        assert torch.equal(copied[name], state[name]), name
        assert copied[name].dtype == state[name].dtype
        assert copied[name].data_ptr() != state[name].data_ptr() or not state[name].numel()
    assert torch.equal(copied["sparse"].to_dense(), torch.eye(3))
    assert copied["whole"].untyped_storage().data_ptr() == copied["view"].untyped_storage().data_ptr()
    assert copied["list"][1]["deep"][1] == "text"
    whole.zero_()
    assert copied["whole"][1] == 1.0


def test_the_next_copy_uses_the_space_of_the_last() -> None:
    host, state = HostCopy(), {"big": torch.ones(1 << 20), "small": torch.ones(3), "other": torch.zeros(1 << 20)}
    first = host.take(state)
    places = {tensor.data_ptr() for tensor in first.values()}
    state["big"] += 1
    second = host.take(state)
    assert {tensor.data_ptr() for tensor in second.values()} == places
    assert second["big"][0] == 2.0
    del state["other"]
    host.take(state)
    assert sum(len(spaces) for spaces in host._used.values()) == 2


# ------------------------------------------------------------------------------------------ being stopped


def test_sigterm_waits_for_the_save_that_it_begins(tmp_path: Path) -> None:
    checkpoints = saver(tmp_path, model_of(1.0))
    checkpoints.after_step()
    os.kill(os.getpid(), signal.SIGTERM)
    checkpoints.after_step()
    assert checkpoints.should_stop
    assert names(tmp_path) == ["step-0000000001.pt", "step-0000000002.pt"]


def test_an_attempt_that_was_stopped_and_saved_all_in_time_is_no_loss(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        checkpoints = saver(tmp_path, model_of(1.0))
        checkpoints.load_latest()
        assert checkpoints.cadence.losses.seen == 0
        checkpoints.after_step()
        os.kill(os.getpid(), signal.SIGTERM)
        checkpoints.after_step()
        assert checkpoints.should_stop
        assert checkpoints.step == 2 * number
    (tmp_path / "attempts.json").unlink()
    checkpoints = saver(tmp_path, model_of(1.0))
    checkpoints.load_latest()
    assert checkpoints.cadence.losses.seen == 0, "the checkpoint says it too, on a box that has nothing else"
    checkpoints.after_step()
    saver(tmp_path, model_of(1.0)).load_latest()
    assert json.loads((tmp_path / "attempts.json").read_text())["seen"] == 1, "this one just vanished"


def test_with_too_little_grace_no_save_is_begun_and_the_one_under_way_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saver(tmp_path, model_of(1.0), environ={"TENANT_GRACE_S": "20"})
    checkpoints.after_step()
    checkpoints.wait()
    checkpoints.cadence.begin(save_s=15.0, write_s=10.0)
    os.kill(os.getpid(), signal.SIGTERM)
    checkpoints.after_step()
    assert checkpoints.should_stop
    assert names(tmp_path) == ["step-0000000001.pt"]
    assert "a save takes 25.0 s" in caplog.text


def test_a_save_under_way_at_sigterm_is_waited_for_as_long_as_the_grace_and_no_longer(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saver(tmp_path, model_of(1.0), environ={"TENANT_GRACE_S": "0.3"})
    checkpoints.save()
    assert disk.reached.wait(WAIT_S)
    os.kill(os.getpid(), signal.SIGTERM)
    checkpoints.after_step()
    assert checkpoints.should_stop
    assert "not done within the grace" in caplog.text
    assert names(tmp_path) == []
    disk.go.set()
    checkpoints.wait()
    assert names(tmp_path) == ["step-0000000000.pt"]


def test_a_write_that_outlasts_the_grace_leaves_the_save_before_it(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saver(tmp_path, model_of(1.0), environ={"TENANT_GRACE_S": "0.3"})
    disk.go.set()
    safe = checkpoints.save(wait=True)
    checkpoints.cadence.begin(save_s=0.0)
    disk.go.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    checkpoints.after_step()
    assert checkpoints.should_stop
    assert "not done within the grace" in caplog.text
    assert not checkpoints._pace.attempts.ends_whole
    assert find_newest([str(tmp_path)]).path == safe
    disk.go.set()
    checkpoints.wait()


# ------------------------------------------------------------------------------------------ the durable copy


def test_each_save_is_copied_durably_pruned_there_and_found_again(tmp_path: Path) -> None:
    own, durable = tmp_path / "own", tmp_path / "durable"
    checkpoints = saver(own, model_of(7.0), durable_dir=str(durable), keep_last=1)
    for checkpoints.step in (1, 2, 3):
        checkpoints.save(wait=True)
    assert checkpoints.durable_step == 3
    assert names(durable) == ["step-0000000003.pt"]
    assert (durable / names(durable)[0]).read_bytes() == (own / names(own)[0]).read_bytes()
    model = model_of(0.0)
    elsewhere = saver(tmp_path / "new box", model, environ={"TENANT_DURABLE_CHECKPOINT_DIR": str(durable)})
    assert elsewhere.load_latest() == 3
    assert model.weight[0, 0].item() == 7.0


def test_a_durable_disk_that_fails_does_not_end_the_training_but_the_last_save_insists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saver(tmp_path / "own", model_of(7.0), durable_dir=str(tmp_path / "durable"))
    whole = tenant_checkpoint._sha256

    def torn(path: str, into: Any = None) -> tuple[str, int]:
        digest, size = whole(path, into)
        return (digest, size - 1) if "/durable/" in path else (digest, size)

    monkeypatch.setattr(tenant_checkpoint, "_sha256", torn)
    checkpoints.after_step()
    checkpoints.wait()
    assert checkpoints.durable_step is None
    assert "reads back differently" in caplog.text
    checkpoints.after_step()
    with pytest.raises(CheckpointError, match=r"is whole, but it cannot be copied to .*durable.*run the same command"):
        checkpoints.save(wait=True)
    assert names(tmp_path / "durable") == []
    monkeypatch.undo()
    checkpoints.save(wait=True)
    assert names(tmp_path / "durable") == ["step-0000000002.pt"]


@pytest.mark.parametrize("place", ["own", "durable"])
def test_an_old_checkpoint_that_cannot_be_removed_does_not_make_a_whole_save_a_failed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    unlink = os.unlink

    def stuck(path: str) -> None:
        if os.fspath(path).startswith(str(tmp_path / place / "step-")):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path)

    own, durable = tmp_path / "own", tmp_path / "durable"
    checkpoints = saver(own, model_of(7.0), durable_dir=str(durable), keep_last=1)
    monkeypatch.setattr(tenant_checkpoint.os, "unlink", stuck)
    for checkpoints.step in (1, 2):
        checkpoints.save(wait=True)
    assert checkpoints.durable_step == 2
    assert names(tmp_path / place) == ["step-0000000001.pt", "step-0000000002.pt"]
    assert "cannot be removed" in caplog.text
    monkeypatch.undo()
    checkpoints.step = 3
    checkpoints.save(wait=True)
    assert names(own) == names(durable) == ["step-0000000003.pt"]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The three sources of progress, and the heartbeat that follows them over restarts and corrections."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    heartbeat,
    process,
    progress_source,
    records,
    run_log,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.progress_source import BadProgress, check
from test_run_records import RUN
from test_tfevents import FILES, event, record

STEP = r"step (?P<step>\d+)"


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [
        ([], "", "a mapping"),
        ({"source": "wandb"}, "source", "none of metrics, tensorboard, regex"),
        ({"source": "tensorboard", "pattern": "x"}, "pattern", "unknown key 'pattern'; known are source, logdir, tag"),
        ({"source": "regex"}, "pattern", "as text"),
        ({"source": "regex", "pattern": "(?P<step>"}, "pattern", "no regular expression"),
        ({"source": "tensorboard", "logdir": "../x"}, "logdir", "below TENANT_OUTPUT_DIR"),
        ({"source": "tensorboard", "logdir": "/root/tf-logs"}, "logdir", "below TENANT_OUTPUT_DIR"),
        ({"source": "tensorboard", "tag": 7}, "tag", "the name of a scalar"),
        ({"total_steps": 0}, "total_steps", "from 1, not 0"),
        ({"total_steps": True}, "total_steps", "from 1"),
    ],
)
def test_a_wrong_wish_is_refused_with_its_key(value: object, key: str, says: str) -> None:
    with pytest.raises(BadProgress, match=re.escape(says)) as refused:
        check(value)
    assert refused.value.key == key


def test_defaults() -> None:
    assert check({}) == {"source": "metrics", "total_steps": None}
    whole = check({"source": "tensorboard", "tag": None})
    assert whole == {"source": "tensorboard", "logdir": ".", "tag": "", "total_steps": None}
    assert check(whole) == whole


@pytest.mark.parametrize(
    ("tags", "best"),
    [
        (["val/loss", "lr", "train/loss"], "train/loss"),
        (["train_loss_step", "train_loss_epoch", "val_loss"], "train_loss_step"),
        (["my_loss", "loss"], "loss"),
        (["accuracy", "eval/loss", "validation_loss"], ""),
        (["Loss/train"], "Loss/train"),
        (["L1Error", "glossary"], ""),
    ],
)
def test_the_tag_of_the_training_loss_is_found(tags: list[str], best: str) -> None:
    assert progress_source.best_tag("", tags) == best


class Attempt:
    """A registered run on the disk, with one attempt to follow; ``now`` is its clock."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(str(folder))
        self.now = 1000.0

    def wants(self, **progress: Any) -> AttemptPaths:
        records.write_record(self.layout.run_record("digits"), "run", dict(RUN, progress=progress))
        paths = self.layout.attempt("digits", "c1", 1)
        os.makedirs(paths.checkpoints, exist_ok=True)
        return paths

    def heart(self) -> heartbeat.Heartbeat:
        return heartbeat.Heartbeat(self.layout, "digits", "c1", 1, clock=lambda: self.now)

    def told(self) -> dict[str, Any]:
        return records.read_record(self.layout.attempt("digits", "c1", 1).progress, "progress")


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


def append(path: str | Path, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as stream:
        stream.write(data)


def test_metrics_lines_are_followed(attempt: Attempt) -> None:
    paths = attempt.wants()
    heart = attempt.heart()
    heart.beat()
    assert attempt.told()["step"] is None
    for step in (10, 30):
        attempt.now += heartbeat.LOOK_S
        append(paths.metrics, f'{{"step": {step}, "steps": 100, "loss": 0.5, "epoch": 2}}\n'.encode())
        heart.beat()
    found = attempt.told()
    assert (found["step"], found["steps"], found["epoch"], found["loss"]) == (30, 100, 2.0, 0.5)
    assert (found["rate"], found["eta_s"]) == (20 / heartbeat.LOOK_S, 35.0)


def test_event_files_are_followed_and_new_ones_found(attempt: Attempt) -> None:
    paths = attempt.wants(source="tensorboard", logdir="tb", total_steps=1000)
    heart = attempt.heart()
    first = Path(paths.output, "tb", "run1", "events.out.tfevents.1.host")
    first.parent.mkdir(parents=True)
    shutil.copy(FILES / "simple_values.tfevents", first)
    heart.beat()
    found = attempt.told()
    assert (found["step"], found["steps"], found["tag"]) == (400, 1000, "train/loss")
    assert found["loss"] == pytest.approx(0.05)
    assert list(found["offsets"].values()) == [first.stat().st_size]
    # The trainer starts a new file, as after a restart of its own.
    attempt.now += progress_source.FIND_EVERY_S
    second = Path(paths.output, "tb", "run2", "events.out.tfevents.2.host")
    append(second, record(event(410, "train/loss", 0.04)) + record(event(3, "epoch", 3.0)))
    os.utime(first, (1, 1))
    heart.beat()
    found = attempt.told()
    assert (found["step"], found["epoch"]) == (410, 3.0)
    assert found["rate"] == pytest.approx(10 / progress_source.FIND_EVERY_S)
    assert heartbeat.signs_of_life(paths) == [str(first), str(second)]


def test_nothing_is_read_twice_not_even_by_the_next_supervisor(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = attempt.wants(source="tensorboard")
    events = Path(paths.output, "events.out.tfevents.1.host")
    append(events, b"".join(record(event(step, "loss", 1.0)) for step in range(100)))
    attempt.heart().beat()
    seen: list[tuple[str, int]] = []
    real = progress_source.tfevents.look
    monkeypatch.setattr(
        progress_source.tfevents, "look", lambda path, offset: seen.append((path, offset)) or real(path, offset)
    )
    heart = attempt.heart()
    heart.beat()
    assert seen == []
    size = events.stat().st_size
    attempt.now += heartbeat.LOOK_S
    append(events, record(event(120, "loss", 1.0)))
    heart.beat()
    assert seen == [(str(events), size)]
    assert (attempt.told()["step"], attempt.told()["rate"]) == (120, pytest.approx(21 / heartbeat.LOOK_S))


def test_only_plain_event_files_are_opened(attempt: Attempt) -> None:
    paths = attempt.wants(source="tensorboard")
    # Opening a fifo would hold the supervisor for ever.
    os.mkfifo(os.path.join(paths.output, "events.out.tfevents.1.host"))
    os.symlink("/dev/zero", os.path.join(paths.output, "events.out.tfevents.2.host"))
    append(os.path.join(paths.output, "events.txt"), b"step 4\n")
    attempt.heart().beat()
    assert (attempt.told()["step"], attempt.told()["offsets"], attempt.told()["problem"]) == (None, {}, "")


def test_a_pattern_is_followed_to_the_last_unfinished_line(attempt: Attempt) -> None:
    paths = attempt.wants(source="regex", pattern=STEP)
    heart = attempt.heart()
    append(paths.log, b"step 5\nstep 6")
    heart.beat()
    assert attempt.told()["step"] == 5
    heart.beat(last=True)
    assert attempt.told()["step"] == 6


@pytest.mark.parametrize(("kept", "lines"), [(1.0, "step 6\nstep 7\n"), (0.5, "")])
def test_what_a_log_held_when_it_was_rotated_is_read_as_far_as_it_was_kept(
    attempt: Attempt, kept: float, lines: str
) -> None:
    paths = attempt.wants(source="regex", pattern=STEP)
    source = progress_source.open_source(paths, check({"source": "regex", "pattern": STEP}), {})
    append(paths.log, b"step 4\nstep 5\n")
    source.look()
    append(paths.log, b"step 6\nstep 7\n")
    whole = Path(paths.log).read_bytes()
    # On a full disk only the end of it is kept.
    Path(run_log.earlier(paths.log)).write_bytes(whole[: int(len(whole) * kept) - 1] if kept < 1 else whole)
    Path(paths.log).write_bytes(b"step 8\n")
    source.look()
    assert [each.step for each in source.told] == [int(line.split()[1]) for line in lines.splitlines()] + [8]
    assert source.kept() == {"offset": 7}


def test_a_slow_pattern_rests_and_says_so(attempt: Attempt) -> None:
    paths = attempt.wants(source="regex", pattern=r"(a+)+(?P<step>\d)")
    heart = attempt.heart()
    append(paths.log, b"a" * 60 + b"!\n")
    heart.beat()
    assert "needs more than" in attempt.told()["problem"]
    append(paths.log, b"aa7\n")
    attempt.now += progress_source.LEAST_REST_S / 2
    heart.beat()
    assert attempt.told()["step"] is None


def test_a_pattern_that_is_corrected_serves_at_once(attempt: Attempt) -> None:
    paths = attempt.wants(source="regex", pattern=r"stepp (?P<step>\d+)")
    heart = attempt.heart()
    append(paths.log, b"step 5\n")
    heart.beat()
    assert attempt.told()["step"] is None
    attempt.wants(source="regex", pattern=STEP)
    attempt.now += heartbeat.LOOK_S
    heart.beat()
    assert attempt.told()["step"] == 5


def test_after_a_reboot_the_pace_begins_anew_and_the_step_stays(attempt: Attempt) -> None:
    paths = attempt.wants(source="regex", pattern=STEP)
    for step in (10, 20):
        append(paths.log, f"step {step}\n".encode())
        attempt.heart().beat()
        attempt.now += 10
    assert attempt.told()["rate"] == 1.0
    kept = dict(attempt.told(), boot=dict(process.current_boot().as_dict(), pid1_start=1))
    records.write_record(paths.progress, "progress", kept)
    append(paths.log, b"hello\n")
    attempt.heart().beat(last=True)
    assert (attempt.told()["step"], attempt.told()["rate"]) == (20, None)


def test_what_status_shows_of_each_source(attempt: Attempt) -> None:
    paths = attempt.wants(source="regex", pattern=STEP, total_steps=40)
    append(paths.log, b"step 10\n")
    append(paths.metrics, b'{"resumed_from": 4}\n{"step": 7, "steps": 9}\n')
    attempt.heart().beat()
    wanted = check({"source": "regex", "pattern": STEP, "total_steps": 40})
    found = heartbeat.reached(paths, wanted, running_s=5.0)
    assert (found["step"], found["steps"], found["rate"], found["eta_s"]) == (10, 40, None, None)
    assert found["resumed_from_step"] == 4
    by_metrics = heartbeat.reached(paths, check({}), running_s=1.5)
    assert (by_metrics["step"], by_metrics["steps"], by_metrics["rate"], by_metrics["eta_s"]) == (7, 9, 2.0, 1.0)
    assert heartbeat.reached(paths, check({}), running_s=None)["eta_s"] is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": "gpu-tenant/progress/v1", "seen": [[1], "x", [2, 3]], "offsets": 7}']
)
def test_a_damaged_record_is_no_end(attempt: Attempt, text: str) -> None:
    paths = attempt.wants(source="tensorboard")
    Path(paths.progress).write_text(text)
    append(os.path.join(paths.output, "events.out.tfevents.1.host"), record(event(3, "loss", 1.0)))
    attempt.heart().beat()
    assert attempt.told()["step"] == 3
    json.dumps(heartbeat.reached(paths, check({"source": "tensorboard"}), 1.0), allow_nan=False)


# --- the last word ------------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def last_word(attempt: Attempt) -> progress_source.Reached:
    return heartbeat.last_word(attempt.layout, "digits", "c1", 1)


def test_the_last_word_is_read_to_the_end_also_where_no_record_could_be_written(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = attempt.wants(source="regex", pattern=STEP, total_steps=40)
    append(paths.log, b"step 5\n")
    attempt.heart().beat()
    append(paths.log, b"step 39")
    monkeypatch.setattr(heartbeat.gates, "has_room_to_tell", lambda _disk: False)
    found = last_word(attempt)
    assert (found.step, found.steps, attempt.told()["step"]) == (39, 40, 5)


@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flipped, id="last record"),
        pytest.param(lambda data: flipped(data) + record(event(4, "loss", 1.0)), id="one before"),
        pytest.param(lambda data: data[:-3], id="torn"),
    ],
)
def test_a_source_that_is_damaged_has_no_last_word(
    attempt: Attempt, looked_at: bool, damage: Callable[[bytes], bytes]
) -> None:
    paths = attempt.wants(source="tensorboard", total_steps=100)
    events = os.path.join(paths.output, "events.out.tfevents.1.host")
    append(events, record(event(3, "loss", 1.0)))
    assert last_word(attempt).step == 3
    append(events, damage(record(event(90, "loss", 1.0))))
    if looked_at:
        attempt.heart().beat(last=True)
    assert last_word(attempt) == progress_source.Reached()


def test_where_nothing_can_be_read_there_is_no_last_word(attempt: Attempt) -> None:
    assert last_word(attempt) == progress_source.Reached()

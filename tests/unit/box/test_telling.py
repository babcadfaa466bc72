# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a supervisor keeps an answer ready, and when it takes it away."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import cli, gates, process, ready_answer, status
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from still_clock import StillClock

NAME = "supervisor-0123456789ab.pyz"


class World:
    """A box whose supervisor and trainer this process is, and what its status says."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(str(folder))
        self.program = self.layout.path("bin", NAME)
        self.cell: dict[str, Any] = {"state": "running", "process": process.myself().as_dict(), "step": 7}
        self.run: dict[str, Any] = {"run_id": "digits", "inputs": None, "cells": [self.cell]}
        self.told: dict[str, Any] = {
            "daemon": {"alive": True, "pid": os.getpid()},
            "runs": [self.run],
            "problems": [],
            "batch": None,
        }
        self.meanwhile: Callable[[], None] = lambda: None

    def status(self, layout: Layout, run_id: str | None = None) -> dict[str, Any]:
        self.meanwhile()
        return self.told

    def tell(self) -> bool:
        return ready_answer.tell(self.layout, self.program)

    @property
    def there(self) -> list[str]:
        return sorted(name for name in os.listdir(self.layout.root) if name.startswith("answer"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(status, "status", made.status)
    return made


def test_the_answer_of_a_trainer_that_lives(world: World) -> None:
    assert world.tell()
    assert world.there == ["answer"]
    proof, answer = Path(world.layout.answer).read_text().splitlines()
    me = process.myself()
    words = proof.split()
    assert words[:5] == ["gpu-tenant/answer/v1", me.boot_id, *map(str, (me.pid1_start, me.pid, me.start))]
    assert words[5:7] == [str(me.pid), str(me.start)]
    assert int(words[8]) - int(words[7]) == ready_answer.MOST_AGE_S
    assert words[9:] == [NAME]
    assert json.loads(answer) == world.told
    assert os.stat(world.layout.answer).st_mode & 0o777 == 0o600


def no_trainer(world: World) -> None:
    world.cell["process"] = None


def dead_trainer(world: World) -> None:
    world.cell["process"] = {**process.myself().as_dict(), "start": 1}


def of_another_life(world: World) -> None:
    world.cell["process"] = {**process.myself().as_dict(), "boot_id": "another"}


def of_a_job(world: World) -> None:
    world.cell["process"] = {**process.myself().as_dict(), "job": "7.0"}


def too_long(world: World) -> None:
    world.told["more"] = "x" * ready_answer.MOST_BYTES


ODD: dict[str, Callable[[World], Any]] = {
    "no trainer": no_trainer,
    "a dead trainer": dead_trainer,
    "a trainer of another life": of_another_life,
    "a trainer of a batch job": of_a_job,
    "nothing runs": lambda world: world.run.update(cells=[]),
    "two cells at work": lambda world: world.run.update(cells=[world.cell, world.cell]),
    "a cell that is verified": lambda world: world.cell.update(state="verifying"),
    "a cell that is copied": lambda world: world.cell.update(state="copying"),
    "inputs on their way": lambda world: world.run.update(inputs={"state": "fetching"}),
    "a damaged record": lambda world: world.told.update(problems=["it is damaged"]),
    "another supervisor": lambda world: world.told.update(daemon={"alive": True, "pid": 1}),
    "a supervisor that ends": lambda world: world.told.update(daemon={"alive": False, "pid": os.getpid()}),
    "more than a shell reads quickly": too_long,
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_not_plain_is_not_told_and_what_was_told_is_taken_away(world: World, case: str) -> None:
    assert world.tell()
    ODD[case](world)
    assert not world.tell()
    assert world.there == []


@pytest.mark.parametrize("program", ["/elsewhere/" + NAME, "bin/supervisor 1.pyz", "bin/other.pyz"])
def test_a_program_that_a_look_cannot_find_tells_nothing(world: World, program: str) -> None:
    assert not ready_answer.tell(world.layout, os.path.join(world.layout.root, program))
    assert world.there == []


def test_a_share_of_a_job_array_tells_nothing(world: World) -> None:
    assert not ready_answer.tell(world.layout.of_share("1-0"), world.program)
    Path(world.layout.batch).write_text("{}")
    assert not world.tell()
    assert world.there == []


def test_a_verb_in_the_midst_of_telling_is_not_passed_over(world: World) -> None:
    """What was read before the verb had its effect must not appear after it."""
    world.meanwhile = lambda: ready_answer.withdraw(world.layout)
    assert not world.tell()
    assert world.there == []


def test_a_verb_right_after_the_rename_finds_it(world: World) -> None:
    assert world.tell()
    ready_answer.withdraw(world.layout)
    assert world.there == []
    ready_answer.withdraw(world.layout)


def test_a_full_disk_leaves_no_old_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.tell()
    monkeypatch.setattr(gates, "has_room_to_tell", lambda disk: False)
    assert not world.tell()
    assert world.there == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_refuses_leaves_no_old_answer(world: World, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert world.tell()

    def refuse(*_words: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        world.tell()
    assert world.there == []


def test_what_an_interrupted_supervisor_left_half_written_is_replaced(world: World) -> None:
    Path(f"{world.layout.answer}.new").write_text("half")
    assert world.tell()
    assert world.there == ["answer"]


def test_a_link_that_somebody_put_there_is_not_followed(world: World, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, f"{world.layout.answer}.new")
    assert world.tell()
    assert victim.read_text() == "mine"


def test_it_is_told_again_and_again_and_not_at_every_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StillClock()
    told: list[float] = []
    monkeypatch.setattr(ready_answer, "tell", lambda layout, program: told.append(clock.now))
    monkeypatch.setattr(ready_answer.time, "thread_time", lambda: 0.0)
    teller = ready_answer.Teller(world.layout, world.program, clock.monotonic)
    for _tick in range(50):
        teller.tick()
        clock.now += 0.5
    assert len(told) == 3


def test_what_takes_long_is_told_seldom(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, spent = StillClock(), iter(range(1000))
    told: list[float] = []
    monkeypatch.setattr(ready_answer, "tell", lambda layout, program: told.append(clock.now))
    # Each takes a second of the processor.
    monkeypatch.setattr(ready_answer.time, "thread_time", lambda: float(next(spent)))
    teller = ready_answer.Teller(world.layout, world.program, clock.monotonic)
    for _tick in range(600):
        teller.tick()
        clock.now += 0.5
    assert told == [told[0]]


@pytest.mark.parametrize("words", [["hold"], ["unseal"], ["resume-all"], ["stop"]])
def test_every_verb_that_changes_something_takes_the_answer_away(
    world: World, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for check in (True, False):
        Path(world.layout.answer).write_text("told")
        options = ["--root", world.layout.root, *(["--check"] if check else []), *words]
        cli.main(options, ["python", world.program])
        assert os.path.exists(world.layout.answer) == check
    capsys.readouterr()


def test_a_look_takes_nothing_away(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    Path(world.layout.answer).write_text("told")
    for verb in ("status", "version"):
        assert cli.main(["--root", world.layout.root, verb], ["python", world.program]) == 0
    assert world.there == ["answer"]
    capsys.readouterr()

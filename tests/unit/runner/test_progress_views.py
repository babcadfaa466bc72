# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import io
import json

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration, size
from rich.console import Console

from gpu_tenant.progress import (
    Event,
    JsonView,
    LiveView,
    PlainView,
    Progress,
    progress_bar,
    training_text,
    view_for,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_say_box_and_time() -> None:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, clock)
    clock.now = 12.34
    view.show(Event("warning", "interrupted", "b1"))
    assert stream.getvalue() == "   12.3s  ! b1: interrupted\n"


def test_plain_view_repeats_training_only_after_a_while() -> None:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, clock)
    for second in range(35):
        clock.now = float(second)
        view.show(Event("training", f"step {second}", "b1"))
    assert [line.split("b1: ")[1] for line in stream.getvalue().splitlines()] == ["step 0", "step 15", "step 30"]


def test_plain_view_tells_of_a_transfer_every_ten_seconds_for_each_box() -> None:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, clock)
    for second in range(21):
        clock.now = float(second)
        for box in ("b1", "b2"):
            view.show(Event("transfer", f"{second} of 20 files", box))
    told = [line.split("s  ")[1].strip() for line in stream.getvalue().splitlines()]
    assert told == [f"{box}: {second} of 20 files" for second in (0, 10, 20) for box in ("b1", "b2")]


def test_plain_view_keeps_task_names_to_itself() -> None:
    stream = io.StringIO()
    PlainView(stream).show(Event("task", "Copy the code", "b1"))
    assert stream.getvalue() == ""


def test_json_lines_are_objects_with_the_data() -> None:
    stream = io.StringIO()
    with Progress(JsonView(stream)) as progress:
        progress.emit("training", "step 1", "b1", step=1, loss=0.5)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["box"], line["step"], line["loss"]) == ("training", "b1", 1, 0.5)


def test_live_view_shows_a_bar_and_prints_what_matters() -> None:
    stream = io.StringIO()
    view = LiveView(Console(file=stream, force_terminal=True, width=120))
    view.show(Event("phase", "deploy", "b1"))
    view.show(Event("training", "", "b1", {"step": 50, "steps": 100, "loss": 0.25}))
    console = Console(width=120)
    with console.capture() as shown:
        console.print(view.table())
    view.show(Event("failure", "lost", "b1"))
    view.close()
    assert "##########.........." in shown.get()
    assert "loss 0.25" in shown.get()
    assert "lost" in stream.getvalue()


def test_live_view_shows_the_transfers_of_several_boxes_until_their_next_task() -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True, width=160))
    console = Console(width=160)
    for box, done in (("b1", 25), ("b2", 75)):
        view.show(Event("phase", "harvest", box))
        view.show(Event("transfer", f"{done} of 100 files", box, {"bytes_done": done, "bytes": 100}))
    with console.capture() as shown:
        console.print(view.table())
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["b1", "harvest", "#####...............", "25%", "25", "of", "100", "files"] in rows
    assert ["b2", "harvest", "###############.....", "75%", "75", "of", "100", "files"] in rows
    view.show(Event("task", "Load what came home", "b1"))
    with console.capture() as later:
        console.print(view.table())
    view.close()
    rows = [line.split() for line in later.get().splitlines()]
    assert ["b1", "harvest", "Load", "what", "came", "home"] in rows
    assert any("75%" in row for row in rows)


def test_a_pipe_gets_plain_lines_and_machines_get_json() -> None:
    assert isinstance(view_for(io.StringIO(), as_json=False), PlainView)
    assert isinstance(view_for(io.StringIO(), as_json=True), JsonView)


@pytest.mark.parametrize(
    ("training", "text"),
    [
        ({}, ""),
        ({"step": 420}, "step 420"),
        ({"step": 420, "steps": 1000, "loss": 0.3125}, "step 420 of 1000, loss 0.3125"),
        ({"steps_per_s": 21.0, "eta_s": 28, "at_risk_s": 12}, "21.0 steps/s, 28 s left, 12 s of work at risk"),
    ],
)
def test_training_text_says_only_what_is_known(training: dict[str, float], text: str) -> None:
    assert training_text(training) == text


@pytest.mark.parametrize(
    ("reached", "whole", "shown"),
    [
        (None, None, ""),
        (1, 0, ""),
        (0, 10, "....................   0%"),
        (30, 10, "#################### 100%"),
    ],
)
def test_bar(reached: float | None, whole: float | None, shown: str) -> None:
    assert progress_bar(reached, whole) == shown


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512 B"), (3_400_000, "3.4 MB"), (5e15, "5000.0 TB")])
def test_size(count: float, text: str) -> None:
    assert size(count) == text

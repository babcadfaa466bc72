# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Progress by a pattern over the log: what is refused, what is found, and what a bad pattern costs."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import log_pattern
from ansible_collections.tenant.gpu.plugins.module_utils.box.log_pattern import Found
from hypothesis import given
from hypothesis import strategies as st

TQDM = log_pattern.compiled(r"(?P<step>\d+)/(?P<total>\d+) .*loss=(?P<loss>\S+?)[\],]")


def look(
    tmp_path: Path, text: str | bytes, pattern: re.Pattern[str], offset: int = 0, whole: bool = False
) -> log_pattern.Look:
    path = tmp_path / "run.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return log_pattern.look(str(path), offset, pattern, whole)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (None, "as text"),
        ("", "as text"),
        ("step (?P<step>", "no regular expression"),
        ("(?P<step>a{99999999999999})", "no regular expression"),
        (r"step (\d+)", "neither a group"),
        (r"(?P<loss>\d+)", "neither a group"),
        (r"(?P<step>\d+) (?P<lr>\d+)", "groups lr"),
        ("(?P<step>x)" + "a" * 500, "500 are allowed"),
    ],
)
def test_a_pattern_that_cannot_serve_is_refused_with_the_reason(pattern: object, says: str) -> None:
    with pytest.raises(log_pattern.BadPattern, match=re.escape(says)):
        log_pattern.compiled(pattern)


def test_a_progress_bar_is_read_though_it_never_ends_its_line(tmp_path: Path) -> None:
    text = "\r 10%|#   | 10/100 [00:01, loss=0.9]\r 20%|##  | 20/100 [00:02, loss=0.8]\r 30%|###"
    found = look(tmp_path, text, TQDM)
    assert found.found == Found(step=20, total=100, loss=0.8)
    assert found.offset == len(text) - len(" 30%|###")


def test_groups_may_stand_on_different_lines(tmp_path: Path) -> None:
    pattern = log_pattern.compiled(
        r"Epoch (?P<epoch>[\d.]+)|step (?P<step>[\d,]+) of (?P<total>[\d,]+)|loss: (?P<loss>\S+)"
    )
    found = look(tmp_path, "Epoch 2.5\nstep 1,250 of 10,000\nloss: 0.25\nloss: nan\n", pattern).found
    assert found == Found(step=1250, total=10000, epoch=2.5, loss=0.25)


@pytest.mark.parametrize("text", ["step x\n", "step -5\n", "step 1e400\n", "step inf\n", "\n\n", "", "step 1.2.3\n"])
def test_words_that_are_no_numbers_say_nothing(tmp_path: Path, text: str) -> None:
    assert look(tmp_path, text, log_pattern.compiled(r"step (?P<step>\S+)")).found == Found()


def test_a_rotated_log_is_read_from_its_start(tmp_path: Path) -> None:
    pattern = log_pattern.compiled(r"step (?P<step>\d+)")
    first = look(tmp_path, "step 1\n" * 100, pattern)
    assert look(tmp_path, "step 200\n", pattern, first.offset).found.step == 200


def test_a_chatty_log_is_read_at_its_end_only(tmp_path: Path) -> None:
    pattern = log_pattern.compiled(r"step (?P<step>\d+)")
    text = "".join(f"{'noise ' * 20}\n" for _line in range(20000)) + "step 7\n"
    found = look(tmp_path, "step 3\n" + text, pattern)
    assert (found.found.step, found.offset) == (7, len("step 3\n") + len(text))


def test_an_unfinished_line_waits_until_the_trainer_has_ended(tmp_path: Path) -> None:
    pattern = log_pattern.compiled(r"step (?P<step>\d+)")
    assert look(tmp_path, "step 1\nstep 23", pattern).found.step == 1
    assert look(tmp_path, "step 1\nstep 23", pattern, whole=True).found.step == 23


def test_a_line_without_end_is_cut_and_holds_nothing_up(tmp_path: Path) -> None:
    pattern = log_pattern.compiled(r"(?P<step>\d+)$")
    text = "x" * 5000 + "9"
    found = look(tmp_path, text, pattern)
    assert (found.found.step, found.offset) == (None, len(text))


@pytest.mark.parametrize("pattern", [r"(a+)+(?P<step>\d)", r"(?:a|aa)+(?P<step>\d)", r"(.*)*x(?P<step>\d)"])
def test_catastrophic_backtracking_is_ended(tmp_path: Path, pattern: str) -> None:
    before = time.process_time()
    found = look(tmp_path, "step 1\n" + "a" * 900 + "!\n" + "b\n", log_pattern.compiled(pattern))
    # Alone, one such line would take longer than the universe is old.
    assert time.process_time() - before < 5
    assert "needs more than" in found.problem
    assert found.offset == len("step 1\n") + 901 + 1 + 2
    # And the next look is unharmed.
    assert look(tmp_path, "aa7\n", log_pattern.compiled(pattern.replace("x", ""))).problem == ""


@given(data=st.binary(max_size=400), whole=st.booleans())
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes, whole: bool) -> None:
    found = look(tmp_path_factory.mktemp("log"), data, TQDM, whole=whole)
    assert 0 <= found.offset <= len(data)
    assert not whole or found.offset == len(data)


@given(steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=30), cut=st.integers(0, 400))
def test_two_looks_find_what_one_finds(tmp_path_factory: pytest.TempPathFactory, steps: list[int], cut: int) -> None:
    pattern = log_pattern.compiled(r"step (?P<step>\d+)\b")
    text = "".join(f"step {step}\n" for step in steps)
    folder = tmp_path_factory.mktemp("log")
    first = look(folder, text[:cut], pattern)
    second = look(folder, text, pattern, first.offset)
    last = second.found.step if second.found.step is not None else first.found.step
    assert last == steps[-1]

# SPDX-License-Identifier: MIT
"""Nobody reads any more: work goes on or ends as it was asked to, and nothing is killed by its own words."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest
from rich.console import Console

from gpu_tenant import outlet
from gpu_tenant.interrupts import Interrupts, taken_as_ctrl_c
from gpu_tenant.progress import JsonView, LiveView, PlainView, Progress, View

LONG = "x" * 200_000


@contextlib.contextmanager
def gone(terminal: bool) -> Iterator[TextIO]:
    """A stream as the command line makes it, whose reader leaves at once."""
    theirs, ours = pty.openpty() if terminal else os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        with open(ours, "w", encoding="utf-8", closefd=False) as stream:
            made = outlet.lasting(stream)
            os.close(theirs)
            yield made


def views(stream: TextIO) -> list[View]:
    return [JsonView(stream), PlainView(stream), LiveView(Console(file=stream, force_terminal=True))]


@pytest.mark.parametrize("terminal", [False, True])
def test_what_nobody_reads_is_dropped_and_ends_nothing(terminal: bool) -> None:
    with gone(terminal) as stream:
        assert not outlet.is_gone(stream)
        for view in views(stream):
            with Progress(view) as progress:
                for kind in ("phase", "training", "transfer", "warning", "failure", "result"):
                    progress.emit(kind, "told to nobody", "box-1", step=1)
        assert outlet.is_gone(stream)


@pytest.mark.parametrize("terminal", [False, True])
def test_without_the_outlet_it_would_have_failed(terminal: bool) -> None:
    theirs, ours = pty.openpty() if terminal else os.pipe()
    os.close(theirs)
    with pytest.raises(OSError, match=r"Broken pipe|Input/output error"):
        os.write(ours, b"told to nobody")
    os.close(ours)


def test_a_full_disk_is_no_lost_reader() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, pytest.raises(OSError, match="No space left"):
        outlet.lasting(full).write("a report that somebody wants")


def test_a_slow_reader_gets_every_word_also_from_a_pipe_that_does_not_wait() -> None:
    theirs, ours = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETFL, fcntl.fcntl(ours, fcntl.F_GETFL) | os.O_NONBLOCK)
    read: list[bytes] = []

    def reader() -> None:
        with open(theirs, "rb") as stream:
            read.append(stream.read())

    thread = threading.Thread(target=reader)
    with open(ours, "w", encoding="utf-8") as stream:
        made = outlet.lasting(stream)
        thread.start()
        made.write(LONG)
        assert not outlet.is_gone(made)
    thread.join()
    assert read == [LONG.encode()]


def test_a_command_whose_reader_left_ends_as_if_it_had_been_read() -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    command = [sys.executable, "-m", "gpu_tenant", "--help"]
    done = subprocess.run(command, stdout=ours, stderr=subprocess.PIPE, check=False)
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-"])
def test_a_command_without_any_output_keeps_its_exit_code(closed: str) -> None:
    words = f'exec "$0" -m gpu_tenant status -l all -i /nowhere/inventory.yml --json {closed}'
    done = subprocess.run(["sh", "-c", words, sys.executable], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (10, b"")


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hung_up_before() -> Iterator[None]:
    """As it is without nohup, whoever runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_lost_terminal_asks_once_and_a_person_may_hurry_it(hung_up_before: None) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Interrupts().installed() as interrupts:
        for _told in range(3):
            signal.raise_signal(signal.SIGHUP)
        assert interrupts.requested
        assert not interrupts.must_abort(), "the kernel and two shells tell of one terminal"
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.must_abort()
    assert signal.getsignal(signal.SIGHUP) is before


def test_a_terminal_that_is_lost_while_a_stop_is_under_way_does_not_hurry_it(hung_up_before: None) -> None:
    with Interrupts().installed() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.requested
        assert not interrupts.must_abort()


def test_under_nohup_a_lost_terminal_is_no_request(hung_up_before: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts().installed() as interrupts:
        signal.raise_signal(signal.SIGHUP)
        assert not interrupts.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_where_nothing_is_at_work_it_is_a_ctrl_c(number: signal.Signals) -> None:
    with handlers_kept():
        with taken_as_ctrl_c():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            with Interrupts().installed() as interrupts:
                signal.raise_signal(number)
                assert interrupts.requested
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL, "a process that is ending shows no traceback"


def test_under_nohup_a_lost_terminal_is_no_ctrl_c_either() -> None:
    with handlers_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with taken_as_ctrl_c():
            signal.raise_signal(signal.SIGHUP)

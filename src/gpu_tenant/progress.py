# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the runner says while it works: a live table on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TextIO

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

# A plain log repeats a line of these kinds at most this often for one box, in seconds.
QUIET_S = {"training": 15.0, "wait": 15.0, "transfer": 10.0}
UNWATCHED_WIDTH = 140


@dataclass(frozen=True)
class Event:
    """One thing to say. ``kind``: phase, task, note, warning, training, transfer, wait, result, failure."""

    kind: str
    text: str
    box: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class View(Protocol):
    def show(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Progress:
    """The one door through which the runner speaks; a context manager, so that a live table always ends."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.listeners: list[Callable[[Event], None]] = []

    def emit(self, kind: str, text: str, box: str = "", /, **data: Any) -> None:
        event = Event(kind, text, box, data)
        for listener in self.listeners:
            listener(event)
        self._view.show(event)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()


def view_for(stream: TextIO, as_json: bool) -> View:
    """JSON lines when asked for, a live table on a terminal, plain lines otherwise."""
    if as_json:
        return JsonView(stream)
    return LiveView(Console(file=stream)) if stream.isatty() else PlainView(stream)


class JsonView:
    """One JSON object per line: ``{at, event, box, text, …}``."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        line = {"at": records.utc_now(), "event": event.kind, "box": event.box, "text": event.text, **event.data}
        self._stream.write(json.dumps(line, sort_keys=True, default=str) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


class PlainView:
    """One line per event, for logs. Lines of the kinds in ``QUIET_S`` come only so often per box."""

    def __init__(self, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._said: dict[tuple[str, str], float] = {}

    def show(self, event: Event) -> None:
        if event.kind == "task" or (event.kind in QUIET_S and self._too_soon(event)):
            return
        elapsed = self._clock() - self._started
        subject = f"{event.box}: " if event.box else ""
        self._stream.write(f"{elapsed:7.1f}s  {_mark(event)}{subject}{event.text}\n")
        self._stream.flush()

    def _too_soon(self, event: Event) -> bool:
        key = (event.kind, event.box)
        now = self._clock()
        if now - self._said.get(key, float("-inf")) < QUIET_S[event.kind]:
            return True
        self._said[key] = now
        return False

    def close(self) -> None:
        self._stream.flush()


def _mark(event: Event) -> str:
    return {"warning": "! ", "failure": "x ", "phase": "== "}.get(event.kind, "   ")


@dataclass
class _Row:
    phase: str = ""
    doing: str = ""
    # Of the training, or of the transfer that goes on: both end in one bar.
    training: Mapping[str, Any] = field(default_factory=dict)
    transfer: Mapping[str, Any] = field(default_factory=dict)


class LiveView:
    """A table with one row per box that is redrawn in place; what matters later scrolls above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def show(self, event: Event) -> None:
        row = self._rows.setdefault(event.box, _Row()) if event.box else _Row()
        if event.kind == "phase":
            row.phase, row.doing, row.transfer = event.text, "", {}
        elif event.kind in ("task", "wait"):
            row.doing, row.transfer = event.text, {}
        elif event.kind == "training":
            row.phase, row.training, row.doing, row.transfer = "training", event.data, "", {}
        elif event.kind == "transfer":
            row.doing, row.transfer = event.text, event.data
        if event.kind not in ("task", *QUIET_S):
            self._live.console.print(_styled(event))

    def close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: object) -> Iterator[Table]:
        yield self.table()

    def table(self) -> Table:
        table = Table(box=None, padding=(0, 2), show_header=bool(self._rows))
        for column in ("box", "phase", "progress", "now"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for name, row in sorted(self._rows.items()):
            training = row.training if row.phase == "training" else {}
            done = row.transfer.get("bytes_done"), row.transfer.get("bytes")
            drawn = progress_bar(*done) or progress_bar(training.get("step"), training.get("steps"))
            table.add_row(name, row.phase, drawn, row.doing or training_text(training))
        return table


def _styled(event: Event) -> Text:
    style = {"warning": "yellow", "failure": "bold red", "result": "bold", "phase": "cyan"}.get(event.kind, "")
    subject = f"{event.box}: " if event.box else ""
    return Text(f"{_mark(event)}{subject}{event.text}", style=style)


def console_for(stream: TextIO) -> Console:
    """A console as wide as the terminal; where there is none, wide enough that tables stay readable."""
    return Console(file=stream, width=None if stream.isatty() else UNWATCHED_WIDTH)


def progress_bar(reached: object, whole: object, width: int = 20) -> str:
    """A progress bar of text; empty when it is unknown how much there is to do."""
    if not isinstance(reached, (int, float)) or not isinstance(whole, (int, float)) or whole <= 0:
        return ""
    done = min(max(reached / whole, 0.0), 1.0)
    full = int(done * width)
    return f"{'#' * full}{'.' * (width - full)} {done:4.0%}"


def training_text(training: Mapping[str, Any]) -> str:
    """``step 420 of 1000, loss 0.312, 21.0 steps/s, 28 s left, 12 s of work at risk``; only what is known."""
    parts = []
    step, steps = training.get("step"), training.get("steps")
    if step is not None:
        parts.append(f"step {step} of {steps}" if steps else f"step {step}")
    if isinstance(training.get("loss"), (int, float)):
        parts.append(f"loss {training['loss']:.4g}")
    if isinstance(training.get("steps_per_s"), (int, float)):
        parts.append(pace(training["steps_per_s"]))
    if isinstance(training.get("eta_s"), (int, float)):
        parts.append(f"{duration(training['eta_s'])} left")
    if isinstance(training.get("at_risk_s"), (int, float)):
        parts.append(f"{duration(training['at_risk_s'])} of work at risk")
    return ", ".join(parts)


def pace(steps_per_s: float) -> str:
    """``21.0 steps/s``; where a step takes long, ``40.0 s a step``."""
    return f"{steps_per_s:.1f} steps/s" if steps_per_s >= 0.5 or steps_per_s <= 0 else f"{1 / steps_per_s:.1f} s a step"

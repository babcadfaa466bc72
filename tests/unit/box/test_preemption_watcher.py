# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The watcher's thread: it outlives every answer, and whoever reads its notice may do so while it changes."""

from __future__ import annotations

import datetime
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.box import (
    attempt,
    gates,
    judge,
    preemption,
    records,
    run_record,
    supervise,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout

ENDS = preemption.Notice(preemption.STOP, "spot terminate", "2026-11-21T08:22:00Z")
PATIENCE_S = 600.0


class Flickers(preemption.Watcher):
    """Its notice is taken back as soon as it was looked at once."""

    looks = 0

    @property  # type: ignore[override]
    def notice(self) -> preemption.Notice | None:
        self.looks += 1
        return ENDS if self.looks % 2 else None

    @notice.setter
    def notice(self, _value: preemption.Notice | None) -> None:
        return


def test_a_notice_that_is_taken_back_while_it_is_read_ends_nobody() -> None:
    watcher = Flickers("aws_imds")
    for looks in (0, 1):
        for read in (watcher.left_s, watcher.as_dict, watcher.ends):
            watcher.looks = looks
            read()
            assert watcher.looks == looks + 1, "one look, so what was seen is what is told"


@pytest.mark.parametrize("error", [TypeError("argument of type 'int' is not iterable"), ValueError("Invalid header")])
def test_an_answer_that_nobody_foresaw_is_told_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked, told = 0, threading.Event()

    def source(_service: preemption.MetadataService) -> Iterator[preemption.Notice | None]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error
        assert watcher.problem == f"{type(error).__name__}: {error}"
        yield ENDS
        told.set()
        while True:
            yield ENDS

    monkeypatch.setitem(preemption.SOURCES, "aws_imds", source)
    watcher = preemption.Watcher("aws_imds", poll_s=0.001)
    watcher.start()
    try:
        assert told.wait(PATIENCE_S)
        assert (watcher.notice, watcher.problem) == (ENDS, "")
        assert watcher.ends()
    finally:
        watcher.stop()


@pytest.mark.parametrize("resources", [5, None, {"a": 1}, "vm-1 and others"])
def test_resources_that_are_no_list_name_no_machine(resources: object) -> None:
    document = {"Events": [{"EventType": "Preempt", "Resources": resources}]}
    assert preemption.azure_notice(document, "vm-1") is None


# --- who is watched for ---------------------------------------------------------------------------------------------

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
# Elsewhere nobody announces an end where the box could read it: vast pauses the loser of an auction without a word.
WATCHED = {"aws_spot": "aws_imds", "azure_spot": "azure_scheduled_events", "gcp_spot": "gcp_metadata"}


@pytest.mark.parametrize("platform", sorted(path.stem for path in PROFILES.glob("*.yml")))
def test_only_the_platforms_that_announce_an_end_are_watched(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the profile to the thread: what deploy hands on of it, and what the supervisor starts for it."""
    started: list[str] = []
    monkeypatch.setattr(preemption.Watcher, "start", lambda self: started.append(self.source))
    profile = yaml.safe_load((PROFILES / f"{platform}.yml").read_text())
    (tmp_path / "train.py").write_text("")
    job = {"id": "digits", "command": ["python", "train.py"], "artifacts": [{"glob": "model.pt"}]}
    (tmp_path / "run.yml").write_text(yaml.safe_dump(job))
    box = {
        "name": "b1",
        "tenant_root": "/data",
        "python": sys.executable,
        "spot_signal": profile["platform_spot"]["signal"],
    }
    spec, endpoint = run_spec.load_run_spec(str(tmp_path / "run.yml")), {"generation": 1, "provider_id": "7"}
    run = run_record.check_run(run_spec.run_record(spec, endpoint, "vision", box))
    supervise.Supervisor(Layout(str(tmp_path / "root")), ["supervisor.pyz"])._watch_for_preemption({"digits": run})
    assert started == ([WATCHED[platform]] if platform in WATCHED else [])


# --- a machine that outlives its announced end --------------------------------------------------------------------


class Clock:
    """Of the watcher, and of the provider as far as a notice names a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        at = records.parse_utc("2026-11-21T08:20:00Z").timestamp()
        monkeypatch.setattr(preemption.MetadataService, "now", lambda _service: at + self.now - 1000.0)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def watcher_at(clock: Clock, source: str = "aws_imds") -> preemption.Watcher:
    return preemption.Watcher(source, clock=clock)


NO_TIME = preemption.Notice(preemption.STOP, "preempted")
FAR = preemption.Notice(preemption.STOP, "spot terminate", "2036-01-01T00:00:00Z")
PAST = preemption.Notice(preemption.STOP, "spot terminate", "2026-11-21T08:00:00Z")


@pytest.mark.parametrize(
    ("source", "notice", "lives_s"),
    [
        ("aws_imds", ENDS, 120.0),
        ("aws_imds", NO_TIME, 120.0),
        ("gcp_metadata", NO_TIME, 30.0),
        ("azure_scheduled_events", NO_TIME, 900.0),
        ("aws_imds", PAST, 0.0),
        ("aws_imds", FAR, 3600.0),
    ],
)
def test_law_6_a_notice_is_believed_for_the_grace_of_its_provider_and_a_margin(
    clock: Clock, source: str, notice: preemption.Notice, lives_s: float
) -> None:
    watcher = watcher_at(clock, source)
    watcher._heed(notice)
    clock.now += lives_s + preemption.OVERDUE_MARGIN_S
    # Said again at each look, it is the same notice.
    watcher._heed(preemption.Notice(notice.kind, notice.event, notice.at))
    assert watcher.ends()
    assert (watcher.overdue(), watcher.as_dict()["overdue"]) == ("", False)
    clock.now += 1
    assert not watcher.ends()
    assert watcher.as_dict()["overdue"] is True
    assert watcher.overdue() == f"{source} announced its end ({notice.event}), it lives 301 s longer"


def test_law_6_a_source_that_fell_silent_after_its_notice_is_not_believed_for_ever(clock: Clock) -> None:
    watcher = watcher_at(clock)
    watcher._heed(ENDS)
    watcher.problem = "169.254.169.254 does not answer"
    clock.now += 86400
    assert not watcher.ends()
    assert watcher.overdue().endswith("and now the source cannot be asked: 169.254.169.254 does not answer")


def test_a_new_notice_and_one_that_was_taken_back_are_believed_anew(clock: Clock) -> None:
    watcher = watcher_at(clock)
    watcher._heed(ENDS)
    clock.now += 86400
    watcher._heed(preemption.Notice(preemption.STOP, "spot terminate", "2026-11-22T09:00:00Z"))
    assert watcher.ends()
    clock.now += 86400
    assert not watcher.ends()
    watcher._heed(None)
    assert (watcher.ends(), watcher.overdue()) == (False, "")
    watcher._heed(NO_TIME)
    assert watcher.ends()


def test_advice_is_never_overdue(clock: Clock) -> None:
    watcher = watcher_at(clock)
    watcher._heed(preemption.Notice(preemption.ADVICE, "rebalance recommendation", "2026-11-21T08:00:00Z"))
    clock.now += 86400
    assert (watcher.ends(), watcher.overdue()) == (False, "")


def test_law_6_cells_are_withheld_no_longer_and_the_supervisor_says_why_once(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(supervise.Supervisor, "_say", lambda _self, text: said.append(text))
    monkeypatch.setattr(gates, "refusals", lambda _root, _run: [])
    supervisor = supervise.Supervisor(Layout(str(tmp_path)), ["supervisor.pyz"])
    watcher = supervisor._watchers["aws_imds", ""] = watcher_at(clock)
    step = judge.Step(judge.RUN, "digits", "c1", 2)
    run: dict[str, Any] = {"run_id": "digits", "inputs": [], "gpu": {"required": False}}
    watcher._heed(ENDS)
    assert supervisor._obstacle(step, run) is None, "withheld"
    supervisor._say_overdue()
    assert said == []
    clock.now += 120 + preemption.OVERDUE_MARGIN_S + 1
    assert supervisor._obstacle(step, run) == ("", 0), "nothing is in its way"
    for _tick in range(3):
        clock.now += 1
        supervisor._say_overdue()
    assert len(said) == 1
    assert "was to end and did not: aws_imds announced its end (spot terminate)" in said[0]
    supervisor._beat()
    (told,) = attempt.read(supervisor.layout.daemon, "daemon")["preemption"]
    assert told["overdue"] is True


def run_of(grace_s: float, platform_s: float | None = None) -> dict[str, Any]:
    return {"grace_s": grace_s, "preemption": {"grace_s": platform_s}}


@pytest.mark.parametrize(
    ("wanted_s", "left_s", "given_s"), [(60.0, 10.0, 8.0), (5.0, 10.0, 5.0), (60.0, 1.0, 0.0), (60.0, -90.0, 0.0)]
)
def test_a_last_save_ends_before_the_machine_does(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted_s: float, left_s: float, given_s: float
) -> None:
    """The shorter of the run's grace and what is left of the notice, less what the exit record needs."""
    asked: list[tuple[float, str]] = []
    monkeypatch.setattr(supervise.stopping, "ask", lambda _paths, grace_s, why: asked.append((grace_s, why)))
    monkeypatch.setattr(supervise.run_record, "read_run", lambda _layout, _run_id: run_of(wanted_s))
    supervisor = supervise.Supervisor(Layout(str(tmp_path)), ["supervisor.pyz"])
    watcher, step = watcher_at(clock), judge.Step(judge.WATCH, "digits", "c1", 1)
    ends_at = records.parse_utc("2026-11-21T08:20:00Z").timestamp()
    clock.now += 1.0
    at = records.utc_text(datetime.datetime.fromtimestamp(ends_at + 1.0 + left_s, datetime.UTC))
    watcher._heed(preemption.Notice(preemption.STOP, "spot terminate", at))
    supervisor._stop_for(watcher, step, supervisor.layout.attempt("digits", "c1", 1))
    assert asked == [(given_s, f"this machine ends: spot terminate at {at}")]


@pytest.mark.parametrize(
    ("source", "wanted_s", "platform_s", "late_s", "given_s"),
    [
        ("gcp_metadata", 25.0, 30.0, 0.0, 25.0),
        ("gcp_metadata", 300.0, 30.0, 0.0, 28.0),
        ("gcp_metadata", 300.0, None, 0.0, 28.0),
        ("gcp_metadata", 300.0, 30.0, 4.0, 24.0),
        ("gcp_metadata", 300.0, 30.0, 40.0, 0.0),
        ("aws_imds", 300.0, None, 0.0, 118.0),
        # Up to 15 minutes before a reboot, and 30 s before an eviction: the profile says which one counts.
        ("azure_scheduled_events", 3600.0, 30.0, 0.0, 28.0),
        ("azure_scheduled_events", 25.0, None, 0.0, 25.0),
    ],
)
def test_a_notice_without_a_time_leaves_no_more_than_the_platform_grants(
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    wanted_s: float,
    platform_s: float | None,
    late_s: float,
    given_s: float,
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(supervise.stopping, "ask", lambda _paths, grace_s, _why: asked.append(grace_s))
    monkeypatch.setattr(supervise.run_record, "read_run", lambda _layout, _run_id: run_of(wanted_s, platform_s))
    supervisor = supervise.Supervisor(Layout(str(tmp_path)), ["supervisor.pyz"])
    watcher = watcher_at(clock, source)
    paths, step = supervisor.layout.attempt("digits", "c1", 1), judge.Step(judge.WATCH, "digits", "c1", 1)
    watcher._heed(NO_TIME)
    clock.now += late_s
    assert supervisor._stop_for(watcher, step, paths) is True
    watcher._heed(None)
    assert supervisor._stop_for(watcher, step, paths) is False, "so the next notice is heeded"
    assert asked == [given_s], "one that was taken back at that very instant asks for nothing"

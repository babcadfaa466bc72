# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""SIGTERM in every phase of ``go``, ``watch`` and the verbs: clear, safe, resumable.

What a seed found is played again with ``STOPS_SEED=7``, and one stop with ``STOPS_AT=go/go:harvest:12`` (``:twice`` for
a request that is repeated).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import lifecycle
import pytest
import stops
from lifecycle import WITHDRAWN

from gpu_tenant import job

pytestmark = pytest.mark.integration

LANES = 2
PLAYS = {"train", "deploy", "harvest", WITHDRAWN, "park", "teardown"}
OF_VERBS = {"train": {"train", "deploy"}, "harvest": {"harvest", WITHDRAWN, "park"}, "teardown": {"teardown"}}


def phases(counts: dict[tuple[str, str, str], int], story: str, command: str) -> set[str]:
    return {phase for of_story, of_command, phase in counts if (of_story, of_command) == (story, command)}


def test_a_runner_that_is_asked_to_stop_says_how_the_box_stands_and_goes_on_from_there(tmp_path: Path) -> None:
    with lifecycle.markets(tmp_path, LANES) as markets:
        counted = stops.Counted(tmp_path, markets[0])
        for story in stops.STORIES:
            counted.count(story)
        assert phases(counted.found, "go", "go") == {stops.OPENING, "watch", *PLAYS}
        assert phases(counted.found, "watch", "watch") == {stops.OPENING, "watch", *PLAYS} - {"teardown"}
        for command, plays in OF_VERBS.items():
            assert phases(counted.found, "verbs", command) == {stops.OPENING, *plays}
        chosen = stops.drawn(counted.found, int(os.environ.get("STOPS_SEED", "1")))
        if "STOPS_AT" in os.environ:
            chosen = [stops.parsed(os.environ["STOPS_AT"])]
        verdicts = lifecycle.played(tmp_path, markets, chosen, stops.Case)
    assert not (wrong := [verdict for verdict in verdicts if verdict.wrong]), "\n".join(map(str, wrong))
    # Threads count beside each other: the last instant of a phase may not come again.
    assert sum(verdict.was_struck for verdict in verdicts) >= min(len(chosen) - 3, len(chosen))
    stopped = [verdict for verdict in verdicts if verdict.codes[0] == stops.INTERRUPTED]
    assert len(stopped) >= len(chosen) // 2


def test_a_command_that_says_nothing_of_its_boxes_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.Job, "telling_what_is_left", lambda self: contextlib.nullcontext())
    stop = stops.Stop("verbs", "train", lifecycle.Instant("deploy", 1), twice=True)
    with lifecycle.markets(tmp_path, 1) as markets:
        (verdict,) = lifecycle.played(tmp_path, markets, [stop], stops.Case)
    assert verdict.was_struck
    assert verdict.wrong == ("nothing was said of the box",)

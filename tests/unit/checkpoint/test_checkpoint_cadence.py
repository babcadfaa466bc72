# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""When a save is due: the interval, what it knows of losses and costs, and what it remembers between attempts."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from pathlib import Path

import pytest
import tenant_checkpoint
import torch
from hypothesis import given
from hypothesis import strategies as st
from tenant_checkpoint import Attempts, Cadence, Losses, Pace, Ranks, best_interval, mean_behind_young, young_daly

EXPECTED = sum(share * times for share, times in Losses.BELIEFS)
"""How many times the guessed rate is expected before anything is seen."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def saves(clock: Clock, cadence: Cadence, step_s: float, save_s: float, steps: int) -> list[int]:
    """The steps after which a training with such steps and saves would save."""
    done = []
    for step in range(1, steps + 1):
        clock.now += step_s
        cadence.step_done()
        if cadence.due:
            clock.now += save_s
            cadence.held(save_s)
            cadence.written(0.0)
            done.append(step)
    return done


def test_young_daly_of_the_known_example() -> None:
    assert math.floor(young_daly(mu_s=3 * 3600, save_s=30)) == 804


def seconds_per_work(interval_s: float, mu_s: float, save_s: float) -> float:
    return math.expm1((interval_s + save_s) / mu_s) / (interval_s / mu_s)


@given(mu_s=st.floats(1, 1e7), share=st.floats(1e-6, 3))
def test_the_best_interval_is_the_minimum_of_the_expected_time(mu_s: float, share: float) -> None:
    save_s = share * mu_s
    best = best_interval(mu_s, save_s)
    assert 0 < best <= min(mu_s, young_daly(mu_s, save_s)) * (1 + 1e-9)
    least = seconds_per_work(best, mu_s, save_s)
    assert all(seconds_per_work(best * factor, mu_s, save_s) >= least * (1 - 1e-9) for factor in (0.8, 0.97, 1.03, 1.3))


def test_for_cheap_saves_it_is_young_s() -> None:
    assert best_interval(1e6, 0.1) == pytest.approx(young_daly(1e6, 0.1), rel=1e-3)


def test_the_first_step_is_saved_then_the_interval_rounded_down_to_a_step() -> None:
    clock = Clock()
    cadence = Cadence(Losses(10800), clock=clock)
    assert saves(clock, cadence, step_s=100, save_s=30, steps=30) == [1, 8, 15, 22, 29]
    assert cadence.interval_s == pytest.approx(best_interval(Losses(10800).mean_s(30), 30))
    assert cadence.numbers()["interval_steps"] == 7
    assert cadence.numbers()["young_daly_s"] == pytest.approx(804.98 / math.sqrt(EXPECTED), abs=0.01)


@given(mu_s=st.floats(1, 1e6), longest_s=st.floats(0.1, 1e4), step_s=st.floats(0.01, 100), save_s=st.floats(0.001, 100))
def test_never_longer_than_the_interval_or_the_cap(mu_s: float, longest_s: float, step_s: float, save_s: float) -> None:
    clock = Clock()
    done = saves(clock, Cadence(Losses(mu_s), longest_s, clock), step_s, save_s, 60)
    limit = max(step_s, min(longest_s, best_interval(Losses(mu_s).mean_s(save_s), save_s)))
    assert done[0] == 1
    assert all((after - before) * step_s <= limit + 1e-6 for before, after in itertools.pairwise(done))
    assert (60 - done[-1]) * step_s <= limit + 1e-6


@given(guess_s=st.floats(1, 1e7), share=st.floats(1e-6, 3))
def test_before_anything_is_seen_the_guess_is_used_as_young_s_formula_uses_it(guess_s: float, share: float) -> None:
    save_s = share * guess_s
    behind = mean_behind_young(guess_s, save_s)
    assert behind >= guess_s * (1 - 1e-9)
    assert best_interval(behind, save_s) == pytest.approx(young_daly(guess_s, save_s), rel=1e-4)


def test_what_is_left_of_a_run_is_cut_into_equal_intervals() -> None:
    """A save just before the last one would be for nothing."""
    for steps in range(60, 120):
        clock = Clock()
        cadence = Cadence(Losses(1000.0), clock=clock)
        cadence.begin(save_s=1.0)
        done = []
        for step in range(1, steps + 1):
            clock.now += 1.0
            cadence.left_steps = steps - step
            cadence.step_done()
            if cadence.due:
                clock.now += 1.0
                cadence.held(1.0)
                cadence.written(0.0)
                done.append(step)
        assert done[-1] == steps, "the end is a save too"
        stretches = [after - before for before, after in itertools.pairwise([0, *done])]
        assert max(stretches) - min(stretches) <= 2, stretches
        assert len(done) <= math.ceil(steps / 38), "the interval is 40"


def test_a_first_save_that_would_be_dear_is_not_made_to_measure() -> None:
    clock = Clock()
    cadence = Cadence(Losses(1000.0), clock=clock)
    cadence.expected_s = 0.01
    assert cadence.due
    cadence.expected_s = 20.0
    assert not cadence.due
    expected = best_interval(cadence.losses.mean_s(20.0), 20.0)
    assert saves(clock, cadence, step_s=1.0, save_s=10.0, steps=300)[0] == int(expected)


# ------------------------------------------------------------------------------------------ what is at risk


@pytest.mark.parametrize("seed", range(300))
def test_no_loss_costs_more_than_an_interval_however_long_a_write_takes(seed: int) -> None:
    """A training that writes behind itself, lost after each of its steps: what would have to be done again?"""
    chance = random.Random(seed)
    interval, most_s = chance.randint(4, 40), chance.choice([1.0, 5.0, 60.0])
    clock = Clock()
    cadence = Cadence(Losses(1e12), float(interval), clock)
    cadence.begin(save_s=0.1, write_s=1.0)
    cadence.step_s = 1.0
    written_at: float | None = None
    safe, staged = 0, 0
    for step in range(1, 200):
        clock.now += chance.uniform(0.995, 1.005)
        if written_at is not None and clock.now >= written_at:
            safe, written_at = staged, None
            cadence.written(1.0)
        cadence.step_done(busy=written_at is not None)
        assert step - safe <= interval, "steps lost if it is killed now"
        if written_at is None and cadence.due:
            clock.now += 0.1
            staged, written_at = step, clock.now + chance.uniform(0.1, most_s)
            cadence.held(0.1)
        if written_at is not None and cadence.overdue:
            waited_s, clock.now = written_at - clock.now, written_at
            cadence.waited(waited_s)
            safe, written_at = staged, None
            cadence.written(1.0)


def test_a_save_begins_early_enough_for_its_write() -> None:
    clock = Clock()
    cadence = Cadence(Losses(1e12), 20.0, clock)
    cadence.begin(save_s=0.1, write_s=4.0)
    done = saves(clock, cadence, step_s=1.0, save_s=0.0, steps=15)
    assert done == [15], "five steps are left for a write that may take a quarter longer"


def test_a_dearer_save_is_made_less_often() -> None:
    counts = []
    for save_s in (0.1, 1.0, 10.0):
        clock = Clock()
        counts.append(len(saves(clock, Cadence(Losses(3600), clock=clock), 1.0, save_s, 2000)))
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("mu_s", [0, -1, math.nan, math.inf])
def test_an_impossible_mean_is_refused(mu_s: float) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        Losses(mu_s)


@pytest.mark.parametrize("longest_s", [0, -1, math.nan])
def test_an_impossible_longest_interval_is_refused(longest_s: float) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        Cadence(Losses(1), longest_s)


def test_what_is_seen_outweighs_a_wrong_guess() -> None:
    for guess_s in (1000.0 / 3, 3000.0):
        losses = Losses(guess_s)
        assert losses.mu_s == pytest.approx(guess_s / EXPECTED)
        losses.seen, losses.exposed_s = 100, 100_000.0
        assert losses.mu_s == pytest.approx(1000, rel=0.1)


def test_time_without_a_loss_makes_the_interval_longer() -> None:
    losses = Losses(1000.0)
    cadence = Cadence(losses)
    cadence.begin(save_s=1.0)
    first = cadence.interval_s
    losses.exposed_s = 5000.0
    assert cadence.interval_s > 1.3 * first


def test_a_guess_that_is_far_too_long_is_given_up_sooner_than_one_that_is_too_short() -> None:
    """An interval that is too long costs more than one that is too short by the same factor."""
    too_long, too_short = Losses(3000.0), Losses(1000.0 / 3)
    for losses in (too_long, too_short):
        losses.seen, losses.exposed_s = 6, 6000.0
    assert 1000.0 < too_long.mu_s < 1400.0
    assert 1000.0 / 3 < too_short.mu_s < 1000.0 / 1.4


def losses_of(guess_s: float, seen: int, exposed_s: float) -> Losses:
    losses = Losses(guess_s)
    losses.seen, losses.exposed_s = seen, exposed_s
    return losses


MEANS = st.floats(1.0, 1e8)
SEEN = st.integers(0, 10_000)
SHARES = st.floats(1e-6, 3.0)


@given(guess_s=MEANS, seen=SEEN, exposed=st.floats(0.0, 1e5), share=SHARES, unit=st.floats(1e-3, 1e3))
def test_what_time_is_measured_in_does_not_matter(
    guess_s: float, seen: int, exposed: float, share: float, unit: float
) -> None:
    one = losses_of(guess_s, seen, exposed * guess_s)
    other = losses_of(guess_s * unit, seen, exposed * guess_s * unit)
    save_s = share * guess_s
    assert other.mu_s == pytest.approx(unit * one.mu_s, rel=1e-6)
    assert other.mean_s(save_s * unit) == pytest.approx(unit * one.mean_s(save_s), rel=1e-6)


@given(guess_s=MEANS, seen=SEEN, exposed=st.floats(0.0, 1e5), share=SHARES, more=st.floats(1.0, 100.0))
def test_more_losses_shorten_the_interval_and_time_without_them_and_a_dearer_save_make_it_longer(
    guess_s: float, seen: int, exposed: float, share: float, more: float
) -> None:
    save_s, slack = share * guess_s, 1 + 1e-6

    def interval_s(seen: int, exposed: float, save_s: float, guess_s: float = guess_s) -> float:
        return best_interval(losses_of(guess_s, seen, exposed).mean_s(save_s), save_s)

    now_s = interval_s(seen, exposed * guess_s, save_s)
    assert 0.0 < now_s < math.inf
    assert interval_s(seen + 1, exposed * guess_s, save_s) <= now_s * slack
    assert interval_s(seen, exposed * guess_s * more, save_s) >= now_s / slack
    assert interval_s(seen, exposed * guess_s, save_s * more) >= now_s / slack
    # Once losses are seen a longer guess need not make it longer: that boxes are lost more often than guessed is then
    # the likelier belief.
    assert interval_s(0, 0.0, save_s, guess_s * more) >= interval_s(0, 0.0, save_s) / slack


@given(guess_s=MEANS, seen=SEEN, exposed=st.floats(0.0, 1e5))
def test_the_mean_lies_between_what_is_believed_and_what_is_seen(guess_s: float, seen: int, exposed: float) -> None:
    believed = [guess_s / times for _share, times in Losses.BELIEFS]
    found = exposed * guess_s / seen if seen else math.inf
    mean_s = losses_of(guess_s, seen, exposed * guess_s).mu_s
    assert min([*believed, found]) * (1 - 1e-9) <= mean_s <= max([*believed, found]) * (1 + 1e-9)


@given(true_s=MEANS, off=st.floats(1 / 30, 30.0), share=st.floats(1e-4, 1.0))
def test_with_evidence_the_interval_becomes_the_best_one_however_wrong_the_guess(
    true_s: float, off: float, share: float
) -> None:
    save_s = share * true_s
    losses = losses_of(true_s * off, 20_000, 20_000 * true_s)
    assert losses.mu_s == pytest.approx(true_s, rel=0.03)
    chosen_s = best_interval(losses.mean_s(save_s), save_s)
    least = seconds_per_work(best_interval(true_s, save_s), true_s, save_s)
    assert seconds_per_work(chosen_s, true_s, save_s) <= least * 1.01


def test_the_cost_is_the_hold_and_what_steps_behind_take_longer() -> None:
    clock = Clock()
    cadence = Cadence(Losses(1e4), clock=clock)

    def step(seconds: float, busy: bool = False) -> None:
        clock.now += seconds
        cadence.step_done(busy)

    step(1.0)
    for _save in range(3):
        clock.now += 0.5
        cadence.held(0.5)
        for _step in range(4):
            step(1.25, busy=True)
        cadence.written(5.0)
        step(1.0)
    assert cadence.save_s == pytest.approx(0.5 + 4 * 0.25)
    assert cadence.write_s == pytest.approx(5.0)


def test_steps_that_were_faster_by_chance_do_not_make_a_save_cheaper_than_its_hold() -> None:
    clock = Clock()
    cadence = Cadence(Losses(1e4), clock=clock)
    clock.now += 1.0
    cadence.step_done()
    cadence.held(0.5)
    clock.now += 0.2
    cadence.step_done(busy=True)
    cadence.written(0.3)
    assert cadence.save_s == 0.5


def test_an_interval_has_room_for_the_write_before_it_and_its_own() -> None:
    cadence = Cadence(Losses(10.0))
    cadence.begin(save_s=0.001, write_s=60.0)
    assert cadence.interval_s == 2 * Cadence.LEAD * 60.0


def test_the_first_save_of_a_process_is_not_taken_for_what_later_ones_cost() -> None:
    clock = Clock()
    cadence = Cadence(Losses(1e4), clock=clock)
    for held_s in (9.0, 1.0, 1.0):
        cadence.held(held_s)
        cadence.written(0.0)
    assert cadence.save_s == 1.0


# ------------------------------------------------------------------------------------------ between attempts


def begin(folder: Path, *folders: Path, kept: dict[str, float] | None = None) -> Cadence:
    folder.mkdir(exist_ok=True)
    cadence = Cadence(Losses(1000.0))
    Attempts(str(folder), cadence).begin([str(folder), *map(str, folders)], kept)
    return cadence


def lived(folder: Path, seconds: float) -> None:
    path = folder / "attempts.json"
    started = json.loads(path.read_text())["started_at"]
    os.utime(path, (started + seconds, started + seconds))


def test_each_attempt_adds_a_loss_and_its_time_even_if_it_never_saved(tmp_path: Path) -> None:
    first, second = tmp_path / "a1", tmp_path / "a2"
    assert begin(first).losses.seen == 0
    lived(first, 70.0)
    assert begin(first).losses.seen == 1
    lived(first, 30.0)
    cadence = begin(second, first)
    assert cadence.losses.seen == 2
    assert cadence.losses.exposed_s == pytest.approx(100.0, abs=0.01)
    assert cadence.losses.mu_s == pytest.approx(losses_of(1000.0, 2, 100.0).mu_s, rel=1e-3)


def test_on_a_new_box_the_checkpoint_itself_says_what_was_seen(tmp_path: Path) -> None:
    cadence = begin(tmp_path / "new", kept={"seen": 4, "exposed_s": 5000.0, "save_s": 2.0, "write_s": 3.0})
    assert (cadence.losses.seen, cadence.losses.exposed_s) == (5, 5000.0)
    assert (cadence.save_s, cadence.write_s) == (2.0, 3.0)
    assert not cadence.due, "what a save costs is known: none is needed to measure it"


WHOLE = {"seen": 2, "exposed_s": 500.0, "started_at": 0, "save_s": 1.0, "write_s": 1.0}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seen": "x"}', '{"started_at": null}'])
def test_a_spoilt_record_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempts.json").write_text(content)
    assert begin(tmp_path).losses.seen == 0


@pytest.mark.parametrize("number", [-1, math.nan, math.inf, -math.inf, 1e300, 10**400, "x", None, []])
@pytest.mark.parametrize("key", ["seen", "exposed_s", "save_s", "write_s"])
def test_a_number_that_cannot_be_true_is_not_reckoned_with(tmp_path: Path, key: str, number: object) -> None:
    """Neither from a record nor from a checkpoint: an interval of nan seconds would never end."""
    spoilt = {**WHOLE, key: number}
    (tmp_path / "attempts.json").write_text(json.dumps(spoilt))
    unknown = key == "save_s" and number is None
    cadence = begin(tmp_path, kept=spoilt)
    assert cadence.losses.seen == (3 if unknown else 0)
    assert math.isfinite(cadence.interval_s)


def test_a_clock_set_back_takes_no_time_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path)
    lived(tmp_path, -500.0)
    cadence = begin(tmp_path)
    assert cadence.losses.exposed_s == pytest.approx(0.0, abs=1.0)
    attempts = Attempts(str(tmp_path), cadence)
    attempts.begin([str(tmp_path)], None)
    now = tenant_checkpoint.time.time()
    monkeypatch.setattr(tenant_checkpoint.time, "time", lambda: now - 3600)
    attempts.alive()
    assert cadence.losses.exposed_s == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, 50 * 365 * 86400.0])
def test_a_clock_that_is_set_while_it_trains_adds_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """A box may boot in 1970 and learn the time later: it has not lived for half a century."""
    cadence = Cadence(Losses(1000.0))
    attempts = Attempts(str(tmp_path), cadence)
    attempts.begin([str(tmp_path)], None)
    now, monotonic = tenant_checkpoint.time.time(), tenant_checkpoint.time.monotonic()
    monkeypatch.setattr(tenant_checkpoint.time, "time", lambda: now + jump_s)
    monkeypatch.setattr(tenant_checkpoint.time, "monotonic", lambda: monotonic + 70.0)
    cadence.begin(save_s=1.0)
    attempts.alive()
    assert cadence.losses.exposed_s == pytest.approx(70.0, abs=1.0)
    attempts.note_cost()
    assert begin(tmp_path).losses.exposed_s == pytest.approx(70.0, abs=1.0)


def test_a_record_that_cannot_be_written_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "attempts.json").mkdir()
    begin(tmp_path)
    assert "the interval forgets this attempt" in caplog.text


# ------------------------------------------------------------------------------------------ several boxes


def ranks_of(monkeypatch: pytest.MonkeyPatch, world: int, on_each_box: str | None) -> Ranks:
    """Ranks as torchrun starts them, without the others: only their numbers are asked for."""
    dist = torch.distributed
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    monkeypatch.setattr(dist, "new_group", lambda backend: None)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if on_each_box is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", on_each_box)
    return Ranks()


@pytest.mark.parametrize(
    ("world", "on_each_box", "boxes"), [(8, "2", 4), (8, "8", 1), (8, None, 1), (8, "", 1), (3, "1", 3), (1, "4", 1)]
)
def test_a_loss_of_any_box_stops_all_so_the_guess_is_divided_by_their_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: int, on_each_box: str | None, boxes: int
) -> None:
    ranks = ranks_of(monkeypatch, world, on_each_box)
    pace = Pace(ranks, str(tmp_path), 1e9, {"TENANT_MU_S": "7200"})
    assert (ranks.nodes, pace.cadence.losses.guess_s) == (boxes, 7200 / boxes)
    # What follows from it: the interval is that of a box which is lost so many times as often.
    pace.cadence.begin(20.0, 0.0)
    alone = Cadence(Losses(7200 / boxes), 1e9)
    alone.begin(20.0, 0.0)
    assert pace.cadence.interval_s == alone.interval_s
    if boxes > 1:
        one = Cadence(Losses(7200), 1e9)
        one.begin(20.0, 0.0)
        assert pace.cadence.interval_s < 0.8 * one.interval_s

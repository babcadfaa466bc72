# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a resume drill proves: from the metrics before and after the kill, whether the run goes on where it was saved.

Pure: lines in, verdict out. A line counts when it has a ``step``; losses are compared at steps that both tries made and
told a loss of. A line without ``loss`` says nothing about it; one that is null or not finite is a loss that is wrong.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from . import drill_noise, drill_start

DEFAULT_TOLERANCE = 0.05
_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """``reason`` is one of the words below, ``passed`` when it went on; ``why`` says it in a sentence.

    started_again: its first step is no later than the saved one
    steps_skipped: steps that nobody made are missing
    unclear:       its first step, or its loss, may be that of a start as well
    loss_differs:  the same step has another loss than before the kill
    """

    reason: str
    why: str
    resumed_at_step: int | None = None
    compared: int = 0
    worst_difference: float | None = None
    tolerance: float | None = None
    deterministic: bool = False
    losses: tuple[tuple[int, float | None, float | None], ...] = ()

    @property
    def passed(self) -> bool:
        return self.reason == "passed"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def steps_of(lines: list[dict[str, Any]]) -> list[tuple[int, float | None]]:
    """(step, loss) of every line with a step, in order; a loss that is no finite number is None."""
    return [(line["step"], _loss(line)) for line in lines if _is_step(line.get("step"))]


def told_of(lines: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    """(step, whether a loss is told for it) of every line with a step, in order."""
    return [(line["step"], "loss" in line) for line in lines if _is_step(line.get("step"))]


def says_deterministic(lines: list[dict[str, Any]]) -> bool:
    """Whether the trainer says that the same steps give the same bits (tenant_checkpoint does, as torch tells it)."""
    return any(line.get("deterministic") is True for line in lines)


def judge(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    saved_step: int | None,
    tolerance: float = DEFAULT_TOLERANCE,
    announces: bool = False,
) -> Verdict:
    """The verdict on a relaunch.

    :param saved_step: the step of the newest whole checkpoint at the kill; None when its name carries none.
    :param tolerance: how much a loss may differ, relative to the larger one; 0 when the trainer is deterministic.
    :param announces: the lines are those of a log or an event file, which may name a step that is not made there.
    """
    made, redone = steps_of(before), told_of(after)
    if not redone:
        return Verdict("no_progress", "the relaunched command made no step")
    steps = [step for step, _loss_of in made]
    start = drill_start.find(steps, redone, saved_step, _resumed_from(after), announces)
    if start.reason:
        return Verdict(start.reason, start.why, start.first)
    exact = says_deterministic(before) or says_deterministic(after)
    told = [(line["step"], _loss(line)) for line in after if _is_step(line.get("step")) and "loss" in line]
    return _compare(made, told, start, 0.0 if exact else tolerance, exact)


def _compare(
    made: list[tuple[int, float | None]],
    told: list[tuple[int, float | None]],
    start: drill_start.Start,
    tolerance: float,
    exact: bool,
) -> Verdict:
    """Whether the losses join."""
    known = dict(made)
    both = [(step, known[step], loss) for step, loss in told if step in known and known[step] is not None]
    if not both:
        return _compare_neighbours(made, told, start, tolerance)
    worst = max(_difference(one, other) for _step, one, other in both)
    facts = (start.first, len(both), None if math.isinf(worst) else worst, tolerance, exact, tuple(both[:_SHOWN]))
    if worst > tolerance:
        step, one, other = next(each for each in both if _difference(each[1], each[2]) > tolerance)
        what = "which says that it is deterministic" if exact else f"the tolerance is {tolerance:g} of the larger"
        return Verdict("loss_differs", f"at step {step} the loss was {one}, and after the kill {other}; {what}", *facts)
    how = "bit for bit" if exact else f"within {tolerance:g}"
    return Verdict("passed", f"{start.why}, and {len(both)} losses are the same {how}", *facts)


def _compare_neighbours(
    made: list[tuple[int, float | None]],
    told: list[tuple[int, float | None]],
    start: drill_start.Start,
    tolerance: float,
) -> Verdict:
    """No loss was told twice (saved at the very step of the kill): the next one must go on from the last ones."""
    known = [loss for _step, loss in made if loss is not None]
    if not known or not told:
        why = f"its steps join: {start.why}. But no losses are told {'after' if known else 'before'} the kill, so only "
        return Verdict(
            "no_losses", f"{why}steps were compared, and nothing shows that the weights came back", start.first
        )
    step, loss = told[0]
    seen = drill_noise.DIFFERS if loss is None else drill_noise.joins(known, loss, tolerance)
    facts = (start.first, 0, None, tolerance, False, ((step, known[-1], loss),))
    if seen == drill_noise.DIFFERS:
        why = (
            f"the losses went from {known[0]} to {known[-1]} before the kill, and the next, at step {step}, was {loss}"
        )
        return Verdict("loss_differs", why, *facts)
    why = f"{start.why}, but no step was made twice, so no loss is compared with itself; that at step {step} is {loss}"
    if seen == drill_noise.UNCLEAR:
        why += f", and the first of all was {known[0]}: as far as losses scatter, fresh weights could show it as well"
        return Verdict("unclear", why, *facts)
    return Verdict("passed", f"{why} and goes on from the last ones, far from the first of all, {known[0]}", *facts)


def _resumed_from(lines: list[dict[str, Any]]) -> int | None:
    """What the trainer itself says; 0 is a start."""
    said = [line["resumed_from"] for line in lines if _is_step(line.get("resumed_from"))]
    return said[0] if said and said[0] > 0 else None


def _difference(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return math.inf
    if one == other:
        return 0.0
    return abs(one - other) / max(abs(one), abs(other))


def _loss(line: dict[str, Any]) -> float | None:
    value = line.get("loss")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

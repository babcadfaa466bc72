# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a relaunched command began, by its steps alone: beyond the saved one, or at the start again.

Pure. ``made`` are the steps that the first try told, in their order, and ``first`` the first one made after the kill.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

# A line that says where it resumes, and a bar that is drawn before that is known, name a step each.
_MOST_NAMED = 2


class Start(NamedTuple):
    """``reason`` is empty where the steps join, else that of the verdict; ``why`` says either in a sentence."""

    reason: str
    why: str
    first: int


def find(
    made: list[int], told: list[tuple[int, bool]], named: int | None, said: int | None, announces: bool = False
) -> Start:
    """:param told: the steps told after the kill, each with whether a loss was told for it.
    :param named: the saved step by the name of the checkpoint.
    :param said: what the trainer itself says that it went on from.
    :param announces: these are lines of a log or an event file, which may name a step that is not made there.
    """
    saved = named if named is not None else said
    count = _count_named(made, told, saved) if announces else 0
    if count == len(told):
        why = f"the relaunched command told step {told[-1][0]} without a loss, and no later one"
        return Start("unclear", f"{why}: that may be where it goes on, or a start", told[0][0])
    first = told[count][0]
    if saved is None:
        return _find_unnamed(made, first)
    if count and first > saved and not _are_announced(made, [step for step, _tells in told[: count + 1]], saved):
        why = (
            f"the relaunched command told step {told[0][0]} without a loss, and then {first}; saved was step {saved}. "
        )
        return Start("unclear", f"{why}Whether the first was made, or only named, nothing shows", told[0][0])
    if first <= saved:
        began = f"the relaunched command began with step {told[0][0]}"
        why = f"{began}; it did not go on from step {saved}, which was saved whole"
        return Start("started_again", why, told[0][0])
    if said is None and first <= start_ends(made, named=True):
        why = f"the relaunched command began with step {first}, where the first try began as well. By its name the "
        why += f"checkpoint is of step {saved}; if that counts something else, the command has started again"
        return Start("unclear", why, first)
    return _joined(made, first, saved, f"it went on from step {saved} with {first}")


def leading(told: list[tuple[int, bool]], saved: int) -> int:
    """How many of the first told steps may only be named: none was to be made again, and no loss is told for them."""
    count = sum(1 for _each in itertools.takewhile(lambda each: each[0] <= saved and not each[1], told))
    return count if count <= _MOST_NAMED else 0


def _count_named(made: list[int], told: list[tuple[int, bool]], saved: int | None) -> int:
    if saved is not None:
        return leading(told, saved)
    return int(len(told) > 1 and not told[0][1] and _is_jump(made, told[0][0], told[1][0]))


def _are_announced(made: list[int], steps: list[int], saved: int) -> bool:
    """Whether all of ``steps`` but the last, which was made, were named only: no start tells the saved step first, nor
    skips so many."""
    return all(
        _is_jump(made, step, following) or (step == saved and step > start_ends(made, named=False))
        for step, following in zip(steps, steps[1:])
    )


def _is_jump(made: list[int], step: int, following: int) -> bool:
    """Whether more lies between them than between any two lines, uneven as these may be."""
    return bool(_gaps(made)) and following - step > 2 * max(_gaps(made))


def _find_unnamed(made: list[int], first: int) -> Start:
    """Nothing says which step was saved: then a first step that a start could show too proves nothing."""
    began = f"the relaunched command began with step {first}"
    earlier = [step for step in made if step < first]
    if not earlier:
        why = f"{began}; it did not go on from its first checkpoint"
        return Start("started_again", why, first)
    if not _gaps(made) or first <= start_ends(made, named=False):
        why = (
            f"{began} and the first try with {made[0]}: too near to tell going on from starting again, as neither the "
        )
        return Start("unclear", f"{why}name of the checkpoint nor the trainer says which step was saved", first)
    return _joined(made, first, max(earlier), f"it went on with step {first} (nothing says which step was saved)")


def _joined(made: list[int], first: int, saved: int, went_on: str) -> Start:
    expected = next_step(made, saved)
    if first > expected:
        why = f"saved was step {saved}, the next to come was {expected} at the latest, and it went on with {first}"
        return Start("steps_skipped", why, first)
    return Start("", went_on, first)


def start_ends(made: list[int], named: bool) -> int:
    """The last step that may be the first one told by a command that starts at the beginning.

    A progress bar shows a step whenever some time has passed, so another start shows another one first. Steps that come
    evenly are those that the trainer counts, and a name that tells a later one is believed (``named``).
    """
    gaps = _gaps(made)
    if not gaps:
        return made[0]
    return made[0] if named and min(gaps) == max(gaps) else made[0] + max(gaps)


def next_step(made: list[int], saved: int) -> int:
    """The latest step that may come first after the saved one in these lines, which need not have every step, nor have
    them evenly."""
    later = [step for step in made if step > saved]
    return max([saved + max(_gaps(made), default=1), *later[:1]])


def _gaps(made: list[int]) -> list[int]:
    return [two - one for one, two in zip(made, made[1:]) if two > one]

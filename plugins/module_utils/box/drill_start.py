# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a relaunched command began, by its steps alone: beyond the saved one, or at the start again.

Pure. ``made`` are the steps that the first try told, in their order, and ``first`` the first one after the kill.
"""

from __future__ import annotations

from typing import NamedTuple


class Start(NamedTuple):
    """``reason`` is empty where the steps join, else that of the verdict; ``why`` says either in a sentence."""

    reason: str
    why: str
    first: int


def find(made: list[int], first: int, named: int | None, said: int | None) -> Start:
    """:param named: the saved step by the name of the checkpoint.
    :param said: what the trainer itself says that it went on from.
    """
    began = f"the relaunched command began with step {first}"
    saved = named if named is not None else said
    if saved is None:
        return _find_unnamed(made, first)
    if first <= saved:
        why = f"{began}; it did not go on from step {saved}, which was saved whole"
        return Start("started_again", why, first)
    if said is None and first <= start_ends(made, named=True):
        why = f"{began}, where the first try began as well. By its name the checkpoint is of step {saved}; if that "
        return Start("unclear", f"{why}counts something else, the command has started again", first)
    return _joined(made, first, saved, f"it went on from step {saved} with {first}")


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

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What to do with a box, given what is seen of it. Pure: no clock, no disk, no network."""

from __future__ import annotations

from dataclasses import dataclass

# A box that neither comes up nor goes down for this long is brought up again; provision knows how to replace it.
STUCK_S = 900.0
# The supervisor resumes a preempted run by itself, and moves on from the short states; later it needs a push.
SELF_RESUME_S = 20.0
SHORT_STATE_S = 300.0
GONE_READINGS = 2

WAIT = "wait"
BRING_UP = "bring_up"
HARVEST = "harvest"
HARVEST_FAILED = "harvest_failed"
FINISH = "finish"

_AT_REST = ("stopped", "outbid", "exited")
_BETWEEN = ("loading", "scheduling", "offline")
_SHORT = ("queued", "verifying", "copying")


@dataclass(frozen=True)
class Situation:
    """What is known of one box and its run.

    :param home: a complete receipt for this very run spec exists.
    :param provider: the provider's word: absent, loading, running, stopped, outbid, scheduling, exited, offline,
        unknown; or unreachable when the provider did not answer.
    :param absent_readings: how many times in a row the provider said absent.
    :param contact: answered, unreachable, no_supervisor, unpinned, not_tried.
    :param run_state: the supervisor's word; empty when it does not know the run or was not asked.
    :param brought_up: this runner has already brought the box up, or found it at work.
    :param unchanged_s: seconds for which provider, contact and run state have been what they are.
    """

    home: bool = False
    provider: str = "absent"
    absent_readings: int = 0
    contact: str = "not_tried"
    run_state: str = ""
    brought_up: bool = False
    unchanged_s: float = 0.0


@dataclass(frozen=True)
class Action:
    """``why`` is a sentence for people; ``interruption`` marks a box that was lost while it was wanted."""

    kind: str
    why: str
    interruption: bool = False


def decide(situation: Situation) -> Action:
    """The one next action. Never one that ends a box: absence of evidence is not death."""
    if situation.home:
        return Action(FINISH, "its results are home and verified")
    if situation.provider in ("unreachable", "unknown"):
        return Action(WAIT, "the provider does not say how it is; nothing is concluded from that")
    if situation.provider == "absent":
        return _absent(situation)
    if situation.provider in _AT_REST:
        word = {"outbid": "a higher bid took its GPU", "exited": "its container ended"}.get(situation.provider)
        return Action(BRING_UP, word or "it is stopped while it is wanted", interruption=situation.brought_up)
    if situation.provider in _BETWEEN:
        return _between(situation)
    return _running(situation)


def _absent(situation: Situation) -> Action:
    if not situation.brought_up:
        return Action(BRING_UP, "it is not rented yet")
    if situation.absent_readings < GONE_READINGS:
        return Action(WAIT, "the provider does not list it; asking once more before it counts as gone")
    return Action(BRING_UP, "it is gone, the provider said so twice", interruption=True)


def _between(situation: Situation) -> Action:
    if not situation.brought_up:
        return Action(BRING_UP, f"it is {situation.provider}")
    if situation.unchanged_s >= STUCK_S:
        return Action(BRING_UP, f"it has been {situation.provider} for {situation.unchanged_s:.0f} s", True)
    return Action(WAIT, f"it is {situation.provider}")


def _running(situation: Situation) -> Action:
    if situation.contact in ("no_supervisor", "unpinned"):
        return Action(BRING_UP, "it runs and nothing is deployed on it yet")
    if situation.contact != "answered":
        if not situation.brought_up:
            return Action(BRING_UP, "it runs and does not answer yet")
        return Action(WAIT, "the provider says that it runs, it does not answer: waiting, never giving it up")
    return _answered(situation.run_state, situation.unchanged_s)


def _answered(run_state: str, unchanged_s: float) -> Action:
    if run_state == "done":
        return Action(HARVEST, "the run is done")
    if run_state == "failed":
        return Action(HARVEST_FAILED, "the run failed")
    if run_state == "running":
        return Action(WAIT, "the run is running")
    patience = {"preempted": SELF_RESUME_S, "blocked": STUCK_S, **dict.fromkeys(_SHORT, SHORT_STATE_S)}
    if run_state not in patience:
        return Action(BRING_UP, "the supervisor does not know the run yet")
    if unchanged_s < patience[run_state]:
        return Action(WAIT, f"the run is {run_state}")
    if run_state == "blocked":
        return Action(HARVEST_FAILED, f"the run has been blocked for {unchanged_s:.0f} s")
    return Action(BRING_UP, f"the run has been {run_state} for {unchanged_s:.0f} s and needs a start")


def back_off(round_number: int, first_s: float, most_s: float) -> float:
    """Seconds to wait before the next look: ``first_s``, growing by half each round, at most ``most_s``."""
    return float(min(first_s * 1.5 ** min(max(round_number, 0), 40), most_s))

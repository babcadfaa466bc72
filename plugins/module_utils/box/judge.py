# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Judgements: what state a cell and a run are in, and what comes next. Pure; nothing here reads a disk or a clock.

Attempts of another spec are no part of a judgement, except that their numbers are taken. The retry rule: a code error
is never retried by itself; what chance has made (a death by signal, a connection that broke) is, up to ``retries``; a
stop on request and the death of a whole box are no failures and are always continued. So is the death of another box of
the same run, but a box waits no longer than ``wait_s`` in all for the others to come back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import failure_class
from .refusal import (
    ARTIFACT_INVALID,
    ARTIFACT_MISSING,
    DISK,
    DURABLE_FAILED,
    ENVIRONMENT,
    HELD,
    INTERPRETER,
    PREEMPTED,
    TRAINER_FAILED,
)

QUEUED, RUNNING, VERIFYING, COPYING = "queued", "running", "verifying", "copying"
DONE, FAILED, PREEMPTED_STATE, BLOCKED = "done", "failed", "preempted", "blocked"
STATES = (QUEUED, RUNNING, VERIFYING, COPYING, DONE, FAILED, PREEMPTED_STATE, BLOCKED)
FRUITLESS_LIMIT = 5
# An attempt that worked this long with the other boxes was worth it, also where another box keeps the checkpoints.
WORTH_IT_S = 600.0
# torch's store tries again to connect when its time is over, so a wait may last some times as long as it should.
MOST_OF_A_WAIT = 4.0
RUN, FINISH, WATCH, NOTHING = "run", "finish", "watch", "nothing"


@dataclass(frozen=True)
class ExitFacts:
    """How a trainer ended. ``child`` is its exit code, negative for a signal, None when nobody saw it.

    ``cause``: ``exit`` (seen by the shim), ``lost`` (trainer and shim died under a living supervisor),
    ``interrupted`` (everything died at once: the box stopped). ``failure`` is its failure class, ``seconds`` how long
    it lasted.
    """

    wrapper: int
    child: int | None
    cause: str = "exit"
    stop_asked: bool = False
    failure: str = ""
    seconds: float = 0.0

    @property
    def by_peers(self) -> bool:
        """Ended because another box of the run did."""
        return not self.stop_asked and self.failure in failure_class.OF_PEERS

    @property
    def by_chance(self) -> bool:
        """Ended without being asked, and the very same try may end better."""
        return not self.stop_asked and (self.cause == "lost" or self.failure in failure_class.AGAIN)


@dataclass(frozen=True)
class AttemptFacts:
    """One attempt as it lies on the disk and in /proc. ``phase`` is the state last written by its owner, or ``""``.

    ``saved``: it left a checkpoint. ``earlier_life``: ``rebooted`` or ``restarted`` (the container) when its trainer
    belonged to an earlier life of the box.
    """

    number: int
    phase: str = ""
    begun: bool = False
    alive: bool = False
    done: bool = False
    exit: ExitFacts | None = None
    wrapper: int | None = None
    saved: bool = False
    earlier_life: str = ""
    why: str = ""


@dataclass(frozen=True)
class CellFacts:
    """All attempts of a cell for its current spec, ascending; ``highest`` counts those of other specs too.

    ``wait_s``: how long it may wait for the other boxes of its run.
    """

    run_id: str
    cell: str
    attempts: tuple[AttemptFacts, ...] = ()
    highest: int = 0
    retries: int = 1
    forgiven: int = 0
    wait_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """``number`` is the attempt that the ``next`` step concerns; 0 with NOTHING."""

    state: str
    next: str
    number: int
    why: str = ""


@dataclass(frozen=True)
class Step:
    """What the supervisor does next, over all runs."""

    kind: str
    run_id: str = ""
    cell: str = ""
    number: int = 0


@dataclass(frozen=True)
class Orders:
    """What people asked of the box. ``stopped`` names runs that stay stopped until a start or a reboot.

    ``halted``: runs that begin no cell any more, as one of theirs failed and they asked for that (``on_fail: stop``).
    """

    desired: str = "run"
    sealed: bool = False
    stopped: frozenset[str] = field(default_factory=frozenset)
    halted: frozenset[str] = field(default_factory=frozenset)

    def may_run(self, run_id: str) -> bool:
        return self.desired == "run" and not self.sealed and run_id not in self.stopped | self.halted


def judge_cell(cell: CellFacts) -> Verdict:
    """State of a cell, and the step that would bring it on if it were allowed to go on."""
    for attempt in cell.attempts:
        if attempt.done:
            return Verdict(DONE, NOTHING, attempt.number)
    for attempt in cell.attempts:
        if attempt.alive:
            return Verdict(RUNNING, WATCH, attempt.number)
    if not cell.attempts:
        return Verdict(QUEUED, RUN, cell.highest + 1)
    return _judge_ended(cell, cell.attempts[-1])


def _judge_ended(cell: CellFacts, last: AttemptFacts) -> Verdict:
    if not last.begun and last.exit is None:
        return Verdict(QUEUED, RUN, last.number)
    if _fruitless(cell) >= FRUITLESS_LIMIT:
        why = f"{FRUITLESS_LIMIT} attempts in a row were cut short before their first checkpoint"
        return Verdict(FAILED, NOTHING, last.number, why)
    again = Verdict(PREEMPTED_STATE, RUN, cell.highest + 1, last.why)
    if last.exit is None:
        # Nobody recorded how it ended, so the artifacts alone judge.
        return Verdict(VERIFYING, FINISH, last.number)
    if last.phase == FAILED and last.wrapper is not None and _is_verdict_on_artifacts(last.wrapper):
        return _judge_artifacts(cell, last, last.wrapper)
    if last.phase == PREEMPTED_STATE:
        return again
    if last.exit.failure in failure_class.BY_SUPERVISOR:
        # Whatever it answered when it was ended: half of a run may look whole.
        return _judge_failure(cell, last, last.exit)
    if last.exit.child == 0:
        return Verdict(VERIFYING, FINISH, last.number)
    if last.exit.stop_asked or last.exit.child == PREEMPTED or last.exit.cause == "interrupted":
        return again
    if last.exit.wrapper == DISK and last.exit.child is None:
        return Verdict(BLOCKED, RUN, cell.highest + 1, last.why)
    return _judge_failure(cell, last, last.exit)


def _fruitless(cell: CellFacts) -> int:
    """How many of the last attempts were cut short, by nobody's wish, without leaving a checkpoint.

    Boxes that die of the job itself (memory, power) look exactly like preempted ones, except for this.
    """
    count = 0
    for each in reversed(cell.attempts):
        cut_short = each.exit is not None and (each.exit.cause == "interrupted" or each.exit.child == PREEMPTED)
        if each.number <= cell.forgiven or each.saved or not cut_short or (each.exit and each.exit.stop_asked):
            return count
        count += 1
    return count


def _is_verdict_on_artifacts(wrapper: int) -> bool:
    return wrapper in (ARTIFACT_MISSING, ARTIFACT_INVALID, DURABLE_FAILED)


def _judge_artifacts(cell: CellFacts, last: AttemptFacts, wrapper: int) -> Verdict:
    if last.number > cell.forgiven:
        return Verdict(FAILED, NOTHING, last.number, last.why)
    if wrapper == DURABLE_FAILED:
        return Verdict(VERIFYING, FINISH, last.number)
    return Verdict(QUEUED, RUN, cell.highest + 1)


def _judge_failure(cell: CellFacts, last: AttemptFacts, ended: ExitFacts) -> Verdict:
    if last.number <= cell.forgiven:
        return Verdict(QUEUED, RUN, cell.highest + 1)
    if ended.by_peers:
        patience = _out_of_patience(cell)
        return Verdict(FAILED, NOTHING, last.number, patience) if patience else _with_peers(cell, last)
    chances = sum(1 for each in cell.attempts if each.number > cell.forgiven and each.exit and each.exit.by_chance)
    if ended.by_chance and chances <= cell.retries:
        return Verdict(PREEMPTED_STATE, RUN, cell.highest + 1, f"{last.why}; it is tried again")
    return Verdict(FAILED, NOTHING, last.number, last.why)


def _with_peers(cell: CellFacts, last: AttemptFacts) -> Verdict:
    return Verdict(PREEMPTED_STATE, RUN, cell.highest + 1, f"{last.why}; it waits for the others")


def _out_of_patience(cell: CellFacts) -> str:
    """Why a box stops waiting for the others; empty while it goes on."""
    waited, short = 0.0, 0
    for each in reversed(cell.attempts):
        if each.number <= cell.forgiven or each.exit is None or not each.exit.by_peers:
            break
        absent = each.exit.failure == failure_class.PEERS_ABSENT
        # Whoever lasted longer than anybody waits has met the others, whatever its last words are.
        longest = cell.wait_s * MOST_OF_A_WAIT if absent else max(WORTH_IT_S, cell.wait_s)
        if each.saved or each.exit.seconds > longest:
            break
        waited += each.exit.seconds if absent else 0.0
        short += 0 if absent else 1
    if waited >= cell.wait_s:
        return f"the other boxes of the run did not come within {cell.wait_s:.0f} s"
    return f"{short} times in a row the boxes met and parted at once" if short >= FRUITLESS_LIMIT else ""


def failed_wrapper(attempt: AttemptFacts) -> int:
    """The exit code that a failed attempt stands for."""
    if attempt.wrapper:
        return attempt.wrapper
    return attempt.exit.wrapper if attempt.exit and attempt.exit.wrapper else TRAINER_FAILED


def heals_by_itself(attempt: AttemptFacts) -> bool:
    """Whether a plain ``start`` may try it again: its world failed (files, disk, copy, other boxes), not its work."""
    if attempt.exit is not None and attempt.exit.by_peers:
        return True
    return failed_wrapper(attempt) in (ENVIRONMENT, INTERPRETER, DISK, HELD, DURABLE_FAILED)


def next_step(cells: list[CellFacts], orders: Orders) -> Step:
    """The one thing to do now: watch what lives, finish what ended, else run the first cell in index order."""
    verdicts = [(cell, judge_cell(cell)) for cell in cells]
    for wanted in (WATCH, FINISH, RUN):
        for cell, verdict in verdicts:
            if verdict.next != wanted or (wanted == FINISH and orders.sealed):
                continue
            if wanted == RUN and not orders.may_run(cell.run_id):
                continue
            return Step(wanted, cell.run_id, cell.cell, verdict.number)
    return Step(NOTHING)


def run_state(states: list[str], halted: bool = False) -> str:
    """State of a run from the states of its cells. Failed only when no cell can go on by itself.

    :param halted: as in :class:`Orders`: what waits does not go on.
    """
    for state in (RUNNING, VERIFYING, COPYING):
        if state in states:
            return state
    if halted:
        return FAILED
    for state in (BLOCKED, PREEMPTED_STATE):
        if state in states:
            return state
    if states and all(state == DONE for state in states):
        return DONE
    return FAILED if QUEUED not in states and FAILED in states else QUEUED


def liveness_word(alive: bool, done: bool, begun: bool, earlier_life: str, idle_s: float | None, stall_s: float) -> str:
    """alive, stalled, finished, rebooted, restarted or dead; ``none`` before anything began.

    :param earlier_life: as in :class:`AttemptFacts`. :param idle_s: since a sign of life.
    """
    if alive:
        return "stalled" if stall_s and idle_s is not None and idle_s > stall_s else "alive"
    if done:
        return "finished"
    if not begun:
        return "none"
    return earlier_life or "dead"

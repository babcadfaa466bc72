# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is the matter with a box, from three witnesses: its provider, its own supervisor, and our ledger. Pure.

Each witness has its own freshness, and silence of one is never taken for the word of another: a box that does not
answer is ``unreachable``, whatever it did before, and ``gone`` needs the provider's word twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration

RUNNING = "running"
STALLED = "stalled"
FINISHED = "finished"
FAILED = "failed"
OUTBID = "outbid"
STOPPED = "stopped"
LOADING_STUCK = "loading-stuck"
SCHEDULING_STUCK = "scheduling-stuck"
EXITED = "exited"
ALERT = "alert"
ZERO_GPU = "zero-gpu"
HOST_OFFLINE = "host-offline"
NO_PYTHON = "no-python"
UNREACHABLE = "unreachable"
GONE = "gone"
SUPERSEDED = "superseded"
# Nothing is the matter in these three: the box is not there yet, on its way, or there and not deployed to.
NOT_RENTED = "not-rented"
STARTING = "starting"
BARE = "bare"
ALL = (
    RUNNING, STALLED, FINISHED, FAILED, OUTBID, STOPPED, LOADING_STUCK, SCHEDULING_STUCK, EXITED, ALERT, ZERO_GPU,
    HOST_OFFLINE, NO_PYTHON, UNREACHABLE, GONE, SUPERSEDED, NOT_RENTED, STARTING, BARE,
)  # fmt: skip
# A box that the job wants at work, and that is not: what recovery is for.
LOST = (OUTBID, STOPPED, EXITED, LOADING_STUCK, SCHEDULING_STUCK, HOST_OFFLINE, ZERO_GPU, GONE)

# A word older than this was true once; nothing is concluded from it now.
FRESH_S = 120.0
# A box that neither comes up nor goes down for this long is stuck; a host this long without a sign of life is lost.
STUCK_S = 900.0
# The supervisor resumes a preempted run by itself, and moves on from the short states; later it needs a push.
SELF_RESUME_S = 20.0
SHORT_STATE_S = 300.0
GONE_READINGS = 2
# So many boxes, and more than half of those that were at work, silent at once: it is our network or the provider.
OUTAGE_LEAST = 2
# A box that is missing from so many readings is no longer taken for part of an outage.
OUTAGE_ABSENCES = 10

_SHORT = ("queued", "verifying", "copying")


@dataclass(frozen=True)
class ProviderWord:
    """The provider's word of the box.

    :param state: absent, loading, running, stopped, outbid, scheduling, exited, offline, unknown, or unreachable when
        it did not answer.
    :param age_s: seconds since it said so.
    :param unchanged_s: seconds for which it has been saying so.
    :param absences: authoritative absences in a row: neither a whole list nor the box's own item shows it.
    :param said: what it says beside the state, one line of text that may be a stranger's.
    """

    state: str = "unreachable"
    age_s: float = 0.0
    unchanged_s: float = 0.0
    absences: int = 0
    said: str = ""


@dataclass(frozen=True)
class BoxWord:
    """The box's own word, over ssh.

    :param contact: answered, unreachable, no_supervisor, no_python, unpinned, not_tried.
    :param run_state: the supervisor's word for the run; empty when it does not know it.
    :param stalled: the trainer lives and gives no sign of work.
    :param zero_gpu: the run needs GPUs, and the box has none to show.
    :param alerts: what the supervisor warns of.
    :param waits_for: of a run whose turn a batch system gives: what it waits for.
    """

    contact: str = "not_tried"
    run_state: str = ""
    age_s: float = 0.0
    unchanged_s: float = 0.0
    stalled: bool = False
    zero_gpu: bool = False
    alerts: tuple[str, ...] = ()
    waits_for: str = ""


@dataclass(frozen=True)
class LedgerWord:
    """What our own records say.

    :param home: a complete receipt for this very run spec exists.
    :param rented: a machine of this name was rented, and is not known to have been given back.
    :param superseded: a later generation took the place of this machine. Our records alone can say so: the box that was
        replaced knows of no other, and goes on calling itself running.
    """

    home: bool = False
    rented: bool = False
    superseded: bool = False


@dataclass(frozen=True)
class Verdict:
    """``name`` is one of :data:`ALL`, ``why`` a sentence for people.

    :param needs_push: the run is there and does not go on by itself.
    """

    name: str
    why: str
    alerts: tuple[str, ...] = ()
    needs_push: bool = False


def verdict(provider: ProviderWord, box: BoxWord, ledger: LedgerWord) -> Verdict:
    """The one verdict on one machine."""
    if ledger.superseded:
        return Verdict(SUPERSEDED, "a later generation took its place")
    if ledger.home:
        return Verdict(FINISHED, "its results are home and verified")
    if provider.age_s > FRESH_S:
        return Verdict(UNREACHABLE, f"what the provider said is {duration(provider.age_s)} old")
    if provider.state in ("unreachable", "unknown"):
        return Verdict(UNREACHABLE, "the provider does not say how it is; nothing is concluded from that")
    if provider.state == "absent":
        return _absent(provider, ledger)
    if provider.state == "running":
        return _running(box)
    return _not_running(provider)


def _absent(provider: ProviderWord, ledger: LedgerWord) -> Verdict:
    if not ledger.rented:
        return Verdict(NOT_RENTED, "it is not rented yet")
    if provider.absences < GONE_READINGS:
        return Verdict(UNREACHABLE, "the provider does not list it; asking once more before it counts as gone")
    return Verdict(GONE, "it is gone, the provider said so twice")


def _not_running(provider: ProviderWord) -> Verdict:
    stuck = provider.unchanged_s >= STUCK_S
    since = duration(provider.unchanged_s)
    if provider.state == "outbid":
        return Verdict(OUTBID, "a higher bid took its GPU")
    if provider.state == "stopped":
        return Verdict(STOPPED, "it is stopped while it is wanted")
    if provider.state == "exited":
        return Verdict(EXITED, "its container ended")
    if provider.state == "offline":
        told = f" (its provider says: {provider.said})" if provider.said else ""
        return Verdict(HOST_OFFLINE if stuck else UNREACHABLE, f"its host has been offline for {since}{told}")
    if not stuck:
        return Verdict(STARTING, f"it is {provider.state}")
    name = SCHEDULING_STUCK if provider.state == "scheduling" else LOADING_STUCK
    return Verdict(name, f"it has been {provider.state} for {since}")


def _running(box: BoxWord) -> Verdict:
    if box.contact in ("no_supervisor", "unpinned"):
        return Verdict(BARE, "it runs and nothing is deployed on it yet")
    if box.contact == "no_python":
        return Verdict(NO_PYTHON, "it lets us in and has no Python to ask")
    if box.contact != "answered":
        return Verdict(UNREACHABLE, "the provider says that it runs, it does not answer: waiting, never giving it up")
    if box.age_s > FRESH_S:
        return Verdict(UNREACHABLE, f"what it said is {duration(box.age_s)} old")
    return _answered(box)


def _answered(box: BoxWord) -> Verdict:
    since = duration(box.unchanged_s)
    if box.run_state == "done":
        return Verdict(FINISHED, "the run is done")
    if box.run_state == "failed":
        return Verdict(FAILED, "the run failed")
    if box.zero_gpu:
        return Verdict(ZERO_GPU, "its GPU is gone", box.alerts)
    if box.run_state == "running":
        return _at_work(box)
    if box.run_state == "blocked":
        name = FAILED if box.unchanged_s >= STUCK_S else STARTING
        return Verdict(name, f"the run has been blocked for {since}", box.alerts)
    if box.waits_for:
        # However long the queue is: a second job would only wait behind the first.
        return Verdict(STARTING, box.waits_for, box.alerts)
    patience = {"preempted": SELF_RESUME_S, **dict.fromkeys(_SHORT, SHORT_STATE_S)}
    if box.run_state not in patience:
        return Verdict(BARE, "the supervisor does not know the run yet")
    if box.unchanged_s < patience[box.run_state]:
        return Verdict(STARTING, f"the run is {box.run_state}")
    return Verdict(
        STALLED, f"the run has been {box.run_state} for {since} and needs a start", box.alerts, needs_push=True
    )


def _at_work(box: BoxWord) -> Verdict:
    if box.stalled:
        why = "its trainer gives no sign of work; the supervisor ends it and tries again"
        return Verdict(STALLED, why, box.alerts)
    if box.alerts:
        return Verdict(ALERT, box.alerts[0], box.alerts)
    return Verdict(RUNNING, "the run is running")


@dataclass(frozen=True)
class Silence:
    """Of one box that was at work when it was last heard of: whether it is silent now.

    :param absences: as in :class:`ProviderWord`.
    """

    box: str
    provider: str
    contact: str
    absences: int = 0

    @property
    def is_silent(self) -> bool:
        if self.provider == "absent":
            return self.absences < OUTAGE_ABSENCES
        return self.provider in ("unreachable", "unknown") or (self.provider, self.contact) == (RUNNING, "unreachable")


def outage(at_work: Sequence[Silence]) -> str:
    """Why nothing is recovered now; empty when most boxes can be heard.

    Boxes of several machines, and often of several accounts, do not all die in one minute: our own network, or the
    provider, is the better explanation, and a replacement rented now could not be reached either.
    """
    silent = [one.box for one in at_work if one.is_silent]
    if len(silent) < OUTAGE_LEAST or 2 * len(silent) <= len(at_work):
        return ""
    return f"{len(silent)} of {len(at_work)} boxes went silent at once: our network or the provider, not the boxes"

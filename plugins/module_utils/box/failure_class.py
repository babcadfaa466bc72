# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Failure classes: why a trainer ended, by evidence, and whether the very same try may end better. Pure.

Hard evidence (the kernel's counters, the disk, the driver) goes before the trainer's words. Words are anchored to the
forms in which Python and CUDA write errors: a metric may well be called ``val_L1Error``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import last_words, peers

DISK_FULL = "disk_full"
HOST_MEMORY = "host_memory"
GPU_MEMORY = "gpu_memory"
GPU_FAULT = "gpu_fault"
TRANSIENT = "transient"
KILLED = "killed"
CODE = "code"
# Ended by the supervisor: alive, and neither wrote nor computed.
STALLED = "stalled"
# Of a run over several boxes: another box went away, or did not come. No failure of this one, so gone on with like
# after a reboot, within limits that :mod:`judge` knows.
PEER_LOST = "peer_lost"
PEERS_ABSENT = "peers_absent"
OF_PEERS = (PEER_LOST, PEERS_ABSENT)
CLASSES = (DISK_FULL, HOST_MEMORY, GPU_MEMORY, GPU_FAULT, TRANSIENT, KILLED, STALLED, CODE, *OF_PEERS)
# Chance made these, so chance may unmake them. The others need another disk, another box or another program.
AGAIN = (TRANSIENT, KILLED, STALLED)
ADVICE = {
    DISK_FULL: "free space or rent a larger disk, then start again: it resumes",
    HOST_MEMORY: "fewer data loader workers or smaller buffers; the batch size does not change host memory much",
    GPU_MEMORY: (
        "a smaller batch or a larger card; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in env of the run spec "
        "where free memory is in pieces; look for memory that another process holds"
    ),
    GPU_FAULT: "the card or its host is broken: go on with another box",
    TRANSIENT: "tried again",
    KILLED: "tried again",
    STALLED: "tried again; if it stalls there too, look at its mounts and its data loaders, or raise stall_s",
    PEER_LOST: "another box of the run went away; this one waits for it and goes on with it",
    PEERS_ABSENT: "the other boxes did not come: look at them, then train on all of them again",
    CODE: "mend the program or its configuration, then deploy and start again",
}

_EXCEPTION = r"^(?:\[[^\]]*\]:? *)?(?:[\w.]+\.)?"
_DISK_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|basic_ios::clear: iostream error|unexpected pos \d+ vs \d+"
)
_GPU_MEMORY_WORDS = re.compile(
    _EXCEPTION + r"OutOfMemoryError\b|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.MULTILINE
)
_GPU_FAULT_WORDS = re.compile(
    r"CUDA error: (?:uncorrectable ECC error|unspecified launch failure|.*hardware|device.*unavailable)"
    r"|GPU has fallen off the bus|uncorrectable NVLink error"
)
# A tracker that is down for a moment, a connection that broke, a rendezvous that did not meet.
_TRANSIENT_WORDS = re.compile(
    _EXCEPTION + r"(?:CommError|DistNetworkError|DistStoreError|ConnectionResetError|ConnectionRefusedError"
    r"|ConnectionError|ReadTimeout|ConnectTimeout|RemoteDisconnected|IncompleteRead)\b"
    r"|Temporary failure in name resolution|HTTP Error 50[234]|50[234] Server Error"
    r"|NCCL (?:timeout|error: unhandled system error)|Watchdog caught collective operation timeout",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Evidence:
    """``child``: exit code of the trainer, negative for a signal. ``shortages``: what the disk lacks now.

    ``oom_kills``: how many processes the kernel killed for memory meanwhile; None where it does not say.
    ``xids``: codes that the driver logged meanwhile. ``log_tail``: the end of the trainer's output.
    ``together``: other boxes train with this one.
    """

    child: int
    shortages: tuple[str, ...] = ()
    oom_kills: int | None = None
    xids: tuple[int, ...] = ()
    log_tail: str = ""
    fatal_xids: frozenset[int] = field(default_factory=frozenset)
    together: bool = False


@dataclass(frozen=True)
class Failure:
    name: str
    evidence: str

    @property
    def again(self) -> bool:
        return self.name in AGAIN or self.name in OF_PEERS

    def as_dict(self) -> dict[str, object]:
        return {"class": self.name, "evidence": self.evidence, "again": self.again, "advice": ADVICE[self.name]}


def classify(seen: Evidence) -> Failure | None:
    """The class of a failed trainer; None when it did not fail."""
    if seen.child == 0:
        return None
    words = _by_words(seen.log_tail)
    if words is None or words.name == TRANSIENT:
        # A connection that broke has a better name where it led to another box of the run.
        words = (_by_peers(seen) if seen.together else None) or words
    return _by_counters(seen) or words or _by_exit(_ended_with(seen))


def _by_counters(seen: Evidence) -> Failure | None:
    broken = sorted(seen.fatal_xids.intersection(seen.xids))
    if broken:
        return Failure(GPU_FAULT, f"the driver logged Xid {', '.join(map(str, broken))}")
    if seen.oom_kills:
        return Failure(HOST_MEMORY, f"the kernel killed {seen.oom_kills} processes of this container for memory")
    if seen.shortages and seen.child > 0:
        return Failure(DISK_FULL, "; ".join(seen.shortages))
    return None


def _by_words(log_tail: str) -> Failure | None:
    for name, words, said in (
        (DISK_FULL, _DISK_WORDS, log_tail),
        (GPU_MEMORY, _GPU_MEMORY_WORDS, log_tail),
        (GPU_FAULT, _GPU_FAULT_WORDS, log_tail),
        # Connections break and are tried again all day: only one that ended it counts, or each error in the program
        # would be paid for twice.
        (TRANSIENT, _TRANSIENT_WORDS, last_words.of(log_tail)),
    ):
        hits = [line.strip() for line in said.splitlines() if words.search(line)]
        if hits:
            return Failure(name, f"its output says: {hits[-1][:200]}")
    return None


def _by_peers(seen: Evidence) -> Failure | None:
    lost, absent = peers.lost(seen.log_tail), peers.absent(seen.log_tail)
    if lost:
        return Failure(PEER_LOST, f"another box went away: {lost[:200]}")
    return Failure(PEERS_ABSENT, f"the other boxes did not come: {absent[:200]}") if absent else None


def _ended_with(seen: Evidence) -> int:
    """torchrun hides the signal that ended its worker behind an exit code of its own."""
    reported = peers.reported_exit(seen.log_tail) if seen.child > 0 else None
    return reported if reported is not None and reported < 0 else seen.child


def _by_exit(child: int) -> Failure:
    if child < 0:
        return Failure(KILLED, f"killed by signal {-child}, nobody says why")
    return Failure(CODE, f"it left with exit code {child}")

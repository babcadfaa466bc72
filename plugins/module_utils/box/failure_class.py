# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Failure classes: why a trainer ended, by evidence, and whether the very same try may end better. Pure.

Hard evidence (the kernel's counters, the disk, the driver) goes before the trainer's words where it explains this end.
Only the last words count: memory that was short and a full disk are survived too. They are anchored to the forms in
which Python and CUDA write errors: a metric may well be called ``val_L1Error``.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace

from . import last_words, peers

DISK_FULL = "disk_full"
HOST_MEMORY = "host_memory"
GPU_MEMORY = "gpu_memory"
GPU_FAULT = "gpu_fault"
TRANSIENT = "transient"
KILLED = "killed"
CODE = "code"
# Ended by the supervisor: alive, and neither wrote nor computed; or at work for longer than the run allows.
STALLED = "stalled"
TIMED_OUT = "timed_out"
BY_SUPERVISOR = (STALLED, TIMED_OUT)
# Of a run over several boxes: another box went away, or did not come. No failure of this one, so gone on with like
# after a reboot, within limits that :mod:`judge` knows.
PEER_LOST = "peer_lost"
PEERS_ABSENT = "peers_absent"
OF_PEERS = (PEER_LOST, PEERS_ABSENT)
CLASSES = (DISK_FULL, HOST_MEMORY, GPU_MEMORY, GPU_FAULT, TRANSIENT, KILLED, STALLED, TIMED_OUT, CODE, *OF_PEERS)
# Chance made these, so chance may unmake them. The others need another disk, another box or another program.
AGAIN = (TRANSIENT, KILLED, STALLED)
ADVICE = {
    DISK_FULL: "free space or rent a larger disk, then start again: it resumes",
    HOST_MEMORY: (
        "fewer data loader workers or smaller buffers, or a larger /dev/shm where that is short; the batch size does "
        "not change host memory much"
    ),
    GPU_MEMORY: (
        "a smaller batch or a larger card; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in env of the run spec "
        "where free memory is in pieces; look for memory that another process holds"
    ),
    GPU_FAULT: "the card or its host is broken: go on with another box",
    TRANSIENT: "tried again",
    KILLED: "tried again",
    STALLED: "tried again; if it stalls there too, look at its mounts and its data loaders, or raise stall_s",
    TIMED_OUT: (
        "raise cell_timeout_s (0 lifts it), then train again, with deploy_unseal=true once it was harvested: it "
        "resumes; with train_retry_failed=true it does so for the same time again"
    ),
    PEER_LOST: "another box of the run went away; this one waits for it and goes on with it",
    PEERS_ABSENT: "the other boxes did not come: look at them, then train on all of them again",
    CODE: "mend the program or its configuration, then deploy and start again",
}

_EXCEPTION = r"^(?:\[[^\]]*\]:? *)?(?:[\w.]+\.)?"
# torch's own files there are called so. It is memory, whatever the error calls it.
_SHARED_MEMORY_WORDS = re.compile(r"(?:</torch_|/dev/shm/).*No space left on device|No space left on device.*/dev/shm/")
_DISK_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|basic_ios::clear: iostream error|unexpected pos \d+ vs \d+"
)
_GPU_MEMORY_WORDS = re.compile(
    _EXCEPTION
    + r"(?<!ray\.exceptions\.)OutOfMemoryError\b|(?:CUDA|HIP)(?: error:)? out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED"
    r"|[Cc]uda failure (?:2 )?'out of memory'",
    re.MULTILINE,
)
_HOST_MEMORY_WORDS = re.compile(
    _EXCEPTION
    + r"(?:(?:_Array|Arrow)?MemoryError|(?<=ray\.exceptions\.)OutOfMemoryError)\b|Cannot allocate memory|std::bad_alloc"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory|workers are out of shared memory",
    re.MULTILINE,
)
_GPU_FAULT_WORDS = re.compile(
    r"CUDA error: (?:uncorrectable ECC error|unspecified launch failure|.*hardware|device.*unavailable)"
    r"|GPU has fallen off the bus|uncorrectable NVLink error"
)
# A tracker that is down for a moment, a connection that broke, a rendezvous that did not meet. A mere TimeoutError may
# be the program's own.
_TRANSIENT_WORDS = re.compile(
    _EXCEPTION
    + r"(?:CommError|Mailbox\w*Error|DistNetworkError|DistStoreError|Connection(?:Reset|Refused|Aborted)Error"
    r"|ConnectionError|ConnectError|(?<!tarfile\.)ReadError|RemoteProtocolError|ClientConnectorError|ServerDisconnectedError"
    r"|MaxRetryError|NewConnectionError|ReadTimeout|ConnectTimeout|RemoteDisconnected|IncompleteRead)\b"
    r"|^\S*(?:TimeoutError|OSError): \[Errno (?:101|110|113)\]"
    r"|Temporary failure in name resolution|HTTP Error 50[234]|50[234] Server Error"
    r"|NCCL (?:timeout|error: unhandled system error)|Watchdog caught collective operation timeout",
    re.MULTILINE,
)
# A shell, a data loader and torch say so of what they started.
_KILLED_WORDS = re.compile(
    r"DataLoader worker \(pid.*\) is killed(?! by signal: (?!Killed))|terminated with signal SIGKILL"
    r"|^Killed$|: line \d+: +\d+ Killed\b"
    # subprocess (of accelerate), joblib, deepspeed, and what multiprocessing words.
    r"|died with <Signals\.SIGKILL|SIGKILL\(-9\)|(?:return code =|exitcode) -9\b",
    re.MULTILINE,
)
# What those say who worked with a process that is gone.
_LOST_PROCESS_WORDS = re.compile(
    r"DataLoader worker \(pid.*\) exited unexpectedly|BrokenProcessPool|process pool was terminated abruptly"
    r"|subprocesses has abruptly died|TerminatedWorkerError"
    r"|" + _EXCEPTION + r"(?:EOFError|BrokenPipeError)\b",
    re.MULTILINE,
)
# A shell leaves with 128 and the number of the signal that ended what it had started.
_OF_A_SHELL = {
    128 + number: -number
    for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
}


@dataclass(frozen=True)
class Evidence:
    """``child``: exit code of the trainer, negative for a signal. ``shortages``: what the disk now lacks of what the
    run asks for; ``full``: there is next to nothing left of it.

    ``oom_kills``: how many processes the kernel killed for memory meanwhile; None where it does not say.
    ``xids``: codes that the driver logged meanwhile of the run's cards. ``log_tail``: the end of the trainer's output.
    ``together``: other boxes train with this one.
    """

    child: int
    shortages: tuple[str, ...] = ()
    full: bool = False
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
    seen = replace(seen, child=_OF_A_SHELL.get(seen.child, seen.child))
    said, ended = last_words.of(seen.log_tail), _ended_with(seen)
    words = _by_words(said)
    broke = words is not None and words.name == TRANSIENT
    of_a_loss = broke or _LOST_PROCESS_WORDS.search(said) or peers.lost(seen.log_tail)
    if words is None or broke:
        # A connection that broke has a better name where it led to another box of the run.
        words = (_by_peers(seen) if seen.together else None) or words
    by_kernel = _by_oom_kills(seen) if ended == -signal.SIGKILL or of_a_loss else None
    return _by_driver(seen) or by_kernel or _by_disk(seen) or words or _by_exit(ended)


def _by_driver(seen: Evidence) -> Failure | None:
    broken = sorted(seen.fatal_xids.intersection(seen.xids))
    return Failure(GPU_FAULT, f"the driver logged Xid {', '.join(map(str, broken))}") if broken else None


def _by_oom_kills(seen: Evidence) -> Failure | None:
    """Only for an end that a killed process explains: one that was survived explains nothing."""
    if not seen.oom_kills:
        return None
    return Failure(HOST_MEMORY, f"the kernel killed {seen.oom_kills} processes of this container for memory")


def _by_disk(seen: Evidence) -> Failure | None:
    """A disk with less than the run asks for is no reason for an error of another name; but on a full one the name may
    not have reached the log."""
    if seen.child > 0 and seen.shortages and (seen.full or not last_words.name_an_error(seen.log_tail)):
        return Failure(DISK_FULL, "; ".join(seen.shortages))
    return None


def _by_words(said: str) -> Failure | None:
    for name, words in (
        (HOST_MEMORY, _SHARED_MEMORY_WORDS),
        (DISK_FULL, _DISK_WORDS),
        (GPU_MEMORY, _GPU_MEMORY_WORDS),
        (HOST_MEMORY, _HOST_MEMORY_WORDS),
        (GPU_FAULT, _GPU_FAULT_WORDS),
        (TRANSIENT, _TRANSIENT_WORDS),
    ):
        hits = [line.strip() for line in said.splitlines() if words.search(line)]
        if hits:
            return Failure(name, f"its output says: {hits[-1][:200]}")
    return None


def _by_peers(seen: Evidence) -> Failure | None:
    lost, absent = peers.lost(seen.log_tail), peers.absent(seen.log_tail)
    own = _by_words(seen.log_tail) if lost or absent else None
    if own is not None and own.name != TRANSIENT:
        # Said before the noise of the neighbours that it brought down.
        return own
    if lost:
        return Failure(PEER_LOST, f"another box went away: {lost[:200]}")
    return Failure(PEERS_ABSENT, f"the other boxes did not come: {absent[:200]}") if absent else None


def _ended_with(seen: Evidence) -> int:
    """torchrun hides the signal that ended its worker behind an exit code of its own, and so does who lost a process by
    SIGKILL and says so."""
    if seen.child < 0:
        return seen.child
    reported = peers.reported_exit(seen.log_tail)
    reported = _OF_A_SHELL.get(reported or 0, reported or 0)
    if reported < 0:
        return reported
    return -signal.SIGKILL if _KILLED_WORDS.search(last_words.of(seen.log_tail)) else seen.child


def _by_exit(child: int) -> Failure:
    if child < 0:
        return Failure(KILLED, f"killed by signal {-child}, nobody says why")
    return Failure(CODE, f"it left with exit code {child}")

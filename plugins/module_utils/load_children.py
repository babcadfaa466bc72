# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Work on files from a stranger in child processes, on all cores: a file that crashes its parser fails alone."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import resource
import selectors
import signal
import sys
import warnings
from typing import Any, Callable, Iterator, Sequence

SECONDS_PER_ITEM = 3600
_SPARE_MEMORY = 4 * 1024**3
# A pickle may hold plain values beside its tensors, which stay in the file.
_MEMORY_PER_BYTE = 3


class _Child:
    def __init__(self, pid: int, stream: int, batch: Sequence[int]):
        self.pid, self.stream, self.batch = pid, stream, batch
        self.received = b""

    def answers(self) -> Iterator[tuple[int, dict[str, Any]]]:
        lines = self.received.split(b"\n")[:-1]
        for number, line in zip(self.batch, lines):
            yield number, json.loads(line)


def each_in_children(
    work: Callable[[int], dict[str, Any]],
    batches: Sequence[Sequence[int]],
    children: int,
    meanwhile: Callable[[], object] | None = None,
    seconds: int = SECONDS_PER_ITEM,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(number, work(number))`` for every number of every batch, as batches end, at most ``children`` at a time.

    ``work`` runs in a forked child and returns what JSON can hold. Of a number that ended its child one learns
    ``{"crashed": how}``; what its batch still had goes to another child.

    :param meanwhile: done here while the first children work.
    :param seconds: what one number may take before its child is killed; 0 for no limit.
    """
    waiting = collections.deque(batch for batch in batches if batch)
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < children:
                child = _start(work, waiting.popleft(), seconds)
                selector.register(child.stream, selectors.EVENT_READ, child)
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
            for key, _events in selector.select():
                child = key.data
                data = os.read(child.stream, 65536)
                child.received += data
                if not data:
                    selector.unregister(child.stream)
                    answers = list(_end(child))
                    yield from answers
                    if len(answers) < len(child.batch):
                        waiting.appendleft(child.batch[len(answers) :])


def _start(work: Callable[[int], dict[str, Any]], batch: Sequence[int], seconds: int) -> _Child:
    """A plain fork: no start-up cost, and nothing to import by path."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Libraries may hold idle threads; the child uses none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(writer, work, batch, seconds)
    os.close(writer)
    return _Child(pid, reader, batch)


def _end(child: _Child) -> Iterator[tuple[int, dict[str, Any]]]:
    os.close(child.stream)
    _pid, status = os.waitpid(child.pid, 0)
    answers = []
    # A line that is no JSON is a half-written last word.
    with contextlib.suppress(ValueError):
        for answer in child.answers():
            answers.append(answer)
    yield from answers
    if len(answers) < len(child.batch):
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"
        yield child.batch[len(answers)], {"crashed": ended}


def _child(writer: int, work: Callable[[int], dict[str, Any]], batch: Sequence[int], seconds: int) -> None:
    """Write one JSON line per number, then leave without running anything of the parent's."""
    status = 1
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Ansible puts an object in the place of sys.intern, beside which parts of torch refuse to be imported.
        sys.intern = getattr(sys.intern, "unpatched_implementation", sys.intern)
        with os.fdopen(writer, "wb", buffering=0) as stream:
            for number in batch:
                signal.alarm(seconds)
                answer = json.dumps(work(number)).encode("utf-8") + b"\n"
                while answer:
                    answer = answer[stream.write(answer) :]
        status = 0
    finally:
        os._exit(status)


def limit_memory(file_bytes: int) -> None:
    """Let this process allocate what an honest file of ``file_bytes`` may need; a bomb gets MemoryError."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            used = int(stream.read().split()[5]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return  # Only Linux counts what is meant here.
    wanted = used + _MEMORY_PER_BYTE * file_bytes + _SPARE_MEMORY
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or wanted < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))

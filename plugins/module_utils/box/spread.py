# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Work on many files on every core: forked processes, because thousands of small files would queue for one lock.

A plain fork costs no start-up, imports nothing and needs no shared memory, which containers may lack.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import threading
from typing import Any, Callable, List, Sequence, TypeVar

_Item = TypeVar("_Item")
Work = Callable[[Sequence[_Item]], List[Any]]

_MOST_PROCESSES = 16
# What opening and closing a file costs, in bytes of hashing.
FILE_COST = 20 * 1024
_LARGE = 4 * 1024 * 1024
# Below this a fork costs more than it saves.
_WORTH_A_FORK = 8 * 1024 * 1024


def cores() -> int:
    """Cores that this process may use."""
    try:
        return min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, where controllers may run
        return min(_MOST_PROCESSES, os.cpu_count() or 1)


def spread(items: Sequence[_Item], costs: Sequence[int], work: Work[_Item]) -> list[Any]:
    """One result for each of ``items``, in their order.

    :param work: gets some of the items, in their order, and returns as many results, made of what marshal can carry.
        It may run in another process, so what else it changes in memory is lost.
    """
    # Beside other threads nothing is forked: the child would never see the locks released that they hold just then.
    worth_it = sum(costs) > _WORTH_A_FORK and threading.active_count() == 1
    shares = _shares(costs, cores() if worth_it else 1)
    children = [_Child([items[index] for index in share], work) for share in shares[1:]]
    results: list[Any] = [None] * len(items)
    try:
        answers = [work([items[index] for index in shares[0]])] + [child.results() for child in children]
    finally:
        for child in children:
            child.end()
    for share, answer in zip(shares, answers):
        for index, result in zip(share, answer):
            results[index] = result
    return results


def _shares(costs: Sequence[int], count: int) -> list[list[int]]:
    """Indices in at most ``count`` shares of about equal cost; neighbours stay together, as they share a folder."""
    shares: list[list[int]] = [[] for _unused in range(max(1, min(count, len(costs))))]
    loads = [0] * len(shares)
    large = sorted((index for index, cost in enumerate(costs) if cost >= _LARGE), key=lambda index: -costs[index])
    for index in large:
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += costs[index]
    level = max(sum(costs) / len(shares), 1)
    current = 0
    for index, cost in enumerate(costs):
        if cost >= _LARGE:
            continue
        while loads[current] >= level and current < len(shares) - 1:
            current += 1
        shares[current].append(index)
        loads[current] += cost
    return [sorted(share) for share in shares if share] or [[]]


class _Child:
    """A forked process that works on its share and writes the results into a pipe."""

    def __init__(self, items: Sequence[Any], work: Work[Any]) -> None:
        self._items, self._work = items, work
        self._pid = 0
        try:
            self._source, target = os.pipe()
        except OSError:  # no descriptors left: the share is worked on here
            return
        try:
            self._pid = os.fork()
        except OSError:  # no processes left: likewise
            os.close(self._source)
            os.close(target)
            return
        if self._pid == 0:
            _answer_and_exit(items, work, target)
        os.close(target)

    def results(self) -> list[Any]:
        """What the child found; a child that died is stood in for, so that its error is raised here."""
        if not self._pid:
            return self._work(self._items)
        with os.fdopen(self._source, "rb") as stream:
            data = stream.read()
        self._reap()
        try:
            # A child that died has not written the end of its list. Nobody else has this pipe.
            found: list[Any] = marshal.loads(data)  # noqa: S302
        except (EOFError, ValueError, TypeError):
            return self._work(self._items)
        return found

    def end(self) -> None:
        """Nothing to do unless the parent failed before it asked for the results."""
        if self._pid:
            os.close(self._source)
            self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored, the kernel has done it
            os.waitpid(self._pid, 0)
        self._pid = 0


def _answer_and_exit(items: Sequence[Any], work: Work[Any], target: int) -> None:
    status = 1
    # To look for garbage is to write to every page, each of which would be copied for that.
    gc.disable()
    try:
        with os.fdopen(target, "wb") as stream:
            stream.write(marshal.dumps(work(items)))
        status = 0
    finally:
        os._exit(status)

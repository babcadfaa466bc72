# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A survey: every cell of every run as it is now, and what people asked for. The ground of every decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import array, attempt, desired, index, judge, launch, locks, process, records, run_record
from .layout import AttemptPaths, Layout


@dataclass(frozen=True)
class Survey:
    """``runs`` and ``cells`` are in index order; ``problems`` are sentences about records that cannot be trusted."""

    index: dict[str, Any] | None
    runs: dict[str, dict[str, Any]]
    cells: tuple[judge.CellFacts, ...]
    wanted: dict[str, Any]
    orders: judge.Orders
    problems: tuple[str, ...]
    launches: dict[str, dict[str, Any]]

    def next_step(self) -> judge.Step:
        return judge.next_step(list(self.cells), self.orders)

    def verdicts(self, run_id: str) -> dict[str, judge.Verdict]:
        return {cell.cell: judge.judge_cell(cell) for cell in self.cells if cell.run_id == run_id}

    def state_of(self, run_id: str) -> str:
        states = [verdict.state for verdict in self.verdicts(run_id).values()]
        return judge.run_state(states, run_id in self.orders.halted)

    def halt_of(self, run_id: str) -> str:
        """Why a run begins no cell any more though some wait; empty while it may."""
        return f"a cell failed, and {run_id} asks with on_fail to stop then" if run_id in self.orders.halted else ""

    def finished_twice(self, run_id: str) -> list[str]:
        """Why the results of a run must not be counted yet: cells that two tasks of a job array have finished."""
        told = []
        for cell in self.cells:
            done = [f"a{each.number}" for each in cell.attempts if each.done]
            if cell.run_id == run_id and len(done) > 1:
                told.append(
                    f"cell {cell.cell} was finished more than once ({', '.join(done)}), so it would be counted twice: "
                    "move the folder of the attempt that is not to count out of the run's folder, and keep it"
                )
        return told

    def live(self, run_id: str | None = None) -> list[judge.CellFacts]:
        """Cells whose trainer or shim lives, of one run or of all."""
        return [
            cell for cell in self.cells if judge.judge_cell(cell).next == judge.WATCH and run_id in (None, cell.run_id)
        ]


def survey(
    layout: Layout, wanted: dict[str, Any] | None = None, launches: dict[str, dict[str, Any] | None] | None = None
) -> Survey:
    """Look at everything below the root. A run whose record is damaged is a problem, not an end.

    :param wanted: judge as if people had asked for this instead. :param launches: likewise, for the runs named in it.
    :raises RecordError: the index itself cannot be trusted.
    """
    known = index.read(layout)
    wanted = desired.read(layout) if wanted is None else wanted
    runs: dict[str, dict[str, Any]] = {}
    problems = ["desired.json is damaged: treated as hold"] if wanted.get("damaged") else []
    for run_id in index.run_ids(known):
        try:
            runs[run_id] = run_record.read_run(layout, run_id)
        except (records.RecordError, ValueError) as error:
            problems.append(str(error))
    cells = [
        attempt.observe_cell(layout, run, cell, desired.forgiven(wanted, run_id, cell["id"]))
        for run_id, run in runs.items()
        for cell in run["cells"]
    ]
    halted = frozenset(cell.run_id for cell in cells if _halts(runs[cell.run_id], cell))
    if layout.share:
        # A task of an array sees its own share, and so works at nothing else.
        mine = array.owned(layout)
        cells = [cell for cell in cells if (cell.run_id, cell.cell) in mine]
    found = {run_id: launch.read(layout, run) for run_id, run in runs.items() if run["nodes"]}
    found.update({run_id: one for run_id, one in (launches or {}).items() if run_id in found})
    orders = desired.orders(layout, wanted)
    # What several boxes do together waits for the word that all of them may start.
    waiting = frozenset(run_id for run_id, one in found.items() if one is None)
    orders = judge.Orders(orders.desired, orders.sealed, orders.stopped | waiting, halted)
    known_launches = {run_id: one for run_id, one in found.items() if one is not None}
    return Survey(known, runs, tuple(cells), wanted, orders, tuple(problems), known_launches)


def _halts(run: dict[str, Any], cell: judge.CellFacts) -> bool:
    return run["on_fail"] == run_record.STOP and judge.judge_cell(cell).state == judge.FAILED


def paths_of(layout: Layout, cell: judge.CellFacts) -> AttemptPaths:
    """The attempt that the cell's verdict is about."""
    return layout.attempt(cell.run_id, cell.cell, judge.judge_cell(cell).number)


def read_daemon(layout: Layout) -> dict[str, Any]:
    """What the supervisor of this box says of itself: ``{alive, pid, ...}``. Where it is a job array, one that lives;
    else the one that was heard of last."""
    single = read_one_daemon(layout)
    if layout.share or single["alive"]:
        return single
    told = [single, *(read_one_daemon(layout.of_share(task.share)) for task in array.tasks(layout))]
    return max(told, key=lambda one: (bool(one["alive"]), str(one.get("heartbeat_at") or "")))


def read_one_daemon(layout: Layout) -> dict[str, Any]:
    """What one supervisor says of itself. Judged by its identity, never by its name."""
    record = attempt.read(layout.daemon, "daemon")
    identity = process.identity_from(record.get("process"))
    if identity is None:
        return {"alive": locks.is_held(layout.daemon_lock), "pid": None}
    seen = process.observe(identity)
    alive = seen == process.ALIVE and not record.get("stopped_at")
    keys = ("started_at", "heartbeat_at", "stopped_at", "why", "program", "preemption")
    # What was in the way in an earlier life of the box says nothing of this one.
    blocked = None if alive or seen in process.EARLIER_LIVES else record.get("blocked")
    known = {"alive": alive, "pid": identity.pid, "job": identity.job, "blocked": blocked}
    return {**known, **{key: record.get(key) for key in keys}}


def posture(found: Survey, daemon_alive: bool) -> dict[str, Any]:
    """What a command may change, small enough for a diff."""
    together = any(run["nodes"] for run in found.runs.values())
    launched = {run_id: records.digest(one)[:12] for run_id, one in found.launches.items()}
    return {
        **({"launched": launched} if together else {}),
        "desired": found.orders.desired,
        "sealed": found.orders.sealed,
        "stopped": sorted(found.orders.stopped),
        "supervisor": "running" if daemon_alive else "absent",
        "live": [f"{cell.run_id}/{cell.cell}" for cell in found.live()],
        "runs": {run_id: records.digest(_without_schema(run))[:12] for run_id, run in found.runs.items()},
    }


def _without_schema(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "schema"}

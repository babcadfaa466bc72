# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the supervisor and its shim take from a box whose trainer waits, and how fast one cell follows another.

The real program in its own processes: processor time from /proc/<pid>/stat over a watch (``SUPERVISOR_WATCH_S``),
memory from smaps_rollup after a cell has been finished, when all that a supervisor ever loads is loaded; *divided*
means that a page which several processes map counts in parts. The trainers of the second part are /bin/sh, which writes
the time when it starts and when it ends: between the two lie the exit record, verification, done record, survey, gates
and a new shim.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt
from supervised_box import SupervisedBox, supervised_box, wait_for

TITLE = "The supervisor at work"
WATCH_S = float(os.environ.get("SUPERVISOR_WATCH_S", "120"))
CELLS = int(os.environ.get("SUPERVISOR_CELLS", "21"))
# A neighbour's processes must not make it dearer: these are there besides what else runs.
NEIGHBOURS = 200
TICKS_IN_S = os.sysconf("SC_CLK_TCK")
_STAMP = "date +%s.%N >> {times}"


def processor_s(pid: int) -> float:
    """Processor time of the process and of the children it has collected."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_IN_S


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory, and the part of it that is left when shared pages are divided."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    resident, divided = (int(lines[key].split()[0]) / 1024 for key in ("Rss", "Pss"))
    return resident, divided


def watching(folder: Path) -> list[Figure]:
    """A cell that is done, and then one whose trainer waits."""
    held = ["--steps", "4", "--hold-at", "2", "--gate", str(folder / "gate")]
    with supervised_box(folder) as box:
        box.register(command=["python", "train.py"], cells=[{"id": "c0"}, {"id": "c1", "args": held}])
        box.verb("start")
        box.await_trainer()
        shim = attempt.shim_of(box.paths())
        assert shim is not None
        pids = {"supervisor": box.daemon().pid, "shim": shim.pid}
        begun = {name: processor_s(pid) for name, pid in pids.items()}
        since = time.monotonic()
        time.sleep(WATCH_S)
        watched = time.monotonic() - since
        used = {name: 100 * (processor_s(pid) - begun[name]) / watched for name, pid in pids.items()}
        memory = {name: memory_mib(pid) for name, pid in pids.items()}
    core = "% of a core"
    found = [Figure(f"{name}, processor time", value, core, 0.5) for name, value in used.items()]
    found.append(Figure("both, processor time", sum(used.values()), core, 0.5))
    found += [Figure(f"{name}, resident", resident, "MiB", 30) for name, (resident, _divided) in memory.items()]
    return [*found, Figure("both, shared pages divided", sum(divided for _all, divided in memory.values()), "MiB", 30)]


def gaps_s(box: SupervisedBox, times: Path) -> list[float]:
    """Seconds from the last act of each trainer to the first of the next."""
    stamp = _STAMP.format(times=times)
    script = f"{stamp}; : > $TENANT_OUTPUT_DIR/model.txt; {stamp}"
    cells = [{"id": f"c{number}"} for number in range(CELLS)]
    box.register(command=["/bin/sh", "-c", script], cells=cells, artifacts=[{"glob": "model.txt"}])
    box.verb("start")
    wait_for("all cells", lambda: times.is_file() and len(times.read_text().split()) == 2 * CELLS)
    stamps = [float(text) for text in times.read_text().split()]
    return [start - end for end, start in zip(stamps[1::2], stamps[2::2], strict=False)]


def rows() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="supervisor-bench-") as scratch:
        neighbours = [os.posix_spawn("/bin/sleep", ["sleep", "86400"], dict(os.environ)) for _one in range(NEIGHBOURS)]
        try:
            for name in ("watch", "cells"):
                (Path(scratch) / name).mkdir()
            found = watching(Path(scratch) / "watch")
            with supervised_box(Path(scratch) / "cells") as box:
                gaps = gaps_s(box, Path(scratch) / "times")
        finally:
            for pid in neighbours:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
    return [
        *found,
        Figure("from a trainer's end to the next one's start, median", statistics.median(gaps), "s", 0.3),
        Figure("the same, slowest", max(gaps), "s"),
    ]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The supervisor: one process per box that runs cells in index order, one at a time, until nothing may go on.

It keeps nothing in memory that matters: killed at any instruction, the next one surveys the disk and goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import Any, Callable, Iterator

from . import (
    array,
    attempt,
    batch,
    cell_timeout,
    diary,
    failure_class,
    fetch_order,
    gates,
    gpu_gate,
    health,
    heartbeat,
    inputs,
    judge,
    last_save,
    locks,
    preemption,
    process,
    queue,
    ready_answer,
    records,
    reserve,
    run_record,
    shim,
    stall,
    stopping,
    survey,
)
from .layout import AttemptPaths, Layout
from .refusal import DISK, INPUTS, INTERPRETER, PREEMPTED

TICK_S = 0.5
# The end of a shim of our own is a signal; that of one which an earlier supervisor started is seen at the next tick.
ADOPTED_TICK_S = 0.2
HEARTBEAT_S = 30.0
SHIM_READY_WITHIN_S = 60.0
LOG_CAP = 4 * 1024 * 1024
SELF_PREEMPTIONS = 3
_WITHHELD = judge.Step("withheld")
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}


class _StopAsked(Exception):
    """SIGTERM came while a command held the box."""


class Supervisor:
    """:param program: argv that starts this program again, for the shims."""

    def __init__(self, layout: Layout, program: list[str]) -> None:
        self.layout = layout
        self.program = program
        self._watched: set[tuple[str, str, int]] = set()
        self._self_preempted: dict[tuple[str, str], int] = {}
        self._shims: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._lock: int | None = None
        self._beat_at = 0.0
        self._record: dict[str, Any] = {}
        self._watchers: dict[tuple[str, str], preemption.Watcher] = {}
        self._health = health.Sampler(layout)
        self._live: health.Live | None = None
        self._gpu_wanted = False
        self._followed: tuple[tuple[str, str, int], heartbeat.Heartbeat] | None = None
        self._complaint = ""
        self._overdue = ""
        self._gpu_gate = gpu_gate.Gate()
        self._hopeless: dict[str, stall.Watch | cell_timeout.Watch] = {}
        self._teller = ready_answer.Teller(layout, program[-1])
        self._share: tuple[tuple[int, int], frozenset[tuple[str, str]]] | None = None

    def main(self, ready: Callable[[], None]) -> int:
        """Run until nothing may go on. Exit code 0, or 13 when the disk refused the next cell."""
        # A status command may hold the lock shared for an instant, hence the patience.
        self._lock = locks.lock_within(self.layout.daemon_lock, 5.0, "the supervisor's lock")
        os.umask(0o077)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._record = {"process": process.myself().as_dict(), "started_at": records.utc_now()}
        self._beat(program=self.program[-1])
        ready()
        self._say("started")
        self._observe(self._prune_what_is_left)
        try:
            return self._loop()
        except OSError as error:
            if not reserve.is_full(error):
                self._say(f"ended by {error}")
                raise
            # Whatever lives goes on under its shim; the next start surveys again.
            return self._leave(f"the disk is full: {error}", DISK)[1]
        except BaseException as error:
            self._say(f"ended by {type(error).__name__}: {error}")
            raise

    def _loop(self) -> int:
        while not self._stopping:
            try:
                step, code = self._decide()
            except _StopAsked:
                break
            if step is None:
                return code
            if step.kind == judge.WATCH:
                self._watch(step)
            elif step.kind == judge.FINISH:
                self._finish(step)
            elif step is _WITHHELD:
                self._pause()
        return self._stop_everything()

    # --- decide -----------------------------------------------------------------------------------------------

    def _decide(self) -> tuple[judge.Step | None, int]:
        """Survey, and launch if that comes next, under the box lock. A step of None means the end."""
        with self._box_lock():
            with contextlib.suppress(OSError):
                reserve.keep(self.layout.reserve)
            found = survey.survey(self.layout)
            self._watch_for_preemption(found.runs)
            self._gpu_wanted = any(run["gpu"]["required"] for run in found.runs.values())
            step = found.next_step()
            if step.kind == judge.NOTHING:
                superseded = self.layout.share and not found.cells
                return self._leave("later tasks have taken its cells over" if superseded else "nothing may go on", 0)
            if step.kind == judge.RUN:
                return self._begin(step, found.runs[step.run_id])
            return step, 0

    def _begin(self, step: judge.Step, run: dict[str, Any]) -> tuple[judge.Step | None, int]:
        """Launch the cell, unless something is in its way: then wait, or leave and say why."""
        obstacle = self._obstacle(step, run)
        if obstacle is None:
            return _WITHHELD, 0
        why, code = obstacle
        if not why and self._launch(run, run_record.cell_of(run, step.cell), step.number) == DISK:
            why, code = "could not be started: the disk is full", DISK
        return self._leave(f"{step.run_id}/{step.cell} {why}", code) if why else (step, 0)

    def _obstacle(self, step: judge.Step, run: dict[str, Any]) -> tuple[str, int] | None:
        """What forbids the cell, with its exit code; empty when nothing does, None when time will tell."""
        if self._ending() is not None:
            return None
        refusals = gates.refusals(self.layout.root, run)
        if refusals:
            return f"is blocked: {'; '.join(refusals)}", DISK
        unproven = inputs.problems(self.layout, run["inputs"])
        if unproven:
            fetching = fetch_order.is_running(self.layout, inputs.digest(run["inputs"]))
            return None if fetching else (f"is blocked: {'; '.join(unproven)}", INPUTS)
        unfit = self._gpu_gate.ask(step, run)
        if unfit:
            # Kept for the status, which does not ask the driver itself.
            self._record["blocked"] = {"run_id": step.run_id, "by": unfit, "exit": INTERPRETER}
            return f"is blocked: {'; '.join(unfit)}", INTERPRETER
        self._say_who_waits(run["run_id"], self._gpu_gate.waits_for)
        if unfit is None:
            return None
        if self._self_preempted.get((step.run_id, step.cell), 0) >= SELF_PREEMPTIONS:
            return "keeps saying that it was preempted", 0
        return "", 0

    def _say_who_waits(self, run_id: str, what_for: str) -> None:
        """Said once, and shown in the status meanwhile."""
        why = f"{run_id} waits: {what_for}" if what_for else ""
        if why != self._record.get("why", ""):
            self._beat(why=why)
            self._say(why or f"{run_id} has its GPUs")

    def _leave(self, why: str, code: int) -> tuple[None, int]:
        """Give the lock back while the box lock is held: a start right after this finds it free and all runs listed."""
        self._say(f"ends: {why}")
        self._say_queues()
        with contextlib.suppress(OSError):
            self._beat(stopped_at=records.utc_now(), why=why)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return None, code

    def _say_queues(self) -> None:
        """The last line of each run in the log: whoever reads it finds how its queue ended."""
        with contextlib.suppress(records.RecordError):
            found = survey.survey(self.layout)
            for run_id in found.runs:
                halted = found.halt_of(run_id)
                words = queue.of(found.verdicts(run_id), supervised=False).words()
                self._say(f"{run_id}: {words}{halted and f'; {halted}'}")

    @contextlib.contextmanager
    def _box_lock(self) -> Iterator[None]:
        """The box lock, however long a command holds it; SIGTERM is served meanwhile."""
        while True:
            descriptor = locks.try_lock(self.layout.box_lock)
            if descriptor is not None:
                break
            self._pause()
            if self._stopping:
                raise _StopAsked
        try:
            yield
        finally:
            os.close(descriptor)

    # --- launch -----------------------------------------------------------------------------------------------

    def _launch(self, run: dict[str, Any], cell: dict[str, Any], number: int) -> int | None:
        """Start a shim for the attempt; returns its exit code if it ended at once."""
        killed = attempt.end_leftovers(self.layout, run["run_id"], cell["id"])
        if killed:
            self._say(f"{run['run_id']}/{cell['id']}: ended {killed} processes that an earlier attempt left behind")
        paths = attempt.claim(self.layout, run, cell, number)
        attempt.write_status(paths, attempt.work(run, cell, number), state=judge.QUEUED)
        self._say(f"{run['run_id']}/{paths.relative} starts")
        self._start_shim(run["run_id"], cell["id"], number)
        self._watched.add((run["run_id"], cell["id"], number))
        ended = attempt.exit_facts(attempt.read(paths.exit, "exit"))
        if ended is None and not attempt.is_alive(paths):
            self._note_stillborn(run, cell, paths)
        return ended.wrapper if ended else None

    def _start_shim(self, run_id: str, cell_id: str, number: int) -> None:
        ready_read, ready_write = os.pipe()
        arguments = ["--root", self.layout.root, "shim", "--run", run_id, "--cell", cell_id]
        arguments += ["--attempt", str(number), "--ready-fd", str(ready_write)]
        # Those that the gate has just found: the driver need not be asked again, nor answer again.
        arguments += [word for card in self._gpu_gate.cards for word in ("--card", card)]
        self._shims.append(
            # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
            subprocess.Popen(  # pylint: disable=ansible-bad-function
                [*self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[ready_write],
                start_new_session=True,
                cwd="/",
            )
        )
        os.close(ready_write)
        try:
            if not select.select([ready_read], [], [], SHIM_READY_WITHIN_S)[0]:
                self._say(f"{run_id}/{cell_id}: its shim is slow to start")
        finally:
            os.close(ready_read)

    def _note_stillborn(self, run: dict[str, Any], cell: dict[str, Any], paths: AttemptPaths) -> None:
        """A shim that died before it recorded anything must not be started again for ever."""
        # It may have ended between the two looks, with a whole record.
        if attempt.exit_facts(attempt.read(paths.exit, "exit")) is None and attempt.trainer_of(paths) is None:
            why = f"the shim could not start; see {self.layout.log}"
            attempt.write_exit(paths, attempt.work(run, cell, paths.number), wrapper=INTERPRETER, child=None, why=why)

    # --- watch and finish -------------------------------------------------------------------------------------

    def _watch(self, step: judge.Step) -> None:
        key = (step.run_id, step.cell, step.number)
        paths = self.layout.attempt(*key)
        if key not in self._watched:
            self._say(f"{step.run_id}/{paths.relative} is alive: adopted")
            self._watched.add(key)
        told, self._hopeless = False, {}
        began_s = process.began_s(attempt.trainer_of(paths))
        self._live = health.Live(f"{step.run_id}/{paths.relative}", paths.folder, began_s)
        while not self._stopping and attempt.is_alive(paths):
            self._pause()
            self._observe(lambda: self._heart(key).beat())
            self._observe(self._teller.tick)
            ending = self._ending()
            if ending is not None and not told:
                told = self._stop_for(ending, step, paths)
            told = told or self._end_if_superseded(step, paths) or self._end_if_hopeless(step, paths)
        self._teller.end()
        self._observe(lambda: self._heart(key).beat(last=True))
        self._live = None
        # The last cell is followed by no tick, and its end is what people ask about.
        self._observe(lambda: self._health.tick(None, self._gpu_wanted))
        if self._stopping:
            return
        ended = attempt.exit_facts(attempt.read(paths.exit, "exit"))
        if ended is not None and ended.child == PREEMPTED and not ended.stop_asked:
            self._self_preempted[key[:2]] = self._self_preempted.get(key[:2], 0) + 1
        self._say(f"{step.run_id}/{paths.relative} ended: {ended if ended else 'nobody saw how'}")

    def _finish(self, step: judge.Step) -> None:
        from . import finish  # with all that judges artifacts: megabytes that a watch does not need

        run = run_record.read_run(self.layout, step.run_id)
        key = (step.run_id, step.cell, step.number)
        watched = key in self._watched
        if not watched:
            # It ran to its end without us: how far it came can still be read.
            self._observe(lambda: self._heart(key).beat(last=True))
        outcome = finish.finish(self.layout, run, run_record.cell_of(run, step.cell), step.number, watched)
        self._say(f"{step.run_id}/{step.cell}/a{step.number} is {outcome}")
        if outcome == judge.DONE:
            self._prune(run, step.cell, step.number)

    def _prune(self, run: dict[str, Any], cell: str, number: int) -> None:
        """Older checkpoints of a finished cell, once its results are on the durable mount."""
        if run["durable"]["kind"] != "mount":
            return  # what is on this disk is the only copy
        from . import pruning  # as finish

        told = pruning.prune(self.layout, run, cell, number)
        for line in pruning.sentences(told) if told else []:
            self._say(f"{run['run_id']}/{cell}/a{number}: {line}")

    def _prune_what_is_left(self) -> None:
        """Cells that were done just before a supervisor was killed."""
        found = survey.survey(self.layout)
        for cell in found.cells:
            verdict = judge.judge_cell(cell)
            told = attempt.read(self.layout.attempt(cell.run_id, cell.cell, verdict.number).pruned, "pruned")
            if verdict.state == judge.DONE and not told.get("finished_at"):
                self._prune(found.runs[cell.run_id], cell.cell, verdict.number)

    def _heart(self, key: tuple[str, str, int]) -> heartbeat.Heartbeat:
        if self._followed is None or self._followed[0] != key:
            self._followed = key, heartbeat.Heartbeat(self.layout, *key)
        return self._followed[1]

    def _observe(self, look: Callable[[], None]) -> None:
        """What only tells must not end what works, whatever it meets. A repeated complaint is told once."""
        try:
            look()
        except Exception as error:
            if repr(error) != self._complaint:
                self._complaint = repr(error)
                self._say(f"could not observe: {self._complaint}")

    def _stop_everything(self) -> int:
        """SIGTERM came: forward it, wait for the grace, leave. Nothing is put on hold: the next start goes on."""
        self._say("asked to stop")
        found = survey.survey(self.layout)
        live = found.live()
        grace = max([last_save.told_s(found.runs[cell.run_id]) for cell in live], default=0.0)
        stopping.stop_all([survey.paths_of(self.layout, cell) for cell in live], grace, "the supervisor was stopped")
        self._leave("asked to stop", 0)
        self._queue_again()
        return 0

    def _queue_again(self) -> None:
        """A batch system that ends the job of a supervisor with work left takes it back, and runs it again."""
        found = survey.survey(self.layout)
        waiting = [run_id for run_id in found.runs if queue.of(found.verdicts(run_id), supervised=False).waiting]
        if not any(found.orders.may_run(run_id) for run_id in waiting):
            return
        why_not = batch.requeue()
        self._say(f"not queued again: {why_not}" if why_not else "the batch system has taken the job back")

    # --- preemption -------------------------------------------------------------------------------------------

    def _watch_for_preemption(self, runs: dict[str, dict[str, Any]]) -> None:
        """One watcher for each source that a run names; a source that no run names any more is left alone."""
        for run in runs.values():
            source, url = run["preemption"]["source"], run["preemption"]["url"]
            if source and (source, url) not in self._watchers:
                watcher = self._watchers[source, url] = preemption.Watcher(source, url)
                watcher.start()
                self._say(f"watches {source} for the end of this machine")

    def _ending(self) -> preemption.Watcher | None:
        """Who says that this machine is going to end; None while nobody does."""
        watchers = self._watchers.values()
        return next((each for each in watchers if each.ends()), None)

    def _say_overdue(self) -> None:
        """Said once for each notice: why cells go on, on a machine that was to end."""
        told = "; ".join(filter(None, (each.overdue() for each in self._watchers.values())))
        if told and not self._overdue:
            self._say(f"this machine was to end and did not: {told}; cells go on")
        self._overdue = told

    def _noticed(self) -> list[dict[str, Any]]:
        return [watcher.as_dict() for watcher in self._watchers.values()]

    def _stop_for(self, ending: preemption.Watcher, step: judge.Step, paths: AttemptPaths) -> bool:
        """SIGTERM for a last save, within the shorter of the run's grace and the time that is left; whether it was."""
        run, left, notice = run_record.read_run(self.layout, step.run_id), ending.left_s(), ending.notice
        if notice is None:
            return False  # taken back at this very instant
        # A notice that names no time leaves what the platform is known to grant.
        lefts = (run["preemption"]["grace_s"], ending.granted_s()) if left is None else (left,)
        grace = last_save.within_s(run, *lefts)
        why = f"this machine ends: {notice.event}{f' at {notice.at}' if notice.at else ''}"
        self._say(f"{step.run_id}/{paths.relative}: {why}; the trainer has {grace:.0f} s to save")
        stopping.ask(paths, grace, why)
        return True

    def _end_if_hopeless(self, step: judge.Step, paths: AttemptPaths) -> bool:
        """SIGTERM to a trainer that stalls or works for too long, then SIGKILL: the meter runs."""
        told = {}

        def read() -> dict[str, Any]:
            return run_record.read_run(self.layout, step.run_id)

        def began() -> float | None:
            return process.began_s(attempt.trainer_of(paths))

        def look() -> None:
            if not self._hopeless:
                watches = {failure_class.STALLED: stall.Watch(paths, read())}
                self._hopeless = {**watches, failure_class.TIMED_OUT: cell_timeout.Watch(began, read)}
            told.update({failure: watch.look() for failure, watch in self._hopeless.items()})

        self._observe(look)
        failure = next((failure for failure, why in told.items() if why), "")
        if failure:
            self._say(f"{step.run_id}/{paths.relative}: {told[failure]}; it is ended")
            stopping.ask(paths, read()["grace_s"], told[failure], failure)
        return bool(failure)

    def _end_if_superseded(self, step: judge.Step, paths: AttemptPaths) -> bool:
        """SIGTERM to a trainer whose cell a later turn of the array has taken: this task came back too late."""
        if not self.layout.share or (step.run_id, step.cell) in self._owned():
            return False
        why = "a later task of this box has taken the cell over"
        self._say(f"{step.run_id}/{paths.relative}: {why}; the trainer is ended")
        stopping.ask(paths, run_record.read_run(self.layout, step.run_id)["grace_s"], why)
        return True

    def _owned(self) -> frozenset[tuple[str, str]]:
        """Read again only when somebody wrote it: this is asked at every tick."""
        about = os.stat(self.layout.array)
        seen = about.st_ino, about.st_mtime_ns
        if self._share is None or self._share[0] != seen:
            self._share = seen, array.owned(self.layout)
        return self._share[1]

    # --- housekeeping -----------------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Wait for a signal or one tick, then keep house."""
        received = signal.sigtimedwait(_SIGNALS, TICK_S if self._shims else ADOPTED_TICK_S)
        if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
        self._shims = [each for each in self._shims if each.poll() is None]
        if time.monotonic() - self._beat_at >= HEARTBEAT_S or self._noticed() != self._record.get("preemption", []):
            with contextlib.suppress(OSError):
                self._beat()
        self._say_overdue()
        self._observe(lambda: self._health.tick(self._live, self._gpu_wanted))
        shim.rotate(self.layout.log, LOG_CAP)

    def _beat(self, **changes: Any) -> None:
        self._beat_at = time.monotonic()
        now = records.utc_now()
        self._record = dict(self._record, heartbeat_at=now, preemption=self._noticed(), **changes)
        records.write_record(self.layout.daemon, "daemon", self._record)

    def _say(self, text: str) -> None:
        diary.say("supervisor", text)


def main(layout: Layout, program: list[str], ready_fd: int | None) -> int:
    """Entry of the verb ``daemon``."""

    def ready() -> None:
        if ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"1")
                os.close(ready_fd)

    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)
    return Supervisor(layout, program).main(ready)

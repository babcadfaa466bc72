# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The shim: parent of one trainer. It outlives the supervisor, forwards signals, and records how the trainer ended.

The trainer is held at a gate until its identity is on the disk, so that whoever dies at whichever instruction,
either no trainer runs or the record names it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from typing import Any, Callable, Sequence

from . import (
    attempt,
    calling,
    cgroup,
    diary,
    durable_checkpoints,
    failure_class,
    gpu_locks,
    inputs,
    judge,
    last_save,
    launch,
    locks,
    post_mortem,
    process,
    records,
    reserve,
    run_log,
    run_record,
    stall,
    tracker_environment,
)
from .layout import AttemptPaths, Layout
from .refusal import DISK, ENVIRONMENT, HELD, INTERPRETER, PREEMPTED, TRAINER_FAILED, Refused

LOG_CAP = 64 * 1024 * 1024
HEARTBEAT_S = 30.0
TICK_S = 1.0
LEFTOVER_GRACE_S = 5.0
# The supervisor found them free a moment ago; only another root may have been faster.
GPUS_WITHIN_S = 3.0
EXIT_WRITE_LIMIT_S = 120.0
# What a login brings along and a trainer must not depend on.
_NOT_INHERITED = ("SSH_", "TMUX", "STY", "TENANT_", "XDG_SESSION", "LS_COLORS", "OLDPWD")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# From which size glibc copies past the cache. Left to itself it takes that from a core's share of the L3 cache, 1 to
# 12 MiB on a server, and believes what a hypervisor says of it: two cores that were shown 260 MiB copied a state of
# tensors of 9 MiB at 60 % of the speed (docs/benchmarks.md).
COPYING = {"GLIBC_TUNABLES": "glibc.cpu.x86_non_temporal_threshold=4194304"}
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def trainer_environment(
    inherited: dict[str, str], run: dict[str, Any], secrets: dict[str, str], tenant: dict[str, str], threads: int
) -> dict[str, str]:
    """The trainer's environment: login noise removed, run's env, secrets, then what the supervisor says."""
    found = {**COPYING, **{name: value for name, value in inherited.items() if not name.startswith(_NOT_INHERITED)}}
    # What an image was built with knows nothing of the quota here; what the run says is meant.
    found.update(dict.fromkeys(_THREADS, str(threads)))
    found.update(run["env"])
    found.update(secrets)
    found.update(tenant, PYTHONUNBUFFERED="1")
    programs = os.path.dirname(run["python"])
    if programs not in found.get("PATH", "").split(os.pathsep):
        found["PATH"] = os.pathsep.join(part for part in (programs, found.get("PATH") or os.defpath) if part)
    return found


def tenant_variables(
    run: dict[str, Any], cell: dict[str, Any], paths: AttemptPaths, resume_dirs: list[str], inputs_dir: str = ""
) -> dict[str, str]:
    """What the trainer is told. ``TENANT_ATTEMPT`` marks every process of the attempt."""
    mu_s = run["checkpoint"].get("mu_s", run["checkpoint"].get("mu", ""))
    return {
        attempt.ATTEMPT_VARIABLE: paths.folder,
        "TENANT_RUN_ID": run["run_id"],
        "TENANT_CELL": cell["id"],
        "TENANT_SEED": str(cell["seed"]),
        "TENANT_OUTPUT_DIR": paths.output,
        "TENANT_CHECKPOINT_DIR": paths.checkpoints,
        "TENANT_RESUME_DIRS": os.pathsep.join(resume_dirs),
        "TENANT_METRICS": paths.metrics,
        **({"TENANT_INPUTS_DIR": inputs_dir} if inputs_dir else {}),
        "TENANT_GRACE_S": f"{last_save.told_s(run):g}",
        **({"TENANT_MU_S": str(mu_s)} if mu_s not in ("", None) else {}),
    }


def rotate(path: str, cap: int = LOG_CAP) -> bool:
    """Move a log that outgrew ``cap`` bytes to ``<path>.1``, at most twice as much of it. The writer appends to the
    same file, so it is emptied in place; what is written in that instant may be lost."""
    try:
        if os.path.getsize(path) <= cap:
            return False
        try:
            _copy_end(path, 2 * cap)
        except OSError as error:
            if not reserve.is_full(error):
                raise
            return _cut(path)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def _copy_end(path: str, most: int) -> None:
    with open(path, "rb") as log, open(run_log.earlier(path), "wb") as kept:
        log.seek(max(0, os.fstat(log.fileno()).st_size - most))
        shutil.copyfileobj(log, kept, 1024 * 1024)


def _cut(path: str) -> bool:
    """Rotate on a full disk: of the old log only the end is kept. A part of a copy, made anew at each tick, would take
    the space that a save needs."""
    end = run_log.end_of_file(path, run_log.END)
    # Where no inode is left there is none.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(run_log.earlier(path))
    os.truncate(path, 0)
    with contextlib.suppress(OSError), open(run_log.earlier(path), "wb") as stream:
        stream.write(end)
    return True


class Shim:
    """One attempt, from the claim to the exit record.

    :param cards: those that its trainer uses, which no other trainer on this machine may use meanwhile.
    """

    def __init__(self, layout: Layout, run_id: str, cell_id: str, number: int, cards: Sequence[str]) -> None:
        self.run = run_record.read_run(layout, run_id)
        self.cell = run_record.cell_of(self.run, cell_id)
        self.paths = layout.attempt(run_id, cell_id, number)
        self.keys = attempt.work(self.run, self.cell, number)
        self.resume_dirs = attempt.resume_dirs(layout, self.run, cell_id, number)
        self._stop_asked = False
        self._stop_why = ""
        self._ended_for = ""
        self._kill_at: float | None = None
        self._pid = 0
        self._started = time.monotonic()
        self._layout = layout
        self._life = stall.Life(self.paths)
        self._post_mortem = post_mortem.PostMortem(self.paths, layout.root, self.run["limits"])
        self._cards = cards
        self._gpus: list[int] = []

    def main(self, ready: Callable[[], None]) -> int:
        """Run the trainer to its end. ``ready`` is called once the attempt can be found by others."""
        # Whoever asks for a status may hold it shared for an instant, hence the patience.
        lock = locks.lock_within(self.paths.lock, 3.0, "the attempt")
        try:
            return self._run(ready)
        finally:
            gpu_locks.release(self._gpus)
            os.close(lock)

    def _run(self, ready: Callable[[], None]) -> int:
        if os.path.exists(self.paths.exit):
            raise Refused(HELD, f"{self.paths.folder} has already ended")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        process.become_subreaper()
        try:
            self._start()
        except Refused as refused:
            self._record_exit(refused.code, None, refused.what)
            ready()
            return refused.code
        except OSError as error:
            code = DISK if reserve.is_full(error) else INTERPRETER
            self._record_exit(code, None, f"the trainer could not be started: {error}")
            ready()
            return code
        ready()
        self._post_mortem.tell_cards_apart(self._cards)
        return self._watch()

    # --- start ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        inputs_dir = inputs.folder_of(self._layout, self.run)
        argv, of_launch = launch.trainer_argv(self._layout, self.run, self.cell)
        argv = [word.replace("{inputs}", inputs_dir) for word in argv]
        secrets = run_record.read_env_file(self.run["env_file"]) if self.run["env_file"] else {}
        durable_dir, earlier = durable_checkpoints.prepare(self._layout, self.run, self.paths, self.keys)
        self.resume_dirs += earlier
        tenant = tenant_variables(self.run, self.cell, self.paths, self.resume_dirs, inputs_dir)
        tenant.update({durable_checkpoints.VARIABLE: durable_dir} if durable_dir else {})
        of_run = {**tracker_environment.variables(self.run, self.cell, self.paths), **self.run["env"]}
        # A trainer calls out too: to its tracker, and to the Hub for what is no input.
        run = dict(self.run, env=calling.variables(self._layout.root, dict(os.environ), {}, over=of_run))
        environment = trainer_environment(dict(os.environ), run, secrets, tenant, cgroup.threads())
        environment.update(of_launch)
        if not os.path.isdir(self.run["workdir"]):
            raise Refused(ENVIRONMENT, f"the working folder {self.run['workdir']} is not there: deploy the run again")
        tracker_environment.make_folder(self.run, self.paths)
        self._take_gpus()
        self._make_reserve()
        gate_read, gate_write = os.pipe()
        fault_read, fault_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(gate_write)
            os.close(fault_read)
            self._become_trainer(argv, environment, gate_read, fault_write)
        os.close(gate_read)
        os.close(fault_write)
        try:
            self._record_start()
            os.write(gate_write, b"1")
        finally:
            # Without the byte, the child sees the end of the pipe and leaves before it becomes the trainer.
            os.close(gate_write)
        self._check_started(fault_read, argv)

    def _take_gpus(self) -> None:
        self._gpus = gpu_locks.acquire(self._cards, GPUS_WITHIN_S)

    def _make_reserve(self) -> None:
        """Blocks and inodes kept back for the exit record: a trainer that fills the disk is just what must be told."""
        reserve.keep(self.paths.reserve)

    def _become_trainer(self, argv: list[str], environment: dict[str, str], gate: int, fault: int) -> None:
        """In the child: own session, closed stdin, log as output, wait for the gate, exec. Never returns."""
        try:
            os.setsid()
            self._redirect()
            _restore_signals()
            if os.read(gate, 1) != b"1":
                os._exit(127)
            os.chdir(self.run["workdir"])
            os.execvpe(argv[0], argv, environment)  # noqa: S606  # no shell is what we want
        except BaseException as error:
            os.write(fault, str(error).encode("utf-8", "replace")[:500])
        os._exit(127)

    def _redirect(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(self.paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)

    def _record_start(self) -> None:
        trainer = process.identify(self._pid)
        if trainer is None:
            raise OSError(errno.ESRCH, "the child ended before it became the trainer")
        attempt.write_status(
            self.paths,
            self.keys,
            state=judge.RUNNING,
            process=trainer.as_dict(),
            shim=process.myself().as_dict(),
            started_at=records.utc_now(),
            heartbeat_at=records.utc_now(),
            why="",
            exit=None,
            resume_dirs=self.resume_dirs,
        )

    def _check_started(self, fault: int, argv: list[str]) -> None:
        """The pipe closes at exec; text in it says why there was none."""
        with os.fdopen(fault, "rb") as stream:
            text = stream.read().decode("utf-8", "replace")
        if text:
            os.waitpid(self._pid, 0)
            raise Refused(INTERPRETER, f"{argv[0]} cannot be started: {text}")

    # --- watch ------------------------------------------------------------------------------------------------

    def _watch(self) -> int:
        beat = time.monotonic()
        while not self._trainer_ended():
            # Not of one that has ended: nothing would follow its last words.
            rotate(self.paths.log)
            received = signal.sigtimedwait(_SIGNALS, TICK_S)
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._ask_to_stop()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill_everything()
            if time.monotonic() - beat >= HEARTBEAT_S:
                beat = time.monotonic()
                self._beat()
        return self._end()

    def _beat(self) -> None:
        self._life.look()
        # A full disk must not end the watch over a trainer that may still free it.
        with contextlib.suppress(OSError):
            attempt.write_status(self.paths, self.keys, heartbeat_at=records.utc_now(), life=self._life.as_dict())

    def _ask_to_stop(self) -> None:
        """SIGTERM to the trainer's group; SIGKILL to everything once the grace is over."""
        order = attempt.read(self.paths.stop, "stop")
        grace, told = order.get("grace_s"), last_save.told_s(self.run)
        until = time.monotonic() + (float(grace) if isinstance(grace, (int, float)) else told)
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)
        self._stop_asked = True
        self._stop_why = str(order.get("why") or "a signal to the shim")
        failure = str(order.get("failure") or "")
        self._ended_for = failure if failure in failure_class.BY_SUPERVISOR else ""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGTERM)

    def _kill_everything(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        process.kill_all(attempt.members(self.paths))

    def _trainer_ended(self) -> bool:
        """Collect descendants that became ours and ended; the trainer itself is left for :meth:`_end`.

        The kernel is asked, not /proc: a look at every process of the box each second is what a busy host cannot spare.
        """
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is None or ended.si_pid == self._pid:
                return ended is not None
            os.waitpid(ended.si_pid, 0)

    # --- end --------------------------------------------------------------------------------------------------

    def _end(self) -> int:
        """The trainer is a zombie still, so its pid and group cannot mean anybody else while leftovers are ended."""
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        if signal.sigpending() & {signal.SIGTERM, signal.SIGINT}:
            # Told to all processes of the box at once, so the trainer may end before the shim is at its signal.
            self._ask_to_stop()
        clean = ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status == 0
        self._end_leftovers(LEFTOVER_GRACE_S if clean else 0.0)
        _pid, status = os.waitpid(self._pid, 0)
        _collect_orphans()
        child = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        failure = self._failure(child)
        wrapper = wrapper_exit(child, self._stop_asked, failure)
        self._record_exit(wrapper, child, self._why(child, wrapper, failure), failure)
        return wrapper

    def _failure(self, child: int) -> failure_class.Failure | None:
        if self._ended_for:
            # Nobody asked for its end, so it counts against it, whatever it answered to the signal.
            self._stop_asked = False
            return failure_class.Failure(self._ended_for, self._stop_why)
        if self._stop_asked or child in (0, PREEMPTED):
            return None
        # Nodes of one job end together, with the words of all of them in one log: no box is waited for.
        together = run_record.is_part(self.run) and bool(self.run["nodes"])
        return failure_class.classify(self._post_mortem.evidence(child, together))

    def _end_leftovers(self, grace_s: float) -> None:
        """Workers and loggers that outlived the trainer get ``grace_s`` to leave, then SIGKILL."""
        until = time.monotonic() + grace_s
        while attempt.members(self.paths) and time.monotonic() < until:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        process.kill_all(attempt.members(self.paths))

    def _why(self, child: int, wrapper: int, failure: failure_class.Failure | None) -> str:
        if wrapper == PREEMPTED:
            return f"stopped on request: {self._stop_why}" if self._stop_asked else "the trainer says it was preempted"
        if failure is None:
            return ""
        if failure.name in failure_class.BY_SUPERVISOR:
            return failure.evidence
        how = f"killed by signal {-child}" if child < 0 else f"the trainer left with exit code {child}"
        is_said = failure.name == failure_class.CODE or (failure.name == failure_class.KILLED and child < 0)
        return how if is_said else f"{how}: {failure.evidence}"

    def _record_exit(
        self, wrapper: int, child: int | None, why: str, failure: failure_class.Failure | None = None
    ) -> None:
        facts: dict[str, Any] = {
            "wrapper": wrapper,
            "child": child,
            "cause": "exit",
            "stop_asked": self._stop_asked,
            "failure": failure.as_dict() if failure else None,
            "seconds": round(time.monotonic() - self._started, 3),
            "why": why,
        }
        reserve.free(self.paths.reserve)
        _insist(lambda: attempt.write_exit(self.paths, self.keys, **facts))
        state = {0: judge.VERIFYING, PREEMPTED: judge.PREEMPTED_STATE}.get(wrapper, judge.FAILED)
        if self._stop_asked and child == 0:
            state = judge.VERIFYING
        outcome = {"wrapper": wrapper, "child": child}
        with contextlib.suppress(OSError):
            attempt.write_status(self.paths, self.keys, state=state, exit=outcome, why=why, ended_at=records.utc_now())


def _restore_signals() -> None:
    """What this program and the supervisor changed would otherwise pass through exec to the trainer."""
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def wrapper_exit(child: int, stop_asked: bool, failure: failure_class.Failure | None = None) -> int:
    """The exit code of the attempt, from the trainer's (negative: signal), and what caused it."""
    if failure is not None and failure.name in failure_class.BY_SUPERVISOR:
        return TRAINER_FAILED
    if stop_asked or child == PREEMPTED:
        return PREEMPTED
    if child != 0 and failure is not None and failure.name == failure_class.DISK_FULL:
        return DISK
    return 0 if child == 0 else TRAINER_FAILED


def _collect_orphans() -> None:
    """Collect whatever has ended, so that a container whose first process collects nothing does not fill up."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _insist(write: Callable[[], object]) -> None:
    """Repeat a write on a full disk for a while: the exit of a day's work is worth waiting for space."""
    until = time.monotonic() + EXIT_WRITE_LIMIT_S
    pause = 1.0
    while True:
        try:
            write()
        except OSError as error:
            if not reserve.is_full(error) or time.monotonic() >= until:
                raise
            diary.say("shim", f"the exit record cannot be written: {error.strerror}; trying again")
            time.sleep(pause)
            pause = min(pause * 2, 30.0)
        else:
            return


def main(
    layout: Layout, run_id: str, cell_id: str, number: int, ready_fd: int | None, cards: Sequence[str] = ()
) -> int:
    """Entry of the verb ``shim``."""

    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)

    def ready() -> None:
        if ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"1")
                os.close(ready_fd)

    return Shim(layout, run_id, cell_id, number, cards).main(ready)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box for tests: a tenant root in a folder, the real supervisor program, and a small real trainer."""

from __future__ import annotations

import atexit
import contextlib
import functools
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, process, status
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import AttemptPaths, Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.unpack import unpack
from ansible_collections.tenant.gpu.plugins.module_utils.supervisor_pyz import build
from thread_states import DEAD, thread_states

PATIENCE_S = 600.0
TRAINER = Path(__file__).with_name("small_trainer.py")


@functools.cache
def python38() -> str:
    """A Python 3.8, the oldest that boxes have. Absent: an error in CI, NOT RUN elsewhere."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [os.environ.get("TENANT_TEST_PYTHON38", ""), shutil.which("python3.8") or ""]
    candidates += sorted(glob.glob(os.path.join(pyenv, "versions", "3.8*", "bin", "python")))
    for candidate in candidates:
        # A pyenv shim is there and executable without any Python behind it: ask it.
        if candidate and shutil.which(candidate) and _version(candidate) == "3.8":
            return candidate
    reason = "NOT RUN: no Python 3.8; name one in TENANT_TEST_PYTHON38"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _version(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """The first true answer of ``condition``; fails naming ``what`` after PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_S:g} s for {what}")


@functools.cache
def built_program() -> Path:
    """The program in a folder of this process, unpacked there as a deploy leaves it: the tests share its bytecode."""
    folder = Path(tempfile.mkdtemp(prefix="tenant-program-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "supervisor.pyz"
    program.write_bytes(build()[0])
    answer = subprocess.run(
        [sys.executable, "-I", str(program), "--root", str(folder / "root"), "version"],
        capture_output=True,
        check=True,
    )
    unpack(str(program), json.loads(answer.stdout)["unpacked"])
    return program


class SupervisedBox:
    """``verb`` runs the program; ``cell``, ``paths`` and ``identity`` look at what it left on the disk."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self.root = folder / "data" / "gpu-tenant"
        self.layout = Layout(str(self.root))
        self.program = folder / "supervisor.pyz"
        shutil.copy(built_program(), self.program)
        for unpacked in built_program().parent.glob("unpacked-*"):
            (folder / unpacked.name).symlink_to(unpacked)
        self.workdir = folder / "code"
        self.workdir.mkdir()
        shutil.copy(TRAINER, self.workdir / "train.py")
        self.gate = folder / "gate"
        os.mkfifo(self.gate)

    # --- the program -------------------------------------------------------------------------------------------

    def argv(self, *words: str) -> list[str]:
        return [self.python, "-I", str(self.program), "--root", str(self.root), *words]

    def ask(self, *words: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
        """Exit code and JSON answer; anything on stderr is a defect."""
        done = subprocess.run(self.argv(*words), input=stdin, capture_output=True, text=True, timeout=600, check=False)
        assert done.stderr == "", done.stderr
        return done.returncode, json.loads(done.stdout)

    def verb(self, *words: str, stdin: str = "") -> dict[str, Any]:
        code, answer = self.ask(*words, stdin=stdin)
        assert code == 0, answer
        return answer

    def run_record(self, **changes: Any) -> dict[str, Any]:
        """A run of one cell ``c1`` whose trainer makes three steps."""
        record = {
            "project": "vision",
            "box": "b1",
            "generation": 1,
            "provider_id": "77",
            "run_id": "digits",
            "spec_sha256": "a" * 64,
            "code_sha256": "b" * 64,
            "python": self.python,
            "command": ["python", "train.py", "--steps", "3"],
            "workdir": str(self.workdir),
            "env": {},
            "env_file": "",
            "cells": [{"id": "c1", "args": [], "seed": 5}],
            "artifacts": [{"glob": "model.pt", "role": "other", "loader": "torch"}],
            "checkpoint": {},
            "retries": {"max": 1},
            "durable": {"kind": "none", "path": ""},
            "grace_s": 20,
            "limits": {"min_free_bytes": 0, "min_free_inodes": 0},
        }
        return {**record, **changes}

    def register(self, **changes: Any) -> dict[str, Any]:
        return self.verb("register", "--run-file", "-", stdin=json.dumps(self.run_record(**changes)))

    def register_held(self, hold_at: int = 2, steps: int = 4, **changes: Any) -> None:
        """A run whose trainer waits after ``hold_at`` steps until :meth:`release`."""
        command = ["python", "train.py", "--steps", str(steps), "--hold-at", str(hold_at), "--gate", str(self.gate)]
        self.register(command=command, **changes)

    def release(self) -> None:
        """Let the waiting trainer go on; it is waited for, and not for ever."""

        def opened() -> int | None:
            with contextlib.suppress(OSError):
                return os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK)
            return None

        descriptor = wait_for("a trainer that waits", opened)
        os.write(descriptor, b"go")
        os.close(descriptor)

    # --- what is there -----------------------------------------------------------------------------------------

    def run(self, run_id: str = "digits") -> dict[str, Any]:
        # In this process: a poll need not start an interpreter each time. The verb has tests of its own.
        found = {run["run_id"]: run for run in status.status(self.layout)["runs"]}
        return dict(found[run_id])

    def cell(self, name: str = "c1", run_id: str = "digits") -> dict[str, Any]:
        return dict(next(cell for cell in self.run(run_id)["cells"] if cell["cell"] == name))

    def paths(self, number: int = 1, cell: str = "c1", run_id: str = "digits") -> AttemptPaths:
        return self.layout.attempt(run_id, cell, number)

    def log(self) -> str:
        return (self.root / "supervisor.log").read_text()

    def daemon(self) -> process.Identity:
        found = process.identity_from(attempt.read(self.layout.daemon, "daemon").get("process"))
        assert found is not None
        return found

    def processes(self) -> list[process.Identity]:
        """Every living process of this box, by the root in its arguments or its environment."""
        wanted, found = str(self.root).encode(), []
        for pid in process.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
                identity = process.identify(pid)
                if wanted in text and pid != os.getpid() and identity is not None:
                    found.append(identity)
        return found

    # --- waiting and killing -------------------------------------------------------------------------------------

    def await_state(self, state: str, run_id: str = "digits") -> dict[str, Any]:
        try:
            return dict(wait_for(f"{run_id} to be {state}", lambda: self._run_in(state, run_id)))
        except AssertionError as late:
            raise AssertionError(f"{late}; it is {json.dumps(self.run(run_id))}") from late

    def _run_in(self, state: str, run_id: str) -> dict[str, Any] | None:
        found = self.run(run_id)
        return found if found["state"] == state else None

    def await_trainer(self, number: int = 1, step: int = 2) -> process.Identity:
        """The trainer of an attempt once it has made ``step`` steps."""
        paths = self.paths(number)

        def there() -> process.Identity | None:
            with contextlib.suppress(OSError):
                lines = Path(paths.metrics).read_text().splitlines()
                if any(json.loads(line).get("step", 0) >= step for line in lines):
                    return attempt.trainer_of(paths)
            return None

        found = wait_for(f"step {step} of attempt {number}", there)
        assert isinstance(found, process.Identity)
        return found

    def await_no_daemon(self) -> None:
        wait_for("the supervisor to leave", lambda: process.observe(self.daemon()) != process.ALIVE)

    def kill(self, identity: process.Identity | None) -> None:
        """kill -9, and wait until it is gone."""
        assert identity is not None
        os.kill(identity.pid, signal.SIGKILL)
        wait_for(f"pid {identity.pid} to be gone", lambda: process.observe(identity) != process.ALIVE)

    def kill_everything(self) -> None:
        """What the end of a container does: every process at once, none of which can write any more."""
        until = time.monotonic() + PATIENCE_S
        killed: list[process.Identity] = []
        while found := self.processes():
            killed += found
            # Stopped first, so that nobody sees another one die.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                process.kill_all(self.processes(), number)
            assert time.monotonic() < until
        # A dying process loses its arguments, by which it is found here, before its files and locks.
        wait_for("the killed to be dead", lambda: all(thread_states(each.pid) <= DEAD for each in killed))


@contextlib.contextmanager
def supervised_box(folder: Path, python: str = sys.executable) -> Iterator[SupervisedBox]:
    box = SupervisedBox(folder, python)
    try:
        yield box
    finally:
        box.kill_everything()

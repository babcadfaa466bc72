# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The runner's own folder: playbook runs, locks and the history it tells the account from.

plays/<time>-<n>-<playbook>/   one ansible-runner folder per playbook run (0700)
locks/<project>.<box>.lock     one runner at a time per box
history/<project>.<run>.jsonl  what happened to a run, for the account; no decision depends on it

What must outlive this folder is in the state store, not here.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import holders
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import playbook_process

DEFAULT_FOLDER = ".tenant/runner"
KEPT_PLAYS = 50
_SESSION_PREFIX = "gpu-tenant-"
_LOCK = "lock"
_SETTLED_S = 60.0
_LET_GO_S = 10.0


class Workspace:
    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TenantFailure(
                "config",
                f"cannot use {self.root} as workspace: {error.strerror}",
                safe="nothing was started",
                fix="give another folder with --workspace",
            ) from error

    @property
    def plays(self) -> Path:
        return self.root / "plays"

    def new_play(self, playbook: str, project: str, boxes: Sequence[str]) -> Path:
        """A fresh 0700 folder for one playbook run; ``play.json`` in it names the boxes concerned."""
        self.plays.mkdir(mode=0o700, exist_ok=True)
        self._drop_old_plays()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        folder = Path(tempfile.mkdtemp(prefix=f"{stamp}-{playbook}-", dir=self.plays))
        description = {"playbook": playbook, "project": project, "boxes": sorted(boxes)}
        records.write_bytes(str(folder / "play.json"), json.dumps(description).encode())
        return folder

    def _drop_old_plays(self) -> None:
        ended = [folder for folder in sorted(self.plays.iterdir()) if not self._alive(folder)]
        for folder in ended[: max(len(ended) - KEPT_PLAYS, 0)]:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _alive(folder: Path) -> bool:
        return playbook_process.holder(str(folder / "playbook.lock")) is not None

    @contextlib.contextmanager
    def holding(self, project: str, boxes: Sequence[str]) -> Iterator[None]:
        """Hold the locks of ``boxes`` (in one order for everybody, so two runners cannot deadlock).

        :raises TenantFailure: kind ``lease_held``, naming the process that has one of them.
        """
        with contextlib.ExitStack() as stack:
            for box in sorted(boxes):
                stack.enter_context(self._lock(f"{project}.{box}", box))
            yield

    @contextlib.contextmanager
    def _lock(self, name: str, box: str) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            other = _lock_unless_held(descriptor)
            if other:
                raise TenantFailure(
                    "lease_held",
                    f"another gpu-tenant works on it (process {other})",
                    box=box,
                    safe="nothing was changed",
                    fix=f"wait until it ends, or end it with 'kill {other}' and run the same command again",
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def end_orphans(
        self,
        project: str,
        boxes: Sequence[str],
        say: Callable[[str], None],
        wait: Callable[[float], None],
        deadline_s: float = 300.0,
    ) -> None:
        """Await the playbooks that a killed runner left at work on ``boxes``; end them after ``deadline_s``.

        Call while holding the boxes' locks: then no living runner owns such a playbook.
        """
        for folder in sorted(self.plays.glob("*/")) if self.plays.is_dir() else []:
            if self._concerns(folder, project, boxes):
                self._end_orphan(folder, say, wait, deadline_s)
            if not self._alive(folder):
                remove_secrets(folder)

    @staticmethod
    def _concerns(folder: Path, project: str, boxes: Sequence[str]) -> bool:
        try:
            play = json.loads((folder / "play.json").read_bytes())
        except (OSError, ValueError):
            return False
        return play.get("project") == project and not set(play.get("boxes", [])).isdisjoint(boxes)

    def _end_orphan(
        self, folder: Path, say: Callable[[str], None], wait: Callable[[float], None], deadline_s: float
    ) -> None:
        lock_file = str(folder / "playbook.lock")
        deadline = time.monotonic() + deadline_s
        pause = 0.2
        said = False
        while (owner := playbook_process.holder(lock_file)) is not None:
            if not said:
                say(f"awaiting a playbook that a killed run left at work (process {owner.get('pid')})")
                said = True
            if time.monotonic() > deadline:
                say(f"ending the left-over playbook (process {owner.get('pid')}) after {deadline_s:.0f} s")
                playbook_process.end(lock_file)
                return
            wait(pause)
            pause = min(pause * 1.5, 5.0)

    def history(self, project: str, run_id: str) -> History:
        return History(self.root / "history" / f"{project}.{run_id}.jsonl")

    def histories(self, project: str) -> list[dict[str, Any]]:
        """The lines of all runs of a project, run by run."""
        paths = sorted((self.root / "history").glob(f"{glob.escape(project)}.*.jsonl"))
        return [line for path in paths for line in History(path).lines()]


class History:
    """What the runner did for one run, as JSON lines. Survives restarts; losing it loses only the story."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, **fields: Any) -> None:
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        line = json.dumps({**fields, "at": records.utc_now(), "kind": kind}, sort_keys=True, default=str)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(line.encode() + b"\n")

    def lines(self, kind: str = "") -> list[dict[str, Any]]:
        """The whole lines, oldest first; of one ``kind`` when given."""
        found = []
        for raw in self.path.read_bytes().splitlines() if self.path.exists() else []:
            with contextlib.suppress(ValueError):
                found.append(json.loads(raw))
        return [line for line in found if isinstance(line, dict) and kind in ("", line.get("kind"))]


def _lock_unless_held(descriptor: int) -> str:
    """Lock an open lock file; what is in it when a living process holds it, else nothing.

    A runner that was killed while it started a playbook leaves a child with its lock until that child has become the
    playbook: such a lock is waited for.
    """
    until = time.monotonic() + _LET_GO_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        else:
            return ""
        named = int(other) if other.isdigit() else 0
        if (named and holders.exists(named)) or time.monotonic() > until:
            return other or "unknown"
        time.sleep(0.05)


def remove_secrets(folder: Path) -> None:
    """Remove from an ended playbook run what could hold a secret: key file, variables, recorded environment."""
    folders = [folder / "secrets", folder / "env", *folder.glob("artifacts/*/fact_cache")]
    for doomed in folders:
        shutil.rmtree(doomed, ignore_errors=True)
    for command in folder.glob("artifacts/*/command"):
        command.unlink(missing_ok=True)


class Session:
    """A short 0700 folder for control sockets (a socket's path may have about 100 bytes), gone when the runner ends.

    A killed runner cannot remove its own, so the next one does: the folder of a living runner holds a lock.
    """

    def __init__(self, parent: str = "/tmp") -> None:  # noqa: S108 - mkdtemp makes the folder ours, 0700
        _remove_left_behind(Path(parent))
        self.folder = Path(tempfile.mkdtemp(prefix=_SESSION_PREFIX, dir=parent))
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        _end_sockets(self.folder)
        os.close(self._lock)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def _remove_left_behind(parent: Path) -> None:
    """Remove the session folders of ours in ``parent`` whose runner is dead."""
    for folder in parent.glob(f"{_SESSION_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            # Between making its lock and taking it, a runner that is starting looks like a dead one.
            settled = time.time() - about.st_mtime > _SETTLED_S
            if about.st_uid == os.getuid() and settled and _is_abandoned(folder / _LOCK):
                _end_sockets(folder)


def _is_abandoned(lock: Path) -> bool:
    """Whether a runner made this lock and holds it no more. A folder without one is not ours, whatever its name."""
    return lock.is_file() and playbook_process.holder(str(lock)) is None


def _end_sockets(folder: Path) -> None:
    for socket in folder.iterdir():
        if socket.is_socket():
            _ssh_exit(socket)
    shutil.rmtree(folder, ignore_errors=True)


def _ssh_exit(socket: Path) -> None:
    command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)

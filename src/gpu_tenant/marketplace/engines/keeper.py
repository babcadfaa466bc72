# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The process that holds one box of the process engine: every process of the box descends from it.

Run as a script of its own (``python -I keeper.py PLAN.json``), stdlib only. It adopts orphans, so nothing that a box
starts gets away from it; it ends the whole box when its standard input closes, which also happens when the
marketplace itself is killed. On standard output it says one line of JSON: ``{"ready": true}`` or ``{"error": "…"}``.

Plan: ``{"isolated": bool, "as_root": bool, "init": path, "init_pid_file": path, "onstart": [argv], "sshd": [argv],
"sshd_asked": path, "port": int, "log": path, "sshd_log": path, "environment": {}, "deadline_s": float}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

PR_SET_CHILD_SUBREAPER = 36
NAMESPACES = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--fork"]


class BoxFailed(Exception):
    """The box did not start; the message is for the instance's status."""


class Keeper:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._deadline = time.monotonic() + plan["deadline_s"]
        self._vital: dict[int, str] = {}

    def run(self) -> int:
        adopt_orphans()
        wake = wake_on_children()
        try:
            self._start()
            say({"ready": True})
            self._hold(wake)
        except BoxFailed as failure:
            say({"error": str(failure)})
            return 1
        finally:
            end_descendants()
        return 0

    def _start(self) -> None:
        # Append mode: what the box printed at earlier starts stays in its log.
        with Path(self._plan["log"]).open("ab") as log:
            if self._plan["isolated"]:
                self._start_isolated(log)
            else:
                self._spawn(self._plan["onstart"], log, log)
        if not self._sshd_is_asked_for():
            return
        with Path(self._plan["sshd_log"]).open("ab") as log:
            listener = self._spawn(self._plan["sshd"], log, log)
        self._vital[listener.pid] = "sshd"
        self._await_port(listener)

    def _start_isolated(self, log: IO[bytes]) -> None:
        ready_out, ready_in = os.pipe()
        with contextlib.ExitStack() as stack:
            if self._plan["as_root"]:
                owner = stack.enter_context(user_namespace_of_root())
                into_namespaces = ["nsenter", "--user", "--target", str(owner), *NAMESPACES]
            else:
                into_namespaces = [*NAMESPACES, "--user", "--map-root-user"]
            outer = self._spawn([*into_namespaces, "sh", self._plan["init"]], ready_in, log)
            os.close(ready_in)
            init = self._await_init(ready_out, outer)
        self._vital[outer.pid] = "process 1"
        Path(self._plan["init_pid_file"]).write_text(f"{init}\n", encoding="ascii")

    def _await_init(self, ready_out: int, outer: subprocess.Popen[bytes]) -> str:
        said = b""
        while not said.endswith(b"\n"):
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([ready_out], [], [], left)[0]:
                raise BoxFailed("the box's process 1 was not ready in time; the instance's log may say why")
            part = os.read(ready_out, 64)
            if not part:
                raise BoxFailed(
                    f"the box's process 1 ended with {outer.wait()} before it was ready; the instance's log says why"
                )
            said += part
        os.close(ready_out)
        return said.decode("ascii").strip()

    def _sshd_is_asked_for(self) -> bool:
        """At once, or when the box asks for it; one that never does has no ssh."""
        asked = Path(self._plan["sshd_asked"])
        while self._plan["sshd_asked"] and not asked.exists():
            if time.monotonic() > self._deadline:
                return False
            time.sleep(0.01)
        return True

    def _await_port(self, listener: subprocess.Popen[bytes]) -> None:
        while time.monotonic() < self._deadline:
            if listener.poll() is not None:
                raise BoxFailed(f"sshd ended with {listener.returncode}; {self._plan['sshd_log']} says why")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._plan["port"]), timeout=1):
                return
            time.sleep(0.01)
        raise BoxFailed("sshd did not answer in time")

    def _spawn(self, command: list[str], output: IO[bytes] | int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=self._plan["environment"],
            cwd="/",
            start_new_session=True,
        )

    def _hold(self, wake: int) -> None:
        """Bury children until the marketplace lets go or a process that makes the box has ended."""
        while True:
            readable = select.select([0, wake], [], [])[0]
            if wake in readable:
                os.read(wake, 4096)
                if any(pid in self._vital for pid in bury()):
                    return
            if 0 in readable:
                return


@contextlib.contextmanager
def user_namespace_of_root() -> Any:
    """A user namespace that knows every user of this one by the same number; yields a process in it."""
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", "echo here; read -r _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        if owner.stdout.readline() != b"here\n":
            raise BoxFailed("the kernel refuses a user namespace")
        for kind in ("uid_map", "gid_map"):
            known = [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
            own = "".join(f"{first} {first} {count}\n" for first, _outer, count in known)
            Path(f"/proc/{owner.pid}/{kind}").write_text(own)
        yield owner.pid
        # Leaving the block closes its standard input, which ends it; the box holds the namespace from here on.


def adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def wake_on_children() -> int:
    """A descriptor that becomes readable when a child has ended or the marketplace asks for the end."""
    wake, notify = os.pipe()
    for end in (wake, notify):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(notify)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def bury() -> list[int]:
    gone = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            gone.append(pid)
    return gone


def descendants() -> list[int]:
    """Process numbers of everything below this process, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold blanks and parentheses itself.
            after_name = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(entry))
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def end_descendants() -> None:
    """Kill until nothing is left; whatever was forked meanwhile comes to this process and is next."""
    while True:
        below = descendants()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        bury()
        if not below:
            return
        time.sleep(0.002)


def say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(Keeper(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run())

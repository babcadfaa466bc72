# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One ssh connection of its own that several commands ride on: a login costs half a second, a ride a hundredth."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import threading
from dataclasses import replace
from typing import Iterator

from .carrier import Deadline, end_process
from .transfer import Link, ssh_argv

# ssh runs it once it listens for those who want to ride, which is sooner than the box's answer to a ping. Where the
# shell of this user runs nothing, that answer is waited for.
_SAYS_ITSELF = ("-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo")
_PING = b"\n"
_LOGIN_S = 60.0


class SharedConnection:
    """A new, uncompressed connection beside the play's. It is being opened from the first moment; nobody waits yet."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._folder = tempfile.TemporaryDirectory(prefix="gt-ssh-")
        path = os.path.join(self._folder.name, "master")
        argv = [
            link.ssh,
            "-o",
            "ControlMaster=yes",
            "-o",
            f'ControlPath="{path}"',
            *_SAYS_ITSELF,
            *ssh_argv(replace(link, log=""), True)[1:],
        ]
        try:
            # Not -N: when this process is killed, the pipe into cat closes, and the connection ends too.
            self._master = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                [*argv, "--", link.host, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except BaseException:
            self._folder.cleanup()
            raise
        self._path = path
        self._asking = threading.Lock()
        self._is_open: bool | None = None

    def link(self, deadline: Deadline) -> Link:
        """The way through it, once it is open, for whichever thread.

        Where none comes about it is a link with a connection for each command, which then says itself what is wrong.
        """
        with self._asking:
            if self._is_open is None:
                self._is_open = _answers(self._master, deadline)
        return replace(self._link, control_path=self._path if self._is_open else "")

    def end(self) -> None:
        end_process(self._master)
        for pipe in (self._master.stdin, self._master.stdout):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()


@contextlib.contextmanager
def shared_connection(link: Link, deadline: Deadline) -> Iterator[Link]:
    """``link`` by way of a connection that ends with the block."""
    connection = SharedConnection(link)
    try:
        yield connection.link(deadline)
    finally:
        connection.end()


def _answers(master: subprocess.Popen[bytes], deadline: Deadline) -> bool:
    if master.stdin is None or master.stdout is None:
        raise ValueError("the process has no pipes")
    with contextlib.suppress(BrokenPipeError):
        master.stdin.write(_PING)
    poll = select.poll()
    poll.register(master.stdout, select.POLLIN)
    return bool(poll.poll(1000 * min(_LOGIN_S, deadline.left_s)) and master.stdout.read(1))

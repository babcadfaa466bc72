# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One ssh connection of its own that several commands ride on: a login costs half a second, a ride a hundredth."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from dataclasses import replace
from typing import Iterator

from .carrier import Deadline, end_process
from .transfer import Link, ssh_argv

_PING = b"\n"
_LOGIN_S = 60.0


@contextlib.contextmanager
def shared_connection(link: Link, deadline: Deadline) -> Iterator[Link]:
    """``link`` by way of a new, uncompressed connection, which ends with the block.

    Where none comes about it is a link with a connection for each command, which then says itself what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="gt-ssh-") as folder:
        path = os.path.join(folder, "master")
        argv = [
            link.ssh,
            "-o",
            "ControlMaster=yes",
            "-o",
            f'ControlPath="{path}"',
            *ssh_argv(replace(link, log=""), True)[1:],
        ]
        # Not -N: when this process is killed, the pipe into cat closes, and the connection ends too.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            [*argv, "--", link.host, "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as master:
            try:
                yield replace(link, control_path=path if _answers(master, deadline) else "")
            finally:
                end_process(master)


def _answers(master: subprocess.Popen[bytes], deadline: Deadline) -> bool:
    if master.stdin is None or master.stdout is None:
        raise ValueError("the process has no pipes")
    with contextlib.suppress(BrokenPipeError):
        master.stdin.write(_PING)
    poll = select.poll()
    poll.register(master.stdout, select.POLLIN)
    return bool(poll.poll(1000 * min(_LOGIN_S, deadline.left_s)) and master.stdout.read(1))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One ssh connection that several commands ride on, against a real sshd."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import carrier, shared_connection, transfer
from loopback_sshd import LoopbackBox

pytestmark = pytest.mark.integration

DEADLINE_S = 600.0
# The box's end of the connection says nothing for so long.
SILENT_S = 20


@pytest.fixture
def link(box_with_rsync: LoopbackBox) -> transfer.Link:
    return box_with_rsync.link()


def ride(link: transfer.Link) -> str:
    argv = transfer.far_argv(link, ["echo", "here"], own_connection=False)
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=True).stdout


def opened(link: transfer.Link) -> transfer.Link:
    """The link through a connection, on which a command was run; it has ended."""
    connection = shared_connection.SharedConnection(link)
    try:
        found = connection.link(carrier.Deadline(DEADLINE_S))
        if found.control_path:
            assert ride(found) == "here\n"
        return found
    finally:
        connection.end()


def test_it_is_open_as_soon_as_ssh_has_logged_in(link: transfer.Link, tmp_path: Path) -> None:
    """The shell that a box starts for it takes its time, and nobody waits for that."""
    ssh = tmp_path / "ssh"
    words = f'for word; do shift; [ "$word" = cat ] && word="sleep {SILENT_S}"; set -- "$@" "$word"; done'
    ssh.write_text(f'#!/bin/sh\n{words}\nexec ssh "$@"\n')
    ssh.chmod(0o755)
    assert opened(replace(link, ssh=str(ssh))).control_path


def test_a_user_without_a_shell_waits_for_the_box_to_answer(
    link: transfer.Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/false")
    assert opened(link).control_path


def test_it_ends_with_its_block_and_leaves_nothing(link: transfer.Link) -> None:
    path = opened(link).control_path
    assert not os.path.exists(os.path.dirname(path))


def test_where_none_comes_about_each_command_logs_in(link: transfer.Link) -> None:
    stranger = replace(link, options=("-o", "User=nobody-there", *link.options))
    assert opened(stranger) == replace(stranger, control_path="")

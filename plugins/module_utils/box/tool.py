# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Runs a tool of the box: bounded, without a terminal, its words in a list."""

from __future__ import annotations

import shutil
import subprocess

from .refusal import SYSTEM, Refused

WITHIN_S = 30.0


def run_tool(words: list[str], purpose: str, fix: str = "") -> str:
    """What the tool printed.

    :param purpose: completes "could not".
    :param fix: what to do where the tool is missing.
    :raises Refused: SYSTEM when it is missing, failed or hung.
    """
    if shutil.which(words[0]) is None:
        raise Refused(SYSTEM, f"{words[0]} is not on this box", fix)
    try:
        # There is no AnsibleModule here whose run_command could be used: this also runs without Ansible.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(SYSTEM, f"{words[0]} gave no answer within {WITHIN_S:g} s") from error
    if done.returncode != 0:
        raise Refused(SYSTEM, f"{words[0]} could not {purpose}: {done.stderr.strip()[:300]}")
    return done.stdout

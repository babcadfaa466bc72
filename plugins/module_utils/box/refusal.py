# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Refusals: what the supervisor will not do, with the exit code that says so.

Exit codes of the supervisor's verbs (job exit codes, kept in ``exit.json``, use the same numbers):

== ============================================================================================
0  done
10 bad arguments or a record that cannot be trusted
11 the environment file of the run cannot be used
12 the interpreter or program of the run cannot be started
13 too little disk, too few inodes, or the durable mount is not there
14 held by someone else: a newer epoch has fenced this caller off, or another command holds the lock
15 contract mismatch: another spec, another box identity
16 the box is sealed
17 a live cell is in the way
18 a deadline passed
19 the operating system refused
20 trained, but an artifact is missing
21 the durable copy failed
22 an artifact is there and invalid
23 an input is not proven: not fetched yet, not what was promised, or changed since
30 preempted: stopped on request
40 the trainer failed
== ============================================================================================
"""

from __future__ import annotations

from typing import Any

USAGE = 10
ENVIRONMENT = 11
INTERPRETER = 12
DISK = 13
HELD = 14
MISMATCH = 15
SEALED = 16
LIVE = 17
DEADLINE = 18
SYSTEM = 19
ARTIFACT_MISSING = 20
DURABLE_FAILED = 21
ARTIFACT_INVALID = 22
INPUTS = 23
PREEMPTED = 30
TRAINER_FAILED = 40

KINDS = {
    USAGE: "usage",
    ENVIRONMENT: "environment",
    INTERPRETER: "interpreter",
    DISK: "disk",
    HELD: "held",
    MISMATCH: "mismatch",
    SEALED: "sealed",
    LIVE: "live",
    DEADLINE: "deadline",
    SYSTEM: "system",
    ARTIFACT_MISSING: "artifact_missing",
    DURABLE_FAILED: "durable_failed",
    ARTIFACT_INVALID: "artifact_invalid",
    INPUTS: "inputs",
}


class Refused(Exception):
    """The supervisor refuses; ``code`` is its exit code, ``fix`` what the caller can do."""

    def __init__(self, code: int, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.fix = fix

    def as_dict(self) -> dict[str, Any]:
        return {"error": self.what, "kind": KINDS.get(self.code, "refused"), "fix": self.fix, "exit": self.code}

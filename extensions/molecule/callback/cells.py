# SPDX-License-Identifier: MIT
"""Writes down which role did what on which box, so that no cell of the matrix is believed on its scenario's word."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: cells
type: aggregate
short_description: one line for each role on each box of a play
description:
  - Appends to C($MATRIX_RECORDS/$MOLECULE_SCENARIO_NAME.jsonl) what each role of a play did on each box.
"""


def outermost_role(task: Any) -> str:
    """The role of the play that a task belongs to, however many it was included through; "" for none."""
    found, node = "", task
    while node is not None:
        role = getattr(node, "_role", None)
        found = role.get_name() if role is not None else found
        node = getattr(node, "_parent", None)
    return found


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cells"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._play: dict[tuple[str, str], dict[str, Any]] = {}
        # The role whose part a module does in this play.
        self._part = ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._write()
        self._part = play.get_vars().get("matrix_module", "")

    def v2_runner_on_ok(self, result: Any) -> None:
        role = outermost_role(result.task) or self._part
        row = self._play.setdefault((role, result.host.get_name()), {"ok": 0, "changed": []})
        row["ok"] += 1
        if result.result.get("changed"):
            row["changed"].append(result.task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write()

    def _write(self) -> None:
        rows, self._play = self._play, {}
        # What a check run says is judged by molecule itself.
        if context.CLIARGS.get("check") or "MATRIX_RECORDS" not in os.environ:
            return
        record = Path(os.environ["MATRIX_RECORDS"]) / f"{os.environ['MOLECULE_SCENARIO_NAME']}.jsonl"
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a", encoding="utf-8") as stream:
            for (role, host), row in rows.items():
                stream.write(json.dumps({"role": role, "host": host, **row}) + "\n")

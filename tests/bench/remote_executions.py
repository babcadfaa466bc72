# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Remote executions, counted where they arrive: the forced command of a box's sshd notes each session that it lets in.

So everything counts that reaches a box, whoever opened it: Ansible's own commands, what rsync starts there, sftp.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

CALLBACKS = Path(__file__).with_name("callbacks")
UNNAMED = "outside of any task"
_SHEBANG = "#!/bin/sh\n"


class Doors:
    """:param folder: for the notes; outside of every box."""

    def __init__(self, folder: Path) -> None:
        self._marks, self._notes = folder / "marks", folder / "notes"
        for path in (self._marks, self._notes):
            path.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        """With this a playbook tells which task a session belongs to."""
        return {
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "task_marks",
            "TASK_MARKS": str(self._marks),
        }

    def watch(self, box: str, forced_command: Path) -> None:
        """Have the script that sshd forces on every session note it first."""
        mark, notes = (shlex.quote(str(folder / box)) for folder in (self._marks, self._notes))
        note = (
            f"{{ read -r task <{mark}; }} 2>/dev/null || task={shlex.quote(UNNAMED)}\n"
            f"printf '%s\\n' \"$task\" >>{notes}\n"
        )
        text = forced_command.read_text(encoding="utf-8")
        if not text.startswith(_SHEBANG):
            raise RuntimeError(f"{forced_command} is no shell script any more: its sessions cannot be counted")
        if note not in text:
            # Written in place: sshd runs it by its path, and it stays executable.
            forced_command.write_text(_SHEBANG + note + text.removeprefix(_SHEBANG), encoding="utf-8")

    def clear(self) -> None:
        for path in (*self._marks.iterdir(), *self._notes.iterdir()):
            path.unlink()

    def seen(self, boxes: list[str]) -> dict[str, list[str]]:
        """The task of each session since the last clearing, in order, by box."""
        return {box: self._sessions(self._notes / box) for box in boxes}

    @staticmethod
    def _sessions(path: Path) -> list[str]:
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def by_task(seen: Mapping[str, list[str]]) -> str:
    """The sessions of the box that had most, by task, in the order of the play."""
    busiest = max(seen.values(), key=len)
    return "; ".join(f"{task} {number}" for task, number in Counter(busiest).items())

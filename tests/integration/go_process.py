# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant go`` as the process that it is, on the boxes of a team's folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from team_folder import PLAY_S, TeamFolder


class GoProcess:
    """:param limit: the boxes that it may work on."""

    def __init__(self, team: TeamFolder, limit: str, *words: str) -> None:
        self.log = team.folder / "go.jsonl"
        self._before = len(self._lines())
        settings = ["--poll-s", "0.5", "--json", "--workspace", str(team.folder / "runner"), *words]
        command = [sys.executable, "-m", "gpu_tenant", "go", str(team.folder / "job/run.yml"), "-l", limit]
        with open(self.log, "ab") as stream:
            self._process = subprocess.Popen(
                [*command, *team.sources(), *settings],
                env={**os.environ, "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def _lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    @property
    def said(self) -> list[dict[str, Any]]:
        """Since it was started."""
        return [json.loads(line) for line in self._lines()[self._before :] if line[:1] + line[-1:] == "{}"]

    def looks(self) -> int:
        """How often it has seen the run at work."""
        return sum(line["event"] == "training" for line in self.said)

    def until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PLAY_S
        while not true():
            assert self._process.poll() is None, f"it ended before {what}: {self._lines()[-5:]}"
            assert time.monotonic() < deadline, f"not in time: {what}: {self._lines()[-5:]}"
            time.sleep(0.1)

    def end(self) -> int:
        """Its exit code, once it ends by itself."""
        return self._process.wait(PLAY_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PLAY_S)

    def stand_still(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

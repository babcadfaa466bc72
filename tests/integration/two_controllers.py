# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Two controllers of a team: each a host of its own name with a state store of its own; one database of leases."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.tenant.gpu.plugins.module_utils import file_locks, leases
from ansible_collections.tenant.gpu.plugins.module_utils.lease import Lease
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from marketplace_tools import wait_until
from team_folder import PLAY_S, ROOT, TeamFolder

# A host name of its own, as a machine has one: its processes are foreign to every other.
_ON = ["unshare", "--uts", "sh", "-c", 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"']


class Controller:
    """What is started here has the team's inventory and a state store of this controller's own."""

    def __init__(self, team: TeamFolder, host: str, box: str) -> None:
        self.team, self.host, self.box = team, host, box
        self.folder = team.folder / host
        self.folder.mkdir()
        self.store = StateStore(str(self.folder / "state"))
        self.started: list[Started] = []

    def play(self, playbook: Path, *words: str) -> Started:
        """A person's ``ansible-playbook``."""
        return self._start(str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), *words)

    def runner(self, *words: str) -> Started:
        workspace = ["--workspace", str(self.folder / "runner"), "--json"]
        return self._start(sys.executable, "-m", "gpu_tenant", *words, *workspace)

    def _start(self, *command: str) -> Started:
        own = {"tenant_state_dir": self.store.root, "tenant_results_dir": str(self.folder / "results")}
        variables = [word for name, value in own.items() for word in ("-e", f"{name}={value}")]
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*_ON, self.host, *command, "-l", self.box, *self.team.sources(), *variables],
                cwd=ROOT,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self.started.append(Started(process, log))
        return self.started[-1]

    @contextlib.contextmanager
    def nobody_rents(self) -> Iterator[None]:
        """Its next create waits for its turn, as behind another box of the account."""
        account = VastClient(self.team.market.api_key, self.team.market.url).account
        path = self.store.path("cache", f"vast-{account}.lock")
        with file_locks.held(file_locks.Lock(path, "renting", "nothing was rented", PLAY_S)):
            yield

    def until_it_holds(self, after: int = 0) -> Lease:
        """The lease, once what was started last has it by a grant later than epoch ``after``."""
        last = self.started[-1]
        found: list[Lease] = []

        def it_holds() -> bool:
            assert last.process.poll() is None, last.said
            now = leases.opened(self.store).read("plain", self.box)
            if now is None or now.epoch <= after or self.host not in {holder.host for holder in now.holders}:
                return False
            found.append(now)
            return True

        wait_until(it_holds, PLAY_S)
        return found[-1]


@contextlib.contextmanager
def controllers(team: TeamFolder, box: str, *names: str) -> Iterator[list[Controller]]:
    found = [Controller(team, name, box) for name in names]
    try:
        yield found
    finally:
        for one in (started for controller in found for started in controller.started):
            one.process.kill()
            one.process.wait()


class Started:
    """A command at work."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def said(self) -> str:
        """Without the line breaks that a terminal's width makes."""
        return " ".join(self._log.read_text(encoding="utf-8", errors="replace").split())

    def ended(self) -> int:
        return self.process.wait(PLAY_S)

    def end_at_once(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.process.send_signal(number)
        return self.ended()

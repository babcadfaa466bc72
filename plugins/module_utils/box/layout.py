# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where everything lies below the tenant root of a box."""

from __future__ import annotations

import os
import re

from .names import UnsafeName, check_name

_ATTEMPT = re.compile(r"a([1-9][0-9]{0,8})\Z")
_SHARE = re.compile(r"[1-9][0-9]{0,8}-[0-9]{1,9}\Z")


class Layout:
    """Paths below ``root``. Run and cell names are checked whenever one is joined.

    :param share: of the task of a job array that looks (``<turn>-<task>``): what a supervisor writes of itself lies in
        a folder of its own then, for several work at one root, each at cells of its own.
    """

    def __init__(self, root: str, share: str = "") -> None:
        self.root = os.path.abspath(root)
        if share and not _SHARE.match(share):
            raise UnsafeName(f"{share!r} is not the share of a job array: <turn>-<task>")
        self.share = share

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def of_share(self, share: str) -> Layout:
        return Layout(self.root, share)

    @property
    def own(self) -> str:
        """The folder of what a supervisor writes of itself."""
        return self.path("shares", self.share) if self.share else self.root

    @property
    def index(self) -> str:
        return self.path("index.json")

    @property
    def seal(self) -> str:
        return self.path("seal.json")

    @property
    def fence(self) -> str:
        return self.path("fence.json")

    @property
    def desired(self) -> str:
        return self.path("desired.json")

    @property
    def daemon(self) -> str:
        return os.path.join(self.own, "daemon.json")

    @property
    def answer(self) -> str:
        return self.path("answer")

    @property
    def batch(self) -> str:
        return self.path("batch.json")

    @property
    def array(self) -> str:
        return self.path("array.json")

    @property
    def health(self) -> str:
        return os.path.join(self.own, "health.json")

    @property
    def daemon_lock(self) -> str:
        return os.path.join(self.own, "supervisor.lock")

    @property
    def box_lock(self) -> str:
        return self.path("box.lock")

    @property
    def log(self) -> str:
        return os.path.join(self.own, "supervisor.log")

    @property
    def reserve(self) -> list[str]:
        """What is kept back for the orders of people and of the controller: each may need a file of its own."""
        return [self.path(f"reserve-{number}") for number in (1, 2, 3, 4)]

    def run_dir(self, run_id: str) -> str:
        return self.path("runs", check_name("run", run_id))

    def held(self, run_id: str) -> str:
        return self.path("held", check_name("run", run_id))

    def run_record(self, run_id: str) -> str:
        return os.path.join(self.run_dir(run_id), "run.json")

    def run_manifest(self, run_id: str) -> str:
        return os.path.join(self.run_dir(run_id), "manifest.json")

    def cell_dir(self, run_id: str, cell: str) -> str:
        return os.path.join(self.run_dir(run_id), check_name("cell", cell))

    def cells_on_disk(self, run_id: str) -> list[str]:
        """Cells that have a folder with attempts, those of earlier specs included."""
        try:
            names = sorted(os.listdir(self.run_dir(run_id)))
        except OSError:
            return []
        return [name for name in names if _is_name(name) and self.attempt_numbers(run_id, name)]

    def attempt(self, run_id: str, cell: str, number: int) -> AttemptPaths:
        return AttemptPaths(self.cell_dir(run_id, cell), cell, number)

    def attempt_numbers(self, run_id: str, cell: str) -> list[int]:
        """Numbers of the attempts that have a folder, ascending."""
        try:
            names = os.listdir(self.cell_dir(run_id, cell))
        except OSError:
            return []
        matches = [_ATTEMPT.match(name) for name in names]
        return sorted(int(match.group(1)) for match in matches if match)


def _is_name(text: str) -> bool:
    try:
        check_name("cell", text)
    except UnsafeName:
        return False
    return True


class AttemptPaths:
    """Paths of one attempt; ``relative`` is its folder as manifests name it."""

    def __init__(self, cell_dir: str, cell: str, number: int) -> None:
        self.number = number
        self.relative = f"{cell}/a{number}"
        self.folder = os.path.join(cell_dir, f"a{number}")
        self.claim = os.path.join(self.folder, "claim.json")
        self.status = os.path.join(self.folder, "status.json")
        self.exit = os.path.join(self.folder, "exit.json")
        self.done = os.path.join(self.folder, "done.json")
        self.pruned = os.path.join(self.folder, "pruned.json")
        self.stop = os.path.join(self.folder, "stop.json")
        self.progress = os.path.join(self.folder, "progress.json")
        self.lock = os.path.join(self.folder, "shim.lock")
        self.reserve = [os.path.join(self.folder, f"reserve-{number}") for number in (1, 2)]
        self.log = os.path.join(self.folder, "run.log")
        self.metrics = os.path.join(self.folder, "metrics.jsonl")
        self.output = os.path.join(self.folder, "out")
        self.checkpoints = os.path.join(self.output, "checkpoints")
        self.frozen_metrics = os.path.join(self.folder, "snapshot", "metrics.jsonl")

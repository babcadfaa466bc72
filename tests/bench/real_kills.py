# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``kill -9`` of ``gpu-tenant go`` at instants of a life with real boxes: real ssh, real playbooks, a real trainer.

A life begins with nothing rented and ends with results at home and the box destroyed on a named approval. An instant is
a line that ``go`` says; a seed draws them, the phases of an undisturbed life in turn, and a part of a second after it.
Only the runner is killed: its playbook and the trainer go on, as they would. The same command is then given again, as
often as it takes. Other lives than these, killed at every file and request, are in tests/chaos/lifecycle.py.

Boxes are containers where there is podman, else processes. ``REAL_KILLS`` takes another number, ``REAL_KILLS_SEED``
another choice, ``REAL_KILLS_ENGINE`` ``podman`` or ``process``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from harness import Figure

from gpu_tenant.marketplace.testing import Handle, running_marketplace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from team_folder import TeamFolder

TITLE = "kill -9 of the runner with real boxes"
KILLS, SEED = int(os.environ.get("REAL_KILLS", "10")), int(os.environ.get("REAL_KILLS_SEED", "7"))
_BEST_ENGINE = "podman" if os.geteuid() == 0 and shutil.which("podman") else "process"
ENGINE = os.environ.get("REAL_KILLS_ENGINE", _BEST_ENGINE)
MOST_STARTS = 4
LIFE_S = 1800.0
# Kills come up to so long after the line that was drawn, so that they do not all lie where something was just said.
MOST_AFTER_S = 1.0
# Each start of the trainer leaves a line in what comes home.
TRAINER = """\
import json, os, time

out = os.environ["TENANT_OUTPUT_DIR"]
with open(os.path.join(out, "starts.jsonl"), "a") as stream:
    stream.write(json.dumps({"pid": os.getpid()}) + "\\n")
for step in range(1, 41):
    with open(os.environ["TENANT_METRICS"], "a") as stream:
        stream.write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    time.sleep(0.1)
with open(os.path.join(out, "result.json"), "w") as stream:
    json.dump({"step": step}, stream)
"""


@dataclass(frozen=True)
class Instant:
    """``number`` is of a line within its phase, from 1; ``after_s`` seconds later the runner is killed."""

    phase: str
    number: int
    after_s: float


@dataclass(frozen=True)
class Verdict:
    """What came of a life that was killed once. All counts must be 0."""

    at: Instant
    was_killed: bool
    starts: int
    orphans: int
    double_rentals: int
    lost_results: int
    reruns: int
    trouble: str = ""


class Life:
    """A team of its own, with one box of its own, on a market that all share."""

    def __init__(self, folder: Path, market: Handle) -> None:
        self.box, self._market, self._folder = folder.name, market, folder
        folder.mkdir()
        spec = {
            "id": "nightly",
            "command": ["python", "train.py"],
            "artifacts": [
                {"glob": "result.json", "role": "checkpoint", "loader": "json"},
                {"glob": "starts.jsonl", "role": "log"},
            ],
            "resources": {"gpu_count": 1, "disk_gb": 10},
        }
        self._team = TeamFolder(folder, market, [self.box], spec, TRAINER, "")

    def start(self) -> subprocess.Popen[str]:
        words = ["go", str(self._folder / "job/run.yml"), "-l", self.box, *self._team.sources(), "--json"]
        words += ["--approver", "Ada", "--reason", "it is home", "--workspace", str(self._folder / "runner")]
        with open(self._folder / "said.err", "a", encoding="utf-8") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "gpu_tenant", *words],
                env={**os.environ, "VAST_API_KEY": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def undisturbed(self) -> dict[str, int]:
        """How many lines each phase of a whole life has."""
        process = self.start()
        counts = Counter(phase for phase, _number in lines(process))
        if process.wait(LIFE_S) != 0:
            raise RuntimeError(f"an undisturbed life ended with {process.returncode}: {self._folder}")
        return dict(counts)

    def killed(self, at: Instant) -> Verdict:
        """One start that is killed at an instant, and as many as it takes after it."""
        process = self.start()
        for said in lines(process):
            if said == (at.phase, at.number):
                time.sleep(at.after_s)
                process.kill()
        was_killed = process.wait(LIFE_S) == -9
        starts, code = 1, process.returncode
        while code != 0 and starts < MOST_STARTS:
            starts += 1
            process = self.start()
            last = [*lines(process, raw=True)][-3:]
            code = process.wait(LIFE_S)
        trouble = "" if code == 0 else f"start {starts} ended with {code}: {last}"
        return Verdict(at, was_killed, starts, **self._found(), trouble=trouble)

    def _found(self) -> dict[str, int]:
        store = StateStore(str(self._team.state_dir))
        told = [records.read_record(path, "receipt") for path in store.receipts("plain", "nightly")]
        return {
            "orphans": len(self._of_mine(self._market.state()["instances"])),
            "double_rentals": len(self._of_mine(self._market.bill()["instances"])) - 1,
            "lost_results": int(not any(one.get("complete") is True for one in told) or not self._is_home()),
            "reruns": sum(len(path.read_text().splitlines()) for path in self._home("starts.jsonl")) - 1,
        }

    def _is_home(self) -> bool:
        """Whether everything that a manifest names lies beside it with the hash that it names."""
        manifests = [path.parent for path in self._home(roster.MANIFEST_NAME)]
        files = [
            (folder / each.path, each.sha256)
            for folder in manifests
            for each in roster.read_manifest(str(folder)).files
        ]
        return bool(self._home("result.json")) and all(
            hashlib.sha256(path.read_bytes()).hexdigest() == digest for path, digest in files
        )

    def _of_mine(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [row for row in rows if f"/{self.box}/" in str(row["label"])]

    def _home(self, name: str) -> list[Path]:
        return list((self._team.state_dir / "results").rglob(name))


def lines(process: subprocess.Popen[str], raw: bool = False) -> Iterator[Any]:
    """(phase, number within it) of each line as it is said; the lines themselves where ``raw``."""
    phase, counts = "begin", Counter[str]()
    assert process.stdout is not None
    for line in process.stdout:
        if raw:
            yield line
            continue
        told = json.loads(line) if line.startswith("{") else {}
        phase = str(told["text"]) if told.get("event") == "phase" else phase
        counts[phase] += 1
        yield phase, counts[phase]


def drawn(counts: Mapping[str, int]) -> list[Instant]:
    chance, phases = random.Random(SEED), sorted(counts)
    return [
        Instant(phase, chance.randint(1, counts[phase]), chance.uniform(0, MOST_AFTER_S))
        for phase in (phases[number % len(phases)] for number in range(KILLS))
    ]


def rows() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_marketplace(ENGINE, state_dir=folder / "market", options=("--machines", "80")) as market:
            counts = Life(folder / "undisturbed", market).undisturbed()
            verdicts = []
            for number, at in enumerate(drawn(counts)):
                verdicts.append(Life(folder / f"night-{number}", market).killed(at))
                print(verdicts[-1], flush=True)
    killed = [verdict for verdict in verdicts if verdict.was_killed]
    boxes = "containers" if ENGINE == "podman" else "boxes that are processes"
    figures = [
        Figure(f"killed in phase {phase}", count, f"of {counts[phase]} lines")
        for phase, count in sorted(Counter(verdict.at.phase for verdict in killed).items())
    ]
    figures += [
        Figure(
            f"{name.replace('_', ' ')} after a restart ({boxes})", sum(abs(getattr(one, name)) for one in killed), "", 0
        )
        for name in ("orphans", "double_rentals", "lost_results", "reruns")
    ]
    ended = sum(not verdict.trouble for verdict in killed)
    return [
        *figures,
        Figure("lives that the same command, given again, did not bring to their end", len(killed) - ended, "", 0),
        Figure("most starts that a life needed", max(verdict.starts for verdict in verdicts), ""),
        Figure("instants that were not reached", len(verdicts) - len(killed), ""),
    ]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What ``gpu-tenant watch`` makes of an outbid box, and what it does not make of an outage.

Outbid: one run with a trainer that really trains, on boxes with a real sshd, under the installed ``watch`` with a 5 s
poll in a process of its own. Each round begins when the newest checkpoint is home; at an instant of the poll that
chance draws, the market asks more than the cap, so that no raised bid helps and another machine has to be rented. The
same run goes on, round after round. The loss is stamped before the market's price rises, the rung when ``watch`` says
which, the step by the trainer on the new box, the boot by the market's books; all on one clock. Our client waits for no
least interval of a provider here, so there is none to leave out.

Outages: ten boxes under a ``watch`` of this process, as in tests/integration/accelerated_fleet.py: clock accelerated,
the marketplace, its client and all that decides are real, ssh and Ansible have stand-ins.

Boxes are containers where there is podman, else processes. ``RECOVERY_ROUNDS`` takes another number of rounds,
``RECOVERY_ENGINE`` ``podman`` or ``process``, ``RECOVERY_SEED`` other instants.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from harness import Figure

from gpu_tenant import decide, recoveries, verdicts, watch
from gpu_tenant.marketplace.testing import Handle, running_marketplace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from accelerated_fleet import NAMES, World, at_work, make_world
from marketplace_tools import Tenant
from team_folder import TeamFolder

TITLE = "Recovery of an outbid box, and outages"
ROUNDS = int(os.environ.get("RECOVERY_ROUNDS", "20"))
_BEST_ENGINE = "podman" if os.geteuid() == 0 and shutil.which("podman") else "process"
ENGINE = os.environ.get("RECOVERY_ENGINE", _BEST_ENGINE)
# So much at risk that no second pull is due before a box is outbid.
POLL_S, RPO_S, CAP = 5.0, 30, 0.6
OVERHEAD_S, END_TO_END_S = 10.0, 30.0
OUTAGE_S = 1800.0
PATIENCE_S = 600.0
BOX, RUN_ID = "night-1", "recovery"
# Fits a line, five steps a second, a checkpoint a second; every start after the first goes on from the newest one. Its
# checkpoints are what torch.save makes of a dictionary, so that they are loaded on the way; it needs no torch itself,
# whose import is not what is measured here.
TRAINER = """\
import glob, json, os, pickle, random, time, zipfile

own = os.environ["TENANT_CHECKPOINT_DIR"]
folders = [own, *filter(None, os.environ["TENANT_RESUME_DIRS"].split(os.pathsep))]
kept = sum((glob.glob(os.path.join(folder, "step-*.pt")) for folder in folders), [])
state = {"step": 0, "slope": 0.0, "offset": 0.0}
if kept:
    with zipfile.ZipFile(max(kept, key=os.path.basename)) as archive:
        state = pickle.loads(archive.read("archive/data.pkl"))


def note(**line):
    with open(os.environ["TENANT_METRICS"], "a") as stream:
        stream.write(json.dumps({"at": time.time(), **line}) + "\\n")


def save():
    path = os.path.join(own, "step-%010d.pt" % state["step"])
    with zipfile.ZipFile(path + ".tmp", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(state, 2))
        archive.writestr("archive/version", "3\\n")
    os.replace(path + ".tmp", path)
    for old in sorted(glob.glob(os.path.join(own, "step-*.pt")))[:-3]:
        os.remove(old)


note(resumed_from=state["step"])
while True:
    x = random.Random(state["step"]).uniform(-1, 1)
    error = state["slope"] * x + state["offset"] - (3 * x + 1)
    state["slope"] -= 0.05 * error * x
    state["offset"] -= 0.05 * error
    state["step"] += 1
    note(step=state["step"], loss=error * error)
    if state["step"] % 5 == 0:
        save()
    time.sleep(0.2)
"""
SPEC = {
    "id": RUN_ID,
    "command": ["python", "train.py"],
    "artifacts": [{"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"}],
    "resources": {"gpu_count": 1, "disk_gb": 10},
}


def rows() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        found = _outages(Path(folder) / "fleet")
        return _of_losses(_losses(Path(folder) / "outbid")) + found


# --- outbid ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """One outbid, and the way back: moments in epoch seconds. ``boot_s`` is from the rental to a box that runs."""

    lost: float
    rung: float
    stepped: float
    boot_s: float
    phases: dict[str, float]

    @property
    def overhead_s(self) -> float:
        return self.stepped - self.rung - self.boot_s

    @property
    def whole_s(self) -> float:
        return self.stepped - self.lost


def _of_losses(losses: list[Loss]) -> list[Figure]:
    boxes = "containers" if ENGINE == "podman" else "boxes that are processes"
    of = f"{len(losses)} rounds, {boxes}"
    whole = f"outbid to the next step on another machine ({of}), end to end"
    figures = [
        *_spread(whole, losses, lambda one: one.whole_s, END_TO_END_S),
        *_spread("of it controller, from the rung on, boot excluded", losses, lambda one: one.overhead_s, OVERHEAD_S),
        *_spread(f"of it until `watch` began the rung, poll {POLL_S:g} s", losses, lambda one: one.rung - one.lost),
        *_spread("of it the boot", losses, lambda one: one.boot_s),
    ]
    for name in losses[0].phases:
        took = statistics.median(one.phases[name] for one in losses if name in one.phases)
        figures.append(Figure(f"from the rung to the begin of {name}, boot included, median", took, "s"))
    return figures


def _spread(what: str, losses: list[Loss], of: Callable[[Loss], float], limit: float | None = None) -> list[Figure]:
    seconds = [of(one) for one in losses]
    return [
        Figure(f"{what}: median", statistics.median(seconds), "s", limit),
        Figure(f"{what}: worst", max(seconds), "s", limit),
    ]


class Team(TeamFolder):
    """:attr:`tenant` reads on the boxes as its people would."""

    def __init__(self, folder: Path, market: Handle) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, market, [BOX], SPEC, TRAINER, "")
        (folder / "id_ed25519").symlink_to("id")
        self.tenant = Tenant(market, folder)

    def _variables(self) -> dict[str, Any]:
        return {**super()._variables(), "provision_price_cap": CAP, "tenant_rpo_s": RPO_S}

    def instance(self, generation: int) -> int:
        """The provider's id of the box of a generation."""
        rows = self.market.state()["instances"]
        return int(max(row["id"] for row in rows if f"/{BOX}/g{generation}/" in str(row["label"])))

    def rungs(self) -> list[dict[str, Any]]:
        lines = Journal(StateStore(str(self.state_dir))).lines()
        return [line for line in lines if (line["verb"], line["kind"]) == (recoveries.RECOVER, "intent")]

    def first_lines(self, number: int) -> list[dict[str, Any]]:
        """What the trainer noted first on a box: from where it goes on, and its first step."""
        path = f"/workspace/gpu-tenant/runs/{RUN_ID}/main/a1/metrics.jsonl"
        return [json.loads(line) for line in self.tenant.run(number, f"head -n 2 {path}").splitlines()]


class Watching:
    """``gpu-tenant watch``, and what it says with the moment at which it said so."""

    def __init__(self, team: Team) -> None:
        words = ["watch", "-l", BOX, *team.sources(), "--poll-s", str(POLL_S), "--json"]
        self.said: list[tuple[float, dict[str, Any]]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpu_tenant", *words, "--workspace", str(team.folder / "runner")],
            env={**os.environ, "VAST_API_KEY": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append((time.time(), json.loads(line) if line.startswith("{") else {"text": line}))

    def until(self, what: str, seen: Callable[[dict[str, Any]], bool], since: float) -> float:
        """When it first said something that is ``seen``, after ``since``."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            for at, line in list(self.said):
                if at > since and seen(line):
                    return at
            time.sleep(0.1)
        raise RuntimeError(f"no {what}: {[line for _at, line in self.said[-5:]]}")

    def phases(self, since: float, until: float) -> dict[str, float]:
        """When each role began."""
        begun: dict[str, float] = {}
        for at, line in self.said:
            if line.get("event") == "phase" and since < at < until:
                begun.setdefault(line["text"], at)
        return begun

    def warnings(self, since: float) -> list[str]:
        """What did not go well, in its words."""
        return [str(line["text"]) for at, line in self.said if at > since and line.get("event") == "warning"]

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._reader.join()


def _losses(folder: Path) -> list[Loss]:
    chance = random.Random(os.environ.get("RECOVERY_SEED", "7"))
    options = ("--machines", str(60 + 6 * ROUNDS))
    folder.mkdir()
    with running_marketplace(ENGINE, state_dir=folder / "market", options=options) as market:
        team = Team(folder, market)
        watching = Watching(team)
        try:
            generation, losses = 1, []
            for _round in range(ROUNDS):
                _await_home(watching, generation)
                time.sleep(chance.uniform(0, POLL_S))
                losses.append(_lost(team, watching, generation))
                generation += 1
                print(losses[-1], flush=True)
                if losses[-1].overhead_s > OVERHEAD_S:
                    print(*watching.warnings(losses[-1].lost), sep="\n", flush=True)
            return losses
        finally:
            watching.end()
            _give_back(market)


def _give_back(market: Handle) -> None:
    """Every box, since a container is kept when its market ends."""
    numbers = [row["id"] for row in market.state()["instances"]]
    for number in numbers:
        market.request("DELETE", f"/api/v0/instances/{number}/", {})
    for number in numbers:
        market.wait_for(number, lambda row: row is None)


def _await_home(watching: Watching, generation: int) -> None:
    """Until the box of a generation trains, its newest checkpoint came home, and nothing is at work."""

    def told(action: str) -> Callable[[dict[str, Any]], bool]:
        wanted = (verdicts.RUNNING, action, generation)
        return lambda line: (line.get("verdict"), line.get("action"), line.get("generation")) == wanted

    begun = watching.until(f"pull of generation {generation}", told(decide.PULL), 0.0)
    watching.until(f"end of the pull of generation {generation}", told(decide.WAIT), begun)


def _lost(team: Team, watching: Watching, generation: int) -> Loss:
    """Outbid the box of a generation for good, and await the step of the next one."""
    number, before = team.instance(generation), len(team.rungs())
    was = team.first_lines(number)[0]["resumed_from"]
    lost = time.time()
    while float(team.market.preempt(number)["market_price"]) <= CAP:
        pass
    told = watching.until("rung", lambda line: line.get("action") == decide.NEXT_OFFER, lost)
    watching.until(
        "step on another machine",
        lambda line: line.get("generation") == generation + 1 and bool(line.get("step")),
        told,
    )
    tried = team.rungs()[before:]
    if not tried or tried[-1]["rung"] != decide.NEXT_OFFER:
        raise RuntimeError(f"another rung than another machine: {[line['rung'] for line in tried]}")
    # It is told once, to the millisecond; of one that was tried again, the journal knows the second.
    again = [line["rung"] for line in tried].count(decide.NEXT_OFFER) > 1
    rung = records.parse_utc(tried[-1]["at"]).timestamp() if again else told
    new = team.instance(generation + 1)
    resumed, first = team.first_lines(new)
    if not was < resumed["resumed_from"] == first["step"] - 1:
        raise RuntimeError(f"it went on from step {resumed['resumed_from']}, its predecessor from {was}")
    phases = {name: at - rung for name, at in watching.phases(rung, first["at"]).items()}
    return Loss(lost, rung, first["at"], _boot_s(team.market, new), phases)


def _boot_s(market: Handle, number: int) -> float:
    """From the accepted rental to a box that runs, by the market's books."""
    now, row = market.state()["now"], market.row(number)
    assert row is not None
    return float(now - 60 * row["uptime_mins"] - row["start_date"])


# --- outages --------------------------------------------------------------------------------------------------------


def _outages(folder: Path) -> list[Figure]:
    folder.mkdir()
    with running_marketplace("none", state_dir=folder / "market") as market:
        world = make_world(folder, market)
        watching = at_work(world)
        rented = _starts(market)
        looks = int(OUTAGE_S / watch.DEFAULT_POLL_S)
        with _no_provider(world):
            _all_silent(world, watching, looks)
        with _no_ssh(world):
            _all_silent(world, watching, looks)
        after = world.rounds(watching, 2, watch.DEFAULT_POLL_S)
        if {row["verdict"] for row in after} != {verdicts.RUNNING}:
            raise RuntimeError(f"not at work after the outages: {after}")
        relaunched = _starts(market) - rented
        played = len(world.playbooks.played)
        _still_recovers(world, watching)
    what = f"{len(NAMES)} healthy boxes, 30 min without the provider's API (503), 30 min without ssh"
    how = f"clock accelerated, {looks} looks each, ssh and Ansible with stand-ins"
    return [
        Figure(f"{what}: boxes rented or started, by the market's books ({how})", relaunched, "", 0),
        Figure("the same: playbooks begun", played, "", 0),
    ]


def _starts(market: Handle) -> int:
    """Starts of boxes that there ever were, those of new boxes included. A box that was halted counts as well."""
    return sum(int(row["boots"]) for row in market.state()["instances"])


@contextlib.contextmanager
def _no_provider(world: World) -> Iterator[None]:
    fault = world.market.inject(kind="server_error", call="any", times=None)
    client = world.boxes.client(NAMES[0])
    # The outage outlasts any patience; what it lacks is only waited for in real time.
    patience, client.retry_for_s = client.retry_for_s, 0.0
    try:
        yield
    finally:
        client.retry_for_s = patience
        world.market.clear_faults(fault)


@contextlib.contextmanager
def _no_ssh(world: World) -> Iterator[None]:
    world.boxes.ssh_up = False
    try:
        yield
    finally:
        world.boxes.ssh_up = True


def _all_silent(world: World, watching: watch.Watch, looks: int) -> None:
    for _look in range(looks):
        told = {row["verdict"] for row in world.rounds(watching, 1, watch.DEFAULT_POLL_S)}
        if told != {verdicts.UNREACHABLE}:
            raise RuntimeError(f"no outage: {told}")


def _still_recovers(world: World, watching: watch.Watch) -> None:
    """That nothing was relaunched is only worth something of a watch that relaunches what is lost."""
    cheapest = min(NAMES, key=lambda name: float((world.market.row(world.instance(name)) or {})["dph_total"]))
    world.market.preempt(world.instance(cheapest))
    before = _starts(world.market)
    world.rounds(watching, 2, watch.DEFAULT_POLL_S)
    if _starts(world.market) == before:
        raise RuntimeError(f"the watch did not recover {cheapest}, which was outbid after the outages")

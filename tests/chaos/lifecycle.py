# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One run from nothing to a receipt and to nothing again, by the loop of ``watch``, killed at any instant of it.

Provider (the marketplace, without an engine), client, leases, journal, records, receipts and gate are the real ones. On
record are the effectors: what the playbooks do on a box is done here to a folder that stands for its disk, and the box
writes down what was started on it. Each life is a process of its own that is ended by SIGKILL, so that no ``finally``,
no lock and no memory survives it.

An instant is the next thing that the process would do to the world: open a file for writing, rename, remove or make
one, or send a request. It is named by its phase and its number within it, so that a seed finds it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, leases, parts, receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils import seal_reading as seals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.desired import Desire, converge
from ansible_collections.tenant.gpu.plugins.module_utils.vast.offers import Constraints
from ansible_collections.tenant.gpu.plugins.module_utils.vast.rental import Order

from gpu_tenant import approve, decide, watch
from gpu_tenant.box_ssh import Endpoint
from gpu_tenant.hosts import BoxHost
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.marketplace.testing import Handle, running_marketplace
from gpu_tenant.observation import Observation, RunView
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import Outcome, TaskResult
from gpu_tenant.progress import Progress
from gpu_tenant.question import Asked
from gpu_tenant.workspace import Workspace

BOX, RUN = "night-1", "nightly"
WANTED = Constraints(min_disk_gb=10.0, price_cap=0.6, bid_margin=0.15)
# Looks at the box after which the market takes its card, and after which the training is done.
LOST_AFTER, DONE_AFTER = 3, 6
# Times of starts and seals are told in whole seconds, and a box that started in the second of its seal is not believed.
TRAINS_S = 1.2
ROUND_S = 0.05
MOST_ROUNDS = 400
LIFE_S = 900.0
POLL_S = 0.01
_AT_ONCE = ("--boot-s", "0")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "http.client.send")
# What withdraws a receipt belongs to the harvest; from then to the new one there is none.
WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Instant:
    phase: str
    number: int


class Killer:
    """Counts the instants of each phase and ends the process at one of them. A thread is in one phase at a time."""

    def __init__(self, at: Instant | None, tally: Path) -> None:
        self._at = at
        self._tally = tally
        self._counts: Counter[str] = Counter()
        self._where = threading.local()
        self._lock = threading.Lock()

    def arm(self) -> None:
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """:param name: empty for what the box, the market or a person does: the process cannot die in it."""
        before = getattr(self._where, "name", "watch")
        self._where.name = name
        try:
            yield
        finally:
            self._where.name = before

    def enter(self, name: str) -> None:
        self._where.name = name

    def save(self) -> None:
        with self.phase(""):
            self._tally.write_text(json.dumps(self._counts))

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        name = getattr(self._where, "name", "watch")
        if not name or not (event in _CHANGES or (event == "open" and _opens_to_write(arguments))):
            return
        with self._lock:
            self._counts[name] += 1
            if self._at == Instant(name, self._counts[name]):
                self.strike()

    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _opens_to_write(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & _WRITES)


class Disk:
    """What lies on the box, written by the box: it goes on when the runner dies, and only this process plays it too."""

    def __init__(self, folder: Path, killer: Killer) -> None:
        self._folder, self._killer = folder, killer
        with killer.phase(""):
            folder.mkdir(parents=True, exist_ok=True)

    def lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []

    def add(self, name: str, line: str) -> None:
        with self._killer.phase(""), open(self._folder / name, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    @property
    def state(self) -> str:
        """The run as its supervisor would say."""
        starts = self._folder / "starts"
        if not starts.exists():
            return ""
        has_trained = time.time() - starts.stat().st_mtime >= TRAINS_S
        return "done" if has_trained and len(self.lines("looks")) >= DONE_AFTER else "running"

    def start(self) -> None:
        """A start that finds the run alive, or done, adopts it; a machine that boots starts what it has by itself."""
        life = f"after {len(self.lines('lost'))} losses"
        if self.state != "done" and (self.lines("starts") or [""])[-1] != life:
            self.add("starts", life)

    def out(self) -> dict[str, bytes]:
        weights = b"weights" * 1000
        files = {"main/a1/out/checkpoints.json": b'{"step": 3}'}
        return (
            {**files, "main/a1/out/model.json": json.dumps({"w": weights.decode()}).encode()}
            if (self.state == "done")
            else files
        )


@dataclass
class World:
    """A team's folder; every life opens it anew."""

    folder: Path
    market: Handle
    killer: Killer

    def __post_init__(self) -> None:
        self.project = self.folder.name
        self.store = StateStore(str(self.folder / "state"))
        self.disk = Disk(self.folder / "disk", self.killer)
        self.spec = load_run_spec(str(self.folder / "job/run.yml"))
        self.client = VastClient(self.market.api_key, base_url=self.market.url, sleep=_briefly)

    def account(self) -> Account:
        return Account(self.client, self.store)

    def host(self) -> BoxHost:
        variables = {
            "tenant_project": self.project,
            "tenant_run": str(self.folder / "job/run.yml"),
            "tenant_state_dir": self.store.root,
            "tenant_results_dir": str(self.folder / "results"),
            "tenant_rpo_s": "30",
            "platform_driver": "vast",
            "platform_data_dir": "/workspace",
            "vast_api_url": self.market.url,
            "vast_api_key": self.market.api_key,
        }
        return BoxHost(BOX, variables)

    def identity(self) -> BoxIdentity:
        return approve.identity_of(self.store, self.project, BOX)

    @property
    def home(self) -> Path:
        return self.folder / "results" / self.project / RUN / BOX / "g1"

    def order(self, **changes: Any) -> Order:
        return Order(self.project, BOX, "debian:12", 10.0, WANTED, wait_s=600.0, **changes)


def _briefly(seconds: float) -> None:
    time.sleep(min(seconds, 0.02))


class Looks(Observer):
    """The real observer; the box answers from its disk, and the market takes its card once."""

    world: World

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, asked: Asked) -> Observation:
        disk = self.world.disk
        state = disk.state
        if not state:
            return replace(seen, contact="no_supervisor")
        if state == "running":
            disk.start()
            disk.add("looks", "")
        if len(disk.lines("looks")) == LOST_AFTER and not disk.lines("lost"):
            disk.add("lost", "")
            assert seen.item is not None
            with self.world.killer.phase(""):
                self.world.market.preempt(int(seen.item.provider_id))
        elif len(disk.lines("looks")) > LOST_AFTER and not disk.lines("let go"):
            disk.add("let go", "")
            assert seen.item is not None
            with self.world.killer.phase(""):
                self.world.market.release(int(seen.item.provider_id))
        step = 10 * len(disk.lines("looks"))
        raw = {"run_id": asked.run_id, "cells": [{"cell": "main", "state": state, "running_s": 60.0, "step": step}]}
        return replace(seen, contact="answered", run=RunView(state, step, 10 * DONE_AFTER, raw=raw))


@dataclass
class Playbooks:
    """What the plays do on the controller and to the provider, in their order."""

    world: World
    workspace: Workspace
    project: str
    interrupts: Interrupts = field(default_factory=Interrupts)
    watch: Any = None

    def run(self, playbook: str, boxes: Sequence[str], extra_vars: Mapping[str, Any], **options: Any) -> Outcome:
        act = {"train": self._train, "harvest": self._harvest, "provision": self._park}[playbook]
        with self.world.killer.phase(playbook), leased(self.world, playbook):
            told = act(dict(extra_vars)) or []
        return Outcome(playbook, "successful", 0, Path(), tuple(boxes), results=told)

    def _train(self, told: Mapping[str, Any]) -> None:
        world = self.world
        found = world.client.search_offers({"type": "bid", "rentable": {"eq": True}, "limit": 60})
        order = world.order(replaces=str(told.get("provision_replace", "")))
        done = converge(world.account(), Desire("started", order, [offer["id"] for offer in found]))
        with world.killer.phase("deploy"):
            world.store.update_box(world.project, BOX, done["generation"], deploy_started_at=records.utc_now())
            world.disk.start()

    def _harvest(self, told: Mapping[str, Any]) -> list[TaskResult]:
        world, snapshot = self.world, bool(told.get("harvest_snapshot"))
        state, identity = world.disk.state, world.identity()
        manifest = self._bring_home(identity, state, snapshot)
        if not snapshot:
            self._note_seal(identity, manifest)
        said = "snapshot" if snapshot else state
        claim = receipts.Claim(identity, str(world.home), manifest, said)
        with withdrawal(world.killer):
            receipt = dict(parts.establish(world.store, claim, str(world.folder / "whole")).receipt)
        if not snapshot:
            self._park({})
        return [TaskResult(BOX, "harvest", "Write the receipt", "tenant.gpu.receipt", "ok", {"receipt": receipt})]

    def _bring_home(self, identity: BoxIdentity, state: str, snapshot: bool) -> roster.Manifest:
        files = []
        for path, data in sorted(self.world.disk.out().items()):
            place = self.world.home / path
            place.parent.mkdir(parents=True, exist_ok=True)
            records.write_bytes(str(place), data)
            about = {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            files.append({**about, "role": "checkpoint", "loader": "json"})
        record: dict[str, Any] = {
            "schema": records.schema("manifest"),
            "project": identity.project,
            "run_id": RUN,
            "spec_sha256": self.world.spec["spec_sha256"],
            "box": identity.box,
            "generation": identity.generation,
            "created_at": records.utc_now(),
            "state": state,
            "snapshot": snapshot,
            "files": files,
            "totals": {"files": len(files), "bytes": sum(each["bytes"] for each in files)},
        }
        record["digest"] = roster.manifest_digest(record)
        records.write_record(str(self.world.home / roster.MANIFEST_NAME), "manifest", record)
        return roster.parse_manifest(record)

    def _note_seal(self, identity: BoxIdentity, manifest: roster.Manifest) -> None:
        """The box is sealed and its seal is read, as the box would answer."""
        run = {"run_id": RUN, "spec_sha256": self.world.spec["spec_sha256"]}
        promised = {"epoch": 1, **identity.as_dict()}
        answer = {
            "seal": {
                **promised,
                "schema": records.schema("seal"),
                "runs": [{**run, "state": "done", "manifest_digest": manifest.digest}],
            },
            "index": {**promised, "schema": records.schema("index"), "runs": [{**run, "cells": ["main"]}]},
            "live_cells": [],
            "unlisted_runs": [],
            "checkpoints": {RUN: {"main": {"step": None, "done": True}}},
            "durable": [],
            "boot_id": "0b7e2a52-0000-4000-8000-000000000001",
            "problems": [],
        }
        seals.save(self.world.store, identity, seals.as_record(identity, records.utc_now(), answer))

    def _park(self, _told: Mapping[str, Any]) -> None:
        with self.world.killer.phase("park"):
            converge(self.world.account(), Desire("stopped", self.world.order()))


@contextlib.contextmanager
def leased(world: World, purpose: str) -> Iterator[None]:
    """The lease as the plays take it. A killed life gives nothing back: the next one finds its holder dead."""
    holder = holders.myself()
    kept = leases.opened(world.store)
    kept.take(lease.Ask(world.project, BOX, purpose, leases.nonce_of(holder), holder))
    try:
        yield
    finally:
        kept.release(world.project, BOX, holder)


@contextlib.contextmanager
def withdrawal(killer: Killer) -> Iterator[None]:
    """From a receipt's withdrawal to the writing of the new one is a phase of its own."""
    withdraw, write = receipts.withdraw, receipts.write

    def taking(*arguments: Any) -> str:
        killer.enter(WITHDRAWN)
        return withdraw(*arguments)

    def writing(*arguments: Any) -> dict[str, Any]:
        written = write(*arguments)
        killer.enter("harvest")
        return written

    receipts.withdraw, receipts.write = taking, writing
    try:
        yield
    finally:
        receipts.withdraw, receipts.write = withdraw, write


class Silent:
    def show(self, event: Any) -> None:
        """Nobody looks on."""

    def close(self) -> None:
        """Nothing to end."""


# --- a life ---------------------------------------------------------------------------------------------------------


def live(folder: Path, market: Handle, killer: Killer) -> None:
    """Whatever is there already: until the results are home and the box is destroyed on a person's word."""
    with killer.phase(""):
        world = World(folder, market, killer)
        clock = time.time
        looks = Looks([world.host()], "")
        looks.world = world
    workspace = Workspace(folder / "runner")
    watched = watch.group([world.host()], clock)
    playing = Playbooks(world, workspace, world.project)
    options = watch.WatchOptions(poll_s=0.0)
    watching = watch.Watch(playing, looks, watched, options, Progress(Silent()), clock)  # type: ignore[arg-type]  # stands for the runner
    for _round in range(MOST_ROUNDS):
        watching.round()
        watching.settle()
        if watched[0].action is not None and watched[0].action.kind == decide.FINISH:
            break
        time.sleep(ROUND_S)
    else:
        raise AssertionError(f"not home after {MOST_ROUNDS} rounds: {watched[0].action}")
    with killer.phase(""):
        at_work = [row for row in of_the(folder, market.state()["instances"]) if row["phase"] == "running"]
    if at_work:
        raise AssertionError("its results are home, and its meter runs on")
    with killer.phase("teardown"), leased(world, "teardown"):
        tear_down(world)


def tear_down(world: World) -> None:
    generation = world.store.last_generation(world.project, BOX)
    record = world.store.read_box(world.project, BOX, generation)
    if record is not None and not record["destroyed_at"]:
        consents = [path for path in world.store.approvals() if os.path.exists(path)]
        if not consents:
            with world.killer.phase(""):
                approve.consent_to(world.store, world.identity(), "destroy", approve.Consent("Ada", "it is home"))
        converge(world.account(), Desire("absent", world.order()))


class Life:
    """A process that lives on what is there already. Forked, so no other thread may be at work here."""

    def __init__(self, team: Path, market: Handle, at: Instant | None = None) -> None:
        self._team = team
        self._ends_by = time.monotonic() + LIFE_S
        self._pid = os.fork()
        if self._pid == 0:
            self._be(team, market, at)

    def _be(self, team: Path, market: Handle, at: Instant | None) -> NoReturn:
        """What the process does."""
        _be_one(team, market, at)

    def code(self) -> int | None:
        """How it ended, as ``os.waitstatus_to_exitcode`` says; None while it lives. TimeoutError."""
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > self._ends_by:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise TimeoutError(f"a life in {self._team} did not end within {LIFE_S:.0f} s")
        return None


def _be_one(team: Path, market: Handle, at: Instant | None) -> NoReturn:
    code = 1
    try:
        killer = Killer(at, team / "instants.json")
        killer.arm()
        live(team, market, killer)
        killer.save()
        code = 0
    except BaseException as error:
        (team / "error.txt").write_text("".join(traceback.format_exception(error)))
    finally:
        os._exit(code)


# --- what must hold ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of a run whose first life was ended at an instant. All of it must be empty or 0."""

    at: Instant
    was_killed: bool
    orphans: int
    double_rentals: int
    lost_results: int
    reruns: int
    trouble: str = ""

    @property
    def is_clean(self) -> bool:
        wrong = (self.orphans, self.double_rentals, self.lost_results, self.reruns)
        return not any(wrong) and not self.trouble


def new_team(folder: Path) -> Path:
    (folder / "job").mkdir(parents=True)
    (folder / "job/train.py").write_text("print('training')\n")
    files = [{"glob": "*.json", "role": "checkpoint", "loader": "json"}]
    spec = {"id": RUN, "command": ["python", "train.py"], "artifacts": files}
    (folder / "job/run.yml").write_text(yaml.safe_dump(spec))
    return folder


def instants(folder: Path, market: Handle) -> dict[str, int]:
    """How many instants each phase of an undisturbed run has."""
    team = new_team(folder)
    life = Life(team, market)
    while (code := life.code()) is None:
        time.sleep(POLL_S)
    if code != 0:
        raise AssertionError((team / "error.txt").read_text())
    found: dict[str, int] = json.loads((team / "instants.json").read_text())
    # How many rounds the loop waits for the training is the machine's business.
    return {**found, "watch": found["watch"] // 2}


def drawn(counts: Mapping[str, int], number: int, seed: int) -> list[Instant]:
    """So many instants, the phases in turn, and within a phase by the seed without repeating one."""
    draw = random.Random(seed)
    left = {phase: draw.sample(range(1, count + 1), count) for phase, count in sorted(counts.items())}
    chosen: list[Instant] = []
    while len(chosen) < number and any(left.values()):
        for phase in [phase for phase in left if left[phase]]:
            chosen.append(Instant(phase, left[phase].pop()))
    return chosen[:number]


def killed_at_each(folder: Path, markets: Sequence[Handle], chosen: Sequence[Instant]) -> list[Verdict]:
    """Kill the first life of a run of its own at each instant, let the next one end it, and say what came of it."""
    return played(folder, markets, chosen, Case)


def played(folder: Path, markets: Sequence[Handle], chosen: Sequence[Any], case: Callable[..., Any]) -> list[Any]:
    """The verdict on each of ``chosen``, in a team's folder of its own.

    :param markets: as many runs go on beside each other. Two on one market would bid for the same machines.
    :param case: made of folder, choice and market; ``is_over`` is asked again and again, and then ``verdict``.
    """
    waiting = [(new_team(folder / f"case-{number}"), at) for number, at in enumerate(chosen)]
    at_work: dict[int, Any] = {}
    verdicts = []
    while waiting or at_work:
        for lane, market in enumerate(markets):
            if lane not in at_work and waiting:
                at_work[lane] = case(*waiting.pop(0), market)
            elif lane in at_work and at_work[lane].is_over():
                verdicts.append(at_work.pop(lane).verdict())
        time.sleep(POLL_S)
    return verdicts


@contextlib.contextmanager
def markets(folder: Path, count: int) -> Iterator[list[Handle]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running_marketplace("none", state_dir=folder / f"market-{lane}", options=_AT_ONCE))
            for lane in range(count)
        ]


class Case:
    """A run whose first life is ended at an instant."""

    def __init__(self, team: Path, at: Instant, market: Handle) -> None:
        self._team, self._market, self._at = team, market, at
        self._life: Life | None = None
        self._codes: list[int] = []

    def is_over(self) -> bool:
        if self._life is None:
            self._life = Life(self._team, self._market, None if self._codes else self._at)
        code = self._life.code()
        if code is None:
            return False
        self._codes.append(code)
        self._life = None
        return code != -signal.SIGKILL

    def verdict(self) -> Verdict:
        team = self._team
        there = of_the(team, self._market.state()["instances"])
        rented = of_the(team, self._market.bill()["instances"])
        return Verdict(
            self._at,
            self._codes[0] == -signal.SIGKILL,
            orphans=len(there),
            double_rentals=len(rented) - 1,
            lost_results=int(not is_home(StateStore(str(team / "state")), team)),
            reruns=len((team / "disk/starts").read_text().splitlines()) - 2,
            trouble=(team / "error.txt").read_text()[-2000:] if self._codes[-1] else "",
        )


def of_the(team: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if f"/{team.name}/" in str(row["label"])]


def is_home(store: StateStore, team: Path) -> bool:
    """A complete receipt in force, and every file under it is what the box made."""
    paths = store.receipts(team.name, RUN)
    if len(paths) != 1 or records.read_record(paths[0], "receipt").get("complete") is not True:
        return False
    root = team / "results" / team.name / RUN / BOX / "g1"
    manifest = roster.read_manifest(str(root))
    made = Disk(team / "disk", Killer(None, team / "unused")).out()
    names = {item.path for item in manifest.files}
    return names == set(made) and all((root / path).read_bytes() == data for path, data in made.items())

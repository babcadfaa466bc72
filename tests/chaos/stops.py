# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""SIGTERM to the runner at any instant of a lifecycle, and the same command again.

The commands are the real ones from their first line on, and so is what :mod:`lifecycle` has real. A playbook is a
process of its own here as it is there, and what it does is on record. An instant comes in the runner or in its
playbook; the signal always goes to the runner. Asked once, the runner lets the step end; asked again, it ends the
playbook, which then does nothing any more from this very instant on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import lifecycle
from ansible_collections.tenant.gpu.plugins.module_utils import leases
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from lifecycle import BOX, Instant, Killer, Looks, Playbooks, World, is_home, leased, of_the

from gpu_tenant import cli, decide, hosts, job, playbooks
from gpu_tenant.marketplace.testing import Handle
from gpu_tenant.playbooks import BoxFailure, Outcome, PlaybookRunner
from gpu_tenant.workspace import Workspace

INTERRUPTED = 30
OPENING = "opening"
# Which commands, one after the other, bring a run home and end its box.
STORIES = {"go": ("go",), "watch": ("watch", "teardown"), "verbs": ("train", "harvest", "teardown")}
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Stop:
    """:param twice: the second request follows at once."""

    story: str
    command: str
    at: Instant
    twice: bool = False

    def __str__(self) -> str:
        return f"{self.story}/{self.command}:{self.at.phase}:{self.at.number}{':twice' if self.twice else ''}"


def parsed(text: str) -> Stop:
    """``go/go:harvest:3:twice``, as a failure of the test names it."""
    command, phase, number, *twice = text.split(":")
    return Stop(*command.split("/"), Instant(phase, int(number)), bool(twice))


class Stopper(Killer):
    """Sends the request at its instant, and counts the instants of the playbooks that it was forked into as well."""

    def __init__(self, stop: Stop | None, team: Path) -> None:
        super().__init__(stop.at if stop else None, team / "instants.json")
        self._stop, self._team, self._runner = stop, team, os.getpid()
        self._counting = self._runner

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Those that a playbook forks in its turn, to load files, count nothing."""
        if os.getpid() == self._counting:
            super()._hook(event, arguments)

    def strike(self) -> None:
        self._at = None
        with self.phase(""):
            (self._team / "struck").touch()
        os.kill(self._runner, signal.SIGTERM)
        is_play = os.getpid() != self._runner
        while is_play and self._stop is not None and self._stop.twice and os.getppid() == self._runner:
            # Requests that come faster than they are heard are one.
            time.sleep(0.02)
            os.kill(self._runner, signal.SIGTERM)

    def in_play(self) -> None:
        """Just forked. Nothing that the runner holds goes along, as if it were another program now; and another thread
        of the runner may have been counting."""
        os.closerange(3, 1024)
        self._lock, self._counting = threading.Lock(), os.getpid()

    def add(self, counts: Mapping[str, int]) -> None:
        for phase, count in counts.items():
            self._counts[phase] = max(self._counts[phase], count)

    @property
    def counts(self) -> Counter[str]:
        return self._counts


class CountedLooks(Looks):
    def observe(self, *arguments: Any, **options: Any) -> Any:
        if getattr(self.world.killer._where, "name", "") == OPENING:
            self.world.killer.enter("watch")
        return super().observe(*arguments, **options)


# --- a playbook -----------------------------------------------------------------------------------------------------


def recorded(
    runner: PlaybookRunner, playbook: str, boxes: Sequence[str], extra_vars: Any = None, **options: Any
) -> Outcome:
    """In the place of :meth:`PlaybookRunner.run`."""
    world = CountedLooks.world
    told = world.folder / f"play-{time.monotonic_ns()}.json"
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        _be_play(world, runner, playbook, dict(extra_vars or {}), told)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if runner.interrupts.must_abort():
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TenantFailure("interrupted", f"the {playbook} playbook was stopped on request")
        time.sleep(0.01)
    if status != 0:
        raise AssertionError(f"the {playbook} playbook broke: {(world.folder / 'error.txt').read_text()}")
    answer = json.loads(told.read_text())
    assert isinstance(world.killer, Stopper)
    world.killer.add(answer["counts"])
    failures = [BoxFailure(BOX, **answer["failure"])] if answer["failure"] else []
    return Outcome(
        playbook, "failed" if failures else "successful", len(failures), Path(), tuple(boxes), failures=failures
    )


def _be_play(world: World, runner: PlaybookRunner, playbook: str, extra_vars: dict[str, Any], told: Path) -> NoReturn:
    code = 1
    killer = world.killer
    assert isinstance(killer, Stopper)
    try:
        killer.in_play()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.environ.pop(leases.NONCE_VARIABLE, None)
        if runner.lease_nonce:
            os.environ[leases.NONCE_VARIABLE] = runner.lease_nonce
        with killer.phase(""):
            mine = World(world.folder, world.market, killer)
            acts = Playbooks(mine, Workspace(world.folder / "runner"), mine.project)
        failure: dict[str, str] = {}
        try:
            with killer.phase(playbook), leased(mine, playbook):
                _act(acts, playbook)(extra_vars)
        except TenantFailure as error:
            failure = {"kind": error.kind, "what": error.what, "safe": error.safe, "fix": error.fix}
        with killer.phase(""):
            told.write_text(json.dumps({"counts": killer.counts, "failure": failure}))
        code = 0
    except BaseException as error:
        with killer.phase(""):
            (world.folder / "error.txt").write_text("".join(traceback.format_exception(error)))
    finally:
        os._exit(code)


def _act(acts: Playbooks, playbook: str) -> Callable[[Mapping[str, Any]], None]:
    return {
        "train": acts._train,
        "harvest": acts._harvest,
        "provision": acts._park,
        "teardown": lambda told: lifecycle.tear_down(acts.world),
    }[playbook]


# --- a command ------------------------------------------------------------------------------------------------------


def words(team: Path, command: str) -> list[str]:
    common = ["-l", BOX, "--json", "--workspace", str(team / "runner")]
    spec = str(team / "job/run.yml")
    if command == "go":
        consent = ["--approver", "Ada", "--reason", "it is home"]
        return [command, spec, *common, *consent, "--poll-s", str(_PAUSE_S), "--pull-every-s", "0"]
    return [command, *common, "--run", spec, *(["--poll-s", str(_PAUSE_S)] if command == "watch" else [])]


class Life(lifecycle.Life):
    """One command in a process of its own. Forked, so no other thread may be at work here."""

    def __init__(self, team: Path, market: Handle, command: str, stop: Stop | None, said: Path) -> None:
        self.said = said
        self._start = lambda: _be_one(team, market, command, stop, said)
        super().__init__(team, market)

    @property
    def pid(self) -> int:
        return self._pid

    def _be(self, team: Path, market: Handle, at: Instant | None) -> NoReturn:
        self._start()
        raise AssertionError("it went on")


def _be_one(team: Path, market: Handle, command: str, stop: Stop | None, said: Path) -> NoReturn:
    code = 1
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(descriptor, number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process
        # Nothing of it outlives a test that was ended itself.
        signal.alarm(int(lifecycle.LIFE_S))
        killer = Stopper(stop, team)
        with killer.phase(""):
            world = World(team, market, killer)
            _record_effectors(world)
        sys.argv = ["gpu-tenant", *words(team, command)]
        killer.enter(OPENING)
        killer.arm()
        try:
            cli.main()
        except SystemExit as ended:
            killer.enter("")
            code = ended.code if isinstance(ended.code, int) else 1
        killer.save()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, "".join(traceback.format_exception(error)).encode())
    finally:
        os._exit(code)


def _record_effectors(world: World) -> None:
    """In this process, which ends with the command."""
    CountedLooks.world = world
    inventory = hosts.Inventory((world.host(),), "", (), (), (BOX,))
    hosts.resolve = lambda *arguments: inventory  # type: ignore[assignment]
    job.Observer = CountedLooks  # type: ignore[misc]
    playbooks.PlaybookRunner.run = recorded  # type: ignore[assignment,method-assign]
    decide.back_off = lambda *arguments: _PAUSE_S  # type: ignore[assignment]


# --- what must hold -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of a run whose command was asked to stop at an instant."""

    stop: Stop
    was_struck: bool
    codes: tuple[int, ...]
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return f"STOPS_AT={self.stop}: {self.codes} {'; '.join(self.wrong)}"


class Case:
    """One story, of which one command is asked to stop once; each is given until it has ended well."""

    def __init__(self, team: Path, stop: Stop | None, market: Handle, story: str = "") -> None:
        self._team, self._stop, self._market = team, stop, market
        self._story = stop.story if stop else story
        self._left = list(STORIES[self._story])
        self._life: Life | None = None
        self._codes: list[int] = []
        self._wrong: list[str] = []
        self._is_told, self._is_examined = False, False
        self.counts: dict[str, dict[str, int]] = {}
        self._disk = lifecycle.Disk(team / "disk", Killer(None, team / "unused"))
        if self._story == "verbs":
            # Nobody looks between the verbs: its card is not taken.
            self._disk.add("lost", "never")
            self._disk.add("let go", "never")

    def is_over(self) -> bool:
        if self._life is None:
            if self._left[0] == "harvest" and not self._has_trained():
                return False
            self._begin()
        assert self._life is not None
        code = self._life.code()
        if code is None:
            self._tell_watch()
            return False
        self._ended(self._left[0], code)
        return not self._left

    def _begin(self) -> None:
        command = self._left[0]
        mine = self._stop if self._stop is not None and self._stop.command == command else None
        said = self._team / f"said-{len(self._codes)}.jsonl"
        self._is_told = False
        self._life = Life(self._team, self._market, command, mine if not self._was_struck else None, said)

    def _has_trained(self) -> bool:
        """Between the verbs nobody looks, and the world counts looks."""
        for _look in range(lifecycle.DONE_AFTER - len(self._disk.lines("looks"))):
            self._disk.add("looks", "")
        return self._disk.state == "done"

    @property
    def _was_struck(self) -> bool:
        return (self._team / "struck").exists()

    def _tell_watch(self) -> None:
        """A watch looks on for ever; a person ends it when all is home and the box rests."""
        assert self._life is not None
        if self._left[0] != "watch" or self._is_told or not is_home(self._store, self._team):
            return
        if all(row["phase"] != "running" for row in self._rows("state")) and "finish" in self._life.said.read_text():
            self._is_told = True
            os.kill(self._life.pid, signal.SIGTERM)

    def _ended(self, command: str, code: int) -> None:
        assert self._life is not None
        self._codes.append(code)
        if self._stop is None:
            self.counts[command] = _counts(self._team)
        if self._was_struck and not self._is_examined:
            self._is_examined = True
            self._wrong += self._wrong_with_stop(command, code)
            if code == INTERRUPTED and not self._is_told:
                self._life = None
                return
        if code != (INTERRUPTED if self._is_told else 0):
            said = self._life.said.read_text()
            self._wrong.append(f"{command} ended with {code}: {said[-1500:]}")
            self._left = [command]
        self._left.pop(0)
        self._life = None

    # --- after the request ---

    def _wrong_with_stop(self, command: str, code: int) -> list[str]:
        """What is not as it must be right after a command that was asked to stop has ended."""
        assert self._life is not None
        text = self._life.said.read_text()
        found = ["a traceback was shown"] if "Traceback" in text else []
        found += self._broken_records()
        if holder := leases.opened(self._store).holder_words(self._team.name, BOX):
            found.append(f"the lease was not given back: {holder}")
        if code == 0:
            # It came when the last step was at work, which was let end.
            return found
        if code != INTERRUPTED:
            return [*found, f"it ended with {code}"]
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        last = lines[-1] if lines else {}
        if ((last.get("failure") or {}).get("kind"), last.get("exit_code")) != ("interrupted", INTERRUPTED):
            found.append(f"its last word is {last}")
        told = [str(line["text"]) for line in lines if line.get("event") == "result" and line.get("box") == BOX]
        # Before it works on its boxes, and after, there is nothing to say of them.
        is_at_work = (last.get("failure") or {}).get("safe") != cli.STOPPED.safe
        return found + (self._wrong_with_words(command, told) if is_at_work else [])

    def _wrong_with_words(self, command: str, told: Sequence[str]) -> list[str]:
        if not told:
            return ["nothing was said of the box"]
        sentence = told[-1]
        if command == "watch":
            return [] if "last seen" in sentence else [f"it says {sentence}"]
        is_said_absent, is_doubted = "absent" in sentence, "nobody heard" in sentence
        is_there = bool(self._rows("state"))
        if is_there and is_said_absent and not is_doubted:
            return [f"the box is there, and it says {sentence}"]
        if not is_there and not is_said_absent:
            return [f"there is no box, and it says {sentence}"]
        return [] if is_said_absent or "bills $" in sentence else [f"no price: {sentence}"]

    def _broken_records(self) -> list[str]:
        found = []
        for path in sorted((self._team / "state").rglob("*.json*")):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            for line in lines if path.suffix in (".json", ".jsonl") else []:
                try:
                    json.loads(line)
                except ValueError:
                    found.append(f"{path} is not whole: {line[:80]!r}")
        return found

    # --- in the end ---

    @property
    def _store(self) -> StateStore:
        return StateStore(str(self._team / "state"))

    def _rows(self, what: str) -> list[dict[str, Any]]:
        answer = self._market.state() if what == "state" else self._market.bill()
        return of_the(self._team, answer["instances"])

    def verdict(self) -> Verdict:
        wrong = list(self._wrong)
        if there := self._rows("state"):
            wrong.append(f"{len(there)} boxes are left")
        if (rented := len(self._rows("bill"))) != 1:
            wrong.append(f"{rented} boxes were rented")
        if not is_home(self._store, self._team):
            wrong.append("not all of it is home")
        starts = len(self._disk.lines("starts"))
        if starts != (1 if self._story == "verbs" else 2):
            wrong.append(f"it was started {starts} times")
        assert self._stop is not None
        return Verdict(self._stop, self._was_struck, tuple(self._codes), tuple(wrong))


def _counts(team: Path) -> dict[str, int]:
    path = team / "instants.json"
    return json.loads(path.read_text()) if path.exists() else {}


@dataclass
class Counted:
    """How many instants each phase of each command of an undisturbed story has."""

    folder: Path
    market: Handle
    found: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def count(self, story: str) -> None:
        case = Case(lifecycle.new_team(self.folder / f"undisturbed-{story}"), None, self.market, story)
        while not case.is_over():
            time.sleep(lifecycle.POLL_S)
        assert not case._wrong, case._wrong
        for command, counts in case.counts.items():
            for phase, count in counts.items():
                # How many rounds a loop waits for the training is the machine's business.
                self.found[story, command, phase] = max(count // 2, 1) if phase == "watch" else count


def drawn(counts: Mapping[tuple[str, str, str], int], seed: int) -> list[Stop]:
    """One instant of each phase of each command. Where a playbook is at work the request may be repeated: of ``go``
    there is one stop of either kind, of the others the seed says which."""
    draw = random.Random(seed)
    chosen = []
    for (story, command, phase), count in sorted(counts.items()):
        kinds = [False] if phase in (OPENING, "watch") else [False, True]
        for twice in kinds if story == "go" else [draw.choice(kinds)]:
            chosen.append(Stop(story, command, Instant(phase, draw.randint(1, count)), twice))
    return chosen

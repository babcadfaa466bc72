# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant rehearse``: your own inventory and run, on a marketplace on this machine that goes wrong by a script.

What must hold in the end is read again from evidence, as after a real run: results home and verified, every box that
was rented accounted for, nothing destroyed without consent.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from rich.table import Table
from rich.text import Text

from gpu_tenant import account, demo, exit_codes, go, job, rehearsal_script
from gpu_tenant.marketplace.testing import Handle, MarketplaceFailed, running_marketplace
from gpu_tenant.observation import Observation
from gpu_tenant.progress import Progress, console_for
from gpu_tenant.rehearsal_script import Script, Step
from gpu_tenant.workspace import History

DEFAULT_FOLDER = ".tenant/rehearsals"
POLL_S = 0.5
POLL_MOST_S = 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the final table: what was rehearsed or had to hold, whether it did, and what was seen of it."""

    what: str
    held: bool
    seen: str


class Clock:
    """What the decision measures its deadlines by: the clock on the wall, and what a script lets pass besides."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._passed_s

    def let_pass(self, seconds: float) -> None:
        self._passed_s += seconds


class Director:
    """Plays the steps of a script in their order, each at the first look at which its conditions hold."""

    def __init__(self, script: Script, market: Handle, progress: Progress, history: History, clock: Clock) -> None:
        self._script, self._market, self._progress, self._history = script, market, progress, history
        self._clock = clock
        self._looks = 0
        self._pulls_before_saved: int | None = None
        self.played: list[tuple[Step, str]] = []

    @property
    def is_over(self) -> bool:
        return len(self.played) == len(self._script.steps)

    def look(self, seen: Observation) -> None:
        self._looks += 1
        pulled = self._has_pulled(seen)
        if self.is_over:
            return
        step = self._script.steps[len(self.played)]
        if rehearsal_script.is_true(step.when, seen, pulled, self._looks):
            self._progress.emit("warning", f"rehearsal: {step.tell}", seen.box)
            self._play(step, seen)
            reached = f"step {seen.run.step}" if seen.run and seen.run.step is not None else seen.provider
            self.played.append((step, f"at {reached}"))
            self._looks = 0

    def _has_pulled(self, seen: Observation) -> bool:
        """Whether a pull began after a checkpoint was seen on the box: the one before may have brought none home."""
        pulls = len(self._history.lines("pull"))
        if self._pulls_before_saved is None and rehearsal_script.has_checkpoint(seen):
            self._pulls_before_saved = pulls
        return self._pulls_before_saved is not None and pulls > self._pulls_before_saved

    def _play(self, step: Step, seen: Observation) -> None:
        ((deed, options),) = step.do.items()
        number = int(seen.item.provider_id) if seen.item else 0
        if deed == "inject":
            self._market.inject(**{"instance": number, **options} if number and "call" in options else options)
        elif deed == "clear":
            self._market.clear_faults()
        elif deed == "pass_s":
            self._clock.let_pass(float(options))
        elif deed == "preempt":
            self._market.preempt(number)
        else:
            self._market.release(number)


def run(script_name: str, options: job.JobOptions, engine: str, drill: bool = False) -> int:
    """Rehearse; the exit code: 0 when every step was played and everything held.

    :param drill: before it trains, the run must go on after a kill on the box, as ``go --drill`` asks of it.
    """
    script = rehearsal_script.read(script_name)
    job.require_programs((*job.PROGRAMS, "ssh-keygen"))
    started = time.monotonic()
    folder = _new_folder(options)
    try:
        with running_marketplace(engine, state_dir=folder / "marketplace") as market:
            demo.check_engine(market)
            for fault in script.faults:
                market.inject(**fault)
            with job.opened(_bound(options, folder, market), spec_required=True) as work:
                work.leaving = lambda: [(name, demo.GONE_WITH_MARKET) for name in work.inventory.names]
                # This provider's time passes faster on purpose.
                work.observer.on_skew = lambda text: None
                _check_boxes(work)
                work.progress.emit("note", f"rehearsing {script.name}: {script.what}; its files: {folder}")
                findings = _play(work, market, script, drill)
    except MarketplaceFailed as error:
        fix = "correct the faults of the script, or see that sshd is installed; --engine chooses another engine"
        raise TenantFailure("provider", str(error), safe="it cost nothing", fix=fix) from error
    show(script, findings, options.as_json, time.monotonic() - started)
    held = all(finding.held for finding in findings)
    return exit_codes.DONE if held else exit_codes.of_kind("evidence_missing")


def _new_folder(options: job.JobOptions) -> Path:
    base = Path(options.workspace or Path.cwd() / DEFAULT_FOLDER).expanduser().resolve()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%dT%H%M%S-", time.gmtime()), dir=base))


def _bound(options: job.JobOptions, folder: Path, market: Handle) -> job.JobOptions:
    """The caller's own inventory and variables, bound to this marketplace and this folder: extra variables win over
    everything that a team can write, so that no rehearsal ever reaches a real account or the real state store."""
    key = demo.make_key(folder)
    records.write_bytes(str(folder / "api-key"), market.api_key.encode() + b"\n")
    variables: dict[str, Any] = demo.bindings_of(folder, market, key)
    # A key of the inventory would win over the file of this marketplace.
    variables["vast_api_key"] = ""
    # The run's own environment is part of what is rehearsed.
    del variables["deploy_env"]
    path = folder / "bindings.json"
    records.write_bytes(str(path), json.dumps(variables, sort_keys=True).encode())
    inventories = [*options.inventories]
    extra_vars = (*options.extra_vars, f"@{path}")
    workspace = str(folder / "runner")
    return replace(options, inventories=inventories, extra_vars=extra_vars, workspace=workspace)


def _check_boxes(work: job.Job) -> None:
    others = [box.name for box in work.inventory.boxes if box.text("platform_driver") != "vast"]
    if others:
        raise TenantFailure(
            "config",
            f"the marketplace stands for vast, and these boxes are rented elsewhere: {', '.join(others)}",
            safe="nothing was started",
            fix="limit the rehearsal to boxes of the group vast",
        )


def _play(work: job.Job, market: Handle, script: Script, drill: bool) -> list[Finding]:
    settings = go.GoOptions(
        pull_every_s=script.pull_every_s,
        poll_s=POLL_S,
        poll_most_s=POLL_MOST_S,
        deadline_s=float(work.spec["deadline_s"]) + script.passes_s,
        drill=drill,
    )
    clock = Clock()
    driver = go.Go(work.runner, work.observer, work.spec, settings, work.progress, work.history, clock)
    director = Director(script, market, work.progress, work.history, clock)
    driver.on_look = director.look
    ended = Finding("the run came home by itself", True, f"run {work.spec['id']}")
    try:
        driver.run()
    except TenantFailure as failure:
        if failure.kind == "interrupted":
            raise
        ended = replace(ended, held=False, seen=str(failure))
    market.clear_faults()
    host = work.inventory.boxes[0]
    store = StateStore(host.required("tenant_state_dir"))
    drawn = account.draw_up(store, work.project, work.spec, work.history, work.observer.client(host.name))
    return [*_steps(script, director), ended, *findings(script, drawn, work.observer.client(host.name))]


def _steps(script: Script, director: Director) -> list[Finding]:
    told = [Finding(f"fault from the start: {fault.get('kind')}", True, "") for fault in script.faults]
    told += [Finding(step.tell, True, seen) for step, seen in director.played]
    missed = script.steps[len(director.played) :]
    return told + [Finding(step.tell, False, f"never came up: {dict(step.when)}") for step in missed]


def findings(script: Script, drawn: account.Account, client: Any) -> list[Finding]:
    """What had to hold, by evidence that was read again."""
    rented = [story for story in drawn.boxes if story.provider_id]
    destroyed = [story for story in rented if story.destroyed_at and story.rule != "virgin"]
    billing = {str(row["id"]) for row in client.list_instances()}
    strays = sorted(billing - {story.provider_id for story in rented})
    resumed = max(drawn.resumed_from.values(), default=0)
    found = [
        Finding("results are home and verified", drawn.verified, "; ".join(drawn.unverified) or drawn.where),
        Finding("every box that bills is on record", not strays, f"{len(billing)} bill; strangers: {strays or 'none'}"),
        Finding(
            "nothing was destroyed without consent", not destroyed, _names(destroyed) or "nothing but virgin boxes"
        ),
    ]
    expect = script.expect
    if "interruptions" in expect:
        count = len(drawn.interruptions)
        found.append(Finding(f"{expect['interruptions']} interruptions", count == expect["interruptions"], str(count)))
    if "resumed" in expect:
        text = f"step {resumed}" if resumed else "from the beginning"
        found.append(Finding("training went on from a checkpoint", (resumed > 0) is bool(expect["resumed"]), text))
    if "most_boxes" in expect:
        most = int(expect["most_boxes"])
        found.append(Finding(f"at most {most} boxes were rented", len(rented) <= most, _names(rented)))
    if "least_machines" in expect:
        machines = {str(story.machine_id) for story in rented}
        wanted = int(expect["least_machines"])
        found.append(
            Finding(f"at least {wanted} machines were used", len(machines) >= wanted, ", ".join(sorted(machines)))
        )
    return found


def _names(stories: Sequence[account.BoxStory]) -> str:
    return ", ".join(f"{story.provider_id} (g{story.generation})" for story in stories)


def show(script: Script, found: Sequence[Finding], as_json: bool, wall_s: float) -> None:
    held = all(finding.held for finding in found)
    if as_json:
        told = [vars(finding) for finding in found]
        line = {"event": "rehearsal", "script": script.name, "held": held, "findings": told, "wall_s": round(wall_s, 1)}
        click.echo(json.dumps(line, sort_keys=True))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("rehearsed", "held", "seen"):
        table.add_column(column, overflow="fold")
    for finding in found:
        table.add_row(finding.what, "yes" if finding.held else "NO", Text(finding.seen))
    console = console_for(sys.stdout)
    console.print(table)
    verdict = "everything held" if held else "NOT everything held"
    console.print(Text(f"\n{script.name}: {verdict} ({wall_s:.0f} s)", style="bold green" if held else "bold red"))

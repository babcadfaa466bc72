# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What every verb needs before it starts: the boxes, the folder it works in, and one way to stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import hosts, lease_holding, left_behind, play_deadlines
from gpu_tenant.interrupts import FINISH_STEP_S, Interrupts
from gpu_tenant.narrate import Narrator
from gpu_tenant.observe import Observer
from gpu_tenant.playbooks import Outcome, PlaybookRunner, parse_extra_vars
from gpu_tenant.progress import Progress, View, view_for
from gpu_tenant.workspace import DEFAULT_FOLDER, History, Session, Workspace

PROGRAMS = ("ssh", "ssh-keyscan", "rsync")


@dataclass(frozen=True)
class JobOptions:
    """What the command line says about boxes and folders. ``run`` is the path of a run spec or empty."""

    limit: str
    inventories: Sequence[str] = ()
    extra_vars: Sequence[str] = ()
    run: str = ""
    workspace: str = ""
    as_json: bool = False


@dataclass
class Job:
    """One invocation at work on some boxes."""

    options: JobOptions
    inventory: hosts.Inventory
    project: str
    workspace: Workspace
    progress: Progress
    interrupts: Interrupts
    narrator: Narrator
    runner: PlaybookRunner
    observer: Observer
    history: History
    spec: Mapping[str, Any] = field(default_factory=dict)
    # How each box stands after a request to stop, (box, sentence); by default all are looked at once more.
    leaving: Callable[[], Iterable[tuple[str, str]]] | None = None

    def look_again(self, names: Sequence[str] = ()) -> list[tuple[str, str]]:
        """How boxes stand now, all or ``names``: (box, sentence)."""
        boxes = [box for box in self.inventory.boxes if not names or box.name in names]
        return left_behind.told(boxes, self.observer, str(self.spec.get("id") or ""))

    @contextlib.contextmanager
    def telling_what_is_left(self) -> Iterator[None]:
        """Whoever asked to stop hears how each box stands, whatever was at work."""
        try:
            yield
        except TenantFailure as failure:
            if failure.kind == "interrupted":
                for box, sentence in (self.leaving or self.look_again)():
                    self.progress.emit("result", sentence, box)
            raise

    def run_playbook(
        self,
        playbook: str,
        extra_vars: Mapping[str, Any] | None = None,
        check: bool = False,
        names: Sequence[str] = (),
    ) -> Outcome:
        """Run a playbook on all boxes of the job, or on ``names``; the run spec's path goes along when there is one."""
        self.interrupts.check()
        self.narrator.begin()
        variables = dict(extra_vars or {})
        if self.spec:
            variables["tenant_run"] = self.spec["source"]
        deadline_s = play_deadlines.for_all_s(playbook, self.inventory.boxes, self.spec)
        return self.runner.run(
            playbook, tuple(names) or self.inventory.names, variables, check=check, deadline_s=deadline_s
        )


def require_programs(names: Sequence[str] = PROGRAMS) -> None:
    """TenantFailure (``config``) naming the programs that are not installed here."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise TenantFailure(
            "config",
            f"not installed here: {', '.join(missing)}",
            safe="nothing was started",
            fix="install the OpenSSH client and rsync (Debian: apt-get install openssh-client rsync)",
        )


def read_spec(options: JobOptions, inventory: hosts.Inventory, required: bool) -> Mapping[str, Any]:
    """The run spec that the command line or else the inventory names; empty when none is named and none required."""
    path = options.run or parse_extra_vars(options.extra_vars).get("tenant_run", "")
    if not path:
        named = {box.text("tenant_run") for box in inventory.boxes}
        path = named.pop() if len(named) == 1 else ""
    if not path and required:
        raise TenantFailure(
            "config", "no run spec was named", safe="nothing was started", fix="give the path of a run spec"
        )
    if not path or not (required or os.path.isfile(path)):
        return {}
    return load_run_spec(os.path.expanduser(path))


@contextlib.contextmanager
def opened(
    options: JobOptions,
    spec_required: bool = False,
    locked: bool = True,
    stream: TextIO | None = None,
    view: View | None = None,
    purpose: str = "",
) -> Iterator[Job]:
    """Resolve the boxes, take their locks, await what an earlier, killed run left at work.

    :param locked: False for verbs that only look.
    :param purpose: what the boxes' leases are held for from beginning to end; empty where the playbooks take their own.
    """
    if locked:
        require_programs()
    inventory = hosts.resolve(options.limit, options.inventories, _extra_vars(options))
    project = inventory.project
    spec = read_spec(options, inventory, spec_required)
    place = Workspace(options.workspace or Path.cwd() / DEFAULT_FOLDER)
    history = place.history(project, str(spec.get("id") or "none"))
    output = stream or (sys.stdout if options.as_json else sys.stderr)
    interrupts = Interrupts()
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(Session())
        if locked:
            stack.enter_context(place.holding(project, inventory.names))
        progress = stack.enter_context(Progress(view or view_for(output, options.as_json)))
        _read_newer(inventory.boxes, progress, act=locked)
        if locked:
            stack.enter_context(interrupts.installed())
        interrupts.on_first = lambda: progress.emit("warning", _STOPPING)
        narrator = Narrator(progress, history)
        runner = PlaybookRunner(
            workspace=place,
            inventory=inventory,
            project=project,
            sources=options.inventories,
            extra_args=_extra_vars(options),
            control_dir=str(session.folder),
            interrupts=interrupts,
            watch=narrator,
        )
        observer = Observer(inventory.boxes, str(session.folder), remembers=locked)
        observer.on_skew = lambda text: progress.emit("warning", text)
        job = Job(options, inventory, project, place, progress, interrupts, narrator, runner, observer, history, spec)
        if locked:
            stack.enter_context(job.telling_what_is_left())
            place.end_orphans(project, inventory.names, lambda text: progress.emit("note", text), interrupts.wait)
        if purpose:
            # After the orphans: they hold the lease of the runner that was killed.
            runner.lease_nonce = stack.enter_context(lease_holding.holding(inventory.boxes, purpose))
        yield job


def _read_newer(boxes: Sequence[hosts.BoxHost], progress: Progress, act: bool) -> None:
    """What a newer version wrote is said to who only looks, and refused to who would act: no act could be recorded."""
    for state_dir in sorted({box.text("tenant_state_dir") for box in boxes} - {""}):
        journal = Journal(StateStore(state_dir))
        if note := journal.read().note:
            if act:
                raise journal.newer("nothing was begun; what trains on the boxes goes on by itself")
            progress.emit("warning", note)


_STOPPING = f"stopping after this step (at most {FINISH_STEP_S:.0f} s); once more stops at once"


def _extra_vars(options: JobOptions) -> tuple[str, ...]:
    """The caller's extra variables; the path of the run spec goes along so that templates can use it."""
    if not options.run:
        return tuple(options.extra_vars)
    return (*options.extra_vars, f"tenant_run={os.path.abspath(os.path.expanduser(options.run))}")

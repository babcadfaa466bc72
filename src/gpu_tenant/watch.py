# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant watch``: look at all boxes, decide for each, act by playbooks, record, and again.

One playbook per box at a time, boxes beside each other. Everything a decision goes by is read again from the provider,
the boxes and the journal, so that a watch which was killed at any instant goes on where it was.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant import (
    candidates,
    decide,
    decide_together,
    exit_codes,
    fleet,
    left_candidate,
    metrics,
    money_ladder,
    node_team,
    verdicts,
    watch_trouble,
)
from gpu_tenant.acts import Acts
from gpu_tenant.alerts import Alerts
from gpu_tenant.clock_alarms import ClockAlarms
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer, as_failure, refuse_blindness
from gpu_tenant.playbooks import PlaybookRunner
from gpu_tenant.progress import Progress
from gpu_tenant.watched import Watched
from gpu_tenant.workspace import Workspace

DEFAULT_POLL_S = 15.0
PARALLEL = 8
# After an act that failed, the next of its kind on this box comes no sooner.
RETRY_FIRST_S = 15.0
RETRY_MOST_S = 900.0
# Danger clocks run for hours and days.
CLOCKS_EVERY_S = 60.0

Hold = Callable[[BoxHost], AbstractContextManager[object]]


@dataclass(frozen=True)
class WatchOptions:
    """:param once: one round and the acts that it asks for, then an exit code; for cron and AWX."""

    poll_s: float = DEFAULT_POLL_S
    once: bool = False
    webhook: str = ""
    metrics_file: str = ""
    parallel: int = PARALLEL


def group(
    boxes: Sequence[BoxHost], clock: Callable[[], float] = time.time, declared: Collection[str] = ()
) -> list[Watched]:
    """Boxes by the run that they work on. A run with ``candidates`` is looked after on one of them at a time; the
    boxes of a run with ``parts``, and of one that names neither, each by itself (:mod:`node_team` brings together those
    that train as one).

    :param declared: all names of the inventory, as :func:`candidates.in_spec_order` takes them.
    """
    watched: list[Watched] = []
    claimed: dict[str, Watched] = {}
    for box in boxes:
        path = box.text("tenant_run")
        mine = claimed.get(path) if path else None
        if mine is not None:
            mine.boxes.append(box)
            continue
        one = Watched([box], path, clock)
        watched.append(one)
        if one.spec.get("candidates") and not one.spec.get("parts"):
            claimed[path] = one
    for one in watched:
        one.boxes = candidates.in_spec_order(one.boxes, one.spec, declared)
    return watched


class Watch:
    """:param hold: taken around every act on a box; a lease goes here. A refusal is waited out like any failure."""

    def __init__(
        self,
        runner: PlaybookRunner,
        observer: Observer,
        watched: Sequence[Watched],
        options: WatchOptions,
        progress: Progress,
        clock: Callable[[], float] = time.time,
        hold: Hold = lambda host: contextlib.nullcontext(),
    ) -> None:
        self._runner = runner
        self._observer = observer
        self._watched = list(watched)
        self._left = left_candidate.of(self._watched)
        self._teams = node_team.teams(self._watched)
        self._options = options
        self._progress = progress
        self._clock = clock
        self._hold = hold
        self._workspace: Workspace = runner.workspace
        self._acts = Acts(runner, observer, progress)
        self._memory = self._workspace.root / "watch" / f"{runner.project}.json"
        self._alerts = Alerts(options.webhook, lambda box, text: progress.emit("warning", text, box))
        self._clocks = ClockAlarms(self._alerts, self._memory.with_suffix(".clocks.json"))
        self._clocks_due = float("-inf")
        self._accounts: dict[str, dict[str, Any]] = {}
        self._acting: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=options.parallel, thread_name_prefix="act")
        self._kinds: dict[str, str] = {}
        self._told: dict[str, tuple[str, str]] = {}
        self._known = self._remembered()
        # Which rungs of which budgets people heard of in this round.
        self._told_budgets: set[tuple[str, str, str]] = set()
        self._has_looked = False
        # Of which boxes people were told that something goes wrong.
        self._troubles: set[tuple[str, str]] = set()

    def run(self) -> int:
        """Until somebody asks to stop, or one round with ``once``; the exit code.

        :raises TenantFailure: kind ``interrupted``, once no playbook of ours is at work any more.
        """
        try:
            while True:
                self._runner.interrupts.check()
                self.round()
                if self._options.once:
                    self.settle()
                    self._keep_count()
                    kinds = [*self._kinds.values(), *self._kinds_of_clocks(), *self._kinds_of_budgets()]
                    return exit_codes.of_kinds(kinds)
                self._runner.interrupts.wait(self._options.poll_s)
        finally:
            self.settle()
            self._pool.shutdown()

    def settle(self) -> None:
        """Wait for the acts at work; a request to stop reaches their playbooks by itself."""
        wait(list(self._acting.values()))
        self._reap()

    # --- one round ------------------------------------------------------------------------------------------------

    def round(self) -> list[dict[str, Any]]:
        """Look, decide, begin the acts, write down; a row per watched run."""
        self._reap()
        free = [one for one in self._watched if one.box.name not in self._acting]
        for one in free:
            with self._alone(one.box.name, "its run spec is not followed"):
                one.followed.read_if_edited(one.box.name)
        self._look(free)
        # An account that refuses us answers: its boxes are not silent, and hold up nobody's recovery.
        heard = [one for one in self._watched if one.sight.brought_up and not (one.seen and one.seen.refused)]
        outage = verdicts.outage([one.sight.silence() for one in heard])
        idle = [one for one in self._left if one.holds and one.box.name not in self._acting]
        for one in (*free, *idle):
            one.judge(outage)
        for team in self._teams:
            team.agree(free)
            self._begin_together(team)
        self._told_budgets.clear()
        for one in (*free, *idle):
            with self._alone(one.box.name, "what is decided for it cannot be told, or begun"):
                self._heed(one)
        self._read_clocks()
        rows = []
        for one in self._rented:
            with self._alone(one.box.name, "how it is cannot be shown"):
                rows.append(self.row(one))
        self._write(rows)
        return rows

    @contextlib.contextmanager
    def _alone(self, box: str, what: str) -> Iterator[None]:
        """What goes wrong in here ends nobody's watch: people are told, once until it succeeds again."""
        try:
            yield
        except Exception as error:
            if (box, what) not in self._troubles:
                self._troubles.add((box, what))
                self._progress.emit("warning", f"{what}: {as_failure(error, box).what}", box)
        else:
            self._troubles.discard((box, what))

    @property
    def _rented(self) -> list[Watched]:
        """All that is watched now: the runs, and the candidates that they are not on and that bill all the same."""
        return [*self._watched, *(one for one in self._left if one.holds and one.situation is not None)]

    def _look(self, free: Sequence[Watched]) -> None:
        # Nothing there works: they are looked at as seldom as the clocks that run for them.
        due = [one for one in self._left if one.is_left and self._clocks_are_due]
        if not free and not due:
            return
        runs = {box.name: one.run_id for one in self._watched for box in one.boxes}
        names = {box.name for one in free for box in (one.boxes[:1] if one.has_chosen else one.boxes)}
        names |= {one.box.name for one in due}
        seen = self._observer.observe(runs, sorted(names), each_alone=True)
        if not self._has_looked:
            refuse_blindness(seen.values())
            self._has_looked = True
        for one in free:
            if not one.has_chosen:
                self._choose(one, seen)
            one.take(seen[one.box.name])
        for left in self._left:
            if left.is_left and left.box.name in seen:
                left.take(seen[left.box.name])

    def _choose(self, one: Watched, seen: Mapping[str, Observation]) -> None:
        before = one.box.name
        one.choose(seen)
        if one.has_chosen:
            one.remember(self._known.get(one.box.name) or {})
        if one.box.name != before:
            self._forget(before)

    def _forget(self, name: str) -> None:
        """The run is no longer on this box: what was the matter there is over."""
        self._kinds.pop(name, None)
        self._alerts.clear(name)

    def _begin_together(self, team: node_team.Team) -> None:
        """What one playbook does on all boxes of a run that trains on them as one: nothing else is done to any of them
        meanwhile."""
        if any(one.box.name in self._acting for one in team.members):
            return
        raised = team.due(decide.BRINGING_UP)
        due = raised or team.due([decide.HARVEST])
        if not due or any(self._clock() < one.not_before for one in due):
            return
        act = (
            functools.partial(self._acts.bring_up_together, team, due)
            if raised
            else functools.partial(self._acts.harvest, due)
        )
        future = self._pool.submit(self._act, due, act)
        self._acting.update((one.box.name, future) for one in team.members)

    def _heed(self, one: Watched) -> None:
        """Tell what was decided, and begin it where it is an act on this box alone."""
        action = one.action
        assert action is not None
        self._tell(one, action)
        self._alert(one, action)
        self._tell_budget(one, action)
        idle = action.kind in (decide.WAIT, decide.FINISH, decide.GIVE_UP, decide.BILLS_ON)
        if idle or one.box.name in self._acting or self._clock() < one.not_before:
            return
        if action.kind in decide_together.JOINT and any(one in team.members for team in self._teams):
            return
        self._acting[one.box.name] = self._pool.submit(self._act, [one], functools.partial(self._perform, one))

    def _reap(self) -> None:
        for name, future in list(self._acting.items()):
            if future.done():
                del self._acting[name]
                future.result()

    # --- acting ---------------------------------------------------------------------------------------------------

    def _act(self, due: Sequence[Watched], perform: Callable[[], None]) -> None:
        """One act on the boxes that share it, in a thread of its own. A failure is told, and tried later: whatever it
        is, the others go on."""
        try:
            with contextlib.ExitStack() as held:
                for one in due:
                    one.followed.read()
                    held.enter_context(self._hold(one.box))
                perform()
        except Exception as error:
            for one in due:
                one.note_act()
                self._put_off(one, as_failure(error, one.box.name))
            return
        for one in due:
            one.note_act()
            one.note_success()

    def _put_off(self, one: Watched, failure: TenantFailure) -> None:
        if failure.kind == "interrupted":
            return
        assert one.action is not None
        pause = decide.back_off(one.failures, RETRY_FIRST_S, RETRY_MOST_S)
        one.put_off(pause)
        self._kinds[one.box.name] = failure.kind
        text = f"{one.action.kind} did not succeed: {failure.what}; again in {duration(pause)} at the soonest"
        self._progress.emit("warning", text, one.box.name, kind=failure.kind, action=one.action.kind)

    def _perform(self, one: Watched) -> None:
        before = one.box.name
        self._acts.perform(one)
        if one.box.name != before:
            self._forget(before)

    # --- telling --------------------------------------------------------------------------------------------------

    def row(self, one: Watched) -> dict[str, Any]:
        """One run on one box as plain values; None means unknown."""
        seen, now, risk = one.seen, one.situation, one.risk()
        run = seen.run if seen else None
        return {
            "project": one.project,
            "box": one.box.name,
            "run": one.run_id,
            "verdict": now.verdict.name if now else verdicts.UNREACHABLE,
            "why": now.verdict.why if now else "it was not looked at yet",
            "action": one.action.kind if one.action else decide.WAIT,
            "acting": one.box.name in self._acting,
            "generation": seen.generation if seen else 0,
            "step": run.step if run else None,
            "loss": run.loss if run else None,
            "eta_s": run.eta_s if run else None,
            "price_per_hour": seen.item.dph_total if seen and seen.item else None,
            "spent_usd": now.money.spent if now else None,
            "budget_usd": now.money.budget if now else None,
            "budget_rung": money_ladder.rung(now.money) if now else None,
            "project_spent_usd": now.money.project.spent if now else None,
            "project_budget_usd": now.money.project.budget if now else None,
            "at_risk_s": risk.seconds,
            "at_risk_usd": risk.usd,
            "rpo_s": risk.rpo_s,
            "superseded": len(seen.superseded) if seen else 0,
            "tried": vars(now.tried) if now else {},
            "countdowns": list(one.countdowns or ()),
        }

    def _tell(self, one: Watched, action: decide.Action) -> None:
        """A line when something changed, and the work at risk of what trains (the view says it seldom enough)."""
        assert one.situation is not None
        verdict = one.situation.verdict
        told = (verdict.name, action.kind)
        kind = "training" if verdict.name == verdicts.RUNNING else "wait"
        if told != self._told.get(one.box.name):
            self._told[one.box.name] = told
            kind = "note"
        elif kind == "wait":
            return
        row = self.row(one)
        text = f"{verdict.name}: {action.why}" + one.risk().text()
        self._progress.emit(kind, text, one.box.name, **{key: row[key] for key in row if key not in ("box",)})

    def _alert(self, one: Watched, action: decide.Action) -> None:
        assert one.situation is not None
        name, trouble = one.box.name, watch_trouble.of(one, action)
        if trouble is None:
            self._forget(name)
            return
        self._kinds[name] = trouble.failure or self._kinds.get(name) or "no_offer"
        verdict = one.situation.verdict.name
        self._alerts.raise_for(name, trouble.reason, trouble.text, verdict=verdict, run=one.run_id)

    def _tell_budget(self, one: Watched, action: decide.Action) -> None:
        """That the run came onto another rung of its budget: once. An alert that nobody got is raised again."""
        crossed = one.crossing
        if crossed is None:
            return
        # Boxes that share a budget were judged together, before any of them told of it.
        subject = (crossed.verb, crossed.project or one.run_id, crossed.now)
        if subject in self._told_budgets:
            return
        money = {"spent_usd": crossed.money.spent, "budget_usd": crossed.money.budget, "run": one.run_id}
        event, reason = ("alert", crossed.now) if crossed.is_up else ("cleared", crossed.was)
        # That all is spent is an alert of its own where it ends the work.
        is_told = crossed.now == money_ladder.SPENT and action.failure == "budget"
        if is_told or self._alerts.tell(event, one.box.name, reason, crossed.text(one.run_id), **money):
            self._told_budgets.add(subject)
            with self._alone(one.box.name, "that it was told cannot be noted, so it is told again"):
                one.note_crossing()

    @property
    def _clocks_are_due(self) -> bool:
        return self._clock() >= self._clocks_due

    def _read_clocks(self) -> None:
        """How long until something happens by itself to a box or to an account, now and then."""
        if not self._clocks_are_due:
            return
        self._clocks_due = self._clock() + CLOCKS_EVERY_S
        listings = self._observer.listings
        rented = self._rented
        now = next((moment for moment in (client.provider_now() for client, _rows in listings) if moment), None)
        known = self._ledgers(rented)
        for one in rented:
            # Of a box whose clocks cannot be read nobody knows how long it has.
            one.countdowns = None
            ledger = known.get(one.box.required("tenant_state_dir"))
            if ledger is not None:
                with self._alone(one.box.name, "its clocks cannot be read"):
                    one.read_clocks(ledger, now)
        paid = fleet.telling_credit(listings)
        told = fleet.account_clocks(paid)
        self._accounts = {f"account {client.account[:8]}": one for (client, _rows), one in zip(paid, told, strict=True)}
        # Money that nothing uses lasts for ever.
        money = {name: [one] if one["burn_per_hour"] != 0 else [] for name, one in self._accounts.items()}
        with self._alone("", "what was told of danger clocks cannot be kept, so it is told again"):
            self._clocks.take({one.box.name: one.countdowns for one in rented} | money)

    def _ledgers(self, rented: Sequence[Watched]) -> dict[str, fleet.Known]:
        """What is known of the boxes, by their state store; without those stores that cannot be read."""
        boxes: dict[str, list[BoxHost]] = {}
        for one in rented:
            boxes.setdefault(one.box.required("tenant_state_dir"), []).append(one.box)
        found: dict[str, fleet.Known] = {}
        for sharing in boxes.values():
            names = ", ".join(box.name for box in sharing)
            with self._alone(
                sharing[0].name, f"the records of {names} cannot be read, nor the clocks that run for them"
            ):
                found |= fleet.read(sharing, self._runner.project)
        return found

    def _kinds_of_clocks(self) -> list[str]:
        """Whose exit codes tell of clocks that are past their alarm."""
        names = {one.box.name for one in self._rented}
        return ["provider" if subject in names else "budget" for subject, _effect in self._clocks.standing]

    def _kinds_of_budgets(self) -> list[str]:
        """Of each run that is wanted, not home yet and past the warning of its budget."""
        known = [one.situation for one in self._watched if one.situation is not None and one.is_wanted]
        return ["budget" for now in known if now.money.is_near and not now.home]

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._options.metrics_file:
            with self._alone("", "the metrics cannot be written"):
                metrics.write(self._options.metrics_file, rows, self._clock(), self._accounts)
        self._keep_count()

    def _keep_count(self) -> None:
        with self._alone("", "what was counted cannot be kept for the next start"):
            known = {one.box.name: one.as_dict() for one in self._watched}
            records.write_bytes(str(self._memory), json.dumps(known, sort_keys=True).encode())

    def _remembered(self) -> Mapping[str, Any]:
        """What an earlier watch saw: without it, a watch by cron would never hear a provider say gone twice."""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._memory.read_bytes())
            return known if isinstance(known, dict) else {}
        return {}


def left_as(watched: Sequence[Watched]) -> list[tuple[str, str]]:
    """For somebody who just stopped the watch: (box, how it was last seen), and that it goes on by itself."""
    told = []
    for one in watched:
        verdict = one.situation.verdict.name if one.situation else "not looked at"
        price = one.seen.item.dph_total if one.seen and one.seen.item else None
        cost = f" at ${price:.4f} an hour" if price is not None else ""
        told.append((one.box.name, f"was last seen {verdict}{cost}; it goes on by itself, and nobody recovers it now"))
    return told

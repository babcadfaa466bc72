# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Run one playbook of the collection through ansible-runner, and say honestly how it ended.

ansible-runner keeps the whole environment in a file, switches host-key checking off, reports success when no host was
touched, and leaves ansible-playbook alive when it is killed itself. Each of these is dealt with here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import EXIT_CODES, TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.leases import NONCE_VARIABLE
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS

from gpu_tenant import exit_codes, hosts, play_deadlines, playbook_process, transfers, workspace
from gpu_tenant.interrupts import Interrupts
from gpu_tenant.one_line import one_line
from gpu_tenant.transfers import Transfer

COLLECTION = "tenant.gpu"
# The environment variable with the key of an account, by market; AWS has a chain of its own.
ACCOUNT_KEYS = {market: kind.CLIENT.KEY_VARIABLE for market, kind in MARKETS.items() if kind.CLIENT.KEY_VARIABLE}
PROGRESS_NAME = "progress.jsonl"
POLL_S = 0.2
# Of a sentence of a failure; what is longer did not come from one of our modules.
MOST_SAID = 2000
# Settings that our roles rely on, for a caller whose folder has no ansible.cfg.
_WITHOUT_CONFIG = {"ANSIBLE_PIPELINING": "True", "ANSIBLE_INJECT_FACT_VARS": "False", "ANSIBLE_FORKS": "25"}
# Enforced whatever ansible.cfg says.
_ALWAYS = {"ANSIBLE_HOST_KEY_CHECKING": "True", "ANSIBLE_RETRY_FILES_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
_ENDINGS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}


@dataclass(frozen=True)
class TaskResult:
    """How one task ended on one box. ``result`` is the module's own answer; ``status`` one of ok, failed,
    unreachable, skipped."""

    box: str
    role: str
    task: str
    action: str
    status: str
    result: Mapping[str, Any]
    ignored: bool = False

    @property
    def changed(self) -> bool:
        return self.result.get("changed") is True


@dataclass(frozen=True)
class TaskStart:
    """A task begins; ``box`` is empty when it is announced for all of them."""

    box: str
    role: str
    task: str


Watcher = Callable[[TaskStart | TaskResult | Transfer], None]


@dataclass(frozen=True)
class BoxFailure:
    box: str
    kind: str
    what: str
    task: str = ""
    safe: str = ""
    fix: str = ""


@dataclass
class Outcome:
    """How a playbook ended. ``kind`` of a failure is empty when the playbook gave none."""

    playbook: str
    status: str
    rc: int
    folder: Path
    expected: tuple[str, ...]
    processed: frozenset[str] = frozenset()
    failures: list[BoxFailure] = field(default_factory=list)
    results: list[TaskResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.rc == 0 and not self.failures

    @property
    def exit_code(self) -> int:
        return exit_codes.DONE if self.ok else exit_codes.of_kinds(failure.kind for failure in self.failures)

    def of(self, box: str, action: str) -> list[TaskResult]:
        """The results of one module on one box, in order; ``action`` without the collection's name."""
        wanted = (action, f"{COLLECTION}.{action}")
        return [result for result in self.results if result.box == box and result.action in wanted]

    def failure(self, box: str) -> BoxFailure | None:
        return next((failure for failure in self.failures if failure.box in (box, "")), None)

    def as_failure(self) -> PlaybookFailed:
        """The worst of the failures; only for an outcome that is not ``ok``."""
        return PlaybookFailed(self, max(self.failures, key=lambda failure: exit_codes.of_kind(failure.kind)))

    def raise_for_failure(self) -> None:
        """TenantFailure for the worst of the failures, when there are any."""
        if not self.ok:
            raise self.as_failure()


class PlaybookFailed(TenantFailure):
    """A playbook did not end well; ``outcome`` has the details."""

    def __init__(self, outcome: Outcome, worst: BoxFailure) -> None:
        fix = worst.fix or f"see {outcome.folder}/artifacts/{outcome.playbook}/stdout"
        super().__init__(worst.kind or "config", worst.what, box=worst.box, safe=worst.safe, fix=fix)
        self.outcome = outcome
        self.code = outcome.exit_code

    @property
    def exit_code(self) -> int:
        return self.code


@dataclass
class PlaybookRunner:
    """What all playbook runs of one invocation have in common."""

    workspace: workspace.Workspace
    inventory: hosts.Inventory
    project: str
    sources: Sequence[str] = ()
    extra_args: Sequence[str] = ()
    control_dir: str = ""
    interrupts: Interrupts = field(default_factory=Interrupts)
    watch: Watcher = lambda event: None
    # Of the lease that this process holds; empty when each playbook takes its own.
    lease_nonce: str = ""

    def run(
        self,
        playbook: str,
        boxes: Sequence[str],
        extra_vars: Mapping[str, Any] | None = None,
        check: bool = False,
        deadline_s: float = play_deadlines.OTHER_S,
    ) -> Outcome:
        """Run ``playbook`` on ``boxes``.

        :param playbook: the name of one of the collection's playbooks, or the path of a ``.yml`` file.
        :param extra_vars: small and never secret: they are in the process list.
        :param deadline_s: seconds after which ansible-playbook is killed.
        :raises TenantFailure: when it could not be started, or a stop was asked for twice.
        """
        import ansible_runner

        reference = os.path.abspath(playbook) if playbook.endswith(".yml") else f"{COLLECTION}.{playbook}"
        playbook = Path(playbook).stem
        folder = self.workspace.new_play(playbook, self.project, boxes)
        collector = _Collector(self.watch)
        reports = transfers.Reports(folder / PROGRESS_NAME)

        def look() -> bool:
            # ansible-runner asks this several times a second anyway, so the reports need no thread and no wait.
            self._pass_on(reports)
            return self.interrupts.must_abort()

        try:
            runner = ansible_runner.interface.init_runner(
                **self._settings(folder, boxes, check, deadline_s),
                playbook=reference,
                ident=playbook,
                extravars=self._extra_vars(folder, extra_vars or {}),
                event_handler=collector.handle,
                status_handler=_forget_environment(folder),
                cancel_callback=look,
            )
            self._prepare(runner.config, folder)
            runner.run()
        finally:
            # Killed at its deadline, ansible-playbook leaves its workers alive.
            playbook_process.end(str(folder / "playbook.lock"))
            workspace.remove_secrets(folder)
        self._pass_on(reports)
        return self._outcome(playbook, folder, runner, collector, tuple(boxes))

    def _pass_on(self, reports: transfers.Reports) -> None:
        for report in reports.new():
            self.watch(report)

    def _settings(self, folder: Path, boxes: Sequence[str], check: bool, deadline_s: float) -> dict[str, Any]:
        arguments = [argument for value in self.extra_args for argument in ("-e", value)]
        if check:
            arguments += ["--check", "--diff"]
        settings: dict[str, Any] = {
            "private_data_dir": str(folder),
            "project_dir": os.getcwd(),
            "limit": ",".join(boxes),
            "quiet": True,
            # Whole seconds, and none less: whoever gave what is left finds nothing left after that.
            "settings": {"pexpect_timeout": POLL_S, "job_timeout": max(math.ceil(deadline_s), 1)},
        }
        if self.sources:
            settings["inventory"] = [source if "," in source else os.path.abspath(source) for source in self.sources]
        if arguments:
            settings["cmdline"] = shlex.join(arguments)
        return settings

    def _extra_vars(self, folder: Path, extra_vars: Mapping[str, Any]) -> dict[str, Any]:
        """``extra_vars`` plus the paths of 0600 files with the account keys that the environment held."""
        named = dict(extra_vars)
        for market, variable in ACCOUNT_KEYS.items():
            key, setting = os.environ.get(variable, ""), f"{market}_api_key_file"
            if key and not any(box.text(setting) for box in self.inventory.boxes):
                path = folder / "secrets" / f"{market}-api-key"
                records.write_bytes(str(path), key.encode() + b"\n", mode=0o600)
                named[setting] = str(path)
        return named

    def _prepare(self, config: Any, folder: Path) -> None:
        """The child's environment (this process's own stays as it is) and the lock around the child."""
        environment = config.env
        for variable in ACCOUNT_KEYS.values():
            environment.pop(variable, None)
        if not self.inventory.config_file:
            for name, value in _WITHOUT_CONFIG.items():
                environment.setdefault(name, value)
        environment.update(_ALWAYS)
        if self.lease_nonce:
            environment[NONCE_VARIABLE] = self.lease_nonce
        environment[transfers.VARIABLE] = str(folder / PROGRESS_NAME)
        environment["ANSIBLE_COLLECTIONS_PATH"] = os.pathsep.join(self._collection_paths())
        if self.control_dir:
            environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = self.control_dir
        environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])
        wrapper = [sys.executable, os.path.abspath(playbook_process.__file__), str(folder / "playbook.lock")]
        config.command = wrapper + list(config.command)

    def _collection_paths(self) -> list[str]:
        """Our own collection first, so that a stale installed copy is never mixed with this runner."""
        paths = [collections_folder(), *self.inventory.collection_paths]
        return list(dict.fromkeys(paths))

    def _outcome(
        self, playbook: str, folder: Path, runner: Any, collector: _Collector, boxes: tuple[str, ...]
    ) -> Outcome:
        stats = collector.stats
        processed = frozenset(stats.get("processed") or {})
        outcome = Outcome(playbook, runner.status, runner.rc, folder, boxes, processed, results=collector.results)
        # One that came to its end tells itself how it went, although somebody has asked to stop meanwhile.
        if self.interrupts.requested and runner.status != "successful" and not collector.stats:
            what = f"the {playbook} playbook was stopped on request; what it had begun may be half done"
            raise TenantFailure("interrupted", what, safe="no result was deleted", fix="the same command continues")
        outcome.failures = list(_failures(outcome, stats, runner.status, _tail(folder, playbook)))
        return outcome


def collections_folder() -> str:
    """The folder that holds ``ansible_collections`` with this runner's own collection."""
    import ansible_collections.tenant.gpu as collection

    return str(Path(next(iter(collection.__path__))).parents[2])


class _Collector:
    """Turns ansible-runner's events into task results, and passes them on as they come."""

    def __init__(self, watch: Watcher) -> None:
        self.results: list[TaskResult] = []
        self.stats: Mapping[str, Any] = {}
        self._watch = watch

    def handle(self, event: Mapping[str, Any]) -> bool:
        """False, always: no event file is written, so nothing that a box said stays on disk by itself."""
        data = event.get("event_data") or {}
        name = event.get("event")
        if name == "runner_on_start":
            self._watch(TaskStart(str(data.get("host", "")), _role(data), str(data.get("task", ""))))
        elif name in _ENDINGS:
            self._ended(_ENDINGS[str(name)], data)
        elif name == "playbook_on_stats":
            self.stats = data
        return False

    def _ended(self, status: str, data: Mapping[str, Any]) -> None:
        answer = data.get("res")
        whole = dict(answer) if isinstance(answer, Mapping) else {}
        items = whole.get("results")
        rounds = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
        for each in rounds or [whole]:
            result = TaskResult(
                box=str(data.get("host", "")),
                role=_role(data),
                task=str(data.get("task", "")),
                action=str(data.get("task_action", "")),
                status=_status_of(each, status) if rounds else status,
                result=each,
                ignored=data.get("ignore_errors") is True,
            )
            self.results.append(result)
            self._watch(result)


def _status_of(item: Mapping[str, Any], status: str) -> str:
    """One round of a loop: it may have gone well although the loop failed."""
    if item.get("failed") is True:
        return "failed"
    if item.get("skipped") is True:
        return "skipped"
    return "ok" if status == "failed" else status


def _role(data: Mapping[str, Any]) -> str:
    return str(data.get("role") or "").rpartition(".")[2]


def _forget_environment(folder: Path) -> Callable[..., None]:
    """A status handler that removes the file with the environment before the playbook starts."""

    def handle(status: Mapping[str, Any], runner_config: Any = None) -> None:
        for path in folder.glob("artifacts/*/command"):
            path.unlink(missing_ok=True)

    return handle


def _failures(outcome: Outcome, stats: Mapping[str, Any], status: str, tail: str) -> Iterator[BoxFailure]:
    failed = set(stats.get("failures") or {})
    dark = set(stats.get("dark") or {})
    for box in sorted(failed | dark):
        yield _failure_of(box, [result for result in outcome.results if result.box == box], box in dark)
    if failed or dark:
        return
    if status == "timeout":
        yield BoxFailure("", "provider", f"the {outcome.playbook} playbook did not end in time and was killed")
    elif outcome.rc != 0:
        yield BoxFailure("", "config", f"ansible-playbook could not run {outcome.playbook}: {tail}")
    else:
        for box in sorted(set(outcome.expected) - outcome.processed):
            yield BoxFailure(box, "config", f"the {outcome.playbook} playbook never touched it: {tail}")


def _failure_of(box: str, results: Iterable[TaskResult], dark: bool) -> BoxFailure:
    """Why a box failed: its last task that counts as a failure."""
    wanted = "unreachable" if dark else "failed"
    last = next((each for each in reversed(list(results)) if each.status == wanted and not each.ignored), None)
    if last is None:
        return BoxFailure(box, "unreachable" if dark else "", "it failed without a reason")
    said = last.result.get("failure")
    if isinstance(said, Mapping) and not dark:
        texts = {name: one_line(str(said.get(name) or ""), MOST_SAID) for name in ("kind", "what", "safe", "fix")}
        # A module that ran on the box says what the box wants.
        kind = texts["kind"] if texts["kind"] in EXIT_CODES else ""
        return BoxFailure(box, kind, texts["what"], last.task, texts["safe"], texts["fix"])
    message = one_line(str(last.result.get("msg") or "no message"))
    if dark:
        fix = "the box is not given up: look at it with gpu-tenant status, then run the same command again"
        return BoxFailure(box, "unreachable", f"it did not answer in '{last.task}': {message}", last.task, fix=fix)
    return BoxFailure(box, _guessed_kind(last), f"'{last.task}' failed: {message}", last.task)


def _guessed_kind(result: TaskResult) -> str:
    """The kind of a failure that Ansible's own modules report."""
    module = result.action.rpartition(".")[2]
    if module == "assert":
        return "provider" if result.role == "teardown" else "config"
    return "config" if module == "validate_argument_spec" else ""


def _tail(folder: Path, playbook: str) -> str:
    """The last telling line of what ansible-playbook printed."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        text = (folder / "artifacts" / playbook / "stdout").read_text(encoding="utf-8", errors="replace")
        lines = [one_line(line) for line in text.splitlines()]
    telling = [line for line in lines if re.match(r"(\[?ERROR|\[ERROR|fatal|ERROR!)", line)]
    rest = [line for line in lines if line]
    return (telling or rest or ["it printed nothing"])[-1]


def parse_extra_vars(values: Sequence[str]) -> dict[str, str]:
    """The ``KEY=VALUE`` pairs among extra variables; JSON and ``@file`` forms are left to Ansible."""
    pairs: dict[str, str] = {}
    for value in values:
        if value.startswith(("@", "{", "[")):
            with contextlib.suppress(ValueError):
                found = json.loads(value)
                pairs.update({str(key): str(item) for key, item in found.items()} if isinstance(found, dict) else {})
            continue
        for word in shlex.split(value):
            key, equals, text = word.partition("=")
            if equals:
                pairs[key] = text
    return pairs

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Look at boxes without touching them: the provider's list, and the supervisor's word over one pooled connection.

Observing is not a playbook, because starting one costs more than the look. A witness that cannot be reached is
reported as unreachable; nothing here ever says "gone".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.endpoint import check_endpoint
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS, check_driver, client_of
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import RentalAccount
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box, current_and_superseded
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant import clock_skew
from gpu_tenant.hosts import BoxHost
from gpu_tenant.job_view import JobView, is_job
from gpu_tenant.one_line import one_line
from gpu_tenant.question import NO_SUPERVISOR, Asked, status_question

API_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 30.0
# What a shell ends with when the interpreter is not there, or cannot be run.
_NO_PYTHON = (126, 127)
_PARALLEL = 16
_NOT_OPENED = "no connection was opened"


@dataclass(frozen=True)
class RunView:
    """A run as the supervisor reports it. Numbers are None when the trainer does not write them."""

    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    steps_per_s: float | None = None
    eta_s: float | None = None
    attempt: int | None = None
    resumed_from: int | None = None
    reason: str = ""
    # Its class, of a run that failed.
    failure: str = ""
    liveness: str = ""
    # What it waits for where a batch system gives the turns; empty where it does not wait.
    waits_for: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """One look at one box. ``provider`` is the provider's word, or ``unreachable``; ``warnings`` its supervisor's.

    ``absent`` is said only when the list lacks the box and every id on record is denied by its own item as well.
    What the provider says is no older than ``asked_at``. ``refused`` is why it was not asked at all, where waiting does
    not mend that: a key that is not taken, a record that cannot be read.
    """

    box: str
    at: str
    provider: str
    item: Box | None = None
    superseded: tuple[Box, ...] = ()
    contact: str = "not_tried"
    run: RunView | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    zero_gpu: bool = False
    # Of the box, as its supervisor last measured it: memory, disk, gpu.
    health: Mapping[str, Any] = field(default_factory=dict)
    # The batch job that its supervisor is.
    batch: Mapping[str, Any] = field(default_factory=dict)
    asked_at: str = ""
    refused: TenantFailure | None = None
    # In place of a box, on a platform that has none.
    job: JobView | None = None

    @property
    def generation(self) -> int:
        return self.item.generation if self.item else 0

    @property
    def run_state(self) -> str:
        return self.run.state if self.run else ""


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom a box is reached; ``alias`` is the name that its pinned key goes by."""

    host: str
    port: int
    user: str
    alias: str


# What one box, its account or its records can do to a look, and what concerns no other box.
UNREADABLE = (TenantFailure, records.RecordError, UnsafeName, OSError)
# A client of one of the markets.
Client = Any


class Observer:
    """Looks at boxes.

    :param control_dir: a short folder for the sockets of connections it keeps; empty keeps none.
    :param remembers: writes a record for a box of ours that the store does not know; for verbs, and not for who looks.
    """

    def __init__(self, boxes: Sequence[BoxHost], control_dir: str, remembers: bool = False) -> None:
        self._boxes = {box.name: box for box in boxes}
        self._control_dir = control_dir
        self.remembers = remembers
        self._clients: dict[tuple[str, str], Client] = {}
        # What the accounts listed at the last look at them.
        self.listings: list[tuple[Client, list[Box]]] = []
        # Told once of each account whose clock is not ours.
        self.on_skew: Callable[[str], None] = lambda text: None
        self._skewed: set[str] = set()

    def client(self, box: str) -> Client:
        """The API client of the account that a box is rented with.

        :raises TenantFailure: kind ``config`` when there is no usable key.
        """
        host = self._boxes[box]
        driver = driver_of(host)
        try:
            made = client_of(driver, host.text, timeout_s=API_TIMEOUT_S, retry_for_s=API_TIMEOUT_S)
        except TenantFailure as failure:
            failure.box = box
            raise
        return self._clients.setdefault((driver, made.account), made)

    def account(self, box: str, read_only: bool = True) -> RentalAccount[Any]:
        """The account that a box is rented with, as the box's own state store knows it."""
        host = self._boxes[box]
        store = StateStore(host.required("tenant_state_dir"))
        return MARKETS[driver_of(host)](self.client(box), store, read_only=read_only)

    def observe(
        self,
        run_id: str | Mapping[str, str] = "",
        names: Sequence[str] = (),
        each_alone: bool = False,
        ready: bool = False,
    ) -> dict[str, Observation]:
        """Look at all boxes, or at ``names``.

        :param run_id: the run that supervisors are asked for, or one for each box; empty for all runs.
        :param each_alone: what waiting does not mend at one box or account is told there, as ``refused``, and the
            others are looked at; otherwise it is raised.
        :param ready: take the answer that a supervisor keeps ready, some seconds old; only to show, never to decide.
        :raises TenantFailure: kind ``config``, unless ``each_alone``.
        """
        runs = {name: run_id if isinstance(run_id, str) else run_id.get(name, "") for name in self._boxes}
        asked = {name: Asked(run, ready) for name, run in runs.items()}
        wanted = [self._boxes[name] for name in names or self._boxes]
        answers: dict[int, list[Box] | TenantFailure] = {}
        asked_at = records.utc_now()
        listed = {host.name: self._listed(host, answers) for host in wanted}
        whole = [(client, answers.get(id(client))) for client in self._clients.values()]
        self.listings = [(client, rows) for client, rows in whole if isinstance(rows, list)]
        self._compare_clocks()
        with ThreadPoolExecutor(max_workers=min(_PARALLEL, max(len(wanted), 1))) as pool:
            looks = [pool.submit(self._look_alone, host, listed[host.name], asked[host.name]) for host in wanted]
            seen = [replace(look.result(), asked_at=asked_at) for look in looks]
        refused = next((one.refused for one in seen if one.refused is not None), None)
        if refused is not None and not each_alone:
            raise refused
        return {one.box: one for one in seen}

    def _compare_clocks(self) -> None:
        for client, _rows in self.listings:
            text = clock_skew.words(client.provider_now(), time.time())
            if text and client.account not in self._skewed:
                self._skewed.add(client.account)
                self.on_skew(text)

    def _listed(self, host: BoxHost, answers: dict[int, list[Box] | TenantFailure]) -> list[Box] | TenantFailure | None:
        """What the box's account lists, or why that is not known; each account is asked once. None: no driver."""
        try:
            if not driver_of(host):
                return None
            client = self.client(host.name)
            if id(client) not in answers:
                answers[id(client)] = _list(self.account(host.name))
            return answers[id(client)]
        except UNREADABLE as error:
            return as_failure(error, host.name)

    def _look_alone(self, host: BoxHost, listed: list[Box] | TenantFailure | None, asked: Asked) -> Observation:
        try:
            return self._look(host, listed, asked)
        except UNREADABLE as error:
            failure = as_failure(error, host.name)
            refused = failure if failure.kind == "config" else None
            return Observation(host.name, records.utc_now(), "unreachable", problem=str(failure), refused=refused)

    def _look(self, host: BoxHost, listed: list[Box] | TenantFailure | None, asked: Asked) -> Observation:
        at = records.utc_now()
        if is_job(host):
            from gpu_tenant import cluster_jobs

            # No watch of boxes concludes anything from it.
            return Observation(host.name, at, "unknown", job=cluster_jobs.look(host))
        if isinstance(listed, TenantFailure):
            raise listed
        if listed is None:
            return self._ask(host, Observation(host.name, at, "running"), static_endpoint(host), asked)
        item, superseded = current_and_superseded(listed, host.required("tenant_project"), host.name)
        if item is None:
            item = self._unlisted(host)
        if item is None:
            return Observation(host.name, at, "absent")
        if self.remembers:
            self._remember(host, [item, *superseded])
        seen = Observation(host.name, at, item.state, item, tuple(superseded), problem=item.endpoint_problem)
        if item.state != "running" or not item.host:
            return seen
        alias = f"{host.name}.g{item.generation}"
        return self._ask(host, seen, Endpoint(item.host, item.port, item.user, alias), asked)

    def _remember(self, host: BoxHost, boxes: Iterable[Box]) -> None:
        """Records of boxes that have none: the store was lost. Before a create is sent there is one."""
        account = self.account(host.name, read_only=False)
        for box in boxes:
            # What a damaged one hides is told by whoever needs it.
            with contextlib.suppress(records.RecordError):
                if account.store.read_box(host.required("tenant_project"), host.name, box.generation) is None:
                    account.remember(box)

    def _unlisted(self, host: BoxHost) -> Box | None:
        """The box by its own item, where the list lacks it and our records know it: a list may be partial or empty."""
        store = StateStore(host.required("tenant_state_dir"))
        record = store.rented_box(host.required("tenant_project"), host.name)
        if not record:
            return None
        account = self.account(host.name)
        row = account.client.get_instance(str(record["provider_id"]))
        box: Box | None = account.to_box(row) if row is not None else None
        return box if box is not None and str(box.stamp) == record.get("stamp") else None

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, asked: Asked) -> Observation:
        known_hosts = known_hosts_of(host)
        if not is_pinned(host, endpoint):
            return _with(seen, "unpinned", problem="its host key is not pinned yet")
        command = [*ssh_command(host, endpoint, known_hosts, self._control_dir), status_question(host, asked)]
        try:
            done = run_ssh(command)
        except subprocess.TimeoutExpired:
            return _with(seen, "unreachable", problem=f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
        return _read_answer(seen, done, asked.run_id)

    def machine(self, name: str) -> Box | None:
        """The machine that is rented as this box, by the provider's word; None when list and item deny it.

        :raises TenantFailure: the provider does not say.
        """
        host = self._boxes[name]
        listed = _list(self.account(name))
        if isinstance(listed, TenantFailure):
            if listed.kind == "config":
                raise listed
            what, fix = str(listed), "try again in a minute"
            raise TenantFailure("provider", what, box=name, safe="nothing was changed", fix=fix)
        item, _superseded = current_and_superseded(listed, host.required("tenant_project"), name)
        return item if item is not None else self._unlisted(host)

    def endpoint(self, name: str) -> Endpoint:
        """Where a box can be reached now, by the provider's word.

        :raises TenantFailure: it is not there, does not run, or was never brought up by us.
        """
        host = self._boxes[name]
        if not driver_of(host):
            return static_endpoint(host)
        item = self.machine(name)
        if item is None or item.state != "running" or not item.host:
            what = "is not rented" if item is None else f"is {item.state}" if item.state != "running" else "has no port"
            fix = f"bring it up: gpu-tenant provision -l {name}"
            raise TenantFailure("unreachable", f"the box {what}", box=name, safe="nothing was changed", fix=fix)
        found = Endpoint(item.host, item.port, item.user, f"{name}.g{item.generation}")
        if not is_pinned(host, found):
            fix = f"pin it by provisioning the box: gpu-tenant provision -l {name}"
            raise TenantFailure("unreachable", "its host key is not pinned yet", box=name, safe=_NOT_OPENED, fix=fix)
        return found


def refuse_blindness(seen: Iterable[Observation]) -> None:
    """Who can look at nothing at all was told wrong: the first reason why, as it was met."""
    refused = [one.refused for one in seen]
    if refused and refused[0] is not None and all(refused):
        raise refused[0]


def driver_of(host: BoxHost) -> str:
    """The market that a box is rented on; empty for a box that no API knows.

    :raises TenantFailure: kind ``config`` for one that this version does not have.
    """
    driver = host.text("platform_driver")
    check_driver(driver, host.name)
    return driver


def _list(account: RentalAccount[Any]) -> list[Box] | TenantFailure:
    """The account's boxes, or why they are not known."""
    try:
        return account.listed()
    except TenantFailure as failure:
        return failure


def as_failure(error: Exception, box: str) -> TenantFailure:
    """One of :data:`UNREADABLE` as a failure that speaks."""
    if isinstance(error, TenantFailure):
        return error
    fix = "mend or move away what is named; the records are in tenant_state_dir"
    return TenantFailure("config", str(error), box=box, safe="nothing was changed", fix=fix)


def _with(seen: Observation, contact: str, run: RunView | None = None, problem: str = "") -> Observation:
    return Observation(seen.box, seen.at, seen.provider, seen.item, seen.superseded, contact, run, problem)


def known_hosts_of(host: BoxHost) -> str:
    return StateStore(host.required("tenant_state_dir")).known_hosts_path(host.name)


def is_pinned(host: BoxHost, endpoint: Endpoint) -> bool:
    """Whether we hold a key to know the box by. A box that a person wrote down is ssh's own affair."""
    if not host.text("platform_driver"):
        return True
    try:
        lines = Path(known_hosts_of(host)).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(endpoint.alias in line.split(" ", 1)[0].split(",") for line in lines)


def _pinned_alias(host: BoxHost, known_hosts: str) -> str:
    """The name that the newest key of a box is pinned under; its own name while none is."""
    try:
        lines = Path(known_hosts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return host.name
    names = [name for line in lines for name in line.split(" ", 1)[0].split(",")]
    generations = [
        int(name.rpartition(".g")[2]) for name in names if re.fullmatch(rf"{re.escape(host.name)}\.g\d+", name)
    ]
    return f"{host.name}.g{max(generations)}" if generations else host.name


def run_ssh(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """The end of an ssh command. ``subprocess.TimeoutExpired`` where the box is silent for too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise TenantFailure("config", "ssh is not installed here", fix="install the OpenSSH client") from error


def ssh_command(host: BoxHost, endpoint: Endpoint, known_hosts: str, control_dir: str) -> list[str]:
    """The ssh command line for a box, without the remote command: pinned key, no prompts, bounded, pooled."""
    address, port, user = check_endpoint(endpoint.host, endpoint.port, endpoint.user)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_TIMEOUT_S,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
        "TCPKeepAlive": "yes",
        "LogLevel": "ERROR",
    }
    if control_dir:
        socket = hashlib.sha256(f"{user}@{address}:{port}/{endpoint.alias}".encode()).hexdigest()[:16]
        options |= {"ControlMaster": "auto", "ControlPersist": 60, "ControlPath": f"{control_dir}/o{socket}"}
    if host.text("platform_driver"):
        options |= {
            "HostKeyAlias": endpoint.alias,
            "UserKnownHostsFile": f'"{known_hosts}"',
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
        }
    command = ["ssh", "-C"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    if not host.text("platform_driver"):
        # The profile names the box without its generation as long as box_locate has not told of it.
        plain, pinned = f"HostKeyAlias={host.name}", f"HostKeyAlias={_pinned_alias(host, known_hosts)}"
        words = shlex.split(host.text("ansible_ssh_common_args"))
        command += [pinned if word == plain else word for word in words]
    key = host.text("ansible_ssh_private_key_file")
    if key:
        command += ["-i", os.path.expanduser(key), "-o", "IdentitiesOnly=yes"]
    return [*command, "-p", str(port), "-l", user, "--", address]


def static_endpoint(host: BoxHost) -> Endpoint:
    """The endpoint of a box that a person wrote into the inventory."""
    user = host.text("ansible_user", host.text("platform_ssh_user", "root"))
    address = host.text("ansible_host", host.name)
    return Endpoint(address, int(host.text("ansible_port", "22")), user, address)


def _read_answer(seen: Observation, done: subprocess.CompletedProcess[bytes], run_id: str) -> Observation:
    error = done.stderr.decode("utf-8", "replace").strip()[-300:]
    if done.returncode == NO_SUPERVISOR:
        return _with(seen, "no_supervisor", problem="nothing is deployed on it")
    if done.returncode == 255:
        return _with(seen, "unreachable", problem=error or "ssh could not connect")
    if done.returncode in _NO_PYTHON:
        return _with(seen, "no_python", problem=error or "its interpreter is not there")
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError):
        return _with(seen, "unreachable", problem=f"its supervisor answered with {done.returncode}: {error}")
    if not isinstance(answer, dict):
        return _with(seen, "unreachable", problem="its supervisor answered with what is no status")
    answered = _with(seen, "answered", run_view(answer, run_id), problem=str(answer.get("error") or ""))
    told = answer.get("health")
    health = told if isinstance(told, Mapping) else {}
    answered = replace(answered, warnings=warnings(answer, run_id), zero_gpu=_has_lost_its_gpu(answer))
    return replace(answered, health=health, batch=batch_job(answer))


def _has_lost_its_gpu(answer: Mapping[str, Any]) -> bool:
    """The box has the driver's tool, the tool works, and it shows no card at all."""
    health = answer.get("health")
    found = health.get("gpu") if isinstance(health, Mapping) else None
    return isinstance(found, Mapping) and found.get("problem") == "" and found.get("cards") == []


def warnings(answer: Mapping[str, Any], run_id: str) -> tuple[str, ...]:
    """What the supervisor warns of: the health of the box, and progress that it cannot read."""
    health = answer.get("health")
    told = health.get("warnings") if isinstance(health, Mapping) else None
    found = [one_line(each) for each in told if isinstance(each, str)] if isinstance(told, list) else []
    run = run_view(answer, run_id)
    found += _of_batch(answer, run)
    problem = str(_leading_cell(run.raw.get("cells", [])).get("progress_problem") or "") if run else ""
    return tuple(found + ([f"progress: {one_line(problem)}"] if problem else []))


def _of_batch(answer: Mapping[str, Any], run: RunView | None) -> list[str]:
    """Of the job of a run at work: that it is suspended, that Slurm does not tell of it, or that nobody works at the
    share of a task of its array while others go on."""
    job = batch_job(answer)
    if not job or run is None or run.state != "running":
        return []
    tasks = _rows(job, "tasks")
    told: list[Mapping[str, Any]] = [job] if not tasks and _is_odd(job) else []
    told += [one for one in tasks if one.get("meaning") in ("refused", "goes_on") or _is_odd(one)]
    return [one_line(str(one.get("why") or "")) for one in told]


def _is_odd(job: Mapping[str, Any]) -> bool:
    return job.get("meaning") == "unknown" or job.get("state") in ("SUSPENDED", "STOPPED")


def batch_job(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch job that the supervisor says it is; empty where it is none."""
    job = answer.get("batch")
    return job if isinstance(job, Mapping) else {}


def run_view(answer: Mapping[str, Any], run_id: str) -> RunView | None:
    """The run in a supervisor's status, or None when it does not know the run. ``run_id`` empty takes the first."""
    told = next((run for run in _rows(answer, "runs") if run_id in ("", run.get("run_id"))), None)
    if told is None:
        return None
    run = {**told, "cells": _rows(told, "cells")}
    leading = _leading_cell(run["cells"])
    return RunView(
        state=str(run.get("state") or ""),
        step=_whole(leading.get("step")),
        steps=_whole(leading.get("steps")),
        loss=records.finite(leading.get("loss")),
        steps_per_s=records.finite(leading.get("rate")),
        eta_s=records.finite(leading.get("eta_s")),
        attempt=_whole(leading.get("attempt")),
        resumed_from=_whole(leading.get("resumed_from_step")),
        reason="; ".join(map(str, _listed(run, "blocked_by"))) or str(leading.get("why") or ""),
        failure=str(leading.get("failure") or ""),
        liveness=str(leading.get("liveness") or ""),
        waits_for=one_line(str(run.get("waits_for") or "")),
        raw=run,
    )


def _listed(told: Mapping[str, Any], name: str) -> list[Any]:
    """A list of a stranger's, or nothing where something else stands for it."""
    value = told.get(name)
    return value if isinstance(value, list) else []


def _rows(told: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in _listed(told, name) if isinstance(row, dict)]


def _leading_cell(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The cell that is at work, else the last one."""
    live = [cell for cell in cells if cell.get("state") in ("running", "verifying", "copying")]
    return (live or list(cells) or [{}])[-1]


def _whole(value: Any) -> int | None:
    number = records.finite(value)
    return None if number is None else int(number)

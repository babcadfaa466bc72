# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Look at boxes without touching them: the provider's list, and the supervisor's word over one pooled connection.

Observing is not a playbook, because starting one costs more than the look. A witness that cannot be reached is
reported as unreachable; nothing here ever says "gone".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS, check_driver, client_of
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import RentalAccount
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box, current_and_superseded
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import clock_skew
from gpu_tenant.box_ssh import (
    Endpoint,
    NoAnswer,
    is_pinned,
    known_hosts_of,
    run_ssh,
    ssh_command,
    static_endpoint,
)
from gpu_tenant.hosts import BoxHost
from gpu_tenant.job_view import is_job
from gpu_tenant.observation import Observation, with_contact
from gpu_tenant.one_line import one_line
from gpu_tenant.question import Asked, status_question
from gpu_tenant.supervisor_answer import read_answer

API_TIMEOUT_S = 20.0
_PARALLEL = 16
_NOT_OPENED = "no connection was opened"
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
        except Exception as error:
            return as_failure(error, host.name)

    def _look_alone(self, host: BoxHost, listed: list[Box] | TenantFailure | None, asked: Asked) -> Observation:
        try:
            return self._look(host, listed, asked)
        except Exception as error:
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
            record = _on_record(host)
            item = self._unlisted(host, record)
            if item is None:
                return Observation(host.name, at, "absent", denied=_identity(host, record))
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

    def _unlisted(self, host: BoxHost, record: Mapping[str, Any]) -> Box | None:
        """The box by its own item, where the list lacks it and our records know it: a list may be partial or empty."""
        if not record:
            return None
        account = self.account(host.name)
        row = account.client.get_instance(str(record["provider_id"]))
        box: Box | None = account.to_box(row) if row is not None else None
        return box if box is not None and str(box.stamp) == record.get("stamp") else None

    def _ask(self, host: BoxHost, seen: Observation, endpoint: Endpoint, asked: Asked) -> Observation:
        known_hosts = known_hosts_of(host)
        if not is_pinned(host, endpoint):
            return with_contact(seen, "unpinned", problem="its host key is not pinned yet")
        command = [*ssh_command(host, endpoint, known_hosts, self._control_dir), status_question(host, asked)]
        try:
            done = run_ssh(command)
        except NoAnswer as error:
            return with_contact(seen, "unreachable", problem=str(error))
        return read_answer(seen, done, asked.run_id)

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
        return item if item is not None else self._unlisted(host, _on_record(host))

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


def _on_record(host: BoxHost) -> dict[str, Any]:
    """The record of the machine that was rented last and not given back; empty when there is none. One that counts as
    lost is asked for again: whoever denied it may have been wrong."""
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    return store.rented_box(project, host.name) or gone_record.lost_box(store, project, host.name)


def _identity(host: BoxHost, record: Mapping[str, Any]) -> BoxIdentity | None:
    if not record:
        return None
    generation, provider_id = int(record["generation"]), str(record["provider_id"])
    return BoxIdentity(host.required("tenant_project"), host.name, generation, provider_id)


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
    except Exception as error:
        return as_failure(error, "")


def as_failure(error: Exception, box: str) -> TenantFailure:
    """One of :data:`UNREADABLE`, or an error that nobody expected, as a failure that speaks."""
    if isinstance(error, TenantFailure):
        return error
    if not isinstance(error, UNREADABLE):
        what = f"something went wrong that nobody expected ({type(error).__name__}: {one_line(str(error))})"
        fix = "see what is special about this box, its spec and its records, and report these words to the developers"
        return TenantFailure("config", what, box=box, safe="nothing was destroyed", fix=fix)
    fix = "mend or move away what is named; the records are in tenant_state_dir"
    return TenantFailure("config", str(error), box=box, safe="nothing was changed", fix=fix)

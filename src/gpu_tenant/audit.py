# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant audit``: everything that bills on every account of an inventory, and whose it is.

A stranger's machine is shown and never touched. One of ours that no inventory declares any more is stopped on request,
which keeps its disk; its end stays with the gate.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils.box.names import printable
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.gate import STOPPED_STATES
from ansible_collections.tenant.gpu.plugins.module_utils.ghosts import is_only_listed
from ansible_collections.tenant.gpu.plugins.module_utils.leftovers import Leftover
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.rental_account import STOP, RentalAccount, keeps_of
from ansible_collections.tenant.gpu.plugins.module_utils.rented_box import Box, current_and_superseded, seniority
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.vast.actions import Account
from ansible_collections.tenant.gpu.plugins.module_utils.volume_stamp import record_name
from rich.table import Table
from rich.text import Text

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import API_TIMEOUT_S, Client, Observer

OURS = "ours"
SUPERSEDED = "superseded"
ORPHAN = "orphan"
OTHER_PROJECT = "other project"
FOREIGN = "foreign"
MISSING = "missing"
# In which order they are shown: what somebody should see to comes first.
_ORDER = (ORPHAN, SUPERSEDED, MISSING, FOREIGN, OTHER_PROJECT, OURS)
_STOP_WAIT_S = 120.0
_VOLUME = record_name("")
_NOT_OURS = "not ours: never touched"
_NOBODY_S = "no stamp says whose it is: it is never touched, and bills until somebody deletes it in the console"
_LOOK_AGAIN = "one list may be partial: look again; its next provision or teardown settles it"


@dataclass(frozen=True)
class Finding:
    """One thing on an account, or one that should be there. ``per_hour``: dollars, None when the provider is silent."""

    whose: str
    kind: str
    provider_id: str
    name: str
    state: str
    per_hour: float | None
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Audit:
    """``findings`` of all accounts; ``unseen`` says, box by box, what no API could be asked about."""

    findings: tuple[Finding, ...]
    unseen: tuple[str, ...]

    def undeclared(self) -> list[Finding]:
        return [each for each in self.findings if each.whose in (ORPHAN, SUPERSEDED)]

    def words(self) -> str:
        found = self.undeclared()
        known = sum(each.per_hour or 0.0 for each in found)
        silent = sum(each.per_hour is None for each in found)
        price = f"${known:.4f} an hour" + (f" and {silent} of unknown price" if silent else "")
        if not found:
            return "nothing of ours bills that the inventory does not declare"
        return f"{len(found)} of ours that the inventory does not count on: {price}"


class Auditor:
    """One account. ``homes`` are the projects of the inventory that rent there: the account as seen from their state
    store, and the names of their declared boxes."""

    def __init__(self, client: Client, homes: Mapping[str, tuple[RentalAccount[Any], frozenset[str]]]) -> None:
        self._client, self._homes = client, homes
        # Whose records it writes does not matter to who only reads rows.
        self._account = next(iter(homes.values()))[0]
        # Of the last look.
        self.listed: set[str] = set()

    @property
    def platform(self) -> str:
        return self._account.PLATFORM

    def findings(self) -> list[Finding]:
        boxes, beside = self._boxes(), self._account.leftovers()
        self.listed = {box.provider_id for box in boxes} | {left.id for left in beside}
        return [self._of_box(box, boxes) for box in boxes] + [self._of_leftover(left, boxes) for left in beside]

    def orphans(self) -> list[Box]:
        boxes = self._boxes()
        return [box for box in boxes if self._whose(box, boxes) == ORPHAN]

    def park(self, box: Box) -> Finding:
        """Stop an orphan, by the gate and in the journal like any other stop."""
        stamp = box.stamp
        if stamp is None:
            raise ValueError(f"instance {box.provider_id} is not ours")
        account, _names = self._homes[stamp.project]
        if account.must_stop(box):
            stopped, _passed = account.stop(box, _STOP_WAIT_S)
            box = stopped or box
        return self._of_box(box, [box])

    def _boxes(self) -> list[Box]:
        boxes = map(self._account.to_box, self._client.list_instances())
        return sorted((box for box in boxes if not is_only_listed(self._client, self._store(box), box)), key=seniority)

    def _store(self, box: Box) -> StateStore | None:
        home = self._homes.get(box.stamp.project) if box.stamp else None
        return home[0].store if home else None

    def _whose(self, box: Box, boxes: Sequence[Box]) -> str:
        stamp = box.stamp
        if stamp is None:
            return FOREIGN
        if stamp.project not in self._homes:
            return OTHER_PROJECT
        if stamp.box not in self._homes[stamp.project][1]:
            return ORPHAN
        current, _superseded = current_and_superseded(boxes, stamp.project, stamp.box)
        return OURS if current and current.provider_id == box.provider_id else SUPERSEDED

    def _of_box(self, box: Box, boxes: Sequence[Box]) -> Finding:
        whose = self._whose(box, boxes)
        name = str(box.stamp) if box.stamp else printable(box.label) or "(no label)"
        price = box.storage_per_hour if box.state in STOPPED_STATES else box.dph_total
        rests = STOP in self._account.KEEPS
        return Finding(whose, "box", box.provider_id, name, box.state, price, _advice(whose, box, rests))

    def _of_leftover(self, left: Leftover, boxes: Sequence[Box]) -> Finding:
        whose, advice = FOREIGN, _NOT_OURS if isinstance(self._account, Account) else _NOBODY_S
        users = [box for box in boxes if left.box and box.provider_id == left.box]
        if left.project:
            ours = ORPHAN if left.is_lost else OURS
            whose, advice = (ours if left.project in self._homes else OTHER_PROJECT), left.note
        elif users:
            whose, advice = self._whose(users[0], boxes), f"of {self._account.THING} {left.box}"
        name, state = printable(left.name), printable(left.state)
        return Finding(whose, left.kind, left.id, name, state, left.per_hour, advice)

    def missing(self, listed: set[str]) -> list[Finding]:
        """What our records say was rented on this market and never ended, and no list of its accounts has."""
        found = []
        for project, (account, _names) in self._homes.items():
            folder = account.store.path("boxes", project)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                kind = "volume" if name.startswith(_VOLUME) else "box"
                for record in account.open_records(project, name):
                    here = str(record.get("platform") or self.platform) == self.platform
                    if here and str(record["provider_id"]) not in listed:
                        label = str(record.get("stamp") or name)
                        found.append(
                            Finding(MISSING, kind, str(record["provider_id"]), label, "not listed", None, _LOOK_AGAIN)
                        )
        return found


def _advice(whose: str, box: Box, rests: bool) -> str:
    """:param rests: whether a stop keeps its disk, where it is."""
    name = box.stamp.box if box.stamp else ""
    if whose == ORPHAN:
        again = f"declare {name} in the inventory again, then harvest and teardown"
        parks = rests and box.state not in STOPPED_STATES
        return f"{again}; --park stops it meanwhile and keeps its disk" if parks else again
    if whose == SUPERSEDED:
        return f"gpu-tenant harvest -l {name}: it is brought home, then the gate decides"
    return {FOREIGN: _NOT_OURS, OTHER_PROJECT: "for the controller of that project"}.get(whose, "")


def auditors(observer: Observer, boxes: Sequence[BoxHost], read_only: bool) -> tuple[list[Auditor], list[str]]:
    """One for each account of the inventory, and a sentence for each box that has no API to ask."""
    clients: dict[int, Client] = {}
    hosts: dict[int, dict[str, list[BoxHost]]] = {}
    unseen = []
    for host in boxes:
        if host.text("platform_driver") not in MARKETS:
            platform = host.text("platform_name", "its platform")
            unseen.append(f"{host.name}: {platform} is not audited here; look at its console for what bills")
            continue
        client, project = observer.client(host.name), host.required("tenant_project")
        clients[id(client)] = client
        hosts.setdefault(id(client), {}).setdefault(project, []).append(host)
    known = {client.account for client in clients.values()}
    found = []
    for key, client in clients.items():
        homes = {project: _home(client, each, read_only) for project, each in hosts[key].items()}
        found.append(Auditor(client, homes))
        for place in _other_places(hosts[key]):
            if place.account not in known:
                known.add(place.account)
                # No box is declared there, so that each of ours that is there is an orphan.
                found.append(
                    Auditor(place, {name: _nobody_s(place, each, read_only) for name, each in hosts[key].items()})
                )
    return found, unseen


def _other_places(homes: Mapping[str, Sequence[BoxHost]]) -> list[Client]:
    """Of one account: where else its boxes say that somebody should look."""
    boxes = [box for each in homes.values() for box in each]
    kinds = [(box, MARKETS[box.text("platform_driver")].CLIENT) for box in boxes]
    patience = {"timeout_s": API_TIMEOUT_S, "retry_for_s": API_TIMEOUT_S}
    return [
        place
        for box, kind in kinds
        for place in kind.also_at(box.text("platform_driver"), box.variables.get, **patience)
    ]


def _nobody_s(client: Client, boxes: Sequence[BoxHost], read_only: bool) -> tuple[RentalAccount[Any], frozenset[str]]:
    return _home(client, boxes, read_only)[0], frozenset()


def _home(client: Client, boxes: Sequence[BoxHost], read_only: bool) -> tuple[RentalAccount[Any], frozenset[str]]:
    verbs = boxes[0].variables.get("platform_verbs")
    keeps = keeps_of(verbs if isinstance(verbs, Mapping) else {})
    store = StateStore(boxes[0].required("tenant_state_dir"))
    kind = MARKETS[boxes[0].text("platform_driver")]
    return kind(client, store, keeps=keeps, read_only=read_only), frozenset(host.name for host in boxes)


def audit(observer: Observer, boxes: Sequence[BoxHost]) -> Audit:
    """Look at every account. TenantFailure when one does not answer: half an audit would look like a clean one."""
    watchers, unseen = auditors(observer, boxes, read_only=True)
    found = [finding for watcher in watchers for finding in watcher.findings()]
    listed: dict[str, set[str]] = {}
    for watcher in watchers:
        listed.setdefault(watcher.platform, set()).update(watcher.listed)
    # Two accounts of one project have the same records.
    lost = {each.provider_id: each for watcher in watchers for each in watcher.missing(listed[watcher.platform])}
    found += lost.values()
    found.sort(key=lambda each: (_ORDER.index(each.whose), each.name))
    return Audit(tuple(found), tuple(unseen))


def park_orphans(observer: Observer, boxes: Sequence[BoxHost]) -> tuple[list[Finding], list[TenantFailure]]:
    """Stop our own undeclared boxes; what cannot be stopped keeps none of the others."""
    parked, failures = [], []
    for watcher in auditors(observer, boxes, read_only=False)[0]:
        for box in watcher.orphans():
            try:
                parked.append(watcher.park(box))
            except TenantFailure as failure:
                failures.append(failure)
    return parked, failures


def table(found: Sequence[Finding]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("whose", "what", "id", "name", "state", "$/hour", "what to do"):
        drawn.add_column(name, overflow="fold")
    for each in found:
        price = "unknown" if each.per_hour is None else f"{each.per_hour:.4f}"
        cells = (each.whose, each.kind, each.provider_id, each.name, each.state, price, each.advice)
        drawn.add_row(*(Text(cell) for cell in cells))
    return drawn

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Between the decision and the playbooks: what ``go`` and ``watch`` decide by, and what a rung tells the playbook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import gone_record
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import decide, parking, recoveries, spending
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.sight import Sight
from gpu_tenant.verdicts import LedgerWord, verdict


@dataclass(frozen=True)
class Case:
    """One box, the run that it is wanted for, and what is seen of it."""

    host: BoxHost
    spec: Mapping[str, Any]
    sight: Sight
    seen: Observation
    ledger: LedgerWord

    @property
    def project(self) -> str:
        return self.host.required("tenant_project")


def situation(case: Case, journal: Journal, lines: Sequence[Mapping[str, Any]]) -> decide.Situation:
    """What the decision goes by, as far as provider, box and journal tell it; callers add what they alone know.

    A run that trains again closes its ladder in the journal here, so that its next loss begins at the first rung.

    :param lines: of the journal, as they are now.
    """
    now = records.utc_now()
    tried = recoveries.tried(lines, case.project, case.host.name, now)
    if tried != decide.Tried() and case.sight.trains:
        recoveries.note_training(journal, identity_of(case.project, case.seen))
        tried = decide.Tried()
    return decide.Situation(
        verdict=verdict(case.sight.provider, case.sight.box, case.ledger),
        home=case.ledger.home,
        brought_up=case.sight.brought_up,
        tried=tried,
        money=spending.of_run(case.host, case.spec, lines, now),
        raise_fits=spending.raise_fits(case.host, case.seen.item),
        replaceable=_replaceable(case),
        bound=bool(case.host.variables.get("provision_volumes")),
        computes=parking.computes(case.host, case.seen.item),
        bills_on=case.seen.item is not None and not parking.can_rest(case.host),
    )


def _replaceable(case: Case) -> bool:
    """Whether another box can be rented under this name: beside the old one where the driver deals with both, on every
    other market once the old one is gone."""
    driver = case.host.text("platform_driver")
    return driver == "vast" or (bool(driver) and case.seen.item is None)


def was_rented(store: StateStore, project: str, box: str, sight: Sight) -> bool:
    """Whether a machine of this name was rented and nobody gave it back: one that is lost since is one too, however
    often its recovery was begun and cut off."""
    return sight.brought_up or bool(store.rented_box(project, box) or gone_record.missed_box(store, project, box))


def identity_of(project: str, seen: Observation) -> BoxIdentity:
    """The machine that was seen; generation 0 and no id where there is none."""
    return BoxIdentity(project, seen.box, seen.generation, seen.item.provider_id if seen.item else "")


def begin(action: decide.Action, seen: Observation, store: StateStore, project: str, run_id: str) -> None:
    """Note in the journal that the box is brought up now, and why; and of one that is gone, that it bills no more."""
    if seen.provider == "absent" and seen.denied is not None and action.kind in decide.RUNGS:
        # Not of the newest record: another controller may have rented a machine since, and that one lives.
        gone_record.note_gone(store, seen.denied, is_lost=True)
    machine_id = seen.item.machine_id if seen.item else None
    recoveries.begin(Journal(store), identity_of(project, seen), action, run_id, seen.provider, machine_id)
    if action.kind == decide.NEXT_CANDIDATE:
        gone_record.leave(store, project, seen.box)


def note_home(hosts: Iterable[BoxHost], run_id: str) -> None:
    """The run is home: what was lost of its boxes is not recovered any more. For another run it may be."""
    for host in hosts:
        store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
        # What cannot be read here is told where it is needed.
        with contextlib.suppress(records.RecordError):
            if not gone_record.missed_box(store, project, host.name):
                continue
            if recoveries.last_run(Journal(store).lines(), project, host.name) in ("", run_id):
                gone_record.leave(store, project, host.name)


def variables_of(action: decide.Action, seen: Observation, store: StateStore) -> dict[str, Any]:
    """What the train playbook is told beyond the run: which box to leave behind, and which machines not to rent."""
    if action.kind not in decide.RENTING:
        return {}
    replaced = {"provision_replace": seen.item.provider_id} if seen.item is not None else {}
    if action.kind == decide.SAME_MACHINE:
        return replaced
    lost = [seen.item.machine_id] if seen.item and seen.item.machine_id is not None else []
    bad = recoveries.bad_machines(Journal(store).lines(), records.utc_now())
    told: dict[str, Any] = {"provision_exclude_machines": sorted({*bad, *lost})} if bad or lost else {}
    return {**told, **replaced} if action.kind == decide.NEXT_OFFER else told

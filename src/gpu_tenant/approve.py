# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant approve``: a named person's consent to one verb on one box generation."""

from __future__ import annotations

import getpass
import glob
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

VERBS = ("destroy", "stop", "recycle")
# What people call a verb, and what the gate calls it.
ALIASES = {"teardown": "destroy"}
_LIFETIME = re.compile(r"([1-9][0-9]{0,6})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Consent:
    """Who consents, why, and for how long. ``loss`` names in words what will be lost, for breaking glass."""

    approver: str
    reason: str
    ttl_s: int = approvals.DEFAULT_TTL_S
    standing: bool = False
    loss: str = ""


def give(
    store: StateStore,
    identity: BoxIdentity,
    verb: str,
    consent: Consent,
    receipts_by_run: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Write an approval; it binds to a loss, to whatever will be completely home, or to the receipts given.

    :param receipts_by_run: receipts whose digests the approval binds to, when it is neither standing nor a loss.
    """
    source = {"kind": "cli", "ref": f"{getpass.getuser()}@{socket.gethostname()}"}
    return approvals.give(
        store, identity, verb, binds(consent, receipts_by_run), consent.approver, source, consent.reason, consent.ttl_s
    )


def binds(consent: Consent, receipts_by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What an approval binds itself to."""
    if consent.loss:
        return {"kind": "loss", "loss": consent.loss}
    if consent.standing:
        return {"kind": "complete_receipt"}
    digests = {run_id: str(receipt["manifest_digest"]) for run_id, receipt in receipts_by_run.items()}
    return {"kind": "digest", "digests": digests}


def receipts_of(store: StateStore, identity: BoxIdentity) -> dict[str, dict[str, Any]]:
    """The complete receipts of a box generation by run, as they are on disk now."""
    found: dict[str, dict[str, Any]] = {}
    folder = glob.escape(store.path("receipts", identity.project))
    for path in sorted(glob.glob(os.path.join(folder, "*", f"{identity.box}.g{identity.generation}.json"))):
        receipt = records.read_record(path, "receipt")
        if receipt.get("complete") is True and receipt.get("provider_id") == identity.provider_id:
            found[str(receipt["run_id"])] = receipt
    return found


def identity_of(store: StateStore, project: str, box: str, generation: int = 0) -> BoxIdentity:
    """The box generation that the state store knows; the newest one when ``generation`` is 0.

    :raises TenantFailure: kind ``config`` when it was never rented or is gone.
    """
    number = generation or store.last_generation(project, box)
    record = store.read_box(project, box, number) if number else None
    if record is None or not record.get("provider_id"):
        which = f"generation {generation} of {box}" if generation else box
        raise TenantFailure(
            "config",
            f"{which} was never rented in project {project}, as far as {store.root} knows",
            safe="no approval was written",
            fix="see what is rented with gpu-tenant status",
        )
    if record.get("destroyed_at"):
        raise TenantFailure(
            "config",
            f"{box} g{number} was destroyed at {record['destroyed_at']}: there is nothing to approve",
            safe="no approval was written",
            fix="see what is rented with gpu-tenant status",
        )
    return BoxIdentity(project, box, number, str(record["provider_id"]))


def seconds(text: str) -> int:
    """``90s``, ``15m``, ``1h``, ``2d`` in seconds. TenantFailure for anything else."""
    match = _LIFETIME.match(text.strip())
    if match is None:
        raise TenantFailure("config", f"{text!r} is not a lifetime", fix="write for instance 15m, 1h or 2d")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def consent_to(store: StateStore, identity: BoxIdentity, verb: str, consent: Consent) -> dict[str, Any]:
    """Give an approval as a person asks for it on the command line.

    :raises TenantFailure: kind ``evidence_missing`` when there is nothing at home yet that it could bind to.
    """
    found = {} if consent.standing or consent.loss else receipts_of(store, identity)
    if not (found or consent.standing or consent.loss):
        raise TenantFailure(
            "evidence_missing",
            f"no run of g{identity.generation} is home, so there is nothing to bind an approval to",
            box=identity.box,
            safe="no approval was written",
            fix="harvest first; or consent beforehand with --standing; or name what will be lost with --loss",
        )
    return give(store, identity, ALIASES.get(verb, verb), consent, found)


def describe(approval: Mapping[str, Any]) -> str:
    """An approval in a sentence or two."""
    bound = approval["binds"]
    to = {
        "digest": f"the results at home of {', '.join(sorted(bound.get('digests', {})))}",
        "complete_receipt": "complete receipts for every run on it, whenever they are there",
        "loss": f"the loss of: {bound.get('loss')}",
    }[bound["kind"]]
    which = f"{approval['box']} g{approval['generation']} (instance {approval['provider_id']})"
    return (
        f"approval {approval['id']}: {approval['approver']} consents to {approval['verb']} {which}, bound to {to}; "
        f"used once, until {approval['expires_at']}"
    )

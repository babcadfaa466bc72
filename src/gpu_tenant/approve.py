# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant approve``: a named person's consent to one verb on one box generation."""

from __future__ import annotations

import datetime
import getpass
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals, file_locks, gate, losses
from ansible_collections.tenant.gpu.plugins.module_utils.box import left_behind, records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant.awx import Approved, Controller, Question
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observe import Observer

# What people call a verb, and what the gate calls it.
ALIASES = {"teardown": "destroy"}
_LIFETIME = re.compile(r"([1-9][0-9]{0,6})([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# An answer in AWX is meant for the box as it was when the question was asked; an old one is not.
AWX_ANSWER_HOLDS_S = 24 * 3600
AWX_STANDING_MOST_S = 7 * 24 * 3600
_LOCK_WITHIN_S = 60.0


@dataclass(frozen=True)
class Consent:
    """Who consents, why, and for how long. ``loss`` is what was shown to be lost, for breaking glass.

    ``awx`` is where AWX says that the approver consented; without it the consent was given on this machine.
    """

    approver: str
    reason: str
    ttl_s: int = approvals.DEFAULT_TTL_S
    standing: bool = False
    loss: losses.Loss | None = None
    awx: Approved | None = None


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
    bound = binds(consent, receipts_by_run)
    if consent.awx is None:
        source = {"kind": "cli", "ref": f"{getpass.getuser()}@{socket.gethostname()}"}
        return approvals.give(store, identity, verb, bound, consent.approver, source, consent.reason, consent.ttl_s)
    _refuse_long_standing(identity, consent)
    # Two jobs of one workflow may read the same answer at the same time.
    lock = file_locks.Lock(
        store.path("approvals", ".awx.lock"), "the answers of AWX", "no approval was written", _LOCK_WITHIN_S
    )
    with file_locks.held(lock):
        _refuse_used_answer(store, identity, consent.awx)
        source = consent.awx.source
        return approvals.give(store, identity, verb, bound, consent.approver, source, consent.reason, consent.ttl_s)


def _refuse_long_standing(identity: BoxIdentity, consent: Consent) -> None:
    """How long is chosen by who writes the job, and nobody who answers in AWX is shown it."""
    if consent.standing and consent.ttl_s > AWX_STANDING_MOST_S:
        what = f"a standing consent given in AWX cannot live {consent.ttl_s} s, but {AWX_STANDING_MOST_S // 86400} days"
        raise _config(identity, what, "shorten --expires and ask again later, or consent with --approver")


def _refuse_used_answer(store: StateStore, identity: BoxIdentity, awx: Approved) -> None:
    """One answer in AWX is one consent, to the generation that there was when the question was asked."""
    for approval in approvals.load_all(store):
        source = (approval.record or {}).get("source")
        if isinstance(source, Mapping) and awx.is_node_of(source):
            raise _config(
                identity, f"{awx.ref} was taken for approval {approval.approval_id} already", "ask in AWX again"
            )
    record = store.read_box(identity.project, identity.box, identity.generation) or {}
    rented, now = str(record.get("created_at") or ""), records.utc_now()
    asked = _whole_seconds(awx.asked_at)
    try:
        age = (records.parse_utc(now) - records.parse_utc(asked)).total_seconds()
    except ValueError:
        raise _config(identity, f"AWX does not say when {awx.ref} was asked", "ask in AWX again") from None
    if age > AWX_ANSWER_HOLDS_S or (rented and asked < rented):
        what = f"{awx.ref} was asked at {asked}, which is too long ago or before g{identity.generation} was rented"
        raise _config(identity, what, "ask in AWX again")


def _whole_seconds(moment: str) -> str:
    """AWX writes fractions of a second."""
    return re.sub(r"\.[0-9]+Z\Z", "Z", moment)


def _refuse_later_evidence(
    identity: BoxIdentity, receipts_by_run: Mapping[str, Mapping[str, Any]], awx: Approved
) -> None:
    """Who answered can have meant only what was at home by then."""
    try:
        answered = records.parse_utc(_whole_seconds(awx.answered_at))
    except ValueError:
        raise _config(identity, f"AWX does not say when {awx.ref} was answered", "ask in AWX again") from None
    later = [run_id for run_id, one in sorted(receipts_by_run.items()) if _verified(one, identity) > answered]
    if later:
        what = f"the receipt of {', '.join(later)} was made after {awx.ref} was answered at {awx.answered_at}"
        raise _config(identity, what, "ask in AWX again, now that these results are home")


def _verified(receipt: Mapping[str, Any], identity: BoxIdentity) -> datetime.datetime:
    try:
        return records.parse_utc(str(receipt.get("verified_at")))
    except ValueError:
        what = f"the receipt of {receipt.get('run_id')} does not say when it was made"
        raise _config(identity, what, "harvest the run again, and ask in AWX again") from None


def _config(identity: BoxIdentity, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=identity.box, safe="no approval was written", fix=fix)


def binds(consent: Consent, receipts_by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What an approval binds itself to."""
    if consent.loss is not None:
        return consent.loss.as_binds()
    if consent.standing:
        return {"kind": "complete_receipt"}
    digests = {run_id: str(receipt["manifest_digest"]) for run_id, receipt in receipts_by_run.items()}
    return {"kind": "digest", "digests": digests}


# --- breaking glass -------------------------------------------------------------------------------------------------


def loss_of(
    store: StateStore, identity: BoxIdentity, verb: str, keeps: Sequence[str], view: gate.ProviderView
) -> losses.Loss:
    """What the verb would lose by the records as they are now, copies re-read."""
    return losses.of(gate.gather(store, identity, verb, keeps, view))


def loss_id(loss: losses.Loss) -> str:
    """A short name for exactly this loss: it changes when the loss does."""
    bound = loss.as_binds()
    return records.digest({key: bound[key] for key in ("cells", "unknown")})[:12]


def agree_to_loss(
    identity: BoxIdentity, verb: str, loss: losses.Loss, named: str, ask: Callable[[str], str] | None
) -> None:
    """Go on only when the loss that was shown is the one consented to.

    :param named: the id that a person gives back, from an earlier look; empty to ask.
    :param ask: puts a question to the person at the terminal; None where there is none.
    :raises TenantFailure: kind ``config`` when nobody agreed, or the loss is not the one that was looked at.
    """
    current = loss_id(loss)
    told = "; ".join(loss.words())
    subject = f"{verb} of {identity.box} g{identity.generation} would lose: {told}"
    if named:
        if named != current:
            raise _config(identity, f"loss {named} is not what would be lost now. {subject}", f"--loss-id {current}")
        return
    if ask is None:
        raise _config(identity, f"nobody agreed to the loss yet. {subject}", f"repeat with --loss-id {current}")
    if ask(f"{subject}\nType {identity.box} to consent to this loss") != identity.box:
        raise _config(identity, "the loss was not consented to", f"to consent, type {identity.box}")


def verbs_of(platform_verbs: object) -> dict[str, list[str]]:
    """{verb: tiers that it keeps} of a platform's profile; of two opinions the one that keeps less."""
    found: dict[str, list[str]] = {}
    plans = platform_verbs.values() if isinstance(platform_verbs, Mapping) else ()
    for operation in [one for plan in plans if isinstance(plan, list) for one in plan]:
        name, keeps = str(operation.get("verb")), [str(tier) for tier in operation.get("keeps") or []]
        found[name] = [tier for tier in keeps if tier in found.get(name, keeps)]
    return found


def verb_of(word: str, platform_verbs: object, box: str) -> str:
    """The platform's own verb that a person means. TenantFailure that lists the verbs for anything else."""
    found = _meant(word, platform_verbs)
    if found:
        return found
    raise TenantFailure(
        "config",
        f"{word!r} is no verb of the platform of {box}",
        box=box,
        safe="no approval was written",
        fix=f"name one of: {', '.join(sorted(verbs_of(platform_verbs))) or ALIASES['teardown']}",
    )


def aliases_of(verb: str, platform_verbs: object) -> list[str]:
    """What people call a platform's own verb, beside its name."""
    words = (*ALIASES, *ALIASES.values())
    return [word for word in words if word != verb and _meant(word, platform_verbs) == verb]


def _meant(word: str, platform_verbs: object) -> str:
    """The platform's verb that a word means; empty when it means none, or more than one."""
    if word in verbs_of(platform_verbs):
        return word
    full_stop = platform_verbs.get("full_stop") if isinstance(platform_verbs, Mapping) else None
    last = [str(one.get("verb")) for one in full_stop] if isinstance(full_stop, list) else []
    if word in (*ALIASES, *ALIASES.values()) and len(last) <= 1:
        return last[0] if last else ALIASES.get(word, word)
    return ""


@dataclass(frozen=True)
class Request:
    """An approval as it is asked for on the command line. AWX is not asked where both of its numbers are 0."""

    verb: str
    approver: str
    reason: str
    expires: str = "1h"
    standing: bool = False
    loss: bool = False
    loss_id: str = ""
    awx_node: int = 0
    generation: int = 0
    awx_workflow: int = 0


def answer(host: BoxHost, request: Request, ask: Callable[[str], str] | None) -> tuple[dict[str, Any], list[str]]:
    """Give the approval that was asked for; also what stays on the box by the receipts that it is bound to.

    A loss is composed here, and shown before it is consented to.
    """
    store = StateStore(host.required("tenant_state_dir"))
    identity = identity_of(store, host.required("tenant_project"), host.name, request.generation)
    platform_verbs = host.variables.get("platform_verbs")
    verb, ttl_s = verb_of(request.verb, platform_verbs, host.name), lifetime(request.expires, host.name)
    loss, left, shown = None, [], None
    if request.loss:
        keeps = verbs_of(platform_verbs).get(verb, [])
        loss = loss_of(store, identity, verb, keeps, provider_view(host, identity))
        agree_to_loss(identity, verb, loss, request.loss_id, ask)
    elif not request.standing:
        shown = receipts_of(store, identity)
        left = left_on_box(shown)
        agree_to_leave(identity, verb, left, ask)
    verbs = [verb, *aliases_of(verb, platform_verbs)]
    awx = asked_in_awx(request, Question(host.name, verbs, loss_id(loss) if loss else "", request.standing))
    approver = awx.approver if awx else request.approver
    consent = Consent(approver, request.reason, ttl_s, request.standing, loss, awx)
    return consent_to(store, identity, verb, consent, shown), left


def asked_in_awx(request: Request, question: Question) -> Approved | None:
    """The answer that AWX was given to just this question; None where AWX is not asked."""
    if not (request.awx_node or request.awx_workflow):
        return None
    controller = Controller.of_environment()
    return controller.approved(request.awx_node or controller.answered_in(request.awx_workflow), question)


def provider_view(host: BoxHost, identity: BoxIdentity) -> gate.ProviderView:
    """What the provider says of the box now; ``unknown`` when it cannot be asked."""
    now = records.utc_now()
    if not host.text("platform_driver"):
        return gate.ProviderView("running", None, now)
    try:
        account = Observer([host], "").account(host.name)
        boxes = account.locate(identity.project, identity.box).all
        view = next((account.provider_view(box) for box in boxes if box.provider_id == identity.provider_id), None)
    except TenantFailure as failure:
        if failure.kind == "config":
            raise
        return gate.ProviderView("unknown", None, now)
    return view or gate.ProviderView("absent", None, now)


# --- what stays behind ----------------------------------------------------------------------------------------------


def left_on_box(receipts_by_run: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each run of which files were not pulled: they die with the box."""
    found = []
    for run_id, receipt in sorted(receipts_by_run.items()):
        totals = receipt.get("not_pulled_totals") or {}
        said = left_behind.summary(totals.get("files", 0), totals.get("bytes", 0), receipt.get("not_pulled") or [])
        found += [f"{run_id}: {said}"] if said else []
    return found


def agree_to_leave(identity: BoxIdentity, verb: str, left: Sequence[str], ask: Callable[[str], str] | None) -> None:
    """Show what was not pulled before the consent; at a terminal it is consented to by name.

    :raises TenantFailure: kind ``config`` when the person at the terminal did not consent.
    """
    if not left or ask is None:
        return
    subject = f"{verb} of {identity.box} g{identity.generation}. {'; '.join(left)}"
    if ask(f"{subject}\nType {identity.box} to consent") != identity.box:
        raise _config(identity, "it was not consented to", f"pull what is missed, or type {identity.box}")


# --- what there is to consent to ------------------------------------------------------------------------------------


def receipts_of(store: StateStore, identity: BoxIdentity) -> dict[str, dict[str, Any]]:
    """The complete receipts of a box generation by run, as they are on disk now."""
    found: dict[str, dict[str, Any]] = {}
    for path in store.receipts_of_box(identity.project, identity.box, identity.generation):
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
        how = "is gone since" if record.get("lost") else "was destroyed at"
        raise TenantFailure(
            "config",
            f"{box} g{number} {how} {record['destroyed_at']}: there is nothing to approve",
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


def lifetime(text: str, box: str) -> int:
    """How long an approval shall hold, in seconds, refused before anybody is asked anything.

    :raises TenantFailure: kind ``config`` for more than an approval may live.
    """
    ttl_s = seconds(text)
    problem = approvals.lifetime_problem(ttl_s)
    if problem:
        raise TenantFailure("config", problem, box=box, safe="no approval was written", fix=approvals.LIFETIME_FIX)
    return ttl_s


def consent_to(
    store: StateStore,
    identity: BoxIdentity,
    verb: str,
    consent: Consent,
    shown: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Give an approval as a person asks for it on the command line.

    :param shown: the receipts that the person was shown; None to take those that are there now.
    :raises TenantFailure: kind ``evidence_missing`` when there is nothing at home yet that it could bind to; ``config``
        when the receipts are not those that were shown any more.
    """
    bound = consent.standing or consent.loss is not None
    now = {} if bound else receipts_of(store, identity)
    found = now if shown is None or bound else shown
    _refuse_changed(identity, found, now)
    if not (found or bound):
        raise TenantFailure(
            "evidence_missing",
            f"no run of g{identity.generation} is home, so there is nothing to bind an approval to",
            box=identity.box,
            safe="no approval was written",
            fix="harvest first; or consent beforehand with --standing; or see what would be lost with --loss",
        )
    if consent.awx is not None and not bound:
        _refuse_later_evidence(identity, found, consent.awx)
    return give(store, identity, verb, consent, found)


def _refuse_changed(
    identity: BoxIdentity, shown: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> None:
    """A harvest may end while somebody reads the question, and the answer is to what stood there."""
    said = ("manifest_digest", "spec_sha256", "not_pulled", "not_pulled_totals")
    changed = [
        run_id
        for run_id in sorted({*shown, *now})
        if [shown.get(run_id, {}).get(name) for name in said] != [now.get(run_id, {}).get(name) for name in said]
    ]
    if changed:
        what = f"the receipt of {', '.join(changed)} changed after it was shown, so the answer was to something else"
        raise _config(identity, what, "repeat the command, and read what stays on the box now")


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

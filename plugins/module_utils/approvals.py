# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Approvals: a named person's consent to one verb on one box generation, bound to evidence, expiring, single-use.

An approval's hash goes into the journal when it is given, so an edit shows as long as the journal is there.

It is spent intent first: claimed before the verb is sent, marked used when the provider has accepted it. What a crash
leaves claimed may be taken up again by a verb whose repetition changes nothing (a destroy of that very machine), and by
no other, because nobody knows whether the verb had its effect.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import secrets
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .box import records
from .box.names import UnsafeName, check_name
from .failures import TenantFailure
from .journal import Journal
from .roster import is_sha256
from .state_store import BoxIdentity, StateStore

KINDS = ("digest", "complete_receipt", "loss")
DEFAULT_TTL_S = 24 * 3600
# Who consented a season ago does not know what is on the box now.
MOST_TTL_S = 90 * 24 * 3600
# Verbs that name one machine and end it: sending one twice does what sending it once does.
# A moment that RunPod is told when it rents a generation is told to that generation, of which there is one create.
REPEATABLE_VERBS = ("destroy", "terminate", "release", "delete", "terminate-after")
# No profile names a verb that nobody could consent to.
VERB = r"[^\W_][\w .-]{0,62}"
_VERB = re.compile(VERB + r"\Z")
LIFETIME_FIX = f"give it a lifetime above 0 s and of at most {MOST_TTL_S // 86400} days, such as 1h or 2d"
_GIVEN = "approval"
_CLAIMED = "approval-claimed"
_USED = "approval-used"
_UNBOUND = ("claimed_at", "used_at")


@dataclass(frozen=True)
class LoadedApproval:
    """An approval file and what the journal knows of it; ``problem`` is set when the file cannot be trusted."""

    path: str
    record: Mapping[str, Any] | None
    problem: str = ""
    journalled_sha256: str = ""
    journalled_used: bool = False
    journalled_claimed: bool = False

    @property
    def approval_id(self) -> str:
        return os.path.basename(self.path)[: -len(".json")]


def fingerprint(record: Mapping[str, Any]) -> str:
    """The hash of everything that a person consented to; only when it was claimed and used may change later."""
    return records.digest({key: value for key, value in record.items() if key not in _UNBOUND})


def give(
    store: StateStore,
    identity: BoxIdentity,
    verb: str,
    binds: Mapping[str, Any],
    approver: str,
    source: Mapping[str, Any],
    reason: str,
    ttl_s: int = DEFAULT_TTL_S,
    now: str | None = None,
) -> dict[str, Any]:
    """Write an approval and journal its hash; returns the record.

    :param binds: ``{kind: digest, digests: {run_id: digest}}``, ``{kind: complete_receipt}`` or
        ``{kind: loss, loss: what will be lost, in words, cells, unknown}`` as ``losses.Loss.as_binds`` says it.
    :param source: where consent came from: ``{kind: cli|awx, ref: …}``.
    :param ttl_s: seconds until it expires.
    :param now: UTC text; the present when None.
    :raises TenantFailure: for anything that would make the approval ambiguous.
    """
    _check_consent(identity, verb, binds, approver, reason, ttl_s)
    created = now or records.utc_now()
    expires = records.parse_utc(created) + datetime.timedelta(seconds=ttl_s)
    approval_id = f"ap-{secrets.token_hex(8)}"
    record = dict(
        identity.as_dict(),
        schema=records.schema("approval"),
        id=approval_id,
        verb=verb,
        binds=dict(binds),
        approver=approver,
        source=dict(source),
        reason=reason,
        created_at=created,
        expires_at=records.utc_text(expires),
        claimed_at=None,
        used_at=None,
    )
    # The hash first: an approval without its journal line would be one whose edits never show.
    Journal(store).append(
        _GIVEN, verb, approval_id=approval_id, sha256=fingerprint(record), approver=approver, **identity.as_dict()
    )
    return records.write_record(store.approval_path(approval_id), "approval", record)


def _check_consent(
    identity: BoxIdentity, verb: str, binds: Mapping[str, Any], approver: str, reason: str, ttl_s: int
) -> None:
    try:
        check_name("project", identity.project)
        check_name("box", identity.box)
        check_verb(verb)
    except UnsafeName as error:
        raise _refused(identity, str(error), "name an existing box and one of its platform's verbs") from error
    if not identity.provider_id or identity.generation < 1:
        raise _refused(identity, "the box has no provider id or generation", "approve a box that was rented")
    problem = binds_problem(binds)
    if problem:
        raise _refused(identity, problem, "bind the approval to digests, to complete receipts, or to a named loss")
    if not approver.strip():
        raise _refused(identity, "an approval needs an approver", "say who consents")
    if not reason.strip():
        raise _refused(identity, "an approval needs a reason", "say why, in a sentence")
    problem = lifetime_problem(ttl_s)
    if problem:
        raise _refused(identity, problem, LIFETIME_FIX)


def lifetime_problem(ttl_s: int) -> str:
    """Why an approval cannot live so long; empty when it can."""
    if 0 < ttl_s <= MOST_TTL_S:
        return ""
    return f"an approval cannot live {ttl_s} s; it can live {MOST_TTL_S // 86400} days ({MOST_TTL_S} s) at most"


def check_verb(verb: object) -> str:
    """``verb`` if it can be a platform's own word for an operation, in whatever script; else UnsafeName."""
    if not isinstance(verb, str) or not _VERB.match(verb):
        raise UnsafeName(f"verb {verb!r} is not a usable verb: letters, digits, blanks, '_', '.' and '-', at most 63")
    return verb


def _refused(identity: BoxIdentity, what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, box=identity.box, safe="No approval was written", fix=fix)


def binds_problem(binds: object) -> str:
    """Why ``binds`` binds to nothing; empty when it is well formed."""
    if not isinstance(binds, Mapping) or binds.get("kind") not in KINDS:
        return "the approval does not say what it is bound to"
    if binds["kind"] == "digest":
        digests = binds.get("digests")
        if not isinstance(digests, Mapping) or not all(
            isinstance(run_id, str) and is_sha256(digest) for run_id, digest in digests.items()
        ):
            return "an approval of kind digest must carry {run_id: digest}"
    if binds["kind"] == "loss":
        loss = binds.get("loss")
        if not isinstance(loss, str) or not loss.strip():
            return "an approval of kind loss must name what will be lost"
        if not isinstance(binds.get("cells"), Mapping) or not isinstance(binds.get("unknown"), list):
            return "an approval of kind loss must name what will be lost, by cell, and what is unknown"
    return ""


def load_all(store: StateStore) -> tuple[LoadedApproval, ...]:
    """Every approval file beside what the journal says of it. Damaged files are returned with their problem."""
    given: dict[str, str] = {}
    marks: dict[str, set[str]] = {_CLAIMED: set(), _USED: set()}
    for line in Journal(store).lines():
        approval_id, kind = line.get("approval_id"), line.get("kind")
        if isinstance(approval_id, str) and kind == _GIVEN:
            given.setdefault(approval_id, str(line.get("sha256")))
        elif isinstance(approval_id, str) and kind in marks:
            marks[kind].add(approval_id)
    return tuple(_load(path, given, marks) for path in store.approvals())


def _load(path: str, given: Mapping[str, str], marks: Mapping[str, set[str]]) -> LoadedApproval:
    name = os.path.basename(path)[: -len(".json")]
    try:
        record = records.read_record(path, "approval")
    except records.RecordError as error:
        return LoadedApproval(path, None, str(error))
    return LoadedApproval(path, record, "", given.get(name, ""), name in marks[_USED], name in marks[_CLAIMED])


def concerns(record: Mapping[str, Any], identity: BoxIdentity, verb: str) -> bool:
    """Whether the approval was given for this verb on this box, of whatever generation."""
    return (record.get("project"), record.get("box"), record.get("verb")) == (identity.project, identity.box, verb)


def why_unusable(approval: LoadedApproval, identity: BoxIdentity, verb: str, now: str) -> str:
    """Why this approval cannot be used for ``verb`` on this box at ``now``; empty when it can. Pure."""
    record = approval.record
    if record is None:
        return approval.problem or f"the approval {approval.path} cannot be read"
    name = f"approval {approval.approval_id}"
    if record.get("schema") != records.schema("approval"):
        return f"{name} is of an unknown version"
    if record.get("id") != approval.approval_id:
        return f"{name} carries another id, {record.get('id')!r}"
    if approval.journalled_sha256 and approval.journalled_sha256 != _fingerprint_or_none(record):
        return f"{name} was edited after it was given (its hash is not the journalled one)"
    for field, wanted in dict(identity.as_dict(), verb=verb).items():
        if record.get(field) != wanted or isinstance(record.get(field), bool):  # True equals generation 1
            return f"{name} is for {field} {record.get(field)!r}, not {wanted!r}"
    if record.get("used_at") is not None or approval.journalled_used:
        return f"{name} was used already"
    claimed = record.get("claimed_at") is not None or approval.journalled_claimed
    if claimed and verb not in REPEATABLE_VERBS:
        return f"{name} may have been used: whoever claimed it did not say how {verb} ended"
    return _why_out_of_time(name, record, now) or _prefixed(name, binds_problem(record.get("binds")))


def _why_out_of_time(name: str, record: Mapping[str, Any], now: str) -> str:
    try:
        expires, created = records.parse_utc(record["expires_at"]), records.parse_utc(record["created_at"])
        moment = records.parse_utc(now)
    except (KeyError, TypeError, ValueError):
        return f"{name} has no readable created_at and expires_at"
    if expires <= moment:
        return f"{name} expired at {record['expires_at']}"
    if created > moment + datetime.timedelta(minutes=5):
        return f"{name} was given in the future ({record['created_at']}); check the clocks"
    return ""


def _prefixed(name: str, problem: str) -> str:
    return f"{name}: {problem}" if problem else ""


def _fingerprint_or_none(record: Mapping[str, Any]) -> str | None:
    try:
        return fingerprint(record)
    except ValueError:  # NaN in a hand-edited record
        return None


def find(store: StateStore, identity: BoxIdentity, verb: str, now: str | None = None) -> list[dict[str, Any]]:
    """The approvals that may be used for ``verb`` on this box now, oldest first. Whether evidence fits is not asked."""
    moment = now or records.utc_now()
    usable = [
        dict(approval.record)
        for approval in load_all(store)
        if approval.record is not None and not why_unusable(approval, identity, verb, moment)
    ]
    return sorted(usable, key=lambda record: (record["created_at"], record["id"]))


@contextlib.contextmanager
def spending(store: StateStore, approval_id: str, now: str | None = None) -> Iterator[None]:
    """Claim an approval, run the body (which sends the verb), mark the approval used.

    When the body raises, the claim stays: see :data:`REPEATABLE_VERBS`.

    :raises TenantFailure: ``gate_refused`` when it is absent, damaged, spent, or being spent by another process.
    """
    path = store.approval_path(approval_id)
    with _held(store, approval_id):
        record = _read_unspent(path, approval_id)
        identity = {key: record.get(key) for key in ("project", "box", "generation", "provider_id")}
        if record.get("claimed_at") is None:
            Journal(store).append(_CLAIMED, str(record.get("verb")), approval_id=approval_id, **identity)
            record = records.write_record(path, "approval", dict(record, claimed_at=now or records.utc_now()))
        yield
        Journal(store).append(_USED, str(record.get("verb")), approval_id=approval_id, **identity)
        records.write_record(path, "approval", dict(record, used_at=now or records.utc_now()))


def _read_unspent(path: str, approval_id: str) -> dict[str, Any]:
    try:
        record = records.read_record(path, "approval")
    except records.RecordError as error:
        raise _unspendable(str(error)) from error
    box = str(record.get("box", ""))
    if record.get("used_at") is not None:
        raise _unspendable(f"approval {approval_id} was used already, at {record['used_at']}", box)
    if record.get("claimed_at") is not None and record.get("verb") not in REPEATABLE_VERBS:
        raise _unspendable(f"approval {approval_id} was claimed at {record['claimed_at']} and may have been used", box)
    return record


def _unspendable(what: str, box: str = "") -> TenantFailure:
    fix = "Give a new approval with gpu-tenant approve"
    return TenantFailure("gate_refused", what, box=box, safe="The verb was not sent", fix=fix)


@contextlib.contextmanager
def _held(store: StateStore, approval_id: str) -> Iterator[None]:
    """One process at a time spends an approval, for as long as its verb takes; a crash lets go of it."""
    folder = store.path("approvals")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(folder, f".{approval_id}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _unspendable(f"approval {approval_id} is being used by another process") from None
        yield
    finally:
        os.close(descriptor)

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to rented boxes, whoever rents them out: find, stop, destroy.

Only boxes that carry our stamp are ever touched. Every act is journalled, intent first, and every verb that could
lose results asks the gate here, on records re-read now.

A provider's account is a ``RentalAccount[ItsBox]`` with ``PLATFORM``, ``KEEPS``, the words ``THING`` and ``LABEL``, and
``to_box``; it adds the verbs that only it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar, Collection, Generic, Iterator, Mapping, Sequence

from . import approvals, file_locks, gate, generations, gone_record, leases, power_record
from .accrual import PRICED
from .box import records
from .failures import TenantFailure
from .ghosts import real_boxes
from .journal import Journal
from .leftovers import Leftover
from .rental_waiters import wait_for_gone, wait_for_rest, wait_for_running
from .rented_box import AnyBox, Box, current_and_superseded, local_moment, started_epoch
from .rest_client import RestClient, RestError
from .state_store import BoxIdentity, StateStore

DESTROY = "destroy"
STOP = "stop"
REBOOT = "reboot"
RECYCLE = "recycle"
# Of a line that begins the account of a machine: its provider showed it, and the store did not know it.
FOUND = "found"
VERBS = (DESTROY, STOP, REBOOT, RECYCLE)
LOCK_WAIT_S = 600.0
GONE_WAIT_S = 120.0
# Providers tell how long a box is up in minutes, so that the same start is a minute earlier or later each time.
START_SLACK_S = 120.0


@dataclass(frozen=True)
class Found(Generic[AnyBox]):
    """The boxes of one name: the one that counts, and the others that carry its stamp.

    :param only_listed: destroyed boxes that a list still shows; nothing of them counts but their generations.
    """

    current: AnyBox | None
    superseded: Sequence[AnyBox] = ()
    only_listed: Sequence[AnyBox] = ()

    @property
    def all(self) -> list[AnyBox]:
        return ([self.current] if self.current else []) + list(self.superseded)

    def is_none_but(self, passed_over: Collection[str]) -> bool:
        """Whether no box counts, those with these ids left out."""
        return self.current is None or self.current.provider_id in passed_over

    @property
    def last_generation(self) -> int:
        return max([box.generation for box in [*self.all, *self.only_listed]], default=0)


@dataclass(frozen=True)
class Passed:
    """What let an irreversible verb through."""

    provider_id: str
    generation: int
    rule: str
    approval_id: str | None = None
    approver: str = ""

    def as_result(self) -> dict[str, Any]:
        return {
            "provider_id": self.provider_id,
            "generation": self.generation,
            "rule": self.rule,
            "approval_id": self.approval_id,
            "approver": self.approver,
        }


@dataclass
class RentalAccount(Generic[AnyBox]):
    """One account, as seen from one state store.

    :param client: a ``CLIENT`` with the ``list_instances``, ``get_instance``, ``set_state`` and ``destroy_instance`` of
        :class:`.vast.api.VastClient`.
    :param keeps: what the profile says that each verb keeps; see ``KEEPS``.
    :param read_only: in check mode and for information not even our own records are written.
    :param results_dir: where results come home to; empty where nothing is rented.
    """

    client: Any
    store: StateStore
    keeps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    read_only: bool = False
    results_dir: str = ""

    # -- what a provider's account says --------------------------------------------------------------------------

    PLATFORM: ClassVar[str] = ""
    CLIENT: ClassVar[type[RestClient[Any]]]
    # What survives each verb. A profile may promise less than this, never more: a variable that said that destroy
    # keeps the disk would otherwise open the gate.
    KEEPS: ClassVar[Mapping[str, Sequence[str]]] = {}
    # The provider's words for a box, and for where its console shows the stamp.
    THING: ClassVar[str] = "instance"
    LABEL: ClassVar[str] = "label"

    def loss_of(self, box: AnyBox) -> str:
        """What ending a box costs beyond its bill, in words; empty for nothing."""
        return ""

    def leftovers(self) -> list[Leftover]:
        """What bills on the account beside boxes, whoever made it. A market that has nothing of the kind has none."""
        return []

    def volume_rates(self, project: str) -> dict[str, float | None]:
        """What the project's own volumes cost an hour, by id; a market that rents none has none."""
        return {}

    def to_box(self, row: Mapping[str, Any]) -> AnyBox:
        """The box in a row of the provider's."""
        raise NotImplementedError

    def facts_of(self, box: AnyBox) -> dict[str, Any]:
        """What the record of a box says of it that only its provider knows."""
        return {"machine_id": box.machine_id}

    def request_of(self, box: AnyBox) -> str:
        """The id of the request that a box came of, which is its own until something has: then it is no machine yet,
        and costs nothing. Empty on a market that makes machines at once."""
        return ""

    def watch(self, _box: AnyBox) -> Callable[[AnyBox], str]:
        """What judges a box that should come up, from now on: a sentence when it will not, else an empty string."""
        return lambda found: "the provider no longer has it" if found.is_leaving else ""

    def stuck(self, box: AnyBox, reason: str, fix: str = "") -> TenantFailure:
        return TenantFailure(
            "provider",
            f"{self.THING} {box.provider_id}: {reason}",
            box=box.stamp.box if box.stamp else "",
            safe=f"it was last seen {box.state} and is kept as it is",
            fix=fix or "look at it in the provider's console; harvest what it holds before it is made absent",
        )

    def was_started(self, now: AnyBox, judged: AnyBox, since: float | None) -> bool:
        """Whether a box began to run since it was judged. A time up that does not move is an old answer, no start."""
        started = started_epoch(now, self.client.provider_now())
        return _is_later(started, since) and now.uptime_s != judged.uptime_s

    @property
    def journal(self) -> Journal:
        return Journal(self.store)

    def kept_by(self, verb: str) -> list[str]:
        promised = self.keeps.get(verb)
        return [tier for tier in self.KEEPS[verb] if promised is None or tier in promised]

    # -- finding -------------------------------------------------------------------------------------------------

    def listed(self) -> list[AnyBox]:
        """The account's boxes as the provider lists them now, ours or not, without those that it only still shows."""
        return real_boxes(self.client, self.store, map(self.to_box, self.client.list_instances()))

    def locate(self, project: str, name: str) -> Found[AnyBox]:
        """The boxes of this name by the provider's list, and the store's records brought in line with them."""
        asked_at = records.utc_now()
        boxes = map(self.to_box, self.client.list_instances())
        current, superseded = current_and_superseded(boxes, project, name)
        listed = ([current] if current else []) + superseded
        there = real_boxes(self.client, self.store, listed)
        found = Found(there[0] if there else None, there[1:], [box for box in listed if box not in there])
        for box in found.all:
            self.remember(box)
            self._note_seen(box, asked_at)
        return found

    def last_generation(self, found: Found[AnyBox], project: str, name: str) -> int:
        """The highest generation of the name that was ever used, as far as anything tells. A store that was lost knows
        none, and yet no two machines of a name may have one number: their results would lie in one folder."""
        known = (self.store.last_generation(project, name), generations.at_home(self.results_dir, project, name))
        return max(found.last_generation, *known)

    def locate_surely(self, project: str, name: str, passed_over: Collection[str] = ()) -> Found[AnyBox]:
        """Like :meth:`locate`, but "there is none" is said only after a second list and every known id agree. Older
        machines of the name that neither lists nor their own items know are gone from then on.

        :param passed_over: ids of boxes that count as none: they were given back, or are to be replaced.
        """
        found = self.locate(project, name)
        if found.is_none_but(passed_over):
            found = self.locate(project, name)
        if found.is_none_but(passed_over):
            self._check_known_ids(project, name, {*passed_over, *(box.provider_id for box in found.all)})
        if not self.read_only:
            self._note_lost(project, name, found)
        return found

    def item(self, provider_id: str) -> dict[str, Any] | None:
        """The provider's item of this id; None once it says twice that there is none: one answer may be a mistake."""
        row: dict[str, Any] | None = self.client.get_instance(provider_id)
        if row is None:
            self.client.sleep(next(self.client.back_off()))
            row = self.client.get_instance(provider_id)
        return row

    def look(self, box: AnyBox) -> AnyBox | None:
        """The box as the provider's item shows it now; None when it says twice that there is no such thing.

        TenantFailure when the item carries another stamp: then it is not the box that we meant.
        """
        row = self.item(box.provider_id)
        if row is None:
            return None
        found = self.to_box(row)
        if box.stamp is not None and found.stamp != box.stamp:
            raise TenantFailure(
                "provider",
                f"{self.THING} {box.provider_id} no longer carries the stamp {box.stamp}",
                box=box.stamp.box,
                safe="it was not touched",
                fix=f"look at its {self.LABEL} in the provider's console",
            )
        return found

    def _check_known_ids(self, project: str, name: str, accounted_for: Collection[str]) -> None:
        """A list that lacks a box which its own item still shows is partial, however well formed. One that counts as
        lost is asked for too: whoever denied it may have been wrong."""
        lost = gone_record.lost_box(self.store, project, name)
        for record in self._of_this_market([*self.open_records(project, name), *([lost] if lost else [])]):
            if str(record["provider_id"]) in accounted_for:
                continue
            row = self.client.get_instance(str(record["provider_id"]))
            stamp = self.to_box(row).stamp if row is not None else None
            if stamp is not None and str(stamp) == record.get("stamp"):
                raise RestError(
                    f"the list of {self.THING}s lacks {record['provider_id']}, which the provider still has",
                    200,
                    "partial",
                    safe="nothing was rented or destroyed",
                    fix="run again in a minute",
                )

    def _note_lost(self, project: str, name: str, found: Found[AnyBox]) -> None:
        # By the stamp: on some markets a machine has another id once it runs.
        listed = [str(box.stamp) for box in found.all]
        for record in self._of_this_market(self.open_records(project, name)):
            provider_id = str(record["provider_id"])
            if record.get("stamp") not in listed and self.item(provider_id) is None:
                identity = BoxIdentity(project, name, int(record["generation"]), provider_id)
                gone_record.note_gone(self.store, identity, is_lost=True)

    def _of_this_market(self, known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of what was rented on another market this provider says nothing, however surely it denies the id."""
        return [record for record in known if record.get("platform") in (None, "", self.PLATFORM)]

    def open_records(self, project: str, name: str) -> list[dict[str, Any]]:
        """The store's records of boxes that were rented and, as far as it knows, still exist."""
        found = []
        for generation in range(1, self.store.last_generation(project, name) + 1):
            record = self.store.read_box(project, name, generation)
            if record and record.get("provider_id") and not record.get("destroyed_at"):
                found.append(record)
        return found

    def remember(self, box: AnyBox) -> None:
        """Write from when on a box that the store does not know by its id costs what, and a record for it.

        The journal comes first, so that whoever dies in between leaves no record, and the next one says both again.

        A record with this very stamp but no id is of a create whose answer was lost: it is ours and virgin. No record
        at all (an empty disk) says nothing of what was deployed, so what is written then must not look virgin. One of
        the request that the box came of says of both what it said before.
        """
        if box.stamp is None or self.read_only:
            return
        stamp, request = box.stamp, self.request_of(box)
        record = self.store.read_box(stamp.project, stamp.box, stamp.generation) or {}
        known = record.get("provider_id") or ""
        if known not in ("", request) or known == box.provider_id or record.get("stamp", str(stamp)) != str(stamp):
            return
        if box.provider_id != request:
            self._note_found(box)
        created_at = record.get("created_at") if known else records.utc_now() if record.get("stamp") else None
        facts = {
            "provider_id": box.provider_id,
            "platform": self.PLATFORM,
            "stamp": str(stamp),
            "price_per_hour": box.dph_total,
            "market": box.market,
            "created_at": created_at,
            "destroyed_at": None,
            "lost": None,
        }
        self.store.update_box(stamp.project, stamp.box, stamp.generation, **{**facts, **self.facts_of(box)})

    def _note_found(self, box: AnyBox) -> None:
        """Its cost accrues from when its provider says that it began to run: no line of ours tells of that. Of one that
        rests nobody knows since when; what it cost before now is in the provider's bill alone. One whose state says
        nothing (its host is offline, its container ended) counts as at work: it bills when it is back, and nobody
        comes by here again."""
        now = self.client.provider_now()
        began = None if box.is_resting else local_moment(started_epoch(box, now), now)
        verb = power_record.SEEN_STOPPED if box.is_resting else power_record.SEEN_STARTED
        since = {} if began is None else {"effective_at": began}
        place = {**identity_of(box).as_dict(), "platform": self.PLATFORM}
        self.journal.append("effect", verb, **place, **_rates(box), **since, **{FOUND: True})

    # -- power ---------------------------------------------------------------------------------------------------

    def await_running(self, box: AnyBox, wait_s: float) -> AnyBox:
        return wait_for_running(self.client, box, lambda: self.look(box), self.watch(box), self.stuck, wait_s)

    def stop(self, box: AnyBox, wait_s: float) -> tuple[AnyBox | None, Passed]:
        """Stop a box and wait until it rests. Goes through the gate with what a stop keeps."""
        passed = self.tell_to_stop(box)
        return wait_for_rest(self.client, box, lambda: self.look(box), self.stuck, wait_s), passed

    def tell_to_stop(self, box: AnyBox) -> Passed:
        """Set the box's intended state, through the gate, without waiting: one whose host is offline never answers."""
        passed = self.pass_gate(box, STOP)
        identity = identity_of(box)
        with self.effect(STOP, box, rule=passed.rule), self._spending(passed):
            power_record.note_stopping(self.store, identity, self.client.retry_for_s + self.client.timeout_s)
            try:
                self.client.set_state(box.provider_id, "stopped")
            except TenantFailure as failure:
                if _was_refused(failure):
                    power_record.note_refused(self.store, identity)
                raise
        # Last, so that whoever dies before leaves a stop to be found, and its line in the journal with it.
        power_record.note_stop(self.store, identity)
        return passed

    def must_stop(self, box: AnyBox) -> bool:
        """Whether a stop would change anything: the box, or that our record says since when it must rest.

        An outbid box comes back by itself, unless we said stop.
        """
        if box.intended != "stopped" or not box.is_resting:
            return True
        record = power_record.read(self.store, identity_of(box))
        return box.state == "outbid" if record is None else not record.get("parked_at")

    # -- the end -------------------------------------------------------------------------------------------------

    def pass_gate(self, box: AnyBox, verb: str) -> Passed:
        """Ask the gate on evidence re-read now. TenantFailure ``gate_refused`` that names what is missing."""
        identity = identity_of(box)
        self._note_seen(box, records.utc_now())
        since = started_epoch(box, self.client.provider_now())
        evidence = gate.gather(self.store, identity, verb, self.kept_by(verb), self.provider_view(box))
        # To hash every copy may take hours: the box, the seal's age and the approvals are judged as they are after it.
        latest = self._recheck(box, since) or box
        now = records.utc_now()
        decision = gate.decide(dataclasses.replace(evidence, provider=self.provider_view(latest), now=now))
        if not decision.allowed:
            raise _refused(self.THING, identity, verb, decision.missing)
        return Passed(box.provider_id, box.generation, decision.rule, decision.approval_id, self._approver(decision))

    def provider_view(self, box: AnyBox) -> gate.ProviderView:
        """What the provider says of the box, its times moved onto our clock by the ages that its own clock gives."""
        now = self.client.provider_now()
        return gate.ProviderView(box.state, local_moment(started_epoch(box, now), now), records.utc_now())

    def destroy(self, box: AnyBox, wait_s: float = GONE_WAIT_S, why: str = "") -> Passed | None:
        """Destroy a box once the gate lets it. None when it is gone already, or leaving."""
        seen = self.look(box)
        if seen is None:
            self._note_gone(box)
            return None
        if seen.is_leaving:
            # Destroyed already, by a process that did not live to see it gone: nothing is sent, so nothing is asked.
            self.await_gone(seen, wait_s)
            return None
        since = started_epoch(seen, self.client.provider_now())
        passed = self.pass_gate(seen, DESTROY)
        with self.effect(DESTROY, seen, rule=passed.rule, approval_id=passed.approval_id, why=why) as effect:
            self._recheck(seen, since)
            # Claimed before, used after: a delete that never arrived does not cost the night's only approval, because
            # a destroy of this very machine may take the claim up again.
            with self._spending(passed):
                effect.details["was_there"] = self.client.destroy_instance(seen.provider_id)
        self.await_gone(seen, wait_s)
        return passed

    def await_gone(self, box: AnyBox, wait_s: float) -> None:
        """Wait until the provider says twice that the box is gone, and say so."""
        wait_for_gone(self.client, box, lambda: self.client.get_instance(box.provider_id) is None, self.stuck, wait_s)
        self._note_gone(box)

    def _recheck(self, judged: AnyBox, since: float | None) -> AnyBox | None:
        """The item once more, just before the verb: what the gate judged must still be so, and have run since then."""
        now = self.look(judged)
        if now is None:
            return None
        if now.state != judged.state:
            happened = f"turned from {judged.state} to {now.state}"
        elif self.was_started(now, judged, since):
            happened = "was started again"
        else:
            return now
        raise TenantFailure(
            "gate_refused",
            f"{self.THING} {judged.provider_id} {happened} while the evidence was read",
            box=judged.stamp.box if judged.stamp else "",
            safe="it was not touched",
            fix="harvest it again, then repeat",
        )

    def _approver(self, decision: gate.Decision) -> str:
        if decision.approval_id is None:
            return ""
        path = self.store.approval_path(decision.approval_id)
        return str(records.read_record(path, "approval").get("approver", ""))

    @contextlib.contextmanager
    def _spending(self, passed: Passed) -> Iterator[None]:
        if passed.approval_id is None:
            yield
            return
        with approvals.spending(self.store, passed.approval_id):
            yield

    # -- records -------------------------------------------------------------------------------------------------

    def _note_seen(self, box: AnyBox, asked_at: str) -> None:
        if box.stamp is not None and not self.read_only:
            gone_record.note_there(self.store, box, asked_at)
            power_record.note_seen(self.store, identity_of(box), box.state, box.intended, asked_at)

    def _note_gone(self, box: AnyBox) -> None:
        gone_record.note_gone(self.store, identity_of(box))

    @contextlib.contextmanager
    def effect(self, verb: str, box: AnyBox, **fields: Any) -> Iterator[Any]:
        identity = identity_of(box)
        self.check_lease(identity.project, identity.box)
        with self.journal.effect(verb, **identity.as_dict(), platform=self.PLATFORM, **_rates(box), **fields) as effect:
            yield effect

    def priced(self, box: AnyBox) -> AnyBox:
        """A box that was started, once it runs: a start may cost another price than the rental did."""
        if box.dph_total is not None:
            self.note_priced(box)
        return box

    def note_priced(self, box: AnyBox) -> None:
        self.journal.append("effect", PRICED, **identity_of(box).as_dict(), platform=self.PLATFORM, **_rates(box))

    def check_lease(self, project: str, name: str) -> None:
        """A verb cannot be taken back by a fence, so nobody else may have the lease, and ours must last."""
        leases.opened(self.store).before_verb(project, name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One create at a time per account: pick, send, confirm. TenantFailure ``lease_held`` after ten minutes."""
        path = self.store.path("cache", f"{self.PLATFORM}-{self.client.account}.lock")
        what, clock, sleep = "renting on this account", self.client.clock, self.client.sleep
        with file_locks.held(file_locks.Lock(path, what, "nothing was rented", LOCK_WAIT_S, clock, sleep)):
            yield


def _was_refused(failure: TenantFailure) -> bool:
    """Whether the provider said no. Without an answer, or with one that says "later", a request may have arrived."""
    status = getattr(failure, "status", 0)
    return 400 <= status < 500 and status != 429


def _is_later(started: float | None, since: float | None) -> bool:
    return started is not None and since is not None and started - since > START_SLACK_S


def identity_of(box: Box) -> BoxIdentity:
    """TenantFailure for a box without our stamp: it is someone else's, and untouchable."""
    if box.stamp is None:
        raise TenantFailure(
            "config",
            f"instance {box.provider_id} does not carry our stamp",
            safe="it was not touched",
            fix="only boxes that gpu-tenant rented are managed by it",
        )
    return BoxIdentity(box.stamp.project, box.stamp.box, box.stamp.generation, box.provider_id)


def _refused(thing: str, identity: BoxIdentity, verb: str, missing: Sequence[str]) -> TenantFailure:
    listed = "; ".join(missing) or "the evidence is not home"
    return TenantFailure(
        "gate_refused",
        f"{verb} of {thing} {identity.provider_id} (generation {identity.generation}) is refused: {listed}",
        box=identity.box,
        safe="the box and its disk are untouched",
        fix=f"harvest it, then: gpu-tenant approve teardown {identity.box}",
    )


def keeps_of(verbs: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each verb keeps, from ``platform_verbs`` or from a plain ``{verb: [tiers]}``; two opinions keep the less."""
    kept: dict[str, list[str]] = {}
    for name, value in verbs.items():
        listed = value if isinstance(value, (list, tuple)) else []
        operations = [one for one in listed if isinstance(one, Mapping)]
        plain = [(name, listed)] if name in VERBS else []
        for verb, tiers in plain or [(str(one.get("verb")), one.get("keeps") or []) for one in operations]:
            known = kept.get(verb)
            kept[verb] = [str(tier) for tier in tiers if known is None or tier in known]
    return kept


def _rates(box: Box) -> dict[str, float | None]:
    """What the journal says that a box costs an hour, at work and at rest."""
    return {"price_per_hour": box.dph_total, "stopped_per_hour": box.storage_per_hour}

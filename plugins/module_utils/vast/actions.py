# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to boxes: find, start, stop, destroy. Renting is in ``rental``.

Only boxes that carry our stamp are ever touched. Every act is journalled, intent first, and every verb that could
lose results asks the gate here, on records re-read now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Sequence

from .. import approvals, gate, leases, power_record
from ..box import records
from ..failures import TenantFailure
from ..journal import Journal
from ..state_store import BoxIdentity, StateStore
from .api import VastClient, VastError
from .ghosts import real_boxes
from .offers import Constraints, bid_within
from .reservation import pay
from .transformations import Box, current_and_superseded, local_moment, stamp_of, started_epoch, to_box
from .waiters import wait_for_gone, wait_for_rest, wait_for_restart, wait_for_running

PLATFORM = "vast"
DESTROY = "destroy"
STOP = "stop"
REBOOT = "reboot"
RECYCLE = "recycle"
# What survives each verb on this market. A profile may promise less than this, never more: a variable that said that
# destroy keeps the disk would otherwise open the gate.
KEEPS = {
    DESTROY: ("volume",),
    STOP: ("disk", "volume"),
    REBOOT: ("disk", "volume"),
    # The container is made anew from its image; what lay on its disk is gone.
    RECYCLE: ("volume",),
}
LOCK_WAIT_S = 600.0
GONE_WAIT_S = 120.0
# The provider tells how long a box is up in minutes, so that the same start is a minute earlier or later each time.
START_SLACK_S = 120.0


@dataclass(frozen=True)
class Found:
    """The boxes of one name: the one that counts, and the others that carry its stamp.

    :param only_listed: destroyed boxes that a list still shows; nothing of them counts but their generations.
    """

    current: Box | None
    superseded: Sequence[Box] = ()
    only_listed: Sequence[Box] = ()

    @property
    def all(self) -> list[Box]:
        return ([self.current] if self.current else []) + list(self.superseded)

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
class Account:
    """One account, as seen from one state store.

    :param keeps: what the profile says that each verb keeps; see :data:`KEEPS`.
    :param read_only: in check mode and for information not even our own records are written.
    """

    client: VastClient
    store: StateStore
    keeps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    read_only: bool = False

    @property
    def journal(self) -> Journal:
        return Journal(self.store)

    def kept_by(self, verb: str) -> list[str]:
        promised = self.keeps.get(verb)
        return [tier for tier in KEEPS[verb] if promised is None or tier in promised]

    # -- finding -------------------------------------------------------------------------------------------------

    def locate(self, project: str, name: str) -> Found:
        """The boxes of this name by the provider's list, and the store's records brought in line with them."""
        asked_at = records.utc_now()
        current, superseded = current_and_superseded(map(to_box, self.client.list_instances()), project, name)
        listed = Found(current, superseded).all
        there = real_boxes(self.client, self.store, listed)
        gone = [box for box in listed if box not in there]
        found = Found(there[0] if there else None, there[1:], gone)
        for box in found.all:
            self._remember(box)
            self._note_seen(box, asked_at)
        return found

    def locate_surely(self, project: str, name: str) -> Found:
        """Like :meth:`locate`, but "there is none" is said only after a second list and every known id agree."""
        found = self.locate(project, name)
        if found.current is None:
            found = self.locate(project, name)
        if found.current is None:
            self._check_known_ids(project, name)
        return found

    def look(self, box: Box) -> Box | None:
        """The box as the provider's item shows it now; None when it says that there is no such instance.

        TenantFailure when the item carries another stamp: then it is not the box that we meant.
        """
        row = self.client.get_instance(box.provider_id)
        if row is None:
            return None
        if box.stamp is not None and stamp_of(row) != box.stamp:
            raise TenantFailure(
                "provider",
                f"instance {box.provider_id} no longer carries the stamp {box.stamp}",
                box=box.stamp.box,
                safe="it was not touched",
                fix="look at its label in the provider's console",
            )
        return to_box(row)

    def _check_known_ids(self, project: str, name: str) -> None:
        """A list that lacks a box which its own item still shows is partial, however well formed."""
        for record in self.open_records(project, name):
            row = self.client.get_instance(str(record["provider_id"]))
            if row is not None and stamp_of(row) and str(stamp_of(row)) == record.get("stamp"):
                raise VastError(
                    f"the list of instances lacks {record['provider_id']}, which the provider still has",
                    200,
                    "partial",
                    safe="nothing was rented or destroyed",
                    fix="run again in a minute",
                )

    def open_records(self, project: str, name: str) -> list[dict[str, Any]]:
        """The store's records of boxes that were rented and, as far as it knows, still exist."""
        found = []
        for generation in range(1, self.store.last_generation(project, name) + 1):
            record = self.store.read_box(project, name, generation)
            if record and record.get("provider_id") and not record.get("destroyed_at"):
                found.append(record)
        return found

    def _remember(self, box: Box) -> None:
        """Write a record for a box that the store does not know by its id.

        A record with this very stamp but no id is of a create whose answer was lost: it is ours and virgin. No record
        at all (an empty disk) says nothing of what was deployed, so what is written then must not look virgin.
        """
        if box.stamp is None or self.read_only:
            return
        stamp = box.stamp
        record = self.store.read_box(stamp.project, stamp.box, stamp.generation) or {}
        if record.get("provider_id") or record.get("stamp", str(stamp)) != str(stamp):
            return
        facts = {
            "provider_id": box.provider_id,
            "platform": PLATFORM,
            "stamp": str(stamp),
            "machine_id": box.machine_id,
            "host_id": box.host_id,
            "price_per_hour": box.dph_total,
            "market": "interruptible" if box.is_bid else "on-demand",
            "destroyed_at": None,
        }
        facts["created_at"] = records.utc_now() if record.get("stamp") else None
        self.store.update_box(stamp.project, stamp.box, stamp.generation, **facts)

    # -- power ---------------------------------------------------------------------------------------------------

    def start(self, box: Box, wanted: Constraints, wait_s: float) -> Box:
        """Start a box, its bid raised within the cap first if it was outbid, and wait until it runs."""
        bid = bid_to_start(box, wanted)
        with self._effect("start", box, bid=bid):
            power_record.note_start(self.store, identity_of(box))
            if bid is not None:
                self.client.change_bid(box.provider_id, bid)
            self.client.set_state(box.provider_id, "running")
        return self.await_running(box, wait_s)

    def await_running(self, box: Box, wait_s: float) -> Box:
        return wait_for_running(self.client, box, lambda: self.look(box), wait_s)

    def stop(self, box: Box, wait_s: float) -> tuple[Box | None, Passed]:
        """Stop a box and wait until it rests. Goes through the gate with what a stop keeps."""
        passed = self.tell_to_stop(box)
        return wait_for_rest(self.client, box, lambda: self.look(box), wait_s), passed

    def tell_to_stop(self, box: Box) -> Passed:
        """Set the box's intended state, through the gate, without waiting: one whose host is offline never answers."""
        passed = self.pass_gate(box, STOP)
        with self._effect(STOP, box, rule=passed.rule), self._spending(passed):
            self.client.set_state(box.provider_id, "stopped")
            power_record.note_stop(self.store, identity_of(box))
        return passed

    def restart(self, box: Box, verb: str, wait_s: float) -> tuple[Box, Passed]:
        """Reboot or recycle a box that runs, through the gate with what the verb keeps, and wait until it runs again.

        TenantFailure when the provider's answer is lost: a second one would restart it once more.
        """
        passed = self.pass_gate(box, verb)
        since = started_epoch(box, self.client.provider_now())
        with self._effect(verb, box, rule=passed.rule, approval_id=passed.approval_id):
            self._recheck(box, since)
            with self._spending(passed):
                self.client.restart_instance(box.provider_id, verb)
                power_record.note_start(self.store, identity_of(box))
        wait_for_restart(self.client, box, lambda: self.look(box))
        return self.await_running(box, wait_s), passed

    def must_stop(self, box: Box) -> bool:
        """Whether a stop would change anything: the box, or that our record says since when it must rest.

        An outbid box comes back by itself, unless we said stop.
        """
        if box.intended != "stopped" or box.state not in ("stopped", "outbid"):
            return True
        record = power_record.read(self.store, identity_of(box))
        return box.state == "outbid" if record is None else not record.get("parked_at")

    def answer_price_rise(self, box: Box, rise_id: int, price: float | None, accept: bool) -> bool:
        """Accept or reject what the box's host asks from now on; False when it asks no more."""
        with self._effect("accept_price_rise" if accept else "reject_price_rise", box, new_price_per_hour=price):
            return self.client.answer_price_rise(rise_id, accept)

    def prepay(self, box: Box, amount: float) -> dict[str, float]:
        """Pay ahead for a box on demand; months and discount that it brought."""
        with self._effect("prepay", box, amount=amount) as effect:
            paid = pay(self.client, box, amount)
            effect.details.update(paid)
            return paid

    # -- the end -------------------------------------------------------------------------------------------------

    def pass_gate(self, box: Box, verb: str) -> Passed:
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
            raise _refused(identity, verb, decision.missing)
        return Passed(box.provider_id, box.generation, decision.rule, decision.approval_id, self._approver(decision))

    def provider_view(self, box: Box) -> gate.ProviderView:
        """What the provider says of the box, its times moved onto our clock by the ages that its own clock gives."""
        now = self.client.provider_now()
        return gate.ProviderView(box.state, local_moment(started_epoch(box, now), now), records.utc_now())

    def destroy(self, box: Box, wait_s: float = GONE_WAIT_S, why: str = "") -> Passed | None:
        """Destroy a box once the gate lets it. None when the provider says that it is gone already, or leaving."""
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
        with self._effect(DESTROY, seen, rule=passed.rule, approval_id=passed.approval_id, why=why) as effect:
            self._recheck(seen, since)
            # Claimed before, used after: a delete that never arrived does not cost the night's only approval, because
            # a destroy of this very machine may take the claim up again.
            with self._spending(passed):
                effect.details["was_there"] = self.client.destroy_instance(seen.provider_id)
        self.await_gone(seen, wait_s)
        return passed

    def await_gone(self, box: Box, wait_s: float) -> None:
        """Wait until the provider says twice that the box is gone, and close its record."""
        wait_for_gone(self.client, box, lambda: self.client.get_instance(box.provider_id) is None, wait_s)
        self._note_gone(box)

    def forget_gone(self, project: str, name: str) -> list[str]:
        """Close the records of boxes that the provider no longer has; their ids. Call after :meth:`locate_surely`."""
        closed = []
        for record in self.open_records(project, name):
            self.store.update_box(project, name, record["generation"], destroyed_at=records.utc_now())
            closed.append(str(record["provider_id"]))
        return closed

    def _recheck(self, judged: Box, since: float | None) -> Box | None:
        """The item once more, just before the verb: what the gate judged must still be so, and have run since then."""
        now = self.look(judged)
        if now is None:
            return None
        started = started_epoch(now, self.client.provider_now())
        if now.state != judged.state:
            happened = f"turned from {judged.state} to {now.state}"
        elif _is_later(started, since) and now.uptime_s != judged.uptime_s:
            # A time up that does not move is an old answer, no start.
            happened = "was started again"
        else:
            return now
        raise TenantFailure(
            "gate_refused",
            f"instance {judged.provider_id} {happened} while the evidence was read",
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

    def _note_seen(self, box: Box, asked_at: str) -> None:
        if box.stamp is not None and not self.read_only:
            power_record.note_seen(self.store, identity_of(box), box.state, box.intended, asked_at)

    def _note_gone(self, box: Box) -> None:
        """Close the box record, if it is of this very machine: a duplicate of a generation has none of its own."""
        identity = identity_of(box)
        if power_record.read(self.store, identity) is not None:
            place = (identity.project, identity.box, identity.generation)
            self.store.update_box(*place, destroyed_at=records.utc_now())

    @contextlib.contextmanager
    def _effect(self, verb: str, box: Box, **fields: Any) -> Iterator[Any]:
        identity = identity_of(box)
        self.check_lease(identity.project, identity.box)
        rates = {"price_per_hour": box.dph_total, "stopped_per_hour": box.storage_per_hour}
        with self.journal.effect(verb, **identity.as_dict(), platform=PLATFORM, **rates, **fields) as effect:
            yield effect

    def check_lease(self, project: str, name: str) -> None:
        """A verb cannot be taken back by a fence, so nobody else may have the lease, and ours must last."""
        leases.opened(self.store).before_verb(project, name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One create at a time per account: pick, send, confirm. TenantFailure ``lease_held`` after ten minutes."""
        path = self.store.path("cache", f"vast-{self.client.account}.lock")
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, path: str) -> None:
        deadline = self.client.clock() + LOCK_WAIT_S
        waits = self.client.back_off(0.1, 2.0)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self.client.clock() >= deadline:
                    raise TenantFailure(
                        "lease_held",
                        f"another process has been renting on this account for {LOCK_WAIT_S:.0f} s",
                        safe="nothing was rented",
                        fix=f"find it with: fuser {path}",
                    ) from None
            self.client.sleep(next(waits))


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


def bid_to_start(box: Box, wanted: Constraints) -> float | None:
    """The new bid that starting needs, None when it needs none. TenantFailure when the cap does not allow the start."""
    storage = box.storage_per_hour
    if storage is None and box.dph_total is not None and box.bid is not None:
        storage = box.dph_total - box.bid
    if not box.is_bid:
        _check_cap(box, box.dph_total, wanted)
        return None
    if storage is None or box.bid is None or box.min_bid is None:
        raise _no_start(box, "the provider does not say what it would cost", "look at it in the provider's console")
    if box.min_bid <= box.bid:
        _check_cap(box, box.bid + storage, wanted)
        return None
    bid = bid_within(box.min_bid, storage, wanted)
    if bid + 1e-9 < box.min_bid:
        least = box.min_bid + storage
        raise _no_start(
            box,
            f"the market asks ${least:.4f} an hour, disk included, and price_cap is ${wanted.price_cap}",
            f"raise price_cap to at least {least:.4f}, or rent another offer",
        )
    return bid


def _check_cap(box: Box, price: float | None, wanted: Constraints) -> None:
    if price is None:
        raise _no_start(box, "the provider does not say what it would cost", "look at it in the provider's console")
    if wanted.price_cap is not None and price > wanted.price_cap + 1e-9:
        raise _no_start(
            box,
            f"it costs ${price:.4f} an hour and price_cap is ${wanted.price_cap}",
            f"raise price_cap to at least {price:.4f}, or rent another offer",
        )


def _no_start(box: Box, why: str, fix: str) -> TenantFailure:
    name = box.stamp.box if box.stamp else ""
    what = f"instance {box.provider_id} was not started: {why}"
    return TenantFailure("no_offer", what, box=name, safe="its disk is kept", fix=fix)


def _refused(identity: BoxIdentity, verb: str, missing: Sequence[str]) -> TenantFailure:
    listed = "; ".join(missing) or "the evidence is not home"
    return TenantFailure(
        "gate_refused",
        f"{verb} of instance {identity.provider_id} (generation {identity.generation}) is refused: {listed}",
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
        plain = [(name, listed)] if name in KEEPS else []
        for verb, tiers in plain or [(str(one.get("verb")), one.get("keeps") or []) for one in operations]:
            known = kept.get(verb)
            kept[verb] = [str(tier) for tier in tiers if known is None or tier in known]
    return kept

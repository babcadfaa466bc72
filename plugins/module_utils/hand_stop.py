# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A stop or a release that only a person can do, in a console: what is left to do, and whether it was done.

No interface tells of such a box. What can be seen from here is whether the machine that we pinned still shows its host
key: one that does has neither been stopped nor released, whatever anybody says. Silence alone proves neither, so that a
release also needs a person's word, and a box behind a jump host has that word only. A box that was told to stop itself
and fell silent has stopped.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping, Sequence

from .box import records
from .failures import TenantFailure
from .host_keys import HostKey
from .journal import Journal
from .state_store import BoxIdentity, StateStore

STOPPED, RELEASED = "stopped", "released"
_VERB_OF = {STOPPED: "stop", RELEASED: "destroy"}
_FIELD_OF = {STOPPED: "parked_at", RELEASED: "destroyed_at"}
BY = {"console": "in the console", "cli": "by the provider's own tool", "box": "on the box", "none": "by hand"}
SILENT, ANSWERS, UNSEEN = "silent", "answers", "unseen"

Scan = Callable[[], Sequence[HostKey]]


def checklist(verbs: Sequence[Mapping[str, Any]], storage: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each step, in order, then what goes on billing when all are done."""
    lines = []
    for number, one in enumerate(verbs, 1):
        ends = [word for key, word in (("stops_compute", "compute"), ("stops_storage", "disk")) if one.get(key) is True]
        kept = ", ".join(str(each) for each in one.get("keeps") or []) or "nothing"
        by = BY.get(str(one.get("transport")), "by hand")
        back = "" if one.get("reversible") is True else ", for ever"
        lines.append(f"{number}. {one['verb']} ({by}): ends {' and '.join(ends) or 'no'} charges, keeps {kept}{back}")
    kept_last = list(verbs[-1].get("keeps") or []) if verbs else []
    billed = [str(tier.get("path") or tier["tier"]) for tier in storage if tier.get("tier") in kept_last]
    if billed:
        lines.append(f"What is kept may go on billing: {', '.join(billed)}")
    return lines


def look(pinned: Sequence[HostKey], scan: Scan, looks: int, pause_s: float, direct: bool) -> str:
    """``answers`` when the pinned machine shows its key, ``silent`` when it does not at each look, else ``unseen``."""
    if not direct or not pinned:
        return UNSEEN
    for number in range(looks):
        if number:
            time.sleep(pause_s)
        if set(scan()) & set(pinned):
            return ANSWERS
    return SILENT


def watch(take: Callable[[], str], wait_s: float, pause_s: float) -> str:
    """What :func:`look` finds, by ``take``, once the machine answers no more or ``wait_s`` is over."""
    until = time.monotonic() + wait_s
    seen = take()
    while seen == ANSWERS and time.monotonic() < until:
        time.sleep(min(1.0 + pause_s, max(0.0, until - time.monotonic())))
        seen = take()
    return seen


def settle(
    store: StateStore, identity: BoxIdentity, step: str, told: bool, seen: str, check: bool, why_unseen: str
) -> dict[str, Any]:
    """Record the step where it was done: ``{changed, done, how}``.

    :param told: whether a person says so.
    :param seen: what :func:`look` found; ``unseen`` where nobody looked. A look without a person's word is one at a
        box that was told to stop itself.
    :raises TenantFailure: the word of a person contradicts what is seen.
    """
    record = _record_of(store, identity)
    before = record.get(_FIELD_OF[step])
    if not told and (seen == UNSEEN or step == RELEASED):
        how = f"nobody can see whether it does ({why_unseen})" if why_unseen else "nobody said that it was done"
        return {"changed": False, "done": bool(before), "how": how}
    if seen == ANSWERS and step == RELEASED:
        raise TenantFailure(
            "evidence_missing",
            "it is said to be released, and it still shows its own host key at its address",
            box=identity.box,
            safe="nothing was recorded: it counts as rented, and it bills",
            fix="do the steps of the checklist in the console, then say so again",
        )
    if seen == ANSWERS:
        return {"changed": False, "done": False, "how": "it still shows its own host key at its address"}
    how = "its host key is not shown at its address any more" if seen == SILENT else f"a person's word ({why_unseen})"
    if before:
        return {"changed": False, "done": True, "how": how}
    if not check:
        _record(store, identity, step, how)
    return {"changed": True, "done": True, "how": how}


def _record(store: StateStore, identity: BoxIdentity, step: str, how: str) -> None:
    now = records.utc_now()
    Journal(store).append("effect", _VERB_OF[step], **identity.as_dict(), by_hand=True, how=how)
    changes = {"provider_id": identity.provider_id, _FIELD_OF[step]: now, "stopped_how": how}
    store.update_box(identity.project, identity.box, identity.generation, **changes)


def note_start(store: StateStore, identity: BoxIdentity, check: bool) -> bool:
    """A box that was stopped by hand and answers again has been started; whether that was news."""
    record = _record_of(store, identity)
    if not record.get("parked_at"):
        return False
    if not check:
        Journal(store).append("effect", "start", **identity.as_dict(), by_hand=True)
        changes = {"parked_at": None, "started_at": records.utc_now()}
        store.update_box(identity.project, identity.box, identity.generation, **changes)
    return True


def _record_of(store: StateStore, identity: BoxIdentity) -> dict[str, Any]:
    """Of the generation: no provider numbers such a machine, and its port may change with each start."""
    return store.read_box(identity.project, identity.box, identity.generation) or {}

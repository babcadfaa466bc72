# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies that the provider makes between two boxes, or a box and a cloud connection; the boxes may be stopped.

The provider answers before it begins and tells how it goes in status messages only, whose words no source fixes. So
its word ends the wait, and nothing else: whether the bytes are there is for a manifest to say.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping, Sequence

from .. import resting_copy
from ..box import locks, records
from ..box.refusal import Refused
from ..failures import TenantFailure
from ..gate import STOPPED_STATES
from ..rental_account import identity_of
from ..rental_waiters import DeadlinePassed, wait_until
from ..rented_box import Box, local_moment, started_epoch
from .actions import PLATFORM, Account
from .api import VastError
from .copy_proof import proof
from .waiters import CopyWatch

TO_CLOUD, FROM_CLOUD = "Instance To Cloud", "Cloud To Instance"
# Copying there breaks the instance's own ssh folder, says the vendor.
FORBIDDEN_DESTS = ("/", "/root")


@dataclass(frozen=True)
class Wish:
    """What the options ask for: names of boxes of ``project``, or a cloud connection in place of one of them."""

    project: str
    source: str | None
    source_path: str
    dest: str | None
    dest_path: str
    connection: str | None = None
    source_provider_id: str | None = None
    at_rest: bool = False
    wait_s: float = 3600.0
    stall_s: float = 600.0


@dataclass(frozen=True)
class End:
    """One side of the copy: a box of ours, or a cloud connection."""

    name: str
    path: str
    box: Box | None = None
    connection_id: int = 0

    def __str__(self) -> str:
        return f"{self.name} (instance {self.box.provider_id}):{self.path}" if self.box else f"{self.name}:{self.path}"

    def as_result(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "path": self.path,
            "provider_id": self.box.provider_id if self.box else "",
            "generation": self.box.generation if self.box else 0,
            "state": self.box.state if self.box else "",
        }


def carry_out(account: Account, wish: Wish, check_mode: bool = False) -> dict[str, Any]:
    """What ``vast_copy`` returns. TenantFailure when the copy cannot be, failed, or got stuck."""
    source, dest = _ends(account, wish)
    if wish.at_rest:
        _refuse_restless(account, source, "before it was copied", check_mode)
    if check_mode:
        return dict(_result(source, dest, wish.at_rest), changed=True, diff=_diff(source, dest))
    with _alone(account, [end.box for end in (source, dest) if end.box], wish.wait_s):
        # Before anything is asked: what is copied cannot be older than this.
        asked_at = records.utc_now()
        # One side always is a box, see _ends.
        subject = source.box or dest.box
        if subject is None:
            raise ValueError("a copy without a box")
        with account.journal.effect(
            "copy", platform=PLATFORM, source=str(source), dest=str(dest), **identity_of(subject).as_dict()
        ) as effect:
            verdict = _Copy(account, source, dest, wish).run()
            effect.details.update(outcome=verdict.outcome, said=verdict.said)
        source, dest = _look_again(account, source), _look_again(account, dest)
    if wish.at_rest:
        _refuse_restless(account, source, "while it was copied")
        _keep_record(account, source, dest, asked_at)
    result = _result(source, dest, wish.at_rest, asked_at, verdict.outcome, verdict.said)
    changed = verdict.moved is not False
    return dict(result, changed=changed, diff=_diff(source, dest) if changed else {"before": "", "after": ""})


def _result(
    source: End, dest: End, at_rest: bool, asked_at: str = "", outcome: str = "planned", said: str = ""
) -> dict[str, Any]:
    ends = {"source": source.as_result(), "dest": dest.as_result()}
    return {
        **ends,
        "asked_at": asked_at,
        "said": said,
        "outcome": outcome,
        **proof(outcome, said, at_rest=at_rest, **ends),
    }


def _diff(source: End, dest: End) -> dict[str, str]:
    return {"before": "", "after": f"{source} -> {dest}\n"}


# --- the two ends -------------------------------------------------------------------------------------------------


def _ends(account: Account, wish: Wish) -> tuple[End, End]:
    if wish.source and wish.dest and wish.connection:
        raise _config("a connection stands in place of source or dest, not beside both")
    cloud = _connection(account, wish.connection) if wish.connection else None
    source = _box_end(account, wish, wish.source, wish.source_path, wish.source_provider_id) if wish.source else cloud
    dest = _box_end(account, wish, wish.dest, wish.dest_path) if wish.dest else cloud
    if source is None or dest is None or (source.box is None and dest.box is None):
        raise _config("a copy needs a source and a dest, or one of them and a connection")
    source, dest = replace(source, path=wish.source_path), replace(dest, path=wish.dest_path)
    if source.box and dest.box and source.box.provider_id == dest.box.provider_id:
        raise _config(f"{source} and {dest} are one instance")
    if dest.box and os.path.normpath(dest.path) in FORBIDDEN_DESTS:
        raise _config(f"copying into {dest.path} damages the instance's own ssh folder; name a folder of its own")
    return source, dest


def _box_end(account: Account, wish: Wish, name: str, path: str, provider_id: str | None = None) -> End:
    if not os.path.isabs(path) or ".." in path.split("/"):
        raise _config(f"{path!r} is not an absolute path on {name}")
    found = account.locate_surely(wish.project, name)
    if provider_id is None:
        box = found.current
    else:
        box = next((one for one in found.all if one.provider_id == provider_id), None)
    if box is None:
        known = f" with the id {provider_id}" if provider_id else ""
        raise TenantFailure(
            "provider", f"the provider lists no instance of it{known}", box=name, safe="nothing was copied"
        )
    return End(name, path, box)


def _connection(account: Account, wanted: str) -> End:
    """The cloud connection of this id, or of this name if only one has it."""
    rows = account.client.connections()
    meant = [row for row in rows if str(row["id"]) == wanted] or [row for row in rows if row.get("name") == wanted]
    if len(meant) != 1:
        known = ", ".join(f"{row['id']} ({row.get('name')})" for row in rows) or "none"
        raise _config(f"the account has {len(meant)} cloud connections {wanted!r}; it has {known}")
    return End(f"{meant[0].get('cloud_type') or 'cloud'}.{meant[0]['id']}", "", connection_id=int(meant[0]["id"]))


def _look_again(account: Account, end: End) -> End:
    if end.box is None:
        return end
    box = account.look(end.box)
    if box is None:
        raise TenantFailure(
            "provider",
            f"instance {end.box.provider_id} is gone since the copy",
            box=end.name,
            fix="look at the other end; take nothing for copied that no manifest was compared with",
        )
    return End(end.name, end.path, box)


def _refuse_restless(account: Account, end: End, when: str, check_mode: bool = False) -> None:
    """At rest is a box that was told to stop: one that was merely outbid revives by itself. In check mode, where
    nobody was told anything, that it stands still is enough."""
    if end.box is not None and check_mode and end.box.state in STOPPED_STATES:
        return
    if end.box is not None and not account.must_stop(end.box):
        return
    state = f"it is {end.box.state} and was not told to stop" if end.box else "it is no box"
    raise TenantFailure(
        "provider",
        f"it was not at rest {when}: {state}",
        box=end.name,
        safe="what was copied is not taken for the whole of it",
        fix="stop it first (vast_instance with state: stopped), or harvest it while it runs",
    )


def _keep_record(account: Account, source: End, dest: End, asked_at: str) -> None:
    box = source.box
    if box is None:
        return
    now = account.client.provider_now()
    resting_copy.save_record(
        account.store,
        identity_of(box),
        at_rest=True,
        source_path=source.path.rstrip("/"),
        dest=dest.name,
        dest_provider_id=dest.box.provider_id if dest.box else "",
        dest_path=dest.path.rstrip("/"),
        asked_at=asked_at,
        copied_at=records.utc_now(),
        provider_state=box.state,
        started_at=local_moment(started_epoch(box, now), now),
    )


@contextlib.contextmanager
def _alone(account: Account, boxes: Sequence[Box], wait_s: float) -> Iterator[None]:
    """One copy at a time per instance: its one status message would speak for two."""
    with contextlib.ExitStack() as stack:
        for provider_id in sorted({box.provider_id for box in boxes}):
            path = account.store.path("cache", f"vast-copy-{provider_id}.lock")
            try:
                stack.enter_context(
                    locks.exclusive(path, wait_s, f"the turn to copy from or to instance {provider_id}")
                )
            except Refused as refused:
                raise TenantFailure("lease_held", refused.what, safe="nothing was copied", fix=refused.fix) from None
        yield


# --- the copy itself ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What the provider let us see.

    ``outcome``: finished (the provider said so), unsaid (it stopped speaking of a copy), unchanged (its last word
    from before, of a copy that had finished, never changed). ``moved`` is None where it does not count.
    """

    outcome: str
    said: str
    moved: bool | None


class _Copy:
    def __init__(self, account: Account, source: End, dest: End, wish: Wish) -> None:
        self._client = account.client
        self._account = account
        self._source, self._dest, self._wish = source, dest, wish
        self._boxes = [end.box for end in (source, dest) if end.box]

    def run(self) -> Verdict:
        before = self._messages()
        self._send()
        watch = CopyWatch(self._client.clock, before, self._wish.stall_s)
        deadline = self._client.clock() + self._wish.wait_s
        waits = self._client.back_off(0.5, 10.0)
        try:
            outcome = wait_until(
                lambda: watch.outcome(self._messages()), deadline, waits, self._client.clock, self._client.sleep
            )
        except DeadlinePassed:
            raise self._stuck(f"it has not ended after {self._wish.wait_s:.0f} s", watch.said) from None
        if outcome == "failed":
            raise self._failed(f"the provider says: {watch.said}")
        if outcome in ("stalled", "unheard"):
            raise self._stuck(_STUCK[outcome], watch.said)
        return Verdict(outcome, watch.said, _moved(watch.said) if outcome == "finished" else None)

    def _send(self) -> None:
        source, dest = self._source, self._dest
        try:
            if source.box and dest.box:
                self._client.copy(source.box.provider_id, source.path, dest.box.provider_id, dest.path)
            elif source.box:
                self._client.cloud_copy(source.box.provider_id, dest.connection_id, TO_CLOUD, source.path, dest.path)
            elif dest.box:
                self._client.cloud_copy(dest.box.provider_id, source.connection_id, FROM_CLOUD, source.path, dest.path)
        except VastError as error:
            if error.kind == "config":
                raise
            raise self._failed(f"the provider refused: {error.what}") from None

    def _messages(self) -> dict[str, str]:
        """What the provider says on each instance now. TenantFailure when one of them is gone."""
        found = {}
        for box in self._boxes:
            seen = self._account.look(box)
            if seen is None:
                raise self._failed(f"instance {box.provider_id} is gone")
            found[box.provider_id] = self._client.redact(seen.status_msg)
        return found

    def _stuck(self, why: str, said: str) -> TenantFailure:
        """The failure of a copy that was cancelled because it would not end."""
        # One side always is a box, see _ends.
        subject = self._dest.box or self._source.box
        if subject is None:
            raise ValueError("a copy without a box")
        cloud = not (self._source.box and self._dest.box)
        cancelled = "it was cancelled"
        try:
            self._client.cancel_copies(subject.provider_id, cloud)
        except VastError as error:
            cancelled = f"it could not be cancelled ({error.what})"
        word = f"; the provider says: {said}" if said else ""
        return self._failed(f"the copy is stuck: {why}{word}; {cancelled}")

    def _failed(self, why: str) -> TenantFailure:
        return TenantFailure(
            "provider",
            f"{self._source} -> {self._dest}: {why}",
            box=self._source.name,
            safe="the source is untouched; what arrived may be partial",
            fix="run it again: a copy sends only what is missing",
        )


_STUCK = {
    "stalled": "its progress has not changed for too long",
    "unheard": "the provider never spoke of it",
}


def _moved(said: str) -> bool | None:
    """Whether anything was sent, where the provider counts; None where it does not."""
    counts = re.findall(r"\b(\d+) (?:files|bytes)\b", said)
    return any(int(count) for count in counts) if counts else None


def _config(what: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was copied")


def wish_of(options: Mapping[str, Any]) -> Wish:
    """What the module's options ask for."""
    names = ("project", "source", "source_path", "dest", "dest_path", "connection", "source_provider_id", "at_rest")
    return Wish(
        **{name: options[name] for name in names},
        wait_s=float(options["wait_s"]),
        stall_s=float(options["stall_s"]),
    )

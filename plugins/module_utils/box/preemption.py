# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Preemption notices: what a provider's metadata service says about the end of this machine.

A notice buys a few seconds for one more save. Nothing relies on it: it may come late or never, and most markets have
none. Paths, headers and payloads as the providers document them:

* ``aws_imds``: EC2 instance metadata, version 2 (a session token), ``spot/instance-action`` and ``rebalance``.
* ``gcp_metadata``: ``instance/preempted``, awaited with ``wait_for_change``, and ``instance/maintenance-event``.
* ``azure_scheduled_events``: ``scheduledevents``, of which only events that name this machine count.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator

from . import records

METADATA_URL = "http://169.254.169.254"
# AWS asks for a look every 5 s at least, Azure for one a second; GCP is awaited instead.
POLL_S = 1.0
# Of a metadata service that does not answer, in seconds; it may come up later than we do.
BACK_OFF_MOST_S = 60.0
_ANSWER_WITHIN_S = 5.0
# The first answer of Azure's scheduled events may take two minutes, while the service is being switched on.
_AZURE_WITHIN_S = 130.0
_GCP_HELD_S = 60
_AWS_TOKEN_S = 21600
_LARGEST_ANSWER = 256 * 1024
# How long a machine lives after a notice that names no time, at most, by what the providers grant. Azure gives up to
# 15 minutes before a reboot or a redeployment, and 30 s before an eviction.
GRACE_S = {"aws_imds": 120.0, "gcp_metadata": 30.0, "azure_scheduled_events": 900.0}
# A notice further ahead than this is a clock that is wrong.
MOST_NOTICE_S = 3600.0
# What a machine may outlive its announced end by before nobody believes in it any more: cells wait, and it bills.
OVERDUE_MARGIN_S = 300.0
_AZURE_ENDS = ("Preempt", "Terminate", "Redeploy", "Reboot")

STOP, ADVICE = "stop", "advice"


@dataclass(frozen=True)
class Notice:
    """``kind``: ``stop`` when the machine is going to end, ``advice`` when it may. ``at``: when, UTC text if told."""

    kind: str
    event: str
    at: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "event": self.event, "at": self.at}


@dataclass(frozen=True)
class Answer:
    """``path``: that of the question, without its query."""

    status: int
    body: str
    path: str
    etag: str = ""


class Unavailable(Exception):
    """The metadata service cannot be asked; the text says why."""


class MetadataService:
    """Plain HTTP to the link-local address, never through a proxy: it answers only on this machine."""

    def __init__(self, url: str = METADATA_URL) -> None:
        from urllib.parse import urlsplit  # as http.client below

        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._told: tuple[float, float] | None = None

    def now(self) -> float:
        """The provider's time: its last ``Date`` and what has passed since. The clock of a box may be wrong or jump."""
        if self._told is None:
            return time.time()
        provider, monotonic = self._told
        return provider + time.monotonic() - monotonic

    def _note_date(self, date: str | None) -> None:
        import email.utils  # as http.client below

        try:
            self._told = email.utils.parsedate_to_datetime(str(date)).timestamp(), time.monotonic()
        except (TypeError, ValueError, IndexError):
            return  # It says no time, or none that is one.

    def ask(
        self, method: str, path: str, headers: dict[str, str], within_s: float = _ANSWER_WITHIN_S, body: str = ""
    ) -> Answer:
        """:raises Unavailable: no answer, or none that could be one."""
        import http.client  # only on platforms that have such a service: it costs megabytes

        connection = http.client.HTTPConnection(self._host, self._port, timeout=within_s)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            response = connection.getresponse()
            self._note_date(response.getheader("Date"))
            text = response.read(_LARGEST_ANSWER).decode("utf-8", "replace")
            return Answer(response.status, text, path.partition("?")[0], response.getheader("ETag") or "")
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self._host}:{self._port}{path} does not answer ({error})") from error
        finally:
            connection.close()


# Each source is an endless series of looks: a notice, None when there is none, or why the advice alone cannot be had.
# That one is no reason to back off: an end is looked for as often as ever.
Look = Iterator["Notice | Unavailable | None"]


def aws_imds(service: MetadataService) -> Look:
    token = _aws_token(service)
    while True:
        action = _aws_ask(service, token, "spot/instance-action")
        if action.status == 401:
            # It has run out. One fresh token for each look: a service that refuses that one too is given time.
            token = _aws_token(service)
            action = _aws_ask(service, token, "spot/instance-action")
        if action.status == 200:
            told = _mapping(action.body)
            yield Notice(STOP, f"spot {told.get('action', 'interruption')}", _utc(told.get("time")))
            continue
        _expect(action, 404)
        yield _aws_advice(service, token)


def _aws_advice(service: MetadataService, token: str) -> Notice | Unavailable | None:
    try:
        advice = _aws_ask(service, token, "events/recommendations/rebalance")
        if advice.status == 200:
            return Notice(ADVICE, "rebalance recommendation", _utc(_mapping(advice.body).get("noticeTime")))
        _expect(advice, 404)
    except Unavailable as problem:
        return problem
    return None


def _aws_ask(service: MetadataService, token: str, what: str) -> Answer:
    return service.ask("GET", f"/latest/meta-data/{what}", {"X-aws-ec2-metadata-token": token})


def _aws_token(service: MetadataService) -> str:
    answer = service.ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_S)})
    if answer.status != 200 or not answer.body.strip():
        # A container one network hop away needs a hop limit of 2; 403 means that the owner switched the service off.
        raise Unavailable(f"the metadata service gives no session token (status {answer.status})")
    return answer.body.strip()


def gcp_metadata(service: MetadataService) -> Look:
    headers, root = {"Metadata-Flavor": "Google"}, "/computeMetadata/v1/instance"
    etag = ""
    while True:
        held = f"?wait_for_change=true&timeout_sec={_GCP_HELD_S}&last_etag={etag}" if etag else ""
        answer = service.ask("GET", f"{root}/preempted{held}", headers, _GCP_HELD_S + _ANSWER_WITHIN_S)
        _expect(answer, 200)
        etag = answer.etag
        if answer.body.strip() == "TRUE":
            yield Notice(STOP, "preempted")
            continue
        yield _gcp_advice(service, f"{root}/maintenance-event", headers)


def _gcp_advice(service: MetadataService, path: str, headers: dict[str, str]) -> Notice | Unavailable | None:
    try:
        advice = service.ask("GET", path, headers)
        _expect(advice, 200)
    except Unavailable as problem:
        return problem
    maintenance = advice.body.strip()
    return Notice(ADVICE, maintenance) if maintenance.startswith("TERMINATE") else None


def azure_scheduled_events(service: MetadataService) -> Look:
    headers = {"Metadata": "true"}
    named = service.ask("GET", "/metadata/instance/compute/name?api-version=2021-02-01&format=text", headers)
    _expect(named, 200)
    within_s = _AZURE_WITHIN_S
    while True:
        answer = service.ask("GET", "/metadata/scheduledevents?api-version=2020-07-01", headers, within_s)
        _expect(answer, 200)
        within_s = _ANSWER_WITHIN_S
        yield azure_notice(_mapping(answer.body), named.body.strip())


def azure_notice(document: dict[str, Any], machine: str) -> Notice | None:
    """The gravest event for ``machine``: a scale set's document lists those of its neighbours too."""
    events = document.get("Events")
    mine = [
        event
        for event in (events if isinstance(events, list) else [])
        if isinstance(event, dict) and machine in _names(event.get("Resources"))
    ]
    notices = [Notice(_kind(event), str(event.get("EventType")), _not_before(event)) for event in mine]
    return min(notices, key=lambda notice: (notice.kind != STOP, notice.at), default=None)


def _names(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(event: dict[str, Any]) -> str:
    return STOP if event.get("EventType") in _AZURE_ENDS else ADVICE


def _not_before(event: dict[str, Any]) -> str:
    """``NotBefore`` is an HTTP date; empty once the event has begun."""
    import email.utils  # as http.client above

    try:
        return records.utc_text(email.utils.parsedate_to_datetime(str(event.get("NotBefore"))))
    except (TypeError, ValueError, IndexError):
        return ""


def _expect(answer: Answer, status: int) -> None:
    if answer.status != status:
        raise Unavailable(f"the metadata service answers {answer.path} with status {answer.status}")


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _utc(value: object) -> str:
    try:
        return records.utc_text(records.parse_utc(str(value)))
    except ValueError:
        return ""


SOURCES: dict[str, Callable[[MetadataService], Look]] = {
    "aws_imds": aws_imds,
    "gcp_metadata": gcp_metadata,
    "azure_scheduled_events": azure_scheduled_events,
}


class Watcher:
    """Looks at one source from a thread of its own. ``notice`` and ``problem`` are what the last look said."""

    def __init__(
        self, source: str, url: str = "", poll_s: float = POLL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        self.url = url
        self.notice: Notice | None = None
        self.problem = ""
        self._clock = clock
        # The notice in force, and when this machine should be gone by it.
        self._due: tuple[Notice, float] | None = None
        self._service = MetadataService(url or METADATA_URL)
        self._poll_s = poll_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=source, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; one that waits for a held answer ends with the process."""
        self._stopped.set()

    def left_s(self) -> float | None:
        """Seconds until the end that the notice names, by the provider's clock; None when it names none."""
        # Read once: the thread may take it back between two looks at it.
        notice = self.notice
        if notice is None or not notice.at:
            return None
        return records.parse_utc(notice.at).timestamp() - self._service.now()

    def granted_s(self) -> float:
        """Seconds that are left of what the provider grants after a notice without a time."""
        due = self._due
        return GRACE_S[self.source] if due is None else due[1] - self._clock()

    def ends(self) -> bool:
        """Whether the machine is going to end, as far as the source has said and as long as that can be true."""
        notice = self.notice
        return notice is not None and notice.kind == STOP and self._overdue_s(notice) <= OVERDUE_MARGIN_S

    def overdue(self) -> str:
        """Why the notice is not believed any more; empty while it is, or when there is none."""
        return self._why_overdue(self.notice)

    def _why_overdue(self, notice: Notice | None) -> str:
        late_s = 0.0 if notice is None or notice.kind != STOP else self._overdue_s(notice)
        if notice is None or late_s <= OVERDUE_MARGIN_S:
            return ""
        silence = f", and now the source cannot be asked: {self.problem}" if self.problem else ""
        return f"{self.source} announced its end ({notice.event}), it lives {late_s:.0f} s longer{silence}"

    def _overdue_s(self, notice: Notice) -> float:
        """How long the machine has outlived ``notice``; negative before its end."""
        due = self._due
        return self._clock() - due[1] if due is not None and due[0] == notice else 0.0

    def _heed(self, notice: Notice | None) -> None:
        """Take what a look said. The same notice again changes nothing: its time runs from the first look at it."""
        if notice is None or self._due is None or self._due[0] != notice:
            # The time first: whoever reads the notice finds when its machine should be gone.
            self._due = None if notice is None else (notice, self._clock() + self._grace_s(notice))
        self.notice = notice

    def _grace_s(self, notice: Notice) -> float:
        if not notice.at:
            return GRACE_S[self.source]
        # By the provider's clock, read once; this machine's own may be set.
        left_s = records.parse_utc(notice.at).timestamp() - self._service.now()
        return min(max(left_s, 0.0), MOST_NOTICE_S)

    def as_dict(self) -> dict[str, Any]:
        notice = self.notice
        return {
            "source": self.source,
            "notice": notice.as_dict() if notice else None,
            "overdue": self._why_overdue(notice) != "",
            "problem": self.problem,
        }

    def _run(self) -> None:
        back_off = self._poll_s
        while not self._stopped.is_set():
            asked = time.monotonic()
            try:
                for told in SOURCES[self.source](self._service):
                    # A source that cannot be asked any more keeps its last word: machines end without taking it back.
                    # One that lives on all the same goes on working after a while (see :meth:`overdue`).
                    self._heed(None if isinstance(told, Unavailable) else told)
                    self.problem, back_off = str(told) if isinstance(told, Unavailable) else "", self._poll_s
                    # A look that the service held back until something changed needs no pause after it.
                    if self._stopped.wait(max(0.0, self._poll_s - (time.monotonic() - asked))):
                        return
                    asked = time.monotonic()
            except Exception as error:
                # Whatever a service answers: a thread that ended here would never tell of the end of the machine.
                self.problem = str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
                self._stopped.wait(back_off)
                back_off = min(2 * back_off, BACK_OFF_MOST_S)

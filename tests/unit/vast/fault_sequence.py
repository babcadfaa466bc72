# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One seeded sequence of operations and faults on a market in this process, and the rules that it may not break.

Nothing here waits or measures: the clock is virtual, and the same seed does the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import parse_stamp
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import IDEMPOTENT, VastClient
from faulty_market import FaultyMarket

from gpu_tenant.marketplace.contracts import Order
from gpu_tenant.marketplace.dialects import USUAL, Dialect
from gpu_tenant.marketplace.faults import ANY, KINDS, STATUSES

LEAST_OPERATIONS = 8
MOST_OPERATIONS = 40
LEAST_STRUCK = 2
# Virtual seconds in which the state that was declared last is reached once nothing goes wrong any more.
DEADLINE_S = 900.0
MACHINES = 16
# What our client asks of a market while it brings a box to a state.
CALLS = ("search", "create", "list", "show", "change", "destroy", "bid", ANY)
# Nothing happens by these on an engine without boxes.
OF_COPIES = ("copy_fails", "copy_partial", "copy_corrupt", "copy_stuck")
WITHOUT_EFFECT = ("host_key_change", "ssh_cut", "slow_link", "disk_full", *OF_COPIES)
AT_CREATE = ("lost_answer", "garbled", "server_error", "slow", "lost_request", "rate_limited")

TWO_BOXES = "two boxes for one name"
NO_OWNER = "a box without an owner"
FOREIGN = "a foreign box touched"
LATE = "not converged within its deadline"
SILENT = "a failure that does not say what is safe"
RULES = (TWO_BOXES, NO_OWNER, FOREIGN, LATE, SILENT)
# What a create that is sent twice leads to.
RENTED_TWICE = (TWO_BOXES, NO_OWNER, LATE)


class Broken(AssertionError):
    """A rule, one of :data:`RULES`, that a sequence broke."""

    def __init__(self, rule: str, what: object) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


def faults_of(draw: random.Random) -> list[dict[str, Any]]:
    """Two to five faults, the first of them on a create."""
    kinds = [kind for kind in sorted(KINDS) if kind not in WITHOUT_EFFECT]
    more = [fault_of(draw.choice(kinds), draw) for _more in range(draw.randint(1, 4))]
    return [{**fault_of(draw.choice(AT_CREATE), draw), "call": "create", "after": 0}, *more]


def fault_of(kind: str, draw: random.Random) -> dict[str, Any]:
    options = KINDS[kind].options
    fault: dict[str, Any] = {
        "kind": kind,
        "call": draw.choice([call for call in KINDS[kind].calls if call in CALLS]),
        "times": draw.randint(1, 3),
        "after": draw.randint(0, 12),
        "probability": draw.choice((0.5, 1.0)),
    }
    if "seconds" in options:
        fault["seconds"] = draw.choice((5, 45, 90, 400))
    if "status" in options:
        fault.update(status=draw.choice(STATUSES), done=draw.random() < 0.7)
    if "lingers" in options:
        fault["lingers"] = draw.choice(("everywhere", "list"))
    if "admitted" in options:
        fault["admitted"] = draw.random() < 0.5
    return fault


class Sequence:
    """:param folder: empty; nothing in it outlives the sequence."""

    def __init__(self, folder: Path, seed: int, dialect: Dialect = USUAL, rate_limits: bool = False) -> None:
        self._draw = random.Random(f"sequence {seed}")
        self.market = FaultyMarket(
            folder,
            *faults_of(self._draw),
            seed=seed,
            machines=MACHINES,
            forgetful=True,
            dialect=dialect,
            rate_limits=rate_limits,
        )
        self._foreign = self.market.market.contracts.rent(
            Order(self.market.offers()[-1], "debian:12", "ssh", 10.0, price=100.0, label="somebody's own")
        ).id
        self.operations: list[str] = []
        self.refused = 0
        self.struck_in_all = 0
        self.converged_s = 0.0

    @property
    def struck(self) -> int:
        return sum(fault["struck"] for fault in self.market.faults())

    def play(self) -> None:
        """Everything. Broken, for a rule that did not hold."""
        with without_fsync():
            self._run()
            self._converge()

    def _run(self) -> None:
        self._operate("present")
        while len(self.operations) < LEAST_OPERATIONS or self.struck < LEAST_STRUCK:
            assert len(self.operations) < MOST_OPERATIONS, "no fault strikes"
            if len(self.operations) >= LEAST_OPERATIONS:
                self.market.inject("server_error", "list")
            self._operate(self._draw.choices(("present", "started", "stopped", "absent"), weights=(4, 3, 2, 2))[0])
            self.market.sleep(self._draw.choice((1, 30, 200)))

    def _converge(self) -> None:
        """Once nothing goes wrong any more, what is declared is reached, and then there is nothing left to do."""
        declared = self._draw.choice((("present",), ("started",), ("started", "stopped"), ("absent",)))
        self.struck_in_all = self.struck
        self.market.clear()
        begun = self.market.clock()
        for state in (*declared, "absent"):
            self._reach(state)
        self.converged_s = self.market.clock() - begun
        if list(self.market.rows()) != [self._foreign]:
            raise Broken(NO_OWNER, f"left at the end: {sorted(self.market.rows())}")

    def _reach(self, state: str) -> None:
        deadline = self.market.clock() + DEADLINE_S
        while self._operate(state) or not self._is(state):
            if self.market.clock() > deadline:
                raise Broken(LATE, f"{state} after {DEADLINE_S:.0f} s: {self._seen()}")
            self.market.sleep(20.0)
        if self.market.converge(state)["changed"]:
            raise Broken(LATE, f"{state} is declared again, and something changes: {self._seen()}")

    def _is(self, state: str) -> bool:
        column = "intended_status" if state == "stopped" else "actual_status"
        states = {row[column] for row in self._ours().values()}
        wanted = {"present": states, "started": {"running"}, "stopped": {"stopped"}, "absent": set()}[state]
        return states == wanted and bool(states) is (state != "absent")

    def _operate(self, state: str) -> str:
        """Ask for a state once; what it failed with. A failure is an answer too, if it says what is safe."""
        self.operations.append(state)
        failed = ""
        try:
            self.market.converge(state)
        except TenantFailure as failure:
            self.refused += 1
            failed = str(failure)
            if not failure.safe or failure.kind not in ("provider", "no_offer", "gate_refused"):
                raise Broken(SILENT, f"{state}: {failure.kind}: {failure}") from failure
        self._check()
        return failed

    def _check(self) -> None:
        if self.market.rows().get(self._foreign, {}).get("label") != "somebody's own":
            raise Broken(FOREIGN, self._seen())
        touched = [one for one in self.market.sent if one[0] != "GET" and re.search(rf"/{self._foreign}\b", one[1])]
        if touched:
            raise Broken(FOREIGN, touched)
        if len(self._ours()) > 1:
            raise Broken(TWO_BOXES, self._seen())
        for number in self.market.market.books.living():
            if number != self._foreign and not self._is_owned(number):
                raise Broken(NO_OWNER, f"{number}: {self._seen()}")

    def _is_owned(self, number: int) -> bool:
        """Whether our records know the box: by its stamp at least, so that the next run finds it."""
        stamp = parse_stamp(self.market.rows()[number]["label"])
        if stamp is None:
            return False
        record = self.market.store.read_box(stamp.project, stamp.box, stamp.generation) or {}
        return record.get("stamp") == str(stamp) and not record.get("destroyed_at")

    def _ours(self) -> dict[int, dict[str, Any]]:
        """Our boxes that bill."""
        living = set(self.market.market.books.living()) - {self._foreign}
        return {number: row for number, row in self.market.rows().items() if number in living}

    def _seen(self) -> list[tuple[int, Any, Any, Any]]:
        names = ("label", "actual_status", "intended_status")
        rows = sorted(self.market.rows().items())
        return [(number, *(row[name] for name in names)) for number, row in rows]  # type: ignore[misc]


@contextmanager
def without_fsync() -> Iterator[None]:
    """Nothing here is to survive a power cut, and most of a sequence's time would be the disk's."""
    with mock.patch("os.fsync"):
        yield


@contextmanager
def creates_are_repeated() -> Iterator[None]:
    """Turn back on what must never be: a create is sent again when its answer is lost."""
    plain = VastClient.request

    def repeating(client: VastClient, method: str, path: str, repeat: str, *rest: Any, **named: Any) -> Any:
        return plain(client, method, path, IDEMPOTENT if "/asks/" in path else repeat, *rest, **named)

    with mock.patch.object(VastClient, "request", repeating):
        yield

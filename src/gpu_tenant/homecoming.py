# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The end of ``gpu-tenant go``: its results are home, and the one machine that they came from may go, if somebody
consented to that. Every other box is only named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore

from gpu_tenant import parking, recovering
from gpu_tenant.approve import Consent, give, receipts_of
from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation
from gpu_tenant.observe import Observer
from gpu_tenant.progress import Progress

_HOME = "results are home and verified"


@dataclass
class GoResult:
    """How it ended for the one box that did the work. ``left_behind``: other boxes of the command that are rented."""

    box: str
    receipt: Mapping[str, Any]
    destroyed: bool = False
    next_steps: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)


class Homecoming:
    """:param boxes: all that ``go`` may work on.

    :param approver: consents to the end of the machine that the results came from; empty for nobody.
    :param teardown: ends a box, where the gate lets it go; raises otherwise.
    """

    def __init__(
        self,
        boxes: Sequence[BoxHost],
        observer: Observer,
        progress: Progress,
        run_id: str,
        approver: str,
        reason: str,
        teardown: Callable[[BoxHost], None],
    ) -> None:
        self._boxes = {box.name: box for box in boxes}
        self._observer = observer
        self._progress = progress
        self._run_id = run_id
        self._approver = approver
        self._reason = reason or f"run {run_id} is home"
        self._teardown = teardown

    def end(self, receipt: Mapping[str, Any]) -> GoResult:
        """Let the machine of the receipt go, or say what is left and how to end it."""
        name = str(receipt.get("box"))
        result = GoResult(name, receipt)
        host = self._boxes.get(name)
        seen = self._observer.observe("", list(self._boxes), each_alone=True)
        if host is None:
            self._say(result, f"box {name}, which they came from, is not among those named here, and was not looked at")
            result.next_steps = self._steps(name)
        else:
            self._end_box(host, seen[name], result)
        for other in [one for one in seen.values() if one.box != name]:
            self._name_other(other, result)
        return result

    def _end_box(self, host: BoxHost, seen: Observation, result: GoResult) -> None:
        if seen.provider == "absent":
            result.destroyed = True
            self._say(result, f"no box is rented as {host.name} any more")
        elif seen.item is None:
            blind = seen.provider == "unreachable"
            self._say(result, f"the box was not seen: {seen.problem}" if blind else "no market rents the box out")
        elif not self._is_of(host, seen, result.receipt):
            self._say_other_machine(seen, seen.item.provider_id, result)
        elif self._approved(host, recovering.identity_of(host.required("tenant_project"), seen)):
            self._teardown(host)
            result.destroyed = True
            self._say(result, "the box is destroyed")
        else:
            self._say(result, f"the box is {seen.provider} and kept, because nobody approved its end")
            result.next_steps = self._steps(host.name)
            self._name_superseded(seen, result)

    @staticmethod
    def _is_of(host: BoxHost, seen: Observation, receipt: Mapping[str, Any]) -> bool:
        """Whether the results came from the very machine that is rented now."""
        identity = recovering.identity_of(host.required("tenant_project"), seen).as_dict()
        return all(receipt.get(name) == value for name, value in identity.items())

    def _approved(self, host: BoxHost, identity: BoxIdentity) -> bool:
        store = StateStore(host.required("tenant_state_dir"))
        if not approvals.find(store, identity, "destroy") and self._approver:
            give(store, identity, "destroy", Consent(self._approver, self._reason), receipts_of(store, identity))
        return bool(approvals.find(store, identity, "destroy"))

    def _say_other_machine(self, seen: Observation, provider_id: str, result: GoResult) -> None:
        came_from = f"instance {result.receipt.get('provider_id')} of generation {result.receipt.get('generation')}"
        now = f"instance {provider_id} of generation {seen.generation}"
        self._say(result, f"they came from {came_from}; the box is {now} now, {seen.provider}, and is left as it is")
        result.next_steps = [f"gpu-tenant status -l {seen.box}  # what {now} is there for"]
        self._name_superseded(seen, result)

    def _name_superseded(self, seen: Observation, result: GoResult) -> None:
        for old in seen.superseded:
            what = f"instance {old.provider_id} of generation {old.generation} was replaced and bills as well"
            self._progress.emit("warning", what, seen.box)
            result.next_steps.append(
                f"gpu-tenant approve destroy {seen.box} --generation {old.generation} --approver YOU --loss "
                f"--reason 'replaced'  # if the teardown does not let instance {old.provider_id} go"
            )

    def _name_other(self, seen: Observation, result: GoResult) -> None:
        """The run may have been on this box as well, and what is rented bills."""
        if seen.provider == "unreachable":
            self._progress.emit("warning", "it was not seen; if it is rented, it bills", seen.box)
        if seen.item is None:
            return
        rests = seen.provider != "running" and parking.can_rest(self._boxes[seen.box])
        bills = "its disk bills" if rests else "it bills"
        which = f"instance {seen.item.provider_id}"
        self._progress.emit("warning", f"{which} is rented as well and {seen.provider}: {bills}", seen.box)
        result.left_behind.append(seen.box)
        result.next_steps.append(f"gpu-tenant teardown -l {seen.box}  # once nothing is wanted from {which}")

    def _steps(self, name: str) -> list[str]:
        return [
            f"gpu-tenant approve destroy {name} --approver YOU --reason 'run {self._run_id} is home'",
            f"gpu-tenant teardown -l {name}",
        ]

    def _say(self, result: GoResult, how: str) -> None:
        self._progress.emit("result", f"{_HOME}; {how}", result.box)

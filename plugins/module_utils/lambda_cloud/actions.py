# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to Lambda's instances beside what is done to all boxes: an unhealthy one is restarted, none stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Mapping

from .. import power_record
from ..failures import TenantFailure
from ..rental_account import DESTROY, REBOOT, Passed, RentalAccount, identity_of
from .api import LambdaClient
from .transformations import FileSystem, Vm, to_file_system, to_vm

# For how long an instance may be unhealthy before it counts as such: one that comes up is so for moments.
ALERT_GRACE_S = 120.0


@dataclass
class VmAccount(RentalAccount[Vm]):
    """One account of Lambda's, as seen from one state store."""

    client: LambdaClient

    PLATFORM = "lambda"
    CLIENT = LambdaClient
    # A restart keeps the root disk, a termination the file systems alone. No verb stops an instance.
    KEEPS: ClassVar = {DESTROY: ("file_system",), REBOOT: ("disk", "file_system")}
    LABEL = "name"

    def to_box(self, row: Mapping[str, Any]) -> Vm:
        return to_vm(row)

    def facts_of(self, box: Vm) -> dict[str, Any]:
        """Lambda tells no machine."""
        return {"machine_id": None, "region": box.region, "file_systems": list(box.file_systems)}

    def watch(self, _box: Vm) -> Callable[[Vm], str]:
        unhealthy_since: list[float] = []

        def verdict(found: Vm) -> str:
            if found.is_leaving:
                return f"the provider says that it is {found.status}"
            if not found.is_alert:
                unhealthy_since.clear()
                return "the provider took it back" if found.status == "preempted" else ""
            unhealthy_since.append(self.client.clock())
            if unhealthy_since[-1] - unhealthy_since[0] < ALERT_GRACE_S:
                return ""
            return "it is unhealthy (Alert): it was shut down from inside, or is not heard of, and bills on"

        return verdict

    def stuck(self, box: Vm, reason: str, fix: str = "") -> TenantFailure:
        if box.is_alert and not fix:
            fix = (
                "if it still answers, harvest it (harvest_offline: true); else restart it (restart_unhealthy: true), "
                "which keeps its disk and ends what runs on it. Only absent ends the bill"
            )
        return super().stuck(box, reason, fix)

    def tell_to_stop(self, box: Vm) -> Passed:
        raise no_rest(box.stamp.box if box.stamp else "")

    def restart(self, vm: Vm, wait_s: float) -> tuple[Vm, Passed]:
        """Restart an instance, through the gate with what that keeps, and wait until it runs again.

        AmbiguousAnswer when the provider's answer is lost: a second one would restart it once more.
        """
        passed = self.pass_gate(vm, REBOOT)
        with self.effect(REBOOT, vm, rule=passed.rule, approval_id=passed.approval_id), self._spending(passed):
            power_record.note_start(self.store, identity_of(vm))
            self.client.restart_instance(vm.provider_id)
        return self.await_running(vm, wait_s), passed

    def file_systems(self) -> list[FileSystem]:
        """Those of the account, by name. They bill whatever becomes of instances."""
        return sorted(map(to_file_system, self.client.list_file_systems()), key=lambda one: (one.name, one.id))


def no_rest(name: str) -> TenantFailure:
    """Why nothing stops an instance: a shutdown from inside would bill on, and nobody would hear of it."""
    return TenantFailure(
        "config",
        "Lambda has no state of rest: an instance bills until it is terminated, also after a shutdown from inside",
        box=name,
        safe="nothing was asked, and nothing was changed",
        fix=(
            f"end it once its results are home: gpu-tenant harvest -l {name}, gpu-tenant approve destroy {name}, "
            f"gpu-tenant teardown -l {name} (or state absent); what lies on its file systems stays"
        ),
    )

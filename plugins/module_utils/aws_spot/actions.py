# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to Spot Instances beside what is done to all boxes: they are tagged, and never stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Mapping

from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rental_account import DESTROY, Passed, RentalAccount
from .api import LOGIN_TAG, STAMP_TAG, Ec2Client
from .transformations import SpotBox, instance_left, left_result, to_spot_box, volume_left


@dataclass
class SpotAccount(RentalAccount[SpotBox]):
    """One account on EC2 in one region, as seen from one state store."""

    client: Ec2Client

    PLATFORM = "aws_spot"
    CLIENT = Ec2Client
    # Its disk is deleted with it. No verb stops an instance of a one-time request.
    KEEPS: ClassVar = {DESTROY: ()}
    LABEL = f"tag {STAMP_TAG}"

    def to_box(self, row: Mapping[str, Any]) -> SpotBox:
        return to_spot_box(row)

    def facts_of(self, box: SpotBox) -> dict[str, Any]:
        """EC2 tells no machine."""
        return {"machine_id": None, "zone": box.zone, "instance_type": box.instance_type}

    def request_of(self, box: SpotBox) -> str:
        return box.request_id

    def leftovers(self) -> list[Leftover]:
        """What bills in the region beside our instances, whose price holds their own disks."""
        ours = {str(row["id"]) for row in self.client.list_instances()}
        volumes = [volume_left(one) for one in self.client.list_volumes()]
        return [
            *map(instance_left, self.client.unstamped_instances()),
            *(one for one in volumes if one.box not in ours),
        ]

    def watch(self, _box: SpotBox) -> Callable[[SpotBox], str]:
        def verdict(found: SpotBox) -> str:
            if found.is_leaving:
                return f"it is {found.status} ({found.status_msg or 'no reason is told'})"
            if found.intended == "stopped":
                return "it was stopped by somebody else, and a Spot Instance of a one-time request is not started again"
            return ""

        return verdict

    def tell_to_stop(self, box: SpotBox) -> Passed:
        raise no_rest(box.stamp.box if box.stamp else "")

    def ensure_tagged(self, box: SpotBox) -> None:
        """The stamp on the instance and on its disks: EC2 forgets a request before it forgets what came of it."""
        if box.stamp is not None and not box.is_tagged and not box.is_waiting:
            named = {STAMP_TAG: str(box.stamp), "Name": f"{box.stamp.project}/{box.stamp.box}"}
            login = {LOGIN_TAG: box.login} if box.login else {}
            # Last the instance: whoever dies before comes back to all of it.
            self.client.tag(box.volumes, named)
            self.client.tag([box.provider_id], {**named, **login})

    def left(self, project: str, name: str) -> list[dict[str, Any]]:
        """The volumes of generations of this box that nothing uses any more. They bill until a person deletes them."""
        stamps = {
            str(record["stamp"])
            for generation in range(1, self.store.last_generation(project, name) + 1)
            if (record := self.store.read_box(project, name, generation)) and record.get("stamp")
        }
        volumes = self.client.left_volumes(stamps)
        return [left_result(one) for one in volumes if one.get("State") == "available"]


def no_rest(name: str) -> TenantFailure:
    """Why nothing stops an instance."""
    return TenantFailure(
        "config",
        "a Spot Instance of a one-time request has no state of rest: EC2 refuses to stop it, and a shutdown from "
        "inside does not keep it",
        box=name,
        safe="nothing was asked, and nothing was changed",
        fix="harvest it, then make it absent",
    )

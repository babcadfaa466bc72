# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to pods beside what is done to all boxes: a pod may come back without its GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, ClassVar, Mapping

from .. import power_record
from ..box_events import roots_in
from ..failures import TenantFailure
from ..leftovers import Leftover
from ..rental_account import DESTROY, STOP, Passed, RentalAccount, identity_of
from ..rental_waiters import SETTLING_GRACE_S
from ..rest_client import RestError
from .api import RunpodClient
from .transformations import Pod, to_pod
from .volumes import to_volume, volume_left

PLATFORM = "runpod"


@dataclass
class PodAccount(RentalAccount[Pod]):
    """One account of RunPod's, as seen from one state store.

    :param data_dir: where the results of its pods lie; unknown when empty, and then no stop keeps them.
    """

    client: RunpodClient
    data_dir: str = ""

    PLATFORM = PLATFORM
    CLIENT = RunpodClient
    # The tier disk holds the data folder: a pod's volume disk, or the network volume in its place.
    KEEPS: ClassVar = {DESTROY: ("network_volume",), STOP: ("disk", "network_volume")}
    THING = "pod"
    LABEL = "name"

    def to_box(self, row: Mapping[str, Any]) -> Pod:
        return to_pod(row)

    def leftovers(self) -> list[Leftover]:
        rows = self.client.list_volumes()
        pods = [to_pod(row) for row in self.client.list_instances()] if rows else []
        return [volume_left(row, pods) for row in rows]

    def volume_rates(self, project: str) -> dict[str, float | None]:
        volumes = [to_volume(row, []) for row in self.client.list_volumes()]
        ours = [volume for volume in volumes if volume is not None and volume.stamp.project == project]
        return {volume.volume_id: volume.price_per_hour for volume in ours}

    def facts_of(self, box: Pod) -> dict[str, Any]:
        return {"machine_id": box.machine}

    def watch(self, box: Pod) -> Callable[[Pod], str]:
        began = self.client.clock()

        def verdict(found: Pod) -> str:
            if found.is_leaving:
                return "the provider no longer has it"
            if found.desired == "ERROR":
                return "its container is in an error that it does not come out of"
            if not found.has_ssh:
                return "its ports lack 22/tcp, and RunPod's proxy is a shell that carries no file"
            late = self.client.clock() - began >= SETTLING_GRACE_S
            return "it is stopped although it was told to run" if late and found.state == "stopped" else ""

        return verdict

    def was_started(self, now: Pod, judged: Pod, since: float | None) -> bool:
        """RunPod tells the moment of the last start, so that any other moment than the judged one is a start."""
        return super().was_started(now, judged, since) or now.start_date != judged.start_date

    def resume(self, pod: Pod, wait_s: float) -> Pod:
        """Start a pod and wait until it runs. TenantFailure says what it lacks."""
        identity = identity_of(pod)
        before = power_record.read(self.store, identity) or {}
        with self.effect("start", pod):
            power_record.note_start(self.store, identity)
            try:
                self.client.set_state(pod.provider_id, "running")
            except RestError as refusal:
                if refusal.code != "no_capacity" or not self._still_rests(pod):
                    raise
                # It never ran, so a seal from before still holds: else it could neither start nor be let go.
                times = {name: before.get(name) for name in ("parked_at", "started_at")}
                self.store.update_box(identity.project, identity.box, identity.generation, **times)
                raise _no_gpu_on_host(pod, refusal) from None
        return self.priced(self.await_running(pod, wait_s))

    def undo_start(self, pod: Pod, refusal: TenantFailure, wait_s: float) -> TenantFailure:
        """Stop a pod that this call started and that nobody consented to; the refusal, with how the pod was left."""
        try:
            self.stop(pod, wait_s)
        except TenantFailure as failure:
            left = f"it was started, runs on and bills, because the stop that was to follow failed: {failure.what}"
        else:
            left = "it was stopped again at once; its volume disk is kept, and bills double"
        return TenantFailure(refusal.kind, refusal.what, box=refusal.box, safe=left, fix=refusal.fix)

    def _still_rests(self, pod: Pod) -> bool:
        now = self.look(pod)
        return now is not None and now.is_resting and now.start_date == pod.start_date

    def pass_gate(self, box: Pod, verb: str) -> Passed:
        """As the base class asks it; the stop of a pod whose data folder is not on its volume keeps nothing."""
        if verb == STOP and not self.keeps_data(box) and self.keeps.get(STOP) != ():
            return replace(self, keeps={**self.keeps, STOP: ()}).pass_gate(box, verb)
        return super().pass_gate(box, verb)

    def keeps_data(self, pod: Pod) -> bool:
        """Whether a stop keeps the data folder, and every folder that our record knows was deployed to."""
        deployed = roots_in(power_record.read(self.store, identity_of(pod)) or {})
        return all(pod.keeps(folder) for folder in [self.data_dir, *deployed])

    def check_gpus(self, pod: Pod, wanted: int) -> Pod:
        """``pod`` if it has as many GPUs as are wanted, or the provider does not say. TenantFailure for fewer."""
        if pod.num_gpus is None or pod.num_gpus >= wanted:
            return pod
        raise self.stuck(
            pod,
            f"it runs with {pod.num_gpus} of {wanted} GPUs: its machine has let them to somebody else",
            "harvest it without them (state: started, gpu_required: false), or leave it stopped (state: stopped) and "
            "start it again later; to train on, rent another generation once it is absent",
        )


def _no_gpu_on_host(pod: Pod, refusal: RestError) -> TenantFailure:
    return TenantFailure(
        "provider",
        f"pod {pod.provider_id} was not started: {refusal.what}",
        box=pod.stamp.box if pod.stamp else "",
        safe="it rests as before, and its volume disk is kept and bills double",
        fix="try again later; or start it without a GPU in the provider's console, harvest it, and make it absent",
    )

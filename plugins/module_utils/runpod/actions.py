# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is done to pods: find, start, stop, terminate. Renting is in ``rental``.

The gate, the journal, the leases and the locks are those of :class:`..vast.actions.Account`; what differs on RunPod is
what each verb keeps, how pods are read, and that one may come back without its GPU.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Iterator

from .. import power_record
from ..box import records
from ..failures import TenantFailure
from ..rest_client import RestError
from ..vast.actions import DESTROY, STOP, Account, Found, Passed, identity_of
from ..vast.ghosts import real_boxes
from ..vast.transformations import Box
from .transformations import Pod, current_and_superseded, stamp_of, to_pod
from .waiters import stuck, wait_for_gone, wait_for_rest, wait_for_running

PLATFORM = "runpod"
# What survives each verb. The tier disk holds the data folder: a pod's volume disk, or the network volume in its place.
# A profile may promise less than this, never more.
KEEPS = {DESTROY: ("network_volume",), STOP: ("disk", "network_volume")}


@dataclass
class PodAccount(Account):
    """One account of RunPod's, as seen from one state store.

    :param client: a :class:`.api.RunpodClient`, in the words that the base class speaks.
    """

    client: Any

    def kept_by(self, verb: str) -> list[str]:
        promised = self.keeps.get(verb)
        return [tier for tier in KEEPS[verb] if promised is None or tier in promised]

    # -- finding -------------------------------------------------------------------------------------------------

    def locate(self, project: str, name: str) -> Found:
        """The pods of this name by the provider's list, and the store's records brought in line with them."""
        asked_at = records.utc_now()
        current, superseded = current_and_superseded(map(to_pod, self.client.list_instances()), project, name)
        listed = ([current] if current else []) + superseded
        there = real_boxes(self.client, self.store, listed)
        found = Found(there[0] if there else None, there[1:], [pod for pod in listed if pod not in there])
        for pod in found.all:
            self._remember(pod)
            self._note_seen(pod, asked_at)
        return found

    def look(self, box: Box) -> Pod | None:
        """The pod as the provider shows it now; None when it says that there is none.

        TenantFailure when it carries another stamp: then it is not the pod that we meant.
        """
        row = self.client.get_instance(box.provider_id)
        if row is None:
            return None
        if box.stamp is not None and stamp_of(row) != box.stamp:
            raise TenantFailure(
                "provider",
                f"pod {box.provider_id} no longer carries the stamp {box.stamp}",
                box=box.stamp.box,
                safe="it was not touched",
                fix="look at its name in the provider's console",
            )
        return to_pod(row)

    def _check_known_ids(self, project: str, name: str) -> None:
        """A list tells no total: a pod that it lacks is gone only when its own item says so."""
        for record in self.open_records(project, name):
            row = self.client.get_instance(str(record["provider_id"]))
            if row is not None and str(stamp_of(row)) == record.get("stamp"):
                raise RestError(
                    f"the list of pods lacks {record['provider_id']}, which the provider still has",
                    200,
                    "partial",
                    safe="nothing was rented or terminated",
                    fix="run again in a minute",
                )

    def _remember(self, box: Box) -> None:
        """As the base class does: a record that we did not begin knows nothing of deploys, and looks not virgin."""
        stamp = box.stamp
        if stamp is None or self.read_only:
            return
        record = self.store.read_box(stamp.project, stamp.box, stamp.generation) or {}
        if record.get("provider_id") or record.get("stamp", str(stamp)) != str(stamp):
            return
        facts: dict[str, Any] = {
            "provider_id": box.provider_id,
            "platform": PLATFORM,
            "stamp": str(stamp),
            "machine_id": box.machine if isinstance(box, Pod) else None,
            "price_per_hour": box.dph_total,
            "market": box.market,
            "created_at": records.utc_now() if record.get("stamp") else None,
            "destroyed_at": None,
        }
        self.store.update_box(stamp.project, stamp.box, stamp.generation, **facts)

    # -- power ---------------------------------------------------------------------------------------------------

    def resume(self, pod: Pod, gpus: int, wait_s: float) -> Pod:
        """Start a pod and wait until it runs with this many GPUs at least. TenantFailure says what it lacks."""
        identity = identity_of(pod)
        before = power_record.read(self.store, identity) or {}
        with self._effect("start", pod):
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
        return check_gpus(self.await_pod(pod, wait_s), gpus)

    def await_pod(self, pod: Pod, wait_s: float) -> Pod:
        return wait_for_running(self.client, pod, lambda: self.look(pod), wait_s)

    def rest(self, pod: Pod, wait_s: float) -> tuple[Pod | None, Passed]:
        """Stop a pod and wait until it rests. Through the gate, with what a stop of this very pod keeps."""
        passed = self.tell_to_stop(pod)
        return wait_for_rest(self.client, pod, lambda: self.look(pod), wait_s), passed

    def _still_rests(self, pod: Pod) -> bool:
        now = self.look(pod)
        return now is not None and now.state == "stopped" and now.start_date == pod.start_date

    # -- the end -------------------------------------------------------------------------------------------------

    def pass_gate(self, box: Box, verb: str) -> Passed:
        """As the base class asks it; the stop of a pod whose data folder is on the container disk keeps nothing."""
        if verb == STOP and not (isinstance(box, Pod) and box.keeps_data) and self.keeps.get(STOP) != ():
            return replace(self, keeps={**self.keeps, STOP: ()}).pass_gate(box, verb)
        return super().pass_gate(box, verb)

    def await_gone(self, box: Box, wait_s: float) -> None:
        """Wait until the provider says twice that the pod is gone, and close its record."""
        pod = box if isinstance(box, Pod) else to_pod({"id": box.provider_id})
        wait_for_gone(self.client, pod, lambda: self.client.get_instance(box.provider_id) is None, wait_s)
        self._note_gone(box)

    def _recheck(self, judged: Box, since: float | None) -> Box | None:
        """RunPod tells the moment of the last start, so that any other moment than the judged one is a start."""
        now = super()._recheck(judged, since)
        if now is not None and now.start_date != judged.start_date:
            raise TenantFailure(
                "gate_refused",
                f"pod {judged.provider_id} was started again while the evidence was read",
                box=judged.stamp.box if judged.stamp else "",
                safe="it was not touched",
                fix="harvest it again, then repeat",
            )
        return now

    @contextlib.contextmanager
    def _effect(self, verb: str, box: Box, **fields: Any) -> Iterator[Any]:
        identity = identity_of(box)
        self.check_lease(identity.project, identity.box)
        rates = {"price_per_hour": box.dph_total, "stopped_per_hour": box.storage_per_hour}
        with self.journal.effect(verb, **identity.as_dict(), platform=PLATFORM, **rates, **fields) as effect:
            yield effect


def check_gpus(pod: Pod, wanted: int) -> Pod:
    """``pod`` if it has as many GPUs as are wanted, or the provider does not say. TenantFailure for fewer."""
    if pod.num_gpus is None or pod.num_gpus >= wanted:
        return pod
    raise stuck(
        pod,
        f"it runs with {pod.num_gpus} of {wanted} GPUs: its machine has let them to somebody else",
        "harvest it as it is (gpu_required: false), or stop it and start it again later; to train on, rent another "
        "generation once it is absent",
    )


def _no_gpu_on_host(pod: Pod, refusal: RestError) -> TenantFailure:
    return TenantFailure(
        "provider",
        f"pod {pod.provider_id} was not started: {refusal.what}",
        box=pod.stamp.box if pod.stamp else "",
        safe="it rests as before, and its volume disk is kept and bills double",
        fix="try again later; or start it without a GPU in the provider's console, harvest it, and make it absent",
    )

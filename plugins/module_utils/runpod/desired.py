# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From what a pod shall be to what is done: the whole of ``runpod_pod`` but its options.

``changed`` and ``diff`` come from one comparison of the pod before and after; in check mode "after" is predicted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Callable

from .. import power_record, rental_states
from ..creation import check_order
from ..failures import TenantFailure
from ..ghosts import real_boxes
from ..rental_account import Found, identity_of
from ..rental_states import (
    ABSENT,
    PRESENT,
    STARTED,
    STOPPED,
    absent,
    converged,
    located,
    refuse_dearer,
    rows_by_name,
    stopped,
)
from ..rented_box import HOURS_PER_MONTH
from .actions import PodAccount
from .api import RunpodClient
from .rental import PodOrder, PodRental, in_data_center, order_problem, refuse_without_spot, switch_problem
from .transformations import DISK_RUNNING, VOLUME_RESTING, Pod, clocks_of, epoch_of, pod_result, to_pod

STATES = (PRESENT, STARTED, STOPPED, ABSENT)
_RUNS = ("running", "loading")


@dataclass(frozen=True)
class Desire:
    """:param gpus: how many a pod that runs must have at least; 0 where it is only to be harvested.
    :param provider_id: only for stopped and absent: this one of the pods that carry the name; empty for all.
    """

    state: str
    order: PodOrder
    gpus: int = 1
    provider_id: str = ""


@dataclass
class Result(rental_states.Result[Pod]):
    """What came of it; :meth:`as_result` is what the module returns."""

    ROW = "pod"

    def show(self, box: Pod, provider_now: float | None) -> dict[str, Any]:
        return pod_result(box, provider_now)


def converge(account: PodAccount, desire: Desire, check_mode: bool = False) -> dict[str, Any]:
    """Bring the pod to the desired state; what ``runpod_pod`` returns. TenantFailure names the box."""
    steps: dict[str, Callable[..., Result]] = {
        PRESENT: _present,
        STARTED: _present,
        STOPPED: functools.partial(stopped, Result),
        ABSENT: functools.partial(absent, Result),
    }
    return converged(account, desire, steps, check_mode)


def _present(account: PodAccount, desire: Desire, check_mode: bool) -> Result:
    order = desire.order
    found = located(account, desire)
    pod = found.current
    if pod is None:
        return _rented(account, desire, found, check_mode)
    result = Result(before=pod, found=found, after=pod, warnings=_wiped(account, pod) + _will_act(account, pod))
    if desire.state == STARTED or pod.state in _RUNS:
        refuse_dearer(account, pod, order.name, order.price_cap)
    if desire.state == STARTED and pod.state not in _RUNS:
        result.predicted = {"state": "started"}
        if check_mode:
            result.would = {"price_per_hour": pod.dph_total, "price_cap": order.price_cap, "clocks": clocks_of(pod)}
        else:
            result.after = _started(account, desire, pod)
        return result
    if pod.state in _RUNS and not check_mode:
        result.after = account.check_gpus(account.await_running(pod, order.wait_s), desire.gpus)
    return result


def _wiped(account: PodAccount, pod: Pod) -> list[str]:
    """A warning, before anything is put there, where a stop takes the data folder with it."""
    if account.keeps_data(pod):
        return []
    return [
        f"a stop of pod {pod.provider_id} wipes {account.data_dir}, which is not below the mount path of a volume "
        f"({pod.mount_path or 'unknown'}): the gate lets it stop only once its results are home"
    ]


def _will_act(account: PodAccount, pod: Pod) -> list[str]:
    """A warning while what RunPod does by itself is ahead: nothing moves it, whatever runs then."""
    record = power_record.read(account.store, identity_of(pod)) or {}
    now, told = account.client.provider_now(), []
    acts = [
        (
            "terminates",
            "terminates_at",
            "terminate_after_s): its volume disk goes with it, whatever is home by then; bring its results home before",
        )
    ]
    if pod.state in _RUNS:
        acts += [
            (
                "stops",
                "stops_at",
                "stop_after_s): what trains then is interrupted, and its volume is kept; start it again to go on",
            )
        ]
    for does, name, words in acts:
        at = epoch_of(record.get(name))
        if at is not None and now is not None and at > now:
            hours = (at - now) / 3600
            told.append(f"RunPod itself {does} pod {pod.provider_id} at {record[name]}, in {hours:.1f} hours ({words}")
    return told


def _started(account: PodAccount, desire: Desire, pod: Pod) -> Pod:
    """The pod, started. One that nobody consented to as it came up is stopped again: it would bill on."""
    wait_s = desire.order.wait_s
    running = account.resume(pod, wait_s)
    try:
        refuse_dearer(account, running, desire.order.name, desire.order.price_cap)
        return account.check_gpus(running, desire.gpus)
    except TenantFailure as refusal:
        raise account.undo_start(running, refusal, wait_s) from None


def _rented(account: PodAccount, desire: Desire, found: Found[Pod], check_mode: bool) -> Result:
    order = desire.order
    check_order(order.name, order_problem(order, account.client.key) or switch_problem(order, account.data_dir))
    refuse_without_spot(account, order)
    order = in_data_center(account, order)
    rental = PodRental(account, order)
    result = Result(before=None, found=found)
    if check_mode:
        rental.predict(result)
        result.would = _would(order)
    else:
        pod = rental.rent_into(result)
        result.warnings += _wiped(account, pod) + _will_act(account, pod)
    return result


def _would(order: PodOrder) -> dict[str, Any]:
    """What renting would mean in money, as far as it is known before: RunPod's REST tells no price of a card."""
    volume = 0 if order.network_volume else order.volume_gb
    return {
        "gpu_types": list(order.gpu_types),
        "gpu_count": order.gpu_count,
        "cloud_type": order.cloud_type,
        "market": order.market,
        "price_per_hour": None,
        "price_cap": order.price_cap,
        "clocks": {
            "disks_running_per_hour": round((order.container_gb + volume) * DISK_RUNNING / HOURS_PER_MONTH, 6),
            "stopped_per_hour": round(volume * VOLUME_RESTING / HOURS_PER_MONTH, 6),
            "stops_by_itself_after_s": order.stop_after_s or None,
            "terminates_by_itself_after_s": order.terminate_after_s or None,
            "warning": "the price is known once the pod is rented; one above price_cap is terminated at once",
        },
    }


def list_pods(client: RunpodClient, project: str | None, name: str | None) -> dict[str, Any]:
    """What ``runpod_pod_info`` returns: the stamped pods by project, name and generation."""
    pods = real_boxes(client, None, map(to_pod, client.list_instances()))
    shown = rows_by_name(pods, project, name, lambda pod: pod_result(pod, client.provider_now()))
    return {"changed": False, "pods": shown, "unstamped": sum(pod.stamp is None for pod in pods)}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A box as its provider shows it, whichever provider it is, and what is computed from that."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, TypeVar

from .box import records
from .stamp import Stamp

HOURS_PER_MONTH = 720.0  # the markets' month: a price per month, divided by this, is the price per hour

# What the states of a box mean for whoever asks whether anything on it can work, or write.
RESTING = ("stopped", "outbid")
COMING_UP = ("loading", "scheduling")
WORKING = ("running", *COMING_UP)

# What a price may differ by its way of being told, in dollars an hour.
_TOLD_APART = 1e-6

FAILED_TO_START = re.compile(
    r"oci runtime|error response from daemon|manifest unknown|pull access denied|invalid reference format|"
    r"no such image|exec format error|permission denied",
    re.I,
)


def exceeds(price: float, cap: float | None) -> bool:
    """Whether a price an hour is more than was consented to; where nobody set a cap, none is."""
    return cap is not None and price > cap + _TOLD_APART


@dataclass(frozen=True)
class Box:
    """One instance (pod, machine, ...) of the account.

    ``state`` is one word of: loading, running, stopped, outbid, scheduling, exited, offline, unknown.
    ``host`` is empty while there is no usable endpoint; ``endpoint_problem`` says when the provider gave a bad one.
    ``is_leaving``: it was destroyed and is listed until the provider is done.
    Prices are dollars an hour, None when the API does not say. ``bid`` is what an interruptible box bids.
    ``label``, ``gpu_name`` and ``status_msg`` are untrusted text.
    ``ports`` are where the ports beside ssh's are reached while it runs.
    ``credit_balance`` is left of what was paid ahead for it; ``most_discount`` is the most that paying ahead brings.
    ``image``, ``onstart`` and ``environment`` are what it was rented with; empty or None when the API does not say.
    """

    provider_id: str
    stamp: Stamp | None
    label: str
    state: str
    intended: str
    host: str
    port: int
    user: str
    proxy: bool
    machine_id: int | None
    host_id: int | None
    gpu_name: str
    num_gpus: int | None
    gpu_ram_mb: int | None
    dph_total: float | None
    min_bid: float | None
    is_bid: bool
    start_date: float | None
    status_msg: str
    bid: float | None = None
    storage_per_hour: float | None = None
    disk_gb: float | None = None
    uptime_s: float | None = None
    end_date: float | None = None
    actual: str = ""
    is_leaving: bool = False
    endpoint_problem: str = ""
    image: str = ""
    onstart: str | None = None
    environment: dict[str, str] | None = None
    ports: dict[str, dict[str, Any]] = field(default_factory=dict)
    credit_balance: float | None = None
    most_discount: float | None = None

    @property
    def market(self) -> str:
        return "interruptible" if self.is_bid else "on-demand"

    @property
    def deadlines(self) -> dict[str, float | None]:
        """When its provider does something to it by itself, in the provider's epoch seconds, by the ``starts_at`` of
        the profile's clocks; None where it may do so and does not tell when."""
        return {"rental_end": self.end_date}

    @property
    def generation(self) -> int:
        return self.stamp.generation if self.stamp else 0

    @property
    def is_resting(self) -> bool:
        return self.state in RESTING

    @property
    def failed_to_start(self) -> bool:
        """The host's Docker says that this container cannot start."""
        return bool(FAILED_TO_START.search(self.status_msg))


AnyBox = TypeVar("AnyBox", bound=Box)


def current_and_superseded(boxes: Iterable[AnyBox], project: str, box: str) -> tuple[AnyBox | None, list[AnyBox]]:
    """The box that counts, and the others that carry the same project and name.

    The highest generation counts, then the lowest id: two controllers that look at the same list agree.
    """
    ours = [found for found in boxes if found.stamp and (found.stamp.project, found.stamp.box) == (project, box)]
    ours.sort(key=seniority)
    return (ours[0], ours[1:]) if ours else (None, [])


def seniority(box: Box) -> tuple[int, int, str]:
    """Sorts the boxes of one name: the one that counts comes first."""
    is_number = re.match(r"[0-9]{1,18}\Z", box.provider_id) is not None
    return -box.generation, int(box.provider_id) if is_number else 0, box.provider_id


def local_moment(provider_epoch: float | None, provider_now: float | None) -> str | None:
    """A provider's time on our own clock, as UTC text: our now, less the age that the provider's clock gives it."""
    if provider_epoch is None or provider_now is None:
        return None
    age = datetime.timedelta(seconds=max(0.0, provider_now - provider_epoch))
    return records.utc_text(datetime.datetime.now(datetime.timezone.utc) - age)


def started_epoch(box: Box, provider_now: float | None) -> float | None:
    """When the box last began to run, by the provider's clock: its creation, or later if its uptime says so."""
    if box.state != "running" or box.uptime_s is None or provider_now is None:
        return box.start_date
    return max(box.start_date or 0.0, provider_now - box.uptime_s)


def box_facts(box: Box, provider_now: float | None = None) -> dict[str, Any]:
    """A box as a module returns it: plain values, nothing that could be a secret."""
    return {
        "provider_id": box.provider_id,
        "stamp": str(box.stamp) if box.stamp else "",
        "project": box.stamp.project if box.stamp else "",
        "name": box.stamp.box if box.stamp else "",
        "generation": box.generation,
        "state": box.state,
        "intended": box.intended,
        "host": box.host,
        "port": box.port,
        "user": box.user,
        "proxy": box.proxy,
        "endpoint_problem": box.endpoint_problem,
        "ports": box.ports,
        "machine_id": box.machine_id,
        "host_id": box.host_id,
        "gpu_name": box.gpu_name,
        "num_gpus": box.num_gpus,
        "gpu_ram_mb": box.gpu_ram_mb,
        "disk_gb": box.disk_gb,
        "market": box.market,
        "price_per_hour": box.dph_total,
        "bid": box.bid,
        "min_bid": box.min_bid,
        "created_at": local_moment(box.start_date, provider_now),
        "status_msg": box.status_msg,
    }


# 1 January 3000.
_LAST_EPOCH = 32503680000


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    return records.finite(value)


def epoch(value: Any) -> float | None:
    """Epoch seconds of the provider; None for no number, or one that no clock shows."""
    found = number(value)
    return found if found is not None and 0 < found < _LAST_EPOCH else None


def utc_of(told: float | None) -> str | None:
    """Epoch seconds of the provider as UTC text; None for no time, or one that cannot be."""
    moment = epoch(told)
    if moment is None:
        return None
    return records.utc_text(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc))

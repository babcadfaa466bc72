# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From the API's rows to our words: pure, and wary of every string, because a label may be a stranger's."""

from __future__ import annotations

import re
from typing import Any, Iterable

from ..endpoint import check_endpoint
from ..failures import TenantFailure
from ..rented_box import FAILED_TO_START, HOURS_PER_MONTH, Box, box_facts, epoch, number, utc_of
from ..stamp import ENVIRONMENT_NAME, Stamp, parse_stamp
from .ports import mapped_ports

LOGIN = "root"

# An endpoint of a box that has none (yet).
_NOWHERE = ("", 0, "", True)
_OUTBID = re.compile(r"\b(outbid|preempt|higher bid|bid too low)", re.I)


def to_box(row: dict[str, Any]) -> Box:
    """The box in an instance row. A row with a bad endpoint still is a box, so that it can be seen and destroyed."""
    problem = ""
    try:
        host, port, user, proxy = endpoint_of(row)
    except TenantFailure as failure:
        problem = failure.what
        host, port, user, proxy = _NOWHERE
    return Box(
        provider_id=str(row["id"]),
        stamp=stamp_of(row),
        label=_text(row.get("label")),
        state=state_of(row),
        intended=_text(row.get("intended_status")),
        host=host,
        port=port,
        user=user,
        proxy=proxy,
        machine_id=_whole(row.get("machine_id")),
        host_id=_whole(row.get("host_id")),
        gpu_name=_text(row.get("gpu_name")),
        num_gpus=_whole(row.get("num_gpus")),
        gpu_ram_mb=_whole(row.get("gpu_ram")),
        dph_total=number(row.get("dph_total")),
        min_bid=number(row.get("min_bid")),
        is_bid=row.get("is_bid") is True,
        start_date=epoch(row.get("start_date")),
        status_msg=_text(row.get("status_msg")),
        bid=_bid_of(row),
        storage_per_hour=storage_per_hour(row, number(row.get("disk_space"))),
        disk_gb=number(row.get("disk_space")),
        uptime_s=_seconds(row.get("uptime_mins")),
        end_date=epoch(row.get("end_date")),
        actual=_text(row.get("actual_status")),
        is_leaving=_text(row.get("cur_state")) == "unloaded",
        endpoint_problem=problem,
        image=_text(row.get("image_uuid")),
        onstart=_text(row["onstart"]) if "onstart" in row else None,
        ports=mapped_ports(row),
        environment=_texts(_environment(row)) if "extra_env" in row else None,
        credit_balance=number(row.get("credit_balance")),
        most_discount=number(row.get("credit_discount_max")),
    )


def stamp_of(row: dict[str, Any]) -> Stamp | None:
    """The stamp in the label, else the one in the instance's environment (a label can be edited in the console)."""
    return parse_stamp(row.get("label")) or parse_stamp(_environment(row).get(ENVIRONMENT_NAME))


def endpoint_of(row: dict[str, Any]) -> tuple[str, int, str, bool]:
    """``(host, port, user, proxy)``; an empty host while there is none. TenantFailure for one that cannot be.

    A mapped port 22 is a direct endpoint; else it is the provider's proxy, one port higher for Jupyter images.
    """
    user = row.get("ssh_user") or LOGIN
    ports = row.get("ports")
    mapped = ports.get("22/tcp") if isinstance(ports, dict) else None
    if isinstance(mapped, list) and mapped and isinstance(mapped[0], dict) and row.get("public_ipaddr"):
        address = row["public_ipaddr"]
        host = address.strip() if isinstance(address, str) else address
        return (*check_endpoint(host, mapped[0].get("HostPort"), user), False)
    if row.get("ssh_host") and row.get("ssh_port"):
        host, port, user = check_endpoint(row["ssh_host"], row["ssh_port"], user)
        if "jupyter" in _text(row.get("image_runtype")):
            port += 1
        return (*check_endpoint(host, port, user), True)
    return _NOWHERE


def state_of(row: dict[str, Any]) -> str:
    """One word for the four state fields; see :class:`Box`."""
    actual = _text(row.get("actual_status"))
    intended = _text(row.get("intended_status")) or "running"
    contract = _text(row.get("cur_state")) or intended
    if actual in ("offline", "unknown"):
        return actual
    if actual == "scheduling" and intended == "running":
        return "scheduling"  # the console's word; no source says that the API has it too
    if contract not in ("running", "stopped") or actual in ("frozen", "destroyed", "terminated"):
        return "unknown"
    if contract == "stopped" or (intended == "stopped" and actual in ("stopped", "exited")):
        return "scheduling" if intended == "running" else _resting(row)
    if actual == "running":
        return "running"
    failed = bool(FAILED_TO_START.search(_text(row.get("status_msg"))))
    if actual in ("exited", "stopped") or (actual == "created" and failed):
        return "exited"
    if actual in ("", "created", "loading", "rebooting", "recycling"):
        return "loading"
    return "unknown"


def _resting(row: dict[str, Any]) -> str:
    """``outbid`` if the market now asks for more than the box bids, else ``stopped``.

    The API stops a box in the same words whether its tenant did or a higher bid; only the prices tell.
    """
    if row.get("is_bid") is not True:
        return "stopped"
    bid, wanted = _bid_of(row), number(row.get("min_bid"))
    beaten = bid is not None and wanted is not None and wanted > bid
    return "outbid" if beaten or _OUTBID.search(_text(row.get("status_msg"))) else "stopped"


def _bid_of(row: dict[str, Any]) -> float | None:
    """What an interruptible box bids; None for another. No source says that ``dph_base`` is the bid: where compute
    and disk by it are more than the row's total, it is the machine's price, and the bid is what the total leaves."""
    if row.get("is_bid") is not True:
        return None
    base, total = number(row.get("dph_base")), number(row.get("dph_total"))
    storage = storage_per_hour(row, number(row.get("disk_space")))
    if base is None or total is None or storage is None or base + storage <= total + 1e-6:
        return base
    return max(total - storage, 0.0)


def storage_per_hour(row: dict[str, Any], disk_gb: float | None) -> float | None:
    """Dollars an hour for the disk: from the price per GB and month, else as the row totals it."""
    per_month = number(row.get("storage_cost"))
    if per_month is not None and disk_gb is not None:
        return per_month * disk_gb / HOURS_PER_MONTH
    return number(row.get("storage_total_cost"))


def clocks_of(box: Box) -> dict[str, Any]:
    """What this box bills in each state and when its rental ends; None means unknown."""
    return {
        "running_per_hour": box.dph_total,
        "stopped_per_hour": box.storage_per_hour,
        "rental_ends": utc_of(box.end_date),
        "warning": "a stopped box goes on billing its disk; only absent ends the bill, and deletes the disk",
    }


def box_result(box: Box, provider_now: float | None = None) -> dict[str, Any]:
    """A box as a module returns it, with what it bills."""
    return {**box_facts(box, provider_now), "clocks": clocks_of(box)}


def charges_by_box(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Billed dollars per instance id: ``total``, and by kind (gpu, disk, bwu, bwd) where the rows say."""
    billed: dict[str, dict[str, float]] = {}
    for row in rows:
        match = re.match(r"instance-([0-9]+)\Z", _text(row.get("source")))
        amount = number(row.get("amount"))
        if match is None or amount is None:
            continue
        sums = billed.setdefault(match.group(1), {"total": 0.0})
        sums["total"] += amount
        for kind, part in _leaves(row):
            sums[kind] = sums.get(kind, 0.0) + part
    return billed


def _leaves(row: dict[str, Any]) -> list[tuple[str, float]]:
    """The kinds and amounts at the ends of a charge's tree of items."""
    items = row.get("items")
    found = []
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        deeper = _leaves(item)
        kind, amount = _text(item.get("type")), number(item.get("amount"))
        found += deeper or ([(kind, amount)] if kind and kind != "total" and amount is not None else [])
    return found


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _seconds(minutes: Any) -> float | None:
    found = number(minutes)
    return None if found is None or found < 0 else found * 60


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(found: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in found.items()}


def _environment(row: dict[str, Any]) -> dict[str, Any]:
    """``extra_env`` comes as pairs, or as an object from some clients."""
    pairs = row.get("extra_env")
    if isinstance(pairs, dict):
        return pairs
    if not isinstance(pairs, list):
        return {}
    return {
        pair[0]: pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    }

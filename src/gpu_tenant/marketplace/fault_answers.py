# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a fault makes of an answer: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .faults import Fault
from .replies import Reply

_ROWS = ("instances", "offers", "volumes", "pods", "networkVolumes", "data", "items")
_REGIONS = "regions_with_capacity_available"
_PROXY_TEXT = "<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\n"


def refusal_of(faults: Iterable[Fault], interval_s: float, sold_out: Reply | None = None) -> Reply | None:
    """What answers in place of the market, so that the request has no effect; None when it gets through.

    :param interval_s: the least time between two of these calls that the market publishes, 0 for none.
    :param sold_out: how a create says that no machine is left.
    """
    for fault in faults:
        if fault.kind == "no_capacity" and sold_out is not None:
            return sold_out
        if fault.kind == "lost_request":
            return Reply(0, None, cut=True)
        if fault.kind == "rate_limited":
            headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
            threshold = f": endpoint threshold={interval_s}" if interval_s else ""
            return Reply(429, f"API requests too frequent{threshold}", headers)
        if fault.kind == "server_error" and not fault.done:
            return Reply(fault.status, _PROXY_TEXT.format(status=fault.status))
    return None


def spoiled(reply: Reply, fault: Fault) -> Reply:
    """The answer as it arrives after one fault."""
    if fault.kind == "lost_answer":
        return replace(reply, cut=True)
    if fault.kind == "server_error" and fault.done:
        return Reply(fault.status, _PROXY_TEXT.format(status=fault.status), delay_s=reply.delay_s)
    if fault.kind == "slow":
        return replace(reply, delay_s=reply.delay_s + (fault.seconds or 0.0))
    if fault.kind == "garbled" and not reply.cut:
        return replace(reply, body=_half(reply.body))
    if fault.kind in ("empty_list", "partial_list", "malformed_list") and reply.status == 200:
        return replace(reply, body=_with_other_rows(reply.body, fault))
    return reply


def _half(body: Any) -> bytes:
    """The first half of the bytes, which is JSON no more."""
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    return whole[: max(1, len(whole) // 2)]


def _with_other_rows(body: Any, fault: Fault) -> Any:
    if isinstance(body, list):  # RunPod's lists are bare, and tell no total
        return _with_other_rows({"instances": body}, fault).get("instances", {})
    if isinstance(body, dict) and isinstance(body.get("data"), dict) and isinstance(body["data"].get("myself"), dict):
        return {**body, "data": {"myself": _with_other_rows(body["data"]["myself"], fault)}}  # RunPod's GraphQL
    names = [name for name in _ROWS if isinstance(body, dict) and isinstance(body.get(name), list)]
    if not names and fault.kind == "empty_list" and isinstance(body, dict) and isinstance(body.get("data"), dict):
        return {**body, "data": {name: _without_capacity(one) for name, one in body["data"].items()}}
    if not names:
        return body  # a refusal, or the answer of a write
    name, rows = names[0], body[names[0]]
    if fault.kind == "malformed_list":
        return _malformed(body, name, rows, fault.shape)
    kept = [] if fault.kind == "empty_list" else rows[: max(0, len(rows) - fault.rows)]
    changed = {**body, name: kept}
    if "instances_found" in body:
        changed["instances_found"] = len(kept)
    if "total_instances" in body and not (fault.kind == "partial_list" and fault.admitted):
        changed["total_instances"] = body["total_instances"] - (len(rows) - len(kept))
    if fault.kind == "empty_list":
        changed.update({key: value for key, value in _NOTHING.items() if key in body})
    return changed


def _without_capacity(row: Any) -> Any:
    """An instance type of Lambda's that no region has now; any other row as it is."""
    return {**row, _REGIONS: []} if isinstance(row, dict) and _REGIONS in row else row


_NOTHING: dict[str, Any] = {"total_instances": 0, "label_counts": {}, "next_token": None}


def _malformed(body: dict[str, Any], name: str, rows: list[Any], shape: str) -> dict[str, Any]:
    if shape == "no_key":
        return {key: value for key, value in body.items() if key != name}
    if shape == "no_ids":
        return {**body, name: [{**row, "id": None} for row in rows]}
    return {**body, name: None}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The page at ``/``: offers, instances, bill and active faults, as plain HTML without a script.

It shows neither keys nor environments, and every text goes through :func:`html.escape`, because labels are a tenant's.
"""

from __future__ import annotations

import html
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .replies import Reply

# Nothing is loaded, nothing runs, nobody frames it.
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_STYLE = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left}"
_OFFERS = ("id", "machine_id", "gpu_name", "num_gpus", "min_bid", "dph_total", "disk_space", "cuda_max_good",
           "verification", "reliability", "geolocation", "rentable")  # fmt: skip
_INSTANCES = ("id", "label", "phase", "machine_id", "price", "market_price", "boots", "status_msg")
_FAULTS = ("id", "kind", "call", "instance", "times", "struck", "spent")
_HELD = ("instance", "state", "left_s", "fault")


def is_local(base_url: str) -> bool:
    """Whether a request names this machine. A page from elsewhere must not read ours by a name that it points here."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def overview_page(
    offers: Iterable[Mapping[str, Any]], state: Mapping[str, Any], bill: Mapping[str, Any], credit: float
) -> Reply:
    """:param state: as ``/control/state`` shows it."""
    rows = [{"id": line["id"], "label": line["label"], "dollars": line["amount"]} for line in bill["instances"]]
    rows += [{"id": f"V.{line['id']}", "label": line["label"], "dollars": line["amount"]} for line in bill["volumes"]]
    active = [one for one in state["faults"] if not one["spent"]]
    engine, seed, speed = (_text(one) for one in (state["engine"]["name"], state["seed"], state["speed"]))
    parts = [
        f"<p>Engine {engine}, seed {seed}, {speed} × the wall's clock.</p>",
        _section("Instances", _INSTANCES, state["instances"]),
        _section("Offers, prices on demand", _OFFERS, offers),
        _section("Bill", ("id", "label", "dollars"), rows),
        f"<p>${bill['total']:.4f} in all, ${credit:.4f} of credit left.</p>",
        _section("Active faults", _FAULTS, active),
        _section("Held by faults", _HELD, state["held"]),
    ]
    head = f'<meta charset="utf-8"><title>gpu-tenant marketplace</title><style>{_STYLE}</style>'
    body = f"<h1>Marketplace</h1>{''.join(parts)}"
    return Reply(200, f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n', HEADERS)


def _section(title: str, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    names = list(columns)
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_text(row.get(name))}</td>' for name in names)}</tr>" for row in rows)
    table = f"<table><tr>{head}</tr>{body}</table>" if body else "<p>none</p>"
    return f"<h2>{_text(title)}</h2>{table}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What clients send, checked against the market's limits before anything happens."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from .contracts import Order
from .refusals import MarketError

BULK_LIMIT = 64
MIN_BID, MAX_BID = 0.001, 128.0
_PUBLIC_KEY = re.compile(r"(ssh-(ed25519|rsa|dss)|ecdsa-sha2-\S+|sk-\S+@openssh\.com) [A-Za-z0-9+/]+={0,3}( .*)?\Z")


def order_from(offer_id: int, body: Mapping[str, Any]) -> Order:
    """A create's body, checked against the market's limits. MarketError (400)."""
    image = body.get("image")
    if not isinstance(image, str) or not image or len(image) > 1024:
        raise invalid("image must be given, with at most 1024 characters")
    onstart = str(body.get("onstart") or "")
    arguments = tuple(str(part) for part in body.get("args") or [])
    if len(onstart) + sum(len(part) for part in arguments) + len(str(body.get("args_str") or "")) > 4096:
        raise invalid("onstart and args have at most 4096 characters together")
    label = body.get("label")
    if label is not None and len(str(label)) > 256:
        raise MarketError(400, "label_too_long", "A label has at most 256 characters when an instance is created.")
    disk = number_in(body, "disk", 10.0)
    if disk < 8:
        raise invalid("disk must be at least 8 GB")
    price = body.get("price")
    runtype = str(body.get("runtype") or "ssh")
    return Order(
        offer_id=offer_id,
        image=image,
        runtype=runtype if runtype.split()[0] in ("ssh", "args", "jupyter") else f"ssh {runtype}",
        disk_gb=disk,
        price=None if price is None else bid_in(price),
        label=str(label) if label else None,
        env=environment_in(body),
        onstart=onstart or None,
        args=arguments,
        stopped=body.get("target_state") == "stopped",
        cancel_unavailable=bool(body.get("cancel_unavail")),
        template=template_of(body),
    )


def template_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Which template was applied to a create's body, as the instance's row shows it; empty for none."""
    names = ("template_id", "template_hash_id", "template_name")
    return {name: body[name] for name in names} if all(name in body for name in names) else {}


def environment_in(body: Mapping[str, Any]) -> dict[str, str]:
    given = body.get("env") or {}
    if isinstance(given, str):
        pairs = re.findall(r"-e\s+([A-Za-z_]\w*)=(\S*)", given)
        return dict(pairs)
    if not isinstance(given, Mapping):
        raise invalid("env must be an object or docker flags")
    environment = {str(name): str(value) for name, value in given.items()}
    if any(len(value) > 256 for value in environment.values()) or len(json.dumps(environment)) > 32768:
        raise invalid("a value of env has at most 256 characters, all of env 32768")
    return environment


def bid_in(price: Any) -> float:
    if not isinstance(price, (int, float)) or isinstance(price, bool) or not MIN_BID <= price <= MAX_BID:
        raise MarketError(400, "invalid_price", "Please set a bid price >= 0.001.")
    return float(price)


def public_key_in(body: Mapping[str, Any]) -> str:
    key = str(body.get("ssh_key") or "").strip()
    if not _PUBLIC_KEY.match(key):
        raise invalid("ssh_key must be one OpenSSH public key")
    return key


def ids_in(body: Mapping[str, Any], name: str) -> list[int]:
    ids = body.get(name)
    if not isinstance(ids, list) or not ids or len(ids) > BULK_LIMIT:
        raise invalid(f"{name} must be a list of 1 to {BULK_LIMIT} ids")
    try:
        return [int(one) for one in ids]
    except (TypeError, ValueError) as reason:
        raise invalid(f"{name} must be numbers") from reason


def instance_in(body: Mapping[str, Any]) -> int:
    value = body.get("instance")
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).isdigit():
        raise invalid("instance must be an instance's id")
    return int(value)


def number_in(body: Mapping[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    try:
        return float(value)
    except (TypeError, ValueError) as reason:
        raise invalid(f"{name} must be a number") from reason


def json_parameter(query: Mapping[str, str], name: str, default: Any) -> Any:
    """A query parameter that holds JSON of the default's kind. MarketError (400 invalid_request)."""
    text = query.get(name)
    if text in (None, ""):
        return default
    try:
        value = json.loads(str(text))
    except ValueError as reason:
        raise MarketError(400, "invalid_request", f"{name} is not JSON: {reason}") from reason
    kind = list if default is None else type(default)
    if not isinstance(value, kind):
        raise MarketError(400, "invalid_request", f"{name} is not a JSON {'object' if kind is dict else 'list'}")
    return value


def order_in(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """``order_by`` as (column, direction) pairs. MarketError (400 invalid_request)."""
    entries = json_parameter(query, "order_by", [])
    if not all(isinstance(entry, dict) and "col" in entry for entry in entries):
        raise MarketError(400, "invalid_request", "order_by is a list of {col, dir}")
    return [(str(entry["col"]), str(entry.get("dir", "asc"))) for entry in entries]


def page_limit(query: Mapping[str, str], default: int, most: int) -> int:
    limit = int(number_in(query, "limit", default))
    return 5 if limit <= 0 else min(limit, most)


def window(bounds: Mapping[str, Any]) -> tuple[float, float | None]:
    """Market times of a period; one that reaches the wall's present reaches the market's, however fast it runs."""
    since = number_in(bounds, "gte", 0.0)
    until = number_in(bounds, "lte", 0.0)
    return since, None if until == 0 or until >= time.time() - 60 else until


def invalid(message: str) -> MarketError:
    return MarketError(400, "invalid_args", message)


def token_in(header: str) -> str:
    """The key of an ``Authorization`` header: a bearer's, or the user's name of ``curl -u KEY:``."""
    scheme, _blank, rest = header.partition(" ")
    if scheme == "Bearer":
        return rest.strip()
    if scheme != "Basic":
        return header.strip()
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


def read_query(text: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}


def read_body(raw: bytes) -> dict[str, Any]:
    """A request's JSON object; nothing sent is ``{}``. MarketError (400 invalid_args)."""
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except ValueError as reason:
        raise invalid(f"the body is not JSON: {reason}") from reason
    if not isinstance(body, dict):
        raise invalid("the body is not a JSON object")
    return body

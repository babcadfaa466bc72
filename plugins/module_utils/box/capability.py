# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Secrets proven by what they can do, from this box. They are never told."""

from __future__ import annotations

from typing import Any, Mapping

from . import calling, run_record
from .refusal import USAGE, Refused


def prove_all(root: str, env_file: str, value: object) -> list[dict[str, str]]:
    """``[{name, state, who, why}]`` of an order ``{checks: [{name, check}], env, proxy_hook}``; the state is
    ``proven``, ``wrong``, ``unreachable`` or ``unchecked``.
    """
    order = value if isinstance(value, dict) else {}
    checks, env = order.get("checks"), order.get("env") or {}
    if not isinstance(checks, list) or not isinstance(env, dict):
        raise Refused(USAGE, "the order of checks needs checks and an env")
    calling.prepare(root, env, str(order.get("proxy_hook") or ""))
    known = run_record.read_env_file(env_file)
    return [_prove(each, known) for each in checks]


def _prove(each: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    name, check = str(each.get("name")), each.get("check")
    secret = known.get(name)
    if not secret:
        return {"name": name, "who": "", "state": "wrong", "why": "it is not on this box"}
    if check == "none":
        return {"name": name, "who": "", "state": "unchecked", "why": ""}
    from . import bearer  # with all that speaks HTTP

    return {"name": name, **bearer.ask(check, secret)}

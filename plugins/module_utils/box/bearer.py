# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Services asked, from this box, who the bearer of a secret is. Apart, because it takes all that speaks HTTP."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

from . import http_get, hub, urls
from .download import Patience, read_patiently
from .http_get import DENIED, Call, HttpProblem
from .refusal import USAGE, Refused

WANDB = "https://api.wandb.ai"
PROVEN, WRONG, UNREACHABLE = "proven", "wrong", "unreachable"
_WITHIN_S = 60.0
_STALL_S = 15.0
_TRIES = 3
_VIEWER = "query Viewer { viewer { id username entity } }"


class _NotAccepted(Exception):
    """The service answered, and says that nobody it knows bears this secret."""


def ask(check: Any, secret: str) -> dict[str, str]:
    """``{state, who, why}`` of a secret: PROVEN with whose it is, WRONG or UNREACHABLE with the reason."""
    try:
        return {"state": PROVEN, "who": _bearer(check, secret), "why": ""}
    except _NotAccepted as error:
        return {"state": WRONG, "who": "", "why": str(error)}
    except HttpProblem as problem:
        return {"state": WRONG if problem.kind == DENIED else UNREACHABLE, "who": "", "why": str(problem)}


def _bearer(check: Any, secret: str) -> str:
    if check == "wandb":
        return _wandb_viewer(secret)
    if check == "huggingface":
        return _hub_user(secret)
    if isinstance(check, dict) and isinstance(check.get("url"), str):
        header = str(check.get("header") or "Authorization")
        text = f"Bearer {secret}" if header.lower() == "authorization" else secret
        _read(Call(check["url"], {}, {header: text}, _STALL_S))
        return ""
    raise Refused(USAGE, f"unknown check {check!a}")


def _wandb_viewer(key: str) -> str:
    """The default entity of a wandb key, which is what a run would be logged to."""
    base = (os.environ.get("WANDB_BASE_URL") or WANDB).rstrip("/")
    pair = base64.b64encode(f"api:{key}".encode()).decode("ascii")
    body = json.dumps({"query": _VIEWER, "variables": {}}).encode()
    headers = {"Content-Type": "application/json"}
    answer = _json(Call(f"{base}/graphql", headers, {"Authorization": f"Basic {pair}"}, _STALL_S, "POST", body))
    viewer = (answer.get("data") or {}).get("viewer") if isinstance(answer.get("data") or {}, dict) else None
    if not isinstance(viewer, dict) or not viewer.get("id"):
        # For a key that it does not know, the service answers like for nobody at all.
        raise _NotAccepted(f"{urls.shown(base)} knows no user with this key")
    return str(viewer.get("entity") or viewer.get("username") or "")


def _hub_user(token: str) -> str:
    base = (os.environ.get("HF_ENDPOINT") or hub.ENDPOINT).rstrip("/")
    answer = _json(Call(f"{base}/api/whoami-v2", {}, {"Authorization": f"Bearer {token}"}, _STALL_S))
    if not answer.get("name"):
        raise _NotAccepted(f"{urls.shown(base)} knows no user with this token")
    return str(answer["name"])


def _json(call: Call) -> dict[str, Any]:
    try:
        found = json.loads(_read(call).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        text = f"{urls.shown(call.url)} answers with something that is not JSON: a login page or a proxy?"
        raise HttpProblem(http_get.REFUSED, text) from error
    return found if isinstance(found, dict) else {}


def _read(call: Call) -> bytes:
    if urls.is_open(call.url):
        raise HttpProblem(http_get.REFUSED, f"{urls.shown(call.url)} is http, where anybody on the way reads a secret")
    patience = Patience(time.monotonic() + _WITHIN_S, stall_s=_STALL_S, tries=_TRIES)
    return read_patiently(call, patience)[1]

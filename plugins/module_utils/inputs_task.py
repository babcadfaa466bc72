# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the task ``inputs`` does on the box: order a fetch from the supervisor's program, and wait a while for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Mapping

from .box import fetch_order, refusal
from .failures import TenantFailure
from .supervisor_client import SupervisorClient, find_program, program_argv

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0
_KINDS = {refusal.DISK: "probe_refused", refusal.USAGE: "config", refusal.ENVIRONMENT: "config"}
_SAFE = "no cell starts without its inputs, and what arrived is kept"


def act(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The task's result. TenantFailure when the inputs cannot be had.

    :param params: ``tenant_root``, ``pyz``, ``order``, ``urls``, ``wait_s`` (seconds) and ``state``: ``looked``,
        ``fetched`` or ``awaited``.
    """
    program = params["pyz"] or find_program(params["tenant_root"])
    order = dict(params["order"], urls=params.get("urls") or {})
    if not program or not os.path.isfile(program):
        return _before_deploy(params, order, check)
    client = SupervisorClient(_run, program_argv(sys.executable, program, params["tenant_root"]))
    text = json.dumps(order)
    if params["state"] == "awaited":
        return _result(False, _wait(client, text, params["wait_s"]), {}, {})
    foretell = check or params["state"] == "looked"
    answer = client.call("fetch", "--order-file", "-", check=foretell, stdin=text)
    seen = answer["inputs"]
    if not foretell and seen["state"] == fetch_order.FETCHING:
        seen = _wait(client, text, params["wait_s"])
    return _result(answer["changed"], seen, answer["before"], answer["after"])


def _run(argv: list[str], text: str) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)  # pylint: disable=ansible-bad-function
    return done.returncode, done.stdout, done.stderr


def _before_deploy(params: Mapping[str, Any], order: dict[str, Any], check: bool) -> dict[str, Any]:
    """In check mode the deploy is only about to bring the program: everything is still to be fetched."""
    if not check:
        what = f"there is no supervisor in {params['tenant_root']}/bin"
        raise TenantFailure("config", what, safe="nothing was fetched", fix="run the deploy playbook first")
    wanted = sorted(str(entry.get("dest")) for entry in order["inputs"])
    return _result(
        True, {"state": fetch_order.ABSENT, "why": "nothing is deployed"}, {"inputs": []}, {"inputs": wanted}
    )


def _wait(client: SupervisorClient, text: str, within_s: float) -> dict[str, Any]:
    """The status when the fetch has ended, or when the time is over."""
    until, pause = time.monotonic() + within_s, _FIRST_PAUSE_S
    while True:
        seen = client.call("fetch-status", "--order-file", "-", stdin=text)
        if seen["state"] == fetch_order.PROVEN:
            return seen
        if seen["state"] != fetch_order.FETCHING:
            raise _failure(seen)
        if time.monotonic() >= until:
            return seen
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _failure(seen: Mapping[str, Any]) -> TenantFailure:
    kind = _KINDS.get(int(seen["code"] or 0), "evidence_missing")
    if seen["state"] == fetch_order.INTERRUPTED:
        return TenantFailure(kind, "the fetch ended in the middle", safe=_SAFE, fix="run the same command again")
    return TenantFailure(kind, str(seen["why"]), safe=_SAFE, fix=str(seen["fix"]))


def _result(changed: bool, seen: Mapping[str, Any], before: Any, after: Any) -> dict[str, Any]:
    return {"changed": changed, "inputs": dict(seen), "diff": {"before": before, "after": after}}

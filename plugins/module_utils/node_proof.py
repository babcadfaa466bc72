# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""This box's side of the proof: runs :mod:`all_reduce` in the trainer's own Python and environment."""

from __future__ import annotations

import inspect
import json
from typing import Any, Mapping

from . import all_reduce, node_look
from .box import run_record
from .box.bounded import run_bounded
from .box.layout import Layout

# What starting Python and importing torch may take beside the steps that the program counts itself.
START_S = 30.0


def request_of(
    spec: Mapping[str, Any], launch: Mapping[str, Any], box: str, nonce: str, within_s: float
) -> dict[str, Any]:
    """What the program of one box is asked, from the launch that the box would be given."""
    boxes = [str(member["box"]) for member in launch["members"]]
    return {
        "rank": boxes.index(box),
        "world": len(boxes),
        "boxes": boxes,
        "address": launch["members"][0]["address"],
        "port": spec["nodes"]["port"],
        "backend": spec["nodes"]["backend"],
        "nonce": nonce,
        "within_s": within_s,
    }


def prove(tenant_root: str, run_id: str, request: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """``{problem, waited, port_s, reduce_ms}``.

    :param environment: of the launch, so that the interface is the one that the run will use.
    """
    run = run_record.read_run(Layout(tenant_root), run_id)
    # As text: the program must run in a Python that knows nothing of Ansible, from an archive that only this one reads.
    argv = [run["python"], "-c", inspect.getsource(all_reduce), json.dumps(dict(request))]
    variables = node_look.trainer_environment(run, environment)
    outcome = run_bounded(argv, float(request["within_s"]) + START_S, variables)
    answer = node_look.marked(outcome.out, all_reduce.MARK)
    if answer is not None:
        return answer
    last = (outcome.out.strip().splitlines() or ["nothing"])[-1][:300]
    problem = outcome.why or f"the proof ended without an answer; its last word: {last}"
    return {"problem": problem, "waited": False, "port_s": None, "reduce_ms": None}

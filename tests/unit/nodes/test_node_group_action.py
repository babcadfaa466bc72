# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""One box's odd word about itself is that box's failure on every box of the run, by its name, and no traceback."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import node_group
from ansible_collections.tenant.gpu.plugins.module_utils import rendezvous
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from node_looks import ENVIRONMENT, PARTS, READY

COMMAND = ["python", "train.py"]
SPEC: dict[str, Any] = {
    "id": "wide",
    "spec_sha256": "5" * 64,
    "parts": PARTS,
    "command": COMMAND,
    "cells": [{"id": "c1", "args": [], "seed": 1}],
    "nodes": rendezvous.normalise({"nproc_per_node": 1}, PARTS, [{}], COMMAND),
}
PROOF = {"problem": "", "waited": False, "port_s": 0.5, "reduce_ms": 1.5}
ABSENT = object()


def asked(stage: str, looks: dict[str, Any], box: str) -> dict[str, Any]:
    made: Any = node_group.ActionModule.__new__(node_group.ActionModule)
    made._task = SimpleNamespace(check_mode=False)
    hostvars = {name: {"looked": look} for name, look in looks.items()}
    task_vars = {
        "inventory_hostname": box,
        "hostvars": hostvars,
        "groups": {},
        "ansible_play_hosts_all": PARTS,
        "ansible_play_hosts": PARTS,
    }
    params = {"stage": stage, "run_spec": SPEC, "project": "p", "results": "looked", "within_s": 60.0}
    found: dict[str, Any] = made.act({**params, "clock_skew_s": 5.0}, task_vars)
    return found


def looks(kind: str, of_b: Any) -> dict[str, Any]:
    good = READY if kind == "node" else PROOF
    every = {
        box: {kind: dict(copy.deepcopy(good), **({"address": f"10.0.0.{number}"} if kind == "node" else {}))}
        for number, box in enumerate(PARTS, 1)
    }
    return {**every, "b": of_b}


def changed(kind: str, **changes: Any) -> dict[str, Any]:
    good = {**READY, "address": "10.0.0.2"} if kind == "node" else PROOF
    return {kind: {name: value for name, value in {**good, **changes}.items() if value is not ABSENT}}


def test_boxes_in_the_known_form_get_a_launch() -> None:
    found = asked("compare", looks("node", changed("node")), "b")
    assert (found["plan"], found["live"]) == ("start", False)
    assert asked("proof", looks("proof", changed("proof")), "b")["reduce_ms"] == dict.fromkeys(PARTS, 1.5)


ODD_NODES: dict[str, Any] = {
    "empty": {"node": {}},
    "missing": {},
    "no dict": {"node": [1]},
    "null": {"node": None},
    "a number that no record can hold": changed("node", launch={"wait_s": float("nan")}),
    "environment of another form": changed("node", environment={"torch": 5}),
    "environment empty": changed("node", environment={}),
    "packages a list": changed("node", environment={**ENVIRONMENT, "packages": [1]}),
    "a refusal that is no text": changed("node", refusals=[{"x": 1}]),
    "a clock that is a text": changed("node", clock_skew_s="x"),
    **{f"{name} missing": changed("node", **{name: ABSENT}) for name in (*READY.keys(), "address")},
    **{f"{name} of another type": changed("node", **{name: [[]]}) for name in READY if name != "refusals"},
}
# The box may leave these out, or say null.
for _name in ("launch missing", "clock_skew_s missing", "clock_uncertainty_s missing"):
    del ODD_NODES[_name]
ODD_PROOFS: dict[str, Any] = {
    "empty": {"proof": {}},
    "missing": {},
    "no dict": {"proof": "x"},
    "problem of another type": changed("proof", problem=[1]),
    "waited of another type": changed("proof", waited="x"),
    "milliseconds of another type": changed("proof", reduce_ms={}),
}


@pytest.mark.parametrize("box", ["a", "b"])
@pytest.mark.parametrize(
    ("stage", "of_b"),
    [
        *(pytest.param("compare", of_b, id=f"node {name}") for name, of_b in ODD_NODES.items()),
        *(pytest.param("proof", of_b, id=f"proof {name}") for name, of_b in ODD_PROOFS.items()),
    ],
)
def test_an_odd_answer_is_the_failure_of_the_box_that_gave_it(stage: str, of_b: Any, box: str) -> None:
    with pytest.raises(TenantFailure, match="b: the box answered in a form that our programs do not") as caught:
        asked(stage, looks("node" if stage == "compare" else "proof", of_b), box)
    assert (caught.value.kind, caught.value.box) == ("unreachable", box)
    assert caught.value.safe == "no box started a cell"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ({"kind": "zzz", "what": "it is odd"}, "probe_refused"),
        ({"kind": ["config"], "what": {"x": 1}}, "probe_refused"),
        ({"kind": "gate_refused", "what": "it is \x1b[2Jsealed", "fix": 5}, "gate_refused"),
        ("x", "probe_refused"),
        ([1], "probe_refused"),
        (None, "probe_refused"),
    ],
)
def test_a_failure_of_another_form_is_told_all_the_same(failure: Any, kind: str) -> None:
    with pytest.raises(TenantFailure, match="b: ") as caught:
        asked("compare", looks("node", {"failed": True, "failure": failure, "msg": "no"}), "c")
    assert caught.value.kind == kind
    assert str(caught.value).isprintable()


def test_a_box_that_has_nothing_of_the_run_is_named_for_that() -> None:
    nothing = changed("node", spec_sha256="", state="absent", environment={})
    with pytest.raises(TenantFailure, match="b: the run is deployed as 555555555555, the box has nothing of it") as why:
        asked("compare", looks("node", nothing), "a")
    assert why.value.kind == "config"
    first = {**looks("node", changed("node")), "a": changed("node", spec_sha256="", state="absent", environment={})}
    with pytest.raises(TenantFailure, match="a: the run is deployed as") as why:
        asked("compare", {**first, "b": changed("node", address="10.0.0.9")}, "c")
    assert "packages" not in why.value.what

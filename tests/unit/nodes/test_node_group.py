# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""All or nothing, as a table: what the boxes showed, and which box is named for which reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import node_group
from ansible_collections.tenant.gpu.plugins.module_utils.node_group import NOTHING, START, Problem
from node_looks import ENVIRONMENT, PARTS, READY

PROFILES = Path(__file__).parents[3] / "inventories/profiles/group_vars"
SPEC: dict[str, Any] = {"id": "wide", "spec_sha256": "5" * 64, "parts": PARTS, "nodes": {"rendezvous": "c10d"}}
LAUNCH = {"argv": ["python"], "env": {}}
LAUNCHES = dict.fromkeys(PARTS, LAUNCH)


def look(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(READY), **changes}


def decided(**of_b: Any) -> tuple[str, list[Problem]]:
    return node_group.decide(SPEC, {"a": look(), "b": look(**of_b), "c": look()}, LAUNCHES)


def test_like_boxes_start() -> None:
    assert decided() == (START, [])


@pytest.mark.parametrize(
    ("of_b", "says"),
    [
        ({"spec_sha256": ""}, "the box has nothing of it"),
        ({"spec_sha256": "6" * 64}, "the box has 666666666666 of it"),
        ({"code_problem": "train.py has other bytes"}, "train.py has other bytes"),
        ({"refusals": ["it is sealed"]}, "it is sealed"),
        ({"environment_problem": "torch cannot be used: x"}, "torch cannot be used"),
        ({"environment": {**ENVIRONMENT, "torch": "2.8.0"}}, "it has torch 2.8.0, a has 2.9.1"),
        ({"environment": {**ENVIRONMENT, "nccl": ""}}, "it has nccl none, a has 2.27.3"),
        ({"environment": {**ENVIRONMENT, "python": "3.10.1"}}, "it has python 3.10.1, a has 3.11.7"),
        ({"environment": {**ENVIRONMENT, "packages": {"numpy": "1.26.4", "x": "1"}}}, "numpy 1.26.4, 2.0.1, x 1, none"),
        ({"clock_skew_s": 5.3}, "its clock is 5.2 s off that of a (within 0.1 s); 5 s are allowed"),
        ({"clock_skew_s": -9.0}, "its clock is 9.1 s off"),
        ({"clock_skew_s": None}, "its clock cannot be read"),
        ({"network_problem": "10.0.0.5 is not an address of this box itself"}, "10.0.0.5 is not an address"),
        ({"state": "done"}, "it has finished the run, which is never run again, and a, c has not"),
    ],
)
def test_one_box_that_differs_is_named_with_the_reason(of_b: dict[str, Any], says: str) -> None:
    plan, problems = decided(**of_b)
    assert plan == START
    assert {problem.box for problem in problems} == {"b"}
    assert says in problems[0].reason
    failure = node_group.refusal("wide", problems, "c")
    assert failure.box == "c"
    assert "run wide starts on no box" in failure.what
    assert f"b: {problems[0].reason}" in failure.what
    assert failure.safe == "no box started a cell"
    assert failure.fix


@pytest.mark.parametrize("skew", [5.1, -4.9])
def test_clocks_are_apart_only_beyond_what_the_measurement_may_err(skew: float) -> None:
    assert decided(clock_skew_s=skew, clock_uncertainty_s=0.05) == (START, [])
    assert decided(clock_skew_s=60.0, clock_uncertainty_s=70.0) == (START, [])


def test_a_group_that_lives_under_this_launch_or_is_done_is_left_alone() -> None:
    alive = look(state="running", live=True, launch=dict(LAUNCH, more=1), refusals=["it would not"])
    assert node_group.decide(SPEC, dict.fromkeys(PARTS, alive), LAUNCHES) == (NOTHING, [])
    done = look(state="done", environment={}, clock_skew_s=99.0)
    assert node_group.decide(SPEC, dict.fromkeys(PARTS, done), LAUNCHES) == (NOTHING, [])


@pytest.mark.parametrize("of_b", [{"live": False}, {"launch": None}, {"launch": {"argv": ["other"], "env": {}}}])
def test_a_group_of_which_one_box_does_not_live_as_launched_is_started_anew(of_b: dict[str, Any]) -> None:
    alive = look(state="running", live=True, launch=LAUNCH)
    assert node_group.decide(SPEC, {"a": alive, "b": {**alive, **of_b}, "c": alive}, LAUNCHES) == (START, [])


def test_boxes_of_which_nothing_was_seen_are_named() -> None:
    looks: dict[str, dict[str, Any]] = {
        "a": {"node": {}},
        "b": {"unreachable": True, "msg": "Failed to connect to the host via ssh: refused\nmore"},
        "c": {"failed": True, "failure": {"what": "it is sealed", "fix": "unseal", "kind": "gate_refused"}},
    }
    found = node_group.missing([*PARTS, "d", "e"], ["a", "b", "c", "d"], ["a", "b", "c"], looks)
    assert [(problem.box, problem.kind) for problem in found] == [
        ("b", "unreachable"), ("c", "gate_refused"), ("d", "probe_refused"), ("e", "config"),
    ]  # fmt: skip
    assert found[0].reason == "Failed to connect to the host via ssh: refused"
    assert found[1].reason == "it is sealed"
    assert "failed earlier in this play" in found[2].reason
    assert "-l a,b,c,d,e" in found[3].fix
    assert node_group.missing(["a"], ["a"], ["a"], looks) == []


def test_whoever_is_to_blame_in_the_proof_goes_before_those_that_waited() -> None:
    proofs = {
        "a": {"problem": "nothing came from c", "waited": True},
        "b": {"problem": "", "waited": False},
        "c": {"problem": "it cannot reach a", "waited": False},
    }
    found = node_group.proof_problems(PARTS, proofs)
    assert [problem.box for problem in found] == ["c", "a"]
    assert node_group.proof_problems(["b"], proofs) == []


# --- by profile, before anything is rented ----------------------------------------------------------------------------


def profile(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROFILES / f"{name}.yml").read_text())
    return found


NAT, JOB = "gives its boxes mapped ports behind a NAT", "it is a Slurm box"
# Why a box of each shipped platform cannot be one of several that train together; empty where it may, or may not say.
WHY_NOT_TOGETHER = {
    "autodl": NAT, "aws_spot": "", "azure_spot": "", "featurize": NAT, "gcp_spot": "", "gpushare": NAT,
    "kubernetes": "", "lambda": "", "lanrui": "", "matpool": NAT, "paperspace": "", "runpod": NAT, "slurm": JOB,
    "ssh": "", "vast": NAT,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yml")))
def test_the_shipped_profiles_say_who_can_train_together(name: str) -> None:
    known = {"a": profile("ssh"), "b": profile(name), "c": profile("ssh")}
    problems, why = node_group.config_problems(SPEC, known), WHY_NOT_TOGETHER[name]
    assert [problem.box for problem in problems] == (["b"] if why else [])
    if why:
        failure = node_group.refusal("wide", problems, "a", "nothing was rented")
        assert failure.kind == "config"
        assert f"b: {name} {why}" in failure.what if why == NAT else f"b: {why}" in failure.what


def test_a_team_whose_boxes_share_a_network_may_say_so() -> None:
    known = {key: {**profile("vast"), "platform_private_network": True} for key in PARTS}
    assert node_group.config_problems(SPEC, known) == []


def test_a_part_that_the_inventory_does_not_know_is_refused() -> None:
    (problem,) = node_group.config_problems(SPEC, {"a": profile("ssh"), "b": profile("ssh")})
    assert (problem.box, problem.kind) == ("c", "config")


def test_boxes_that_only_share_a_run_are_nobodys_business_here() -> None:
    assert node_group.config_problems(dict(SPEC, nodes={}), {}) == []


def test_several_slurm_boxes_are_refused_with_the_way_to_ask_for_nodes() -> None:
    known = {name: dict(profile("slurm")) for name in PARTS}
    problems = node_group.config_problems(SPEC, known)
    assert [problem.box for problem in problems] == PARTS
    assert problems[0].fix == "leave 'parts' out and set nodes.count: 3: one job gets them all"


@pytest.mark.parametrize(("name", "refused"), [("slurm", False), ("ssh", True), ("vast", True)])
def test_nodes_of_one_job_are_for_boxes_that_have_jobs(name: str, refused: bool) -> None:
    spec = dict(SPEC, parts=[], nodes={"count": 2})
    problem = node_group.job_problem(spec, "a", profile(name))
    assert (problem is not None) is refused
    if problem is not None:
        assert (problem.kind, problem.fix.startswith("name the boxes")) == ("config", True)

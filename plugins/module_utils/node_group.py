# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""All or nothing: whether the boxes of a run may train as one, from what each of them showed. Pure.

Every box of the play comes to the same verdict from the same facts, so either all start or none does, and each names
the box that is to blame.
"""

from __future__ import annotations

import itertools
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from .box.names import printable
from .failures import EXIT_CODES, TenantFailure
from .rendezvous import Member

NOTHING, START = "nothing", "start"
# torch's rendezvous takes a node for dead whose heartbeat is 15 s old by the clock of another node.
CLOCK_SKEW_S = 5.0
_SHOWN = 5
_LONGEST = 1000
_ENVIRONMENT_FIX = "give the boxes one image and one requirements file, then run the same command on all of them again"
_NETWORK_FIX = (
    "open every port between the boxes, set train_node_address to an address of the box itself and nodes.interface to "
    "the network card behind it, then run the same command on all of them again"
)


class Problem(NamedTuple):
    """Why the group cannot start: the box to blame, the reason, and what to do about it."""

    box: str
    reason: str
    fix: str = "mend it, then run the same command on all boxes of the run again"
    kind: str = "probe_refused"


def refusal(run_id: str, problems: Sequence[Problem], box: str = "", safe: str = "") -> TenantFailure:
    """What each box says when the group may not start."""
    told = "; ".join(f"{problem.box}: {problem.reason}" for problem in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    first = problems[0]
    return TenantFailure(
        first.kind,
        f"run {run_id} starts on no box, because the boxes cannot train together: {told}{more}",
        box=box,
        safe=safe or "no box started a cell",
        fix=first.fix,
    )


# --- before anything is rented --------------------------------------------------------------------------------------


def config_problems(spec: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What is known to prevent it before any box was touched.

    :param profiles: ``platform_*`` values of each box that the inventory knows.
    """
    if not spec["nodes"]:
        return []
    return [problem for box in spec["parts"] for problem in _config_problem(spec, box, profiles.get(box))]


def job_problem(spec: Mapping[str, Any], box: str, profile: Mapping[str, Any]) -> TenantFailure | None:
    """Why a run over the nodes of one job cannot be on this box."""
    if profile.get("platform_detach") == "sbatch":
        return None
    platform = profile.get("platform_name") or "its platform"
    return TenantFailure(
        "config",
        f"run {spec['id']} works on {spec['nodes']['count']} nodes of one Slurm job, and {platform} has no jobs",
        box=box,
        safe="nothing was rented and nothing was started",
        fix="name the boxes that train together in 'parts' of the run spec, or take a Slurm box",
    )


def _config_problem(spec: Mapping[str, Any], box: str, profile: Mapping[str, Any] | None) -> Iterator[Problem]:
    fix = "put the box into the inventory, or correct 'parts' in the run spec"
    if profile is None:
        yield Problem(box, "the run spec names it among its parts, but the inventory has no such box", fix, "config")
        return
    if profile.get("platform_detach") == "sbatch":
        what = "it is a Slurm box, whose job has its turn when Slurm says so: the other boxes would wait for it"
        yield Problem(
            box, what, f"leave 'parts' out and set nodes.count: {len(spec['parts'])}: one job gets them all", "config"
        )
        return
    if profile.get("platform_private_network") is False:
        platform = profile.get("platform_name") or "its platform"
        yield Problem(
            box,
            f"{platform} gives its boxes mapped ports behind a NAT and no network between them, and every rank listens "
            "on ports of its own choice",
            "take boxes of a platform with a private network (platform_private_network in docs/platforms.md), or train "
            "on one box with several GPUs; if your boxes do share a network, set platform_private_network: true",
            "config",
        )


# --- what the boxes showed ------------------------------------------------------------------------------------------


def missing(
    parts: Sequence[str], play: Sequence[str], active: Sequence[str], looks: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    """Boxes of which nothing was seen: not in the play, failed in it before, or out of reach.

    :param play: every box of the play. :param active: those that have not failed in it.
    :param looks: the result of one task, by box.
    """
    found = []
    for box in parts:
        if box not in play:
            fix = f"run the playbook on all boxes of the run: -l {','.join(parts)}"
            found.append(Problem(box, "this command was not run on it", fix, "config"))
        elif looks.get(box, {}).get("unreachable"):
            fix = "bring the box back, then run the same command on all boxes of the run again"
            found.append(Problem(box, _said(looks[box]), fix, "unreachable"))
        elif looks.get(box, {}).get("failed"):
            found.append(_told_by(box, looks[box]))
        elif box not in active or box not in looks:
            fix = "see its own message above, then run the same command on all boxes of the run again"
            found.append(Problem(box, "it failed earlier in this play, or was not reached by it", fix))
    return found


def _told_by(box: str, look: Mapping[str, Any]) -> Problem:
    """Why a task failed on a box, as its result says: the module that wrote that may have run there."""
    failure = look.get("failure")
    told = failure if isinstance(failure, dict) else {}
    what, fix = str(told.get("what") or _said(look)), str(told.get("fix") or "see its own message above")
    kind = told.get("kind")
    known = isinstance(kind, str) and kind in EXIT_CODES
    return Problem(box, printable(what)[:_LONGEST], printable(fix)[:_LONGEST], str(kind) if known else "probe_refused")


def _said(look: Mapping[str, Any]) -> str:
    return (str(look.get("msg") or "it gave no answer").strip().splitlines() or ["it gave no answer"])[0][:300]


def decide(
    spec: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    launches: Mapping[str, Mapping[str, Any]],
    skew_bound_s: float = CLOCK_SKEW_S,
) -> tuple[str, list[Problem]]:
    """``nothing`` or ``start``, and what prevents a start.

    :param nodes: what ``node_facts`` found on each box. :param launches: what each box would be given.
    """
    states = {box: nodes[box]["state"] for box in spec["parts"]}
    done = [box for box, state in states.items() if state == "done"]
    if len(done) == len(states):
        return NOTHING, []
    if all(_lives_as_launched(nodes[box], launches[box]) for box in spec["parts"]):
        return NOTHING, []
    problems = [
        *_unlike_deployments(spec, nodes),
        *_half_done(done, states),
        *(Problem(box, reason) for box in spec["parts"] for reason in nodes[box]["refusals"]),
        *_unlike_environments(spec["parts"], nodes),
        *_unlike_clocks(spec["parts"], nodes, skew_bound_s),
        *(
            Problem(box, nodes[box]["network_problem"], _NETWORK_FIX)
            for box in spec["parts"]
            if _no_network(nodes[box])
        ),
    ]
    return START, problems


def _no_network(node: Mapping[str, Any]) -> bool:
    return bool(node["network_problem"])


def _lives_as_launched(node: Mapping[str, Any], launch: Mapping[str, Any]) -> bool:
    known = node.get("launch")
    return bool(node["live"]) and isinstance(known, dict) and {key: known.get(key) for key in launch} == dict(launch)


def _unlike_deployments(spec: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    fix = "run the deploy playbook on all boxes of the run, then train again"
    for box in spec["parts"]:
        node = nodes[box]
        if node["spec_sha256"] != spec["spec_sha256"]:
            there = f"{node['spec_sha256'][:12]} of it" if node["spec_sha256"] else "nothing of it"
            yield Problem(box, f"the run is deployed as {spec['spec_sha256'][:12]}, the box has {there}", fix, "config")
        elif node["code_problem"]:
            yield Problem(box, f"its code is not what was deployed: {node['code_problem']}", fix)


def _half_done(done: Sequence[str], states: Mapping[str, str]) -> Iterator[Problem]:
    if done:
        others = ", ".join(box for box in states if box not in done)
        fix = "harvest all boxes; to train the rest again, give the spec a new run id"
        yield Problem(done[0], f"it has finished the run, which is never run again, and {others} has not", fix)


def _unlike_environments(parts: Sequence[str], nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Each box beside the first, whose environment is the measure; the differences by name.

    A box that has nothing of the run has no environment either, and was named for that.
    """
    for box in parts:
        if nodes[box]["environment_problem"]:
            yield Problem(box, nodes[box]["environment_problem"], _ENVIRONMENT_FIX)
            return
    first, *others = [box for box in parts if nodes[box]["environment"]] or [""]
    for box in others:
        mine, its = nodes[box]["environment"], nodes[first]["environment"]
        for name in ("torch", "cuda", "nccl", "python"):
            if mine[name] != its[name]:
                what = f"it has {name} {mine[name] or 'none'}, {first} has {its[name] or 'none'}"
                yield Problem(box, what, _ENVIRONMENT_FIX)
        unlike = _unlike_packages(mine["packages"], its["packages"])
        if unlike and mine["torch"] == its["torch"]:
            shown = ", ".join(unlike[:_SHOWN]) + (f" and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else "")
            yield Problem(box, f"other packages than {first} (here, there): {shown}", _ENVIRONMENT_FIX)


def _unlike_packages(mine: Mapping[str, str], its: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*mine, *its} if mine.get(name) != its.get(name))
    return [f"{name} {mine.get(name, 'none')}, {its.get(name, 'none')}" for name in names]


def _unlike_clocks(parts: Sequence[str], nodes: Mapping[str, Mapping[str, Any]], bound_s: float) -> Iterator[Problem]:
    """Two clocks are apart when they are so even if both measurements erred to the other side."""
    for one, other in itertools.combinations(parts, 2):
        here, there = nodes[one], nodes[other]
        unknown = next((box for box in (one, other) if nodes[box]["clock_skew_s"] is None), "")
        if unknown:
            yield Problem(unknown, "its clock cannot be read (no `date`)")
            return
        apart = abs(here["clock_skew_s"] - there["clock_skew_s"])
        error = here["clock_uncertainty_s"] + there["clock_uncertainty_s"]
        if apart - error > bound_s:
            worse = max((one, other), key=lambda box: abs(nodes[box]["clock_skew_s"]))
            peer = other if worse == one else one
            what = f"its clock is {apart:.1f} s off that of {peer} (within {error:.1f} s); {bound_s:g} s are allowed"
            yield Problem(worse, what, "synchronise the clocks (chrony, systemd-timesyncd), then run the command again")


def members(
    spec: Mapping[str, Any], addresses: Mapping[str, str], nodes: Mapping[str, Mapping[str, Any]]
) -> list[Member]:
    """The group, in the order of the spec's parts."""
    return [Member(box, addresses[box], str(nodes[box]["interface"])) for box in spec["parts"]]


# --- what the proof showed ------------------------------------------------------------------------------------------


def proof_problems(parts: Sequence[str], proofs: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What prevents training, from the proof of each box; those that only waited for another come last."""
    found = [Problem(box, proofs[box]["problem"], _NETWORK_FIX) for box in parts if proofs[box]["problem"]]
    return sorted(found, key=lambda problem: bool(proofs[problem.box].get("waited")))

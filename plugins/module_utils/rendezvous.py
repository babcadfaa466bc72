# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Several boxes that train as one: what the run spec may ask for, and the one torchrun command for all of them. Pure.

Every box gets the same command. What must differ (its own address, whether it holds the rendezvous store, its rank
where the rendezvous is static) travels in its environment, which torchrun reads (``PET_*``).
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from .box.records import is_count

BACKENDS = ("nccl", "gloo")
KINDS = ("c10d", "static")
DEFAULT_PORT = 29500
DEFAULT_WAIT_S = 1800
# A store whose machine vanished without a word must not hold its clients for as long as a box may wait for the others.
MOST_READ_S = 300
DEFAULTS: dict[str, Any] = {
    "count": 0,
    "nproc_per_node": 1,
    "port": DEFAULT_PORT,
    "backend": "nccl",
    "interface": "",
    "rendezvous": "c10d",
    "wait_s": DEFAULT_WAIT_S,
}
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")
_LAUNCHERS = ("torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate", "deepspeed", "horovodrun")


class BadNodes(ValueError):
    """``nodes`` of a run spec cannot be used; ``where`` is the key at fault."""

    def __init__(self, where: tuple[str, ...], why: str) -> None:
        super().__init__(why)
        self.where = where


class Member(NamedTuple):
    """One box of the group. ``address`` is its own, as the others reach it; ``interface`` carries it."""

    box: str
    address: str
    interface: str = ""


def normalise(nodes: Mapping[str, Any], parts: Sequence[str], cells: Sequence[Any], command: Sequence[str]) -> Any:
    """``nodes`` of a run spec with every default, or empty when it asks for none. BadNodes when it cannot be used."""
    if not nodes:
        return {}
    unknown = sorted(set(nodes) - set(DEFAULTS))
    if unknown:
        raise BadNodes(("nodes", unknown[0]), f"nodes has unknown keys: {', '.join(unknown)}; known: {_known()}")
    whole = {**DEFAULTS, "count": len(parts), **{key: value for key, value in nodes.items() if value is not None}}
    if not parts and nodes.get("count") is not None:
        if not is_count(whole["count"]) or whole["count"] < 2:
            what = (
                f"nodes.count is {whole['count']!r}: without 'parts' it is the number of nodes of a Slurm job, from 2"
            )
            raise BadNodes(("nodes", "count"), what)
    elif len(parts) < 2:
        what = "'nodes' needs 'parts', the names of the two or more boxes that train together"
        raise BadNodes(("nodes",), f"{what} (or, on a Slurm box, 'count': the nodes of its job)")
    elif whole["count"] != len(parts):
        raise BadNodes(("nodes", "count"), f"nodes.count is {whole['count']!r}, but 'parts' names {len(parts)} boxes")
    _check_numbers(whole)
    _check_choices(whole)
    if len(cells) != 1:
        raise BadNodes(("nodes",), "a run over several boxes has one cell: write a run spec for each cell")
    _check_command(command)
    return whole


def _known() -> str:
    return ", ".join(DEFAULTS)


def _check_numbers(nodes: Mapping[str, Any]) -> None:
    for key, least, most in (("nproc_per_node", 1, 64), ("port", 1024, 65535), ("wait_s", 10, 86400)):
        if not is_count(nodes[key]) or not least <= nodes[key] <= most:
            raise BadNodes(("nodes", key), f"nodes.{key} is {nodes[key]!r}: a number from {least} to {most} is wanted")


def _check_choices(nodes: Mapping[str, Any]) -> None:
    for key, choices in (("backend", BACKENDS), ("rendezvous", KINDS)):
        if nodes[key] not in choices:
            raise BadNodes(("nodes", key), f"nodes.{key} {nodes[key]!r} is none of {', '.join(choices)}")
    if nodes["interface"] != "" and not _INTERFACE.match(str(nodes["interface"])):
        raise BadNodes(("nodes", "interface"), f"{nodes['interface']!r} is not the name of a network interface")


def _check_command(command: Sequence[str]) -> None:
    known = [word for word in command[:4] if word.rpartition("/")[2] in _LAUNCHERS]
    if known:
        what = f"'command' calls {known[0]} itself: with 'nodes' write what each process runs ([python, train.py])"
        raise BadNodes(("command",), what)
    if _starts_python(command) and (len(command) < 2 or (command[1].startswith("-") and command[1] != "-m")):
        raise BadNodes(
            ("command",), "with 'nodes', 'python' in 'command' is followed by a script or by -m and a module"
        )


def _starts_python(command: Sequence[str]) -> bool:
    return command[0] in ("python", "python3")


# --- the launch -----------------------------------------------------------------------------------------------------


def in_order(nodes: Mapping[str, Any], members: Sequence[Member]) -> list[Member]:
    """The members by node rank; the first has rank 0 and holds the rendezvous store.

    torch's c10d rendezvous ranks by address, as text, so that is the order there. A static one takes ours: that of
    ``parts``.
    """
    return sorted(members, key=lambda member: member.address) if nodes["rendezvous"] == "c10d" else list(members)


def launches(spec: Mapping[str, Any], project: str, members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """The launch record of each box: one ``argv`` for all, and its own ``env``.

    :param members: in the order of the spec's ``parts``.
    """
    nodes = spec["nodes"]
    ordered = in_order(nodes, members)
    common = {
        "run_id": spec["id"],
        "spec_sha256": spec["spec_sha256"],
        "argv": command(spec, project, ordered[0].address),
        "members": [{"box": member.box, "address": member.address} for member in ordered],
        "wait_s": nodes["wait_s"],
    }
    return {
        member.box: dict(common, leader=rank == 0, env=environment(nodes, member, rank))
        for rank, member in enumerate(ordered)
    }


def launch_in_job(spec: Mapping[str, Any], project: str) -> dict[str, Any]:
    """The launch of a run over the nodes of one Slurm job: where they meet is known only there."""
    nodes = spec["nodes"]
    return {
        "run_id": spec["id"],
        "spec_sha256": spec["spec_sha256"],
        "argv": command(spec, project, ""),
        "env": {"PET_RDZV_CONF": _conf(nodes), **_interfaces(nodes["interface"])},
        "leader": True,
        "members": [],
        "wait_s": nodes["wait_s"],
    }


def command(spec: Mapping[str, Any], project: str, head: str) -> list[str]:
    """The torchrun command, the same on every box. A leading ``python`` is the box's own interpreter.

    :param head: the address of rank 0; empty where the environment says it.

    torchrun itself tries nothing again (``--max-restarts=0``): the supervisor does, which tells a code error from a
    lost neighbour.
    """
    nodes = spec["nodes"]
    argv = ["python", "-m", "torch.distributed.run"]
    argv += [f"--nnodes={nodes['count']}", f"--nproc-per-node={nodes['nproc_per_node']}", "--max-restarts=0"]
    argv += [f"--rdzv-id={project}.{spec['id']}.{spec['spec_sha256'][:12]}"]
    argv += [f"--rdzv-backend={nodes['rendezvous']}"]
    if head and nodes["rendezvous"] == "static":
        argv += [f"--master-addr={head}", f"--master-port={nodes['port']}"]
    elif head:
        argv += [f"--rdzv-endpoint={head}:{nodes['port']}"]
    return argv + (list(spec["command"][1:]) if _starts_python(spec["command"]) else ["--no-python", *spec["command"]])


def environment(nodes: Mapping[str, Any], member: Member, rank: int) -> dict[str, str]:
    """What differs between the boxes.

    Who holds the store is said and not left to torch's guess, which compares the address with what the box's own host
    name resolves to, and so finds no holder at all on machines with a second network card.
    """
    if nodes["rendezvous"] == "static":
        known = {"PET_NODE_RANK": str(rank), "PET_RDZV_CONF": _conf(nodes)}
    else:
        known = {"PET_RDZV_CONF": f"is_host={int(rank == 0)},{_conf(nodes)}"}
    known["PET_LOCAL_ADDR"] = member.address
    return {**known, **_interfaces(nodes["interface"] or member.interface)}


def _conf(nodes: Mapping[str, Any]) -> str:
    wait_s = int(nodes["wait_s"])
    if nodes["rendezvous"] == "static":
        return f"timeout={wait_s}"
    return f"join_timeout={wait_s},read_timeout={min(wait_s, MOST_READ_S)}"


def _interfaces(name: str) -> dict[str, str]:
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name} if name else {}

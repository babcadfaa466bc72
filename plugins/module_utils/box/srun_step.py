# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run over the nodes of one Slurm job: ``srun`` starts one launcher on each, and each of them its own processes.

The supervisor is the batch step, on the first node. Who meets whom where is known in the job only: the first of its
node list holds the rendezvous.
"""

from __future__ import annotations

import os
import re
from typing import Any

from .refusal import ENVIRONMENT, Refused
from .tool import run_tool

ADDRESSES = "TENANT_NODE_ADDRESSES"
_NODE_ADDRESS = re.compile(r"(?:^|\s)NodeAddr=(\S+)")
_STEP = re.compile(r"[0-9]+(?:_[0-9]+)?\.[0-9]+\Z")
_STEPS = 'squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format=%i'
# srun kills its tasks at once when it is told to end, so that nothing would be saved: the step is told, and srun not,
# which for that is in a session of its own.
_HEAD = f"""\
woken=
on_term() {{
  woken=1 told=
  for each in $({_STEPS}); do
    case $each in *.[0-9]*) scancel --signal=TERM "$each" && told=1 ;; esac
  done
  [ -n "$told" ] || kill -TERM "$srun"
}}
trap on_term TERM
setsid "$@" &
srun=$! before=
while :; do
  woken=
  wait "$srun"
  code=$?
  # A signal of ours ends the wait, not srun; one that had just ended is unknown (127) to the next wait.
  [ "$code" -ne 127 ] || code=${{before:-127}}
  [ -n "$woken" ] && [ "$code" -gt 128 ] || break
  before=$code
done
exit "$code"
"""
# What differs between the nodes; torchrun reads it.
_RANK = f"""\
number=0
for address in ${ADDRESSES}; do
  [ "$number" -ne "$SLURM_NODEID" ] || export PET_LOCAL_ADDR="$address"
  number=$((number + 1))
done
export PET_NODE_RANK="$SLURM_NODEID"
if [ -n "${{PET_RDZV_ENDPOINT:-}}" ]; then
  [ "$SLURM_NODEID" -eq 0 ] && is_host=1 || is_host=0
  export PET_RDZV_CONF="is_host=$is_host${{PET_RDZV_CONF:+,$PET_RDZV_CONF}}"
fi
exec "$@"
"""


def is_wanted(run: dict[str, Any]) -> bool:
    """Whether the nodes of the run are those of one job, and no boxes of their own."""
    return bool(run["nodes"]) and not run["parts"]


def wrapped(argv: list[str], count: int) -> list[str]:
    """The command that runs ``argv`` once on each node, and passes on a request to save and leave."""
    srun = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    return ["sh", "-c", _HEAD, "head", *srun, "--unbuffered", "sh", "-c", _RANK, "rank", *argv]


def environment(nodes: dict[str, Any]) -> dict[str, str]:
    """Where the nodes of this job meet.

    :raises Refused: ENVIRONMENT outside of a job, or in one of another size.
    """
    hosts = os.environ.get("SLURM_JOB_NODELIST", "")
    count, port = int(nodes["count"]), str(nodes.get("port") or "")
    fix = "run the train playbook: it asks Slurm for the nodes"
    if not hosts:
        raise Refused(ENVIRONMENT, f"the run works on {count} nodes of a Slurm job, and this is none", fix)
    names = run_tool(["scontrol", "show", "hostnames", hosts], "name the nodes").split()
    if len(names) != count:
        raise Refused(ENVIRONMENT, f"the run works on {count} nodes, and this job has {len(names)}: {hosts}", fix)
    addresses = [_address(name) for name in names]
    known = {ADDRESSES: " ".join(addresses), "MASTER_ADDR": addresses[0], "MASTER_PORT": port}
    if nodes.get("rendezvous") == "static":
        return {**known, "PET_MASTER_ADDR": addresses[0], "PET_MASTER_PORT": port}
    return {**known, "PET_RDZV_ENDPOINT": f"{addresses[0]}:{port}"}


def _address(name: str) -> str:
    """As the cluster itself reaches the node; its name where nothing else was set."""
    told = _NODE_ADDRESS.search(run_tool(["scontrol", "--oneliner", "show", "node", name], "tell of the node"))
    return told.group(1) if told else name


def end_leftovers() -> None:
    """End the steps that a killed attempt left on other nodes of this job: they hold its GPUs and its port."""
    job = os.environ.get("SLURM_JOB_ID", "")
    told = run_tool(["squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i"], "name the steps")
    for step in filter(_STEP.match, told.split()):
        run_tool(["scancel", step], "end the step")

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a batch job may ask of Slurm: one door for the profile, the role and the module. Pure.

The options are those of a person (``partition``, ``time``, ``gres`` …). What makes the job ours and lets it go on after
a preemption (its name, requeue, signal, dependency, output) is not among them, and is refused among free words.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping

from .box.slurm_job import LEAST_NOTICE_S, MOST_NOTICE_S, span_s
from .failures import TenantFailure
from .schema_check import check

# Slurm may give notice this much early.
EARLY_S = 60
GRES_TYPE = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = r"^(|[A-Za-z0-9][A-Za-z0-9._@/:+-]*(,[A-Za-z0-9][A-Za-z0-9._@/:+-]*)*)$"
_WORDS = {
    "partition": "--partition",
    "account": "--account",
    "qos": "--qos",
    "reservation": "--reservation",
    "constraint": "--constraint",
    "nodelist": "--nodelist",
    "exclude": "--exclude",
    "dependency": "--dependency",
    "time": "--time",
    "gres": "--gres",
    "mem": "--mem",
    "cpus_per_task": "--cpus-per-task",
}
# Not for sbatch as they stand: the box knows how many cells are left.
ARRAY = ("array_tasks", "array_limit")


def _text(pattern: str, description: str, fix: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": description, "x-fix": fix}


_NAMES = "write a name as sinfo or sacctmgr shows it, or several with commas between them"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "description": "what its jobs ask of the batch system; an empty value asks for nothing",
    "x-fix": f"write a mapping with any of {', '.join([*_WORDS, 'notice_s', *ARRAY])}",
    "properties": {
        "partition": _text(_NAME, "partitions that the job may run in", _NAMES),
        "account": _text(_NAME, "the account that is charged", _NAMES),
        "qos": _text(_NAME, "quality of service", _NAMES),
        "reservation": _text(_NAME, "a reservation to run in", _NAMES),
        "constraint": _text(
            r"^(|[A-Za-z0-9][A-Za-z0-9._@&|*()\[\],+-]*)$", "features a node must have", "write features, as a100&ib"
        ),
        "nodelist": _text(r"^(|[A-Za-z0-9][A-Za-z0-9._,\[\]-]*)$", "nodes to run on", "write nodes, as node[1-4]"),
        "exclude": _text(r"^(|[A-Za-z0-9][A-Za-z0-9._,\[\]-]*)$", "nodes never to run on", "write nodes, as node7"),
        "dependency": _text(
            r"^(|[a-z]+(:[0-9_+:]+)?([,?][a-z]+(:[0-9_+:]+)?)*)$", "jobs to wait for", "write it as afterok:123"
        ),
        "time": _text(
            r"^(|UNLIMITED|([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2})$",
            "time limit of one job; the run may take longer, for the job saves and is queued again",
            "quote [days-]hours:minutes:seconds or minutes, for example '4:00:00'",
        ),
        "gres": _text(
            rf"^(|{GRES_TYPE}(:{GRES_TYPE})*(,{GRES_TYPE}(:{GRES_TYPE})*)*)$",
            "generic resources; left out, the GPUs that the run spec names",
            "write it as gpu:a100:2",
        ),
        "mem": _text(r"^(|[0-9]+[KMGT]?)$", "memory of the node", "quote a number with K, M, G or T, as '64G'"),
        "cpus_per_task": {
            "type": "integer",
            "minimum": 1,
            "description": "processors, for the trainer and its data loaders",
            "x-fix": "write a whole number above 0",
        },
        "notice_s": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_NOTICE_S,
            "description": "seconds before the time limit at which the job is told; left out, the run's grace and 30",
            "x-fix": f"write whole seconds up to {MOST_NOTICE_S}",
        },
        "array_tasks": {
            "type": "integer",
            "minimum": 0,
            "description": "hand the cells in as a job array of so many tasks at most; 0 and left out, as one job",
            "x-fix": "write a whole number, no higher than MaxArraySize of scontrol show config",
        },
        "array_limit": {
            "type": "integer",
            "minimum": 0,
            "description": "how many tasks of the array work at a time; 0 and left out, as many as Slurm starts",
            "x-fix": "write a whole number",
        },
    },
}
# Long options, and the short ones that say the same.
_OURS = {
    "--job-name": "-J",
    "--output": "-o",
    "--error": "-e",
    "--array": "-a",
    "--dependency": "-d",
    "--chdir": "-D",
    "--wrap": "",
    "--parsable": "",
    "--requeue": "",
    "--no-requeue": "",
    "--signal": "",
    "--open-mode": "",
    "--wait": "-W",
    "--test-only": "",
    "--hold": "-H",
    "--export": "",
    "--uid": "",
}
# These say how many nodes, which the run spec does.
_OF_RUN = {"--nodes": "-N", "--ntasks": "-n", "--ntasks-per-node": ""}


def words(options: Mapping[str, Any], gpus: int = 0, free: Iterable[str] = (), nodes: int = 0) -> list[str]:
    """The words for sbatch.

    :param gpus: what the run spec asks for of each node, where ``gres`` does not say it.
    :param nodes: of a run over several: one launcher works on each.
    :param free: words of a person for anything else, which come last.
    :raises TenantFailure: config, naming the option and what to write.
    """
    for key, what, fix in problems(options):
        raise _refused(f"batch option {key} {what}", fix)
    if nodes and options.get("array_tasks"):
        what = f"batch option array_tasks is {options['array_tasks']}, and the run trains one cell on {nodes} nodes"
        raise _refused(what, "leave array_tasks out: a job array gives each task cells of its own")
    found = [f"{_WORDS[name]}={value}" for name, value in options.items() if name in _WORDS and value != ""]
    if "gres" not in options and gpus:
        found.append(f"--gres=gpu:{gpus}")
    found += [f"--nodes={nodes}", "--ntasks-per-node=1"] if nodes else []
    if options.get("notice_s"):
        found.append(f"--signal=B:TERM@{options['notice_s']}")
    return found + [_free(word) for word in free]


def problems(options: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """``(option, what, fix)`` for what cannot be asked of Slurm."""
    found = list(check(options, SCHEMA, "", lambda _value: False))
    for problem in found:
        yield problem.key or "(all)", problem.what, problem.fix
    if not found and options.get("array_limit") and not options.get("array_tasks"):
        yield "array_limit", "is there without array_tasks: one job is no array", "set array_tasks, or leave it out"
    limit = span_s(str(options.get("time") or "")) if not found else None
    least = int(options.get("notice_s") or LEAST_NOTICE_S) + EARLY_S
    if limit is not None and limit <= least:
        what = f"is {options['time']!r}: the notice comes up to {least} s before its end, so nothing would be trained"
        yield "time", what, "give the job more time, or lower notice_s"


def _free(word: str) -> str:
    name = word.partition("=")[0]
    for ours, short in _OURS.items():
        if name == ours or (short and word.startswith(short) and not word.startswith("--")):
            raise _refused(f"sbatch is not given {word!r}: {ours} is how the job is found and goes on", "leave it out")
    for theirs, short in _OF_RUN.items():
        if name == theirs or (short and word.startswith(short) and not word.startswith("--")):
            raise _refused(f"sbatch is not given {word!r}: the run says how many nodes it has", "set nodes.count there")
    if not word.startswith("-"):
        raise _refused(f"{word!r} is no option of sbatch", "write one word, with =, as --nice=100")
    return word


def _refused(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="no job was handed in", fix=fix)

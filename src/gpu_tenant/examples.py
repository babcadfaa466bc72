# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Examples at the end of each command's help. A test runs every one of them through the parser."""

from __future__ import annotations

import click

EXAMPLES: dict[str, tuple[str, ...]] = {
    "account": ("gpu-tenant account runs/train.yml -l box-1",),
    "approve": (
        'gpu-tenant approve destroy box-1 --approver Ada --reason "results are home"',
        'gpu-tenant approve teardown box-1 --awx-approval 42 --reason "approved in AWX"',
        'gpu-tenant approve destroy box-1 --approver Ada --loss --reason "the run is of no use"',
    ),
    "audit": ("gpu-tenant audit", "gpu-tenant audit --park"),
    "completion": (
        'eval "$(gpu-tenant completion bash)"     # in ~/.bashrc',
        "gpu-tenant completion fish > ~/.config/fish/completions/gpu-tenant.fish",
    ),
    "demo": ("gpu-tenant demo", "gpu-tenant demo --keep --engine podman"),
    "deploy": ("gpu-tenant deploy -l box-1 --run runs/train.yml",),
    "export": (
        "gpu-tenant export --to slurm runs/train.yml --checkpoints /scratch/ada --output train.sbatch",
        "gpu-tenant export --to kubernetes runs/train.yml --image registry.example/train@sha256:0123",
        "gpu-tenant export --to skypilot runs/train.yml --checkpoints s3://my-bucket/runs",
    ),
    "go": (
        "gpu-tenant go runs/train.yml -l vast",
        'gpu-tenant go runs/train.yml -l vast --approver Ada --standing-approval --reason "sweep 7"',
    ),
    "harvest": ("gpu-tenant harvest -l box-1",),
    "init": (
        "gpu-tenant init",
        "gpu-tenant init my-team --project vision --script train.py",
    ),
    "logs": ("gpu-tenant logs box-1 -n 200", "gpu-tenant logs box-1 -f --cell seed-0"),
    "marketplace serve": (
        "gpu-tenant marketplace serve --port 8383 --engine process",
        "gpu-tenant marketplace serve --port 0 --seed 7 --json",
    ),
    "mirrors": ("gpu-tenant mirrors -l autodl",),
    "plan": ("gpu-tenant plan -l vast", "gpu-tenant plan -l vast --run runs/train.yml -e provision_price_cap=0.25"),
    "provision": ("gpu-tenant provision -l box-1", "gpu-tenant provision -l box-1 -e tenant_state=parked"),
    "rehearse": ("gpu-tenant rehearse preempted -l box-1 --run runs/train.yml",),
    "report": ("gpu-tenant report -l vast", "gpu-tenant report -l vast --html report.html"),
    "ssh": ("gpu-tenant ssh -i inventory box-1", "gpu-tenant ssh box-1 nvidia-smi -L"),
    "status": ("gpu-tenant status -l vast", "gpu-tenant status -l vast --live --every 30"),
    "sweep check": ("gpu-tenant sweep check runs/grid.yml -l vast",),
    "sweep move": ("gpu-tenant sweep move runs/grid.yml box-2 -l vast",),
    "sweep split": (
        "gpu-tenant sweep split runs/grid.yml -l box-1,box-2 --check",
        "gpu-tenant sweep split runs/grid.yml -l box-1,box-2 --weight box-2=1.5",
    ),
    "teardown": ("gpu-tenant teardown -l box-1 --check", "gpu-tenant teardown -l box-1"),
    "train": ("gpu-tenant train -l box-1 --run runs/train.yml",),
    "watch": (
        "gpu-tenant watch -l vast --webhook https://chat.example/hook",
        "gpu-tenant watch -l vast --once --json",
    ),
}


def attach(command: click.Command, path: str) -> None:
    """Give the command, or every command below it, its examples.

    :param path: the words that name it, such as ``sweep split``.
    """
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            attach(below, f"{path} {name}")
    elif path in EXAMPLES:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[path])

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A run spec, and what each target must be told beyond it."""

from __future__ import annotations

from gpu_tenant.export.place import Place

SPEC = """\
id: grid.one
code: {path: code}
command: [python, train.py, --epochs, "3"]
workdir: .
env: {PYTHONHASHSEED: "0"}
cells:
  - {id: seed-0, args: ["--seed", "0"], seed: 0}
  - {id: seed-1, args: ["--seed", "1"], seed: 1}
artifacts: [{glob: model.pt, role: checkpoint, loader: torch}]
resources: {gpu_name: RTX 4090, gpu_count: 2, disk_gb: 16}
secrets: [HF_TOKEN]
retries: {max: 3}
deadline_s: 7200
grace_s: 40
"""
# What each target must be told, as its users would.
PLACES = {
    "skypilot": Place(checkpoints="s3://my-bucket/runs", helper="/somewhere/tenant_checkpoint.py"),
    "sagemaker": Place(
        checkpoints="s3://my-bucket/runs",
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:1",
        role="arn:aws:iam::123456789012:role/training",
        instance_type="ml.g5.xlarge",
    ),
    "slurm": Place(checkpoints="/scratch/ada"),
    "kubernetes": Place(image="registry.example/train@sha256:" + "0" * 64),
}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a trainer is told of its experiment tracker."""

from __future__ import annotations

import os
from typing import Any

from .layout import AttemptPaths
from .tracker_names import TENSORBOARD, TRACKIO, WANDB


def folder(paths: AttemptPaths) -> str:
    """Where the tracker of an attempt keeps its files: below ``out``, so that artifacts may name them."""
    return os.path.join(paths.output, "tracker")


def make_folder(run: dict[str, Any], paths: AttemptPaths) -> None:
    """wandb before 0.19.10 writes into the system's temporary folder, where nobody looks, if this one is missing."""
    if run["tracker"]["name"] in (WANDB, TENSORBOARD, TRACKIO):
        os.makedirs(folder(paths), 0o700, exist_ok=True)


def variables(run: dict[str, Any], cell: dict[str, Any], paths: AttemptPaths) -> dict[str, str]:
    """What the trainer is told of its tracker. The run's own environment wins over it."""
    wanted = run["tracker"]
    if wanted["name"] == WANDB:
        told = {
            "WANDB_DIR": folder(paths),
            "WANDB_MODE": wanted["mode"],
            "WANDB_PROJECT": wanted["project"] or run["project"],
            "WANDB_ENTITY": wanted["entity"],
            "WANDB_RUN_GROUP": run["run_id"],
            "WANDB_NAME": f"{run['run_id']}-{cell['id']}-a{paths.number}",
        }
        return {name: value for name, value in told.items() if value}
    if wanted["name"] == TENSORBOARD:
        return {"TENANT_TENSORBOARD_DIR": folder(paths)}
    if wanted["name"] == TRACKIO:
        return {"TRACKIO_DIR": folder(paths)}
    # Said plainly, so that a script which calls wandb.init neither asks for a key nor waits for a network.
    return {"WANDB_MODE": "disabled"}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The time for a last save: what the run asks for, and no more than the platform leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.tenant.gpu.plugins.module_utils.box import last_save, shim
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import run_record

ROOT = Path(__file__).parents[3]
PROFILES = ROOT / "inventories" / "profiles" / "group_vars"
SPEC: dict[str, Any] = {
    "id": "digits", "code_sha256": "b" * 64, "spec_sha256": "a" * 64, "work_sha256": "a" * 64, "env": {}, "cells": [],
    "command": ["python", "train.py"], "workdir": ".", "artifacts": [], "inputs": [], "tracker": {}, "parts": [],
    "nodes": {}, "checkpoint": {}, "progress": {}, "retries": {}, "grace_s": 30, "stall_s": 1800, "cell_timeout_s": 0,
    "on_fail": "continue", "resources": {},
}  # fmt: skip


def run_of(grace_s: float, platform_s: float | None) -> dict[str, Any]:
    return {"run_id": "digits", "checkpoint": {}, "grace_s": grace_s, "preemption": {"grace_s": platform_s}}


@pytest.mark.parametrize(
    ("wanted_s", "platform_s", "told_s"),
    [(30.0, 5.0, 3.0), (30.0, None, 30.0), (30.0, 120.0, 30.0), (600.0, 120.0, 118.0), (30.0, 0.0, 0.0)],
)
def test_the_trainer_is_told_what_the_platform_leaves(wanted_s: float, platform_s: float | None, told_s: float) -> None:
    run = run_of(wanted_s, platform_s)
    paths = Layout("/data/gpu-tenant").attempt("digits", "c1", 1)
    assert last_save.told_s(run) == told_s
    told = shim.tenant_variables(run, {"id": "c1", "seed": 0}, paths, [])
    assert told["TENANT_GRACE_S"] == f"{told_s:g}"


def deployed(platform: str) -> dict[str, Any]:
    """``preemption`` of a run that is deployed to a box of the platform as its profile has it."""
    profile = yaml.safe_load((PROFILES / f"{platform}.yml").read_text())
    text = (ROOT / "roles" / "deploy" / "vars" / "main.yml").read_text()
    given = {key: re.search(rf"'{key}': (.*),\n", text) for key in ("spot_signal", "spot_grace_s")}
    templar = Templar(loader=DataLoader(), variables=profile)
    box = {key: templar.template(trust_as_template("{{ " + found[1] + " }}")) for key, found in given.items() if found}
    box.update(name="b1", tenant_root="/data/gpu-tenant", python="/usr/bin/python3")
    record = run_record(SPEC, {"generation": 1, "provider_id": "7"}, "vision", box)
    assert record["grace_s"] == 30, "what is ended on our own order has the grace of the run"
    return dict(record["preemption"])


@pytest.mark.parametrize(
    ("platform", "source", "grace_s"),
    [
        ("runpod", "", 5),
        ("gcp_spot", "gcp_metadata", 30),
        ("azure_spot", "azure_scheduled_events", 30),
        ("aws_spot", "aws_imds", 120),
        # Taken without a word, or never.
        ("vast", "", None),
        ("ssh", "", None),
        # Each job asks for the notice that its run needs.
        ("slurm", "", None),
    ],
)
def test_the_grace_of_the_platform_reaches_the_box(platform: str, source: str, grace_s: float | None) -> None:
    assert deployed(platform) == {"source": source, "grace_s": grace_s}

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What AWX is told of our jobs, by awx.awx's own modules against a recorded API. No real AWX was ever asked.

awx.awx comes from the distribution ``ansible``, as ``make setup-dev`` puts it into the virtual environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from awx_server import TOKEN, Awx, running_awx

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600


pytestmark = pytest.mark.integration


def describe(awx: Awx) -> None:
    environment = {**os.environ, "CONTROLLER_HOST": awx.url, "CONTROLLER_OAUTH_TOKEN": TOKEN}
    words = ["extensions/awx/templates.yml", "-e", "awx_scm_url=https://git.example/team/training.git"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_person_stands_between_harvest_and_teardown() -> None:
    with running_awx() as awx:
        describe(awx)
    templates = {each["id"]: each["name"] for each in awx.things["job_templates"].values()}
    assert all(each["ask_limit_on_launch"] for each in awx.things["job_templates"].values())
    [approval] = awx.things["workflow_approval_templates"].values()
    nodes = {each["id"]: each for each in awx.things["workflow_job_template_nodes"].values()}
    way, number = [], next(each["id"] for each in nodes.values() if each["identifier"] == "harvest")
    while True:
        template = nodes[number]["unified_job_template"]
        way.append("APPROVAL" if template == approval["id"] else templates[template])
        following = nodes[number].get("success_nodes") or []
        if not following:
            break
        [number] = following
    assert way == ["gpu-tenant harvest", "APPROVAL", "gpu-tenant consent", "gpu-tenant teardown"]
    assert len(nodes) == len(way)
    [workflow] = awx.things["workflow_job_templates"].values()
    assert workflow["ask_limit_on_launch"] is True, "the answer is for the box that the workflow was limited to"

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The files that AWX is described by: each play is there, and what consents is a command line that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from gpu_tenant.approve_command import approve_command

AWX = Path(__file__).parents[3] / "extensions/awx"


def read(name: str) -> Any:
    return yaml.safe_load((AWX / name).read_text())


def test_every_job_has_its_play_and_every_play_its_job() -> None:
    [play] = read("templates.yml")
    named = {each["playbook"] for each in play["vars"]["awx_jobs"]}
    assert named == {path.name for path in (AWX / "project").glob("*.yml")}
    assert [each["name"] for each in play["vars"]["awx_jobs"] if each["job_type"] == "check"] == ["plan"]
    for path in sorted((AWX / "project").glob("*.yml")):
        [imported] = read(f"project/{path.name}")
        if "import_playbook" in imported:
            name = imported["import_playbook"].removeprefix("tenant.gpu.")
            assert (AWX.parents[1] / f"playbooks/{name}.yml").is_file()


def test_nothing_reaches_teardown_but_through_the_approval_and_the_consent() -> None:
    [play] = read("templates.yml")
    [workflow] = [
        task["awx.awx.workflow_job_template"] for task in play["tasks"] if task["name"].endswith("person in it")
    ]
    leads_to = {
        node["identifier"]: [after["identifier"] for after in (node.get("related") or {}).get("success_nodes", [])]
        for node in workflow["workflow_nodes"]
    }
    assert leads_to == {"harvest": ["ask"], "ask": ["consent"], "consent": ["teardown"], "teardown": []}
    assert not [
        node
        for node in workflow["workflow_nodes"]
        if {"always_nodes", "failure_nodes"} & set(node.get("related") or {})
    ]
    kinds = {node["identifier"]: node["unified_job_template"]["type"] for node in workflow["workflow_nodes"]}
    assert kinds["ask"] == "workflow_approval"


def test_the_question_names_the_verb_that_the_job_after_it_consents_to() -> None:
    [play], [consent] = read("templates.yml"), read("project/consent.yml")
    [task] = consent["tasks"]
    verb = task["ansible.builtin.command"]["argv"][2]
    [name] = [
        node["unified_job_template"]["name"]
        for each in play["tasks"]
        for node in each.get("awx.awx.workflow_job_template", {}).get("workflow_nodes", [])
        if node["identifier"] == "ask"
    ]
    assert name.startswith(f"approve {verb} ")


def test_the_consent_is_read_from_awx_and_names_nobody_itself() -> None:
    [play] = read("project/consent.yml")
    [task] = play["tasks"]
    words = [str(word) for word in task["ansible.builtin.command"]["argv"]]
    assert words[:2] == ["gpu-tenant", "approve"]
    numbered = [
        "5" if "awx_workflow_job_id" in word else "box-1" if "inventory_hostname" in word else word for word in words
    ]
    context: click.Context = approve_command.make_context("approve", numbered[2:])
    assert (context.params["awx_workflow"], context.params["approver"], context.params["box"]) == (5, "", "box-1")

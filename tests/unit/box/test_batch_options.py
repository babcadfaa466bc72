# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The one door for what a job asks of Slurm."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import batch_options, supervisor_client
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import supervisor_task


def test_options_become_words() -> None:
    options = {
        "partition": "gpu,preempt", "account": "lab_7", "qos": "", "time": "1-08:00:00", "gres": "gpu:a100:2",
        "mem": "64G", "cpus_per_task": 8, "notice_s": 400, "constraint": "a100&ib", "dependency": "afterok:12",
    }  # fmt: skip
    assert batch_options.words(options, gpus=4, free=["--nice=100"]) == [
        "--partition=gpu,preempt",
        "--account=lab_7",
        "--time=1-08:00:00",
        "--gres=gpu:a100:2",
        "--mem=64G",
        "--cpus-per-task=8",
        "--constraint=a100&ib",
        "--dependency=afterok:12",
        "--signal=B:TERM@400",
        "--nice=100",
    ]


def test_gpus_are_those_of_the_run_unless_gres_says_otherwise() -> None:
    assert batch_options.words({}, gpus=2) == ["--gres=gpu:2"]
    assert batch_options.words({"gres": ""}, gpus=2) == [], "an empty value means none, never the default"
    assert batch_options.words({}) == []


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"partiton": "gpu"}, "partiton"),
        ({"partition": "gpu --wrap=x"}, "partition"),
        ({"account": "$(id)"}, "account"),
        ({"qos": "a\nb"}, "qos"),
        ({"time": "soon"}, "time"),
        ({"time": 60}, "time"),
        ({"mem": "64 GB"}, "mem"),
        ({"cpus_per_task": 0}, "cpus_per_task"),
        ({"cpus_per_task": "8"}, "cpus_per_task"),
        ({"gres": "gpu:"}, "gres"),
        ({"dependency": "after ok"}, "dependency"),
        ({"notice_s": 70000}, "notice_s"),
        ({"nodelist": ";reboot"}, "nodelist"),
        ({"exclude": "-x"}, "exclude"),
        ({"constraint": "'"}, "constraint"),
        ({"reservation": "a b"}, "reservation"),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_fix(options: dict[str, Any], key: str) -> None:
    with pytest.raises(TenantFailure) as failure:
        batch_options.words(options)
    assert (failure.value.kind, failure.value.safe) == ("config", "no job was handed in")
    assert key in failure.value.what
    assert failure.value.fix


@pytest.mark.parametrize(("limit", "notice", "fits"), [("3", None, False), ("4", None, True), ("10", 600, False)])
def test_a_time_limit_within_the_notice_is_refused(limit: str, notice: int | None, fits: bool) -> None:
    """Slurm may tell a minute early: a job that is told at once trains nothing, and would be queued again for ever."""
    options = {"time": limit, **({"notice_s": notice} if notice else {})}
    found = list(batch_options.problems(options))
    assert ([key for key, _what, _fix in found] == []) is fits
    assert batch_options.words({"time": "UNLIMITED"}) == ["--time=UNLIMITED"]


@pytest.mark.parametrize(
    "word",
    ["--wrap=reboot", "--no-requeue", "--array=0-3", "-J", "-Jmine", "--job-name=x", "-o/x", "--signal=KILL@1", "gpu"],
)
def test_what_makes_the_job_ours_is_not_overridden(word: str) -> None:
    with pytest.raises(TenantFailure):
        batch_options.words({}, free=[word])


def test_a_run_over_several_nodes_gets_one_launcher_and_its_gpus_on_each() -> None:
    assert batch_options.words({"partition": "gpu"}, gpus=8, nodes=2) == [
        "--partition=gpu",
        "--gres=gpu:8",
        "--nodes=2",
        "--ntasks-per-node=1",
    ]
    with pytest.raises(TenantFailure, match="array_tasks is 3, and the run trains one cell on 2 nodes"):
        batch_options.words({"array_tasks": 3}, nodes=2)


@pytest.mark.parametrize("word", ["--nodes=2", "-N2", "--ntasks=4", "-n4", "--ntasks-per-node=8"])
def test_how_many_nodes_is_asked_for_in_one_place(word: str) -> None:
    with pytest.raises(TenantFailure, match="the run says how many nodes"):
        batch_options.words({}, free=[word])


@pytest.mark.parametrize(("detach", "refused"), [("sbatch", False), ("setsid", True)])
def test_the_module_refuses_them_where_there_is_no_batch_system(detach: str, refused: bool) -> None:
    params = dict.fromkeys(("run", "run_id", "pyz", "epoch")) | {"tenant_root": "/x", "state": "started"}
    params |= {"detach": detach, "detach_options": [], "batch": {"partition": "gpu"}, "gpus": 1}
    task = supervisor_task.Task(params, lambda argv, text: (0, "", ""), "python")
    if refused:
        with pytest.raises(TenantFailure, match="detaches by setsid"):
            task._detach_words()
        return
    assert task._detach_words() == ["--partition=gpu", "--gres=gpu:1"]


def test_a_run_that_waits_for_its_turn_is_neither_dead_nor_awaited() -> None:
    cell = {"cell": "c", "state": "queued", "liveness": "none", "why": ""}
    run = {"run_id": "r", "state": "queued", "cells": [cell], "blocked_by": [], "waits_for": "Slurm job 12 is PENDING"}
    status = {"box": "b", "daemon": {"alive": False}, "runs": [run]}
    assert supervisor_client.judge_start(status, "r") == ("live", "it waits for its turn")
    begun = {**status, "batch": {"meaning": "lives"}}
    assert supervisor_client.judge_start(begun, "r") == ("wait", "its job begins")
    assert supervisor_client.judge_start({**begun, "runs": [{**run, "waits_for": ""}]}, "r")[0] == "dead"

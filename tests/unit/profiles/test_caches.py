# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a run's caches lie, on every platform and whether or not it has mirrors: told by the run, and people win."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import run_record

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "deploy"
PROFILES = sorted((ROOT / "inventories/profiles/group_vars").glob("*.yml"))
NAMES = {"HF_HOME", "MODELSCOPE_CACHE", "PIP_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME"}
SPEC = {
    "id": "r", "spec_sha256": "a" * 64,
    "work_sha256": "c" * 64, "code_sha256": "b" * 64, "command": ["python"], "workdir": ".", "secrets": [],
    "cells": [], "artifacts": [], "inputs": [], "tracker": {"name": "none"}, "parts": [], "nodes": {}, "checkpoint": {},
    "progress": {}, "retries": {}, "grace_s": 30, "stall_s": 1800, "cell_timeout_s": 0,
    "on_fail": "continue", "resources": {},
}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return found


def known(profile: dict[str, Any], env: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """The variables of a deploy."""
    endpoint = {"generation": 1, "provider_id": "7", "user": "lab"}
    facts = {"run_spec": {**SPEC, "env": env or {}}, "box_endpoint": endpoint}
    of_play = {"ansible_facts": facts, "ansible_user": "lab", "platform_ssh_user": "lab"}
    return {**profile, **load(ROLE / "defaults/main.yml"), **load(ROLE / "vars/main.yml"), **of_play, **more}


def rendered(name: str, variables: dict[str, Any]) -> Any:
    return Templar(loader=DataLoader(), variables=variables).template(variables[name])


def of_the_run(variables: dict[str, Any]) -> dict[str, str]:
    """What the run record gives the trainer, which is what the fetcher of inputs and the secrets are given."""
    (name,) = re.findall(r"'env': (\w+),", variables["__deploy_run"])
    endpoint, spec = variables["ansible_facts"]["box_endpoint"], variables["ansible_facts"]["run_spec"]
    box = {"name": "b", "tenant_root": "/d/gpu-tenant", "python": "/usr/bin/python3", "env": rendered(name, variables)}
    found: dict[str, str] = run_record(spec, endpoint, "p", box)["env"]
    assert found.pop("PYTHONPATH") == ""
    assert found == rendered("__deploy_calling_env", variables)
    return found


def shipped(name: str) -> dict[str, Any]:
    return load(ROOT / f"inventories/profiles/group_vars/{name}.yml")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_run_of_every_platform_is_told_where_its_caches_lie(path: Path) -> None:
    variables = known(load(path))
    told = of_the_run(variables)
    assert set(told) == NAMES
    data_dir = rendered("platform_data_dir", variables)
    assert told["HF_HOME"] == rendered("platform_hf_home", variables)
    assert [told[name] for name in ("PIP_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME")] == [
        f"{data_dir}/.cache/pip", f"{data_dir}/.cache/torch", f"{data_dir}/.cache",
    ]  # fmt: skip


def test_what_people_set_wins_also_where_pip_installs_the_requirements() -> None:
    env = {"PIP_CACHE_DIR": "/mine", "LD_PRELOAD": "/x.so"}
    variables = known(shipped("vast"), env, deploy_env={"PIP_CACHE_DIR": "/teams", "TORCH_HOME": "/teams/torch"})
    told = of_the_run(variables)
    assert told["PIP_CACHE_DIR"] == "/mine"
    assert told["TORCH_HOME"] == "/teams/torch"
    assert told["XDG_CACHE_HOME"] == "/workspace/.cache"
    of_pip = rendered("__deploy_cache_env", variables)
    assert set(of_pip) == NAMES
    assert of_pip["PIP_CACHE_DIR"] == "/mine"
    (install,) = [task for task in load(ROLE / "tasks/requirements.yml") if "environment" in task]
    mirrors = {"environment": {"PIP_CACHE_DIR": "/old", "https_proxy": "http://p"}, "pip_args": ""}
    variables["ansible_facts"]["box_mirrors"] = mirrors
    given = Templar(loader=DataLoader(), variables=variables).template(install["environment"])
    assert given == {**of_pip, "https_proxy": "http://p"}


@pytest.mark.parametrize(
    ("durable", "kept"),
    [
        ({"platform_inode_cap": 200000}, False),
        ({"platform_inode_cap": None, "platform_durable_cap_gb": 10}, False),
        ({"platform_inode_cap": None}, True),
        ({"platform_inode_cap": 200000, "platform_durable_kind": "pull"}, True),
        ({"platform_inode_cap": 200000, "platform_durable_path": "/root/autodl-f"}, True),
    ],
)
def test_a_shared_mount_with_a_quota_is_filled_by_no_cache_but_the_one_that_the_profile_puts_there(
    durable: dict[str, Any], kept: bool
) -> None:
    moved = {"platform_data_dir": "/root/autodl-fs/lab", "platform_hf_home": "/root/autodl-fs/hf"}
    variables = known({**shipped("autodl"), **moved, **durable})
    told = of_the_run(variables)
    models = {"HF_HOME": "/root/autodl-fs/hf", "MODELSCOPE_CACHE": "/root/autodl-fs/modelscope"}
    assert told.items() >= models.items()
    assert (set(told) == NAMES) is kept
    assert kept or set(told) == set(models)


def test_a_profile_without_a_place_for_models_names_none() -> None:
    told = of_the_run(known({**shipped("ssh"), "platform_hf_home": ""}))
    assert set(told) == NAMES - {"HF_HOME", "MODELSCOPE_CACHE"}

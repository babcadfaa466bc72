# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The cap on files that a profile knows for its durable mount reaches every push of the role deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[3] / "roles" / "deploy"


def load(path: str) -> Any:
    return DataLoader().load_from_file(str(ROLE / path), trusted_as_template=True)


def test_every_push_is_told_of_it() -> None:
    tasks = [task for file in sorted((ROLE / "tasks").glob("*.yml")) for task in load(f"tasks/{file.name}")]
    pushes = [task["tenant.gpu.checked_sync"] for task in tasks if "tenant.gpu.checked_sync" in task]
    assert [push["direction"] for push in pushes] == ["push"] * 3
    assert {push.get("inode_cap") for push in pushes} == {"{{ deploy_inode_cap }}"}


@pytest.mark.parametrize(
    ("kind", "root", "cap", "expected"),
    [
        ("mount", "/root/autodl-fs/gpu-tenant", 200000, 200000),
        ("mount", "/root/autodl-fs", 200000, 200000),
        ("mount", "/root/autodl-fs-2/gpu-tenant", 200000, 0),
        ("mount", "/root/autodl-tmp/gpu-tenant", 200000, 0),
        ("mount", "/root/autodl-fs/gpu-tenant", None, 0),
        ("pull", "/root/autodl-fs/gpu-tenant", 200000, 0),
    ],
)
def test_it_holds_for_what_lies_on_the_durable_mount(kind: str, root: str, cap: int | None, expected: int) -> None:
    profile = {"platform_durable_kind": kind, "platform_durable_path": "/root/autodl-fs", "platform_inode_cap": cap}
    templar = Templar(loader=DataLoader(), variables={**profile, "deploy_root": root})
    assert int(templar.template(load("defaults/main.yml")["deploy_inode_cap"])) == expected

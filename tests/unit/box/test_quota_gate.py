# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The quota of a durable mount keeps a cell from starting where the file system itself shows plenty."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.tenant.gpu.plugins.module_utils.box import disk_use, gates, mount_answer, run_record
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

ROOT = Path(__file__).parents[3]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(gates, "durable_problem", lambda durable, root: "")
    (tmp_path / "env.snap").write_bytes(b"x" * 950_000)
    return {"kind": "mount", "path": str(tmp_path), "cap_bytes": 1_000_000}


def test_a_used_up_quota_is_named_with_what_uses_it(mount: dict[str, Any]) -> None:
    (said,) = gates.refusals(mount["path"], {"durable": mount, "limits": {"min_free_bytes": 500_000}})
    assert "of the 1000000 bytes of its quota are used (most of it: env.snap" in said


@pytest.mark.parametrize("cap", [0, 100_000_000])
def test_room_in_the_quota_or_no_quota_starts(mount: dict[str, Any], cap: int) -> None:
    run = {"durable": {**mount, "cap_bytes": cap}, "limits": {"min_free_bytes": 500_000}}
    assert gates.refusals(mount["path"], run) == []


def test_a_mount_that_cannot_be_counted_lacks_nothing(mount: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_words: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(disk_use, "measured_use", unreadable)
    assert gates.refusals(mount["path"], {"durable": mount, "limits": {"min_free_bytes": 1}}) == []


def test_the_supervisor_is_told_of_the_quota(tmp_path: Path) -> None:
    run = {
        "project": "p", "box": "b", "generation": 1, "provider_id": "7", "run_id": "r", "spec_sha256": "a" * 64,
        "code_sha256": "b" * 64, "python": "/usr/bin/python3", "command": ["python"], "workdir": "/",
        "cells": [{"id": "c"}], "durable": {"kind": "mount", "path": "/mnt", "cap_bytes": 5_000_000_000},
    }  # fmt: skip
    assert run_record.check_run(run)["durable"]["cap_bytes"] == 5_000_000_000
    with pytest.raises(Refused, match="cap_bytes"):
        run_record.check_run({**run, "durable": {"kind": "mount", "path": "/mnt", "cap_bytes": "5 GB"}})


@pytest.mark.parametrize(
    ("cap", "said", "expected"),
    [
        ("cap_bytes", {"platform_durable_cap_gb": 5}, 5 * 10**9),
        ("cap_bytes", {}, 0),
        ("inode_cap", {"platform_inode_cap": 200000}, 200000),
        ("inode_cap", {"platform_inode_cap": None}, 0),
        ("inode_cap", {}, 0),
    ],
)
def test_the_profile_tells_the_role(cap: str, said: dict[str, Any], expected: int) -> None:
    text = DataLoader().load_from_file(str(ROOT / "roles/deploy/vars/main.yml"), trusted_as_template=True)[
        "__deploy_run"
    ]
    found = re.search(rf"'durable': {{[^}}]*'{cap}': (.+?)(?:,\s*'inode_cap'|}})", text, re.DOTALL)
    assert found is not None
    # The expression alone: the whole record needs a deploy.
    from ansible.template import trust_as_template

    templar = Templar(loader=DataLoader(), variables=said)
    assert int(templar.template(trust_as_template("{{" + found[1] + "}}"))) == expected


def test_the_look_is_given_less_time_than_the_mount(mount: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        disk_use, "measured_use", lambda path, cap, within_s: asked.append(within_s) or disk_use.Use(cap, 0, True)
    )
    gates.refusals(mount["path"], {"durable": mount, "limits": {"min_free_bytes": 1}})
    assert asked[0] < mount_answer.WITHIN_S

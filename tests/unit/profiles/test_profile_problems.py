# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What is wrong with a profile is told with the file and the line that say so."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import profile_rules
from ansible_collections.tenant.gpu.plugins.module_utils.yaml_lines import Lines

from gpu_tenant import profile_docs

ROOT = Path(__file__).resolve().parents[3]
PROFILES = ROOT / "inventories/profiles/group_vars"
TODAY = datetime.date(2026, 11, 22)
RELEASE = "{verb: 释放, transport: console, stops_compute: true, stops_storage: true, keeps: [fs], reversible: false"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param("platform_detach:", "platform_detatch:", "did you mean platform_detach?", id="unknown key"),
        pytest.param("    locked_to: region", "    locked_in: region", "locked_in: is not a key", id="nested key"),
        pytest.param(
            "platform_durable_path: /root/autodl-fs",
            "platform_durable_path: /root/results",
            "/root/results lies on the system disk (tier 'system')",
            id="durable mount on the system disk",
        ),
        pytest.param(
            "platform_durable_path: /root/autodl-fs",
            "platform_durable_path: /",
            "is the system disk",
            id="the system disk itself",
        ),
        pytest.param(
            "platform_durable_path: /root/autodl-fs",
            "platform_durable_path: /root/autodl-tmp/results",
            "lies on tier 'disk', which does not outlive the box",
            id="durable mount on a disk that dies",
        ),
        pytest.param(
            RELEASE,
            RELEASE.replace("false", "true"),
            "释放 ends a rental for good",
            id="irreversible verb marked reversible",
        ),
        pytest.param(
            RELEASE,
            RELEASE.replace("false", "true").replace("释放", "bye"),
            "bye gives up the data folder",
            id="irreversible by what it keeps",
        ),
        pytest.param("platform_inode_cap: 200000", "platform_inode_cap: many", "integer or null is wanted", id="type"),
    ],
)
def test_file_and_line(before: str, after: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (PROFILES / "autodl.yml").read_text(encoding="utf-8")
    assert text.count(before) == 1
    broken = tmp_path / "inventories/profiles/group_vars/autodl.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(text.replace(before, after), encoding="utf-8")
    line = 1 + text[: text.index(before)].count("\n")
    assert profile_docs.main(["--root", str(tmp_path)]) == 2
    told = [one for one in capsys.readouterr().err.splitlines() if said in one]
    assert len(told) == 1
    assert f"{broken}:{line}: " in told[0]
    assert "Fix: " in told[0]


def test_what_is_missing_is_told_at_the_beginning_of_what_lacks_it() -> None:
    lines = Lines("a: 1\nb:\n  - c: 2\n    d: 3\n  - e.f: 4\n")
    assert [lines.line_of(key) for key in ("a", "b[0].d", "b[0].x", "b[1]", "nowhere")] == [1, 4, 3, 5, 1]


def test_a_team_that_names_its_mount_for_one_box_needs_no_table_of_tiers() -> None:
    shipped = yaml.safe_load((PROFILES / "ssh.yml").read_text(encoding="utf-8"))
    resolved = {**shipped, "platform_data_dir": "/root", "platform_hf_home": "/root/hf"}
    own = {**resolved, "platform_durable_kind": "mount", "platform_durable_path": "/mnt/nas"}
    assert profile_rules.problems_after_merge(own, "ssh") == []
    (problem,) = profile_rules.problems_after_merge({**own, "platform_durable_path": "/"}, "ssh")
    assert problem.key == "platform_durable_path"


@pytest.mark.parametrize(("verified", "months"), [("2025-11", 12), ("2025-10", 13), ("2026-11", 0), ("2020-01", 82)])
def test_facts_are_stale_after_a_year(verified: str, months: int) -> None:
    assert profile_rules.months_old(verified, TODAY) == months
    told = profile_rules.stale(verified, TODAY, "own/box.yml:7")
    assert bool(told) is (months > 12)
    if told:
        assert told.startswith("own/box.yml:7: platform_verified: ")
        assert f"{months} months ago ({verified})" in told

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The profile of Slurm, beside what all profiles are checked for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import artifact_tiers, profile_rules
from sample_profiles import SAMPLES

ROOT = Path(__file__).resolve().parents[3]
PROFILE: dict[str, Any] = yaml.safe_load((ROOT / "inventories/profiles/group_vars/slurm.yml").read_text())
SAMPLE = next(sample for sample in SAMPLES if sample["platform_name"] == "slurm")


def test_what_is_kept_lies_on_the_shared_file_system() -> None:
    """SLURM5: nothing of ours lies below a $TMPDIR, which a job's end wipes and no other node sees."""
    assert PROFILE["platform_shared_fs"] is True
    assert PROFILE["platform_data_dir"].startswith("/scratch/")
    assert PROFILE["platform_hf_home"].startswith("{{ platform_data_dir }}/")
    assert artifact_tiers.tier_of("/scratch/ada", PROFILE["platform_storage"]) == "disk"
    assert not any("tmp" in tier["path"].lower() for tier in PROFILE["platform_storage"])


def test_compute_ends_by_scancel_and_files_go_through_the_gate() -> None:
    verbs = PROFILE["platform_verbs"]
    assert [each["verb"] for each in verbs["park"]] == ["scancel"]
    assert all(each["keeps"] == ["disk"] and each["reversible"] for each in verbs["park"])
    gated = [each["verb"] for each in verbs["full_stop"] if not artifact_tiers.keeps_every_artifact(each["keeps"], [])]
    assert gated == ["delete the folder"]


def test_its_clocks_and_its_ways() -> None:
    assert any("KillWait" in clock["effect"] for clock in PROFILE["platform_clocks"])
    assert PROFILE["platform_spot"] == {"available": True, "grace_s": 30, "signal": "SIGTERM"}
    assert PROFILE["platform_detach"] == "sbatch"
    assert PROFILE["platform_reboot_hook"] == "", "nothing is written into a crontab of a login node"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"platform_batch": {"partition": "a b"}}, "platform_batch.partition"),
        ({"platform_batch": {"time": "2"}}, "platform_batch.time"),
        ({"platform_batch": {"cpus": 1}}, "platform_batch.cpus"),
        ({"platform_batch": {"partition": "gpu"}, "platform_detach": "setsid"}, "platform_batch"),
    ],
)
def test_batch_options_of_a_profile_are_checked(changes: dict[str, Any], key: str) -> None:
    wrong = {**copy.deepcopy(SAMPLE), **changes}
    assert [problem.key for problem in profile_rules.problems_after_merge(wrong, "slurm")] == [key]

# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which hosts are a platform's ssh proxy: what the shipped profiles say, and what becomes of a box behind one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils import box_endpoint, profile_rules, ssh_proxies

PROFILES = Path(__file__).resolve().parents[3] / "inventories" / "profiles" / "group_vars"


def shipped(platform: str) -> dict[str, Any]:
    profile: dict[str, Any] = yaml.safe_load((PROFILES / f"{platform}.yml").read_text(encoding="utf-8"))
    return profile


@pytest.mark.parametrize(
    ("platform", "host", "instead"),
    [
        ("ssh", "ssh.runpod.io", "TCP port 22"),
        ("ssh", "SSH.RunPod.io.", "TCP port 22"),
        ("vast", "ssh5.vast.ai", "direct port"),
        ("vast", "ssh12.vast.ai", "direct port"),
        ("ssh", "203.0.113.7", ""),
        ("ssh", "ssh.runpod.io.example.org", ""),
        ("ssh", "ssh-runpod-io", ""),
        ("vast", "203.0.113.7", ""),
        ("autodl", "connect.cqa1.seetacloud.com", ""),
    ],
)
def test_the_profiles_know_the_proxies_of_their_platforms(platform: str, host: str, instead: str) -> None:
    endpoint = box_endpoint.from_inventory("a1", host.rstrip("."), 22, "root", "", 1)
    ssh_proxies.mark(endpoint, shipped(platform), [host, None])
    assert endpoint["proxy"] is bool(instead)
    assert bool(endpoint["proxy_instead"]) is bool(instead)
    assert instead in endpoint["proxy_instead"]


def test_a_name_of_ones_own_for_the_proxy_is_seen_through() -> None:
    endpoint = box_endpoint.from_inventory("a1", "my-pod", 22, "root", "", 1)
    ssh_proxies.mark(endpoint, shipped("ssh"), ["my-pod", "ssh.runpod.io"])
    assert (endpoint["host"], endpoint["proxy"]) == ("my-pod", True)


def test_what_the_provider_or_ssh_called_a_proxy_stays_one() -> None:
    endpoint = box_endpoint.from_inventory("a1", "203.0.113.7", 22, "root", "", 1, proxy=True)
    ssh_proxies.mark(endpoint, {ssh_proxies.PROFILE_KEY: []}, ["203.0.113.7"])
    assert (endpoint["proxy"], endpoint["proxy_instead"]) == (True, "")


@pytest.mark.parametrize(
    "wrong",
    ["ssh.runpod.io", [{"host": "ssh.runpod.io"}], [{"host": "a b", "instead": "x"}], [{"host": "a", "instead": ""}]],
)
def test_a_profile_that_names_proxies_wrongly_is_refused(wrong: Any) -> None:
    problems = profile_rules.problems_as_written({**shipped("vast"), ssh_proxies.PROFILE_KEY: wrong}, "vast")
    assert [problem.key.split("[")[0] for problem in problems] == [ssh_proxies.PROFILE_KEY]
